"""posenet bag: a recorded bag in, a bag with poses out."""

import re

import cv2
import numpy as np
import pytest
from goldens import ROOT

rosbags = pytest.importorskip('rosbags.rosbag2', reason='the package rosbags is not installed')

from rosbags.highlevel import AnyReader  # noqa: E402

from posenet_ros import PoseNetError  # noqa: E402
from posenet_ros.commands import main  # noqa: E402
from posenet_ros.io import bag  # noqa: E402
from posenet_ros.io.sampling import sampled_images  # noqa: E402

START = 1_700_000_000_000_000_000


@pytest.fixture(params=['mcap', 'sqlite3'])
def recorded(request, tmp_path, astronaut):
    """Three images, one of them broken, and two compressed ones, 0.1 s apart."""
    store = bag.typestore()
    types = store.types
    path = tmp_path / 'recorded'
    storage = bag.STORAGE_FORMATS[request.param]
    with rosbags.Writer(path, version=9, storage_plugin=storage) as writer:
        raw = writer.add_connection('/camera/image_raw', bag.IMAGE_TYPE, typestore=store)
        compressed = writer.add_connection('/rear/compressed', bag.COMPRESSED_TYPE, typestore=store)
        for i, connection in enumerate((raw, compressed, raw, compressed, raw)):
            time = START + i * 100_000_000
            stamp = types['builtin_interfaces/msg/Time'](sec=1000 + i, nanosec=i)
            header = types['std_msgs/msg/Header'](stamp=stamp, frame_id=f'frame_{i}')
            if connection is raw:
                message = types[bag.IMAGE_TYPE](
                    header=header, height=512, width=512, step=1536, is_bigendian=0,
                    encoding='rgb8' if i != 2 else 'rgb9', data=astronaut.reshape(-1),
                )  # fmt: skip
            else:
                jpeg = cv2.imencode('.jpg', astronaut[..., ::-1])[1].reshape(-1)
                message = types[bag.COMPRESSED_TYPE](header=header, format='jpeg', data=jpeg)
            writer.write(connection, time, store.serialize_cdr(message, message.__msgtype__))
    return path


def read(path):
    with AnyReader([path], default_typestore=bag.typestore()) as reader:
        return [
            (connection.topic, time, reader.deserialize(data, connection.msgtype))
            for connection, time, data in reader.messages()
        ]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_poses_lie_at_the_images_times_with_the_images_headers(
    recorded, tmp_path, default_model_config, net, astronaut, capsys, storage
):
    target = tmp_path / 'out'
    arguments = ['bag', str(recorded), str(target), '--annotated', '--storage', storage]
    if default_model_config.model_url:
        arguments += ['--model-url', default_model_config.model_url, '--multiplier', '0.75']
    assert main(arguments) == 0
    assert '1 images could not be read' in capsys.readouterr().out
    messages = read(target)
    poses = [entry for entry in messages if entry[0].endswith('/poses')]
    assert [(topic, (time - START) // 100_000_000) for topic, time, _ in poses] == [
        ('/camera/image_raw/poses', 0),
        ('/rear/compressed/poses', 1),
        ('/rear/compressed/poses', 3),
        ('/camera/image_raw/poses', 4),
    ]
    (expected,) = net.estimate_multiple_poses(astronaut)
    for _, time, message in poses:
        i = (time - START) // 100_000_000
        assert (message.header.frame_id, message.header.stamp.sec) == (f'frame_{i}', 1000 + i)
        assert (message.image_width, message.image_height) == (512, 512)
        (person,) = message.poses
        assert [keypoint.id for keypoint in person.keypoints] == list(range(17))
        nose = person.keypoints[0]
        assert (nose.x, nose.y) == pytest.approx(tuple(expected.keypoints[0]), abs=2)
    drawn = [entry for entry in messages if entry[0] == '/camera/image_raw/annotated']
    assert len(drawn) == 2
    assert drawn[0][2].data.size == 512 * 512 * 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ['out', 'recorded']


def test_only_the_topics_asked_for_are_read(recorded, tmp_path):
    counts = bag.add_poses(
        recorded, tmp_path / 'out', lambda image: [], topics=['/rear/compressed']
    )
    assert counts == {'images': 2, 'people': 0, 'broken': 0}


def test_mistakes_are_named_and_leave_nothing_behind(recorded, tmp_path):
    def run(source=recorded, target=tmp_path / 'out', **options):
        bag.add_poses(source, target, lambda image: [], **options)

    with pytest.raises(PoseNetError, match='no bag /nowhere'):
        run(tmp_path.__class__('/nowhere'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(PoseNetError, match='empty is not a bag'):
        run(tmp_path / 'empty')
    with pytest.raises(PoseNetError, match='no images on /left; it has images on /camera'):
        run(topics=['/left'])
    with pytest.raises(PoseNetError, match='exists already'):
        run(target=recorded)
    with pytest.raises(PoseNetError, match='no folder'):
        run(target=tmp_path / 'no/out')

    def fail(image):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bag.add_poses(recorded, tmp_path / 'out', fail)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['empty', 'recorded']


@pytest.mark.parametrize('name', bag.DEFINITIONS)
def test_definitions_are_those_of_the_package(name):
    text = (ROOT / f'msg/{name.rsplit("/", 1)[1]}.msg').read_text()
    lines = [re.sub(r'#.*', '', line).strip() for line in text.splitlines()]
    assert [line for line in lines if line] == bag.DEFINITIONS[name].splitlines()


def test_images_of_a_bag_are_sampled(recorded, astronaut):
    """All but the broken one."""
    images = list(sampled_images(recorded, 100))
    assert len(images) == 4
    assert all(np.abs(image.astype(int) - astronaut).mean() < 5 for image in images)
