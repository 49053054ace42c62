"""Tasks on a Ray cluster.

Ray runs a task again whose worker or node is lost, and keeps the results of parts until they are
gathered. Source: docs.ray.io, "Tasks" and "Fault tolerance".
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from importlib import import_module
from typing import Any

from posenet_ros.errors import PoseNetError, in_words
from posenet_ros.recordings.workers import Task, Worker, run
from posenet_ros.version import __version__

os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
ray: Any = import_module('ray')  # it may be missing where types are checked

logger = logging.getLogger('posenet_ros')

RETRIES = 3  # of a task whose worker or node is lost
SECONDS_BETWEEN_COUNTS = 1.0


class RayWorkers:
    """Workers of a Ray cluster: as many as its CPUs and GPUs give.

    Args:
        address: of the cluster; None is the one of this machine or of RAY_ADDRESS, and a new one
            where there is none.
        num_cpus: for each worker.
        num_gpus: for each worker; None: one where the cluster has any and `uses_gpu`.
        uses_gpu: whether the model could run on one.

    Raises:
        PoseNetError: the cluster cannot be reached.
    """

    def __init__(
        self, address: str | None, num_cpus: int, num_gpus: float | None, uses_gpu: bool
    ) -> None:
        try:
            ray.init(address, log_to_driver=False, configure_logging=False)
        except Exception as error:
            raise PoseNetError(
                f'cannot reach the Ray cluster {address or "of this machine"}: {in_words(error)}'
            ) from error
        if num_gpus is None:
            num_gpus = 1.0 if uses_gpu and _resources().get('GPU') else 0.0
        self._needs = {'CPU': float(num_cpus), 'GPU': num_gpus}
        nodes = [node['Resources'] for node in ray.nodes() if node['Alive']]
        if not any(
            all(node.get(kind, 0) >= need for kind, need in self._needs.items()) for node in nodes
        ):
            logger.warning(
                'no node of the cluster has %g CPUs and %g GPUs, which each worker needs: nothing '
                'runs until there is one', num_cpus, num_gpus,
            )  # fmt: skip
        options: dict[str, Any] = {
            'num_cpus': num_cpus,
            'num_gpus': num_gpus,
            'max_retries': RETRIES,
            'max_calls': 0,  # a process keeps its model for the next task, with a GPU too
        }
        self._run = ray.remote(**options)(_run)
        self._gather = ray.remote(num_cpus=1, max_retries=RETRIES)(_gather)
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=True
        )
        self._counter: Any = (
            ray.remote(_Counter).options(num_cpus=0, scheduling_strategy=here).remote()
        )
        self._frames = 0, 0

    @property
    def size(self) -> int:
        there = _resources()
        needs = {kind: need for kind, need in self._needs.items() if need}
        return max(1, min(int(there.get(kind, 0) / need) for kind, need in needs.items()))

    @property
    def frames(self) -> tuple[int, int]:
        with contextlib.suppress(ray.exceptions.RayError):  # it is only for the eye
            self._frames = ray.get(self._counter.total.remote(), timeout=5)
        return self._frames

    def submit(self, task: Task) -> Future[Any]:
        return _future(self._run.remote(__version__, self._counter, task))

    def gather(self, parts: Sequence[Task], task: Task) -> Future[Any]:
        results = [self._run.remote(__version__, self._counter, part) for part in parts]
        return _future(self._gather.remote(results, task))

    def close(self) -> None:
        ray.shutdown()


def _resources() -> dict[str, float]:
    there: dict[str, float] = ray.cluster_resources()
    return there


def _future(ref: Any) -> Future[Any]:
    """The future of a result, with the error itself and not Ray's, which is a traceback."""
    future: Future[Any] = Future()

    def settle(done: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            future.set_result(done.result())
        else:
            future.set_exception(getattr(error, 'cause', None) or error)

    ref.future().add_done_callback(settle)
    return future


# On the cluster.

_worker: Worker | None = None
_counted = [0, 0]
_told = 0.0


class _Counter:
    def __init__(self) -> None:
        self._done, self._known = 0, 0

    def add(self, done: int, coming: int) -> None:
        self._done += done
        self._known += coming

    def total(self) -> tuple[int, int]:
        return self._done, self._known


def _run(version: str, counter: Any, task: Task) -> Any:
    global _worker
    if version != __version__:
        raise PoseNetError(
            f'a worker has posenet_ros {__version__}, where this is {version}: install the same one'
        )

    def count(done: int, coming: int = 0) -> None:
        global _counted, _told
        _counted = [_counted[0] + done, _counted[1] + coming]
        if coming or time.monotonic() - _told > SECONDS_BETWEEN_COUNTS:
            counter.add.remote(*_counted)
            _counted, _told = [0, 0], time.monotonic()

    if _worker is None:
        _worker = Worker()
    _worker.count = count
    return run(_worker, task)


def _gather(results: Sequence[Any], task: Task) -> Any:
    function, arguments = task
    return run(Worker(), (function, (_in_order(results), *arguments)))


def _in_order(results: Sequence[Any]) -> Iterator[Any]:
    for ref in results:
        try:
            yield ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from None
