"""How the loops over pixels, cells and keypoints are compiled."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.extending import is_jitted

_LOOPS: list[Callable[..., Any]] = []


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Numba's njit, without the interpreter's lock, and kept on disk for the next start.

    Where there is no folder for that, neither beside the sources nor in the user's cache nor in
    NUMBA_CACHE_DIR, each start compiles anew.
    """
    try:
        loop = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba finds no place for its cache
        return numba.njit(nogil=True)(function)
    if is_jitted(loop):  # NUMBA_DISABLE_JIT leaves the function as it is
        _LOOPS.append(loop)
    return loop


def all_on_disk() -> bool:
    """Whether every loop that can be kept on disk is there. Of an older source, it may be stale."""
    return all(map(_on_disk, _LOOPS))


def _on_disk(loop: Any) -> bool:
    source = loop.py_func.__code__
    python = f'py{sys.version_info.major}{sys.version_info.minor}'
    index = f'*.{loop.__name__}-{source.co_firstlineno}.{python}*.nbi'
    return any(Path(loop.stats.cache_path).glob(index))
