"""RVL, a lossless compression of depth images: words of 32 bits -> depths.

Source: Wilson, Fast Lossless Depth Image Compression, ISS 2017.
"""

from __future__ import annotations

import numpy as np

from posenet_ros.core.jit import jit


@jit
def fill_from_rvl(words: np.ndarray, out: np.ndarray) -> bool:
    """Runs of zeros, then of differences to the last depth, in nibbles. False if they are cut."""
    at = np.int64(0)  # nibbles read
    previous = np.int64(0)
    filled = np.int64(0)
    while filled < len(out):
        zeros, at = _read_number(words, at)
        if at < 0 or zeros > len(out) - filled:
            return False
        filled += zeros
        others, at = _read_number(words, at)
        if at < 0 or others > len(out) - filled or zeros + others == 0:
            return False
        for _ in range(others):
            number, at = _read_number(words, at)
            if at < 0:
                return False
            previous += (number >> 1) ^ -(number & 1)
            out[filled] = np.uint16(previous & 0xFFFF)
            filled += 1
    return True


@jit
def _read_number(words: np.ndarray, at: int) -> tuple[int, int]:
    """A number in nibbles of three bits each, lowest first, and where the next one begins."""
    value = np.int64(0)
    for place in range(11):  # 32 bits
        if at >= 8 * len(words):
            return value, np.int64(-1)
        nibble = np.int64(words[at >> 3]) >> (28 - 4 * (at & 7)) & 15
        at += 1
        value |= (nibble & 7) << (3 * place)
        if nibble < 8:
            return value, at
    return value, np.int64(-1)
