"""People in metres: against rendered people whose joints are known."""

import functools
import tracemalloc

import numpy as np
import pytest
from rendered_people import (
    FISHEYE,
    PINHOLE,
    LiftedJoints,
    Person,
    Stage,
    people_at,
    poses_of,
    random_person,
    render,
)

from posenet_ros import CameraModel, ImageError, Pose, PoseLifter
from posenet_ros.space.depth import DepthSampler
from posenet_ros.space.lift import GUESSED, INFERRED, MEASURED, UNKNOWN


@functools.cache
def result(distance, noise='', labels=0.0, scenes=8, camera=PINHOLE, table=()):
    stages = []
    for seed in range(scenes):
        behind = float(np.random.default_rng(seed).uniform(0.5, 3.0))
        wall = distance + behind
        stages.append(people_at([distance], seed, camera, noise=noise, wall=wall, table=table))
    return LiftedJoints(stages, labels)


@pytest.mark.parametrize('camera', [PINHOLE, FISHEYE])
@pytest.mark.parametrize('distance', [1.0, 3.0, 6.0])
def test_joints_in_view_are_where_they_are(distance, camera):
    found = result(distance, camera=camera)
    assert found.good.sum() > 35
    assert found.good.sum() > 0.94 * found.visible.sum()
    assert np.median(found.error[found.good]) < 0.015
    assert np.percentile(found.error[found.good], 90) < 0.07
    assert found.on_the_wall() == 0


@pytest.mark.parametrize(('noise', 'sensor'), [('d435', 0.027), ('kinect', 0.014)])
def test_median_at_three_metres_is_three_centimetres_and_the_sensors_noise(noise, sensor):
    found = result(3.0, noise, labels=0.25)
    assert np.median(found.error[found.good]) < 0.03 + sensor
    assert found.on_the_wall() == 0


@pytest.mark.parametrize('distance', [1.5, 3.0, 5.0])
@pytest.mark.parametrize('noise', ['', 'd435', 'kinect'])
def test_deviations_along_the_ray_are_true(noise, distance):
    """Errors within one and two deviations; 68 and 95% if all were as a bell curve is."""
    found = result(distance, noise, labels=0.5)
    assert 0.65 < found.covered(1) < 0.92
    assert found.covered(2) > 0.9


def test_deviations_across_the_ray_are_the_keypoints():
    found = result(3.0, labels=0.5)
    share = (found.across[found.good] < found.claimed_across[found.good] * np.sqrt(2)).mean()
    assert 0.5 < share < 0.8  # within one deviation, in two directions: 63%


def test_joint_that_misses_its_limb_is_not_measured_on_the_wall():
    """Keypoints half as far off as people's labels differ, in front of a wall."""
    found = result(2.5, 'kinect', labels=0.5, scenes=16)
    assert found.on_the_wall() == 0
    assert found.measured.sum() > 150


def test_people_behind_a_table_are_where_they_are():
    found = result(2.5, 'd435', table=(-3.0, 3.0, 0.4, 0.45, 1.2, 2.0))
    hidden = ~found.visible & found.measured
    assert found.on_the_wall() == 0
    assert np.median(found.error[found.good]) < 0.04
    # What is measured and hidden lies behind the person's own body. A table top can be taken for
    # the legs of somebody who sits, if the network says that it sees them.
    assert np.percentile(np.abs(found.along[hidden]), 75) < 0.35


def test_people_in_front_of_each_other_keep_their_own_depth():
    stages = [people_at([1.5, 2.5, 4.0], seed, noise='d435') for seed in range(8)]
    found = LiftedJoints(stages)
    assert found.good.sum() > 60
    assert np.percentile(np.abs(found.along[found.good]), 90) < 0.15
    assert found.on_the_wall() == 0


def test_hidden_joints_are_inferred_from_their_neighbours():
    """A hand held behind the back has no surface, but an elbow."""
    seen = render(Stage(PINHOLE, (Person(arms_aside=(0.4, 0.4)),)))
    (pose,) = poses_of(seen, PINHOLE)
    scores = pose.keypoint_scores.copy()
    scores[9] = 0.1  # the left wrist, which the network does not see
    (person,) = PoseLifter(PINHOLE).lift(
        [Pose(pose.score, pose.keypoints, scores, pose.keypoint_deviations)], seen.depth
    )
    assert person.states[9] == INFERRED
    assert abs(person.points[9, 2] - seen.joints[0][9, 2]) < 2 * person.deviations_along[9]
    assert person.deviations_along[9] > 0.05 > person.deviations_along[7]


@pytest.mark.parametrize('yaw', [0.0, 0.7, -1.2, 2.5])
def test_heading_is_the_bodys(yaw):
    seen = render(Stage(PINHOLE, (Person(yaw=yaw, arms_aside=(0.4, 0.4)),)))
    (person,) = PoseLifter(PINHOLE).lift(poses_of(seen, PINHOLE), seen.depth)
    forwards, _, up = person.heading.T
    assert np.allclose(person.heading @ person.heading.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(person.heading) == pytest.approx(1.0)
    assert up[1] < -0.9  # y is down
    true = np.array([np.sin(yaw), 0.0, -np.cos(yaw)])  # yaw 0 faces the camera
    angle = np.arccos(np.clip(forwards @ true, -1, 1))
    assert angle < max(3 * person.heading_deviation, 0.3)
    assert person.torso_state == MEASURED


def scene():
    seen = render(people_at([2.0, 3.5], 5, noise='d435'))
    return poses_of(seen, PINHOLE, 0.5), seen


def same(people, others, tolerance=1e-9):
    for person, other in zip(people, others, strict=True):
        assert np.array_equal(person.states, other.states)
        assert np.allclose(person.points, other.points, atol=tolerance, equal_nan=True)
        assert np.allclose(
            person.deviations_along, other.deviations_along, rtol=0.01, equal_nan=True
        )


def test_depth_of_every_kind_gives_the_same():
    poses, seen = scene()
    lifter = PoseLifter(PINHOLE)
    people = lifter.lift(poses, seen.depth)
    metres = np.where(seen.depth == 0, np.nan, seen.depth / 1000)
    padded = np.zeros((480, 700), np.uint16)
    padded[:, :640] = seen.depth
    infinite = np.where(seen.depth == 0, np.inf, seen.depth / 1000)
    for depth in (
        metres,
        metres.astype('>f8'),
        seen.depth.astype('>u2'),
        padded[:, :640],
        infinite,
        np.asfortranarray(seen.depth),
    ):
        same(people, lifter.lift(poses, depth))
    same(people, lifter.lift(poses, metres.astype(np.float32)), 1e-6)
    same(people, lifter.lift(poses, seen.depth.astype(np.float32) / 10, metres=0.01), 1e-6)


def test_depth_of_another_size_is_found_at_the_same_places():
    poses, seen = scene()
    people = PoseLifter(PINHOLE).lift(poses, seen.depth)
    half = seen.depth[::2, ::2]
    smaller = CameraModel(320, 240, 262.5, 262.5, 159.75, 119.75)
    for lifter in (PoseLifter(PINHOLE), PoseLifter(PINHOLE, smaller)):
        for person, other in zip(people, lifter.lift(poses, half), strict=True):
            both = (person.states == MEASURED) & (other.states == MEASURED)
            assert both.sum() >= 8
            assert np.median(np.abs(person.points - other.points)[both]) < 0.02


def test_camera_beside_the_origin_of_its_frame():
    poses, seen = scene()
    beside = CameraModel(640, 480, 525.0, 525.0, 319.5, 239.5, offset_x=0.1)
    for person, other in zip(
        PoseLifter(PINHOLE).lift(poses, seen.depth),
        PoseLifter(beside).lift(poses, seen.depth),
        strict=True,
    ):
        assert np.allclose(other.points - person.points, (0.1, 0, 0), equal_nan=True)
        assert np.allclose(other.torso - person.torso, (0.1, 0, 0))


def test_depth_image_is_not_copied():
    poses, _ = scene()
    depth = np.full((2160, 3840), 3.0, np.float32)
    lifter = PoseLifter(PINHOLE)
    lifter.lift(poses, depth)
    tracemalloc.start()
    lifter.lift(poses, depth)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < depth.nbytes / 20


def test_nobody_and_nothing():
    poses, seen = scene()
    assert PoseLifter(PINHOLE).lift([], seen.depth) == []
    for nothing in (np.zeros((480, 640), np.uint16), np.full((480, 640), np.nan, np.float32)):
        for person in PoseLifter(PINHOLE).lift(poses, nothing):
            assert (person.states == UNKNOWN).all()
            assert np.isnan(person.points).all()
            assert person.torso_state == GUESSED
            assert np.isnan(person.heading).all()
    unseen = Pose(0.0, np.zeros((17, 2)), np.zeros(17))
    (person,) = PoseLifter(PINHOLE).lift([unseen], seen.depth)
    assert person.torso_state == UNKNOWN
    assert np.isnan(person.torso).all()


@pytest.mark.parametrize(
    ('depth', 'named'),
    [
        (np.zeros((480, 640, 3), np.uint16), r'\(480, 640, 3\)'),
        (np.zeros((0, 640), np.uint16), r'\(0, 640\)'),
        (np.zeros((480, 640), bool), 'bool'),
        ([[1.0]], 'list'),
    ],
)
def test_array_that_is_no_depth_image_is_refused_by_name(depth, named):
    with pytest.raises(ImageError, match=named):
        PoseLifter(PINHOLE).lift([], depth)


def test_any_depth_gives_finite_points_or_none():
    """Noise, extremes, steps: what is known is finite, and what is unknown is NaN."""
    poses, _ = scene()
    generator = np.random.default_rng(3)
    for kind in range(30):
        depth = generator.choice([0.0, np.nan, np.inf, -np.inf, -1, 1e-30, 0.2, 3, 60, 1e30],
                                 (48, 64) if kind % 2 else (480, 640))  # fmt: skip
        for person in PoseLifter(PINHOLE).lift(poses, depth.astype(np.float32)):
            known = person.states != UNKNOWN
            for values in (person.points, person.deviations_along, person.deviations_across):
                assert np.isfinite(values[known]).all()
                assert np.isnan(values[~known]).all()
            assert np.isfinite(person.torso).all()
            assert person.torso_deviation_along > 0


def test_noise_of_the_sensor_is_found_in_the_image():
    stage = people_at([3.0], 1)
    for noise, expected, independent in (
        ('', 0.0, None),
        ('d435', 0.08 / (525 * 0.05), (0.0, 0.2)),
        ('kinect', 0.0017, (0.6, 1.0)),
    ):
        seen = render(Stage(stage.camera, stage.people, noise=noise, wall=4.0))
        found, share = DepthSampler(seen.depth, 0.001).noise()
        assert found == pytest.approx(expected, rel=0.3, abs=3e-4)
        if independent:
            assert independent[0] <= share <= independent[1]


# Without depth.


@functools.cache
def guesses(distance):
    """Relative errors, and claimed deviations, of people of 1.50 to 1.95 m."""
    generator = np.random.default_rng(int(10 * distance))
    errors, claimed = [], []
    for i in range(120):
        person = random_person(generator, distance)
        seen = render(Stage(CameraModel(160, 120, 131, 131, 79.5, 59.5), (person,), seed=i))
        camera = CameraModel(160, 120, 131, 131, 79.5, 59.5)
        (pose,) = poses_of(seen, camera, 0.5, i)
        inside = ((pose.keypoints >= 0) & (pose.keypoints < (160, 120))).all(axis=1)
        pose = Pose(0.9, pose.keypoints, np.where(inside, 0.9, 0.1), pose.keypoint_deviations)
        (lifted,) = PoseLifter(camera).lift([pose])
        if lifted.torso_state == UNKNOWN:
            continue
        assert lifted.torso_state == GUESSED
        true = seen.joints[0][[5, 6, 11, 12], 2].mean()
        errors.append(lifted.torso[2] / true - 1)
        claimed.append(lifted.torso_deviation_along / np.linalg.norm(lifted.torso))
    return np.array(errors), np.array(claimed)


@pytest.mark.parametrize('distance', [1.5, 3.0, 6.0])
def test_distance_without_depth_is_about_right_and_says_how_sure_it_is(distance):
    errors, claimed = guesses(distance)
    assert len(errors) > 110
    assert abs(np.median(errors)) < 0.1
    assert np.mean(np.abs(errors)) < 0.13
    assert 0.5 < (np.abs(errors) < claimed).mean() < 0.9
    assert (np.abs(errors) < 2 * claimed).mean() > 0.88
