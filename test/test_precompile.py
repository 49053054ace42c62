"""The loops are compiled by a process of its own; the one that loads the model finds them done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import posenet_ros
from posenet_ros import ModelConfig

PROGRAM = """
import sys
from numba.extending import is_jitted
from posenet_ros import ModelConfig, PoseNet, decode, preprocess
from posenet_ros.compiled import all_on_disk
from posenet_ros.precompile import precompile

def compiled_here():
    loops = [f for m in (decode, preprocess) for f in vars(m).values() if is_jitted(f)]
    assert len(loops) > 10
    return sum(sum(f.stats.cache_misses.values()) for f in loops)

states = [all_on_disk()]
precompile()
states.append(all_on_disk())
PoseNet.load(ModelConfig(model_url=sys.argv[1] or None), 'onnxruntime').close()
print(*states, compiled_here())
"""


def start(program: str, *arguments: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
    """Of a copy of the package, in a folder where another copy might be found."""
    package = Path(posenet_ros.__file__).parent
    shutil.copytree(package, folder / 'posenet_ros', ignore=shutil.ignore_patterns('__pycache__'))
    (folder / 'program.py').write_text(program)
    return subprocess.Popen(
        [sys.executable, str(folder / 'program.py'), *arguments],
        cwd=package.parent,
        env={**os.environ, 'PYTHONPATH': str(folder), **variables},
        stdout=subprocess.PIPE,
        text=True,
    )


def output(process: subprocess.Popen[str]) -> str:
    told, _ = process.communicate()
    assert process.returncode == 0
    return told


def test_a_loaded_model_finds_all_loops_compiled(default_model_config: ModelConfig, tmp_path: Path):
    url = default_model_config.model_url or ''
    process = start(PROGRAM, url, folder=tmp_path, NUMBA_CACHE_DIR=str(tmp_path / 'numba'))
    assert output(process) == 'False True 0\n'


def test_without_a_compiler_there_is_nothing_to_do(tmp_path: Path):
    program = 'from posenet_ros.precompile import all_on_disk; print(all_on_disk())'
    assert output(start(program, folder=tmp_path, NUMBA_DISABLE_JIT='1')) == 'True\n'


def test_compiling_ends_with_a_process_that_is_killed(tmp_path: Path):
    program = 'from posenet_ros.precompile import precompile; precompile()'
    cache = tmp_path / 'numba'
    with start(program, folder=tmp_path, NUMBA_CACHE_DIR=str(cache)) as process:
        while not any(cache.rglob('*.nbi')):  # one of the loops is compiled, most are not
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        # The child holds the other end of this pipe.
        assert process.communicate(timeout=3.0) == ('', None)
