"""The node as its users meet it: a process, real images over real topics, and what it survives."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time as TimeMessage
from diagnostic_msgs.msg import DiagnosticStatus
from goldens import ROOT
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState
from posenet_ros.msg import ModelInfo, PoseArray
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    SetParameters,
)
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_processes import (
    NODE,
    Camera,
    as_image,
    change_state,
    clear_people,
    collect_status,
    counts_endpoints,
    parameter,
    set_parameters,
    state,
    values_of,
    wait_until,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import SetBool
from visualization_msgs.msg import Marker, MarkerArray

from posenet_ros import KEYPOINT_NAMES
from posenet_ros.ros.parameters import PARAMETERS

pytestmark = pytest.mark.slow

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


# Images in, poses out.


@pytest.mark.parametrize('preset', ['', 'reference'])
def test_poses_are_the_librarys_and_the_header_is_the_images(
    start_node, peer, camera, net, node_poses, astronaut, preset
):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node(*(('--params-file', str(ROOT / f'config/{preset}.yaml')) if preset else ()))
    camera.wait_for_node()
    message = as_image(astronaut, frame_id='some_optical_frame')
    camera.send_until(message, lambda: poses)
    received = poses[0]
    assert received.header.frame_id == 'some_optical_frame'
    assert received.header.stamp.sec > 0
    assert (received.image_width, received.image_height) == (512, 512)
    expected = net.estimate_multiple_poses(astronaut) if preset else node_poses(astronaut)
    assert len(received.poses) == len(expected) >= 1
    for person, pose in zip(received.poses, expected, strict=True):
        assert person.track_id == person.UNTRACKED
        assert person.score == pytest.approx(pose.score, abs=1e-5)
        assert [keypoint.id for keypoint in person.keypoints] == list(range(17))
        points = [(keypoint.x, keypoint.y) for keypoint in person.keypoints]
        assert np.allclose(points, pose.keypoints, atol=0.01)
        deviations = [keypoint.deviation for keypoint in person.keypoints]
        assert np.allclose(deviations, pose.keypoint_deviations, rtol=1e-4)


def test_every_header_comes_back_verbatim_also_without_people(start_node, peer, camera):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node()
    camera.wait_for_node()
    black = as_image(np.zeros((48, 64, 3), np.uint8))
    camera.send_until(black, lambda: poses)
    peer.spin_for(0.5)  # what was sent before may still come
    poses.clear()
    sent = []
    for _ in range(5):
        before = len(poses)
        header = camera.send(black)
        sent.append((header.stamp.sec, header.stamp.nanosec))
        peer.spin_until(lambda before=before: len(poses) > before, 2)
    received = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in poses]
    assert len(received) >= 3  # best effort may lose one
    assert set(received) <= set(sent)
    assert all(m.poses == [] and (m.image_width, m.image_height) == (64, 48) for m in poses)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'encoding': 'rgb9'}, "unknown encoding 'rgb9'"),
        ({'width': 0}, 'no pixels'),
        ({'step': 1}, 'step 1 is less'),
        ({'height': 1000}, 'bytes of data where'),
    ],
)
def test_broken_image_is_dropped_with_a_reason_and_the_node_goes_on(
    start_node, peer, camera, change, reason
):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    node = start_node()
    camera.wait_for_node()
    broken = as_image(np.zeros((48, 64, 3), np.uint8))
    for name, value in change.items():
        setattr(broken, name, value)
    camera.send_until(broken, lambda: reason in node.output)
    assert 'image dropped, broken image' in node.output
    assert poses == []
    camera.send_until(as_image(np.zeros((48, 64, 3), np.uint8)), lambda: poses)
    warnings = node.output.count('image dropped')
    assert warnings <= 2  # throttled


def test_resolution_and_encoding_may_change_in_mid_stream(start_node, peer, camera, astronaut):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node()
    camera.wait_for_node()
    for image, encoding in (
        (astronaut, 'rgb8'),
        (np.ascontiguousarray(astronaut[::2, ::2, ::-1]), 'bgr8'),
        (np.ascontiguousarray(astronaut[..., 1]), 'mono8'),
    ):
        height, width = image.shape[:2]
        camera.send_until(
            as_image(image, encoding),
            lambda size=(width, height): any(
                (m.image_width, m.image_height) == size and m.poses for m in poses
            ),
        )
        poses.clear()


def test_compressed_images(start_node, peer, astronaut):
    import array

    import cv2

    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node('-r', 'image_raw:=/eye/image', image_transport='compressed')
    camera = Camera(peer, '/eye/image/compressed', CompressedImage)
    camera.wait_for_node()
    _, jpeg = cv2.imencode('.jpg', astronaut[..., ::-1])
    message = CompressedImage(format='jpeg', data=array.array('B', jpeg.tobytes()))
    camera.send_until(message, lambda: poses and len(clear_people(poses[-1])) == 1)


def test_damaged_jpeg_is_used_and_counted_and_stderr_stays_quiet(start_node, peer, astronaut):
    """As some cameras send them: bytes that belong to nothing before the end."""
    import array

    import cv2

    pytest.importorskip('simplejpeg')
    poses, found = peer.collect(PoseArray, f'{NODE}/poses'), collect_status(peer)
    node = start_node('-r', 'image_raw:=/eye/image', image_transport='compressed')
    camera = Camera(peer, '/eye/image/compressed', CompressedImage)
    camera.wait_for_node()
    jpeg = cv2.imencode('.jpg', astronaut[..., ::-1])[1].tobytes()
    damaged = array.array('B', jpeg[:-2] + bytes(200) + jpeg[-2:])
    message = CompressedImage(format='jpeg', data=damaged)
    camera.send_until(message, lambda: len(poses) > 3 and len(clear_people(poses[-1])) == 1)
    assert peer.spin_until(
        lambda: any(int(values_of(status).get('damaged', 0)) > 2 for status in found)
    )
    lines = [line for line in node.output.splitlines() if 'extraneous' in line]
    assert len(lines) == 1
    assert '/eye/image/compressed: an image is damaged, and used all the same' in lines[0]


def test_publisher_with_a_qos_that_cannot_match_is_named(start_node, peer):
    peer.collect(PoseArray, f'{NODE}/poses')
    node = start_node('-p', 'qos_overrides./image_raw.subscription.reliability:=reliable')
    camera = Camera(peer, reliability='best_effort')
    assert wait_until(lambda: 'QoS' in node.output)
    line = next(line for line in node.output.splitlines() if 'QoS' in line)
    assert f'{peer.get_name()} offers best_effort' in line
    assert 'we ask for reliable' in line
    assert camera.publisher.get_subscription_count() == 0


def test_subscriber_with_an_incompatible_qos_is_warned_of(start_node, peer):
    node = start_node()
    peer.collect(PoseArray, f'{NODE}/poses', LATCHED)
    assert wait_until(lambda: 'we offer reliable, volatile' in node.output)
    assert f'{NODE}/poses: a subscriber asks for a QoS that we do not offer' in node.output


def test_single_person_decoding(start_node, peer, camera, astronaut):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node(decoding_method='single-person')
    camera.wait_for_node()
    camera.send_until(as_image(np.zeros_like(astronaut)), lambda: poses)
    assert len(poses[0].poses) == 1  # always one, however unsure
    assert poses[0].poses[0].score < 0.1


def test_model_info_is_latched(start_node, peer, net):
    start_node()
    info = peer.collect(ModelInfo, f'{NODE}/model_info', LATCHED)
    assert peer.spin_until(lambda: info)
    assert (info[0].architecture, info[0].multiplier) == ('MobileNetV1', 0.75)
    assert (info[0].output_stride, info[0].input_aspect) == (16, 'image')
    assert (info[0].input_width, info[0].input_height) == (433, 337)  # for 4:3
    assert (info[0].backend, info[0].precision) == ('onnxruntime', 'fp32')
    assert info[0].model_sha256 == net.model_sha256
    assert tuple(info[0].keypoint_names) == KEYPOINT_NAMES
    assert len(info[0].skeleton_edges) == 24


def test_stamps_that_jump_back_do_not_stall_the_node(start_node, peer, camera, astronaut):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node()
    camera.wait_for_node()
    message = as_image(astronaut)
    seconds = [2000, 3000, 1000, 0, 2500]
    for second in seconds:
        message.header.stamp.sec = second

        def came(second=second):
            camera.publisher.publish(message)
            return any(m.header.stamp.sec == second for m in poses)

        assert peer.spin_until(came)
    assert all(len(clear_people(m)) == 1 for m in poses)


def test_simulated_time_is_respected(start_node, peer, camera, astronaut):
    found = collect_status(peer)
    clock = peer.create_publisher(Clock, '/clock', 10)
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node(use_sim_time=True)
    camera.wait_for_node()
    message = as_image(astronaut)
    message.header.stamp.sec = 100

    def latency_is_simulated():
        clock.publish(Clock(clock=TimeMessage(sec=100, nanosec=500_000_000)))
        camera.publisher.publish(message)
        peer.spin_for(0.05)
        latest = values_of(found[-1]).get('latency p50/p95/max (ms)', '') if found else ''
        return latest.startswith('500.0 / 500.0')

    assert peer.spin_until(latency_is_simulated)
    assert poses[-1].header.stamp.sec == 100
    assert found[-1].level == DiagnosticStatus.WARN  # half a second is above latency_warn


def test_camera_that_is_unplugged_and_comes_back(start_node, peer, astronaut):
    found = collect_status(peer)
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node(image_timeout=1.0)
    for _ in range(2):
        camera = Camera(peer)
        camera.wait_for_node()
        poses.clear()
        camera.send_until(as_image(astronaut), lambda: poses)
        camera.send_until(as_image(astronaut), lambda: found and found[-1].message == 'running')
        peer.destroy_publisher(camera.publisher)
        found.clear()
        assert peer.spin_until(lambda: any('no image for' in s.message for s in found))


def test_bag_played_into_the_node_gives_the_poses_of_the_bag_command(
    start_node, peer, tmp_path, node_poses, astronaut
):
    rosbag2 = pytest.importorskip('rosbags.rosbag2', reason='the package rosbags is not installed')
    from rosbags.highlevel import AnyReader

    from posenet_ros.io import bag

    store = bag.typestore()
    with rosbag2.Writer(
        tmp_path / 'bag', version=9, storage_plugin=rosbag2.StoragePlugin.MCAP
    ) as writer:
        connection = writer.add_connection('/image_raw', bag.IMAGE_TYPE, typestore=store)
        for i in range(5):
            pixels = np.ascontiguousarray(np.roll(astronaut, 5 * i, axis=1))
            message = store.types[bag.IMAGE_TYPE](
                header=store.types['std_msgs/msg/Header'](
                    stamp=store.types['builtin_interfaces/msg/Time'](sec=1000 + i, nanosec=7),
                    frame_id='recorded',
                ),
                height=512, width=512, step=1536, encoding='rgb8', is_bigendian=0,
                data=pixels.reshape(-1),
            )  # fmt: skip
            writer.write(connection, 10**18 + i, store.serialize_cdr(message, bag.IMAGE_TYPE))
    bag.add_poses(tmp_path / 'bag', tmp_path / 'out', lambda image, *_: node_poses(image))
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node('-p', 'qos_overrides./image_raw.subscription.reliability:=reliable')
    camera = Camera(peer, reliability='reliable')
    camera.wait_for_node()
    with AnyReader([tmp_path / 'bag']) as played:
        for _, _, data in played.messages():
            before = len(poses)
            camera.publisher.publish(bytes(data))
            assert peer.spin_until(lambda before=before: len(poses) > before)
    with AnyReader([tmp_path / 'out']) as reader:
        expected = [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages()]
    assert len(poses) == len(expected) == 5
    for live, recorded in zip(poses, expected, strict=True):
        assert (live.header.stamp.sec, live.header.stamp.nanosec) == (
            recorded.header.stamp.sec,
            recorded.header.stamp.nanosec,
        )
        assert live.header.frame_id == 'recorded'
        for a, b in zip(live.poses, recorded.poses, strict=True):
            for keypoint, other in zip(a.keypoints, b.keypoints, strict=True):
                assert (keypoint.x, keypoint.y) == pytest.approx((other.x, other.y), abs=0.01)


# Markers and annotated images.


def test_overlays_are_built_while_somebody_looks(start_node, peer, camera, astronaut):
    start_node('--params-file', str(ROOT / 'config/reference.yaml'))
    markers = peer.collect(MarkerArray, f'{NODE}/markers')
    annotated = peer.collect(Image, f'{NODE}/image_annotated')
    info_publisher = peer.create_publisher(CameraInfo, 'camera_info', 10)
    info = CameraInfo(width=512, height=512)
    info.p = [400.0, 0.0, 256.0, 0.0, 0.0, 400.0, 256.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    camera.wait_for_node()
    message = as_image(astronaut[..., ::-1], 'bgr8', frame_id='eye')

    def calibrated_markers():
        info_publisher.publish(info)
        return annotated and markers and markers[-1].markers[-1].ns == 'label'

    camera.send_until(message, calibrated_markers)
    drawn = np.frombuffer(annotated[-1].data, np.uint8).reshape(512, 512, 3)
    # Something is drawn in the middle of the picture, whose colours are otherwise as they were.
    changed = (drawn != astronaut).any(axis=2)
    assert changed.any() and not changed[:, 440:].any()
    assert annotated[-1].header.frame_id == 'eye'
    stamps = {(m.header.stamp.sec, m.header.stamp.nanosec) for m in annotated}
    assert len(stamps) == len(annotated)  # each has its own image's
    joints = next(m for m in markers[-1].markers if m.ns == 'joints')
    assert (joints.type, joints.header.frame_id) == (Marker.SPHERE_LIST, 'eye')
    # The nose, first of the joints, lies on the camera's ray through its pixel (223, 127).
    camera.send_until(message, lambda: len(markers) > 3)
    nose = next(m for m in markers[-1].markers if m.ns == 'joints').points[0]
    assert (256 + 400 * nose.x / nose.z, 256 + 400 * nose.y / nose.z) == pytest.approx(
        (223.3, 126.8), abs=0.2
    )
    # Another picture, of another size: nothing of the one before is left.
    black = as_image(np.zeros((48, 64, 3), np.uint8))
    camera.send_until(black, lambda: annotated[-1].height == 48)
    assert not np.frombuffer(annotated[-1].data, np.uint8).any()


# Parameters.


def test_decoder_parameters_take_effect_while_running(start_node, peer, camera, astronaut):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node()
    camera.wait_for_node()
    message = as_image(astronaut)
    camera.send_until(message, lambda: poses and len(clear_people(poses[-1])) == 1)
    nose = poses[-1].poses[0].keypoints[0].x
    assert set_parameters(peer, flip_horizontal=True).successful
    poses.clear()
    camera.send_until(message, lambda: len(poses) > 2)
    assert poses[-1].poses[0].keypoints[0].x == pytest.approx(511 - nose, abs=0.01)


def test_wrong_set_is_refused_as_a_whole_with_the_reason(start_node, peer):
    start_node()
    result = set_parameters(peer, flip_horizontal=True, decoding_method='all')
    assert not result.successful
    assert "decoding_method 'all'" in result.reason
    request = SetParameters.Request(
        parameters=[parameter('score_threshold', 1.5), parameter('nms_radius', 'wide')]
    )
    results = peer.call(SetParameters, f'{NODE}/set_parameters', request).results
    assert [result.successful for result in results] == [False, False]
    assert 'nms_radius' in results[1].reason
    request = GetParameters.Request(names=['flip_horizontal', 'nms_radius'])
    flip, radius = peer.call(GetParameters, f'{NODE}/get_parameters', request).values
    assert (flip.bool_value, radius.double_value) == (False, 20.0)


def test_model_parameters_are_locked_while_a_model_is_loaded(start_node, peer):
    start_node()
    result = set_parameters(peer, multiplier=0.5)
    assert not result.successful
    assert 'multiplier cannot change while the model is loaded' in result.reason


def test_every_parameter_is_described_with_its_range(start_node, peer):
    start_node()
    names = [spec.name for spec in PARAMETERS]
    request = DescribeParameters.Request(names=names)
    response = peer.call(DescribeParameters, f'{NODE}/describe_parameters', request)
    for spec, descriptor in zip(PARAMETERS, response.descriptors, strict=True):
        assert descriptor.description == spec.help
        ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
        if spec.range:
            assert (ranges[0].from_value, ranges[0].to_value) == spec.range


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (('-p', 'score_threshold:=1.5'), 'score_threshold'),
        (('-p', 'max_detections:=many'), 'max_detections'),
        (('-p', 'backend:=gpu'), 'backend'),
        (('-p', 'cameras:=front'), 'cameras'),
    ],
)
def test_wrong_parameter_at_start_ends_the_process_with_one_line(start, arguments, named):
    node = start('posenet_node', '--ros-args', *arguments)
    assert wait_until(lambda: not node.running())
    assert node.stop() == 1
    assert named in node.output
    assert 'Traceback' not in node.output


# Lifecycle.


def test_bad_configuration_fails_the_transition_and_leaves_the_node_usable(
    start_node, peer, default_model_config
):
    node = start_node(model_url='/nowhere', ready=False)
    node.wait_for('cannot configure')
    assert '/nowhere' in node.output
    assert state(peer) == State.PRIMARY_STATE_UNCONFIGURED
    assert not change_state(peer, Transition.TRANSITION_CONFIGURE)
    assert set_parameters(peer, model_url=default_model_config.model_url or '').successful
    assert change_state(peer, Transition.TRANSITION_CONFIGURE)
    assert change_state(peer, Transition.TRANSITION_ACTIVATE)
    assert state(peer) == State.PRIMARY_STATE_ACTIVE


@counts_endpoints
@pytest.mark.parametrize(
    ('entity', 'transition'),
    [
        ('/image_raw.subscription', 'activate'),
        ('/camera_info.subscription', 'activate'),
        ('/posenet_node/markers.publisher', 'configure'),
    ],
)
def test_unexpected_failure_of_a_transition_is_logged_and_survived(
    start_node, peer, entity, transition
):
    found = collect_status(peer)
    node = start_node('-p', f'qos_overrides.{entity}.reliability:=bogus', ready=False)
    node.wait_for(f'cannot {transition}')
    assert 'bogus' in node.output
    assert peer.spin_until(lambda: any('bogus' in s.message for s in found))
    assert found[-1].level == DiagnosticStatus.ERROR
    # It goes through on_error, which frees the model and gives up all topics.
    assert wait_until(lambda: state(peer) == State.PRIMARY_STATE_UNCONFIGURED)
    assert peer.spin_until(
        lambda: (
            not peer.count_subscribers('/image_raw') and not peer.count_publishers(f'{NODE}/poses')
        )
    )
    assert change_state(peer, Transition.TRANSITION_CONFIGURE) == (transition == 'activate')


HANGING_MODEL = """
import sys, threading, time
import numpy as np, rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from std_msgs.msg import Header
import posenet_ros.ros.node
import posenet_ros.ros.pipeline
from posenet_ros.ros.messages import image_message

posenet_ros.ros.pipeline.STOP_SECONDS = 0.2
rclpy.init()
values = {'autostart': False, 'model_url': sys.argv[1]}
node = posenet_ros.ros.node.PoseNetNode(
    parameter_overrides=[Parameter(name, value=value) for name, value in values.items()]
)
assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
hanging, end = threading.Event(), threading.Event()

def hang(images, *_):
    hanging.set()
    end.wait()
    return [[] for _ in images]

node._pipeline.net.estimate_streams = hang
image = image_message(Header(), np.zeros((48, 64, 3), np.uint8), 'rgb8')
node._pipeline._model_worker.mailbox.put('', serialize_message(image))
assert hanging.wait(10)
assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
(result,) = node.set_parameters([Parameter('input_resolution', value=161)])
assert result.successful, result.reason
assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
assert 'still hangs' in node._transition_error
assert not node.stopped_cleanly
end.set()
while not node.stopped_cleanly:
    time.sleep(0.01)
assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
node.destroy_node()
rclpy.shutdown()
print('all of it')
"""


def test_model_that_hangs_locks_nothing_and_no_other_is_loaded(default_model_config, net):
    """In a process of its own, in which the model can be made to hang."""
    command = [sys.executable, '-c', HANGING_MODEL, default_model_config.model_url or '']
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.stdout.endswith('all of it\n'), run.stderr


POSES_BEYOND_FLOAT32 = """
import sys, time
import numpy as np, rclpy
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from std_msgs.msg import Header
from posenet_ros import Pose
from posenet_ros.ros.messages import image_message
from posenet_ros.ros.node import PoseNetNode

rclpy.init()
values = {'autostart': False, 'lazy': False, 'cameras': ['a', 'b'], 'model_url': sys.argv[1]}
node = PoseNetNode(parameter_overrides=[Parameter(name, value=v) for name, v in values.items()])
node.trigger_configure()
node.trigger_activate()
pipeline = node._pipeline
pipeline._model_worker._most = 2  # both cameras in one batch, as on a GPU
far = Pose(0.9, np.full((17, 2), 1e39), np.full(17, 0.9))
pipeline.net.estimate_streams = lambda images, *_: [
    [far] if image.shape[1] == 64 else [] for image in images
]
narrow, wide = (
    serialize_message(image_message(Header(), np.zeros((48, width, 3), np.uint8), 'rgb8'))
    for width in (64, 66)
)
for frames in ({'b': wide}, {'a': narrow, 'b': wide}):  # the second time both in one batch
    with pipeline._model_worker.mailbox._changed:
        pipeline._model_worker.mailbox._waiting.update(frames)
        pipeline._model_worker.mailbox._changed.notify()
    time.sleep(1)
windows = [pipeline.cameras[name].statistics.start_window() for name in ('a', 'b')]
print([(window.processed, dict(window.dropped)) for window in windows])
node.destroy_node()
rclpy.shutdown()
"""


def test_poses_that_no_message_can_hold_cost_one_frame_of_one_camera(default_model_config, net):
    command = [sys.executable, '-c', POSES_BEYOND_FLOAT32, default_model_config.model_url or '']
    environment = {**os.environ, 'ROS_PYTHON_CHECK_FIELDS': '1'}  # as always before Kilted
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    expected = [(0, {'unexpected error': 1}), (2, {})]
    assert run.stdout.splitlines()[-1] == str(expected), run.stdout + run.stderr


def test_two_wrong_model_parameters_can_be_repaired_one_by_one(start_node, peer):
    start_node(architecture='Foo', quant_bytes=3, ready=False)
    for name, value in (('architecture', 'MobileNetV1'), ('quant_bytes', 4)):
        request = SetParameters.Request(parameters=[parameter(name, value)])
        (result,) = peer.call(SetParameters, f'{NODE}/set_parameters', request).results
        assert result.successful, result.reason
    assert not set_parameters(peer, quant_bytes=3).successful
    assert change_state(peer, Transition.TRANSITION_CONFIGURE)


def test_lifecycle_without_autostart(start_node, peer, camera, astronaut):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node(autostart=False, ready=False)
    assert state(peer) == State.PRIMARY_STATE_UNCONFIGURED
    assert change_state(peer, Transition.TRANSITION_CONFIGURE)
    assert state(peer) == State.PRIMARY_STATE_INACTIVE
    peer.spin_for(0.5)
    assert camera.publisher.get_subscription_count() == 0
    for _ in range(2):
        assert change_state(peer, Transition.TRANSITION_ACTIVATE)
        camera.wait_for_node()
        camera.send_until(as_image(astronaut), lambda: poses)
        assert change_state(peer, Transition.TRANSITION_DEACTIVATE)
        assert peer.spin_until(lambda: camera.publisher.get_subscription_count() == 0)
        poses.clear()
    assert change_state(peer, Transition.TRANSITION_CLEANUP)
    assert set_parameters(peer, input_resolution=193).successful
    assert change_state(peer, Transition.TRANSITION_CONFIGURE)
    info = peer.collect(ModelInfo, f'{NODE}/model_info', LATCHED)
    assert peer.spin_until(lambda: info)
    assert (info[-1].input_width, info[-1].input_height) == (225, 161)  # 193 squared, for 4:3


def test_rounds_leave_no_thread_file_or_memory_behind(start_node, peer):
    # One malloc arena that returns freed memory at once: any growth is then a leak.
    heap = {'MALLOC_ARENA_MAX': '1', 'MALLOC_TRIM_THRESHOLD_': '65536'}
    node = start_node(autostart=False, ready=False, environment=heap)
    process = Path('/proc') / str(node.pid)

    def rounds(count):
        for _ in range(count):
            for transition in (
                Transition.TRANSITION_CONFIGURE,
                Transition.TRANSITION_ACTIVATE,
                Transition.TRANSITION_DEACTIVATE,
                Transition.TRANSITION_CLEANUP,
            ):
                assert change_state(peer, transition)

    def used():
        status = dict(line.split(':', 1) for line in (process / 'status').read_text().splitlines())
        return {
            'threads': int(status['Threads']),
            'files': len(list((process / 'fd').iterdir())),
            'megabytes': int(status['RssAnon'].split()[0]) / 1024,
        }

    rounds(10)
    before = used()
    rounds(90)
    # A thread of the middleware may be about to end; one leaked in each round does not.
    assert wait_until(lambda: used()['threads'] <= before['threads'], 10), used()
    after = used()
    assert after['files'] <= before['files']
    assert after['megabytes'] < before['megabytes'] + 10


def test_enable_pauses_without_unloading(start_node, peer, camera, astronaut):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node()
    camera.wait_for_node()
    camera.send_until(as_image(astronaut), lambda: poses)
    assert peer.call(SetBool, f'{NODE}/enable', SetBool.Request(data=False)).success
    assert peer.spin_until(lambda: camera.publisher.get_subscription_count() == 0)
    assert state(peer) == State.PRIMARY_STATE_ACTIVE
    poses.clear()
    assert peer.call(SetBool, f'{NODE}/enable', SetBool.Request(data=True)).success
    camera.wait_for_node()
    camera.send_until(as_image(astronaut), lambda: poses)


# Diagnostics.


def test_diagnostics_tell_rates_drops_and_latency(start_node, peer, camera, astronaut):
    found = collect_status(peer)
    peer.collect(PoseArray, f'{NODE}/poses')
    start_node()
    camera.wait_for_node()
    assert peer.spin_until(lambda: any('no image has come yet' in s.message for s in found))
    assert found[-1].level == DiagnosticStatus.WARN
    message = as_image(astronaut)
    camera.send_until(message, lambda: found[-1].message == 'running', period=0.1)
    values = values_of(found[-1])
    assert found[-1].level == DiagnosticStatus.OK
    assert 3 < float(values['rate out (Hz)']) < 11
    assert values['people'] == '1'
    assert values['precision'] == 'fp32'
    assert values['backend'].startswith('onnxruntime (tensorrt cannot run here: ')
    for stage in ('latency', 'convert', 'preprocess', 'inference', 'decode', 'publish'):
        p50, p95, worst = map(float, values[f'{stage} p50/p95/max (ms)'].split(' / '))
        assert 0 <= p50 <= p95 <= worst < 5000
    message.encoding = 'rgb9'
    camera.send_until(message, lambda: 'dropped' in found[-1].message)
    assert int(values_of(found[-1])['dropped: broken image']) > 0
    found.clear()
    assert peer.spin_until(lambda: any('no image for' in s.message for s in found), 10)


def test_diagnostics_tell_why_there_is_no_model(start_node, peer):
    found = collect_status(peer)
    start_node(model_url='/nowhere', ready=False)
    assert peer.spin_until(lambda: found)
    assert found[-1].level == DiagnosticStatus.ERROR
    assert '/nowhere' in found[-1].message


def test_every_frame_is_processed_or_counted_as_dropped(start_node, peer, astronaut):
    """Overload: everything that was received is accounted for, and latency does not grow."""
    # Deep enough that the publisher drops no frame either while the machine is busy.
    camera = Camera(peer, reliability='reliable', depth=1000)
    poses = peer.collect(PoseArray, f'{NODE}/poses', 1000)
    found = collect_status(peer)
    start_node(
        '-p', 'qos_overrides./image_raw.subscription.reliability:=reliable',
        '-p', 'qos_overrides./image_raw.subscription.depth:=1000',
        input_resolution=513,
    )  # fmt: skip
    camera.wait_for_node()
    message = as_image(astronaut[::4, ::4].copy())
    for _ in range(200):
        camera.send(message)
        peer.spin_for(0.004)
    peer.spin_for(3)
    dropped = int(values_of(found[-1]).get('dropped: newer image came', 0))
    assert dropped > 0
    assert len(poses) + dropped == 200
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec / 1e9 for m in poses]
    assert stamps == sorted(stamps)


# Messages that say why nothing comes.


@pytest.mark.parametrize(
    ('publishes', 'parameters', 'said'),
    [
        ([], {}, 'nobody publishes /image_raw, nor any other images'),
        (
            [('/eye/image', Image), ('/eye/depth/compressed', CompressedImage)],
            {},
            'nobody publishes /image_raw; there are images on /eye/depth/compressed (compressed), '
            '/eye/image (raw)',
        ),
        (
            [('/image_raw/compressed', CompressedImage)],
            {},
            '/image_raw/compressed is there: image_transport:=compressed reads it',
        ),
        (
            [('/image_raw', Image)],
            {'image_transport': 'compressed'},
            '/image_raw is there: image_transport:=raw reads it',
        ),
        (
            [('/eye/compressed', CompressedImage)],
            {'image_transport': 'compressed', 'image_topic': '/eye/compressed'},
            'compressed adds /compressed to image_topic by itself',
        ),
        (
            [('/eye/compressed', CompressedImage)],
            {'image_topic': '/eye/compressed'},
            '/eye/compressed is published as sensor_msgs/msg/CompressedImage, not as '
            'sensor_msgs/msg/Image; image_topic:=/eye image_transport:=compressed reads it',
        ),
        ([('/image_raw', CameraInfo)], {}, 'published as sensor_msgs/msg/CameraInfo, not as'),
        ([('/image_raw', Image)], {}, 'publishes /image_raw, but no image comes'),
    ],
)  # fmt: skip
def test_missing_images_are_explained_once_and_in_the_diagnostics(
    start_node, peer, publishes, parameters, said
):
    found = collect_status(peer)
    for topic, kind in publishes:
        peer.create_publisher(kind, topic, 1)
    node = start_node(image_timeout=1.0, lazy=False, **parameters)
    assert peer.spin_until(lambda: any(said in status.message for status in found), 15), (
        node.output, found[-1:],
    )  # fmt: skip
    peer.spin_for(2.2)
    assert node.output.count(f'{said}\n') + node.output.count(said + ';') <= 1
    node.wait_for(said)
    assert 'no image has come yet: ' in found[-1].message


def test_unused_arguments_are_warned_of(start_node, tmp_path):
    (tmp_path / 'other.yaml').write_text('/other_node:\n  ros__parameters:\n    nms_radius: 3.0\n')
    node = start_node(
        '-p', 'nms_radious:=25.0',
        '-p', 'qos_overrides./image_raw.subscription.durability:=volatile',
        '-p', 'qos_overrides./camera.subscription.depth:=3',
        '--params-file', str(tmp_path / 'other.yaml'), '--', '--image-topic', '/cam',
    )  # fmt: skip
    for said in (
        'there is no parameter nms_radious: its value is not used; is it nms_radius?',
        'qos_overrides./image_raw.subscription.durability is not used: history, depth, reliability',
        'qos_overrides./camera.subscription.depth is not used: the node only has ',
        f'{tmp_path}/other.yaml has no parameters for /posenet_node, only for /other_node',
        'unknown arguments are ignored: --image-topic /cam',
    ):
        node.wait_for(said, 5)
    assert 'use_sim_time' not in node.output


def test_used_arguments_give_no_warning(start_node, tmp_path):
    (tmp_path / 'mine.yaml').write_text(
        '/**:\n  ros__parameters:\n    nms_radius: 3.0\n    robot_radius: 0.4\n'
        '    qos_overrides: {/clock: {subscription: {depth: 3}}}\n'
        '/other:\n  ros__parameters:\n    built: 2024-02-30\n'
    )
    node = start_node(
        '-p', 'qos_overrides./image_raw.subscription.depth:=3', '-p', 'use_sim_time:=false',
        '--params-file', str(tmp_path / 'mine.yaml'),
    )  # fmt: skip
    assert 'WARN' not in node.output


@pytest.mark.parametrize('program', ['posenet_node', 'image_source'])
def test_help_is_shown(start, program):
    node = start(program, '--help')
    assert wait_until(lambda: not node.running())
    assert node.stop() == 0
    assert node.output.startswith(f'usage: {program} --ros-args')


@pytest.mark.parametrize(
    ('seconds', 'said'),
    [
        (37.0, "s ahead of this node's clock: they are by another clock"),
        (-3600.0, "s behind this node's clock: the camera has a clock of its own, or a bag"),
    ],
)
def test_stamps_of_another_clock_are_no_latency(start_node, peer, camera, astronaut, seconds, said):
    found = collect_status(peer)
    peer.collect(PoseArray, f'{NODE}/poses')
    node = start_node()
    camera.wait_for_node()
    message = as_image(astronaut[::4, ::4].copy())

    def come():
        message.header.stamp.sec = int(time.time() + seconds)
        camera.publisher.publish(message)
        peer.spin_for(0.05)
        return any(said in status.message for status in found)

    assert peer.spin_until(come)
    status = next(status for status in found if said in status.message)
    assert status.level == DiagnosticStatus.WARN
    assert not any(key.startswith('latency') for key in values_of(status))
    number = float(re.search(r'stamps ([0-9.]+) s', status.message)[1])
    assert number == pytest.approx(abs(seconds), abs=2)
    node.wait_for(said)
    assert node.output.count(said) == 1


def test_simulated_time_without_a_clock_is_warned_of(start_node, peer):
    found = collect_status(peer)
    node = start_node(use_sim_time=True)
    said = 'use_sim_time is set, and nobody publishes /clock'
    assert peer.spin_until(lambda: any(said in status.message for status in found))
    node.wait_for(said)
    peer.spin_for(1.2)
    assert node.output.count(said) == 1


def test_two_nodes_of_one_name_are_warned_of(start_node, peer):
    found = collect_status(peer)
    first, second = start_node(), start_node()
    said = '2 nodes have the name /posenet_node'
    assert peer.spin_until(lambda: any(said in status.message for status in found))
    assert peer.spin_until(lambda: said in first.output and said in second.output)


# While a model is loaded.


def test_services_and_diagnostics_answer_while_a_model_is_loaded(start, peer, tmp_path):
    """A manager asks for a transition, and looks at the node meanwhile."""
    found = collect_status(peer)
    with socket.create_server(('127.0.0.1', 0)) as mute:
        url = f'http://127.0.0.1:{mute.getsockname()[1]}/model-stride16.json'
        node = start(
            'posenet_node', '--ros-args', '-p', f'model_url:={url}', '-p', 'autostart:=false',
            '-p', 'cameras:=[front, rear]', environment={'POSENET_HOME': str(tmp_path)},
        )  # fmt: skip
        names = {'posenet_node: front', 'posenet_node: rear'}
        assert peer.spin_until(lambda: {status.name for status in found} == names)
        client = peer.create_client(ChangeState, f'{NODE}/change_state')
        assert peer.spin_until(client.service_is_ready)
        transition = Transition(id=Transition.TRANSITION_CONFIGURE)
        answer = client.call_async(ChangeState.Request(transition=transition))
        assert peer.spin_until(lambda: any('loading the model (' in s.message for s in found))
        for _ in range(3):
            started = time.monotonic()
            assert state(peer) == State.TRANSITION_STATE_CONFIGURING
            assert time.monotonic() - started < 2
        refused = set_parameters(peer, input_resolution=193)
        assert 'cannot change while the model is loaded' in refused.reason
        assert set_parameters(peer, nms_radius=25.0).successful
        assert peer.spin_until(lambda: any('loading the model (2 s)' in s.message for s in found))
        assert not answer.done()
        assert {status.name for status in found} == names
        assert node.stop(signal.SIGINT) == 0
    assert 'Traceback' not in node.output


def test_error_of_before_is_gone_while_it_is_tried_again(start, peer, tmp_path):
    found = collect_status(peer)
    node = start('posenet_node', '--ros-args', '-p', 'model_url:=/nowhere',
                 environment={'POSENET_HOME': str(tmp_path)})  # fmt: skip
    assert peer.spin_until(lambda: any('/nowhere' in status.message for status in found))
    with socket.create_server(('127.0.0.1', 0)) as mute:
        url = f'http://127.0.0.1:{mute.getsockname()[1]}/model-stride16.json'
        assert set_parameters(peer, model_url=url).successful
        client = peer.create_client(ChangeState, f'{NODE}/change_state')
        assert peer.spin_until(client.service_is_ready)
        transition = Transition(id=Transition.TRANSITION_CONFIGURE)
        client.call_async(ChangeState.Request(transition=transition))
        assert peer.spin_until(lambda: 'loading the model' in found[-1].message)
        assert found[-1].level == DiagnosticStatus.WARN
        assert node.stop(signal.SIGINT) == 0


RAISING_REPORT = """
import sys
from posenet_ros.ros.node import PoseNetNode
from posenet_ros.ros.process import run_node

class Raising(PoseNetNode):
    def _state(self):
        if self._loading_since is not None:
            raise ValueError('not foreseen')
        return super()._state()

url, sys.argv[1:] = sys.argv[1], ['--ros-args', '-p', 'model_url:=' + sys.argv[1]]
run_node(lambda stop: Raising(stop_requested=stop.requested), started=Raising.autostart)
"""


def test_callback_that_fails_while_a_model_is_loaded_ends_the_process(tmp_path):
    """The process that started it sees that and can start it again."""
    with socket.create_server(('127.0.0.1', 0)) as mute:
        url = f'http://127.0.0.1:{mute.getsockname()[1]}/model-stride16.json'
        run = subprocess.run(
            [sys.executable, '-c', RAISING_REPORT, url], capture_output=True, text=True,
            timeout=30, env={**os.environ, 'POSENET_HOME': str(tmp_path)},
        )  # fmt: skip
    assert run.returncode == 1
    assert 'ValueError: not foreseen' in run.stderr


def test_status_names_never_change(start_node, peer, camera, default_model_config):
    found = collect_status(peer)
    start_node('-p', 'cameras:=[front]', autostart=False, ready=False)
    for transition in (
        Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE,
        Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP,
    ):  # fmt: skip
        assert change_state(peer, transition)
        before = len(found)
        assert peer.spin_until(lambda before=before: len(found) > before)
    assert {status.name for status in found} == {'posenet_node: front'}


def test_impossible_transition_is_answered(start_node, peer):
    start_node()
    assert not change_state(peer, Transition.TRANSITION_CONFIGURE)
    assert not change_state(peer, Transition.TRANSITION_CLEANUP)
    assert state(peer) == State.PRIMARY_STATE_ACTIVE
    assert change_state(peer, Transition.TRANSITION_DEACTIVATE)


# No work without subscribers.


def test_lazy_node_reads_nothing_until_somebody_subscribes(start_node, peer, camera, astronaut):
    found = collect_status(peer)
    start_node()
    assert peer.spin_until(lambda: any(s.message == 'idle: nobody subscribes' for s in found))
    assert found[-1].level == DiagnosticStatus.OK
    for topic, kind in (
        ('poses', PoseArray),
        ('markers', MarkerArray),
        ('image_annotated/compressed', CompressedImage),
    ):
        assert camera.publisher.get_subscription_count() == 0
        messages: list = []
        subscription = peer.create_subscription(kind, f'{NODE}/{topic}', messages.append, 10)
        camera.wait_for_node(10)
        camera.send_until(as_image(astronaut), lambda: messages)  # noqa: B023
        peer.destroy_subscription(subscription)
        assert peer.spin_until(lambda: camera.publisher.get_subscription_count() == 0, 10)


def test_published_people_can_be_filtered_by_scores(start_node, peer, camera, astronaut):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node(decoding_method='single-person')
    camera.wait_for_node()
    message = as_image(np.zeros_like(astronaut))  # somebody, however unsure
    camera.send_until(message, lambda: poses)
    score = poses[-1].poses[0].score
    best = max(keypoint.score for keypoint in poses[-1].poses[0].keypoints)
    for name, least in (
        ('min_published_pose_score', score + 0.01), ('min_published_keypoint_score', best + 1e-4),
    ):  # fmt: skip
        assert set_parameters(peer, **{name: least}).successful
        camera.send_until(message, lambda: poses[-1].poses == [])
        assert set_parameters(peer, **{name: 0.0}).successful
        camera.send_until(message, lambda: len(poses[-1].poses) == 1)
        assert len(poses[-1].poses[0].keypoints) == 17


def test_markers_have_a_lifetime_and_go_when_the_node_pauses(start_node, peer, camera, astronaut):
    start_node(marker_lifetime=0.75)
    markers = peer.collect(MarkerArray, f'{NODE}/markers')
    camera.wait_for_node()
    message = as_image(astronaut)
    for end in (
        lambda: peer.call(SetBool, f'{NODE}/enable', SetBool.Request(data=False)).success,
        lambda: change_state(peer, Transition.TRANSITION_DEACTIVATE),
    ):
        camera.send_until(message, lambda: markers and len(markers[-1].markers) > 1)
        lifetimes = {(m.lifetime.sec, m.lifetime.nanosec) for m in markers[-1].markers[1:]}
        assert lifetimes == {(0, 750_000_000)}
        markers.clear()
        assert end()
        assert peer.spin_until(lambda: markers)
        assert [marker.action for marker in markers[-1].markers] == [Marker.DELETEALL]
        peer.spin_for(0.3)
        assert len(markers[-1].markers) == 1
        markers.clear()
        if state(peer) == State.PRIMARY_STATE_ACTIVE:
            assert peer.call(SetBool, f'{NODE}/enable', SetBool.Request(data=True)).success
            camera.wait_for_node()


def test_annotated_image_as_jpeg(start_node, peer, camera, astronaut):
    import cv2

    start_node()
    images = peer.collect(CompressedImage, f'{NODE}/image_annotated/compressed')
    camera.wait_for_node()
    camera.send_until(as_image(astronaut, frame_id='eye'), lambda: images)
    assert images[0].header.frame_id == 'eye'
    assert images[0].format == 'rgb8; jpeg compressed bgr8'
    drawn = cv2.imdecode(np.frombuffer(images[0].data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert drawn.shape == astronaut.shape
    untouched = np.abs(drawn[:, 440:].astype(int) - astronaut[:, 440:])
    assert untouched.mean() < 5  # red and blue in their places
    assert np.abs(drawn.astype(int) - astronaut).max() > 60


def test_mirrored_poses_are_drawn_on_the_mirrored_image(start_node, peer, camera, astronaut):
    start_node('-p', 'flip_horizontal:=true')
    images = peer.collect(Image, f'{NODE}/image_annotated')
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    markers = peer.collect(MarkerArray, f'{NODE}/markers')
    camera.wait_for_node()
    camera.send_until(as_image(astronaut), lambda: images and poses and markers)
    drawn = np.frombuffer(images[0].data, np.uint8).reshape(astronaut.shape)
    mirrored = astronaut[:, ::-1]
    assert np.array_equal(drawn[:, :72], mirrored[:, :72])  # nobody is there
    assert np.abs(drawn.astype(int) - mirrored).max() > 60
    # In space people are where they are: the plane is 2 m wide, and x goes to the right.
    nose = poses[0].poses[0].keypoints[0]
    joints = next(marker for marker in markers[0].markers if marker.ns == 'joints')
    assert joints.points[0].x == pytest.approx((511 - nose.x - 255.5) * 2 / 512, abs=1e-3)


def test_integer_for_a_double_stays_a_double(start_node, peer):
    start_node('-p', 'nms_radius:=25')
    request = GetParameters.Request(names=['nms_radius'])

    def value():
        return peer.call(GetParameters, f'{NODE}/get_parameters', request).values[0]

    assert (value().type, value().double_value) == (3, 25.0)
    assert set_parameters(peer, nms_radius=30).successful
    assert (value().type, value().double_value) == (3, 30.0)
    request_one = SetParameters.Request(parameters=[parameter('nms_radius', 31)])
    assert peer.call(SetParameters, f'{NODE}/set_parameters', request_one).results[0].successful
    assert (value().type, value().double_value) == (3, 31.0)


def test_cameras_can_be_swapped_by_remapping(start_node, peer, astronaut):
    poses = {name: peer.collect(PoseArray, f'{NODE}/{name}/poses') for name in ('front', 'rear')}
    start_node(
        '-p', 'cameras:=[front, rear]',
        '-r', 'front/image_raw:=/rear/image_raw', '-r', 'rear/image_raw:=/front/image_raw',
    )  # fmt: skip
    camera = Camera(peer, '/rear/image_raw')
    camera.wait_for_node()
    camera.send_until(as_image(astronaut[::4, ::4].copy()), lambda: poses['front'])
    assert poses['rear'] == []


def test_compressed_topic_can_be_remapped_itself(start_node, peer):
    found = collect_status(peer)
    node = start_node(
        '-r', 'image_raw/compressed:=/eye/compressed',
        '-p', 'qos_overrides./eye/compressed.subscription.depth:=3',
        image_transport='compressed', lazy=False, image_timeout=1.0,
    )  # fmt: skip
    said = 'nobody publishes /eye/compressed'
    assert peer.spin_until(lambda: any(said in status.message for status in found))
    assert 'is not used' not in node.output


@counts_endpoints
def test_camera_info_follows_the_images_as_image_transport_has_it(start_node, peer):
    peer.collect(PoseArray, f'{NODE}/poses')
    start_node('-r', 'image_raw:=/eye/image')
    assert peer.spin_until(lambda: peer.count_subscribers('/eye/camera_info') == 1)


@counts_endpoints
def test_remapped_camera_info_is_used(start_node, peer):
    peer.collect(PoseArray, f'{NODE}/poses')
    start_node('-r', 'camera_info:=/calibration', image_topic='/eye/image')
    assert peer.spin_until(lambda: peer.count_subscribers('/calibration') == 1)
    assert peer.count_subscribers('/eye/image') == 1


# Several cameras.


def test_cameras_share_a_model_and_none_starves(start_node, peer, astronaut):
    received = {name: peer.collect(PoseArray, f'{NODE}/{name}/poses') for name in ('fast', 'slow')}
    start_node('-p', 'cameras:=[fast, slow]')
    cameras = {name: Camera(peer, f'{name}/image_raw') for name in received}
    for camera in cameras.values():
        camera.wait_for_node()
    fast, slow = as_image(astronaut[::2, ::2].copy()), as_image(np.zeros((50, 60, 3), np.uint8))
    end = time.monotonic() + 4
    count = 0
    while time.monotonic() < end:
        cameras['fast'].send(fast)
        if count % 12 == 0:
            cameras['slow'].send(slow)
        count += 1
        peer.spin_for(1 / 60)
    peer.spin_for(0.5)
    assert len(received['slow']) >= 0.7 * cameras['slow'].sent
    assert len(received['fast']) >= 3 * len(received['slow'])
    assert all(m.image_width == 60 and not m.poses for m in received['slow'])
    assert all(m.image_width == 256 and m.poses for m in received['fast'])


def test_cameras_of_different_shapes_share_a_model(start_node, peer, node_poses, astronaut):
    """Landscape, portrait and square; and one that changes its size while it runs."""
    pictures = {
        'wide': np.ascontiguousarray(astronaut[:288]),
        'tall': np.ascontiguousarray(astronaut[:, 100:388]),
        'square': astronaut,
    }
    received = {name: peer.collect(PoseArray, f'{NODE}/{name}/poses') for name in pictures}
    start_node('-p', 'cameras:=[wide, tall, square]')
    cameras = {name: Camera(peer, f'{name}/image_raw') for name in pictures}
    for camera in cameras.values():
        camera.wait_for_node()
    for name, picture in pictures.items():
        cameras[name].send_until(as_image(picture), lambda name=name: received[name])
    changed = pictures['tall']  # the wide camera is turned
    cameras['wide'].send_until(
        as_image(changed), lambda: received['wide'][-1].image_height == 512, period=0.1
    )
    received['turned'], pictures['turned'] = received['wide'][-1:], changed
    for name, picture in pictures.items():
        message, expected = received[name][0], node_poses(picture)
        assert (message.image_height, message.image_width) == picture.shape[:2]
        assert len(message.poses) == len(expected) >= 1
        for person, pose in zip(message.poses, expected, strict=True):
            points = [(keypoint.x, keypoint.y) for keypoint in person.keypoints]
            assert np.allclose(points, pose.keypoints, atol=0.01)


def test_attention_may_be_off_as_yaml_reads_it(start_node, peer, tmp_path):
    path = tmp_path / 'robot.yaml'
    path.write_text('/**:\n  ros__parameters:\n    attention: off\n')
    start_node('--params-file', str(path))
    request = GetParameters.Request(names=['attention'])
    (value,) = peer.call(GetParameters, f'{NODE}/get_parameters', request).values
    assert value.string_value == 'off'


def test_closeups_are_looked_at(start_node, peer, camera, astronaut):
    """A person who is small in the image, with the preset balanced but in fp32."""
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node('--params-file', str(ROOT / 'config/balanced.yaml'), precision='fp32')
    camera.wait_for_node()
    far = np.full((840, 1120, 3), 128, np.uint8)
    far[180:351, 280:451] = astronaut[::3, ::3]
    camera.send_until(as_image(far), lambda: poses and len(clear_people(poses[-1])) == 1)
    (person,) = clear_people(poses[-1])
    nose = person.keypoints[0]
    assert (nose.x, nose.y) == pytest.approx((280 + 222 / 3, 180 + 127 / 3), abs=4)


def test_deviations_are_drawn_on_request(start_node, peer, camera, astronaut):
    markers = peer.collect(MarkerArray, f'{NODE}/markers')
    start_node()
    camera.wait_for_node()
    message = as_image(astronaut)
    camera.send_until(message, lambda: markers and len(markers[-1].markers) > 1)
    assert 'deviations' not in {marker.ns for marker in markers[-1].markers}
    assert set_parameters(peer, show_deviations=True).successful
    camera.send_until(
        message, lambda: 'deviations' in {marker.ns for marker in markers[-1].markers}
    )


def test_broken_frames_of_one_camera_cost_the_other_nothing(start_node, peer, astronaut):
    good, bad = as_image(astronaut[::4, ::4].copy()), as_image(astronaut[::4, ::4].copy())
    bad.header.stamp.sec = -5
    poses = {name: peer.collect(PoseArray, f'{NODE}/{name}/poses') for name in ('good', 'bad')}
    node = start_node('-p', 'cameras:=[bad, good]')
    cameras = {name: Camera(peer, f'{name}/image_raw') for name in poses}
    for camera in cameras.values():
        camera.wait_for_node()
    for turn in range(20):
        bad.encoding = 'rgb8' if turn % 2 else 'rgb9'
        cameras['bad'].publisher.publish(bad)
        cameras['good'].send(good)
        peer.spin_for(0.05)
    assert len(poses['good']) >= 15
    assert poses['bad']
    assert 'unexpected' not in node.output


@pytest.mark.parametrize('names', ['[front, front]', '[]', "['no spaces']"])
def test_camera_names_must_make_sense(start_node, names):
    node = start_node('-p', f'cameras:={names}', ready=False)
    node.wait_for('Invalid cameras')
    assert 'Traceback' not in node.output


# Shutdown.


@pytest.mark.parametrize('signal_number', [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ends_cleanly_while_images_come(start_node, start, peer, signal_number, astronaut):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    camera = Camera(peer)
    for delay in (0.0, 0.013, 0.1):
        node = start_node()
        poses.clear()
        camera.send_until(as_image(astronaut), lambda: poses, period=1 / 60)
        peer.spin_for(delay)
        camera.send(as_image(astronaut))
        assert node.stop(signal_number) == 0, node.output
        assert 'Traceback' not in node.output
        assert 'terminate called' not in node.output


@pytest.mark.parametrize('delay', [0.05, 0.3, 0.6, 0.9, 1.2])
def test_ends_cleanly_on_an_early_signal(start_node, delay):
    node = start_node(ready=False)
    time.sleep(delay)
    try:
        status = node.stop(signal.SIGINT)
    except AssertionError:  # Python's start swallows what interrupts a .pth file
        assert delay < 0.1 and re.search(r'Error processing line \d+ of .*\.pth', node.output)
        return
    lines = (ROOT / 'scripts/posenet_node').read_text().splitlines()
    blocked = 1 + next(i for i, line in enumerate(lines) if 'pthread_sigmask' in line)
    reached = re.search(r'/posenet_node", line (\d+), in <module>', node.output)
    # Python itself was starting, or the script's lines until it blocks signals.
    if 'init_import_site' in node.output or (reached and int(reached[1]) <= blocked):
        assert delay < 0.1
        return
    assert status in ((0, -2) if delay < 0.1 else (0,)), node.output
    assert 'Traceback' not in node.output


def test_closed_terminal_does_not_end_a_node_under_nohup(start_node, peer):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited by what is started now
    try:
        node = start_node()
    finally:
        signal.signal(signal.SIGHUP, before)
    os.kill(node.pid, signal.SIGHUP)
    time.sleep(0.5)
    assert state(peer) == State.PRIMARY_STATE_ACTIVE
    assert node.running()
    assert node.stop(signal.SIGTERM) == 0


def shared_memory_segments():
    return set(map(str, Path('/dev/shm').glob('fast*')))


def segments_of(pid):
    """The segments that a process has mapped or open, but for one that all domains share."""
    mapped = re.findall(r'/dev/shm/fast\S+', Path(f'/proc/{pid}/maps').read_text())
    opened = [str(link.readlink()) for link in Path(f'/proc/{pid}/fd').iterdir()]
    shared = ('/dev/shm/fastdds_port7000', '/dev/shm/fastrtps_port7000')
    paths = {*mapped, *opened} & shared_memory_segments()
    return {path for path in paths if not path.startswith(shared)}


def test_ends_at_once_while_a_server_does_not_answer(start, tmp_path):
    """A download that hangs must not hold the process: a launch file waits 5 s, then kills."""
    before = shared_memory_segments()  # other tests' processes have theirs there, too
    with socket.create_server(('127.0.0.1', 0)) as mute:
        url = f'http://127.0.0.1:{mute.getsockname()[1]}/model-stride16.json'
        node = start(
            'posenet_node', '--ros-args', '-p', f'model_url:={url}',
            environment={'POSENET_HOME': str(tmp_path)},
        )  # fmt: skip
        mute.settimeout(20)
        connection, _ = mute.accept()
        segments = segments_of(node.pid) - before
        started = time.monotonic()
        assert node.stop(signal.SIGINT) == 0
        assert time.monotonic() - started < 3
        connection.close()
    assert segments
    assert segments.isdisjoint(shared_memory_segments())


def test_second_signal_changes_nothing(start_node):
    node = start_node()
    for _ in range(5):
        os.kill(node.pid, signal.SIGINT)
        os.kill(node.pid, signal.SIGTERM)
    assert node.stop(signal.SIGINT) == 0
    assert 'Traceback' not in node.output
