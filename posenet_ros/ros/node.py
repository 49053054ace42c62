"""The node: images in, poses out. A lifecycle node around PoseNet."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.timer import Timer
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from posenet_ros.config import ModelConfig, RuntimeConfig
from posenet_ros.decode import Pose
from posenet_ros.errors import BackendError, ConfigError, ImageError, PoseNetError
from posenet_ros.estimator import PoseNet
from posenet_ros.msg import ModelInfo
from posenet_ros.precompile import precompile
from posenet_ros.ros.arguments import untaken_parameters, untaken_qos
from posenet_ros.ros.camera import Camera, Received, no_events
from posenet_ros.ros.declaration import declare_parameters, with_doubles
from posenet_ros.ros.executor import BackgroundExecutor
from posenet_ros.ros.log import forward_log, stop_forwarding
from posenet_ros.ros.mailbox import Mailbox
from posenet_ros.ros.messages import model_info
from posenet_ros.ros.parameters import (
    LIVE_GROUPS,
    PARAMETERS,
    SPECS,
    checked_values,
    decoder_config,
    model_config,
    runtime_config,
)
from posenet_ros.ros.report import NodeState, Report
from posenet_ros.ros.topics import CameraTopics, camera_topics
from posenet_ros.ros.worker import ModelWorker, Worker

CAMERA_NAME = re.compile('[A-Za-z][A-Za-z0-9_]*')
WARN_EVERY_SECONDS = 5.0
MAX_WARNINGS = 5  # different ones within that time
STOP_SECONDS = 5.0
DEMAND_SECONDS = 0.2  # between two looks at whether anybody subscribes
# No image is so late, since nothing queues, nor so early: then its stamp is by another clock.
MOST_LATENCY = 10.0  # seconds, and three inferences
MOST_AHEAD = 0.1
MOST_AHEAD_SIMULATED = 1.0  # where /clock comes a few times a second

DOUBLES = frozenset(spec.name for spec in PARAMETERS if isinstance(spec.default, float))


def _load(config: ModelConfig, runtime: RuntimeConfig, max_batch: int) -> PoseNet:
    precompile()
    return PoseNet.load(config, max_batch=max_batch, **asdict(runtime))


@dataclass(frozen=True)
class Overlay:
    """What the markers and the annotated image of one frame are made from."""

    header: Header
    image: np.ndarray
    poses: list[Pose]


class PoseNetNode(LifecycleNode):
    """Unconfigured: parameters. Inactive: a loaded model. Active: images become poses.

    Three threads: the executor's receives and puts the newest image of each camera into a mailbox;
    the model's takes what waits, runs it and publishes the poses; the overlay's draws for whoever
    looks, so that drawing never delays a pose. In BackgroundExecutor transitions have a fourth, so
    that services answer while a model is loaded.

    Args:
        stop_requested: tells a long configure that the process is to end.
    """

    def __init__(
        self,
        *,
        stop_requested: Callable[[], bool] = lambda: False,
        node_name='posenet_node',
        **kwargs,
    ) -> None:
        super().__init__(node_name, **kwargs)
        self._stop_requested = stop_requested
        self._active = False
        self._enabled = True
        self._loading_since: float | None = None
        self._trouble = ''  # why the last transition failed
        self._failure = ''  # why the last batch was not run
        self._cameras: dict[str, Camera] = {}
        self._net: PoseNet | None = None
        self._model_worker: ModelWorker | None = None
        self._hanging_worker: ModelWorker | None = None  # which did not end when it was released
        self._overlay_worker: Worker | None = None
        self._warned: dict[tuple[str, str], float] = {}  # when each reason was told last
        self._frames: Mailbox[Received] = Mailbox()
        self._overlays: Mailbox[Overlay] = Mailbox()
        self._model_info: Publisher | None = None
        self._demand_timer: Timer | None = None

        self._log_handler = forward_log(self.get_logger())
        self._values = declare_parameters(self, PARAMETERS)
        self._decoder = decoder_config(self._values)
        # rclpy has no public name for what was given and nobody declared.
        known = list(self.get_parameters_by_prefix(''))
        for sentence, certain in untaken_parameters(self._parameter_overrides, known):
            if certain:
                self.get_logger().warning(sentence)
            else:
                self.get_logger().info(sentence)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._enable_service = self.create_service(SetBool, '~/enable', self._on_enable)
        self._report = Report(self, self._state)
        # For BackgroundExecutor: what loads a model, and so takes its time.
        self.background_services = [
            service for service in self.services if service.srv_name.endswith('/change_state')
        ]
        for service in self.background_services:
            service.callback_group = ReentrantCallbackGroup()
            service.callback = self._answering(service.callback)

    # Lifecycle.

    def autostart(self) -> None:
        """Configures and activates, if the parameter autostart says so."""
        if not self._values['autostart']:
            return
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt(self._configure, 'configure')

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt(self._activate, 'activate')

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._pause()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._trouble = ''
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self.get_logger().error(f'an error while {state.label}; the node is unconfigured again')
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        self._release()
        stop_forwarding(self._log_handler)
        super().destroy_node()

    @property
    def stopped_cleanly(self) -> bool:
        """False while a model that hangs keeps its thread."""
        return self._hanging_worker is None or self._hanging_worker.stop(0.0)

    def _answering(self, change_state: Callable) -> Callable:
        """The service's callback, with an answer also to what is no transition of this state."""

        def answer(request: ChangeState.Request, response: ChangeState.Response):
            try:
                return change_state(request, response)
            except Exception as error:  # Humble and Jazzy raise what Kilted logs
                self.get_logger().error(f'cannot change the state: {error}')
                response.success = False
                return response

        return answer

    def _in_spinning_thread(self, work: Callable[[], None]) -> None:
        """Makes or gives up what the executor waits on."""
        if isinstance(self.executor, BackgroundExecutor):
            self.executor.in_spinning_thread(work)
        else:
            work()

    def _attempt(self, step: Callable[[], None], name: str) -> TransitionCallbackReturn:
        """Does a step. What it cannot have fails the transition; anything else is an error."""
        self._trouble = ''
        try:
            step()
        except Exception as error:  # rclpy would drop it without a word
            expected = isinstance(error, PoseNetError)
            self._trouble = str(error) if expected else f'{type(error).__name__}: {error}'
            if self._stop_requested():
                self.get_logger().info(self._trouble)
            else:
                self.get_logger().error(f'cannot {name}: {self._trouble}')
            if not expected:
                return TransitionCallbackReturn.ERROR  # on_error frees everything
            if step == self._configure:
                self._release()
            else:
                self._pause()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _activate(self) -> None:
        self._active = True
        self._in_spinning_thread(self._apply_enabled)
        endpoints = [end for camera in self._cameras.values() for end in camera.endpoints()]
        for warning in untaken_qos(self._parameter_overrides, endpoints):
            self._report.tell_once(warning, warning)

    def _configure(self) -> None:
        self._loading_since = time.monotonic()
        try:
            self._load_model()
        finally:
            self._loading_since = None

    def _load_model(self) -> None:
        values = self._values
        config, runtime = model_config(values), runtime_config(values)
        names = values['cameras']
        topics = self._camera_topics(names)
        if not self.stopped_cleanly:
            raise BackendError(
                'the model that was loaded before still hangs; configure again when it has ended'
            )
        self._hanging_worker = None
        max_batch = runtime.largest_batch(len(names))
        started = time.monotonic()
        self._frames, self._overlays = Mailbox(), Mailbox()
        self._model_worker = ModelWorker(
            lambda: _load(config, runtime, max_batch),
            self._frames,
            self._process,
            self._report_unexpected,
        )
        net = self._net = self._model_worker.start_and_load(self._stop_requested)
        self._overlay_worker = Worker(
            'posenet_overlay', self._overlays, self._draw, self._report_unexpected
        )
        self._overlay_worker.start()
        self._in_spinning_thread(lambda: self._make_topics(topics))
        # What is there now stays. Looking through all of it for garbage would stop every thread
        # for 0.1 s, in the middle of a frame.
        gc.collect()
        gc.freeze()
        self.get_logger().info(
            f'{config.architecture} {config.multiplier:g} at stride {config.output_stride}, input '
            f'{net.input_width} x {net.input_height}, {net.backend.precision} with '
            f'{net.backend.name} on {net.backend.device}: ready in '
            f'{time.monotonic() - started:.1f} s'
        )
        self.get_logger().debug(f'{net.backend.name}: {net.backend_reason}')

    def _make_topics(self, topics: dict[str, CameraTopics]) -> None:
        """What is published, of each camera, and of the model."""
        assert self._net is not None
        values = self._values
        for name in topics:
            self._cameras[name] = Camera(self, name, topics[name], values['lazy'])
        if values['lazy']:
            self._demand_timer = self.create_timer(
                DEMAND_SECONDS, self._follow_demand, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._model_info = self.create_publisher(
            ModelInfo, '~/model_info', latched, event_callbacks=no_events()
        )
        self._model_info.publish(model_info(self._net))

    def _camera_topics(self, names: list[str]) -> dict[str, CameraTopics]:
        """What each camera is read from.

        Raises:
            ConfigError: the names or topics make no sense.
        """
        good = all(name == '' or CAMERA_NAME.fullmatch(name) for name in names)
        if not good or not names or len(set(names)) != len(names):
            raise ConfigError(
                f'Invalid cameras {names}. Should be one name or more, all different, of letters, '
                'digits and _ that begin with a letter'
            )
        values = self._values
        return {
            name: camera_topics(
                self,
                name,
                values['image_topic'],
                values['camera_info_topic'],
                values['image_transport'],
                len(names) == 1,
            )
            for name in names
        }

    def _pause(self) -> None:
        self._active = False
        self._in_spinning_thread(self._unsubscribe)
        self._discard_waiting('deactivated')
        self._clear_overlays()

    def _unsubscribe(self) -> None:
        for camera in self._cameras.values():
            camera.unsubscribe()

    def _clear_overlays(self) -> None:
        self._overlays.clear()
        for camera in self._cameras.values():
            camera.clear_markers()

    def _discard_waiting(self, reason: str) -> None:
        for name in self._frames.clear():
            self._cameras[name].statistics.image_dropped(reason)

    def _release(self) -> None:
        """Frees everything that configure made, in whatever state it was left."""
        self._pause()
        if self._net is not None:
            gc.unfreeze()
        if self._model_worker is not None:
            if not self._model_worker.stop(STOP_SECONDS):
                self._hanging_worker = self._model_worker
            self._model_worker = None
        if self._overlay_worker is not None:
            self._overlay_worker.stop()
            self._overlay_worker = None
        self._net = None
        self._failure = ''
        self._in_spinning_thread(self._give_up_topics)

    def _give_up_topics(self) -> None:
        if self._demand_timer is not None:
            self.destroy_timer(self._demand_timer)
            self._demand_timer = None
        for camera in self._cameras.values():
            camera.destroy()
        self._cameras = {}
        if self._model_info is not None:
            self.destroy_publisher(self._model_info)
            self._model_info = None

    # Images in: the executor's thread.

    def _on_image(self, camera: Camera, message: Received) -> None:
        if self._frames.put(camera.name, message):
            camera.statistics.image_dropped('newer image came')

    # Poses out: the model's thread.

    def _process(self, net: PoseNet, frames: dict[str, Received]) -> None:
        started = time.perf_counter()
        cameras, headers, images = [], [], []
        for name, message in frames.items():
            camera = self._cameras[name]
            try:
                header, image = camera.read(message)
            except ImageError as error:
                self._drop(camera, 'broken image', error)
                continue
            cameras.append(camera)
            headers.append(header)
            images.append(image)
        if not images:
            return
        converted = time.perf_counter()
        try:
            results = net.estimate(images, self._decoder)
        except BackendError as error:
            # The node stays as it is and tries again with the next image: memory may come back.
            self._failure = str(error)
            for camera in cameras:
                self._drop(camera, 'inference failed', error)
            return
        except Exception:  # told by the worker
            for camera in cameras:
                camera.statistics.image_dropped('unexpected error')
            raise
        self._failure = ''
        times = net.stage_times
        values = self._values
        for camera, header, image, found in zip(cameras, headers, images, results, strict=True):
            if not self._active:
                camera.statistics.image_dropped('deactivated')
                continue
            publishing = time.perf_counter()
            poses = found
            if values['min_published_pose_score'] or values['min_published_keypoint_score']:
                poses = [
                    pose
                    for pose in found
                    if pose.score >= values['min_published_pose_score']
                    and pose.keypoint_scores.max() >= values['min_published_keypoint_score']
                ]
            camera.publish_poses(header, image, poses)
            published = time.perf_counter()
            stages = {
                'convert': converted - started,
                'preprocess': times.preprocess,
                'inference': times.inference,
                'decode': times.decode,
                'publish': published - publishing,
            }
            latency = self._latency(camera, header, times.inference)
            camera.statistics.image_processed(len(poses), {**latency, **stages})
            if camera.overlays_wanted():
                self._overlays.put(camera.name, Overlay(header, image, found))

    def _latency(self, camera: Camera, header: Header, inference: float) -> dict[str, float]:
        """Seconds since the stamp; nothing where the stamp or the clock tells no time."""
        stamp = header.stamp.sec + header.stamp.nanosec / 1e9
        now = self.get_clock().now().nanoseconds / 1e9
        if stamp <= 0 or now <= 0:
            return {}
        latency = now - stamp
        ahead = MOST_AHEAD_SIMULATED if self.get_parameter('use_sim_time').value else MOST_AHEAD
        if -ahead <= latency <= MOST_LATENCY + 3 * inference:
            camera.statistics.stamped_by_another_clock(None)
            return {'latency': latency}
        camera.statistics.stamped_by_another_clock(latency)
        return {}

    def _drop(self, camera: Camera, reason: str, error: PoseNetError) -> None:
        """Counts a frame that is lost, and says why; the same reason not all the time."""
        count = camera.statistics.image_dropped(reason)
        now = time.monotonic()
        warned = {key: at for key, at in self._warned.items() if now - at < WARN_EVERY_SECONDS}
        key = (camera.name, str(error))
        if key not in warned and len(warned) < MAX_WARNINGS:
            warned[key] = now
            name = f'{camera.name}: ' if camera.name else ''
            self.get_logger().warning(f'{name}image dropped, {reason} ({count} so far): {error}')
        self._warned = warned

    def _report_unexpected(self, error: Exception) -> None:
        self.get_logger().error(
            f'unexpected {type(error).__name__}: {error}', throttle_duration_sec=WARN_EVERY_SECONDS
        )

    # Overlays: their own thread.

    def _draw(self, overlays: dict[str, Overlay]) -> None:
        values = self._values
        for name, overlay in overlays.items():
            if not (self._active and self._enabled):
                return
            self._cameras[name].publish_overlays(
                overlay.header,
                overlay.image,
                overlay.poses,
                min_keypoint_score=values['min_keypoint_score'],
                min_pose_score=values['min_pose_score'],
                distance=values['marker_distance'],
                plane_width=values['marker_plane_width'],
                lifetime=values['marker_lifetime'],
            )

    # Services, parameters, the report's state: the executor's thread.

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response):
        if request.data != self._enabled:
            self._enabled = request.data
            self._discard_waiting('paused')
            self._apply_enabled()
        response.success = True
        response.message = 'enabled' if self._enabled else 'paused; the model stays loaded'
        return response

    def _apply_enabled(self) -> None:
        for camera in self._cameras.values():
            camera.unsubscribe()
            if self._active and self._enabled:
                camera.subscribe(self._on_image)
        if not self._enabled:
            self._clear_overlays()

    def _follow_demand(self) -> None:
        for camera in self._cameras.values():
            camera.follow_demand()

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        return super().set_parameters(with_doubles(parameter_list, DOUBLES))

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        return super().set_parameters_atomically(with_doubles(parameter_list, DOUBLES))

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        """Takes all of a set, or refuses all of it with the reason."""
        changes = {p.name: p.value for p in parameters if p.name in SPECS}
        try:
            values = {**self._values, **checked_values(changes)}
            locked = [
                name
                for name in changes
                if SPECS[name].group not in LIVE_GROUPS
                and values[name] != self._values[name]
                and (self._model_worker is not None or self._loading_since is not None)
            ]
            if locked:
                raise ConfigError(
                    f'{", ".join(locked)} cannot change while the model is loaded; deactivate and '
                    'clean up first'
                )
            decoder = decoder_config(values)
            if self._model_worker is None and self._describes_a_model(self._values):
                # Where two values are wrong, each may be repaired alone.
                model_config(values)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._values, self._decoder = values, decoder
        return SetParametersResult(successful=True)

    @staticmethod
    def _describes_a_model(values: dict[str, Any]) -> bool:
        try:
            model_config(values)
        except ConfigError:
            return False
        return True

    def _state(self) -> NodeState:
        """For the report."""
        return NodeState(
            self._values,
            self._cameras,
            self._net,
            self._active and self._enabled,
            self._loading_since,
            self._trouble,
            self._failure,
        )
