"""Images in, poses out: the newest image of each camera, through the model, to its topics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass
from itertools import count

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from posenet_ros.config import DecoderConfig
from posenet_ros.core.closeups import Closeup
from posenet_ros.core.decode import Pose
from posenet_ros.errors import BackendError, ImageError, PoseNetError, in_words
from posenet_ros.estimator import PoseNet, StageTimes
from posenet_ros.io.image_message import stamp_seconds
from posenet_ros.ros.camera import Camera, Received, rgb_of
from posenet_ros.ros.lifting import Found, Lifting
from posenet_ros.ros.log import WARN_PERIOD_SECONDS, LimitedWarnings
from posenet_ros.ros.mailbox import Mailbox
from posenet_ros.ros.node_parameters import CameraParameters, NodeParameters
from posenet_ros.ros.selection import Region
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
    flipped: bool  # the poses are mirrored


@dataclass(frozen=True)
class Shot:
    """The image of a camera that is in hand."""

    camera: Camera
    header: Header
    image: np.ndarray
    view: np.ndarray  # what the network sees of it
    parameters: CameraParameters

    def poses_in_image(self, poses: list[Pose]) -> list[Pose]:
        """Poses in pixels of the view -> in pixels of the image."""
        region, flipped = self.parameters.region, self.parameters.decoder.flip_horizontal
        if region is None:
            return poses
        return region.poses_in_image(poses, self.image.shape[1], flipped)

    def closeups_in_image(self, closeups: list[Closeup]) -> list[Closeup]:
        """Close-ups in pixels of the view -> in pixels of the image."""
        region = self.parameters.region
        return closeups if region is None else region.closeups_in_image(closeups)


@dataclass(frozen=True)
class Request:
    """An image of a service's client."""

    message: Image
    answer: Future[Answer]


@dataclass(frozen=True)
class Answer:
    """The poses of a request's image."""

    header: Header
    width: int
    height: int
    poses: list[Pose]


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
        self._regions: dict[str, Region | None] = {}  # of the last image of each camera
        self._ids = count(1)  # of people, of all cameras
        self._reset_requested = False
        self._resting = 'deactivated'  # why no poses are published; empty while they are
        self._handover = threading.Lock()  # of _model_worker, while another takes the images
        self._numbers = count()  # of requests
        self._overlays: Mailbox[Overlay] = Mailbox()
        self._model_worker: ModelWorker[Received | Request] | None = None
        self._overlay_worker: Worker[Overlay] | None = None
        self._hanging: list[ModelWorker[Received | Request]] = []  # did not end when stopped
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
        self._hanging = []
        self._streams = {}
        worker = ModelWorker(load, Mailbox(), self._process, self._log_unexpected)
        with self._handover:
            self._overlays, self._model_worker = Mailbox(), worker
        self.net = worker.start_and_load(cancelled)
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

    def replace(
        self,
        load: Callable[[], PoseNet],
        cancelled: Callable[[], bool],
        accept: Callable[[], None],
    ) -> PoseNet:
        """Loads another model while this one runs, and goes on with it. Ids of people stay.

        May be called by another thread than the others here.

        Args:
            load: the other model.
            cancelled: whether to give up.
            accept: called before the change, which does not happen if this raises.

        Raises:
            BackendError: no model is loaded, `cancelled` became true, or this model was unloaded.
            Exception: whatever `load` or `accept` raised; this model goes on.
        """
        old = self._model_worker
        if old is None or self.net is None:
            raise BackendError('no model is loaded: set parameters, and configure the node')
        new = ModelWorker(load, Mailbox(), self._process, self._log_unexpected)
        try:
            net = new.load(lambda: cancelled() or self._model_worker is not old)
            accept()
            with self._handover:  # images wait for the new model from now on
                if self._model_worker is not old:
                    raise BackendError('the node was cleaned up meanwhile')
                for key, item in old.mailbox.clear().items():
                    new.mailbox.put(key, item)
                self._model_worker = new
        except BaseException:
            self._end(new, 0.0)
            raise
        self._end(old, STOP_SECONDS)
        for name, stream in list(self._streams.items()):
            self._streams[name] = stream.for_model(net.config)
        self.net, self._usual_seconds = net, net.stage_times.total
        new.begin()
        return net

    def _end(self, worker: ModelWorker[Received | Request], timeout: float) -> None:
        """Stops a worker, and tells those who wait for its answers."""
        if not worker.stop(timeout):
            self._hanging.append(worker)
        for item in worker.mailbox.clear().values():
            if isinstance(item, Request):
                item.answer.set_exception(BackendError('the model was unloaded'))

    def resume(self) -> None:
        """Publishes poses from now on."""
        self._resting = ''

    def rest(self, reason: str) -> None:
        """Publishes nothing from now on, and counts waiting images as dropped for this reason."""
        self._resting = reason
        worker = self._model_worker
        for name in worker.mailbox.clear(self.cameras) if worker is not None else ():
            self.cameras[name].statistics.image_dropped(reason)
        self._overlays.clear()
        if self.lifting is not None:
            self.lifting.clear()
        for camera in self.cameras.values():
            camera.clear()

    def stop(self) -> None:
        """Ends the threads and frees the model, in whatever state they are."""
        with self._handover:
            worker, self._model_worker = self._model_worker, None
        if worker is not None:
            self._end(worker, STOP_SECONDS)
        if self._overlay_worker is not None:
            self._overlay_worker.stop()
        if self.lifting is not None:
            self.lifting.stop()
        self._overlay_worker = self.net = self.lifting = None
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
        self._hanging = [worker for worker in self._hanging if not worker.stop(0.0)]
        return not self._hanging

    # Images in: the executor's thread.

    def put(self, camera: Camera, message: Received) -> None:
        max_rate = self._parameters.of_camera(camera.name).max_rate
        if not camera.rate_limit.allows(time.monotonic(), max_rate):
            camera.statistics.image_left_out()
            return
        with self._handover:
            worker = self._model_worker
            replaced = worker is not None and worker.mailbox.put(camera.name, message)
        if replaced:
            hangs = self.hang() is not None
            camera.statistics.image_dropped('the model hangs' if hangs else 'newer image came')

    def estimate(self, message: Image) -> Answer:
        """The poses of an image that no camera sent, between those of the cameras. Waits for them.

        Raises:
            BackendError: no model is loaded, or it hangs, or it could not be run.
            ImageError: the image is broken.
        """
        request = Request(message, Future())
        key = f'request {next(self._numbers)}'  # no camera has such a name
        with self._handover:
            worker = self._model_worker
            if worker is None:
                raise BackendError('no model is loaded: configure the node')
            worker.mailbox.put(key, request)
        while (hang := self.hang()) is None:
            try:
                return request.answer.result(timeout=0.1)
            except NotYetError:
                continue
        for mailbox in {worker.mailbox, (self._model_worker or worker).mailbox}:
            mailbox.clear([key])
        raise BackendError(str(hang))

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

    def _process(self, net: PoseNet, items: dict[str, Received | Request]) -> None:
        self._run_started = time.monotonic()
        try:
            requests = [item for item in items.values() if isinstance(item, Request)]
            self._run(net, {k: v for k, v in items.items() if not isinstance(v, Request)})
            for request in requests:
                try:
                    request.answer.set_result(self._answer(net, request.message))
                except BaseException as error:  # goes to whoever waits
                    request.answer.set_exception(error)
        finally:
            self._run_started = None

    def _answer(self, net: PoseNet, message: Image) -> Answer:
        image = rgb_of(message)
        (poses,) = net.estimate([image], self._parameters.of_all.decoder)
        height, width = image.shape[:2]
        return Answer(message.header, width, height, self._published(poses))

    def _published(self, poses: Sequence[Pose]) -> list[Pose]:
        values = self._parameters.values
        return [
            pose
            for pose in poses
            if pose.score >= values['min_published_pose_score']
            and pose.keypoint_scores.max() >= values['min_published_keypoint_score']
        ]

    def _run(self, net: PoseNet, frames: dict[str, Received]) -> None:
        started = time.perf_counter()
        shots = [shot for name, message in frames.items() if (shot := self._read(name, message))]
        if not shots:
            return
        convert_seconds = time.perf_counter() - started
        for decoder in dict.fromkeys(shot.parameters.decoder for shot in shots):
            same = [shot for shot in shots if shot.parameters.decoder == decoder]
            self._run_batch(net, same, decoder, convert_seconds)

    def _run_batch(
        self, net: PoseNet, shots: Sequence[Shot], decoder: DecoderConfig, convert_seconds: float
    ) -> None:
        """Images with the same decoder, which share batches."""
        streams = [self._stream_of(shot, net) for shot in shots]
        views, stamps = [shot.view for shot in shots], [_seconds(shot.header) for shot in shots]
        try:
            results = net.estimate_streams(views, stamps, streams, decoder)
        except BackendError as error:
            # The next image is processed as usual: the GPU may have free memory by then.
            self.inference_error = str(error)
            for shot in shots:
                self._drop(shot.camera, 'inference failed', error)
            return
        except BaseException as error:  # SystemExit too
            self.inference_error = in_words(error)
            self._drop_unexpected([shot.camera for shot in shots], error)
            return
        self.inference_error = ''
        times = net.stage_times
        self._usual_seconds = convert_seconds + times.total
        for shot, stream, poses in zip(shots, streams, results, strict=True):
            if self._resting or net is not self.net:  # another model went on while it hung
                shot.camera.statistics.image_dropped(self._resting or 'the model hangs')
                continue
            try:
                self._publish(shot, stream, shot.poses_in_image(poses), convert_seconds, times)
            except BaseException as error:  # must not cost the other cameras their poses
                self._drop_unexpected([shot.camera], error)

    def _read(self, name: str, message: Received) -> Shot | None:
        """The image of a camera; None if it cannot be used, which is counted."""
        camera, parameters = self.cameras[name], self._parameters.of_camera(name)
        try:
            header, image = camera.read(message)
            region = parameters.region
            view = image if region is None else region.view(image)
            return Shot(camera, header, image, view, parameters)
        except ImageError as error:
            self._drop(camera, 'broken image', error)
        except BaseException as error:  # of a decoder; must not cost the other cameras a frame
            self._drop_unexpected([camera], error)
        return None

    def _stream_of(self, shot: Shot, net: PoseNet) -> PoseStream:
        """What is remembered of a camera, as the parameters say now."""
        values, tracker = self._parameters.values, self._parameters.tracker
        if self._reset_requested:
            self._reset_requested = False
            for stream in self._streams.values():
                stream.reset()
        name, region = shot.camera.name, shot.parameters.region
        if name not in self._streams:
            self._streams[name] = PoseStream(net.config, ids=self._ids)
        stream = self._streams[name]
        if self._regions.get(name) != region:  # positions are relative to it
            stream.reset()
        self._regions[name] = region
        stream.configure(
            tracker if values['tracking'] or net.config.attention == 'people' else None,
            values['smoothing'],
        )
        return stream

    def _publish(
        self,
        shot: Shot,
        stream: PoseStream,
        poses: list[Pose],
        convert_seconds: float,
        times: StageTimes,
    ) -> None:
        values = self._parameters.values
        camera, header, image = shot.camera, shot.header, shot.image
        published = self._published(poses)
        started = time.perf_counter()
        camera.publish_poses(header, image, published)
        stages = {
            'convert': convert_seconds,
            'preprocess': times.preprocess,
            'inference': times.inference,
            'decode': times.decode,
            'publish': time.perf_counter() - started,
        }
        latency = self._latency(camera, header, times.inference)
        people = sum(pose.score >= values['min_pose_score'] for pose in published)
        flipped = shot.parameters.decoder.flip_horizontal
        if self.lifting is not None and self.lifting.wanted(camera):
            height, width = image.shape[:2]
            self.lifting.put(camera, Found(header, width, height, published, flipped))
        camera.publish_bridges(header, image, published, flipped, values)
        if camera.overlays_wanted():
            closeups = shot.closeups_in_image(stream.closeups)
            self._overlays.put(camera.name, Overlay(header, image, poses, closeups, flipped))
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
                overlay.flipped,
                self._parameters.values,
            )
