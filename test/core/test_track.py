"""Who is who from frame to frame: ids that stay, motion, occlusions, stamps, births and deaths."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from posenet_ros import ConfigError, PoseTracker, TrackerConfig
from posenet_ros.core.decode import Pose
from posenet_ros.core.track import assign

# A standing person, 40 wide and 100 tall, by parts.
SHAPE = np.array(
    [
        (0, -50), (-3, -53), (3, -53), (-6, -51), (6, -51),
        (-15, -35), (15, -35), (-20, -15), (20, -15), (-20, 5), (20, 5),
        (-10, 0), (10, 0), (-11, 25), (11, 25), (-11, 50), (11, 50),
    ],
    np.float64,
)  # fmt: skip


def person(x, y=200.0, score=0.5, deviation=2.0, size=1.0, keypoint_scores=0.8, noise=None):
    keypoints = SHAPE * size + (x, y)
    if noise is not None:
        keypoints = keypoints + noise.normal(0, 2.0, keypoints.shape)
    return Pose(score, keypoints, np.full(17, keypoint_scores), np.full(17, deviation))


def ids_of(tracker, frames, step=1 / 30, start=0.0):
    """The ids in each frame: frames are lists of poses."""
    return [
        [pose.track_id for pose in tracker.update(poses, start + i * step)]
        for i, poses in enumerate(frames)
    ]


def test_ids_stay_when_poses_come_in_another_order():
    generator = np.random.default_rng(0)
    places = {'a': 100.0, 'b': 260.0, 'c': 400.0}
    seen = {}
    tracker = PoseTracker()
    for i in range(40):
        names = generator.permutation(list(places)).tolist()
        poses = [person(places[name] + 2 * i, noise=generator) for name in names]
        tracked = tracker.update(poses, i / 30)
        for name, pose, given in zip(names, poses, tracked, strict=True):
            assert given.keypoints is pose.keypoints  # nothing but the id is new
            assert given.score == pose.score
            if i:
                assert seen.setdefault(name, given.track_id) == given.track_id >= 0
            else:
                assert given.track_id == -1
    assert len(set(seen.values())) == 3
    assert (tracker.births, tracker.deaths, len(tracker)) == (3, 0, 3)


@pytest.mark.parametrize('hits', [1, 2, 5])
def test_an_id_is_given_after_so_many_frames(hits):
    tracker = PoseTracker(TrackerConfig(min_hits=hits))
    ids = ids_of(tracker, [[person(100)]] * 6)
    assert [given for (given,) in ids] == [-1] * (hits - 1) + [1] * (7 - hits)


def test_two_who_walk_through_each_other_keep_their_ids():
    frames = [[person(100 + 4 * i), person(342 - 4 * i, 205)] for i in range(60)]
    ids = ids_of(PoseTracker(), frames)
    assert ids[1] == ids[-1]
    assert len({tuple(row) for row in ids[1:]}) == 1


def test_somebody_hidden_while_walking_is_found_where_they_should_be():
    """Whoever stays beside the place where the other vanished does not get that id."""
    ids = ids_of(
        PoseTracker(),
        [
            [person(100 + 5 * i), person(300)] if not 20 <= i < 44 else [person(300)]
            for i in range(80)
        ],
    )
    assert ids[1] == ids[-1]
    assert ids[30] == [ids[1][1]]


def test_after_max_age_somebody_is_new_and_no_id_is_given_twice():
    tracker = PoseTracker(TrackerConfig(max_age=0.5))
    before = ids_of(tracker, [[person(100)]] * 3)
    nobody = ids_of(tracker, [[]] * 2, step=0.3, start=0.3)
    assert nobody == [[], []]
    assert len(tracker) == 0
    assert tracker.deaths == 1
    after = ids_of(tracker, [[person(100)]] * 3, start=1.0)
    assert before[-1] == [1]
    assert after[-1] == [2]


def test_an_id_ends_without_frames_too():
    """A camera that stops, a node that is paused: whoever stands there later is somebody new."""
    tracker = PoseTracker()
    assert ids_of(tracker, [[person(100)]] * 3) == [[-1], [1], [1]]
    assert ids_of(tracker, [[person(100)]] * 2, start=3600.0) == [[-1], [2]]
    # A camera of one image a second is fast enough.
    assert ids_of(PoseTracker(), [[person(100)]] * 4, step=1.0) == [[-1], [1], [1], [1]]


def test_asking_where_people_are_changes_nothing():
    tracker = PoseTracker()
    ids_of(tracker, [[person(100)]] * 3)
    assert tracker.predict(-5.0).keypoints.shape == (1, 17, 2)
    assert len(tracker) == 1


def test_time_is_what_the_stamps_say():
    """At a tenth of the frames, somebody who walks is the same person."""
    for step in (1 / 30, 1 / 5):
        frames = [[person(100 + 60 * i * step), person(400 - 60 * i * step)] for i in range(20)]
        ids = ids_of(PoseTracker(), frames, step)
        assert ids[1] == ids[-1]


def test_a_stamp_before_the_last_starts_anew():
    tracker = PoseTracker()
    first = ids_of(tracker, [[person(100)]] * 3, start=100.0)
    again = ids_of(tracker, [[person(100)]] * 3, start=50.0)
    assert first == [[-1], [1], [1]]
    assert again == [[-1], [2], [2]]


def test_one_stamp_twice_is_no_step_back():
    tracker = PoseTracker()
    ids = ids_of(tracker, [[person(100 + i)] for i in range(5)], step=0.0)
    assert [given for (given,) in ids] == [-1, 1, 1, 1, 1]


def test_doubtful_poses_continue_a_track_and_begin_none():
    frames = [[person(100)]] * 3 + [[person(100, score=0.04)]] * 5 + [[person(100)]]
    assert [given for (given,) in ids_of(PoseTracker(), frames)] == [-1] + 8 * [1]
    assert ids_of(PoseTracker(), [[person(100, score=0.04)]] * 4) == [[-1]] * 4
    # They are asked last: the sure one is that person, not the doubtful one beside.
    both = [person(104, score=0.04), person(103)]
    assert ids_of(PoseTracker(), [[person(100)]] * 2 + [both])[-1] == [-1, 1]


def test_a_second_pose_of_one_person_gets_no_id():
    frames = [[person(100), person(102)]] * 10
    assert ids_of(PoseTracker(), frames)[-1] == [1, -1]


def test_unsure_positions_may_be_farther_apart():
    def jump(deviation):
        frames = [[person(100, deviation=deviation)]] * 5
        return ids_of(PoseTracker(), [*frames, [person(122, deviation=deviation)]])[-1]

    assert jump(0.0) == [-1]
    assert jump(15.0) == [1]
    assert jump(np.nan) == [-1]  # not known: as if it were sure


def test_the_sum_of_similarities_decides_and_not_the_best_pair():
    similar = np.array([[0.9, 0.8], [0.85, 0.1]])
    rows, columns = assign(similar, 0.25)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
    rows, columns = assign(np.array([[0.9, 0.2], [0.3, 0.1]]), 0.25)
    assert (rows.tolist(), columns.tolist()) == ([0], [0])
    rows, columns = assign(np.array([[0.25, 0.0, 0.0]]), 0.25)  # the limit itself is enough
    assert (rows.tolist(), columns.tolist()) == ([0], [0])


def test_several_trackers_can_share_ids():
    ids = count(1)
    trackers = PoseTracker(ids=ids), PoseTracker(ids=ids)
    given = [ids_of(tracker, [[person(100)]] * 2)[-1][0] for tracker in trackers]
    assert given == [1, 2]


def test_nobody_is_nobody():
    tracker = PoseTracker()
    assert ids_of(tracker, [[], [], [person(100)], []]) == [[], [], [-1], []]
    assert len(tracker) == 0


@pytest.mark.parametrize('stamp', [np.nan, np.inf])
def test_what_is_not_finite_is_refused(stamp):
    tracker = PoseTracker()
    ids_of(tracker, [[person(100)]] * 3)
    with pytest.raises(ValueError, match='not finite'):
        tracker.update([person(100)], stamp)
    with pytest.raises(ValueError, match='not finite'):
        tracker.update([person(np.nan)], 1.0)
    assert tracker.update([person(100)], 0.2)[0].track_id == 1  # it lives on


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'score': np.nan}, 'scores: a value is not finite'),
        ({'keypoint_scores': np.full(17, np.inf)}, 'keypoint_scores: a value is not finite'),
        ({'keypoint_deviations': np.full(17, np.inf)}, 'negative or infinite'),
        ({'keypoint_deviations': np.full(17, -1.0)}, 'negative or infinite'),
        ({'keypoints': np.zeros((17, 3))}, r'keypoints has the shape \(1, 17, 3\)'),
        ({'keypoints': np.zeros((16, 2))}, 'reshape'),
    ],
)
def test_what_is_no_pose_is_refused_and_changes_nothing(change, message):
    tracker = PoseTracker()
    ids_of(tracker, [[person(100)]] * 3)
    with pytest.raises(ValueError, match=message):
        tracker.update([replace(person(100), **change)], 0.1)
    assert tracker.update([person(100)], 0.1)[0].track_id == 1


@pytest.mark.parametrize('score', [0.0, 0.5])
def test_hundreds_of_equal_poses_are_one_person(score):
    poses = [person(100, keypoint_scores=score) for _ in range(300)]
    ids = ids_of(PoseTracker(), [poses] * 3)[-1]
    assert sorted(ids)[-2:] == [-1, 1]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'min_hits': 0}, 'Invalid min_hits 0. Should be an integer from 1 to 100'),
        ({'min_hits': 2.0}, 'Invalid min_hits 2.0'),
        ({'max_age': -1.0}, 'Invalid max_age -1.0. Should be a number from 0.0 to 3600.0'),
        ({'max_age': np.nan}, 'Invalid max_age'),
        ({'min_similarity': 0.0}, 'Invalid min_similarity 0.0'),
        ({'min_similarity': True}, 'Invalid min_similarity True'),
    ],
)
def test_invalid_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        TrackerConfig(**options)
