"""How good poses are, held against people's own labels: COCO's average precision, and more.

Average precision and recall come from pycocotools. The rest is said over all labelled people,
because precision alone hides who was not found.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from posenet_ros.core.decode import TOLERANCES, Pose
from posenet_ros.core.keypoints import (
    KEYPOINT_NAMES,
    MIN_KEYPOINT_SCORE,
    MIN_POSE_SCORE,
)
from posenet_ros.errors import PoseNetError
from posenet_ros.evaluation.labels import Person, Photo, to_coco, to_results

FOUND_OKS = 0.5
# Bounds of the heights, in pixels, that people are grouped by.
HEIGHTS = (0, 30, 60, 120, 240, float('inf'))


@dataclass(frozen=True)
class SizeGroup:
    """People of some height."""

    name: str  # the range of heights in pixels
    people: int
    oks: float  # mean; NaN without people
    found: float  # share


@dataclass(frozen=True)
class DeviationGroup:
    """Labelled keypoints of found people, and how their errors compare with their deviations."""

    name: str  # of a part, or a range of heights; empty for all
    coordinates: int  # two for each keypoint
    within_one: float  # share of the coordinates; 0.68 for a normal distribution; NaN without any
    within_two: float  # 0.95


@dataclass(frozen=True)
class Accuracy:
    """How good the poses of some photos are."""

    photos: int
    people: int  # that have to be found
    ap: float  # COCO's average precision over OKS .5 to .95
    ap50: float
    ap75: float
    ar: float  # COCO's average recall
    oks: float  # mean over all people; 0 for those who were missed
    found: float  # share of people with an OKS of 0.5 or more
    false_people: float  # a photo: clear poses outside everybody's box
    by_height: tuple[SizeGroup, ...]
    deviations: DeviationGroup  # all together
    deviations_by_part: tuple[DeviationGroup, ...]
    deviations_by_height: tuple[DeviationGroup, ...]
    errors_in_deviations: np.ndarray  # (coordinates,): error by deviation, of the found people


def accuracy(
    photos: Sequence[Photo],
    poses: Mapping[int, list[Pose]],
    scale_of: Callable[[Photo], float] = lambda photo: 1.0,
    min_score: float = MIN_POSE_SCORE,
) -> Accuracy:
    """Scores poses against labels.

    Args:
        photos: with their labels.
        poses: by the photo's id, in pixels of the photo; a photo that is missing has none.
        scale_of: pixels in which a person's height is given, per pixel of the photo: of the
            network's input, for one.
        min_score: of poses that count as false if they are nobody.

    Raises:
        PoseNetError: pycocotools is missing.
    """
    similarities: list[float] = []
    heights: list[float] = []
    errors: list[np.ndarray] = []  # (keypoints, 2) in deviations
    parts: list[np.ndarray] = []  # (keypoints,)
    tall: list[np.ndarray] = []  # (keypoints,)
    false_people = 0
    for photo in photos:
        found = poses.get(photo.id, [])
        people = [person for person in photo.people if person.counts]
        table = np.array([similarity(found, person) for person in people])
        best = [0.0] * len(people)
        for i, j in _pairs(table):
            best[i] = float(table[i, j])
            if best[i] >= FOUND_OKS:
                error, part = _errors_in_deviations(found[j], people[i])
                errors.append(error)
                parts.append(part)
                tall.append(np.full(len(part), scale_of(photo) * people[i].box[3]))
        similarities += best
        heights += [scale_of(photo) * person.box[3] for person in people]
        false_people += sum(
            pose.score >= min_score and not _is_somebody(pose, photo) for pose in found
        )
    oks, height = np.array(similarities), np.array(heights)
    error = np.concatenate([*errors, np.zeros((0, 2))])
    part = np.concatenate([*parts, np.zeros(0, int)])
    height_of_error = np.concatenate([*tall, np.zeros(0)])
    ranges = [
        (low, high, f'over {low:.0f}' if math.isinf(high) else f'{low:.0f} to {high:.0f}')
        for low, high in itertools.pairwise(HEIGHTS)
    ]
    ap, ap50, ap75, ar = _coco(photos, poses)
    return Accuracy(
        photos=len(photos),
        people=len(oks),
        ap=ap,
        ap50=ap50,
        ap75=ap75,
        ar=ar,
        oks=_mean(oks),
        found=_mean(oks >= FOUND_OKS),
        false_people=false_people / max(1, len(photos)),
        by_height=tuple(
            SizeGroup(name, int(here.sum()), _mean(oks[here]), _mean(oks[here] >= FOUND_OKS))
            for low, high, name in ranges
            for here in [(height >= low) & (height < high)]
        ),
        deviations=_deviations('', error),
        deviations_by_part=tuple(
            _deviations(name, error[part == i]) for i, name in enumerate(KEYPOINT_NAMES)
        ),
        deviations_by_height=tuple(
            _deviations(name, error[(height_of_error >= low) & (height_of_error < high)])
            for low, high, name in ranges
        ),
        errors_in_deviations=error.ravel(),
    )


def _deviations(name: str, errors: np.ndarray) -> DeviationGroup:
    values = errors.ravel()
    return DeviationGroup(name, len(values), _mean(values <= 1), _mean(values <= 2))


def similarity(poses: Sequence[Pose], person: Person) -> np.ndarray:
    """COCO's object keypoint similarity, OKS, of poses with a labelled person: (n,), 0 to 1.

    Source: https://cocodataset.org/#keypoints-eval
    """
    if not poses:
        return np.zeros(0)
    keypoints = np.array([pose.keypoints[person.labelled] for pose in poses])
    squares = np.square(keypoints - person.keypoints[person.labelled]).sum(axis=2)
    allowed = 2 * (person.area + np.spacing(1)) * TOLERANCES[person.labelled]
    result: np.ndarray = np.exp(-squares / allowed).mean(axis=1)
    return result


def _pairs(table: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows and columns, the highest value first, each row and column once."""
    pairs: list[tuple[int, int]] = []
    if table.size == 0:
        return pairs
    table = table.copy()
    while table.max() > 0:
        i, j = (int(k) for k in np.unravel_index(int(table.argmax()), table.shape))
        pairs.append((i, j))
        table[i, :] = table[:, j] = 0
    return pairs


def _errors_in_deviations(pose: Pose, person: Person) -> tuple[np.ndarray, np.ndarray]:
    """Errors (n, 2) of the labelled keypoints whose deviation is known, in deviations; which parts.

    Keypoints that are not clear count too: their deviations say so.
    """
    known = np.flatnonzero(person.labelled & np.isfinite(pose.keypoint_deviations))
    errors = np.abs(pose.keypoints[known] - person.keypoints[known])
    return errors / pose.keypoint_deviations[known, None], known


def _is_somebody(pose: Pose, photo: Photo) -> bool:
    """Whether the middle of a pose lies in the box of anybody: labelled or not, or of a crowd."""
    clear = pose.keypoint_scores >= MIN_KEYPOINT_SCORE
    x, y = pose.keypoints[clear if clear.any() else slice(None)].mean(axis=0)
    return any(
        left <= x <= left + width and top <= y <= top + height
        for left, top, width, height in (person.box for person in photo.people)
    )


def _coco(
    photos: Sequence[Photo], poses: Mapping[int, list[Pose]]
) -> tuple[float, float, float, float]:
    """AP, AP50, AP75 and AR, by COCO's own tool."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] not in ('pycocotools', 'matplotlib'):
            raise
        raise PoseNetError(
            'average precision needs the Python package pycocotools: pip install pycocotools'
        ) from error
    ids = [photo.id for photo in photos]
    results = to_results({i: poses[i] for i in ids if poses.get(i)})
    if not any(person.counts for photo in photos for person in photo.people):
        return (float('nan'),) * 4
    if not results:
        return (0.0,) * 4
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        labels = COCO()
        labels.dataset = to_coco(list(photos))
        labels.createIndex()
        judge = COCOeval(labels, labels.loadRes(results), 'keypoints')
        judge.params.imgIds = ids
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    ap, ap50, ap75, _, _, ar, *_ = (float(value) for value in judge.stats)
    return ap, ap50, ap75, ar


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float('nan')
