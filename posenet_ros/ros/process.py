"""Runs a node as a process that ends cleanly on signals, at any time."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rclpy.utilities import remove_ros_args

from posenet_ros.errors import PoseNetError, printable
from posenet_ros.ros.executor import BackgroundExecutor
from posenet_ros.ros.security import keys_advice, keystore_advice
from posenet_ros.ros.unused_arguments import in_one_sentence, sections_for_others

NodeType = TypeVar('NodeType', bound=Node)


def stop_signals() -> set[signal.Signals]:
    """The signals that end a process: SIGINT, SIGTERM, and SIGHUP unless nohup ignores it."""
    signals = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.add(signal.SIGHUP)
    return signals


class Stop:
    """SIGHUP, SIGINT and SIGTERM as an event instead of an exception.

    They are blocked in every thread, and one thread waits for them. So no KeyboardInterrupt can
    occur in a callback, or in the clean-up after an earlier signal.
    """

    def __init__(self) -> None:
        self._signals = stop_signals()
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        self._requested = threading.Event()
        self.future: Future[None] = Future()
        threading.Thread(target=self._wait, name='signals', daemon=True).start()

    def _wait(self) -> None:
        while True:
            signal.sigwait(self._signals)
            self.request()

    def request(self) -> None:
        """Ends the process as a signal would."""
        self._requested.set()
        # Wakes the executor, which may be shutting down already.
        with contextlib.suppress(Exception):
            self.future.set_result(None)

    def requested(self) -> bool:
        return self._requested.is_set()


def run_node(
    make_node: Callable[[Stop], NodeType], started: Callable[[NodeType], None] = lambda node: None
) -> int:
    """Spins a node until a signal, and shuts everything down in order.

    Args:
        make_node: makes the node. Its `background_services`, if any, run in other threads.
        started: called with the node, in the second thread, once it spins.

    Returns:
        The exit status: 0, or 1 if the node could not be made.
    """
    name = Path(sys.argv[0]).name
    stop = Stop()
    try:
        left_over = remove_ros_args(sys.argv)[1:]
        if {'-h', '--help'} & set(left_over):
            print(_usage(name))
            return 0
        rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # an argument or a params file that ROS cannot read
        print(f'{name}: {in_one_sentence(error)}{keystore_advice()}', file=sys.stderr)
        return 1
    try:
        node = make_node(stop)
    except (PoseNetError, RuntimeError) as error:  # RuntimeError: of rcl, if it has no keys, say
        advice = '' if isinstance(error, PoseNetError) else keys_advice()
        rclpy.logging.get_logger('posenet_ros').fatal(printable(in_one_sentence(error) + advice))
        rclpy.try_shutdown()
        return 1
    if left_over:
        node.get_logger().warning(
            f'unknown arguments are ignored: {printable(" ".join(left_over))}; set parameters and '
            f'topics with {name} --ros-args -p NAME:=VALUE -r TOPIC:=TOPIC'
        )
    for warning in sections_for_others(sys.argv, node.get_fully_qualified_name()):
        node.get_logger().warning(warning)
    executor = BackgroundExecutor(getattr(node, 'background_services', None))
    executor.add_node(node)
    executor.in_background(lambda: started(node))

    def wake(_: Future[None]) -> None:  # Humble's executor checks the future only after a callback
        executor.create_task(lambda: None)

    stop.future.add_done_callback(wake)
    try:
        if not stop.requested():
            executor.spin_until_future_complete(stop.future)
    finally:  # also after an exception of a callback, which ends the process
        stop.request()  # cancels a load
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    if not getattr(node, 'stopped_cleanly', True):
        # A thread still loads a model. Its cache writes are atomic, so it can be abandoned. ROS is
        # freed first, or Fast DDS would leave its shared memory behind.
        del node, executor
        gc.collect()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _usage(name: str) -> str:
    return (
        f'usage: {name} --ros-args [-p PARAMETER:=VALUE] [-r TOPIC:=TOPIC] [--params-file FILE]\n\n'
        f'ros2 param describe lists the parameters of a running {name}. Those of posenet_node are\n'
        'also in config/posenet.yaml and doc/parameters.md of the package posenet_ros.'
    )
