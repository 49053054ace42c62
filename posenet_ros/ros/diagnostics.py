"""/diagnostics, once a second: rates, drops, latencies and problems; problems are logged too."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode

from posenet_ros.estimator import PoseNet
from posenet_ros.ros.camera import Camera
from posenet_ros.ros.messages import describe_input
from posenet_ros.ros.pipeline import Hang
from posenet_ros.ros.publishing import no_events
from posenet_ros.ros.statistics import Window
from posenet_ros.ros.topics import loss_advice, why_no_image

PERIOD_SECONDS = 1.0


@dataclass(frozen=True)
class NodeState:
    """The state of the node at one moment."""

    values: Mapping[str, Any]  # of the parameters
    cameras: Mapping[str, Camera]
    net: PoseNet | None
    running: bool  # active, and not paused
    loading_since: float | None  # time.monotonic()
    transition_error: str  # of the last transition; empty if it succeeded
    inference_error: str  # of the last batch; empty if it succeeded
    hang: Hang | None


class Diagnostics:
    """Publishes a status for each camera, in every state of the node.

    Args:
        node: that publishes.
        state: returns its state now.
    """

    def __init__(self, node: LifecycleNode, state: Callable[[], NodeState]) -> None:
        self._node = node
        self._state = state
        self._no_image: dict[str, str] = {}  # camera -> the reason that was logged last
        self._warned: set[str] = set()  # problems that were logged
        self._hanging = False
        self._publisher = node.create_publisher(
            DiagnosticArray, '/diagnostics', 10, event_callbacks=no_events()
        )
        # In real time: simulated time may stand still.
        node.create_timer(
            PERIOD_SECONDS, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def warn_once(self, problem: str, text: str) -> None:
        """Logs a lasting problem when it is first seen."""
        if problem not in self._warned:
            self._warned.add(problem)
            self._node.get_logger().warning(text)

    def _publish(self) -> None:
        state = self._state()
        self._log_hang(state.hang)
        message = DiagnosticArray(status=self._statuses(state))
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _log_hang(self, hang: Hang | None) -> None:
        """Logs when the model begins to hang, and when it runs again."""
        if hang is not None and not self._hanging:
            self._node.get_logger().error(str(hang))
        elif hang is None and self._hanging:
            self._node.get_logger().info('the model does not hang any more')
        self._hanging = hang is not None

    def _statuses(self, state: NodeState) -> list[DiagnosticStatus]:
        net = state.net
        if state.loading_since is not None:
            seconds = time.monotonic() - state.loading_since
            level, message = DiagnosticStatus.WARN, f'loading the model ({seconds:.0f} s)'
        elif state.transition_error:
            level, message = DiagnosticStatus.ERROR, state.transition_error
        elif state.hang is not None and state.hang.abandoned:
            level, message = DiagnosticStatus.ERROR, str(state.hang)
        elif net is None or not state.cameras:
            level, message = DiagnosticStatus.OK, 'no model is loaded'
        else:
            problems = self._graph_problems() if state.running else []
            return [
                self._camera_status(camera, net, state, problems)
                for camera in state.cameras.values()
            ]
        cameras = state.values['cameras'] or ['']
        return [status(self._status_name(name), '', level, message, {}) for name in cameras]

    def _camera_status(
        self, camera: Camera, net: PoseNet, state: NodeState, problems: list[str]
    ) -> DiagnosticStatus:
        window = camera.statistics.start_window()
        if window.clock_offset is not None:
            text = _of(camera, clock_problem(window.clock_offset))
            self.warn_once(f'clock of {camera.name}', text)
        reads = state.running and camera.subscribed
        result = camera_status(
            self._status_name(camera.name),
            net.backend.device,
            window,
            reads,
            state.values,
            {
                'backend': f'{net.backend.name} ({net.backend_reason})',
                'precision': net.backend.precision,
                'model': f'{net.config.architecture} {net.config.multiplier:g} '
                f'stride {net.config.output_stride}',
                'input': describe_input(net.config),
            },
            str(state.hang or '') or inference_problem(state.inference_error),
            self._why_no_image(camera, window, state) if reads else '',
            'idle: nobody subscribes' if state.running else 'paused',
        )
        if problems:
            result.level = max(result.level, DiagnosticStatus.WARN)
            result.message = '; '.join([result.message, *problems])
        return result

    def _status_name(self, camera: str) -> str:
        node = self._node.get_fully_qualified_name().lstrip('/')
        return f'{node}: {camera}' if camera else node

    def _why_no_image(self, camera: Camera, window: Window, state: NodeState) -> str:
        """Why no image came for too long; logged when that begins or changes."""
        if window.waiting <= max(state.values['image_timeout'], PERIOD_SECONDS):
            self._no_image.pop(camera.name, None)
            return ''
        reason = why_no_image(self._node, camera.image_topic, camera.topics.image_type)
        if self._no_image.get(camera.name) != reason:
            self._no_image[camera.name] = reason
            text = f'no image for {window.waiting:.1f} s: {reason}'
            self._node.get_logger().warning(_of(camera, text))
        return reason

    def _graph_problems(self) -> list[str]:
        """Problems with other nodes and the clock, logged once."""
        node = self._node
        problems = []
        own = node.get_name(), node.get_namespace()
        count = node.get_node_names_and_namespaces().count(own)
        if count > 1:
            problems.append(
                f'{count} nodes have the name {node.get_fully_qualified_name()}: services and '
                'parameters reach one of them'
            )
        if node.get_parameter('use_sim_time').value and node.get_clock().now().nanoseconds == 0:
            problems.append('use_sim_time is set, and nobody publishes /clock')
        for problem in problems:
            self.warn_once(problem, problem)
        return problems


def _of(camera: Camera, text: str) -> str:
    return f'{camera.name}: {text}' if camera.name else text


def clock_problem(offset: float) -> str:
    """Describes the problem of stamps that come from another clock than the node's.

    Args:
        offset: now minus stamp in seconds; negative if the stamps are ahead.
    """
    if offset < 0:
        return f"stamps {-offset:.1f} s ahead of this node's clock: they are by another clock"
    return (
        f"stamps {offset:.1f} s behind this node's clock: the camera has a clock of its own, or a "
        'bag is played without use_sim_time'
    )


def inference_problem(error: str) -> str:
    """Describes why the last batch failed; empty if it succeeded."""
    return f'inference fails: {error}' if error else ''


def camera_status(
    name: str,
    hardware_id: str,
    window: Window,
    active: bool,
    thresholds: Mapping[str, Any],
    model: Mapping[str, str],
    model_problem: str = '',
    no_image_reason: str = '',
    resting: str = 'paused',
) -> DiagnosticStatus:
    """One camera's status while the model is loaded.

    Args:
        name: of the status.
        hardware_id: what the model runs on.
        window: what the camera did since the last status.
        active: whether images are expected.
        thresholds: the parameters of the group diagnostics.
        model: values that describe the model.
        model_problem: why the last batch has no poses; empty if it has.
        no_image_reason: why no image comes, if that is known.
        resting: why no images are expected, if they are not.
    """
    problems: list[tuple[bytes, str]] = []
    latencies = window.samples.get('latency', [])
    p95 = float(np.percentile(latencies, 95)) if latencies else 0.0
    if active and model_problem:
        problems.append((DiagnosticStatus.ERROR, model_problem))
    if active:
        age = window.last_image_age
        reason = f': {no_image_reason}' if no_image_reason else ''
        if age is None and window.waiting > thresholds['image_timeout']:
            problems.append((DiagnosticStatus.WARN, f'no image has come yet{reason}'))
        elif age is not None and age > thresholds['image_timeout']:
            problems.append((DiagnosticStatus.WARN, f'no image for {age:.1f} s{reason}'))
        if window.clock_offset is not None:
            problems.append((DiagnosticStatus.WARN, clock_problem(window.clock_offset)))
        elif p95 > thresholds['latency_error']:
            problems.append((DiagnosticStatus.ERROR, f'latency {p95:.3f} s'))
        elif p95 > thresholds['latency_warn']:
            problems.append((DiagnosticStatus.WARN, f'latency {p95:.3f} s'))
        ended = window.processed + window.dropped_now
        if ended and window.dropped_now / ended > thresholds['drop_ratio_warn']:
            text = f'{window.dropped_now} of {ended} images dropped'
            problems.append((DiagnosticStatus.WARN, text))
        sent = window.received + window.lost_now
        if sent and window.lost_now / sent > thresholds['drop_ratio_warn']:
            text = f'{window.lost_now} of {sent} images lost before the node{loss_advice()}'
            problems.append((DiagnosticStatus.WARN, text))
    level = max((level for level, _ in problems), default=DiagnosticStatus.OK)
    normal = 'running' if window.last_image_age is not None else 'waiting for the first image'
    message = '; '.join(text for _, text in problems) or (normal if active else resting)
    values = {
        'rate in (Hz)': f'{window.received / window.seconds:.1f}',
        'rate out (Hz)': f'{window.processed / window.seconds:.1f}',
        'people': str(window.people if window.processed else 0),
        # Since the start: received = processed + dropped + left out + waiting.
        'received': str(window.total_received),
        'processed': str(window.total_processed),
        'dropped': str(sum(window.dropped.values())),
        'left out by max_rate': str(window.left_out),
        'waiting': str(window.frames_waiting),
        'damaged': str(window.damaged),
        'lost before the node': 'not counted' if window.lost is None else str(window.lost),
    }
    if window.tracked is not None:
        tracked, births, deaths = window.tracked
        values['people tracked'] = str(tracked)
        values['ids given / ended'] = f'{births} / {deaths}'
    values['whole images (Hz)'] = f'{window.whole_images / window.seconds:.1f}'
    values['close-ups (Hz)'] = f'{window.closeups / window.seconds:.1f}'
    if window.with_depth or window.without_depth:
        values['frames with / without depth'] = f'{window.with_depth} / {window.without_depth}'
    if window.depth_problem:
        values['last problem with depth'] = window.depth_problem
    values.update((f'dropped: {reason}', str(n)) for reason, n in sorted(window.dropped.items()))
    if window.last_problem:
        values['last problem'] = window.last_problem
    for stage, seconds in window.samples.items():
        p50, p95, worst = np.percentile(seconds, [50, 95, 100]) * 1000
        values[f'{stage} p50/p95/max (ms)'] = f'{p50:.1f} / {p95:.1f} / {worst:.1f}'
    return status(name, hardware_id, level, message, {**values, **model})


def status(
    name: str, hardware_id: str, level: bytes, message: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    pairs: Sequence[KeyValue] = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id=hardware_id, values=pairs
    )
