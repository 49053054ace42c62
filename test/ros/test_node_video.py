"""People over time, through the node: ids, close-ups of people, smoothing, and what it tells."""

import numpy as np
import pytest
from posenet_ros.msg import ModelInfo, PoseArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_processes import (
    NODE,
    as_image,
    clear_people,
    collect_status,
    set_parameters,
    values_of,
)
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

pytestmark = pytest.mark.slow


@pytest.fixture
def walk(peer, camera, astronaut):
    """Sends images in which the astronaut, small, moves to the right; stamps 0.05 s apart."""
    state = {'frame': 0}

    def send(condition, timeout=30):
        def step():
            frame = state['frame']
            image = np.full((480, 640, 3), 128, np.uint8)
            left = 40 + 4 * (frame % 60)
            image[150:406, left : left + 256] = astronaut[::2, ::2]
            message = as_image(image)
            message.header.stamp.sec = 1000 + frame // 20
            message.header.stamp.nanosec = frame % 20 * 50_000_000
            state['frame'] += 1
            camera.publisher.publish(message)
            peer.spin_for(0.06)
            return condition()

        assert peer.spin_until(step, timeout)

    return send


def ids(messages):
    return [[person.track_id for person in clear_people(message)] for message in messages]


def test_ids_stay_until_they_are_reset(start_node, peer, camera, walk):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    start_node()
    camera.wait_for_node()
    walk(lambda: len(poses) >= 12)
    seen = ids(poses)
    assert seen[0] == [-1]
    assert set(map(tuple, seen[2:])) == {(1,)}
    answer = peer.call(Trigger, f'{NODE}/reset_tracker', Trigger.Request())
    assert answer.success
    poses.clear()
    walk(lambda: len(poses) >= 6)
    assert ids(poses)[-1][0] > 1


def test_without_tracking_nobody_has_an_id(start_node, peer, camera, walk):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    info = peer.collect(ModelInfo, f'{NODE}/model_info', LATCHED)
    start_node(tracking=False)
    camera.wait_for_node()
    walk(lambda: len(poses) >= 5)
    assert set(map(tuple, ids(poses))) == {(-1,)}
    assert (info[-1].attention, info[-1].tracking, info[-1].smoothing) == ('off', False, False)
    assert set_parameters(peer, tracking=True, smoothing=True, track_min_hits=1).successful
    assert peer.spin_until(lambda: info[-1].tracking and info[-1].smoothing)
    poses.clear()
    walk(lambda: len(poses) >= 5)
    assert ids(poses)[-1] == [1]
    refused = set_parameters(peer, track_max_age=-1.0)
    assert not refused.successful
    assert 'track_max_age' in refused.reason


def test_people_are_followed_with_closeups(start_node, peer, camera, walk):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    markers = peer.collect(MarkerArray, f'{NODE}/markers')
    status = collect_status(peer)
    start_node(attention='people', whole_image_period=0.5)
    camera.wait_for_node()

    def told():
        values = values_of(status[-1]) if status else {}
        return (
            float(values.get('close-ups (Hz)', 0)) > float(values.get('whole images (Hz)', 0)) > 0
            and values['people tracked'] == '1'
            and values['ids given / ended'].endswith(' / 0')
        )

    walk(lambda: len(poses) > 20 and told(), timeout=60)
    assert set(map(tuple, ids(poses)[3:])) == {(1,)}
    labels = [marker.text for marker in markers[-1].markers if marker.ns == 'label']
    assert labels[0].startswith('#1: ')
