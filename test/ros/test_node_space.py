"""People in metres through the node: rendered people whose joints are known, as real topics."""

import array
import functools
import io
import struct

import numpy as np
import pytest
from geometry_msgs.msg import PoseArray as PositionArray
from goldens import ROOT
from PIL import Image as Picture
from posenet_ros.msg import Keypoint3D, PersonPose3D, PoseArray, PoseArray3D
from rendered_people import PINHOLE, Person, Stage, render
from ros_processes import (
    NODE,
    Camera,
    as_image,
    clear_people,
    collect_status,
    counts_endpoints,
    values_of,
)  # fmt: skip
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from visualization_msgs.msg import MarkerArray

pytestmark = pytest.mark.slow


@functools.cache
def scene():
    """Somebody who stands 3 metres away, in front of a wall."""
    person = Person(x=0.1, arms_aside=(0.5, 0.5), elbows=(0.4, 0.4))
    return render(Stage(PINHOLE, (person,), wall=4.5, noise='kinect'))


def camera_info(**values):
    k = [525.0, 0.0, 319.5, 0.0, 525.0, 239.5, 0.0, 0.0, 1.0]
    p = [525.0, 0.0, 319.5, 0.0, 0.0, 525.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    info = CameraInfo(width=640, height=480, k=k, p=p, distortion_model='plumb_bob', d=[0.0] * 5)
    for name, value in values.items():
        setattr(info, name, value)
    return info


class DepthCamera:
    """Colour and depth of the scene, a frame every 33 ms."""

    def __init__(self, peer, depth_kind=Image, depth_topic='depth/image_rect_raw', prefix=''):
        self.peer = peer
        self.camera = Camera(peer, f'{prefix}image_raw')
        self.info = peer.create_publisher(CameraInfo, f'{prefix}camera_info', 10)
        self.depth = peer.create_publisher(depth_kind, f'{prefix}{depth_topic}', 10)
        self.frame = 0
        self.colour = as_image(scene().colour)
        self.depth_image = as_image(scene().depth, '16UC1')
        self.camera_info = camera_info()
        self.offset = 0  # of the depth images' stamps, in nanoseconds
        self.every = 1  # how many frames have a depth image
        self.late = False  # the depth image comes after the image's poses

    def stamp(self, message, offset=0):
        now = 1_700_000_000_000_000_000 + self.frame * 33_333_333 + offset
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 1_000_000_000)

    def send(self):
        self.frame += 1
        self.info.publish(self.camera_info)
        depth = self.depth_image if self.every and self.frame % self.every == 0 else None
        if depth is not None:
            self.stamp(depth, self.offset)
            if not self.late:
                self.depth.publish(depth)
        self.stamp(self.colour)
        self.camera.publisher.publish(self.colour)
        self.peer.spin_for(0.06)
        if depth is not None and self.late:
            self.depth.publish(depth)
        self.peer.spin_for(0.02)

    def send_until(self, condition, timeout=40):
        def step():
            self.send()
            return condition()

        assert self.peer.spin_until(step, timeout), 'it never came true'


@pytest.fixture
def depth_camera(peer):
    return DepthCamera(peer)


@pytest.fixture
def outputs(peer):
    """What the node publishes, by topic."""
    return {
        'poses': peer.collect(PoseArray, f'{NODE}/poses'),
        'poses_3d': peer.collect(PoseArray3D, f'{NODE}/poses_3d'),
        'people': peer.collect(PositionArray, f'{NODE}/people'),
        'markers': peer.collect(MarkerArray, f'{NODE}/markers'),
    }


def stamps(messages):
    return [(message.header.stamp.sec, message.header.stamp.nanosec) for message in messages]


def measured(messages):
    """Messages in which somebody's torso was measured."""
    return [
        message
        for message in messages
        if any(p.torso_state == PersonPose3D.MEASURED for p in clear_people(message))
    ]


def torso_of(message):
    at = clear_people(message)[0].torso.pose.position
    return np.array([at.x, at.y, at.z])


def true_torso():
    return scene().joints[0][[5, 6, 11, 12]].mean(axis=0)


def test_people_are_where_they_are(start_node, peer, depth_camera, outputs):
    status = collect_status(peer)
    start_node(lift='depth')
    depth_camera.camera.wait_for_node()
    depth_camera.send_until(lambda: len(measured(outputs['poses_3d'])) >= 5)
    poses, poses_3d = outputs['poses'], outputs['poses_3d']
    peer.spin_for(0.3)
    assert stamps(poses) == stamps(poses_3d)  # one for each, in their order
    for flat, lifted in zip(poses, poses_3d, strict=True):
        assert lifted.header == flat.header
        assert [p.track_id for p in lifted.poses] == [p.track_id for p in flat.poses]
        assert [p.score for p in lifted.poses] == [p.score for p in flat.poses]
    last = measured(poses_3d)[-1]
    assert last.depth_stamp == last.header.stamp
    (person,) = clear_people(last)
    assert np.linalg.norm(torso_of(last) - true_torso()) < 0.12
    assert person.heading_known
    assert [keypoint.id for keypoint in person.keypoints] == list(range(17))
    for keypoint, joint in zip(person.keypoints, scene().joints[0], strict=True):
        if keypoint.state == Keypoint3D.UNKNOWN:
            assert np.isnan((keypoint.x, keypoint.z, keypoint.deviation_along)).all()
        elif keypoint.state == Keypoint3D.MEASURED:
            assert abs(keypoint.z - joint[2]) < 0.45  # never the wall, at 4.5
            assert 0 < keypoint.deviation_along < 0.3 and keypoint.deviation_across > 0
    assert sum(k.state == Keypoint3D.MEASURED for k in person.keypoints) >= 6
    covariance = np.reshape(person.torso.covariance, (6, 6))
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    # For packages that do not know ours.
    people = outputs['people'][-1]
    assert people.header.frame_id == 'camera' and len(people.poses) == 1
    assert people.poses[0].position.z == pytest.approx(true_torso()[2], abs=0.12)
    # Markers in space, and the distance in words.
    joints = next(m for m in outputs['markers'][-1].markers if m.ns == 'joints')
    assert 2.5 < np.median([point.z for point in joints.points]) < 3.5
    label = next(m for m in outputs['markers'][-1].markers if m.ns == 'label')
    assert label.text.endswith((', 2.9 m', ', 3.0 m', ', 3.1 m'))
    assert peer.spin_until(
        lambda: 'frames with / without depth' in values_of(status[-1] if status else {}), 5
    )


def test_distance_is_guessed_without_depth(start_node, peer, depth_camera, outputs):
    depth_camera.every = 0
    start_node(lift='size')
    depth_camera.camera.wait_for_node()
    poses_3d = outputs['poses_3d']
    depth_camera.send_until(lambda: len(poses_3d) >= 5 and clear_people(poses_3d[-1]))
    (person,) = clear_people(poses_3d[-1])
    assert person.torso_state == PersonPose3D.GUESSED
    assert not person.heading_known
    assert {k.state for k in person.keypoints} == {Keypoint3D.UNKNOWN}
    covariance = np.reshape(person.torso.covariance, (6, 6))
    apart = torso_of(poses_3d[-1])[2] - true_torso()[2]
    assert abs(apart) < 3 * np.sqrt(covariance[2, 2]) and covariance[2, 2] > 0.1**2
    label = next(m for m in outputs['markers'][-1].markers if m.ns == 'label')
    assert ', about ' in label.text and label.color.a < 0.5
    assert poses_3d[-1].depth_stamp.sec == 0
    assert depth_camera.depth.get_subscription_count() == 0


@counts_endpoints
def test_nothing_is_placed_by_default(start_node, peer, depth_camera, outputs):
    start_node()
    depth_camera.camera.wait_for_node()
    depth_camera.send_until(lambda: len(outputs['poses']) >= 3)
    assert peer.count_publishers(f'{NODE}/poses_3d') == peer.count_publishers(f'{NODE}/people') == 0
    assert depth_camera.depth.get_subscription_count() == 0


def test_depth_of_half_the_rate_that_comes_late_and_stops(start_node, peer, depth_camera, outputs):
    """Depth 8 ms beside every second image, after its poses; then none; then again."""
    depth_camera.every, depth_camera.offset, depth_camera.late = 2, 8_000_000, True
    start_node(lift='depth')
    depth_camera.camera.wait_for_node()
    poses, poses_3d = outputs['poses'], outputs['poses_3d']
    depth_camera.send_until(lambda: len(measured(poses_3d)) >= 6)
    recent = poses_3d[-6:]
    assert len(measured(recent)) >= 4  # images in between have a depth image within the slop
    depth_camera.every = 0  # the depth camera dies
    depth_camera.send()
    depth_camera.send_until(lambda: not measured(poses_3d[-3:]))
    (person,) = clear_people(poses_3d[-1])
    assert person.torso_state == PersonPose3D.GUESSED
    depth_camera.every = 2  # and comes back
    before = len(poses_3d)
    depth_camera.send_until(lambda: len(measured(poses_3d[before:])) >= 3)
    peer.spin_for(0.5)
    assert stamps(poses) == stamps(poses_3d)


def test_each_camera_has_its_own_depth(start_node, peer):
    """One of two cameras has no depth images: its people are placed by their size."""
    cameras = [DepthCamera(peer, prefix=f'{name}/') for name in ('left', 'right')]
    cameras[1].every = 0
    people = [peer.collect(PoseArray3D, f'{NODE}/{name}/poses_3d') for name in ('left', 'right')]
    start_node(cameras=['left', 'right'], lift='depth')
    for camera in cameras:
        camera.camera.wait_for_node()

    def step():
        for camera in cameras:
            camera.send()
        return len(measured(people[0])) >= 3 and any(map(clear_people, people[1]))

    assert peer.spin_until(step, 40)
    assert not measured(people[1])
    right = next(message for message in people[1] if clear_people(message))
    assert clear_people(right)[0].torso_state == PersonPose3D.GUESSED


def test_compressed_depth_is_read(start_node, peer, outputs):
    camera = DepthCamera(peer, CompressedImage, 'depth/image_rect_raw/compressedDepth')
    png = io.BytesIO()
    Picture.fromarray(scene().depth).save(png, 'png')
    message = CompressedImage(format='16UC1; compressedDepth png')
    message.header.frame_id = 'camera'
    message.data = array.array('B', struct.pack('<iff', 0, 0.0, 0.0) + png.getvalue())
    camera.depth_image = message
    start_node(lift='depth', depth_transport='compressedDepth')
    camera.camera.wait_for_node()
    camera.send_until(lambda: len(measured(outputs['poses_3d'])) >= 2)
    assert np.linalg.norm(torso_of(measured(outputs['poses_3d'])[-1]) - true_torso()) < 0.12


def test_mirrored_poses_are_people_where_they_are(start_node, peer, depth_camera, outputs):
    start_node(lift='depth', flip_horizontal=True)
    depth_camera.camera.wait_for_node()
    depth_camera.send_until(lambda: len(measured(outputs['poses_3d'])) >= 2)
    assert np.linalg.norm(torso_of(measured(outputs['poses_3d'])[-1]) - true_torso()) < 0.12


def hostile_depths():
    depth = scene().depth
    other = as_image(depth, '16UC1', frame_id='depth_camera')
    short = as_image(depth, '16UC1')
    short.data = short.data[:1000]
    return {
        'unknown encoding': as_image(scene().colour, 'rgb8'),
        'it is not registered to them. Launch depth_image_proc': other,
        '1000 bytes of data': short,
        'has no pixels': Image(header=other.header, encoding='16UC1'),
    }


def test_depth_that_cannot_be_used_is_told_and_poses_go_on(start_node, peer, depth_camera, outputs):
    node = start_node(lift='depth')
    depth_camera.camera.wait_for_node()
    poses, poses_3d = outputs['poses'], outputs['poses_3d']
    for words, message in hostile_depths().items():
        message.header.frame_id = message.header.frame_id or 'camera'
        if words == 'has no pixels':
            message.header.frame_id = 'camera'
        depth_camera.depth_image = message
        before = len(poses)
        depth_camera.send_until(
            lambda words=words, before=before: words in node.output and len(poses) >= before + 3
        )
        assert not measured(poses_3d[-1:])
    depth_camera.depth_image = as_image(np.zeros((480, 640), np.uint16), '16UC1')  # holes alone
    before = len(poses_3d)
    depth_camera.send_until(lambda: len(poses_3d) >= before + 5)
    assert clear_people(poses_3d[-1])[0].torso_state == PersonPose3D.GUESSED
    depth_camera.depth_image = as_image(scene().depth, '16UC1')
    before = len(poses_3d)
    depth_camera.send_until(lambda: measured(poses_3d[before:]))
    assert 'unexpected' not in node.output


def test_calibration_that_cannot_be_used_is_told_and_poses_go_on(
    start_node, peer, depth_camera, outputs
):
    node = start_node(lift='depth')
    depth_camera.camera.wait_for_node()
    poses, poses_3d = outputs['poses'], outputs['poses_3d']
    for words, info in {
        'nan is among its values': camera_info(k=[float('nan')] * 9),
        '320 x 240; this one has 640 x 480': camera_info(width=320, height=240),
        "Invalid distortion_model 'barrel'": camera_info(distortion_model='barrel', d=[0.1] * 5),
        'people cannot be placed without a calibration': camera_info(k=[0.0] * 9, p=[0.0] * 12),
    }.items():
        depth_camera.camera_info = info
        before = len(poses_3d)
        depth_camera.send_until(
            lambda words=words, before=before: words in node.output and len(poses_3d) > before + 3
        )
        assert all(p.torso_state == PersonPose3D.UNKNOWN for p in poses_3d[-1].poses)
        assert outputs['people'][-1].poses == []
    assert len(poses) >= len(poses_3d)
    depth_camera.camera_info = camera_info()
    before = len(poses_3d)
    depth_camera.send_until(lambda: measured(poses_3d[before:]))


def test_demo_shows_somebody_in_metres(start, start_node, peer, outputs):
    """What demo.launch.py depth:=true starts."""
    folder = ROOT / 'config/depth_demo'
    start(
        'image_source', '--ros-args', '-p', f'source:={folder}/colour', '-p', 'rate:=5.0',
        '-p', f'depth_source:={folder}/depth',
    )  # fmt: skip
    start_node(lift='depth')
    assert peer.spin_until(lambda: len(measured(outputs['poses_3d'])) >= 5)
    for message in measured(outputs['poses_3d']):
        assert 2.6 < torso_of(message)[2] < 3.7


def test_frames_need_a_package_that_is_named_where_it_is_missing(start_node):
    pytest.importorskip('rclpy')
    try:
        import tf2_ros  # noqa: F401
    except ImportError:
        node = start_node(lift='depth', publish_tf=True, ready=False)
        node.wait_for('It needs the package tf2_ros, which is not installed')
    else:
        pytest.skip('tf2_ros is installed')
