"""Compiles the loops in a process of its own, and leaves with what the compiler takes: 60 MB."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

import numpy as np

from posenet_ros.backends import Heads
from posenet_ros.compiled import all_on_disk
from posenet_ros.config import ModelConfig
from posenet_ros.estimator import PoseNet
from posenet_ros.preprocess import Letterbox


def precompile() -> None:
    """Puts the loops on disk where they are not yet, for PoseNet.load to find.

    It may fail: PoseNet.load compiles what it does not find.
    """
    if not all_on_disk():
        command = [sys.executable, '-c', _CHILD, *sys.path]
        with (
            contextlib.suppress(OSError),
            # Nothing is written: the pipe's end tells the child that this process has ended.
            subprocess.Popen(command, stdin=subprocess.PIPE) as child,
        ):
            child.wait()


# It must find the same sources: numba keeps the loops apart by their sources' folder.
_CHILD = """
import sys
sys.path = sys.argv[1:]
from posenet_ros.precompile import compile_loops
compile_loops()
"""


class _NoNetwork:
    """The backend of a model that sees nothing."""

    name, device, precision, max_batch = 'none', 'none', 'fp32', 1

    def needed_rows(self, letterboxes: Sequence[Letterbox]) -> range:
        return range(33)

    def input_buffer(self, count: int, rows: range | None = None) -> np.ndarray:
        return np.zeros((count, 3, 33, 33), np.float32)

    def run(self, images: np.ndarray, rows: range | None = None) -> Heads:
        return Heads(*(np.zeros((len(images), 3, 3, n), np.float32) for n in (17, 34, 32, 32)))

    def close(self) -> None:
        pass


def _end_with_the_parent() -> None:
    os.read(0, 1)
    os._exit(1)  # what is being compiled is lost; numba writes whole files or none


def compile_loops() -> None:
    """What the child does."""
    # The node blocks them, and what it starts inherits that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    PoseNet(ModelConfig(input_resolution=33), _NoNetwork(), '').warm_up()
