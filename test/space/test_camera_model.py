"""Rays and pixels of calibrated cameras."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from posenet_ros import CalibrationError, CameraModel

K = (520.0, 0.0, 330.0, 0.0, 515.0, 235.0, 0.0, 0.0, 1.0)
P = (500.0, 0.0, 322.0, 0.0, 0.0, 500.0, 238.0, 0.0, 0.0, 0.0, 1.0, 0.0)
EYE = tuple(np.eye(3).reshape(-1))
PLUMB_BOB = (-0.28, 0.09, 0.0011, -0.0008, -0.01)
RATIONAL = (0.15, -2.6, 0.0006, -0.0002, 1.5, 0.04, -2.4, 1.4)  # an Azure Kinect's, about
EQUIDISTANT = (-0.007, 0.04, -0.04, 0.006)


def info(**values):
    fields = {
        'width': 640, 'height': 480, 'k': K, 'p': P, 'r': EYE, 'd': (), 'distortion_model': '',
        'binning_x': 0, 'binning_y': 0,
        'roi': SimpleNamespace(width=0, height=0, x_offset=0, y_offset=0, do_rectify=False),
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **values})


def grid(width=640, height=480):
    return np.stack(np.meshgrid(np.linspace(0, width - 1, 9), np.linspace(0, height - 1, 7)), -1)


def test_rays_of_a_pinhole_are_as_defined():
    camera = CameraModel(640, 480, 500, 400, 320, 240)
    assert camera.rays(np.array([820.0, 640.0])).tolist() == [1.0, 1.0]
    assert camera.points(np.array([820.0, 640.0]), 2.0).tolist() == [2.0, 2.0, 2.0]
    assert camera.project(np.array([2.0, 2.0, 2.0])).tolist() == [820.0, 640.0]
    assert np.isnan(camera.project(np.array([2.0, 2.0, -2.0]))).all()
    assert camera.focal == pytest.approx(np.sqrt(500 * 400))


@pytest.mark.parametrize(
    ('model', 'distortion'),
    [
        ('plumb_bob', PLUMB_BOB),
        ('rational_polynomial', RATIONAL),
        ('equidistant', EQUIDISTANT),
        ('fisheye', EQUIDISTANT),
    ],
)
def test_pixels_and_rays_of_each_lens_are_each_others_inverse(model, distortion):
    camera = CameraModel(640, 480, 520, 515, 330, 235, model, distortion)
    rays = camera.rays(grid())
    assert rays.shape == (7, 9, 2)
    points = camera.points(grid(), 3.0)
    assert np.allclose(points[..., 2], 3.0)
    assert np.abs(camera.project(points) - grid()).max() < 0.01
    without = CameraModel(640, 480, 520, 515, 330, 235)
    assert np.abs(rays - without.rays(grid())).max() > 0.01


def test_pixel_that_the_lens_cannot_see_has_no_ray():
    camera = CameraModel(640, 480, 520, 515, 330, 235, 'plumb_bob', (-0.4, 0.0, 0.0, 0.0))
    rays = camera.rays(np.array([[330.0, 235.0], [4000.0, 4000.0], [np.nan, 0.0]]))
    assert np.allclose(rays[0], 0, atol=1e-6)
    assert np.isnan(rays[1:]).all()
    assert camera.rays(np.zeros((0, 2))).shape == (0, 2)
    assert camera.project(np.zeros((0, 3))).shape == (0, 2)


def test_raw_image_is_rectified_as_image_geometry_does():
    """To rays of the rectified camera: by K, D and R."""
    turn = cv2.Rodrigues(np.array([0.02, -0.05, 0.01]))[0]
    camera = CameraModel.of_info(
        info(d=PLUMB_BOB, distortion_model='plumb_bob', r=tuple(turn.reshape(-1))), 640, 480
    )
    pixels = grid().reshape(-1, 1, 2)
    rectified = cv2.undistortPoints(
        pixels, np.reshape(K, (3, 3)), np.array(PLUMB_BOB), R=turn, P=np.reshape(P, (3, 4))
    )[:, 0]
    expected = (rectified - (P[2], P[6])) / (P[0], P[5])
    assert np.abs(camera.rays(pixels[:, 0]) - expected).max() < 0.002  # it iterates less often
    assert np.abs(camera.project(camera.points(pixels[:, 0], 2.0)) - pixels[:, 0]).max() < 0.01


def test_rectified_image_needs_p_alone():
    camera = CameraModel.of_info(
        info(d=PLUMB_BOB, distortion_model='plumb_bob'), 640, 480, rectified=True
    )
    assert camera == CameraModel(640, 480, 500, 500, 322, 238)


def test_right_camera_of_a_stereo_pair_is_in_the_lefts_frame():
    stereo = (*P[:3], -50.0, *P[4:])
    camera = CameraModel.of_info(info(p=stereo), 640, 480, rectified=True)
    assert camera.offset_x == pytest.approx(0.1)
    assert camera.points(np.array([322.0, 238.0]), 1.0).tolist() == pytest.approx([0.1, 0.0, 1.0])
    assert camera.project(np.array([0.1, 0.0, 1.0])).tolist() == pytest.approx([322.0, 238.0])


def test_region_and_binning_are_counted_in():
    roi = SimpleNamespace(width=320, height=200, x_offset=100, y_offset=50, do_rectify=False)
    camera = CameraModel.of_info(info(roi=roi, binning_x=2, binning_y=2), 160, 100)
    assert (camera.focal_x, camera.focal_y) == (260, 257.5)
    assert (camera.centre_x, camera.centre_y) == (115, 92.5)


def test_ideal_fisheye_is_no_pinhole():
    camera = CameraModel.of_info(info(d=(0.0,) * 4, distortion_model='equidistant'), 640, 480)
    ray = camera.rays(np.array([330 + 520 * np.pi / 4, 235.0]))  # 45 degrees off the axis
    assert ray.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_scale_is_that_of_the_place_in_the_image():
    pinhole = CameraModel(640, 480, 500, 500, 320, 240)
    assert pinhole.scales(grid()).shape == (7, 9)
    assert np.allclose(pinhole.scales(grid()), 1 / 500)
    fisheye = CameraModel(640, 480, 300, 300, 320, 240, 'fisheye', (0.0,) * 4)
    angle = np.pi / 4
    scale = fisheye.scales(np.array([320 + 300 * angle, 240.0]))
    # Along the radius 1 / (f cos^2), across it tan / (f angle): the mean of both.
    expected = np.sqrt(1 / np.cos(angle) ** 2 * np.tan(angle) / angle) / 300
    assert scale == pytest.approx(expected, rel=0.001)


def test_size_that_was_never_filled_in_is_the_images():
    assert CameraModel.of_info(info(width=0, height=0), 640, 480).focal_x == 520


def test_camera_without_calibration_is_none():
    nothing = info(k=(0.0,) * 9, p=(0.0,) * 12)
    assert CameraModel.of_info(nothing, 640, 480) is None
    assert CameraModel.of_info(info(k=(0.0,) * 9), 640, 480).focal_x == 500  # P alone
    assert CameraModel.of_info(info(p=(0.0,) * 12), 640, 480).focal_x == 520  # K alone


@pytest.mark.parametrize(
    ('values', 'size', 'named'),
    [
        ({}, (1280, 720), '640 x 480; this one has 1280 x 720'),
        ({'binning_x': 2, 'binning_y': 2}, (640, 480), '320 x 240; this one has 640 x 480'),
        ({'k': (np.nan, *K[1:])}, (640, 480), 'nan'),
        ({'k': (np.inf, *K[1:])}, (640, 480), 'inf'),
        ({'k': (520.0, 0.0, 1e30, *K[3:])}, (640, 480), r'1e\+30'),
        ({'d': PLUMB_BOB, 'distortion_model': 'barrel'}, (640, 480), "'barrel'.*plumb_bob"),
        ({'d': PLUMB_BOB[:3], 'distortion_model': 'plumb_bob'}, (640, 480), '3 values.*4 or 5'),
        ({'d': (np.nan,) * 5, 'distortion_model': 'plumb_bob'}, (640, 480), 'nan'),
        ({'r': (np.nan,) * 9}, (640, 480), 'nan'),
        ({'p': (*P[:3], np.nan, *P[4:])}, (640, 480), 'nan'),
    ],
)
def test_impossible_calibration_is_refused_by_its_values(values, size, named):
    with pytest.raises(CalibrationError, match=named):
        CameraModel.of_info(info(**values), *size)


@pytest.mark.parametrize(
    ('values', 'named'),
    [((0, 480, 500, 500, 0, 0), 'width 0'), ((640, 480, -1, 500, 0, 0), 'focal_x -1')],
)
def test_impossible_camera_is_refused_by_name(values, named):
    with pytest.raises(CalibrationError, match=named):
        CameraModel(*values)
    with pytest.raises(CalibrationError, match='8 values'):
        CameraModel(640, 480, 500, 500, 0, 0, rotation=(0.0,) * 8)


def test_uncalibrated_camera_shows_a_width_at_a_metre():
    camera = CameraModel.uncalibrated(641, 481, 2.0)
    assert camera.points(np.array([[0, 240], [640, 240]]), 1.0)[:, 0].tolist() == pytest.approx(
        [-0.998, 0.998], abs=0.001
    )
