"""Compiles the loops of core ahead of the first model, into the cache on disk."""

from __future__ import annotations

import numpy as np

from posenet_ros.core.decode import check_poses, multiple_pose_arrays, single_pose_arrays
from posenet_ros.core.heads import HEADS, Heads, check_heads
from posenet_ros.core.preprocess import preprocess


def compile_loops() -> None:
    """Runs each loop once on empty data. Takes ten seconds where nothing is compiled yet."""
    image = np.zeros((4, 4, 3), np.uint8)
    letterbox = preprocess(image, 'MobileNetV1', np.zeros((3, 33, 33), np.float32))
    batch = Heads(*(np.zeros((1, 3, 3, depth), np.float32) for depth in HEADS.values()))
    check_heads(batch, (1, 3, 3))
    heads = batch.of_image(0)
    letterbox.to_image(single_pose_arrays(heads.heatmap_scores, heads.offsets, 16, False).keypoints)
    check_poses(multiple_pose_arrays(heads, 16, 5, 0.0, 20, False), 33, 33)
