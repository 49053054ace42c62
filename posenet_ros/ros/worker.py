"""Threads that process a mailbox. One of them owns the model and its CUDA context."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol

from posenet_ros.errors import BackendError
from posenet_ros.estimator import PoseNet
from posenet_ros.ros.mailbox import Item, Mailbox


class Source(Protocol[Item]):
    """What a worker takes items from: a Mailbox, for example."""

    def take(self, most: int | None = None) -> dict[str, Item] | None:
        """Waits for items by key; None once closed."""

    def close(self) -> None:
        """Makes every take() return None."""


class Worker(Generic[Item]):
    """A thread that passes items of a mailbox to `process` until it is stopped.

    Args:
        name: of the thread.
        mailbox: to take items from; stop() closes it.
        process: takes items by key. What it raises goes to `report`, and the thread goes on.
        report: takes unexpected exceptions.
    """

    def __init__(
        self,
        name: str,
        mailbox: Source[Item],
        process: Callable[[dict[str, Item]], None],
        report: Callable[[BaseException], None],
    ) -> None:
        self.mailbox = mailbox
        self._process = process
        self._report = report
        self._most: int | None = None  # items per call of process
        # A daemon, so that a load that hangs does not keep the process alive after Ctrl-C.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Ends the thread after the current item. Returns whether it ended in time."""
        self.mailbox.close()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _handle(self, waiting: dict[str, Item]) -> None:
        self._process(waiting)

    def _run(self) -> None:
        while (waiting := self.mailbox.take(self._most)) is not None:
            try:
                self._handle(waiting)
            except BaseException as error:  # one bad frame must not end the thread, nor SystemExit
                self._report(error)


class ModelWorker(Worker[Item]):
    """The worker that owns the model: loads, runs and frees it, all in its own thread."""

    def __init__(
        self,
        load: Callable[[], PoseNet],
        mailbox: Mailbox[Item],
        process: Callable[[PoseNet, dict[str, Item]], None],
        report: Callable[[BaseException], None],
    ) -> None:
        super().__init__('posenet_model', mailbox, lambda waiting: None, report)
        self.mailbox: Mailbox[Item] = mailbox
        self._load = load
        self._process_with_model = process
        self._loaded = threading.Event()
        self._may_begin = threading.Event()
        self._net: PoseNet | None = None
        self._error: BaseException | None = None

    def start_and_load(self, cancelled: Callable[[], bool]) -> PoseNet:
        """Loads the model, and begins to process items. See load."""
        net = self.load(cancelled)
        self.begin()
        return net

    def begin(self) -> None:
        """Lets the thread take items, once the model is loaded."""
        self._may_begin.set()

    def load(self, cancelled: Callable[[], bool]) -> PoseNet:
        """Starts the thread and waits for the model, which only the thread may run.

        Raises:
            BackendError: `cancelled` became true before the model was loaded.
            Exception: whatever `load` raised; the thread has ended then.
        """
        self.start()
        while not self._loaded.wait(0.05):
            if cancelled():
                raise BackendError('stopped while the model was loading')
        if self._net is None:
            self._thread.join()
            raise self._error or BackendError('the model was not loaded')
        return self._net

    def stop(self, timeout: float | None = None) -> bool:
        """Ends the thread after the current item; does not wait for a load that hangs."""
        self._may_begin.set()
        if self._loaded.is_set():
            return super().stop(timeout)
        # The thread ends after the load. Until then it must not keep the node alive.
        self._process_with_model = lambda net, waiting: None
        self._report = lambda error: None
        return super().stop(0.0)

    def _handle(self, waiting: dict[str, Item]) -> None:
        assert self._net is not None
        self._process_with_model(self._net, waiting)

    def _run(self) -> None:
        try:
            self._net = self._load()
        except BaseException as error:
            self._error = error
        finally:
            self._loaded.set()
        if self._net is None:
            return
        self._most = self._net.backend.max_batch
        try:
            self._may_begin.wait()
            super()._run()
        finally:
            self._net.close()
            self._net = None
