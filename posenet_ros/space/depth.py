"""Reads a depth image where it matters: around keypoints and along bones, never as a whole."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from posenet_ros.errors import ImageError

NEAREST, FARTHEST = 0.15, 50.0  # metres; what is nearer or farther is a hole
MILLIMETRE = 0.001
LAG = 8  # pixels, at which the noise of depths has nothing in common


class DepthSampler:
    """Reads a depth image at single pixels, in metres; NaN for holes.

    Args:
        depth: (H, W), integers or floating point.
        metres: of a unit; None: integers are millimetres, and others metres.

    Raises:
        ImageError: depth is no such array.
    """

    def __init__(self, depth: np.ndarray, metres: float | None = None) -> None:
        _check(depth)
        if metres is None:
            metres = MILLIMETRE if depth.dtype.kind in 'iu' else 1.0
        self.depth = depth
        self._metres = metres

    def at(self, places: np.ndarray) -> np.ndarray:
        """Depths at pixels, (..., 2) -> (...)."""
        height, width = self.depth.shape
        with np.errstate(invalid='ignore'):
            inside = (places > -0.5) & (places < (width - 0.5, height - 0.5))
        seen = np.logical_and(inside[..., 0], inside[..., 1])
        pixels = np.where(seen[..., None], places + 0.5, 0).astype(np.int64)
        found = self.depth[pixels[..., 1], pixels[..., 0]].astype(np.float64) * self._metres
        with np.errstate(invalid='ignore'):
            good = seen & (found >= NEAREST) & (found <= FARTHEST)
        return np.where(good, found, np.nan)

    def noise(self) -> tuple[float, float]:
        """Standard deviation of 1 / depth, and how much of it differs between neighbours.

        On a plane 1 / depth is linear in the pixels, so that its second difference is noise. Most
        of an image is planes, of whatever size.
        """
        height, width = self.depth.shape
        rows, columns = np.meshgrid(
            np.linspace(0, height - 1, 16, dtype=np.int64),
            np.linspace(LAG, width - 1 - LAG, 24, dtype=np.int64),
        )
        if width < 4 * LAG:
            return 0.0, 1.0
        found = []
        for lag in (LAG, 1):
            places = columns[..., None] + np.array([-lag, 0, lag])
            depths = self.depth[rows[..., None], places].astype(np.float64) * self._metres
            seen = (depths >= NEAREST) & (depths <= FARTHEST)
            left, middle, right = np.moveaxis(1 / np.where(seen, depths, np.nan), -1, 0)
            difference = np.abs(left - 2 * middle + right)
            difference = difference[np.isfinite(difference)]
            if len(difference) < 50:
                return 0.0, 1.0
            found.append(float(np.median(difference)) / (0.6745 * math.sqrt(6)))
        return found[0], min((found[1] / max(found[0], 1e-9)) ** 2, 1.0)


def _check(depth: Any) -> None:
    """Raises an ImageError if an array is no depth image."""
    if not isinstance(depth, np.ndarray) or depth.dtype.kind not in 'iuf':
        kind = depth.dtype if isinstance(depth, np.ndarray) else type(depth).__name__
        raise ImageError(
            f'a depth image is a numpy array of integers or floats; this one is {kind}'
        )
    if depth.ndim != 2 or 0 in depth.shape:
        raise ImageError(f'a depth image has the shape (height, width); this one has {depth.shape}')
