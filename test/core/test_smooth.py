"""Joints that hold still: what is smoothed, what is not, and how far it lags behind."""

from dataclasses import replace

import numpy as np
import pytest
from test_track import person

from posenet_ros import PoseSmoother

STEP = 1 / 30


def smoothed(poses, step=STEP):
    """Keypoints, (n, 17, 2), of one person with an id."""
    smoother = PoseSmoother()
    return np.array(
        [
            smoother.update([replace(pose, track_id=7)], i * step)[0].keypoints
            for i, pose in enumerate(poses)
        ]
    )


def acceleration(keypoints):
    return np.linalg.norm(np.diff(keypoints, 2, axis=0), axis=-1).mean()


@pytest.mark.parametrize('size', [0.5, 1.0, 4.0])
def test_a_standing_person_shakes_a_third_or_less(size):
    generator = np.random.default_rng(0)
    base = person(300, size=size)
    raw = [
        replace(base, keypoints=base.keypoints + generator.normal(0, 0.02 * 60 * size, (17, 2)))
        for _ in range(120)
    ]
    still = smoothed(raw)
    before = acceleration(np.array([pose.keypoints for pose in raw]))
    assert acceleration(still) < before / 3
    assert np.abs(still[30:] - base.keypoints).max() < 0.1 * 60 * size


def test_a_fast_joint_lags_less_than_a_tenth_of_a_second():
    speed = 200.0  # pixels per second, about three sizes of this person
    poses = [person(100 + speed * i * STEP) for i in range(60)]
    behind = [poses[-1].keypoints[:, 0] - smoothed(poses)[-1][:, 0]]
    assert np.min(behind) >= 0
    assert np.max(behind) < 0.1 * speed


def test_a_joint_that_is_not_seen_is_left_where_it_is():
    poses = [person(100 + i) for i in range(30)]
    for pose in poses[10:]:
        pose.keypoint_scores[9] = 0.1
    result = smoothed(poses)
    for i in range(10, 30):
        assert result[i][9].tolist() == poses[i].keypoints[9].tolist()
        assert result[i][10].tolist() != poses[i].keypoints[10].tolist()


def test_a_joint_that_comes_back_after_long_starts_anew():
    poses = [person(100) for _ in range(60)]
    for pose in poses[10:40]:
        pose.keypoint_scores[9] = 0.1
    for pose in poses[40:]:
        pose.keypoints[9] += 80
    result = smoothed(poses)
    assert result[40][9].tolist() == poses[40].keypoints[9].tolist()


def test_without_an_id_nothing_changes():
    smoother = PoseSmoother()
    for i in range(5):
        pose = person(100 + 10 * i)
        (same,) = smoother.update([pose], i * STEP)
        assert same is pose


def test_scores_and_deviations_stay():
    smoother = PoseSmoother()
    for i in range(3):
        pose = replace(person(100 + i), track_id=1)
        (result,) = smoother.update([pose], i * STEP)
    assert result.keypoint_scores is pose.keypoint_scores
    assert result.keypoint_deviations is pose.keypoint_deviations
    assert (result.score, result.track_id) == (pose.score, 1)


def test_a_stamp_before_the_last_starts_anew_and_one_twice_does_not():
    smoother = PoseSmoother()
    smoother.update([replace(person(100), track_id=1)], 10.0)
    (same,) = smoother.update([replace(person(200), track_id=1)], 10.0)
    assert same.keypoints[0, 0] == 100.0  # no time has passed: the filter does not move
    (new,) = smoother.update([replace(person(200), track_id=1)], 5.0)
    assert new.keypoints[0, 0] == 200.0


def test_people_who_left_are_forgotten():
    smoother = PoseSmoother()
    for i in range(1000):
        smoother.update([replace(person(100), track_id=i)], i * STEP)
    assert len(smoother._states) < 20
    with pytest.raises(ValueError, match='not finite'):
        smoother.update([], float('nan'))
    with pytest.raises(ValueError, match='not finite'):
        smoother.update([replace(person(np.nan), track_id=1)], 1000 * STEP)
    whole_numbers = replace(person(100), track_id=1, keypoints=np.full((17, 2), 7))
    smoother.update([whole_numbers], 1000 * STEP)
    assert smoother.update([replace(person(8.5), track_id=1)], 1001 * STEP)[0].keypoints.any()
