"""Who is who from frame to frame: poses of people -> the same poses with ids.

Each track predicts where its person is now: the last pose, moved with the person's velocity.
Predictions and poses are compared by OKS, widened by how sure both positions are and by how long
nobody has seen the person, and assigned to each other so that the sum is largest. Sure poses come
first; doubtful ones may only continue a track, as in ByteTrack (Zhang et al., ECCV 2022).

Time is what the stamps say: frames may be missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import count
from typing import NamedTuple

import lap
import numpy as np

from posenet_ros.config import TrackerConfig
from posenet_ros.core.decode import TOLERANCES, Pose, PoseArrays, area_of_person
from posenet_ros.core.jit import jit
from posenet_ros.core.keypoints import MIN_POSE_SCORE, NUM_KEYPOINTS

UNTRACKED = -1
LEAST_SCORE = 0.02  # of a pose that continues a track
LEAST_OWN = 0.7  # share of a pose's keypoints, by their scores, that no better pose has
# In sizes of the person, the square root of the covered area:
SAME_PLACE = 0.25  # two poses' keypoints that are nearer are one
DRIFT = 0.6  # per second: how far people get from where their velocity would take them
FARTHEST_DRIFT = 1.5
ACCELERATION = 2.0  # per second squared, of the filter of velocities
UNSURE = 0.03  # of a displacement between two poses, beside the deviations
USUAL_SPEED = 2.0  # per second, of somebody who has just been seen first
FASTEST = 30.0  # per second
COASTING_SECONDS = 1.0  # in which the velocity of an unseen person wears off


NOBODY = PoseArrays(
    np.zeros((0, NUM_KEYPOINTS, 2)),
    np.zeros((0, NUM_KEYPOINTS)),
    np.zeros((0, NUM_KEYPOINTS)),
    np.zeros(0),
)


class Prediction(NamedTuple):
    """Where tracked people should be at a stamp, one row a track."""

    keys: np.ndarray  # int64 (n,): of the tracks, never given twice
    keypoints: np.ndarray  # float64 (n, 17, 2), in pixels of the image
    keypoint_scores: np.ndarray  # float64 (n, 17), as last seen
    keypoint_deviations: np.ndarray  # float64 (n, 17), as last seen
    drifts: np.ndarray  # float64 (n,): standard deviation of where the person is, in pixels


@dataclass
class _Tracks:
    """All tracks as arrays, one row a track."""

    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    hits: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0))  # stamp of the last pose
    keypoints: np.ndarray = field(default_factory=lambda: np.zeros((0, NUM_KEYPOINTS, 2)))
    scores: np.ndarray = field(default_factory=lambda: np.zeros((0, NUM_KEYPOINTS)))
    deviations: np.ndarray = field(default_factory=lambda: np.zeros((0, NUM_KEYPOINTS)))
    # Of a Kalman filter of the body's place: velocity, and the covariance (place, both, velocity).
    velocities: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    covariances: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))

    def keep(self, rows: np.ndarray) -> None:
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name)[rows])

    def add(self, **new: np.ndarray) -> None:
        for name, rows in new.items():
            setattr(self, name, np.concatenate([getattr(self, name), rows]))


class PoseTracker:
    """Gives people ids that stay from frame to frame.

    For example::

        tracker = PoseTracker()
        for frame in video:
            poses = tracker.update(net.estimate_multiple_poses(frame.image), frame.seconds)

    Args:
        config: its parameters.
        ids: where ids come from; several trackers that share an iterator never give one twice.
    """

    def __init__(
        self, config: TrackerConfig | None = None, ids: Iterator[int] | None = None
    ) -> None:
        self.config = TrackerConfig() if config is None else config
        self.births = 0  # ids given, and tracks with an id that ended
        self.deaths = 0
        self._ids = count(1) if ids is None else ids
        self._keys = count()
        self._tracks = _Tracks()
        self._stamp = -math.inf

    def __len__(self) -> int:
        """People who have an id, seen lately."""
        return int((self._tracks.ids != UNTRACKED).sum())

    def update(self, poses: Sequence[Pose], stamp: float) -> list[Pose]:
        """The poses of the next frame, in their order, each with its `track_id`.

        Somebody who was not seen often enough yet has the id -1.

        Args:
            poses: of one frame, in pixels of the image.
            stamp: when the image was taken, in seconds. One before the last starts anew.

        Raises:
            ValueError: the stamp, a keypoint or a score is not finite.
        """
        poses = list(poses)
        shape = len(poses), NUM_KEYPOINTS
        arrays = (
            PoseArrays(
                np.array([pose.keypoints for pose in poses], np.float64).reshape(*shape, -1),
                np.array([pose.keypoint_scores for pose in poses], np.float64).reshape(shape),
                np.array([pose.keypoint_deviations for pose in poses], np.float64).reshape(shape),
                np.array([pose.score for pose in poses], np.float64),
            )
            if poses
            else NOBODY
        )
        ids = self.update_arrays(arrays, stamp).tolist()
        return [with_id(pose, track_id) for pose, track_id in zip(poses, ids, strict=True)]

    def update_arrays(self, poses: PoseArrays, stamp: float) -> np.ndarray:
        """As update, with arrays: the ids, int64 (n,)."""
        _check(poses)
        self.advance(stamp)
        predicted = self.predict(stamp)
        lost = self._tracks.seen < self._stamp  # not in the last frame
        self._stamp = stamp
        rows = np.full(len(poses.scores), UNTRACKED)  # the track of each pose
        sure = poses.scores >= MIN_POSE_SCORE
        if len(predicted.keys) and len(rows):
            similar = similarities(predicted, poses)
            similar[:, poses.scores < LEAST_SCORE] = 0.0
            # Whoever was just there comes before the lost, whose place is not well known, and
            # sure poses before doubtful ones.
            for which in (sure, ~sure):
                for who in (~lost, lost):
                    if which.any() and who.any():
                        self._assign(rows, np.where(who[:, None] & which, similar, 0.0))
            self._see(rows, poses, stamp)
        self._bear(rows, sure, poses, stamp)
        self._confirm()
        ids = np.full(len(rows), UNTRACKED)
        ids[rows >= 0] = self._tracks.ids[rows[rows >= 0]]
        return ids

    def advance(self, stamp: float) -> None:
        """Forgets those who have not been seen for too long; everybody, if time goes back.

        Raises:
            ValueError: the stamp is not finite.
        """
        if not math.isfinite(stamp):
            raise ValueError(f'the stamp {stamp} is not finite')
        if stamp < self._stamp:
            self.reset()
        self._bury(stamp)

    def predict(self, stamp: float) -> Prediction:
        """Where everybody should be at a stamp, in the order of the tracks."""
        tracks = self._tracks
        keypoints, drifts = _moved(tracks.keypoints, tracks.velocities, tracks.seen, stamp)
        return Prediction(tracks.keys, keypoints, tracks.scores, tracks.deviations, drifts)

    def reset(self) -> None:
        """Forgets everybody: whoever is seen from now on gets a new id."""
        self.deaths += len(self)
        self._tracks = _Tracks()
        self._stamp = -math.inf

    def _see(self, rows: np.ndarray, poses: PoseArrays, stamp: float) -> None:
        """Tracks whose person was found.

        Args:
            rows: the track of each pose, or -1.
            poses: of this frame.
            stamp: of this frame, in seconds.
        """
        tracks = self._tracks
        _correct(
            rows,
            poses.keypoints,
            poses.keypoint_scores,
            poses.keypoint_deviations,
            stamp,
            tracks.seen,
            tracks.keypoints,
            tracks.scores,
            tracks.deviations,
            tracks.velocities,
            tracks.covariances,
        )
        tracks.hits[rows[rows >= 0]] += 1

    def _assign(self, rows: np.ndarray, similar: np.ndarray) -> None:
        """Gives poses to tracks so that the sum of their similarities is largest."""
        similar[rows[rows >= 0]] = 0.0
        similar[:, rows >= 0] = 0.0
        tracks, poses = assign(similar, self.config.min_similarity)
        rows[poses] = tracks

    def _bear(self, rows: np.ndarray, sure: np.ndarray, poses: PoseArrays, stamp: float) -> None:
        """Tracks for sure poses that belong to nobody who is known."""
        new = np.flatnonzero(sure & (rows < 0))
        if not len(new):
            return
        # Of several poses of one person, the one that is known or the best counts.
        doubles = find_doubles(poses, np.flatnonzero(rows >= 0))
        new = np.setdiff1d(new, doubles)
        number = len(new)
        keypoints = poses.keypoints[new]
        sizes = _sizes(keypoints)
        covariances = np.zeros((number, 3))
        covariances[:, 0] = np.square(UNSURE * sizes)
        covariances[:, 2] = np.square(USUAL_SPEED * sizes)
        rows[new] = len(self._tracks.keys) + np.arange(number)
        self._tracks.add(
            keys=np.array([next(self._keys) for _ in new], np.int64),
            ids=np.full(number, UNTRACKED, np.int64),
            hits=np.ones(number, np.int64),
            seen=np.full(number, stamp),
            keypoints=keypoints,
            scores=poses.keypoint_scores[new],
            deviations=np.nan_to_num(poses.keypoint_deviations[new]),
            velocities=np.zeros((number, 2)),
            covariances=covariances,
        )

    def _confirm(self) -> None:
        """Gives an id to those who were seen often enough."""
        tracks = self._tracks
        enough = (tracks.ids == UNTRACKED) & (tracks.hits >= self.config.min_hits)
        for row in np.flatnonzero(enough).tolist():
            tracks.ids[row] = next(self._ids)
            self.births += 1

    def _bury(self, stamp: float) -> None:
        """Ends tracks that nobody has seen for long; sooner if they have no id and were missed."""
        tracks = self._tracks
        named = tracks.ids != UNTRACKED
        patient = named | (tracks.seen >= self._stamp)
        most = np.where(patient, self.config.max_age, self.config.max_age / 3)
        alive = stamp - tracks.seen <= most
        if not alive.all():
            self.deaths += int((named & ~alive).sum())
            tracks.keep(alive)


def assign(similar: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns that belong together: none less similar than `least`, the sum largest."""
    if not (similar >= least).any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    # A pair that would cost more than the limit stays apart; the limit itself is excluded.
    limit = 1.0 - least + 1e-9
    column_of, _ = lap.lapjv(1.0 - similar, extend_cost=True, cost_limit=limit, return_cost=False)
    rows = np.flatnonzero(column_of >= 0)
    return rows, column_of[rows]


def _check(poses: PoseArrays) -> None:
    """Raises a ValueError for arrays that are no poses."""
    count = len(poses.scores)
    shapes = ((count, NUM_KEYPOINTS, 2), (count, NUM_KEYPOINTS), (count, NUM_KEYPOINTS), (count,))
    for name, array, shape in zip(PoseArrays._fields, poses, shapes, strict=True):
        if array.shape != shape:
            raise ValueError(f'{name} has the shape {array.shape}; it should be {shape}')
    for name in ('keypoints', 'keypoint_scores', 'scores'):
        if not np.isfinite(getattr(poses, name)).all():
            raise ValueError(f'{name}: a value is not finite')
    deviations = poses.keypoint_deviations
    if (np.isinf(deviations) | (deviations < 0)).any():
        raise ValueError('keypoint_deviations: a value is negative or infinite')


def find_doubles(poses: PoseArrays, known: np.ndarray) -> list[int]:
    """The rows of poses that share most of their keypoints with better ones, as in the decoder.

    Args:
        poses: of one image.
        known: rows that are none, whatever their scores.
    """
    order = np.argsort(-poses.scores, kind='stable')
    order = np.concatenate([known, order[~np.isin(order, known)]])
    doubles = _are_doubles(poses.keypoints, poses.keypoint_scores, order, len(known))
    return [int(row) for row in np.flatnonzero(doubles)]


def with_id(pose: Pose, track_id: int) -> Pose:
    """The same pose with an id."""
    return Pose(
        pose.score, pose.keypoints, pose.keypoint_scores, pose.keypoint_deviations, track_id
    )


def similarities(predicted: Prediction, poses: PoseArrays) -> np.ndarray:
    """How well poses fit predictions, 0 to 1: float64 (tracks, poses).

    OKS, in which a distance counts less the less sure the two positions are, and keypoints count
    by their scores.
    """
    return np.asarray(
        _similarities(
            predicted.keypoints,
            predicted.keypoint_scores,
            predicted.keypoint_deviations,
            predicted.drifts,
            poses.keypoints,
            poses.keypoint_scores,
            poses.keypoint_deviations,
        )
    )


def as_prediction(poses: PoseArrays) -> Prediction:
    """Poses of this frame, to be compared with others of it."""
    return Prediction(
        np.arange(len(poses.scores)),
        poses.keypoints,
        poses.keypoint_scores,
        np.nan_to_num(poses.keypoint_deviations),
        np.zeros(len(poses.scores)),
    )


def _sizes(keypoints: np.ndarray) -> np.ndarray:
    """Square root of the area that each person covers, in pixels: (n, 17, 2) -> (n,)."""
    return np.asarray(_square_roots_of_areas(keypoints))


@jit
def _known(deviation: float) -> float:
    """0 for a deviation that is not known."""
    return 0.0 if math.isnan(deviation) else deviation


@jit
def _moved(
    keypoints: np.ndarray, velocities: np.ndarray, seen: np.ndarray, stamp: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where people should be, and the standard deviation of that."""
    moved = np.empty_like(keypoints)
    drifts = np.empty(len(keypoints))
    for i in range(len(keypoints)):
        seconds = max(stamp - seen[i], 0.0)
        coasted = COASTING_SECONDS * (1 - math.exp(-seconds / COASTING_SECONDS))
        moved[i] = keypoints[i] + coasted * velocities[i]
        size = math.sqrt(area_of_person(keypoints[i]))
        drifts[i] = size * min(DRIFT * seconds, FARTHEST_DRIFT)
    return moved, drifts


@jit
def _correct(
    rows: np.ndarray,
    poses: np.ndarray,
    pose_scores: np.ndarray,
    pose_deviations: np.ndarray,
    stamp: float,
    seen: np.ndarray,
    keypoints: np.ndarray,
    scores: np.ndarray,
    deviations: np.ndarray,
    velocities: np.ndarray,
    covariances: np.ndarray,
) -> None:
    """Writes the poses into their tracks, and corrects the velocities: a Kalman filter.

    The displacement of a body is the mean of its keypoints', weighted by how sure they are.
    """
    for j in range(len(rows)):
        i = rows[j]
        if i < 0:
            continue
        size = math.sqrt(area_of_person(poses[j]))
        unsure = (UNSURE * size) ** 2
        moved_x = moved_y = weights = 0.0
        for part in range(NUM_KEYPOINTS):
            deviation = _known(pose_deviations[j, part])
            variance = deviation**2 + deviations[i, part] ** 2 + unsure
            weight = (min(scores[i, part], pose_scores[j, part]) + 1e-3) / variance
            moved_x += weight * (poses[j, part, 0] - keypoints[i, part, 0])
            moved_y += weight * (poses[j, part, 1] - keypoints[i, part, 1])
            weights += weight
            deviations[i, part] = deviation
        seconds = stamp - seen[i]
        noise = (ACCELERATION * size) ** 2
        place, both, speed = covariances[i]
        place += seconds * (2 * both + seconds * speed) + noise * seconds**4 / 4
        both += seconds * speed + noise * seconds**3 / 2
        speed += noise * seconds**2
        gain = 1 / (place + unsure)
        velocities[i, 0] += both * gain * (moved_x / weights - velocities[i, 0] * seconds)
        velocities[i, 1] += both * gain * (moved_y / weights - velocities[i, 1] * seconds)
        length = math.hypot(velocities[i, 0], velocities[i, 1])
        if length > FASTEST * size:
            velocities[i] *= FASTEST * size / length
        covariances[i, 0] = unsure * place * gain
        covariances[i, 1] = unsure * both * gain
        covariances[i, 2] = speed - both * both * gain
        keypoints[i], scores[i], seen[i] = poses[j], pose_scores[j], stamp


@jit
def _square_roots_of_areas(keypoints: np.ndarray) -> np.ndarray:
    sizes = np.zeros(len(keypoints))
    for i in range(len(keypoints)):
        sizes[i] = math.sqrt(area_of_person(keypoints[i]))
    return sizes


@jit
def _similarities(
    keypoints: np.ndarray,
    scores: np.ndarray,
    deviations: np.ndarray,
    drifts: np.ndarray,
    others: np.ndarray,
    other_scores: np.ndarray,
    other_deviations: np.ndarray,
) -> np.ndarray:
    similar = np.zeros((len(keypoints), len(others)))
    centres = np.zeros((len(others), 2))
    for j in range(len(others)):
        for part in range(NUM_KEYPOINTS):
            centres[j] += others[j, part] / NUM_KEYPOINTS
    for i in range(len(keypoints)):
        area = area_of_person(keypoints[i])
        reach = 3 * (math.sqrt(area) + drifts[i])  # bodies farther apart are not compared
        x = y = 0.0
        for part in range(NUM_KEYPOINTS):
            x += keypoints[i, part, 0] / NUM_KEYPOINTS
            y += keypoints[i, part, 1] / NUM_KEYPOINTS
        for j in range(len(others)):
            if abs(centres[j, 0] - x) > reach or abs(centres[j, 1] - y) > reach:
                continue
            total = weights = 0.0
            for part in range(NUM_KEYPOINTS):
                dx = keypoints[i, part, 0] - others[j, part, 0]
                dy = keypoints[i, part, 1] - others[j, part, 1]
                allowed = (
                    TOLERANCES[part] * area
                    + deviations[i, part] ** 2
                    + _known(other_deviations[j, part]) ** 2
                    + drifts[i] ** 2
                )
                weight = scores[i, part] * other_scores[j, part] + 1e-6
                total += weight * math.exp(-(dx * dx + dy * dy) / (2 * allowed))
                weights += weight
            similar[i, j] = total / weights
    return similar


@jit
def _are_doubles(
    keypoints: np.ndarray, scores: np.ndarray, order: np.ndarray, known: int
) -> np.ndarray:
    """Which poses are; those come first in the order that are better, and the known ones."""
    doubles = np.zeros(len(order), np.bool_)
    reaches = np.empty(len(order))
    for row in range(len(order)):
        reaches[row] = SAME_PLACE**2 * area_of_person(keypoints[row])
    for place in range(known, len(order)):
        row = order[place]
        own = total = 0.0
        for part in range(NUM_KEYPOINTS):
            shared = False
            for i in range(place):
                better = order[i]
                if doubles[better]:
                    continue
                dx = keypoints[row, part, 0] - keypoints[better, part, 0]
                dy = keypoints[row, part, 1] - keypoints[better, part, 1]
                if dx * dx + dy * dy <= reaches[better]:
                    shared = True
                    break
            score = scores[row, part] + 1e-6
            total += score
            if not shared:
                own += score
        doubles[row] = own < LEAST_OWN * total
    return doubles
