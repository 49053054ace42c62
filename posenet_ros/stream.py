"""What is remembered of a camera or a video from frame to frame: who is there, and where to look.

PoseNet.estimate_stream runs the looks that a stream asks for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

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
SAMPLES = 64  # pixels along each side of the image, to compare scenes


class Look(NamedTuple):
    """What one image shows on its own; PoseStream.follow makes a frame of a video of it."""

    shape: Size  # of the image: height, width
    scene: np.ndarray  # its brightness in few blocks, float32
    poses: PoseArrays  # in pixels of the image


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
        self.config = config
        self.closeups: list[Closeup] = []  # of the last frame
        self.whole = True  # whether the last frame was looked at as a whole
        self.tracker = PoseTracker(tracker, count(1) if ids is None else ids)
        self.tracking = False
        self._smoother: PoseSmoother | None = None
        self._attention = Attention(config) if config.attention == 'people' else None
        self._scenes = _Scenes()
        self._stamp = -math.inf
        self._plan: Plan | None = None  # of the frame in hand, if people are followed in it
        self._tracked = False  # whether the frame in hand counts for ids
        self.configure(tracker, smoothing)

    def for_model(self, config: ModelConfig) -> PoseStream:
        """The same people for another model: they keep their ids."""
        stream = PoseStream(config)
        stream.tracker, stream.tracking = self.tracker, self.tracking
        stream._smoother, stream._scenes = self._smoother, self._scenes
        return stream

    def configure(self, tracker: TrackerConfig | None, smoothing: bool) -> None:
        """Changes the options; ids stay."""
        tracking = tracker is not None or self._attention is not None
        if self.tracking and not tracking:
            self.tracker.reset()
        self.tracking = tracking
        if tracker is not None:
            self.tracker.config = tracker
        if smoothing != (self._smoother is not None):
            self._smoother = PoseSmoother() if smoothing else None

    @property
    def counts(self) -> tuple[int, int, int] | None:
        """People with an id now; ids given, and ended, so far. None without tracking."""
        if not self.tracking:
            return None
        return len(self.tracker), self.tracker.births, self.tracker.deaths

    def reset(self) -> None:
        """Forgets everybody."""
        self.tracker.reset()
        if self._smoother is not None:
            self._smoother.reset()

    # One frame: begin, what the whole image shows, end. Called by PoseNet.

    def begin(self, image: np.ndarray, stamp: float, follow: bool = True) -> Plan:
        """What a frame is spent on.

        Args:
            image: of the frame.
            stamp: of the frame, in seconds.
            follow: whether people are followed with close-ups, if attention is people.

        Raises:
            ValueError: the stamp is not finite.
        """
        size = image.shape[0], image.shape[1]
        self._begin(size, stamp, lambda: brightness(image))
        if self._attention is None or not self._tracked or not follow:
            return Plan(True, [])
        self._predicted = self.tracker.predict(stamp)
        self._plan = self._attention.plan(self._predicted, self._size, stamp)
        return self._plan

    def _begin(self, size: Size, stamp: float, scene: Callable[[], np.ndarray]) -> None:
        self._size = size
        self._stamp = stamp
        self._plan, self._tracked = None, False
        if self.tracking:
            self.tracker.advance(stamp)
            change = self._scenes.see(size, scene())
            if change == NEW:
                self.reset()
            self._tracked = change != DOUBTFUL

    def newcomers(self, whole: PoseArrays) -> list[Closeup]:
        """Whom to look at closely of those in the whole image."""
        if self._attention is None or self._plan is None:
            return []
        return self._attention.newcomers(whole, self._predicted, self._size, self._plan)

    def end(
        self,
        whole: PoseArrays | None,
        looks: Sequence[tuple[Closeup, PoseArrays]] = (),
        newcomers: Sequence[tuple[Closeup, PoseArrays]] = (),
        most: float = math.inf,
    ) -> list[Pose]:
        """The poses of the frame, with ids, in pixels of the image.

        Args:
            whole: the poses of the whole image; None if it was not looked at.
            looks: the plan's close-ups, and the poses in them, in pixels of the image.
            newcomers: likewise those of newcomers.
            most: people.
        """
        self.whole = whole is not None
        self.closeups = [closeup for closeup, _ in (*looks, *newcomers)]
        if self._attention is not None and self._plan is not None:
            whole, found = merge_looks(self._predicted, whole, looks, newcomers, most)
            self._attention.looked(self._predicted, self._plan, found, self._stamp)
        assert whole is not None
        poses = as_poses(whole)
        if self._tracked:
            ids = self.tracker.update_arrays(whole, self._stamp).tolist()
            poses = [with_id(pose, track_id) for pose, track_id in zip(poses, ids, strict=True)]
        if self._smoother is not None:
            poses = self._smoother.update(poses, self._stamp)
        return poses

    def follow(self, look: Look, stamp: float) -> list[Pose]:
        """The poses of the next frame, with ids, from what PoseNet.look found in it before.

        The result is that of PoseNet.estimate_stream, for every attention but people, where a look
        depends on the frames before it.

        Args:
            look: of the frame.
            stamp: of the frame, in seconds.

        Raises:
            ValueError: the stamp is not finite, or the model's attention is people.
        """
        if self._attention is not None:
            raise ValueError('with attention people, frames have to be looked at one by one')
        self._begin(look.shape, stamp, lambda: look.scene)
        return self.end(look.poses)


SAME, DOUBTFUL, NEW = range(3)


class _Scenes:
    """Notices a cut to another scene: two frames in a row that have little in common with before.

    One such frame may be a damaged one. It is doubtful, and nothing should be learned from it.
    """

    def __init__(self) -> None:
        self._size: Size | None = None
        self._scene = np.zeros(0, np.float32)
        self._doubtful = False  # the last frame

    def see(self, size: Size, scene: np.ndarray) -> int:
        """SAME, DOUBTFUL or NEW: an image of this size and brightness."""
        if self._size != size:
            change = SAME if self._size is None else NEW
        elif _alike(scene, self._scene):
            change = SAME
        else:
            change = NEW if self._doubtful else DOUBTFUL
        self._doubtful = change == DOUBTFUL
        if change != DOUBTFUL:
            self._size, self._scene = size, scene
        return change


def brightness(image: np.ndarray) -> np.ndarray:
    """An image in few blocks, each the mean of four pixels, so that noise counts little."""
    rows, columns = (max(side // SAMPLES, 1) for side in image.shape[:2])
    sampled = image[::rows, ::columns].sum(axis=2, dtype=np.float32)
    if min(sampled.shape) < 2:
        return np.asarray(sampled)
    even = sampled[: len(sampled) // 2 * 2, : sampled.shape[1] // 2 * 2]
    blocks: np.ndarray = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return blocks


def _alike(scene: np.ndarray, before: np.ndarray) -> bool:
    scene, before = scene - scene.mean(), before - before.mean()
    contrast = math.sqrt(float(np.square(scene).sum()) * float(np.square(before).sum()))
    return float((scene * before).sum()) >= SAME_SCENE * contrast
