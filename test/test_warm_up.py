"""Compiling ahead: what is compiled once is found on disk, and is what was compiled."""

import os
import subprocess
import sys

import pytest

LOADED = """
from numba.core.registry import CPUDispatcher
from posenet_ros.core import decode, heads, preprocess, smooth, track
from posenet_ros.space import distance, lift, rvl, surfaces
from posenet_ros.warm_up import compile_loops

compile_loops()
modules = decode, heads, preprocess, smooth, track, distance, lift, rvl, surfaces
loops = {f for m in modules for f in vars(m).values()
         if isinstance(f, CPUDispatcher)}
print(sum(sum(loop.stats.cache_misses.values()) for loop in loops))
"""


def compile_all(home):
    """Loops that were compiled, and what was logged."""
    run = subprocess.run(
        [sys.executable, '-c', LOADED],
        env={**os.environ, 'POSENET_HOME': str(home)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(run.stdout), run.stderr


@pytest.mark.slow
def test_second_process_finds_every_loop_on_disk_and_a_third_heals_what_is_damaged(tmp_path):
    compiled, _ = compile_all(tmp_path)
    assert compiled > 10
    assert compile_all(tmp_path) == (0, '')
    files = sorted((tmp_path / 'loops').iterdir())
    assert len(files) == compiled
    for number, path in enumerate(files):
        content = path.read_bytes()
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 4]) + content[half + 1 :]
        path.write_bytes([b'', content[:half], flipped][number % 3])
    assert compile_all(tmp_path) == (compiled, '')
    assert compile_all(tmp_path) == (0, '')


@pytest.mark.slow
def test_loops_are_compiled_at_every_start_where_they_cannot_be_kept(tmp_path):
    (tmp_path / 'file').touch()
    compiled, logged = compile_all(tmp_path / 'file')
    assert compiled > 10
    assert logged.count('loops are compiled anew at every start') == 1
