"""Real executables as processes, and a node of the tests' own to talk to them."""

from __future__ import annotations

import array
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from goldens import ROOT
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from posenet_ros.core.keypoints import MIN_POSE_SCORE

NODE = '/posenet_node'
# Cyclone DDS counts publishers and subscribers of before, too.
counts_endpoints = pytest.mark.skipif(
    os.environ.get('RMW_IMPLEMENTATION') == 'rmw_cyclonedds_cpp',
    reason='Cyclone DDS counts endpoints that are gone',
)


class Process:
    """A real executable of the package, with its output kept."""

    def __init__(self, name: str, *arguments: str, environment: dict[str, str] | None = None):
        found = shutil.which(name)
        here = [ROOT / folder / name for folder in ('scripts', 'examples')]
        command = [found] if found else [sys.executable, *map(str, filter(Path.is_file, here))]
        self.output = ''
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, 'PYTHONUNBUFFERED': '1', **(environment or {})},
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output += line

    def running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, text: str, timeout: float = 60) -> None:
        wait_until(lambda: text in self.output or not self.running(), timeout)
        assert text in self.output, f'{text!r} is not in:\n{self.output}'

    def stop(self, signal_number: int = signal.SIGINT, timeout: float = 15) -> int:
        """Sends a signal, and returns the exit status."""
        if self.running():
            self._process.send_signal(signal_number)
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f'did not end on signal {signal_number}:\n{self.output}') from None
        self._reader.join(5)
        return status


def wait_until(condition: Callable[[], bool], timeout: float = 30) -> bool:
    """Polls a condition. Returns whether it came true in time."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Peer(Node):
    """The tests' own node: publishes, subscribes and calls, and spins while it waits."""

    def __init__(self) -> None:
        super().__init__(f'peer_{random.randrange(10**9)}')
        self.executor_ = SingleThreadedExecutor()
        self.executor_.add_node(self)

    def collect(self, kind: type, topic: str, qos=10) -> list:
        """A list that fills with what comes on a topic."""
        messages: list = []
        self.create_subscription(kind, topic, messages.append, qos)
        return messages

    def spin_until(self, condition: Callable[[], bool], timeout: float = 30) -> bool:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.executor_.spin_once(timeout_sec=0.02)
        return True

    def spin_for(self, seconds: float) -> None:
        self.spin_until(lambda: False, seconds)

    def call(self, kind: type, service: str, request, timeout: float = 30, tries: int = 1):
        """Calls a service, and tries again if a response is lost.

        With rmw_fastrtps it is, if the server discovers this client too late. Only calls that
        change nothing may be tried again.
        """
        client = self.create_client(kind, service)
        try:
            assert self.spin_until(client.service_is_ready, timeout), f'no service {service}'
            for _ in range(tries):
                future = client.call_async(request)
                if self.spin_until(future.done, timeout / tries):
                    return future.result()
            raise AssertionError(f'{service} does not answer')
        finally:
            self.destroy_client(client)

    def close(self) -> None:
        self.executor_.shutdown()
        self.destroy_node()


def as_image(pixels: np.ndarray, encoding: str = 'rgb8', frame_id: str = 'camera') -> Image:
    """A message of contiguous pixels."""
    return Image(
        header=Header(frame_id=frame_id),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        step=pixels.nbytes // pixels.shape[0],
        data=array.array('B', pixels.tobytes()),
    )


def yaml(value) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


class Camera:
    """The tests' camera: publishes images, and waits until the node listens."""

    def __init__(self, peer, topic='image_raw', kind=Image, reliability='best_effort', depth=5):
        self.peer, self.sent = peer, 0
        qos = QoSProfile(depth=depth, reliability=ReliabilityPolicy[reliability.upper()])
        self.publisher = peer.create_publisher(kind, topic, qos)

    def wait_for_node(self, timeout=30):
        assert self.peer.spin_until(lambda: self.publisher.get_subscription_count() > 0, timeout)

    def send(self, message):
        self.sent += 1
        message.header.stamp = self.peer.get_clock().now().to_msg()
        self.publisher.publish(message)
        return message.header

    def send_until(self, message, condition, timeout=30, period=0.03):
        """Keeps sending until a condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, 'it never came true'
            self.send(message)
            self.peer.spin_for(period)


def clear_people(message):
    return [person for person in message.poses if person.score >= MIN_POSE_SCORE]


def parameter(name, value):
    kinds = {bool: (1, 'bool_value'), int: (2, 'integer_value'), float: (3, 'double_value'),
             str: (4, 'string_value')}  # fmt: skip
    kind, field = kinds[type(value)]
    return Parameter(name=name, value=ParameterValue(type=kind, **{field: value}))


def change_state(peer, transition):
    request = ChangeState.Request(transition=Transition(id=transition))
    return peer.call(ChangeState, f'{NODE}/change_state', request).success


def state(peer):
    response = peer.call(GetState, f'{NODE}/get_state', GetState.Request(), tries=3)
    return response.current_state.id


def set_parameters(peer, **values):
    request = SetParametersAtomically.Request(
        parameters=[parameter(name, value) for name, value in values.items()]
    )
    # Setting the same values again gives the same answer.
    service = f'{NODE}/set_parameters_atomically'
    return peer.call(SetParametersAtomically, service, request, tries=3).result


def collect_status(peer):
    found = []
    peer.create_subscription(
        DiagnosticArray,
        '/diagnostics',
        lambda message: found.extend(s for s in message.status if 'posenet' in s.name),
        10,
    )
    return found


def values_of(status):
    return {pair.key: pair.value for pair in status.values}
