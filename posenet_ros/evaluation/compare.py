"""Compares the poses of two models: how much accuracy a lower precision costs.

The measure is COCO's object keypoint similarity, OKS (https://cocodataset.org/#keypoints-eval): 1
for equal poses, falling with the keypoints' distances relative to the size of the person and to how
precisely people label that keypoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from posenet_ros.config import DecoderConfig
from posenet_ros.core.decode import TOLERANCES, Pose
from posenet_ros.core.preprocess import Letterbox
from posenet_ros.estimator import PoseNet

CLEAR_SCORE = 0.5  # of keypoints that are compared
CLEAR_POSE_SCORES = {'reference': 0.5, 'refined': 0.2}  # of poses, by the decoder
SAME_PERSON_OKS = 0.5  # below this, two poses are of two people


@dataclass(frozen=True)
class Comparison:
    """A candidate against the reference, over all images."""

    images: int
    people: int  # clear people that the reference found
    mean_oks: float  # of those that both found
    worst_oks: float
    mean_shift: float  # of their clear keypoints, in pixels of the network input
    worst_shift: float
    lost: int  # clear people of the reference that the candidate did not find
    found: int  # clear people of the candidate that the reference did not find


def keypoint_similarity(pose: Pose, reference: Pose) -> float:
    """OKS of a pose against a reference, over the reference's clear keypoints; 0 to 1.

    The size of the person is the box around these keypoints.
    """
    clear = reference.keypoint_scores >= CLEAR_SCORE
    if not clear.any():
        return 0.0
    wanted = reference.keypoints[clear]
    area = max(float(np.prod(np.ptp(wanted, axis=0))), 1.0)
    squares = np.square(pose.keypoints[clear] - wanted).sum(axis=1)
    return float(np.exp(-squares / (2 * area * TOLERANCES[clear])).mean())


def matched(
    poses: list[Pose],
    references: list[Pose],
    clear_score: float = CLEAR_POSE_SCORES['reference'],
) -> tuple[list[tuple[Pose, Pose, float]], list[Pose], list[Pose]]:
    """Matches poses with references greedily, the highest OKS first.

    Returns:
        The pairs; clear references without a pose; clear poses without a reference.
    """
    wanted = [pose for pose in references if pose.score >= clear_score]
    pairs = sorted(
        (
            (keypoint_similarity(pose, reference), i, j)
            for i, pose in enumerate(poses)
            for j, reference in enumerate(wanted)
        ),
        reverse=True,
    )
    found: dict[int, int] = {}
    result = []
    for similarity, i, j in pairs:
        if similarity >= SAME_PERSON_OKS and i not in found.values() and j not in found:
            found[j] = i
            result.append((poses[i], wanted[j], similarity))
    lost = [reference for j, reference in enumerate(wanted) if j not in found]
    extra = [
        pose
        for i, pose in enumerate(poses)
        if i not in found.values()
        and pose.score >= clear_score
        # The reference may have the same person with a lower score.
        and all(keypoint_similarity(other, pose) < SAME_PERSON_OKS for other in references)
    ]
    return result, lost, extra


def compare(
    reference: PoseNet,
    candidates: dict[str, PoseNet],
    images: Iterable[np.ndarray],
    decoder: DecoderConfig | None = None,
) -> dict[str, Comparison]:
    """Runs models over images and compares each with the reference.

    Args:
        reference: whose poses are taken as the truth.
        candidates: by name; with the same input size.
        images: uint8 RGB (H, W, 3).
        decoder: how poses are decoded.
    """
    decoder = DecoderConfig() if decoder is None else decoder
    clear_score = CLEAR_POSE_SCORES[decoder.decoder]
    similarities: dict[str, list[float]] = {name: [] for name in candidates}
    shifts: dict[str, list[np.ndarray]] = {name: [] for name in candidates}
    lost = dict.fromkeys(candidates, 0)
    found = dict.fromkeys(candidates, 0)
    count = people = 0
    for image in images:
        count += 1
        height, width = image.shape[:2]
        letterbox = Letterbox.fit(height, width, *reference.config.input_size(height, width))
        wanted = reference.estimate([image], decoder)[0]
        people += sum(pose.score >= clear_score for pose in wanted)
        for name, net in candidates.items():
            pairs, missing, extra = matched(net.estimate([image], decoder)[0], wanted, clear_score)
            lost[name] += len(missing)
            found[name] += len(extra)
            for pose, expected, similarity in pairs:
                similarities[name].append(similarity)
                clear = expected.keypoint_scores >= CLEAR_SCORE
                moved = np.linalg.norm(pose.keypoints[clear] - expected.keypoints[clear], axis=1)
                shifts[name].append(moved / letterbox.scale)
    return {
        name: Comparison(
            images=count,
            people=people,
            mean_oks=_mean(similarities[name]),
            worst_oks=min(similarities[name], default=float('nan')),
            mean_shift=_mean(np.concatenate([*shifts[name], []])),
            worst_shift=float(max((s.max() for s in shifts[name]), default=float('nan'))),
            lost=lost[name],
            found=found[name],
        )
        for name in candidates
    }


def _mean(values: Iterable[float]) -> float:
    numbers = np.asarray(list(values), np.float64)
    return float(numbers.mean()) if numbers.size else float('nan')
