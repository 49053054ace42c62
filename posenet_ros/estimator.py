"""PoseNet: image -> network input -> heads -> poses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posenet_ros.backends import Backend, find_runtime
from posenet_ros.config import (
    DecoderConfig,
    ModelConfig,
    RuntimeConfig,
    check_input_size,
    check_max_batch,
    largest_batch,
)
from posenet_ros.core.attention import Plan
from posenet_ros.core.closeups import Closeup, choose_closeups, merge_closeups
from posenet_ros.core.decode import (
    Pose,
    PoseArrays,
    as_poses,
    check_poses,
    multiple_pose_arrays,
    single_pose_arrays,
)
from posenet_ros.core.heads import Heads, check_heads
from posenet_ros.core.preprocess import Letterbox, check_image, mirror, preprocess
from posenet_ros.errors import BackendError
from posenet_ros.input_size import Size
from posenet_ros.model.network import make_network
from posenet_ros.stream import Look, PoseStream, brightness
from posenet_ros.warm_up import compile_tracking

PEOPLE_IN_A_CLOSEUP = 5


@dataclass(frozen=True)
class StageTimes:
    """Seconds that each stage of one call took."""

    preprocess: float
    inference: float
    decode: float

    @property
    def total(self) -> float:
        return self.preprocess + self.inference + self.decode

    def __add__(self, other: StageTimes) -> StageTimes:
        return StageTimes(
            self.preprocess + other.preprocess,
            self.inference + other.inference,
            self.decode + other.decode,
        )


class PoseNet:
    """A loaded model. Use it from one thread at a time; close it, or use it in a with block.

    Calls share buffers, so a concurrent call raises a BackendError.
    """

    def __init__(
        self, config: ModelConfig, backend: Backend, model_sha256: str, backend_reason: str = ''
    ) -> None:
        self.config = config
        self.backend = backend
        self.backend_reason = backend_reason
        self.model_sha256 = model_sha256
        # For an image of 4:3, where the input follows the image's shape.
        self.input_height, self.input_width = config.input_sizes.typical
        self.stage_times = StageTimes(0.0, 0.0, 0.0)
        self._in_use = threading.Lock()

    @classmethod
    def load(
        cls,
        config: ModelConfig | None = None,
        backend: str = 'auto',
        precision: str | None = None,
        max_batch: int = 1,
        **options: Any,
    ) -> PoseNet:
        """Loads a model: finds what can run it, makes its network, and warms up.

        Args:
            config: which model; None is the reference's default model.
            backend: tensorrt (NVIDIA GPUs), onnxruntime (CPU), or auto for the best that works
                here; backend_reason then says why it was chosen.
            precision: fp32, fp16 or int8. None follows quant_bytes.
            max_batch: images that a GPU runs at once, 1 to 64; more run in several batches.
            options: the other fields of RuntimeConfig, as keywords.

        Raises:
            ConfigError: an option has an invalid value.
            CheckpointError: the weights are missing, unreachable or damaged.
            GraphError: the checkpoint's graph is not a PoseNet graph.
            BackendError: the backend cannot run here.
        """
        config = ModelConfig() if config is None else config
        runtime_options = RuntimeConfig(backend, precision, **options)
        check_input_size(config)
        check_max_batch(max_batch)
        max_batch = largest_batch(config, runtime_options, max_batch)
        runtime = find_runtime(runtime_options, config.quant_bytes)
        try:
            network = make_network(
                config, runtime.network_precision, runtime.int8_layout, runtime_options.calibration
            )
            loaded = runtime.load(network, max_batch)
        except BaseException:
            runtime.close()
            raise
        net = cls(config, loaded, network.weights_sha256, runtime.reason)
        try:
            net.warm_up()
        except BaseException:
            net.close()
            raise
        return net

    def estimate_single_pose(self, image: np.ndarray, flip_horizontal: bool = False) -> Pose:
        """The pose of the one person in the image.

        Args:
            image: uint8 RGB, (H, W, 3).
            flip_horizontal: mirror the x coordinates.

        Returns:
            The pose in image pixels. There is always one, however low its score.

        Raises:
            ImageError: the image is not uint8 RGB, or has no pixels.
            BackendError: the network could not be run.
        """
        config = DecoderConfig(flip_horizontal, decoding_method='single-person')
        return self.estimate([image], config)[0][0]

    def estimate_multiple_poses(
        self,
        image: np.ndarray,
        flip_horizontal: bool = False,
        max_detections: float = 5,
        score_threshold: float = 0.5,
        nms_radius: float = 20,
    ) -> list[Pose]:
        """The poses of the people in the image.

        Args:
            image: uint8 RGB, (H, W, 3).
            flip_horizontal: mirror the x coordinates.
            max_detections: most people to find.
            score_threshold: lowest heatmap score that starts a person, 0 to 1.
            nms_radius: two people closer than this at the same part are one; in pixels of the
                network input.

        Returns:
            The poses in image pixels, in the order in which the first look found them: the
            strongest root keypoint first. Empty when nobody is there.

        Raises:
            ConfigError: an option has an invalid value.
            ImageError: the image is not uint8 RGB, or has no pixels.
            BackendError: the network could not be run.
        """
        config = DecoderConfig(flip_horizontal, max_detections, score_threshold, nms_radius)
        return self.estimate([image], config)[0]

    def estimate(self, images: list[np.ndarray], config: DecoderConfig) -> list[list[Pose]]:
        """The poses of several images of any sizes, run in batches of up to backend.max_batch.

        Args:
            images: uint8 RGB, (H, W, 3) each, of any strides: BGR passes as image[..., ::-1].
            config: how to decode.

        Returns:
            The poses of each image, in its pixels.

        Raises:
            ImageError: an image is not uint8 RGB, or has no pixels.
            BackendError: the network could not be run, gave what no poses can be (NaN, or
                positions far from the image), or is running in another thread.
        """
        with self._running(images):
            found = self._look(images, config)
        return _flipped([as_poses(poses) for poses in found], images, config)

    def estimate_streams(
        self,
        images: Sequence[np.ndarray],
        stamps: Sequence[float],
        streams: Sequence[PoseStream],
        config: DecoderConfig,
    ) -> list[list[Pose]]:
        """The poses of the next image of each stream, with ids; batches as in estimate.

        Args:
            images: uint8 RGB, (H, W, 3) each, of any strides.
            stamps: when they were taken, in seconds.
            streams: the cameras or videos that they are from, all different.
            config: how to decode.

        Returns:
            The poses of each image, in its pixels.

        Raises:
            ImageError: an image is not uint8 RGB, or has no pixels.
            BackendError: as estimate.
            ValueError: a stamp is not finite; a stream is given twice, or for another model.
        """
        if len({id(stream) for stream in streams}) < len(streams):
            raise ValueError('a stream is given for two images')
        if any(stream.config != self.config for stream in streams):
            raise ValueError("a stream is for another model's config")
        # The one person of an image is always there, in the whole of it.
        follow = self.config.attention == 'people' and config.decoding_method == 'multi-person'
        with self._running(images):
            plans = [
                stream.begin(image, stamp, follow)
                for image, stamp, stream in zip(images, stamps, streams, strict=True)
            ]
            if follow:
                found = self._follow(images, streams, plans, config)
            else:
                found = [
                    stream.end(poses)
                    for stream, poses in zip(streams, self._look(images, config), strict=True)
                ]
        return _flipped(found, images, config)

    def estimate_stream(
        self, image: np.ndarray, stamp: float, stream: PoseStream, config: DecoderConfig
    ) -> list[Pose]:
        """The poses of the next image of a camera or a video: see estimate_streams."""
        return self.estimate_streams([image], [stamp], [stream], config)[0]

    def look(self, image: np.ndarray, config: DecoderConfig) -> Look:
        """What an image shows on its own, for follow_look: images of a video in any order.

        Raises:
            ImageError, BackendError: as estimate.
        """
        with self._running([image]):
            (poses,) = self._look([image], config)
        return Look((image.shape[0], image.shape[1]), brightness(image), poses)

    def warm_up(self) -> None:
        """Runs each code path once, so that no compilation delays the first frame."""
        image = np.zeros((480, 640, 3), np.uint8)
        self.estimate([image], DecoderConfig(decoding_method='single-person'))
        self.estimate([image], DecoderConfig(score_threshold=0.0))
        if self.config.attention != 'off':
            for size in self.config.closeup_sizes:
                self._run([image], [size], DecoderConfig())
        compile_tracking()

    def close(self) -> None:
        """Frees the backend. The model cannot be used afterwards."""
        self.backend.close()

    def __enter__(self) -> PoseNet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _running(self, images: Sequence[np.ndarray]) -> Iterator[None]:
        """Checks the images, and keeps other threads out."""
        for image in images:
            check_image(image)
        if not self._in_use.acquire(blocking=False):
            raise BackendError(
                'another thread runs this model; give each thread a PoseNet of its own, or a lock'
            )
        try:
            self.stage_times = StageTimes(0.0, 0.0, 0.0)
            yield
        finally:
            self._in_use.release()

    def _look(self, images: Sequence[np.ndarray], config: DecoderConfig) -> list[PoseArrays]:
        """The poses of images that have nothing to do with each other."""
        sizes = [self.config.input_size(*image.shape[:2]) for image in images]
        found = self._run(images, sizes, config)
        if self.config.attention != 'off':
            found = self._look_closer(images, sizes, found, config)
        return found

    def _look_closer(
        self,
        images: Sequence[np.ndarray],
        sizes: Sequence[Size],
        found: list[PoseArrays],
        config: DecoderConfig,
    ) -> list[PoseArrays]:
        """Close-ups of people who are small in the input; the close-ups of all images together."""
        closeups = [
            choose_closeups(
                poses,
                Letterbox.fit(image.shape[0], image.shape[1], *size),
                self.config.closeup_sizes,
                self.config.max_closeups,
            )
            for image, size, poses in zip(images, sizes, found, strict=True)
        ]
        looks = self._closeups(images, closeups, config)
        return [merge_closeups(poses, looked) for poses, looked in zip(found, looks, strict=True)]

    def _follow(
        self,
        images: Sequence[np.ndarray],
        streams: Sequence[PoseStream],
        plans: Sequence[Plan],
        config: DecoderConfig,
    ) -> list[list[Pose]]:
        """The looks that streams have planned, and those at newcomers: each kind in batches."""
        at_all = [i for i, plan in enumerate(plans) if plan.whole]
        sizes = [self.config.input_size(*images[i].shape[:2]) for i in at_all]
        seen = dict(zip(at_all, self._run([images[i] for i in at_all], sizes, config), strict=True))
        newcomers = [
            stream.newcomers(seen[i]) if i in seen else [] for i, stream in enumerate(streams)
        ]
        chosen = [[*plan.closeups, *new] for plan, new in zip(plans, newcomers, strict=True)]
        looks = self._closeups(images, chosen, config)
        return [
            stream.end(
                seen.get(i),
                looked[: len(plan.closeups)],
                looked[len(plan.closeups) :],
                config.max_detections,
            )
            for i, (stream, plan, looked) in enumerate(zip(streams, plans, looks, strict=True))
        ]

    def _closeups(
        self,
        images: Sequence[np.ndarray],
        closeups: Sequence[Sequence[Closeup]],
        config: DecoderConfig,
    ) -> list[list[tuple[Closeup, PoseArrays]]]:
        """The poses in close-ups of each image, in pixels of the image; all in batches."""
        views = [
            closeup.of(image)
            for image, chosen in zip(images, closeups, strict=True)
            for closeup in chosen
        ]
        sizes = [closeup.input_size for chosen in closeups for closeup in chosen]
        # Of several people in a close-up, the wanted one may not be the strongest.
        several = replace(config, max_detections=max(config.max_detections, PEOPLE_IN_A_CLOSEUP))
        looks = iter(self._run(views, sizes, several))
        return [
            [(closeup, closeup.in_image(next(looks))) for closeup in chosen] for chosen in closeups
        ]

    def _run(
        self, images: Sequence[np.ndarray], sizes: Sequence[Size], config: DecoderConfig
    ) -> list[PoseArrays]:
        """The poses of each image, in its pixels. Images of the same input size share batches."""
        results: dict[int, PoseArrays] = {}
        most = self.backend.max_batch
        for size in dict.fromkeys(sizes):
            same = [i for i, other in enumerate(sizes) if other == size]
            for first in range(0, len(same), most):
                batch = same[first : first + most]
                poses = self._run_batch([images[i] for i in batch], size, config)
                results.update(zip(batch, poses, strict=True))
        return [results[i] for i in range(len(images))]

    def _run_batch(
        self, images: list[np.ndarray], size: Size, config: DecoderConfig
    ) -> list[PoseArrays]:
        # Pre-process: each image into its place in the network's input.
        started = time.perf_counter()
        batch = self.backend.input_buffer(len(images), *size)  # (n, 3, h, w)
        letterboxes = [
            preprocess(image, self.config.architecture, tensor)
            for image, tensor in zip(images, batch, strict=True)
        ]
        prepared = time.perf_counter()

        # Run the network: four heads (n, rows, columns, channels).
        heads = self.backend.run(batch)
        inferred = time.perf_counter()
        check_heads(heads, (len(images), *self._cells(size)))

        # Decode each image's heads, and map the keypoints back to its pixels.
        results = [
            self._decode(heads.of_image(i), letterbox, config)
            for i, letterbox in enumerate(letterboxes)
        ]
        decoded = time.perf_counter()
        self.stage_times += StageTimes(prepared - started, inferred - prepared, decoded - inferred)
        return results

    def _cells(self, size: Size) -> tuple[int, int]:
        """Rows and columns of the heads for an input size."""
        height, width = size
        stride = self.config.output_stride
        return (height - 1) // stride + 1, (width - 1) // stride + 1

    def _decode(self, heads: Heads, letterbox: Letterbox, config: DecoderConfig) -> PoseArrays:
        """The poses of one image, in its pixels."""
        stride, refined = self.config.output_stride, config.decoder == 'refined'
        if config.decoding_method == 'single-person':
            poses = single_pose_arrays(heads.heatmap_scores, heads.offsets, stride, refined)
        else:
            poses = multiple_pose_arrays(
                heads,
                stride,
                config.max_detections,
                config.score_threshold,
                config.nms_radius,
                refined,
            )
        check_poses(poses, letterbox.input_height, letterbox.input_width)
        return poses._replace(
            keypoints=letterbox.to_image(poses.keypoints),
            keypoint_deviations=letterbox.scale * poses.keypoint_deviations,
        )


def follow_look(look: Look, stamp: float, stream: PoseStream, config: DecoderConfig) -> list[Pose]:
    """The poses of the next frame of a video, of which PoseNet.look was taken with this config.

    Raises:
        ValueError: as PoseStream.follow.
    """
    return _flipped([stream.follow(look, stamp)], [look], config)[0]


def _flipped(
    found: list[list[Pose]], images: Sequence[np.ndarray | Look], config: DecoderConfig
) -> list[list[Pose]]:
    """The poses of each image, in the mirrored image if that is asked for; they are changed."""
    if config.flip_horizontal:
        for poses, image in zip(found, images, strict=True):
            for pose in poses:
                mirror(pose.keypoints, image.shape[1])
    return found
