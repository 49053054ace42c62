"""Where to look in the next frame of a video: at those who are there, and at times at all of it.

The frames before tell where people are. A close-up of somebody costs less than the whole image and
shows the person larger. Now and then, and while nobody is known, the whole image is looked at, so
that newcomers are found. The numbers below are measured in doc/video.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np

from posenet_ros.config import SMALLEST_CLOSEUP, ModelConfig
from posenet_ros.core.closeups import LEAST_GAIN, LEAST_SCORE, Closeup
from posenet_ros.core.decode import PoseArrays
from posenet_ros.core.keypoints import MIN_KEYPOINT_SCORE, MIN_POSE_SCORE
from posenet_ros.core.preprocess import Letterbox
from posenet_ros.core.track import (
    NOBODY,
    Prediction,
    as_prediction,
    assign,
    find_doubles,
    similarities,
)
from posenet_ros.input_size import Size

MARGIN = 1.4  # of the box of the clear keypoints
BORDER = 24  # pixels of the input around that: room to move, and what the network needs to see
MOST_ENLARGED = 1.6  # pixels of the input for each pixel of the image
SHRINKING = (1.0, 0.8, 0.65)  # of close-ups, where the budget does not suffice
LEAST_HEIGHT = 70.0  # of a person in the input, in pixels; close-ups do not shrink below it
LOST_SECONDS = 0.2  # between two looks for somebody who was not found at the last one
LEAST_AGREEMENT = 0.1  # of a pose in a close-up with the prediction
ELSEWHERE = 0.5  # a pose's agreement counts less if it is from another look than the person's own
KNOWN = 0.4  # similarity above which somebody in the whole image is one who is known
SIZE_STEP = 32  # sides of close-ups are multiples plus 1: few sizes, which every stride has


class Plan(NamedTuple):
    """What a frame is spent on, before anything of it is known."""

    whole: bool
    closeups: list[Closeup]  # of predictions: `person` is their row


class Attention:
    """Decides frame by frame, for one camera or video.

    Args:
        config: of the model, with its sizes and its budget.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._budget = config.max_closeups * config.closeup_resolution**2
        self._whole_stamp = -math.inf
        self._looked: dict[int, float] = {}  # key of a track -> stamp of the last look
        self._turns: dict[int, int] = {}  # key of a track -> number of the last close-up
        self._closeups = count()
        self._missed: set[int] = set()  # keys of those who were not found at the last look

    def plan(self, predicted: Prediction, image: Size, stamp: float) -> Plan:
        """What to look at.

        Args:
            predicted: where people should be, in pixels of the image.
            image: its height and width in pixels.
            stamp: of the frame, in seconds.
        """
        enlarged = LEAST_GAIN * self._whole_scale(image)
        self._forget(predicted.keys)
        waiting = self._waiting(predicted.keys, stamp)
        closeups = self._within_budget(predicted, image, waiting)
        large = sum(closeup.pixels for closeup in closeups if closeup.scale < enlarged)
        due = not 0 <= stamp - self._whole_stamp < self._config.whole_image_period
        whole = due or not closeups or large >= math.prod(self._config.input_size(*image))
        if whole:
            closeups = [closeup for closeup in closeups if closeup.scale >= enlarged]
        return Plan(whole, closeups)

    def newcomers(
        self, poses: PoseArrays, predicted: Prediction, image: Size, plan: Plan
    ) -> list[Closeup]:
        """Close-ups of people whom only this frame's whole image shows; `person` is their row."""
        known = similarities(predicted, poses).max(axis=0, initial=0.0) >= LEAST_AGREEMENT
        rows = np.flatnonzero(~known & (poses.scores >= LEAST_SCORE))
        left = self._budget - sum(closeup.pixels for closeup in plan.closeups)
        enlarged = LEAST_GAIN * self._whole_scale(image)
        chosen = []
        for row in rows[np.argsort(-poses.scores[rows], kind='stable')].tolist():
            closeup = self._around(
                row, poses.keypoints[row], poses.keypoint_scores[row], 0.0, image, 1.0
            )
            if (
                closeup.pixels <= left
                and closeup.right > closeup.left
                and closeup.scale >= enlarged
            ):
                chosen.append(closeup)
                left -= closeup.pixels
        return chosen

    def looked(self, predicted: Prediction, plan: Plan, found: set[int], stamp: float) -> None:
        """Tells which of the predicted rows were found."""
        if plan.whole:
            self._whole_stamp = stamp
        shown = [closeup.person for closeup in plan.closeups]
        for row in shown:
            self._turns[int(predicted.keys[row])] = next(self._closeups)
        for row in range(len(predicted.keys)) if plan.whole else shown:
            key = int(predicted.keys[row])
            self._looked[key] = stamp
            (self._missed.discard if row in found else self._missed.add)(key)

    def _whole_scale(self, image: Size) -> float:
        """Pixels of the input for each pixel of the image, where all of it is looked at."""
        return 1 / Letterbox.fit(*image, *self._config.input_size(*image)).scale

    def _forget(self, keys: np.ndarray) -> None:
        alive = set(keys.tolist())
        self._looked = {key: stamp for key, stamp in self._looked.items() if key in alive}
        self._turns = {key: turn for key, turn in self._turns.items() if key in alive}
        self._missed &= alive

    def _waiting(self, keys: np.ndarray, stamp: float) -> list[int]:
        """The rows of those to look at, whoever has waited longest for a close-up first."""
        rows = [
            row
            for row, key in enumerate(keys.tolist())
            if key not in self._missed or stamp - self._looked[key] >= LOST_SECONDS
        ]
        return sorted(rows, key=lambda row: self._turns.get(int(keys[row]), -1))

    def _within_budget(
        self, predicted: Prediction, image: Size, rows: Sequence[int]
    ) -> list[Closeup]:
        """Close-ups of as many as the budget allows; smaller ones if that lets nobody wait."""
        closeups: list[Closeup] = []
        for shrink in SHRINKING:
            closeups = [
                self._around(
                    row,
                    predicted.keypoints[row],
                    predicted.keypoint_scores[row],
                    predicted.drifts[row],
                    image,
                    shrink,
                )
                for row in rows
            ]
            closeups = [closeup for closeup in closeups if closeup.right > closeup.left]
            if sum(closeup.pixels for closeup in closeups) <= self._budget:
                return closeups
        left, chosen = self._budget, []
        for closeup in closeups:
            left -= closeup.pixels
            if left < 0:
                break
            chosen.append(closeup)
        return chosen

    def _around(
        self,
        row: int,
        keypoints: np.ndarray,
        scores: np.ndarray,
        drift: float,
        image: Size,
        shrink: float,
    ) -> Closeup:
        """A close-up of a person; empty if the person is outside the image."""
        clear = scores >= MIN_KEYPOINT_SCORE
        points = keypoints[clear] if clear.sum() > 1 else keypoints
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        longest = max(right - left, bottom - top, 1.0)
        width = MARGIN * max(right - left, longest / 4) + 2 * drift
        height = MARGIN * max(bottom - top, longest / 4) + 2 * drift
        most = self._config.closeup_resolution
        room = most - 2 * BORDER
        scale = min(MOST_ENLARGED, room / math.sqrt(width * height), 2 * room / max(width, height))
        scale = max(shrink * scale, min(scale, LEAST_HEIGHT / longest))
        sides = [
            max(
                SMALLEST_CLOSEUP, round((scale * side + 2 * BORDER - 1) / SIZE_STEP) * SIZE_STEP + 1
            )
            for side in (height, width)
        ]
        size = (sides[0], sides[1])
        left, right = _inside((left + right) / 2, size[1] / scale, image[1])
        top, bottom = _inside((top + bottom) / 2, size[0] / scale, image[0])
        if right - left < 8 or bottom - top < 8:
            return Closeup(row, 0, 0, 0, 0, size)
        return Closeup(row, left, top, right, bottom, size)


def merge_looks(
    predicted: Prediction,
    whole: PoseArrays | None,
    looks: Sequence[tuple[Closeup, PoseArrays]],
    newcomers: Sequence[tuple[Closeup, PoseArrays]],
    most: float,
) -> tuple[PoseArrays, set[int]]:
    """One pose for each person: the poses, and the rows of the predictions that were found.

    All in pixels of the image.

    Args:
        predicted: where people should be.
        whole: the poses of the whole image, if it was looked at.
        looks: close-ups of predictions, and the poses in them.
        newcomers: close-ups of people in the whole image, and the poses in them.
        most: people; those who were there before come first.
    """
    people = len(predicted.keys)
    seen = [poses for _, poses in looks] + ([] if whole is None else [whole])
    poses = _joined(seen)
    looked = {closeup.person for closeup, _ in looks}
    owners = [np.full(len(poses.scores), closeup.person) for closeup, poses in looks]
    own = np.concatenate([*owners, np.full(len(poses.scores), -1)])[: len(poses.scores)]

    agreement = similarities(predicted, poses)
    for row in range(people):
        agreement[row, own != (row if row in looked else -1)] *= ELSEWHERE
    agreement[:, poses.scores < LEAST_SCORE] = 0.0
    rows, columns = assign(agreement, LEAST_AGREEMENT)
    merged = poses.chosen(columns)

    if whole is not None:
        whole = _with_closeups(whole, newcomers)
        nobodys = np.ones(len(whole.scores), bool)
        first = len(poses.scores) - len(whole.scores)
        nobodys[columns[columns >= first] - first] = False
        if len(rows):
            nobodys &= similarities(as_prediction(merged), whole).max(axis=0) < KNOWN
        merged = _joined([merged, whole.chosen(nobodys)])
    bystanders = np.setdiff1d(
        np.flatnonzero((own >= 0) & (poses.scores >= MIN_POSE_SCORE)), columns
    )
    others = poses.chosen(bystanders)
    if len(bystanders) and len(merged.scores):
        new = similarities(as_prediction(merged), others).max(axis=0) < KNOWN
        others = others.chosen(new)
    merged = _joined([merged, others])
    doubles = find_doubles(merged, np.zeros(0, np.int64))
    kept = [i for i in range(len(merged.scores)) if i not in doubles]
    kept = kept[: math.ceil(min(most, len(kept)))]
    found = {row for i, row in enumerate(rows.tolist()) if i in kept}
    return merged.chosen(kept), found


def _with_closeups(
    whole: PoseArrays, newcomers: Sequence[tuple[Closeup, PoseArrays]]
) -> PoseArrays:
    """The poses of the whole image, with those from close-ups in their place."""
    whole = PoseArrays(*(array.copy() for array in whole))
    for closeup, seen in newcomers:
        agreement = similarities(as_prediction(whole.chosen([closeup.person])), seen)[0]
        if len(agreement) and agreement.max() >= LEAST_AGREEMENT:
            for array, looked in zip(whole, seen, strict=True):
                array[closeup.person] = looked[agreement.argmax()]
    return whole


def _joined(parts: Sequence[PoseArrays]) -> PoseArrays:
    if not parts:
        return NOBODY
    return PoseArrays(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _inside(centre: float, length: float, limit: int) -> tuple[int, int]:
    """A stretch around a centre, cut off at 0 and at the limit."""
    return max(round(centre - length / 2), 0), min(round(centre + length / 2), limit)
