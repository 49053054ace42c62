"""The network's input and its four outputs: names, depths and what they mean."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from posenet_ros.core.jit import jit
from posenet_ros.core.keypoints import NUM_EDGES, NUM_KEYPOINTS
from posenet_ros.errors import BackendError

INPUT_NAME = 'image'

# Output of the ONNX graph -> channels, in the order of Heads.
HEADS = {
    'heatmap': NUM_KEYPOINTS,
    'offset': 2 * NUM_KEYPOINTS,
    'displacement_fwd': 2 * NUM_EDGES,
    'displacement_bwd': 2 * NUM_EDGES,
}


class Heads(NamedTuple):
    """The network's outputs: float32, C-contiguous, (h, w, channels), or (n, h, w, channels)."""

    heatmap_scores: np.ndarray  # 17 channels, after the sigmoid
    offsets: np.ndarray  # 34: dy of the 17 keypoints, then dx, in input pixels
    displacements_fwd: np.ndarray  # 32: dy of the 16 edges from parent to child, then dx
    displacements_bwd: np.ndarray  # 32: likewise from child to parent

    def of_image(self, index: int) -> Heads:
        """The heads of one image of the batch: views, (h, w, channels)."""
        return Heads(*(head[index] for head in self))


def check_heads(heads: Heads, cells: tuple[int, int, int]) -> None:
    """Checks what a network gave.

    Args:
        heads: of a batch.
        cells: images, rows and columns that they should have.

    Raises:
        BackendError: they have another shape or type, or NaN or infinite values.
    """
    for head, (name, channels) in zip(heads, HEADS.items(), strict=True):
        if head.shape != (*cells, channels) or head.dtype != np.float32:
            raise BackendError(
                f'the network gave {name} as {head.dtype} of {head.shape}; it should be float32 of '
                f'{(*cells, channels)}'
            )
    if not all_finite(*heads):  # NaN could decode to no people
        names = [n for n, head in zip(HEADS, heads, strict=True) if not np.isfinite(head).all()]
        raise BackendError(f'the network gave NaN or infinite values ({", ".join(names)})')


@jit
def all_finite(
    heatmap_scores: np.ndarray,
    offsets: np.ndarray,
    displacements_fwd: np.ndarray,
    displacements_bwd: np.ndarray,
) -> bool:
    """Whether no value is NaN or infinite, in one pass and without temporary arrays."""
    finite = True
    for head in (heatmap_scores, offsets, displacements_fwd, displacements_bwd):
        values = head.reshape(-1)
        for i in range(len(values)):
            finite &= abs(values[i]) < np.inf  # false for NaN
    return finite
