"""Runs many bags over workers: what is finished already is passed over, and no bag ends another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from posenet_ros.recordings.estimation import estimate_bag, finish_bag, look_at_part
from posenet_ros.recordings.job import BagJob, Cut, Outcome, failed
from posenet_ros.recordings.workers import ModelFailed, Workers

TASKS_PER_WORKER = 2  # one runs, and one waits
SECONDS_BETWEEN_TICKS = 0.5


def run_bags(
    jobs: Iterable[BagJob], workers: Workers, waiting: Callable[[], None] = lambda: None
) -> Iterator[Outcome]:
    """Does bags, and gives what became of each as it is finished.

    Args:
        jobs: to do.
        workers: that do them.
        waiting: called twice a second while there is nothing to give.

    Raises:
        ModelFailed: the model cannot be loaded.
    """
    rest = iter(jobs)
    running: dict[Future[Any], BagJob] = {}
    while True:
        size = workers.size
        # One worker may be this process, which does a bag when it is given.
        free = (TASKS_PER_WORKER * size if size > 1 else 1) - len(running)
        for job in itertools.islice(rest, max(0, free)):
            running[workers.submit((estimate_bag, (job, size > 1)))] = job
        if not running:
            return
        done, _ = wait(running, SECONDS_BETWEEN_TICKS, FIRST_COMPLETED)
        if not done:
            waiting()
        for future in done:
            job = running.pop(future)
            try:
                result = future.result()
            except ModelFailed:
                raise
            except Exception as error:
                yield failed(job, error)
                continue
            if isinstance(result, Cut):
                looks = [(look_at_part, (job, part)) for part in result.parts]
                running[workers.gather(looks, (finish_bag, (job,)))] = job
            elif result is None:  # its parts do not fit together
                running[workers.submit((estimate_bag, (job, False)))] = job
            else:
                yield result
