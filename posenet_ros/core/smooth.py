"""Holds joints still: a One Euro filter for each keypoint of each tracked person.

The slower a joint moves, the more it is smoothed; a fast one lags little. Speeds are relative to
the person's size, so that near and far people are smoothed alike. A keypoint that is not seen
clearly is left as it is; if that lasts for half a second, its filter starts anew.

Source: Casiez, Roussel, Vogel, 1 Euro Filter, CHI 2012, https://gery.casiez.net/1euro/
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from posenet_ros.core.decode import Pose, area_of_person
from posenet_ros.core.jit import jit
from posenet_ros.core.keypoints import MIN_KEYPOINT_SCORE, NUM_KEYPOINTS
from posenet_ros.core.track import UNTRACKED

MIN_CUTOFF = 0.5  # Hz, of a joint that rests
BETA = 8.0  # Hz more for each size of the person per second
SPEED_CUTOFF = 0.5  # Hz, of the speed itself
FORGET_SECONDS = 0.5  # a joint that was not seen for longer starts anew


class PoseSmoother:
    """Smooths the keypoints of people who have an id.

    poses = smoother.update(tracker.update(poses, seconds), seconds)
    """

    def __init__(self) -> None:
        self._states: dict[int, np.ndarray] = {}  # by id: see _smooth
        self._stamp = -math.inf

    def update(self, poses: Sequence[Pose], stamp: float) -> list[Pose]:
        """The poses of the next frame, smoothed; those without an id as they are.

        Args:
            poses: from PoseTracker.update, in pixels of the image.
            stamp: when the image was taken, in seconds. One before the last starts anew.

        Raises:
            ValueError: the stamp or a keypoint is not finite.
        """
        if not math.isfinite(stamp):
            raise ValueError(f'the stamp {stamp} is not finite')
        if not all(np.isfinite(pose.keypoints).all() for pose in poses):
            raise ValueError('a keypoint is not finite')
        if stamp < self._stamp:
            self.reset()
        self._stamp = stamp
        smoothed = [
            pose if pose.track_id == UNTRACKED else self._smoothed(pose, stamp) for pose in poses
        ]
        for track_id, state in list(self._states.items()):
            if stamp - state[:, 4].max() > FORGET_SECONDS:
                del self._states[track_id]
        return smoothed

    def reset(self) -> None:
        """Forgets everybody."""
        self._states.clear()

    def _smoothed(self, pose: Pose, stamp: float) -> Pose:
        state = self._states.get(pose.track_id)
        if state is None:
            state = self._states[pose.track_id] = np.full((NUM_KEYPOINTS, 5), -np.inf)
        keypoints = np.asarray(pose.keypoints, np.float64)
        return replace(pose, keypoints=_smooth(keypoints, pose.keypoint_scores, state, stamp))


@jit
def _alpha(cutoff: float, seconds: float) -> float:
    """The share of a new value in a low-pass filter with this cutoff in Hz."""
    return 1.0 / (1.0 + 1.0 / (2.0 * math.pi * cutoff * seconds))


@jit
def _smooth(
    keypoints: np.ndarray, scores: np.ndarray, state: np.ndarray, stamp: float
) -> np.ndarray:
    """The smoothed keypoints, (17, 2).

    Args:
        keypoints: of one person, (17, 2).
        scores: of the keypoints, (17,).
        state: x, y, speeds of x and y in pixels per second, and stamp, of each keypoint as it was
            last seen; (17, 5), changed. -inf where it never was.
        stamp: in seconds.
    """
    smoothed = keypoints.copy()
    size = math.sqrt(area_of_person(keypoints))
    for part in range(NUM_KEYPOINTS):
        if scores[part] < MIN_KEYPOINT_SCORE:
            continue
        seconds = stamp - state[part, 4]
        if seconds > FORGET_SECONDS:
            state[part, :2] = keypoints[part]
            state[part, 2:4] = 0.0
        elif seconds > 0.0:
            share = _alpha(SPEED_CUTOFF, seconds)
            for axis in range(2):
                speed = (keypoints[part, axis] - state[part, axis]) / seconds
                state[part, 2 + axis] += share * (speed - state[part, 2 + axis])
            speed = math.hypot(state[part, 2], state[part, 3]) / size
            share = _alpha(MIN_CUTOFF + BETA * speed, seconds)
            for axis in range(2):
                state[part, axis] += share * (keypoints[part, axis] - state[part, axis])
        state[part, 4] = stamp
        smoothed[part] = state[part, :2]
    return smoothed
