"""How the loops over pixels, cells and keypoints are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """numba.njit that releases the GIL and caches its machine code on disk for the next start.

    The cache lies beside the sources, in the user's cache or in NUMBA_CACHE_DIR. If none of them is
    writable, every start compiles again.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba finds no folder for its cache
        return numba.njit(nogil=True)(function)
