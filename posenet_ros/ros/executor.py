"""An executor that spins in one thread, with services that take long in others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from typing import Any, TypeVar

from rclpy.executors import SingleThreadedExecutor
from rclpy.logging import get_logger

from posenet_ros.errors import printable

Result = TypeVar('Result')
CLOCK_TOPIC = '/clock'
TRANSITIONS = 'transitions'  # the thread that may use in_spinning_thread
WARN_PERIOD_SECONDS = 5.0


class BackgroundExecutor(SingleThreadedExecutor):
    """A SingleThreadedExecutor that runs some services in other threads.

    A transition loads a model, which takes seconds, or minutes if an engine is built. Meanwhile
    get_state, parameters and diagnostics must work. rclpy's MultiThreadedExecutor would hand every
    image from thread to thread; this one does that for few services only.

    Args:
        background: services that run in other threads, and the names of their threads; those of a
            thread run one after another. Each must be in its own callback group.
    """

    def __init__(self, background: Mapping[Any, str] | None = None) -> None:
        super().__init__()
        self._background = background or {}
        self._second_thread = 0
        self._thread = ThreadPoolExecutor(1, TRANSITIONS, self._remember_thread)
        others = {*self._background.values()} - {TRANSITIONS}
        self._threads = {name: ThreadPoolExecutor(1, name) for name in others}
        self._ended = threading.Event()
        self._logger = get_logger('posenet_ros')

    def in_background(self, work: Callable[[], None]) -> None:
        """Queues work for the second thread."""
        self._thread.submit(_reported, work)

    def in_spinning_thread(self, work: Callable[[], Result]) -> Result:
        """Runs work in the spinning thread and waits for it. For the second thread.

        Humble's executor fails if another thread destroys an entity that it waits on.
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
        if future.cancel():  # the executor has ended, so no thread waits on the entities
            return work()
        return future.result()

    def wait_for_ready_callbacks(self, *args: Any, **kwargs: Any) -> Any:
        """Passes callbacks of background services to the second thread; returns the others."""
        while True:
            handler, entity, node = super().wait_for_ready_callbacks(*args, **kwargs)
            if getattr(entity, 'topic_name', '') == CLOCK_TOPIC:
                # rclpy's own callback, which a time before 1970 makes fail: that would end the node
                handler()
                if handler.done() and handler.exception() is not None:
                    self._logger.warning(
                        f'{CLOCK_TOPIC}: {printable(str(handler.exception()))}',
                        throttle_duration_sec=WARN_PERIOD_SECONDS,
                    )
                continue
            if entity not in self._background:
                return handler, entity, node

            def work(handler: Any = handler) -> None:
                handler()
                if handler.done() and handler.exception() is not None:
                    raise handler.exception()

            self._threads.get(self._background[entity], self._thread).submit(_reported, work)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stops spinning, and waits for the other threads."""
        self._ended.set()
        for thread in (self._thread, *self._threads.values()):
            thread.shutdown()
        return super().shutdown(timeout_sec)

    def _remember_thread(self) -> None:
        self._second_thread = threading.get_ident()


def _reported(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:  # nobody reads the pool's futures
        get_logger('posenet_ros').error(f'{type(error).__name__}: {error}')
