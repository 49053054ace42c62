"""Compiles all loops ahead of the first image, into the cache on disk."""

from __future__ import annotations

import numpy as np

from posenet_ros.core.decode import (
    Pose,
    check_poses,
    multiple_pose_arrays,
    single_pose_arrays,
)
from posenet_ros.core.heads import HEADS, Heads, check_heads
from posenet_ros.core.preprocess import preprocess
from posenet_ros.core.smooth import PoseSmoother
from posenet_ros.core.track import PoseTracker
from posenet_ros.space.camera_model import CameraModel
from posenet_ros.space.lift import PoseLifter
from posenet_ros.space.rvl import fill_from_rvl


def compile_loops() -> None:
    """Runs each loop once on empty data. Takes ten seconds where nothing is compiled yet."""
    image = np.zeros((4, 4, 3), np.uint8)
    letterbox = preprocess(image, 'MobileNetV1', np.zeros((3, 33, 33), np.float32))
    batch = Heads(*(np.zeros((1, 3, 3, depth), np.float32) for depth in HEADS.values()))
    check_heads(batch, (1, 3, 3))
    heads = batch.of_image(0)
    letterbox.to_image(single_pose_arrays(heads.heatmap_scores, heads.offsets, 16, False).keypoints)
    check_poses(multiple_pose_arrays(heads, 16, 5, 0.0, 20, False), 33, 33)
    compile_tracking()
    compile_lifting()


def compile_tracking() -> None:
    """Runs each loop of the tracker and the smoother once. Takes seconds the first time."""
    tracker, smoother = PoseTracker(), PoseSmoother()
    poses = [Pose(1.0, np.eye(17, 2) + place, np.ones(17), np.ones(17)) for place in (0.0, 9.0)]
    for stamp in (0.0, 0.1, 0.2):
        smoother.update(tracker.update(poses, stamp), stamp)


def compile_lifting() -> None:
    """Runs each loop that places people in space once. Takes ten seconds the first time."""
    pose = Pose(1.0, np.eye(17, 2), np.ones(17), np.ones(17))
    PoseLifter(CameraModel(64, 48, 50.0, 50.0, 32.0, 24.0)).lift([pose], np.ones((48, 64)))
    fill_from_rvl(np.zeros(1, np.uint32), np.zeros(1, np.uint16))
