"""What does the work: this process, or others on this machine. For a cluster: ray_cluster.py."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from typing import Any, Protocol

from posenet_ros.config import ModelConfig, RuntimeConfig
from posenet_ros.errors import PoseNetError
from posenet_ros.estimator import PoseNet

TRIES = 2  # of a task whose process dies


class ModelFailed(PoseNetError):
    """The model cannot be loaded, which ends the tasks that are left too."""


class WorkerDied(PoseNetError):
    """The process of a task died each time: it was killed, or ran out of memory."""


class Count(Protocol):
    """Counts frames."""

    def __call__(self, done: int, coming: int = 0) -> None:
        """Adds to the frames that are done, and to those that are known to come."""


class Worker:
    """What a process keeps from task to task: the model that it has loaded. Close it.

    Args:
        count: called with numbers of frames that are done, and of frames that are known to come;
            may be changed between tasks.
        tell: called with what cannot be used, as soon as it is known; the results have it too.
    """

    def __init__(
        self,
        count: Count = lambda done, coming=0: None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.count = count
        self.tell = tell
        self._net: PoseNet | None = None
        self._loaded: tuple[ModelConfig, RuntimeConfig] | None = None

    def net(self, model: ModelConfig, runtime: RuntimeConfig) -> PoseNet:
        """The model; the one before is closed if it is another.

        Raises:
            ModelFailed: it cannot be loaded.
        """
        if self._net is None or self._loaded != (model, runtime):
            self.close()
            try:
                self._net = PoseNet.load(model, **asdict(runtime))
            except PoseNetError as error:
                raise ModelFailed(str(error)) from error
            self._loaded = model, runtime
        return self._net

    def close(self) -> None:
        """Frees the model."""
        if self._net is not None:
            self._net.close()
            self._net = None


# A function of a module, which gets the worker that runs it, and what it is called with.
Task = tuple[Callable[..., Any], tuple[Any, ...]]


class Workers(Protocol):
    """Runs tasks. Close it."""

    @property
    def size(self) -> int:
        """How many tasks run at once, now."""

    @property
    def frames(self) -> tuple[int, int]:
        """Frames that are done, and frames that are known of."""

    def submit(self, task: Task) -> Future[Any]:
        """Runs a task."""

    def gather(self, parts: Sequence[Task], task: Task) -> Future[Any]:
        """Runs tasks before those that wait already, and another with an iterator of their results.

        The other one gets it after the worker.
        """

    def close(self) -> None:
        """Ends the workers; what they have not finished is lost."""


class ThisProcess:
    """Runs every task at once, when it is given.

    Args:
        shown: called after each frame.
        tell: of its Worker.
    """

    size = 1

    def __init__(
        self,
        shown: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.frames = 0, 0
        self._shown = shown
        self._worker = Worker(self._count, tell)

    def submit(self, task: Task) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(run(self._worker, task))
        except Exception as error:
            future.set_exception(error)
        return future

    def gather(self, parts: Sequence[Task], task: Task) -> Future[Any]:
        function, arguments = task
        results = (run(self._worker, part) for part in parts)
        return self.submit((function, (results, *arguments)))

    def close(self) -> None:
        self._worker.close()

    def _count(self, done: int, coming: int = 0) -> None:
        self.frames = self.frames[0] + done, self.frames[1] + coming
        self._shown()


class Processes:
    """Processes of this machine, each with a model of its own.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        # Not fork: the threads of onnxruntime and a GPU's context do not survive it.
        context = multiprocessing.get_context('spawn')
        self._frames = context.Array('Q', 2)
        self._tasks: queue.PriorityQueue[tuple[int, int, Any]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._closed = threading.Event()
        self._processes = [_Process(context, self._frames) for _ in range(size)]
        self._threads = [
            threading.Thread(target=self._serve, args=(process,), name='worker', daemon=True)
            for process in self._processes
        ]
        for thread in self._threads:
            thread.start()

    @property
    def frames(self) -> tuple[int, int]:
        with self._frames.get_lock():
            return self._frames[0], self._frames[1]

    def submit(self, task: Task) -> Future[Any]:
        return self._submit(task, 1)

    def gather(self, parts: Sequence[Task], task: Task) -> Future[Any]:
        results = deque(self._submit(part, 0) for part in parts)

        def in_order() -> Iterator[Any]:
            while results:
                yield results.popleft().result()  # and is forgotten

        # It is little work on much data, which would have to go to another process.
        function, arguments = task
        future: Future[Any] = Future()
        work = (function, (in_order(), *arguments))
        threading.Thread(
            target=_settle, args=(future, lambda: run(Worker(), work)), name='gather', daemon=True
        ).start()
        return future

    def close(self) -> None:
        self._closed.set()
        for _ in self._threads:
            self._tasks.put((-1, next(self._order), None))
        for process in self._processes:
            process.kill()
        for thread in self._threads:
            thread.join()

    def _submit(self, task: Task, rank: int) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.put((rank, next(self._order), (future, task)))
        return future

    def _serve(self, process: _Process) -> None:
        """Gives a process one task after the other; a thread for each process does this."""
        while True:
            _, _, given = self._tasks.get()
            if given is None or self._closed.is_set():
                return
            future, task = given
            _settle(future, partial(self._tried, process, task))

    def _tried(self, process: _Process, task: Task) -> Any:
        for _ in range(TRIES):
            try:
                return process.run(task)
            except BrokenProcessPool:
                if self._closed.is_set():
                    break
                process.restart()
        raise WorkerDied(
            f'its process died {TRIES} times: it was killed, or there was not enough memory'
        )


class _Process:
    """A process that ends when `kill` is called, and when this one is gone, however it ends."""

    def __init__(self, context: Any, frames: Any) -> None:
        self._context = context
        self._frames = frames
        self.restart()

    def restart(self) -> None:
        # The process waits for the end of what nobody ever writes to.
        reader, self._alive = self._context.Pipe(duplex=False)
        self._executor = ProcessPoolExecutor(1, self._context, _begin, (reader, self._frames))

    def run(self, task: Task) -> Any:
        return self._executor.submit(_run, task).result()

    def kill(self) -> None:
        self._alive.close()
        self._executor.shutdown(wait=False, cancel_futures=True)


def run(worker: Worker, task: Task) -> Any:
    """Runs a task here."""
    function, arguments = task
    return function(worker, *arguments)


def _settle(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)


# In the processes.

_worker: Worker | None = None


def _begin(alive: Any, frames: Any) -> None:
    global _worker

    def count(done: int, coming: int = 0) -> None:
        with frames.get_lock():
            frames[0] += done
            frames[1] += coming

    def end_with_parent() -> None:
        alive.poll(None)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    threading.Thread(target=end_with_parent, daemon=True).start()
    _worker = Worker(count)


def _run(task: Task) -> Any:
    assert _worker is not None
    return run(_worker, task)
