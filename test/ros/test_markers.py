import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from posenet_ros import SKELETON, Pose
from posenet_ros.ros.markers import PixelPlane, calibrated, has_values, no_markers, pose_markers

INFO = CameraInfo(
    width=640,
    height=480,
    k=[500.0, 0.0, 310.0, 0.0, 510.0, 250.0, 0.0, 0.0, 1.0],
    p=[600.0, 0.0, 320.0, 0.0, 0.0, 600.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0],
)
PLANE = PixelPlane.of_camera(INFO, 640, 480, 2.0)


def person(score=0.9, keypoint_scores=None):
    keypoints = np.stack([np.arange(17) * 30.0, np.arange(17) * 20.0 + 50], -1)
    scores = np.full(17, 0.9) if keypoint_scores is None else keypoint_scores
    return Pose(score, keypoints, scores)


def of(markers, namespace):
    return [marker for marker in markers.markers if marker.ns == namespace]


def test_points_project_back_onto_their_pixels():
    pixels = np.array([[0.0, 0.0], [320.0, 240.0], [639.0, 479.0], [-50.0, 700.0]])
    projection = np.array(INFO.p).reshape(3, 4)
    for pixel, point in zip(pixels, PLANE.points(pixels), strict=True):
        assert point.z == 2.0
        u, v, w = projection @ (point.x, point.y, point.z, 1)
        assert (u / w, v / w) == pytest.approx(tuple(pixel))


def test_image_scaled_since_calibration_looks_the_same_way():
    (half,) = PixelPlane.of_camera(INFO, 320, 240, 2.0).points(np.array([[100.0, 50.0]]))
    (full,) = PLANE.points(np.array([[200.0, 100.0]]))
    assert (half.x, half.y) == pytest.approx((full.x, full.y))


@pytest.mark.parametrize('binning', [1, 2])
def test_window_of_the_sensor_is_where_it_is(binning):
    """A pixel of the window is the pixel of the whole image that it was cut from."""
    roi = RegionOfInterest(x_offset=240, y_offset=100, width=320, height=240)
    info = CameraInfo(width=640, height=480, p=INFO.p, roi=roi, binning_x=binning)
    plane = PixelPlane.of_camera(info, 320 // binning, 240 // binning, 2.0)
    (found,) = plane.points(np.array([[100.0, 60.0]]) / binning)
    (expected,) = PLANE.points(np.array([[340.0, 160.0]]))
    assert (found.x, found.y) == pytest.approx((expected.x, expected.y))


def test_right_camera_of_a_stereo_pair_is_beside_the_left():
    projection = list(INFO.p)
    projection[3], projection[7] = -60.0, 12.0  # 0.1 m to the right
    info = CameraInfo(width=640, height=480, p=projection)
    pixels = np.array([[100.0, 50.0], [320.0, 240.0]])
    for scale in (1, 2):
        plane = PixelPlane.of_camera(info, 640 // scale, 480 // scale, 3.0)
        for pixel, point in zip(pixels, plane.points(pixels / scale), strict=True):
            u, v, w = np.array(projection).reshape(3, 4) @ (point.x, point.y, point.z, 1)
            assert (u / w, v / w) == pytest.approx(tuple(pixel))


def test_mirrored_pixels_are_where_people_are():
    pixels = np.array([[100.0, 50.0], [600.0, 300.0]])
    mirrored = np.stack([639 - pixels[:, 0], pixels[:, 1]], axis=1)
    for found, expected in zip(
        PLANE.mirrored(640).points(mirrored), PLANE.points(pixels), strict=True
    ):
        assert (found.x, found.y, found.z) == pytest.approx((expected.x, expected.y, expected.z))


def test_unrectified_camera_falls_back_to_its_own_matrix():
    info = CameraInfo(width=640, height=480, k=INFO.k)
    plane = PixelPlane.of_camera(info, 640, 480, 1.0)
    assert (plane.focal_x, plane.focal_y, plane.centre_x, plane.centre_y) == (500, 510, 310, 250)


def test_calibration_of_zeros_is_none():
    assert calibrated(INFO)
    assert calibrated(CameraInfo(k=INFO.k))
    assert not calibrated(CameraInfo())
    assert not calibrated(None)


def test_plane_without_calibration_has_the_width_asked_for():
    plane = PixelPlane.uncalibrated(641, 481, distance=3.0, plane_width=2.0)
    left, right, middle = plane.points(np.array([[0.0, 240.0], [641.0, 240.0], [320.0, 240.0]]))
    assert right.x - left.x == pytest.approx(2.0)
    assert (middle.x, middle.y, middle.z) == pytest.approx((0, 0, 3))


def test_each_person_has_joints_bones_and_a_label_with_its_number():
    header = Header(frame_id='camera')
    markers = pose_markers(header, [person(), person(0.8)], PLANE, 0.3, 0.15)
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
    markers = pose_markers(Header(), [person(0.1), person(0.9, scores)], PLANE, 0.3, 0.15)
    (joints,), (bones,) = of(markers, 'joints'), of(markers, 'bones')
    assert joints.id == 1
    assert len(joints.points) == 16
    assert len(bones.points) == 2 * (len(SKELETON) - sum(5 in bone for bone in SKELETON))


def test_deviations_are_circles_around_the_joints_that_are_shown():
    scores = np.full(17, 0.9)
    scores[5:] = 0.1
    pose = Pose(0.9, person().keypoints, scores, np.arange(1.0, 18.0))
    (circles,) = of(pose_markers(Header(), [pose], PLANE, 0.3, 0.1, deviations=True), 'deviations')
    pixels = PLANE.focal_x * np.array([(p.x, p.y) for p in circles.points]) / PLANE.distance
    pixels = np.add(pixels, (PLANE.centre_x, PLANE.centre_y)).reshape(5, -1, 2)
    for ring, centre, radius in zip(pixels, pose.keypoints, pose.keypoint_deviations, strict=False):
        assert np.linalg.norm(ring - centre, axis=1) == pytest.approx(radius)
    assert of(pose_markers(Header(), [pose], PLANE, 0.3, 0.1), 'deviations') == []


def test_no_people_remove_the_old_markers():
    (only,) = pose_markers(Header(), [], PLANE, 0.3, 0.15).markers
    assert only.action == Marker.DELETEALL


def test_zeros_are_no_calibration_at_all():
    assert not has_values(CameraInfo()) and not calibrated(CameraInfo())
    assert not calibrated(None)
    for name in ('p', 'k'):
        values = [0.0] * len(getattr(CameraInfo(), name))
        values[0] = 500.0
        info = CameraInfo(**{name: values})
        assert has_values(info) and not calibrated(info)  # without a vertical focal length


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, 1e9])
def test_calibration_of_impossible_values_is_none(value):
    assert calibrated(INFO)
    for name in ('p', 'k'):
        values = list(getattr(INFO, name))
        values[2] = value
        info = CameraInfo(p=INFO.p, k=INFO.k)
        setattr(info, name, values)
        assert has_values(info) and not calibrated(info)


def test_markers_are_removed_by_one_that_says_so():
    header = Header(frame_id='camera')
    (marker,) = no_markers(header).markers
    assert marker.action == Marker.DELETEALL and marker.header == header
