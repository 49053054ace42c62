"""How the loops over pixels, cells and keypoints are compiled, and kept for the next start.

numba's own cache trusts whatever lies in its files: one that a power cut has left empty, or that
was changed, ends every start. So the machine code lies in our cache, which finds that out.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import compiler, serialize
from numba.core.caching import NullCache

from posenet_ros.cache import BuildCache, Key, open_cache

_compile_result: Any = compiler.CompileResult
_serialize: Any = serialize

ROOMS = 'core', 'space'  # whose loops are compiled

logger = logging.getLogger('posenet_ros')


def jit(function: Callable[..., Any]) -> Any:
    """numba.njit that releases the GIL and keeps its machine code in POSENET_HOME.

    If it cannot be kept, every start compiles again, and a warning says why.
    """
    compiled: Any = numba.njit(nogil=True)(function)
    if hasattr(compiled, 'py_func'):  # not with NUMBA_DISABLE_JIT
        compiled._cache = LoopCache(function)
    return compiled


class LoopCache(NullCache):
    """The machine code of one loop, by the types of its arguments.

    As numba's FunctionCache, which has done the same since 0.54, but for where the bytes lie.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = f'{function.__module__}.{function.__qualname__}'

    def load_overload(self, signature: Any, target: Any) -> Any:
        """The compiled loop, or None: then numba compiles it."""
        folder = _folder()
        if folder is None:
            return None
        target.refresh()
        data = folder.peek(self._key(signature, target.codegen()))
        if data is None:
            _tell_once()
            return None
        try:
            return _compile_result._rebuild(target, *pickle.loads(data))
        except Exception as error:  # another numba may fail in any way; compiling always works
            logger.warning('compiling %s again: %s', self._name, error)
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keeps a compiled loop."""
        folder = _folder()
        if folder is not None:
            folder.put(self._key(signature, result.codegen), _serialize.dumps(result._reduce()))

    def _key(self, signature: Any, codegen: Any) -> Key:
        return {
            'loop': self._name,
            'arguments': str(signature),
            'processor': [str(part) for part in codegen.magic_tuple()],
            **_versions(),
        }


@cache
def _tell_once() -> None:
    logger.info('compiling for this machine: half a minute, once')


@cache
def _folder() -> BuildCache | None:
    return open_cache('loops', 'loops are compiled')


@cache
def _versions() -> Key:
    """What the machine code depends on beside its own function: loops call each other."""
    sources = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((Path(__file__).parents[1] / room).glob('*.py')):
            if path.is_file():  # no link that a build has left
                sources.update(path.read_bytes())
    return {
        'sources': sources.hexdigest(),
        'numba': numba.__version__,
        'numpy': np.__version__,
    }
