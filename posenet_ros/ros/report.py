"""The node's report on itself, once a second: /diagnostics, and what is worth a line in the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode

from posenet_ros.estimator import PoseNet
from posenet_ros.ros.camera import Camera, no_events
from posenet_ros.ros.diagnostics import Window, camera_status, clock_problem, status
from posenet_ros.ros.topics import why_no_image

PERIOD_SECONDS = 1.0


@dataclass(frozen=True)
class NodeState:
    """What the report is about, at one moment."""

    values: Mapping[str, Any]  # of the parameters
    cameras: Mapping[str, Camera]
    net: PoseNet | None
    running: bool  # active, and not paused
    loading_since: float | None  # time.monotonic()
    trouble: str  # why the last transition failed
    failure: str  # why the last batch was not run


class Report:
    """Publishes a status for each camera, of the same name from the first second to the last.

    Args:
        node: that reports.
        state: its state now.
    """

    def __init__(self, node: LifecycleNode, state: Callable[[], NodeState]) -> None:
        self._node = node
        self._state = state
        self._no_image: dict[str, str] = {}  # by camera: why none comes, as it was told last
        self._told: set[str] = set()  # what is told only once
        self._publisher = node.create_publisher(
            DiagnosticArray, '/diagnostics', 10, event_callbacks=no_events()
        )
        # Once a second of real time, also while simulated time stands still.
        node.create_timer(
            PERIOD_SECONDS, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def tell_once(self, matter: str, text: str) -> None:
        """Warns of something that lasts, once."""
        if matter not in self._told:
            self._told.add(matter)
            self._node.get_logger().warning(text)

    def _publish(self) -> None:
        message = DiagnosticArray(status=self._statuses(self._state()))
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _statuses(self, state: NodeState) -> list[DiagnosticStatus]:
        net = state.net
        if state.loading_since is not None:
            seconds = time.monotonic() - state.loading_since
            level, message = DiagnosticStatus.WARN, f'loading the model ({seconds:.0f} s)'
        elif state.trouble:
            level, message = DiagnosticStatus.ERROR, state.trouble
        elif net is None or not state.cameras:
            level, message = DiagnosticStatus.OK, 'no model is loaded'
        else:
            around = self._troubles_around_the_node() if state.running else []
            return [
                self._camera_status(camera, net, state, around) for camera in state.cameras.values()
            ]
        cameras = state.values['cameras'] or ['']
        return [status(self._status_name(name), '', level, message, {}) for name in cameras]

    def _camera_status(
        self, camera: Camera, net: PoseNet, state: NodeState, around: list[str]
    ) -> DiagnosticStatus:
        window = camera.statistics.start_window()
        if window.clock_offset is not None:
            text = _of(camera, clock_problem(window.clock_offset))
            self.tell_once(f'clock of {camera.name}', text)
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
                f'stride {net.config.output_stride}, {net.input_width} x {net.input_height}',
            },
            state.failure,
            self._why_no_image(camera, window, state) if reads else '',
            'idle: nobody subscribes' if state.running else 'paused',
        )
        if around:
            result.level = max(result.level, DiagnosticStatus.WARN)
            result.message = '; '.join([result.message, *around])
        return result

    def _status_name(self, camera: str) -> str:
        node = self._node.get_fully_qualified_name().lstrip('/')
        return f'{node}: {camera}' if camera else node

    def _why_no_image(self, camera: Camera, window: Window, state: NodeState) -> str:
        """Why the camera gets none for too long; told in the log when that begins or changes."""
        if window.waiting <= max(state.values['image_timeout'], PERIOD_SECONDS):
            self._no_image.pop(camera.name, None)
            return ''
        reason = why_no_image(self._node, camera.image_topic, camera.topics.image_type)
        if self._no_image.get(camera.name) != reason:
            self._no_image[camera.name] = reason
            text = f'no image for {window.waiting:.1f} s: {reason}'
            self._node.get_logger().warning(_of(camera, text))
        return reason

    def _troubles_around_the_node(self) -> list[str]:
        """Of the graph and the clock; told in the log once."""
        node = self._node
        troubles = []
        own = node.get_name(), node.get_namespace()
        count = node.get_node_names_and_namespaces().count(own)
        if count > 1:
            troubles.append(
                f'{count} nodes have the name {node.get_fully_qualified_name()}: services and '
                'parameters reach one of them'
            )
        if node.get_parameter('use_sim_time').value and node.get_clock().now().nanoseconds == 0:
            troubles.append('use_sim_time is set, and nobody publishes /clock')
        for trouble in troubles:
            self.tell_once(trouble, trouble)
        return troubles


def _of(camera: Camera, text: str) -> str:
    return f'{camera.name}: {text}' if camera.name else text
