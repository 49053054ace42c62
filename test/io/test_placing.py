"""People of one camera, from messages of its lens and of its depth images."""

from types import SimpleNamespace

import numpy as np
import pytest
from rendered_people import PINHOLE, Person, Stage, poses_of, render

from posenet_ros import CameraModel, ImageError, Pose
from posenet_ros.io.placing import Placer, is_rectified
from posenet_ros.space.lift import GUESSED, MEASURED, UNKNOWN

K = (525.0, 0.0, 319.5, 0.0, 525.0, 239.5, 0.0, 0.0, 1.0)
P = (525.0, 0.0, 319.5, 0.0, 0.0, 525.0, 239.5, 0.0, 0.0, 0.0, 1.0, 0.0)
LENS = (-0.3, 0.1, 0.0, 0.0, 0.0)


def info(**values):
    fields = {
        'width': 640, 'height': 480, 'k': K, 'p': P, 'r': tuple(np.eye(3).reshape(-1)),
        'd': (0.0,) * 5, 'distortion_model': 'plumb_bob', 'binning_x': 0, 'binning_y': 0,
        'roi': SimpleNamespace(width=0, height=0, x_offset=0, y_offset=0, do_rectify=False),
    }  # fmt: skip
    return SimpleNamespace(**{**fields, **values})


def depth_image(depth, frame='camera'):
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=frame), height=depth.shape[0], width=depth.shape[1],
        encoding='16UC1', is_bigendian=0, step=depth.strides[0], data=depth.tobytes(),
    )  # fmt: skip


def placer(rectified=True, depth_rectified=True, **values):
    problems = []
    result = Placer(rectified, depth_rectified, problems.append)
    result.info = info(**values)
    result.problems = problems
    return result


@pytest.fixture(scope='module')
def scene():
    return render(Stage(PINHOLE, (Person(x=0.9, z=2.5, arms_aside=(0.4, 0.4)),), wall=4.0))


def test_raw_images_have_rectified_depth_where_it_says_so(scene):
    """As depth_image_proc gives it: pixels of the rectified camera, whatever the images are."""
    lens = CameraModel(640, 480, 525.0, 525.0, 319.5, 239.5, 'plumb_bob', LENS)
    (pose,) = poses_of(scene, PINHOLE)
    raw = Pose(0.9, lens.project(scene.joints[0]), pose.keypoint_scores, pose.keypoint_deviations)
    assert np.abs(raw.keypoints - pose.keypoints)[5:13].max() > 5
    (person,) = placer(rectified=False, d=LENS).place(
        'camera', 640, 480, [raw], depth_image(scene.depth)
    )
    good = scene.visible[0] & (person.states == MEASURED)
    assert good.sum() > 0.9 * scene.visible[0].sum()
    errors = np.linalg.norm(person.points - scene.joints[0], axis=1)[good]
    assert np.median(errors) < 0.02


def test_depth_of_another_shape_needs_its_camera_info(scene):
    camera, poses = placer(), poses_of(scene, PINHOLE)
    wide = depth_image(np.ascontiguousarray(scene.depth[60:420]))  # 640 x 360
    with pytest.raises(ImageError, match='640 x 360 pixels, the images have 640 x 480'):
        camera.place('camera', 640, 480, poses, wide)
    shifted = (*P[:6], P[6] - 60, *P[7:])
    camera.depth_info = info(height=360, p=shifted)
    (person,) = camera.place('camera', 640, 480, poses, wide)
    (expected,) = camera.place('camera', 640, 480, poses, depth_image(scene.depth))
    both = (person.states == MEASURED) & (expected.states == MEASURED)
    assert both.sum() >= 6
    assert np.abs(person.points - expected.points)[both].max() < 0.05


def test_half_the_size_is_scaled_without_one(scene):
    half = np.ascontiguousarray(scene.depth[::2, ::2])
    (person,) = placer().place('camera', 640, 480, poses_of(scene, PINHOLE), depth_image(half))
    assert person.torso_state == MEASURED


def test_calibration_that_cannot_be_used_is_told_once(scene):
    camera = placer(k=(np.nan,) * 9)
    for _ in range(3):
        (person,) = camera.place('camera', 640, 480, poses_of(scene, PINHOLE))
        assert person.torso_state == UNKNOWN
    assert camera.problems == ['Invalid calibration: nan is among its values']
    camera.info = info()
    (person,) = camera.place('camera', 640, 480, poses_of(scene, PINHOLE))
    assert person.torso_state == GUESSED


def test_nothing_is_placed_before_a_camera_info(scene):
    camera = Placer(True, True, pytest.fail)
    (person,) = camera.place('camera', 640, 480, poses_of(scene, PINHOLE), depth_image(scene.depth))
    assert person.torso_state == UNKNOWN and np.isnan(person.points).all()


@pytest.mark.parametrize(
    ('topic', 'expected'),
    [
        ('/camera/image_rect', True),
        ('/camera/image_rect_color/compressed', True),
        ('/zed/left/rect/image', True),
        ('/camera/rectified/image', True),
        ('/camera/image_raw', False),
        ('/image_direct', False),
        ('/rect/camera/image_raw', False),
    ],
)
def test_names_of_topics_say_whether_images_are_rectified(topic, expected):
    assert is_rectified(topic) == expected
