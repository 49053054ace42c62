"""What the node does on demand, and what each camera can have of its own."""

import time

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from posenet_ros.msg import ModelInfo, PoseArray
from posenet_ros.srv import Estimate, SetModel
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_processes import (
    NODE,
    Camera,
    as_image,
    change_state,
    clear_people,
    collect_status,
    set_parameters,
    values_of,
)
from std_srvs.srv import SetBool

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

pytestmark = pytest.mark.slow


def estimate(peer, image):
    request = Estimate.Request(image=as_image(image, frame_id='lens'))
    return peer.call(Estimate, f'{NODE}/estimate', request, tries=3)


def test_an_image_gets_its_poses_while_the_node_is_paused(start_node, peer, node_poses, astronaut):
    start_node()
    assert peer.call(SetBool, f'{NODE}/enable', SetBool.Request(data=False)).success
    answer = estimate(peer, astronaut)
    assert (answer.success, answer.message) == (True, '')
    assert answer.poses.header.frame_id == 'lens'
    assert (answer.poses.image_width, answer.poses.image_height) == (512, 512)
    expected = node_poses(astronaut)
    assert len(answer.poses.poses) == len(expected) >= 1
    for person, pose in zip(answer.poses.poses, expected, strict=True):
        points = [(keypoint.x, keypoint.y) for keypoint in person.keypoints]
        assert np.allclose(points, pose.keypoints, atol=0.01)
    assert change_state(peer, Transition.TRANSITION_DEACTIVATE)
    assert estimate(peer, astronaut).success  # a model is loaded
    assert change_state(peer, Transition.TRANSITION_CLEANUP)
    answer = estimate(peer, astronaut)
    assert not answer.success
    assert 'no model is loaded' in answer.message


def test_a_broken_image_gets_a_reason_and_cameras_go_on(start_node, peer, camera, astronaut):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node()
    camera.wait_for_node()
    broken = as_image(astronaut)
    broken.encoding = 'rgb9'
    answer = peer.call(Estimate, f'{NODE}/estimate', Estimate.Request(image=broken), tries=3)
    assert not answer.success
    assert "unknown encoding 'rgb9'" in answer.message
    camera.send_until(as_image(astronaut), lambda: poses)


def test_another_model_takes_over_without_a_gap(start_node, peer, camera, astronaut):
    poses = peer.collect(PoseArray, f'{NODE}/poses', 1000)
    info = peer.collect(ModelInfo, f'{NODE}/model_info', LATCHED)
    start_node()
    camera.wait_for_node()
    message = as_image(astronaut)
    camera.send_until(message, lambda: len(poses) > 5 and clear_people(poses[-1])[0].track_id > 0)
    client = peer.create_client(SetModel, f'{NODE}/set_model')
    assert peer.spin_until(client.service_is_ready)
    poses.clear()
    camera.sent = 0
    future = client.call_async(SetModel.Request(parameters='{input_resolution: 161}'))
    arrivals = []

    def done():
        arrivals.append((time.monotonic(), len(poses)))
        return future.done()

    camera.send_until(message, done, period=0.1)
    answer = future.result()
    assert answer.success, answer.message
    assert 'input 177 x 145 for 4:3' in answer.message
    sent, received = camera.sent, len(poses)
    assert received >= sent - 2  # all, but one in hand and one that best effort may lose
    camera.send_until(message, lambda: len(poses) > received + 3)
    assert peer.spin_until(lambda: info[-1].input_width == 177)
    assert {p.track_id for m in poses for p in clear_people(m)} == {1}  # ids stay
    request = GetParameters.Request(names=['input_resolution'])
    (value,) = peer.call(GetParameters, f'{NODE}/get_parameters', request, tries=3).values
    assert value.integer_value == 161
    assert not set_parameters(peer, output_stride=32).successful  # still locked


@pytest.mark.parametrize(
    ('parameters', 'reason'),
    [
        ('{output_stride: 5}', 'output_stride'),
        ('{image_topic: /eye}', "Invalid parameter 'image_topic'"),
        ('no mapping', 'Should be like'),
        ('{a: [', 'no YAML'),
        ('{model_url: /nowhere/model.json}', '/nowhere/model.json'),
    ],
)
def test_a_model_that_cannot_be_leaves_the_old_one(
    start_node, peer, camera, astronaut, parameters, reason
):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    node = start_node()
    camera.wait_for_node()
    request = SetModel.Request(parameters=parameters)
    answer = peer.call(SetModel, f'{NODE}/set_model', request)
    assert not answer.success
    assert reason in answer.message
    node.wait_for('the model stays as it was')
    poses.clear()
    camera.send_until(as_image(astronaut), lambda: poses and poses[-1].poses)


def test_several_parameters_change_together(start_node, peer, camera, astronaut):
    """One after another they would describe no model: there is no ResNet50 of stride 8."""
    start_node(attention='closeups', closeup_resolution=65)
    request = SetModel.Request(parameters='{attention: people, closeup_resolution: 129}')
    answer = peer.call(SetModel, f'{NODE}/set_model', request)
    assert answer.success, answer.message
    names = ['attention', 'closeup_resolution']
    request = GetParameters.Request(names=names)
    values = peer.call(GetParameters, f'{NODE}/get_parameters', request, tries=3).values
    assert (values[0].string_value, values[1].integer_value) == ('people', 129)


def test_requests_are_answered_while_cameras_come_and_go(start_node, peer, camera, astronaut):
    start_node()
    client = peer.create_client(Estimate, f'{NODE}/estimate')
    assert peer.spin_until(client.service_is_ready)
    request = Estimate.Request(image=as_image(astronaut))
    futures = [client.call_async(request) for _ in range(3)]
    assert change_state(peer, Transition.TRANSITION_DEACTIVATE)
    assert change_state(peer, Transition.TRANSITION_CLEANUP)
    assert change_state(peer, Transition.TRANSITION_CONFIGURE)
    assert peer.spin_until(lambda: all(future.done() for future in futures))
    assert estimate(peer, astronaut).success


def test_what_param_dump_writes_can_be_read_again(start_node, peer, tmp_path):
    """It writes what is not set as null, which rcl reads as a text."""
    dumped = tmp_path / 'dumped.yaml'
    dumped.write_text(
        '/posenet_node:\n  ros__parameters:\n    cameras: [front]\n'
        '    front:\n      max_rate: null\n      score_threshold: 0.4\n'
    )
    start_node('--params-file', str(dumped))
    deleted = Parameter(name='front.score_threshold', value=ParameterValue(type=0))
    request = SetParametersAtomically.Request(parameters=[deleted])
    service = f'{NODE}/set_parameters_atomically'
    refused = peer.call(SetParametersAtomically, service, request).result
    assert not refused.successful
    assert 'front.score_threshold cannot be deleted' in refused.reason
    assert set_parameters(peer, **{'front.score_threshold': 0.6}).successful


def test_set_model_needs_a_model(start_node, peer):
    start_node(autostart=False, ready=False)
    request = SetModel.Request(parameters='{output_stride: 16}')
    answer = peer.call(SetModel, f'{NODE}/set_model', request)
    assert not answer.success
    assert 'no model is loaded' in answer.message


def test_max_rate_leaves_images_out(start_node, peer, camera):
    poses = peer.collect(PoseArray, f'{NODE}/poses', 1000)
    status = collect_status(peer)
    start_node(max_rate=5.0)
    camera.wait_for_node()
    black = as_image(np.zeros((48, 64, 3), np.uint8))
    camera.send_until(black, lambda: poses)
    poses.clear()
    start = time.monotonic()
    camera.send_until(black, lambda: time.monotonic() > start + 3)
    assert 10 <= len(poses) <= 17

    def told():
        values = values_of(status[-1]) if status else {}
        return int(values.get('left out by max_rate', 0)) > 20

    camera.send_until(black, told)
    assert 'dropped' not in status[-1].message
    assert set_parameters(peer, max_rate=0.0).successful
    poses.clear()
    camera.send_until(black, lambda: len(poses) > 20, timeout=5)


def test_people_are_looked_for_in_the_region(start_node, peer, camera, astronaut):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node(region=[600, 100, 512, 512])
    camera.wait_for_node()
    image = np.zeros((720, 1280, 3), np.uint8)
    image[100:612, 600:1112] = astronaut
    image[100:612, 50:562] = astronaut
    camera.send_until(as_image(image), lambda: poses)
    (person,) = clear_people(poses[-1])
    assert (poses[-1].image_width, poses[-1].image_height) == (1280, 720)
    assert all(600 <= k.x < 1112 for k in person.keypoints if k.score > 0.5)


def test_each_camera_has_values_of_its_own(start_node, peer, astronaut):
    names = ['front', 'rear']
    received = {name: peer.collect(PoseArray, f'{NODE}/{name}/poses') for name in names}
    cameras = {name: Camera(peer, f'{name}/image_raw') for name in names}
    node = start_node('-p', 'rear.max_detections:=1', cameras=names)
    image = np.concatenate([astronaut, astronaut], axis=1)
    for camera in cameras.values():
        camera.wait_for_node()

    def send(condition):
        def step():
            for camera in cameras.values():
                camera.send(as_image(image))
            peer.spin_for(0.05)
            return condition()

        assert peer.spin_until(step)

    send(lambda: all(received.values()))
    assert len(clear_people(received['front'][-1])) == 2
    assert len(received['rear'][-1].poses) == 1
    assert set_parameters(peer, **{'front.max_detections': 1}).successful
    send(lambda: len(received['front'][-1].poses) == 1)
    refused = set_parameters(peer, **{'front.max_detections': 0})
    assert not refused.successful
    assert 'front: Invalid max_detections 0' in refused.reason
    assert 'there is no parameter' not in node.output
