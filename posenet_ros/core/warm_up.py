"""Compiles the loops of core ahead of the first model, into numba's cache on disk."""

from __future__ import annotations

import numpy as np

from posenet_ros.core.decode import multiple_pose_arrays, single_pose_arrays
from posenet_ros.core.heads import HEADS, Heads, all_finite
from posenet_ros.core.preprocess import preprocess


def compile_loops() -> None:
    """Runs each loop once on empty data. Takes ten seconds where nothing is compiled yet."""
    image = np.zeros((4, 4, 3), np.uint8)
    letterbox = preprocess(image, 'MobileNetV1', np.zeros((3, 33, 33), np.float32))
    batch = Heads(*(np.zeros((1, 3, 3, depth), np.float32) for depth in HEADS.values()))
    all_finite(*batch)
    heads = batch.of_image(0)
    letterbox.to_image(single_pose_arrays(heads.heatmap_scores, heads.offsets, 16, False).keypoints)
    multiple_pose_arrays(heads, 16, 5, 0.0, 20, False)
