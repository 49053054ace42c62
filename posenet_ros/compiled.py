"""How the loops over pixels, cells and keypoints are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Numba's njit, without the interpreter's lock, and kept on disk for the next start.

    Where there is no folder for that, neither beside the sources nor in the user's cache nor in
    NUMBA_CACHE_DIR, each start compiles anew.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba finds no place for its cache
        return numba.njit(nogil=True)(function)
