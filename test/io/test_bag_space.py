"""posenet bag --depth: people of a recording in metres."""

import numpy as np
import pytest
from rendered_people import PINHOLE, Person, Stage, poses_of, render

pytest.importorskip('mcap.writer', reason='the package mcap is not installed')
rosbags = pytest.importorskip('rosbags.rosbag2', reason='the package rosbags is not installed')

from rosbags.highlevel import AnyReader  # noqa: E402

from posenet_ros import PoseNetError  # noqa: E402
from posenet_ros.commands import main  # noqa: E402
from posenet_ros.io import bag, bag_writer  # noqa: E402
from posenet_ros.space.lift import GUESSED, MEASURED  # noqa: E402

FRAME, INFO = '/camera/color/image_raw', '/camera/color/camera_info'
DEPTH = '/camera/aligned_depth_to_color/image_raw'
STEP = 33_333_333  # nanoseconds between images


@pytest.fixture(scope='module')
def walk():
    """Somebody who walks towards the camera, in 8 frames."""
    return [
        render(Stage(PINHOLE, (Person(z=4.0 - 0.1 * i, arms_aside=(0.4, 0.4)),), noise='kinect'))
        for i in range(8)
    ]


def record(path, walk, *, late=0, every=1, depth_frame='camera', info=True, name=DEPTH):
    """Images, and depth images `late` nanoseconds later in the bag, of every so many images."""
    store = bag.typestore()
    types = store.types

    def header(i, frame='camera'):
        seconds, nanoseconds = divmod(1000_000_000_000 + i * STEP, 1_000_000_000)
        stamp = types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds)
        return types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame)

    def image(i, pixels, encoding, frame='camera'):
        return types[bag.IMAGE_TYPE](
            header=header(i, frame), height=480, width=640, encoding=encoding, is_bigendian=0,
            step=pixels.strides[0], data=np.ascontiguousarray(pixels).view(np.uint8).reshape(-1),
        )  # fmt: skip

    none = types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
    camera_info = types['sensor_msgs/msg/CameraInfo'](
        header=header(0), height=480, width=640, distortion_model='plumb_bob', d=np.zeros(5),
        k=np.array([525.0, 0, 319.5, 0, 525, 239.5, 0, 0, 1]), r=np.eye(3).reshape(-1),
        p=np.array([525.0, 0, 319.5, 0, 0, 525, 239.5, 0, 0, 0, 1, 0]),
        binning_x=0, binning_y=0, roi=none,
    )  # fmt: skip
    entries = []
    for i, seen in enumerate(walk):
        at = 1_700_000_000_000_000_000 + i * STEP
        entries.append((at, FRAME, image(i, seen.colour, 'rgb8')))
        if info:
            entries.append((at + 1, INFO, camera_info))
        if i % every == 0:
            entries.append((at + 2 + late, name, image(i, seen.depth, '16UC1', depth_frame)))
    with rosbags.Writer(
        path, version=9, storage_plugin=bag_writer.STORAGE_FORMATS['mcap']
    ) as writer:
        connections = {}
        for at, topic, message in sorted(entries, key=lambda entry: entry[0]):
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, message.__msgtype__, typestore=store
                )
            data = store.serialize_cdr(message, message.__msgtype__)
            writer.write(connections[topic], at, data)
    return path


def true_poses(walk):
    """Gives add_poses the poses of the rendered people."""
    frames = iter(walk)
    return lambda image, topic, seconds: poses_of(next(frames), PINHOLE)


def read(path, topic):
    with AnyReader([path], default_typestore=bag.typestore()) as reader:
        return [
            (time, reader.deserialize(data, connection.msgtype))
            for connection, time, data in reader.messages()
            if connection.topic == topic
        ]


def torsos(messages):
    return [m.poses[0].torso.pose.position.z for _, m in messages]


def true_torsos(walk):
    return [seen.joints[0][[5, 6, 11, 12], 2].mean() for seen in walk]


@pytest.mark.parametrize('late', [0, 150_000_000])
def test_people_are_placed_by_the_depth_image_of_their_moment(tmp_path, walk, late):
    """Also if it lies later in the bag: stamps count."""
    problems = []
    source = record(tmp_path / 'recorded', walk, late=late)
    bag.add_poses(
        source, tmp_path / 'out', true_poses(walk), topics=[FRAME], lift=True, depth=DEPTH,
        problem=problems.append,
    )  # fmt: skip
    assert problems == []
    flat = read(tmp_path / 'out', f'{FRAME}/poses')
    lifted = read(tmp_path / 'out', f'{FRAME}/poses_3d')
    assert len(flat) == len(lifted) == len(walk)
    for (time, poses), (other, people) in zip(flat, lifted, strict=True):
        assert time == other and str(people.header) == str(poses.header)
        assert str(people.depth_stamp) == str(people.header.stamp)
        assert people.poses[0].torso_state == MEASURED
    assert torsos(lifted) == pytest.approx(true_torsos(walk), abs=0.08)


def test_depth_of_half_the_rate_is_the_nearest(tmp_path, walk):
    source = record(tmp_path / 'recorded', walk, every=2)
    bag.add_poses(
        source, tmp_path / 'out', true_poses(walk), topics=[FRAME], lift=True, depth=DEPTH
    )
    lifted = read(tmp_path / 'out', f'{FRAME}/poses_3d')
    assert len(lifted) == len(walk)
    assert torsos(lifted) == pytest.approx(true_torsos(walk), abs=0.2)  # 0.1 m a frame
    used = {m.depth_stamp.sec * 10**9 + m.depth_stamp.nanosec for _, m in lifted}
    assert len(used) == 4 and 0 not in used


def test_without_depth_people_are_placed_by_their_size(tmp_path, walk):
    source = record(tmp_path / 'recorded', walk)
    bag.add_poses(source, tmp_path / 'out', true_poses(walk), topics=[FRAME], lift=True)
    lifted = read(tmp_path / 'out', f'{FRAME}/poses_3d')
    assert {m.poses[0].torso_state for _, m in lifted} == {GUESSED}
    assert torsos(lifted) == pytest.approx(true_torsos(walk), rel=0.2)


def test_depth_that_is_not_registered_is_told_once_and_size_counts(tmp_path, walk):
    problems = []
    source = record(tmp_path / 'recorded', walk, depth_frame='depth_camera')
    bag.add_poses(
        source, tmp_path / 'out', true_poses(walk), topics=[FRAME], lift=True, depth=DEPTH,
        problem=problems.append,
    )  # fmt: skip
    (problem,) = problems
    assert 'it is not registered' in problem and 'depth_image_proc' in problem
    lifted = read(tmp_path / 'out', f'{FRAME}/poses_3d')
    assert {m.poses[0].torso_state for _, m in lifted} == {GUESSED}


def test_what_is_missing_is_named_before_anything_is_written(tmp_path, walk):
    source = record(tmp_path / 'recorded', walk[:1], info=False)
    with pytest.raises(PoseNetError, match='none on /camera/color/camera_info'):
        bag.add_poses(source, tmp_path / 'out', true_poses(walk), topics=[FRAME], lift=True)
    with pytest.raises(PoseNetError, match='no depth images on /elsewhere'):
        bag.add_poses(
            source, tmp_path / 'out', true_poses(walk), topics=[FRAME], lift=True,
            depth='/elsewhere',
        )  # fmt: skip
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_command_places_people(tmp_path, walk, default_model_config, capsys):
    source = record(tmp_path / 'recorded', walk)
    arguments = ['bag', str(source), str(tmp_path / 'out'), '--node', '--depth', DEPTH]
    if default_model_config.model_url:
        arguments += ['--model-url', default_model_config.model_url]
    assert main(arguments) == 0
    assert 'is left out' in capsys.readouterr().err  # the depth images are no pictures
    lifted = read(tmp_path / 'out', f'{FRAME}/poses_3d')
    measured = [
        person
        for _, m in lifted
        for person in m.poses
        if person.torso_state == MEASURED and person.score > 0.1
    ]
    assert len(measured) >= 4
    assert all(2.9 < person.torso.pose.position.z < 4.3 for person in measured)
