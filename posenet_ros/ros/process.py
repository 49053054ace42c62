"""Runs a node as a process that ends cleanly, whenever and however often it is told to."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from posenet_ros.errors import PoseNetError

NodeType = TypeVar('NodeType', bound=Node)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """SIGINT or SIGTERM, as an event instead of an exception.

    The signals are blocked in every thread, and one thread waits for them. So none can strike in
    the middle of something: not in a callback, and not in the clean-up that an earlier one began.
    """

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        self._requested = threading.Event()
        self.future: Future = Future()
        threading.Thread(target=self._wait, name='signals', daemon=True).start()

    def _wait(self) -> None:
        while True:
            signal.sigwait(STOP_SIGNALS)
            self.request()

    def request(self) -> None:
        """Ends the process as a signal would."""
        self._requested.set()
        # This wakes the executor, which may be on its way down already.
        with contextlib.suppress(Exception):
            self.future.set_result(None)

    def requested(self) -> bool:
        return self._requested.is_set()


def run_node(
    make_node: Callable[[Stop], NodeType], started: Callable[[NodeType], None] = lambda node: None
) -> int:
    """Spins a node until a signal, and takes everything down in order.

    Args:
        make_node: makes the node.
        started: called with the node before it spins.

    Returns:
        The exit status: 0, or 1 if the node could not be made.
    """
    stop = Stop()
    try:
        rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # an argument or a params file that ROS cannot read
        print(f'{sys.argv[0].rsplit("/", 1)[-1]}: {error}', file=sys.stderr)
        return 1
    try:
        node = make_node(stop)
    except PoseNetError as error:
        rclpy.logging.get_logger('posenet_ros').fatal(str(error))
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    started(node)
    if not stop.requested():
        executor.spin_until_future_complete(stop.future)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    if not getattr(node, 'stopped_cleanly', True):
        # A thread still loads a model. Its cache writes are atomic: leaving it is safe. What ROS
        # holds is given back first, or Fast DDS's shared memory would stay behind.
        del node, executor
        gc.collect()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0
