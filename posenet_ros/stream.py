"""What is remembered of a camera or a video from frame to frame: who is there, and where to look.

PoseNet.estimate_stream runs the looks that a stream asks for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np

from posenet_ros.config import ModelConfig, TrackerConfig
from posenet_ros.core.attention import Attention, Plan, merge_looks
from posenet_ros.core.closeups import Closeup
from posenet_ros.core.decode import Pose, PoseArrays, as_poses
from posenet_ros.core.smooth import PoseSmoother
from posenet_ros.core.track import PoseTracker, with_id
from posenet_ros.input_size import Size

# Two frames whose brightness has less in common, as a correlation, are of two scenes.
SAME_SCENE = 0.3
SAMPLES = 32  # along each side of the image, to compare scenes


class PoseStream:
    """The state of one camera or video. Every frame goes through PoseNet.estimate_stream.

    Args:
        config: of the model; its attention says how frames are looked at.
        tracker: how ids are given; None gives none, unless attention is people.
        smoothing: whether the keypoints of people with an id are smoothed.
        ids: where ids come from; streams that share an iterator never give one twice.
    """

    def __init__(
        self,
        config: ModelConfig,
        tracker: TrackerConfig | None = None,
        smoothing: bool = False,
        ids: Iterator[int] | None = None,
    ) -> None:
        self.attention = Attention(config) if config.attention == 'people' else None
        self.tracker: PoseTracker | None = None
        self.smoother: PoseSmoother | None = None
        self._ids = count(1) if ids is None else ids
        self.configure(tracker, smoothing)
        self.closeups: list[Closeup] = []  # of the last frame
        self.whole = True  # whether the last frame was looked at as a whole
        self.scenes = 1
        self._stamp = -math.inf
        self._scene: np.ndarray | None = None

    def configure(self, tracker: TrackerConfig | None, smoothing: bool) -> None:
        """Changes the options; ids stay."""
        if tracker is None and self.attention is None:
            self.tracker = None
        elif self.tracker is None:
            self.tracker = PoseTracker(tracker, self._ids)
        elif tracker is not None:
            self.tracker.config = tracker
        if smoothing != (self.smoother is not None):
            self.smoother = PoseSmoother() if smoothing else None

    @property
    def counts(self) -> tuple[int, int, int] | None:
        """People with an id now; ids given, and ended, so far. None without a tracker."""
        if self.tracker is None:
            return None
        return len(self.tracker), self.tracker.births, self.tracker.deaths

    def reset(self) -> None:
        """Forgets everybody."""
        if self.tracker is not None:
            self.tracker.reset()

    # One frame: begin, what the whole image shows, end.

    def begin(self, image: np.ndarray, stamp: float) -> Plan:
        """What a frame is spent on."""
        if not math.isfinite(stamp):
            raise ValueError(f'the stamp {stamp} is not finite')
        self._size: Size = image.shape[0], image.shape[1]
        self._stamp = stamp
        if self.tracker is not None and self._is_new_scene(image):
            self.scenes += 1
            self.reset()
        if self.tracker is None or self.attention is None:
            return Plan(True, [])
        self._predicted = self.tracker.predict(stamp)
        self._plan = self.attention.plan(self._predicted, self._size, stamp)
        return self._plan

    def newcomers(self, whole: PoseArrays) -> list[Closeup]:
        """Whom to look at closely of those in the whole image."""
        if self.attention is None:
            return []
        return self.attention.newcomers(whole, self._predicted, self._size, self._plan)

    def end(
        self,
        whole: PoseArrays | None,
        looks: Sequence[tuple[Closeup, PoseArrays]],
        newcomers: Sequence[tuple[Closeup, PoseArrays]],
    ) -> list[Pose]:
        """The poses of the frame, with ids, in pixels of the image.

        Args:
            whole: the poses of the whole image, if it was looked at.
            looks: the plan's close-ups, and the poses in them, in pixels of the image.
            newcomers: likewise those of newcomers.
        """
        self.whole = whole is not None
        self.closeups = [closeup for closeup, _ in (*looks, *newcomers)]
        if self.attention is not None:
            whole, found = merge_looks(self._predicted, whole, looks, newcomers)
            self.attention.looked(self._predicted, self._plan, found, self._stamp)
        assert whole is not None
        poses = as_poses(whole)
        if self.tracker is not None:
            ids = self.tracker.update_arrays(whole, self._stamp).tolist()
            poses = [with_id(pose, track_id) for pose, track_id in zip(poses, ids, strict=True)]
        if self.smoother is not None:
            poses = self.smoother.update(poses, self._stamp)
        return poses

    def _is_new_scene(self, image: np.ndarray) -> bool:
        """Whether the image has little in common with the one before."""
        rows, columns = (max(side // SAMPLES, 1) for side in image.shape[:2])
        scene = image[::rows, ::columns].sum(axis=2, dtype=np.float32)
        before, self._scene = self._scene, scene
        if before is None:
            return False
        if before.shape != scene.shape:
            return True
        scene, before = scene - scene.mean(), before - before.mean()
        contrast = math.sqrt(float(np.square(scene).sum() * np.square(before).sum()))
        return contrast > 0 and float((scene * before).sum()) < SAME_SCENE * contrast
