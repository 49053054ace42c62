"""The executor of our processes: callbacks in the thread that spins, transitions beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from typing import Any, TypeVar

from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger

Result = TypeVar('Result')


class BackgroundExecutor(SingleThreadedExecutor):
    """A single-threaded executor that leaves some services to a second thread.

    A transition loads a model, which takes seconds, or minutes where an engine is built. Meanwhile
    get_state, the parameters and the diagnostics are to answer. rclpy's MultiThreadedExecutor does
    that at the cost of a change of threads for each image; this one changes for transitions only.

    Args:
        background: services whose callbacks run in the second thread, one after the other. Each
            must be in a callback group of its own.
    """

    def __init__(self, background: Collection[Any] = ()) -> None:
        super().__init__()
        self._background = background
        self._second_thread = 0
        self._thread = ThreadPoolExecutor(1, 'transitions', self._remember_thread)
        self._ended = threading.Event()

    def in_background(self, work: Callable[[], None]) -> None:
        """Does some work in the second thread, after what waits for it already."""
        self._thread.submit(_reported, work)

    def in_spinning_thread(self, work: Callable[[], Result]) -> Result:
        """Does some work between two callbacks, and waits for it. Called by the second thread.

        In Humble an executor does not survive that another thread destroys what it waits on.
        """
        if threading.get_ident() != self._second_thread or self._ended.is_set():
            return work()
        future: Future[Result] = Future()

        def do() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)

        self.create_task(do)
        while not self._ended.is_set():
            try:
                return future.result(timeout=0.1)
            except NotYetError:
                if future.done():
                    return future.result()
        if future.cancel():  # nobody spins any more: here is as good a thread as that was
            return work()
        return future.result()

    def wait_for_ready_callbacks(self, *args: Any, **kwargs: Any) -> Any:
        """Hands what belongs to the second thread over to it, and returns the rest."""
        while True:
            handler, entity, node = super().wait_for_ready_callbacks(*args, **kwargs)
            if entity not in self._background:
                return handler, entity, node

            def work(handler: Any = handler) -> None:
                handler()
                if handler.done() and handler.exception() is not None:
                    raise handler.exception()

            self.in_background(work)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stops spinning, and waits for the work in the second thread."""
        self._ended.set()
        self._thread.shutdown()
        return super().shutdown(timeout_sec)

    def _remember_thread(self) -> None:
        self._second_thread = threading.get_ident()


def _reported(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:  # nobody looks at the pool's futures
        get_logger('posenet_ros').error(f'{type(error).__name__}: {error}')
