"""A second look at people who are small in the network's input: where to look, and what to believe.

The first look finds people. Whoever a close-up would show clearly larger gets one, those who are
likely there first. Of the poses in a close-up, the one that agrees with the first look replaces it.
The numbers below are chosen on 321 labelled photos; doc/seeing.md says what each of them is worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from posenet_ros.core.decode import TOLERANCES, PoseArrays, area_of_person
from posenet_ros.core.keypoints import MIN_KEYPOINT_SCORE
from posenet_ros.core.preprocess import Letterbox
from posenet_ros.input_size import Size

MARGIN = 1.3  # a close-up shows this many times the box of the person's clear keypoints
LEAST_GAIN = 1.3  # times larger than in the first look
LEAST_SCORE = 0.02  # of a pose; below it there is rarely anybody
LIKELY_SCORE = 0.05  # these poses come first
LEAST_AGREEMENT = 0.1  # OKS between the first look and the pose in the close-up
SAME_PERSON = 0.6  # OKS above which two poses are of one person
LEAST_PIXELS = 8  # sides of what is shown, in the image


class Closeup(NamedTuple):
    """A part of an image, and the size of the network's input that shows it."""

    person: int  # the row of the poses that it is for
    left: int  # pixels of the image; right and bottom are one past the last
    top: int
    right: int
    bottom: int
    input_size: Size

    @property
    def pixels(self) -> int:
        """Of the network's input."""
        return math.prod(self.input_size)

    @property
    def scale(self) -> float:
        """Pixels of the input for each pixel of the image."""
        height, width = self.bottom - self.top, self.right - self.left
        return min(self.input_size[0] / height, self.input_size[1] / width)

    def of(self, image: np.ndarray) -> np.ndarray:
        """The part of the image: a view."""
        return image[self.top : self.bottom, self.left : self.right]

    def in_image(self, poses: PoseArrays) -> PoseArrays:
        """Poses in the close-up's pixels -> in pixels of the image."""
        return poses._replace(keypoints=np.add(poses.keypoints, (self.left, self.top)))


def choose_closeups(
    poses: PoseArrays, letterbox: Letterbox, sizes: Sequence[Size], most: int
) -> list[Closeup]:
    """Whom to look at again, at most `most` people.

    Args:
        poses: of the first look, in pixels of the image.
        letterbox: how the image was fitted into the first input.
        sizes: heights and widths of the input that a close-up may have; each person gets the one
            that shows the person largest.
        most: close-ups of this image.
    """
    candidates = []
    for person, score in enumerate(poses.scores.tolist()):
        if score < LEAST_SCORE:
            continue
        closeup = _around(person, poses, letterbox, sizes)
        height, width = closeup.bottom - closeup.top, closeup.right - closeup.left
        if min(height, width) < LEAST_PIXELS:
            continue
        gain = letterbox.scale * closeup.scale
        if gain >= LEAST_GAIN:
            candidates.append((score < LIKELY_SCORE, -gain, closeup))
    return [closeup for _, _, closeup in sorted(candidates)[:most]]


def _around(person: int, poses: PoseArrays, letterbox: Letterbox, sizes: Sequence[Size]) -> Closeup:
    """What shows a person: in the shape of one of the sizes, and inside the image."""
    clear = poses.keypoint_scores[person] >= MIN_KEYPOINT_SCORE
    points = poses.keypoints[person][clear] if clear.sum() > 1 else poses.keypoints[person]
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    width = MARGIN * max(right - left, 1.0)
    height = MARGIN * max(bottom - top, 1.0)
    size = max(sizes, key=lambda size: min(size[0] / height, size[1] / width))
    scale = min(size[0] / height, size[1] / width)
    left, right = _inside((left + right) / 2, size[1] / scale, letterbox.image_width)
    top, bottom = _inside((top + bottom) / 2, size[0] / scale, letterbox.image_height)
    return Closeup(person, left, top, right, bottom, size)


def _inside(centre: float, length: float, limit: int) -> tuple[int, int]:
    """A stretch around a centre, moved to lie between 0 and the limit."""
    length = min(length, limit)
    start = min(max(centre - length / 2, 0.0), limit - length)
    return round(start), round(start + length)


def merge_closeups(poses: PoseArrays, looks: Sequence[tuple[Closeup, PoseArrays]]) -> PoseArrays:
    """The poses of the first look, with those from close-ups in their place.

    A pose's score becomes the mean of both looks'. Two poses that turn out to be of one person
    become one.

    Args:
        poses: of the first look, in pixels of the image.
        looks: close-ups and the poses in them, in pixels of the image.
    """
    if not looks:
        return poses
    merged = PoseArrays(*(array.copy() for array in poses))
    replaced = []
    for closeup, seen in looks:
        person = closeup.person
        agreement = _agreement(seen.keypoints, poses, person)
        if not len(agreement) or agreement.max() < LEAST_AGREEMENT:
            continue
        best = int(agreement.argmax())
        for array, looked in zip(merged, seen, strict=True):
            array[person] = looked[best]
        merged.scores[person] = (poses.scores[person] + seen.scores[best]) / 2
        replaced.append(person)
    doubles = _doubles(merged, replaced)
    return PoseArrays(*(np.delete(array, doubles, axis=0) for array in merged))


def _agreement(keypoints: np.ndarray, poses: PoseArrays, person: int) -> np.ndarray:
    """OKS of poses, (n, 17, 2) -> (n,), as if one of the poses were the truth."""
    clear = poses.keypoint_scores[person] >= MIN_KEYPOINT_SCORE
    if not clear.any():
        clear[:] = True
    truth = poses.keypoints[person]
    squares = np.square(keypoints[:, clear] - truth[clear]).sum(axis=-1)
    allowed = 2 * area_of_person(truth) * TOLERANCES[clear]
    agreement: np.ndarray = np.exp(-squares / allowed).mean(axis=-1)
    return agreement


def _doubles(poses: PoseArrays, replaced: Sequence[int]) -> list[int]:
    """Poses of somebody whom a better pose shows already. One of both came from a close-up."""
    doubles: list[int] = []
    by_score = np.argsort(-poses.scores, kind='stable').tolist()
    for i, worse in enumerate(by_score):
        for better in by_score[:i]:
            if better in doubles or (worse not in replaced and better not in replaced):
                continue
            if _agreement(poses.keypoints[worse : worse + 1], poses, better)[0] >= SAME_PERSON:
                doubles.append(worse)
                break
    return doubles
