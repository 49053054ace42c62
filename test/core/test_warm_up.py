"""Compiling ahead: what is compiled once is found on disk."""

import os
import subprocess
import sys

import pytest

LOADED = """
from numba.core.registry import CPUDispatcher
from posenet_ros.core import decode, heads, preprocess
from posenet_ros.core.warm_up import compile_loops

compile_loops()
loops = [f for m in (decode, heads, preprocess) for f in vars(m).values()
         if isinstance(f, CPUDispatcher)]
print(sum(sum(loop.stats.cache_misses.values()) for loop in loops))
"""


@pytest.mark.slow
def test_second_process_finds_every_loop_on_disk(tmp_path):
    environment = {**os.environ, 'NUMBA_CACHE_DIR': str(tmp_path)}
    misses = [
        int(
            subprocess.run(
                [sys.executable, '-c', LOADED],
                env=environment, capture_output=True, text=True, check=True,
            ).stdout
        )
        for _ in range(2)
    ]  # fmt: skip
    assert misses[0] > 10 and misses[1] == 0
