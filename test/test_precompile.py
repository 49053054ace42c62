"""The loops are compiled by a process of its own; the one that loads the model finds them done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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
PoseNet.load(ModelConfig(model_url=sys.argv[1]), 'onnxruntime').close()
print(*states, compiled_here())
"""


def run(program: str, *arguments: str, folder: Path, **variables: str) -> str:
    """Of a copy of the package, in a folder where another copy might be found."""
    package = Path(posenet_ros.__file__).parent
    shutil.copytree(package, folder / 'posenet_ros', ignore=shutil.ignore_patterns('__pycache__'))
    (folder / 'program.py').write_text(program)
    return subprocess.run(
        [sys.executable, str(folder / 'program.py'), *arguments],
        cwd=package.parent,
        env={**os.environ, 'PYTHONPATH': str(folder), **variables},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_a_loaded_model_finds_all_loops_compiled(default_model_config: ModelConfig, tmp_path: Path):
    url = default_model_config.model_url
    told = run(PROGRAM, url, folder=tmp_path, NUMBA_CACHE_DIR=str(tmp_path / 'numba'))
    assert told == 'False True 0\n'


def test_without_a_compiler_there_is_nothing_to_do(tmp_path: Path):
    program = 'from posenet_ros.precompile import all_on_disk; print(all_on_disk())'
    assert run(program, folder=tmp_path, NUMBA_DISABLE_JIT='1') == 'True\n'
