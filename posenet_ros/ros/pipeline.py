"""Images in, poses out: the newest image of each camera, through the model, to its topics."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from rclpy.node import Node
from std_msgs.msg import Header

from posenet_ros.core.closeups import Closeup
from posenet_ros.core.decode import Pose
from posenet_ros.errors import BackendError, ImageError, PoseNetError, in_words
from posenet_ros.estimator import PoseNet
from posenet_ros.io.image_message import stamp_seconds
from posenet_ros.ros.camera import Camera, Received
from posenet_ros.ros.lifting import Found, Lifting
from posenet_ros.ros.log import WARN_PERIOD_SECONDS, LimitedWarnings
from posenet_ros.ros.mailbox import Mailbox
from posenet_ros.ros.node_parameters import NodeParameters
from posenet_ros.ros.worker import ModelWorker, Worker
from posenet_ros.stream import PoseStream

# A run hangs if it takes this long, and this many times as long as usual.
HANGING_SECONDS = 2.0
HANGING_TIMES = 20.0
STOP_SECONDS = 5.0
# A stamp further from now comes from another clock, since images do not queue.
MAX_LATENCY_SECONDS = 10.0  # plus three times the inference time
MAX_AHEAD_SECONDS = 0.1
MAX_AHEAD_SIMULATED_SECONDS = 1.0  # /clock may come only a few times a second


@dataclass(frozen=True)
class Hang:
    """A run of the model that takes far longer than usual."""

    seconds: float  # so far
    usual: float  # seconds of a run
    abandoned: bool  # the node has been cleaned up meanwhile, and cannot load another model

    def __str__(self) -> str:
        text = (
            f'the model hangs: a run has taken {self.seconds:.0f} s, usual are {self.usual:.3f} s'
        )
        if self.abandoned:
            text += '. No other model can be loaded until it ends: restart the process'
        return text


@dataclass(frozen=True)
class Overlay:
    """What the markers and the annotated image of one frame are made from."""

    header: Header
    image: np.ndarray
    poses: list[Pose]
    closeups: list[Closeup]


def _seconds(header: Header) -> float:
    """An image's stamp; the time now where a camera sets none."""
    stamp = stamp_seconds(header)
    return stamp if stamp > 0 else time.monotonic()


class Pipeline:
    """Threads, joined by mailboxes that keep the newest item of each camera.

    The executor's thread receives images: put(). The model's thread converts them, runs the model
    and publishes the poses: _process(). The overlay's thread draws for viewers, so that drawing
    never delays a pose: _draw(). A fourth one places people in space: Lifting.

    Args:
        node: for its log, clock and parameters.
        parameters: of the node.
    """

    def __init__(self, node: Node, parameters: NodeParameters) -> None:
        self.cameras: dict[str, Camera] = {}
        self.net: PoseNet | None = None  # run only by the model's thread
        self.lifting: Lifting | None = None  # with the parameter lift
        self.inference_error = ''  # of the last batch
        self._run_started: float | None = None  # of the batch in hand; time.monotonic()
        self._usual_seconds = 0.0  # of a batch
        self._node = node
        self._parameters = parameters
        self._streams: dict[str, PoseStream] = {}  # by camera; the model's thread
        self._ids = count(1)  # of people, of all cameras
        self._reset_requested = False
        self._resting = 'deactivated'  # why no poses are published; empty while they are
        self._frames: Mailbox[Received] = Mailbox()
        self._overlays: Mailbox[Overlay] = Mailbox()
        self._model_worker: ModelWorker[Received] | None = None
        self._overlay_worker: Worker[Overlay] | None = None
        self._hanging_worker: ModelWorker[Received] | None = None  # did not end when it was stopped
        self._warnings = LimitedWarnings(node)

    # Start and stop: called by the thread of the lifecycle transitions.

    def start(self, load: Callable[[], PoseNet], cancelled: Callable[[], bool]) -> PoseNet:
        """Starts the threads, and waits until the model is loaded.

        Raises:
            BackendError: `cancelled` became true, or an earlier model still hangs.
            Exception: whatever `load` raised.
        """
        if not self.stopped_cleanly:
            raise BackendError(
                'the model that was loaded before still hangs; configure again when it has ended, '
                'or restart the process'
            )
        self._hanging_worker = None
        self._frames, self._overlays = Mailbox(), Mailbox()
        self._streams = {}
        self._model_worker = ModelWorker(load, self._frames, self._process, self._log_unexpected)
        self.net = self._model_worker.start_and_load(cancelled)
        self._usual_seconds = self.net.stage_times.total  # of the warm-up
        self._overlay_worker = Worker(
            'posenet_overlay', self._overlays, self._draw, self._log_unexpected
        )
        self._overlay_worker.start()
        if self._parameters.values['lift'] != 'off':
            self.lifting = Lifting(
                self._node,
                self.cameras,
                lambda: self._parameters.values,
                self._log_unexpected,
                lambda: bool(self._resting),
            )
        return self.net

    def resume(self) -> None:
        """Publishes poses from now on."""
        self._resting = ''

    def rest(self, reason: str) -> None:
        """Publishes nothing from now on, and counts waiting images as dropped for this reason."""
        self._resting = reason
        for name in self._frames.clear():
            self.cameras[name].statistics.image_dropped(reason)
        self._overlays.clear()
        if self.lifting is not None:
            self.lifting.clear()
        for camera in self.cameras.values():
            camera.clear_markers()

    def stop(self) -> None:
        """Ends the threads and frees the model, in whatever state they are."""
        if self._model_worker is not None and not self._model_worker.stop(STOP_SECONDS):
            self._hanging_worker = self._model_worker
        if self._overlay_worker is not None:
            self._overlay_worker.stop()
        if self.lifting is not None:
            self.lifting.stop()
        self._model_worker = self._overlay_worker = self.net = self.lifting = None
        self.inference_error = ''

    def reset_trackers(self) -> None:
        """Forgets everybody, before the next image."""
        self._reset_requested = True

    @property
    def loaded(self) -> bool:
        """Whether a model is loaded, or being loaded."""
        return self._model_worker is not None

    @property
    def stopped_cleanly(self) -> bool:
        """False while the thread of a hanging model still runs."""
        return self._hanging_worker is None or self._hanging_worker.stop(0.0)

    # Images in: the executor's thread.

    def put(self, camera: Camera, message: Received) -> None:
        if self._frames.put(camera.name, message):
            hangs = self.hang() is not None
            camera.statistics.image_dropped('the model hangs' if hangs else 'newer image came')

    def hang(self) -> Hang | None:
        """Whether the model hangs."""
        started, usual = self._run_started, self._usual_seconds
        if started is None:
            return None
        seconds = time.monotonic() - started
        if seconds < max(HANGING_SECONDS, HANGING_TIMES * usual):
            return None
        return Hang(seconds, usual, self._model_worker is None)

    # Poses out: the model's thread.

    def _process(self, net: PoseNet, frames: dict[str, Received]) -> None:
        self._run_started = time.monotonic()
        try:
            self._run(net, frames)
        finally:
            self._run_started = None

    def _run(self, net: PoseNet, frames: dict[str, Received]) -> None:
        started = time.perf_counter()
        cameras, headers, images = [], [], []
        for name, message in frames.items():
            camera = self.cameras[name]
            try:
                header, image = camera.read(message)
            except ImageError as error:
                self._drop(camera, 'broken image', error)
                continue
            except BaseException as error:  # of a decoder; must not cost the other cameras a frame
                self._drop_unexpected([camera], error)
                continue
            cameras.append(camera)
            headers.append(header)
            images.append(image)
        if not images:
            return
        converted = time.perf_counter()
        streams = self._streams_of(cameras, net)
        stamps = [_seconds(header) for header in headers]
        try:
            results = net.estimate_streams(images, stamps, streams, self._parameters.decoder)
        except BackendError as error:
            # The next image is processed as usual: the GPU may have free memory by then.
            self.inference_error = str(error)
            for camera in cameras:
                self._drop(camera, 'inference failed', error)
            return
        except BaseException as error:  # SystemExit too
            self.inference_error = in_words(error)
            self._drop_unexpected(cameras, error)
            return
        self.inference_error = ''
        self._usual_seconds = converted - started + net.stage_times.total
        for camera, header, image, stream, poses in zip(
            cameras, headers, images, streams, results, strict=True
        ):
            if self._resting:
                camera.statistics.image_dropped(self._resting)
                continue
            try:
                self._publish(camera, header, image, stream, poses, converted - started, net)
            except BaseException as error:  # must not cost the other cameras their poses
                self._drop_unexpected([camera], error)

    def _streams_of(self, cameras: Sequence[Camera], net: PoseNet) -> list[PoseStream]:
        """What is remembered of each camera, as the parameters say now."""
        values, tracker = self._parameters.values, self._parameters.tracker
        if self._reset_requested:
            self._reset_requested = False
            for stream in self._streams.values():
                stream.reset()
        for camera in cameras:
            if camera.name not in self._streams:
                self._streams[camera.name] = PoseStream(net.config, ids=self._ids)
            self._streams[camera.name].configure(
                tracker if values['tracking'] or net.config.attention == 'people' else None,
                values['smoothing'],
            )
        return [self._streams[camera.name] for camera in cameras]

    def _publish(
        self,
        camera: Camera,
        header: Header,
        image: np.ndarray,
        stream: PoseStream,
        poses: list[Pose],
        convert_seconds: float,
        net: PoseNet,
    ) -> None:
        values = self._parameters.values
        min_pose_score = values['min_published_pose_score']
        min_keypoint_score = values['min_published_keypoint_score']
        published = [
            pose
            for pose in poses
            if pose.score >= min_pose_score and pose.keypoint_scores.max() >= min_keypoint_score
        ]
        started = time.perf_counter()
        camera.publish_poses(header, image, published)
        times = net.stage_times
        stages = {
            'convert': convert_seconds,
            'preprocess': times.preprocess,
            'inference': times.inference,
            'decode': times.decode,
            'publish': time.perf_counter() - started,
        }
        latency = self._latency(camera, header, times.inference)
        people = sum(pose.score >= values['min_pose_score'] for pose in published)
        if self.lifting is not None and self.lifting.wanted(camera):
            height, width = image.shape[:2]
            flipped = values['flip_horizontal']
            self.lifting.put(camera, Found(header, width, height, published, flipped))
        if camera.overlays_wanted():
            self._overlays.put(camera.name, Overlay(header, image, poses, stream.closeups))
        camera.statistics.image_looked_at(stream.whole, len(stream.closeups), stream.counts)
        camera.statistics.image_processed(people, {**latency, **stages})

    def _latency(self, camera: Camera, header: Header, inference: float) -> dict[str, float]:
        """Seconds since the stamp; empty if the stamp comes from another clock."""
        stamp = stamp_seconds(header)
        now = self._node.get_clock().now().nanoseconds / 1e9
        if stamp <= 0 or now <= 0:
            return {}
        latency = now - stamp
        simulated = self._node.get_parameter('use_sim_time').value
        ahead = MAX_AHEAD_SIMULATED_SECONDS if simulated else MAX_AHEAD_SECONDS
        if -ahead <= latency <= MAX_LATENCY_SECONDS + 3 * inference:
            camera.statistics.stamped_by_another_clock(None)
            return {'latency': latency}
        camera.statistics.stamped_by_another_clock(latency)
        return {}

    def _drop(self, camera: Camera, reason: str, error: PoseNetError) -> None:
        """Counts a lost frame and logs why, at a limited rate."""
        count = camera.statistics.image_dropped(reason, str(error))
        self._warnings.add(
            camera.name, str(error), f'image dropped, {reason} ({count} so far): {error}'
        )

    def _drop_unexpected(self, cameras: Sequence[Camera], error: BaseException) -> None:
        """Counts frames that are lost by an error that nobody has foreseen, and logs it."""
        for camera in cameras:
            camera.statistics.image_dropped('unexpected error', in_words(error))
        self._log_unexpected(error)

    def _log_unexpected(self, error: BaseException) -> None:
        self._node.get_logger().error(
            f'unexpected {in_words(error)}', throttle_duration_sec=WARN_PERIOD_SECONDS
        )

    # Markers and annotated images: the overlay's thread.

    def _draw(self, overlays: dict[str, Overlay]) -> None:
        for name, overlay in overlays.items():
            if self._resting:
                return
            self.cameras[name].publish_overlays(
                overlay.header,
                overlay.image,
                overlay.poses,
                overlay.closeups,
                self._parameters.values,
            )
