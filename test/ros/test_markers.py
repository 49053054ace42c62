import numpy as np
import pytest
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from posenet_ros import SKELETON, CameraModel, Pose
from posenet_ros.ros.markers import in_space, no_markers, on_plane, pose_markers
from posenet_ros.space.lift import GUESSED, MEASURED, Pose3D, unplaced

CAMERA = CameraModel(640, 480, 600.0, 600.0, 320.0, 240.0)


def person(score=0.9, keypoint_scores=None):
    keypoints = np.stack([np.arange(17) * 30.0, np.arange(17) * 20.0 + 50], -1)
    scores = np.full(17, 0.9) if keypoint_scores is None else keypoint_scores
    return Pose(score, keypoints, scores)


def markers_of(poses, header=None, least=0.1, deviations=False):
    placed = on_plane(CAMERA, poses, 2.0, deviations=deviations)
    return pose_markers(header or Header(), poses, placed, 0.3, least)


def of(markers, namespace):
    return [marker for marker in markers.markers if marker.ns == namespace]


def test_points_on_a_plane_project_back_onto_their_pixels():
    (placed,) = on_plane(CAMERA, [person()], 2.0)
    assert np.allclose(placed.points[:, 2], 2.0)
    assert np.allclose(CAMERA.project(placed.points), person().keypoints)


def test_mirrored_pixels_are_where_people_are():
    mirrored = person().keypoints.copy()
    mirrored[:, 0] = 639 - mirrored[:, 0]
    flipped = Pose(0.9, mirrored, np.full(17, 0.9))
    (found,) = on_plane(CAMERA, [flipped], 2.0, flipped=True)
    (expected,) = on_plane(CAMERA, [person()], 2.0)
    assert np.allclose(found.points, expected.points)


def test_markers_of_a_raw_image_count_the_lens_in():
    lens = CameraModel(640, 480, 600.0, 600.0, 320.0, 240.0, 'plumb_bob', (-0.3, 0.1, 0.0, 0.0))
    (placed,) = on_plane(lens, [person()], 2.0)
    inside = (person().keypoints < (640, 480)).all(axis=1)
    assert np.allclose(lens.project(placed.points)[inside], person().keypoints[inside], atol=0.01)
    assert not np.allclose(placed.points, on_plane(CAMERA, [person()], 2.0)[0].points, atol=0.01)


def lifted(**values):
    points = np.stack([np.arange(17) / 10, np.arange(17) / 20, np.full(17, 3.0)], -1)
    fields = {
        'score': 0.9, 'track_id': 4, 'points': points, 'states': np.full(17, MEASURED, np.uint8),
        'deviations_along': np.full(17, 0.1), 'deviations_across': np.full(17, 0.02),
        'torso': np.array([0.0, 0.0, 3.04]), 'torso_state': MEASURED,
        'torso_deviation_along': 0.1, 'torso_deviation_across': 0.02,
        'heading': np.eye(3), 'heading_deviation': 0.1,
    }  # fmt: skip
    return Pose3D(**{**fields, **values})


def test_people_in_space_are_where_they_are_and_what_is_unknown_is_not_drawn():
    points = lifted().points
    points[9] = np.nan
    placed = in_space(CAMERA, [person()], [lifted(points=points)], deviations=True)
    markers = pose_markers(Header(), [person()], placed, 0.3, 0.1)
    (joints,) = of(markers, 'joints')
    assert [(p.x, p.y, p.z) for p in joints.points] == [
        pytest.approx(tuple(point)) for i, point in enumerate(points) if i != 9
    ]
    assert of(markers, 'label')[0].text == '1: 0.90, 3.0 m'
    assert joints.color.a == 1.0
    (lines,) = of(markers, 'deviations')
    ends = np.array([(p.x, p.y, p.z) for p in lines.points]).reshape(16, 2, 3)
    assert np.allclose(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1), 0.2)
    assert np.allclose(ends.mean(axis=1), np.delete(points, 9, axis=0))


def test_guessed_people_are_pale_and_at_their_distance():
    guess = lifted(
        points=np.full((17, 3), np.nan), states=np.zeros(17, np.uint8), torso_state=GUESSED
    )
    placed = in_space(CAMERA, [person()], [guess])
    markers = pose_markers(Header(), [person()], placed, 0.3, 0.1)
    (joints,) = of(markers, 'joints')
    assert {point.z for point in joints.points} == {3.04}
    assert joints.color.a < 0.5
    assert of(markers, 'label')[0].text == '1: 0.90, about 3.0 m'


def test_people_of_whom_nothing_is_known_are_not_drawn():
    placed = in_space(None, [person()], [unplaced(person())])
    (only,) = pose_markers(Header(), [person()], placed, 0.3, 0.1).markers
    assert only.action == Marker.DELETEALL


def test_each_person_has_joints_bones_and_a_label_with_its_number():
    header = Header(frame_id='camera')
    markers = markers_of([person(), person(0.8)], header, 0.15)
    assert markers.markers[0].action == Marker.DELETEALL
    for namespace in ('joints', 'bones', 'label'):
        assert [marker.id for marker in of(markers, namespace)] == [0, 1]
    assert all(marker.header == header for marker in markers.markers)
    first, second = of(markers, 'bones')
    assert len(first.points) == 2 * len(SKELETON)
    assert first.color != second.color
    assert of(markers, 'label')[1].text == '2: 0.80'


def test_low_scores_are_left_out_and_people_keep_their_number():
    scores = np.full(17, 0.9)
    scores[5] = 0.1  # left shoulder: four bones end there
    markers = markers_of([person(0.1), person(0.9, scores)], least=0.15)
    (joints,), (bones,) = of(markers, 'joints'), of(markers, 'bones')
    assert joints.id == 1
    assert len(joints.points) == 16
    assert len(bones.points) == 2 * (len(SKELETON) - sum(5 in bone for bone in SKELETON))


def test_deviations_are_circles_around_the_joints_that_are_shown():
    scores = np.full(17, 0.9)
    scores[5:] = 0.1
    pose = Pose(0.9, person().keypoints, scores, np.arange(1.0, 18.0))
    (circles,) = of(markers_of([pose], deviations=True), 'deviations')
    pixels = CAMERA.project(np.array([(p.x, p.y, p.z) for p in circles.points])).reshape(5, -1, 2)
    for ring, centre, radius in zip(pixels, pose.keypoints, pose.keypoint_deviations, strict=False):
        assert np.linalg.norm(ring - centre, axis=1) == pytest.approx(radius)
    assert of(markers_of([pose]), 'deviations') == []


def test_no_people_remove_the_old_markers():
    (only,) = markers_of([]).markers
    assert only.action == Marker.DELETEALL


def test_markers_are_removed_by_one_that_says_so():
    header = Header(frame_id='camera')
    (marker,) = no_markers(header).markers
    assert marker.action == Marker.DELETEALL and marker.header == header
