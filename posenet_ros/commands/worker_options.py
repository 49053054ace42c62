"""Options that say what does the work: this process, others on this machine, or a Ray cluster."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from posenet_ros.commands.options import runtime_from
from posenet_ros.config import RuntimeConfig
from posenet_ros.environment import dependencies_for
from posenet_ros.errors import ConfigError
from posenet_ros.recordings.workers import Processes, ThisProcess, Workers

MOST_WORKERS = 1024
USING_GPU = ('auto', 'tensorrt', 'onnxruntime-cuda')


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """--workers, --ray and what belongs to it."""
    parser.add_argument(
        '--workers',
        type=int,
        metavar='N',
        help='share the work among N processes of this machine, each with a model of its own',
    )
    parser.add_argument(
        '--ray',
        nargs='?',
        const='',
        metavar='ADDRESS',
        help='share the work among the CPUs and GPUs of a Ray cluster: the one at this address, or '
        'the one that this machine is part of; without one, a cluster of this machine (pip '
        'install posenet_ros[ray])',
    )
    parser.add_argument(
        '--ray-gpus',
        type=float,
        metavar='SHARE',
        help='GPUs for each worker of the cluster, such as 0.5 (1 where it has any)',
    )


def in_this_process(options: argparse.Namespace) -> bool:
    """Whether there are no other workers."""
    return options.ray is None and options.workers in (None, 1)


def runtime_of_workers(options: argparse.Namespace) -> RuntimeConfig:
    """The RuntimeConfig of each worker: the cores are shared among them.

    Raises:
        ConfigError: a value is not allowed.
        ImageError: there are no photos at --calibration.
    """
    if options.workers is not None and not 1 <= options.workers <= MOST_WORKERS:
        raise ConfigError(
            f'Invalid --workers {options.workers}. Should be from 1 to {MOST_WORKERS}'
        )
    if options.workers is not None and options.ray is not None:
        raise ConfigError('--workers are of this machine, and --ray is a cluster: choose one')
    if options.ray_gpus is not None and not 0 <= options.ray_gpus <= 16:
        raise ConfigError(f'Invalid --ray-gpus {options.ray_gpus}. Should be from 0 to 16')
    runtime = runtime_from(options)
    if in_this_process(options):
        return runtime
    cores = (
        1 if options.ray is not None else max(1, len(os.sched_getaffinity(0)) // options.workers)
    )
    return replace(runtime, num_threads=runtime.num_threads or cores, allow_spinning=False)


@contextmanager
def opened_workers(
    options: argparse.Namespace,
    runtime: RuntimeConfig,
    shown: Callable[[], None] = lambda: None,
    tell: Callable[[str], None] | None = None,
) -> Iterator[Workers]:
    """The workers, which end with the block.

    Args:
        options: of the command.
        runtime: of runtime_of_workers.
        shown: called after each frame, by the worker of this process.
        tell: called with what cannot be used, likewise.

    Raises:
        PoseNetError: the cluster cannot be reached, or Ray is not installed.
    """
    workers: Workers
    if options.ray is not None:
        with dependencies_for('--ray'):
            from posenet_ros.recordings.ray_cluster import RayWorkers

        uses_gpu = runtime.backend in USING_GPU
        workers = RayWorkers(options.ray or None, runtime.num_threads, options.ray_gpus, uses_gpu)
    elif in_this_process(options):
        workers = ThisProcess(shown, tell or (lambda text: None))
    else:
        workers = Processes(options.workers)
    try:
        yield workers
    finally:
        workers.close()
