"""The reference's goldens: where they are, and how far from them a pose is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posenet_ros import ModelConfig, PoseNet

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / 'test/data'
SHARED = ROOT.parent / 'shared'


@dataclass(frozen=True)
class Golden:
    """One case of the reference: its input, and its results."""

    name: str
    expected: dict[str, Any]
    tensors: dict[str, np.ndarray]


def load_golden(path: Path) -> Golden:
    with np.load(path.with_suffix('.npz')) as tensors:
        return Golden(path.stem, json.loads(path.read_text()), dict(tensors))


def golden_paths(kind: str) -> list[Path]:
    """The goldens of a kind: all of them where ../shared is, else the small ones of test/data."""
    shared = sorted((SHARED / 'golden' / kind).glob('*.json'))
    return shared or sorted((DATA / kind).glob('*.json'))


def pose_difference(pose: Any, expected: dict[str, Any]) -> float:
    """Largest difference of any number of a pose: scores, and positions in pixels."""
    differences = [abs(pose.score - expected['score'])]
    for keypoint, score, golden in zip(
        pose.keypoints, pose.keypoint_scores, expected['keypoints'], strict=True
    ):
        differences += [
            abs(keypoint[0] - golden['position']['x']),
            abs(keypoint[1] - golden['position']['y']),
            abs(score - golden['score']),
        ]
    return float(max(differences))


def golden_config(golden: Golden) -> ModelConfig:
    """The configuration with which the reference ran its model."""
    model = golden.expected['model']
    size = model['inputResolution']
    return ModelConfig(
        model['architecture'],
        output_stride=model['outputStride'],
        multiplier=model.get('multiplier'),
        input_resolution=(size['width'], size['height']) if isinstance(size, dict) else size,
        quant_bytes=model.get('quantBytes'),
        model_url=str(SHARED / golden.expected['modelFile']),
        tfjs_dilations=True,
    )


def check_poses(net: PoseNet, image: np.ndarray, expected: dict[str, Any]) -> float:
    """Compares all runs of a golden. Returns the largest difference of any number."""
    worst = 0.0
    for run in expected['multi']:
        options = run['config']
        poses = net.estimate_multiple_poses(
            image,
            options['flipHorizontal'],
            options['maxDetections'],
            options['scoreThreshold'],
            options['nmsRadius'],
        )
        assert len(poses) == len(run['poses'])
        for pose, golden in zip(poses, run['poses'], strict=True):
            worst = max(worst, pose_difference(pose, golden))
    for run in expected['single']:
        pose = net.estimate_single_pose(image, run['config']['flipHorizontal'])
        worst = max(worst, pose_difference(pose, run['pose']))
    return worst
