"""The node: a lifecycle node around PoseNet. What happens to a frame is in pipeline.py."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.timer import Timer
from std_srvs.srv import SetBool, Trigger

from posenet_ros.config import ModelConfig, RuntimeConfig
from posenet_ros.errors import ConfigError, PoseNetError, in_words, quoted
from posenet_ros.estimator import PoseNet
from posenet_ros.msg import ModelInfo
from posenet_ros.ros.bridges import PACKAGES, bridge_classes, open_bridges
from posenet_ros.ros.bridges.bridge import Bridge
from posenet_ros.ros.camera import Camera
from posenet_ros.ros.diagnostics import Diagnostics, NodeState
from posenet_ros.ros.executor import BackgroundExecutor
from posenet_ros.ros.lifting import broadcaster_class
from posenet_ros.ros.log import forward_log, stop_forwarding
from posenet_ros.ros.messages import describe_input, model_info, pose_array
from posenet_ros.ros.node_parameters import NodeParameters, with_doubles
from posenet_ros.ros.parameters import model_config, model_parameters, runtime_config
from posenet_ros.ros.pipeline import Pipeline
from posenet_ros.ros.publishing import LATCHED_QOS, no_events
from posenet_ros.ros.security import keys_advice
from posenet_ros.ros.topics import (
    CAMERA_NAME,
    CameraTopics,
    DepthTopics,
    camera_topics,
    depth_topics,
)
from posenet_ros.ros.unused_arguments import unused_parameters, unused_qos_overrides
from posenet_ros.srv import Estimate, SetModel

ChangeStateCallback: TypeAlias = (
    'Callable[[ChangeState.Request, ChangeState.Response], ChangeState.Response]'
)

DEMAND_PERIOD_SECONDS = 0.2  # how often subscribers are counted


class PoseNetNode(LifecycleNode):
    """Unconfigured: parameters only. Inactive: a loaded model. Active: images become poses.

    Under BackgroundExecutor transitions run in a second thread, so that services answer while a
    model is loaded; under other executors they run in the executor's thread. For the other threads
    see Pipeline.

    Args:
        stop_requested: whether the process should end, which cancels the loading of a model.
    """

    def __init__(
        self,
        *,
        stop_requested: Callable[[], bool] = lambda: False,
        node_name: str = 'posenet_node',
        **kwargs: Any,
    ) -> None:
        super().__init__(node_name, **kwargs)
        self._stop_requested = stop_requested
        self._active = False
        self._enabled = True
        self._loading_since: float | None = None
        self._transition_error = ''  # of the last transition
        self._demand_timer: Timer | None = None
        self._model_info: Publisher[ModelInfo] | None = None
        self._told_model_info: ModelInfo | None = None
        self._broadcaster: Any = None  # of frames, with publish_tf
        self._bridges: list[Bridge] = []

        self._log_handler = forward_log(self.get_logger())
        self._node_parameters = NodeParameters(self._model_is_loaded, self._publish_model_info)
        self._pipeline = Pipeline(self, self._node_parameters)
        self._node_parameters.declare(self)
        self._diagnostics = Diagnostics(self, self._state)
        self._enable_service = self.create_service(SetBool, '~/enable', self._on_enable)
        self._reset_service = self.create_service(
            Trigger, '~/reset_tracker', self._on_reset_tracker
        )
        self._set_model_service = self.create_service(
            SetModel, '~/set_model', self._on_set_model,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )  # fmt: skip
        self._estimate_service = self.create_service(
            # one request at a time, so that others wait in the middleware, which bounds them
            Estimate, '~/estimate', self._on_estimate,
            callback_group=MutuallyExclusiveCallbackGroup(),
        )  # fmt: skip
        self._warn_of_unused_parameters()
        transitions = [
            service for service in self.services if service.srv_name.endswith('/change_state')
        ]
        for service in transitions:
            service.callback_group = ReentrantCallbackGroup()
            service.callback = self._with_answer(service.callback)
        # For BackgroundExecutor: loading a model takes seconds, and images wait for their turn.
        self.background_services = {
            **dict.fromkeys(transitions, 'transitions'),
            self._set_model_service: 'models',
            self._estimate_service: 'estimates',
        }

    def destroy_node(self) -> None:
        self._release()
        stop_forwarding(self._log_handler)
        super().destroy_node()

    @property
    def stopped_cleanly(self) -> bool:
        """False while the thread of a hanging model still runs."""
        return self._pipeline.stopped_cleanly

    # Lifecycle.

    def autostart(self) -> None:
        """Configures and activates, if the parameter autostart is set."""
        if (
            self._node_parameters.values['autostart']
            and self.trigger_configure() == TransitionCallbackReturn.SUCCESS
        ):
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt('configure', self._configure, undo=self._release)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt('activate', self._activate, undo=self._deactivate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._deactivate()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._transition_error = ''
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self.get_logger().error(f'an error while {state.label}; the node is unconfigured again')
        return TransitionCallbackReturn.SUCCESS

    def _attempt(
        self, name: str, step: Callable[[], None], undo: Callable[[], None]
    ) -> TransitionCallbackReturn:
        """Runs a step. One of our own errors fails the transition; any other leads to on_error."""
        self._transition_error = ''
        try:
            step()
        except Exception as error:  # rclpy would not log it
            expected = isinstance(error, PoseNetError)
            self._transition_error = _told(error)
            if isinstance(error, RuntimeError):  # RCLError is one
                self._transition_error += keys_advice()
            if self._stop_requested():
                self.get_logger().info(self._transition_error)
            else:
                self.get_logger().error(f'cannot {name}: {self._transition_error}')
            if not expected:
                return TransitionCallbackReturn.ERROR
            undo()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _with_answer(self, change_state: ChangeStateCallback) -> ChangeStateCallback:
        """Wraps the service: an invalid transition gets an answer in Humble and Jazzy too."""

        def answer(
            request: ChangeState.Request, response: ChangeState.Response
        ) -> ChangeState.Response:
            try:
                return change_state(request, response)
            except Exception as error:  # Kilted logs it instead
                self.get_logger().error(f'cannot change the state: {error}')
                response.success = False
                return response

        return answer

    # Configure and clean up: the model and the topics.

    def _configure(self) -> None:
        started = self._loading_since = time.monotonic()  # locks the model's parameters
        try:
            values = self._node_parameters.values
            config, runtime = model_config(values), runtime_config(values)
            topics = self._camera_topics(values)
            self._in_spinning_thread(lambda: self._node_parameters.declare_of_cameras(self))
            depth = self._depth_topics(values)
            if values['publish_tf']:
                if values['lift'] == 'off':
                    raise ConfigError('Invalid publish_tf True. It needs lift, size or depth')
                broadcaster_class()  # may raise, before the model is loaded
            self._check_bridges(values)
            net = self._pipeline.start(_loader(config, runtime, len(topics)), self._stop_requested)
            self._in_spinning_thread(lambda: self._create_topics(topics, depth))
        finally:
            self._loading_since = None
        # Long-lived objects are excluded from garbage collection: a full collection stops every
        # thread for 0.1 s, in the middle of a frame.
        gc.collect()
        gc.freeze()
        cameras = self._pipeline.cameras.values()
        rests = _is_lazy(self._node_parameters.values) and not any(c.wanted() for c in cameras)
        idle = '; idle until somebody subscribes, to ~/poses for example' if rests else ''
        seconds = time.monotonic() - started
        self.get_logger().info(f'{_described(net)}: ready in {seconds:.1f} s{idle}')
        self.get_logger().debug(f'{net.backend.name}: {net.backend_reason}')

    def _release(self) -> None:
        """Frees everything that configure has created so far."""
        self._deactivate()
        if self._pipeline.net is not None:
            gc.unfreeze()
        self._pipeline.stop()
        self._in_spinning_thread(self._destroy_topics)

    def _camera_topics(self, values: Mapping[str, Any]) -> dict[str, CameraTopics]:
        """The topics to read, by camera.

        Raises:
            ConfigError: a name or a topic is not allowed.
        """
        names = values['cameras']
        valid = all(name == '' or CAMERA_NAME.fullmatch(name) for name in names)
        if not valid or not names or len(set(names)) != len(names):
            raise ConfigError(
                f'Invalid cameras {quoted(names)}. Should be one name or more, all different, of '
                'letters, digits and _ that begin with a letter'
            )
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

    def _depth_topics(self, values: Mapping[str, Any]) -> dict[str, DepthTopics]:
        """The depth topics to read, by camera; empty without depth.

        Raises:
            ConfigError: a topic is not allowed.
        """
        if values['lift'] != 'depth':
            return {}
        names = values['cameras']
        return {
            name: depth_topics(
                self,
                name,
                values['depth_topic'],
                values['depth_camera_info_topic'],
                values['depth_transport'],
                len(names) == 1,
            )
            for name in names
        }

    @staticmethod
    def _check_bridges(values: Mapping[str, Any]) -> None:
        """Whether there can be bridges, before the model is loaded.

        Raises:
            ConfigError: a bridge is not known, or its package is not installed.
        """
        names = _bridge_names(values)
        if len(set(names)) != len(names) or not set(names) <= PACKAGES.keys():
            raise ConfigError(
                f'Invalid bridges {quoted(", ".join(names))}. Should be some of '
                f'{", ".join(PACKAGES)}, each once'
            )
        if 'humans' in names and not (values['tracking'] or values['attention'] == 'people'):
            raise ConfigError('Invalid bridges humans. It needs tracking')
        bridge_classes(names)

    def _create_topics(
        self, topics: dict[str, CameraTopics], depth: dict[str, DepthTopics]
    ) -> None:
        values = self._node_parameters.values
        lazy = _is_lazy(values)
        self._bridges = open_bridges(_bridge_names(values), self, list(topics))
        for name in topics:
            self._pipeline.cameras[name] = Camera(
                self, name, topics[name], depth.get(name), self._bridges, lazy, values
            )
        if lazy:
            self._demand_timer = self.create_timer(
                DEMAND_PERIOD_SECONDS,
                self._follow_demand,
                clock=Clock(clock_type=ClockType.STEADY_TIME),
            )
        self._model_info = self.create_publisher(
            ModelInfo, '~/model_info', LATCHED_QOS, event_callbacks=no_events()
        )
        self._publish_model_info()
        lifting = self._pipeline.lifting
        if values['publish_tf'] and lifting is not None:
            self._broadcaster = lifting.broadcaster = broadcaster_class()(self)

    def _publish_model_info(self) -> None:
        net, values = self._pipeline.net, self._node_parameters.values
        if self._model_info is not None and net is not None:
            info = model_info(net, values['tracking'], values['smoothing'])
            if info != self._told_model_info:
                self._model_info.publish(info)
            self._told_model_info = info

    def _destroy_topics(self) -> None:
        if self._demand_timer is not None:
            self.destroy_timer(self._demand_timer)
            self._demand_timer = None
        for camera in self._pipeline.cameras.values():
            camera.destroy()
        self._pipeline.cameras = {}
        for bridge in self._bridges:
            bridge.destroy()
        self._bridges = []
        if self._broadcaster is not None:
            self.destroy_publisher(self._broadcaster.pub_tf)
            self._broadcaster = None
        if self._model_info is not None:
            self.destroy_publisher(self._model_info)
            self._model_info = self._told_model_info = None

    def _follow_demand(self) -> None:
        for camera in self._pipeline.cameras.values():
            camera.follow_demand()

    # Activate, pause and deactivate: the subscriptions.

    def _activate(self) -> None:
        self._active = True
        self._in_spinning_thread(self._subscribe_or_unsubscribe)
        cameras = self._pipeline.cameras.values()
        endpoints = [endpoint for camera in cameras for endpoint in camera.endpoints()]
        for warning in unused_qos_overrides(self._parameter_overrides, endpoints):
            self._diagnostics.warn_once(warning, warning)

    def _deactivate(self) -> None:
        self._active = False
        self._in_spinning_thread(self._subscribe_or_unsubscribe)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if request.data != self._enabled:
            self._enabled = request.data
            self._subscribe_or_unsubscribe()
        response.success = True
        response.message = 'enabled' if self._enabled else 'paused; the model stays loaded'
        return response

    def _on_reset_tracker(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._pipeline.reset_trackers()
        response.success = True
        response.message = 'everybody gets a new track_id'
        return response

    # Services of the model.

    def _on_estimate(
        self, request: Estimate.Request, response: Estimate.Response
    ) -> Estimate.Response:
        try:
            answer = self._pipeline.estimate(request.image)
            response.poses = pose_array(answer.header, answer.width, answer.height, answer.poses)
            response.success = True
        except Exception as error:  # also what nobody has foreseen: the client waits
            response.message = _told(error)
        return response

    def _on_set_model(
        self, request: SetModel.Request, response: SetModel.Response
    ) -> SetModel.Response:
        try:
            response.message = self._set_model(request.parameters)
            response.success = True
        except Exception as error:
            response.message = _told(error)
            self.get_logger().error(f'the model stays as it was: {response.message}')
        return response

    def _set_model(self, text: str) -> str:
        """Loads another model, while the old one goes on. Returns what it is."""
        changes = model_parameters(text)
        values = {**self._node_parameters.values, **changes}
        config, runtime = model_config(values), runtime_config(values)

        def accept() -> None:
            parameters = [Parameter(name, value=value) for name, value in changes.items()]
            with self._node_parameters.unlocked():
                result = self.set_parameters_atomically(parameters)
            if not result.successful:
                raise ConfigError(result.reason)

        cameras = len(self._pipeline.cameras)
        loader = _loader(config, runtime, cameras)
        net = self._pipeline.replace(loader, self._stop_requested, accept)
        self._publish_model_info()
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self.get_logger().info(f'now {_described(net)}')
        return _described(net)

    def _subscribe_or_unsubscribe(self) -> None:
        running = self._active and self._enabled
        if running:
            self._pipeline.resume()
        else:
            self._pipeline.rest('paused' if self._active else 'deactivated')
        for camera in self._pipeline.cameras.values():
            camera.unsubscribe()
            if running:
                lifting = self._pipeline.lifting
                camera.subscribe(self._pipeline.put, lifting.put_depth if lifting else None)

    def _in_spinning_thread(self, work: Callable[[], None]) -> None:
        """Creates or destroys entities that the executor waits on."""
        if isinstance(self.executor, BackgroundExecutor):
            self.executor.in_spinning_thread(work)
        else:
            work()

    # Parameters and diagnostics.

    def set_parameters(self, parameter_list: list[Parameter[Any]]) -> list[SetParametersResult]:
        return super().set_parameters(with_doubles(parameter_list))

    def set_parameters_atomically(
        self, parameter_list: list[Parameter[Any]]
    ) -> SetParametersResult:
        return super().set_parameters_atomically(with_doubles(parameter_list))

    def _warn_of_unused_parameters(self) -> None:
        # rclpy has no public name for overrides that were never declared.
        declared = list(self.get_parameters_by_prefix(''))
        for warning, certain in unused_parameters(self._parameter_overrides, declared):
            if certain:
                self.get_logger().warning(warning)
            else:
                self.get_logger().info(warning)

    def _model_is_loaded(self) -> bool:
        return self._pipeline.loaded or self._loading_since is not None

    def _state(self) -> NodeState:
        return NodeState(
            self._node_parameters.values,
            self._pipeline.cameras,
            self._pipeline.net,
            self._active and self._enabled,
            self._loading_since,
            self._transition_error,
            self._pipeline.inference_error,
            self._pipeline.hang(),
        )


def _told(error: Exception) -> str:
    """One of our own errors says all by its message; any other needs its type."""
    return str(error) if isinstance(error, PoseNetError) else in_words(error)


def _loader(config: ModelConfig, runtime: RuntimeConfig, cameras: int) -> Callable[[], PoseNet]:
    max_batch = runtime.largest_batch(cameras)
    return lambda: PoseNet.load(config, max_batch=max_batch, **asdict(runtime))


def _described(net: PoseNet) -> str:
    """A model in words, for the log."""
    config, backend = net.config, net.backend
    return (
        f'{config.architecture} {config.multiplier:g} at stride {config.output_stride}, input '
        f'{describe_input(config)}, {backend.precision} with {backend.name} on {backend.device}'
    )


def _is_lazy(values: Mapping[str, Any]) -> bool:
    """Whether images are read only while somebody subscribes; of tf nobody knows who listens."""
    return bool(values['lazy'] and not values['publish_tf'])


def _bridge_names(values: Mapping[str, Any]) -> list[str]:
    return [name for name in values['bridges'] if name]  # an empty list of ROS has no type
