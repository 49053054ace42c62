"""Other packages' messages, through the node and with those packages' own definitions.

Only visualization_msgs has a wheel. `make test-bridges BRIDGE_SOURCES=folder` builds the others.
"""

import importlib

import numpy as np
import pytest
from posenet_ros.msg import PoseArray
from ros_processes import NODE, Camera, as_image, state, wait_until
from visualization_msgs.msg import ImageMarker

from posenet_ros.core.keypoints import KEYPOINT_NAMES, MIN_KEYPOINT_SCORE, MIN_POSE_SCORE
from posenet_ros.ros.bridges import PACKAGES

pytestmark = pytest.mark.slow


def messages_of(package):
    return pytest.importorskip(
        f'{package}.msg', reason=f'{package} has no wheel: make test-bridges builds it'
    )


@pytest.fixture
def people(start_node, peer, camera, astronaut):
    """Runs the node with a bridge and sends the astronaut until messages have come.

    Returns the people of ~/poses that count, and the header of the image.
    """

    def run(bridge, until, **parameters):
        poses = peer.collect(PoseArray, f'{NODE}/poses')
        start_node(bridges=[bridge], **parameters)
        camera.wait_for_node()
        camera.send_until(as_image(astronaut, frame_id='lens'), lambda: until() and len(poses) > 2)
        return [person for person in poses[-1].poses if person.score >= MIN_POSE_SCORE]

    return run


def points_of(person, least=MIN_KEYPOINT_SCORE):
    return np.array([(k.x, k.y) for k in person.keypoints if k.score >= least])


def test_detections_are_the_boxes_of_the_clear_keypoints(people, peer):
    vision = messages_of('vision_msgs')
    found = peer.collect(vision.Detection2DArray, f'{NODE}/detections')
    expected = people('detections', lambda: found and found[-1].detections[0].id)
    message = found[-1]
    assert message.header.frame_id == 'lens'
    assert len(message.detections) == len(expected) >= 1
    for detection, person in zip(message.detections, expected, strict=True):
        (left, top), (right, bottom) = points_of(person).min(axis=0), points_of(person).max(axis=0)
        box = detection.bbox
        assert np.allclose((box.size_x, box.size_y), (right - left, bottom - top), atol=0.01)
        centre = box.center.position.x, box.center.position.y
        assert np.allclose(centre, ((left + right) / 2, (top + bottom) / 2), atol=0.01)
        (result,) = detection.results
        assert result.hypothesis.class_id == 'person'
        assert result.hypothesis.score == pytest.approx(person.score, abs=1e-6)
        assert int(detection.id) >= 1
        assert detection.header == message.header


def test_humans_are_bodies_as_in_rep_155(people, peer, start_node, camera, astronaut):
    hri = messages_of('hri_msgs')
    tracked = peer.collect(hri.IdsList, '/humans/bodies/tracked')
    rois, skeletons = [], []

    def subscribed():
        if not tracked or not tracked[-1].ids:
            return False
        if not rois and not hasattr(peer, 'body'):
            peer.body = tracked[-1].ids[0]
            topic = f'/humans/bodies/{peer.body}'
            peer.create_subscription(
                hri.NormalizedRegionOfInterest2D, f'{topic}/roi', rois.append, 10
            )
            peer.create_subscription(hri.Skeleton2D, f'{topic}/skeleton2d', skeletons.append, 10)
        return bool(rois and skeletons)

    (person,) = people('humans', subscribed)
    assert tracked[-1].ids == [peer.body]
    assert peer.body[0].isalpha() and peer.body.isalnum()
    sides = np.array(astronaut.shape[1::-1]) - 1
    box, points = rois[-1], np.clip(points_of(person) / sides, 0, 1)
    assert np.allclose((box.xmin, box.ymin), points.min(axis=0), atol=1e-4)
    assert np.allclose((box.xmax, box.ymax), points.max(axis=0), atol=1e-4)
    assert box.c == pytest.approx(person.score, abs=1e-5)
    skeleton, kind = skeletons[-1].skeleton, hri.Skeleton2D
    for ours, theirs in (
        ('nose', kind.NOSE),
        ('leftShoulder', kind.LEFT_SHOULDER),
        ('rightEye', kind.RIGHT_EYE),
        ('leftAnkle', kind.LEFT_ANKLE),
    ):
        keypoint = person.keypoints[KEYPOINT_NAMES.index(ours)]
        expected = np.clip(np.array((keypoint.x, keypoint.y)) / sides, 0, 1)
        assert np.allclose((skeleton[theirs].x, skeleton[theirs].y), expected, atol=1e-4)
        assert skeleton[theirs].c == pytest.approx(keypoint.score, abs=1e-5)
    left, right = skeleton[kind.LEFT_SHOULDER], skeleton[kind.RIGHT_SHOULDER]
    assert skeleton[kind.NECK].x == pytest.approx((left.x + right.x) / 2, abs=1e-5)
    # Whoever is not seen for longer than the id is kept is no body any more.
    nobody = as_image(np.zeros_like(astronaut), frame_id='lens')
    camera.send_until(nobody, lambda: not tracked[-1].ids)
    assert wait_until(lambda: peer.count_publishers(f'/humans/bodies/{peer.body}/roi') == 0)


def test_annotations_lie_over_the_image(people, peer):
    foxglove = messages_of('foxglove_msgs')
    found = peer.collect(foxglove.ImageAnnotations, f'{NODE}/annotations')
    expected = people('annotations', lambda: found and found[-1].points)
    kinds = foxglove.PointsAnnotation
    bones, joints = found[-1].points[:2]
    assert (bones.type, joints.type) == (kinds.LINE_LIST, kinds.POINTS)
    assert found[-1].timestamp.sec > 0
    assert bones.timestamp == found[-1].timestamp
    points = points_of(expected[0]) + 0.5  # from the corner of the first pixel
    assert np.allclose([(p.x, p.y) for p in joints.points], points, atol=0.01)
    assert len(bones.points) % 2 == 0
    assert len(found[-1].texts) == len(expected)


def test_image_markers_lie_over_the_image_that_is_not_mirrored(people, peer, astronaut):
    found = peer.collect(ImageMarker, f'{NODE}/image_markers')
    expected = people('image_markers', lambda: found and found[-1].points, flip_horizontal=True)
    bones, joints = (
        next(m for m in reversed(found) if m.ns == namespace) for namespace in ('bones', 'joints')
    )
    assert (bones.type, joints.type) == (ImageMarker.LINE_LIST, ImageMarker.POINTS)
    points = np.concatenate([points_of(person) for person in expected])
    points[:, 0] = astronaut.shape[1] - 1 - points[:, 0]
    assert np.allclose([(p.x, p.y) for p in joints.points], points, atol=0.01)
    assert len(joints.outline_colors) == len(joints.points)
    assert len(bones.outline_colors) == len(bones.points) / 2  # one for each line
    assert joints.header.frame_id == 'lens'


def test_a_bridge_wakes_the_node_and_nothing_else_does(start_node, peer):
    camera = Camera(peer)
    start_node(bridges=['image_markers'])
    peer.spin_for(1.0)
    assert camera.publisher.get_subscription_count() == 0
    peer.collect(ImageMarker, f'{NODE}/image_markers')
    camera.wait_for_node()


@pytest.mark.parametrize(
    ('bridges', 'more', 'reason'),
    [
        (['detection'], {}, "Invalid bridges 'detection'. Should be some of annotations"),
        (['image_markers', 'image_markers'], {}, 'each once'),
        (['humans'], {'tracking': False}, 'Invalid bridges humans. It needs tracking'),
    ],
)
def test_bridges_that_cannot_be_are_refused(start_node, peer, bridges, more, reason):
    node = start_node(bridges=bridges, ready=False, **more)
    node.wait_for(reason)
    assert node.running()
    assert peer.spin_until(lambda: state(peer) == 1)  # unconfigured


@pytest.mark.parametrize('bridge', ['annotations', 'detections', 'humans'])
def test_a_missing_package_is_named(start_node, peer, bridge):
    package = PACKAGES[bridge]
    try:
        importlib.import_module(package)
    except ImportError:
        node = start_node(bridges=[bridge], ready=False)
        node.wait_for(f'Invalid bridges {bridge}. It needs the package {package}')
        node.wait_for(f'apt install ros-$ROS_DISTRO-{package.replace("_", "-")}')
        assert node.running()
    else:
        pytest.skip(f'{package} is there')
