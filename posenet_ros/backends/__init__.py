"""What runs the network. A backend takes normalised images and gives the four heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from posenet_ros.preprocess import Letterbox


class Heads(NamedTuple):
    """The network's output: float32, channels last, a row per image of the batch."""

    heatmaps: np.ndarray  # (n, h, w, 17), after the sigmoid
    offsets: np.ndarray  # (n, h, w, 34), input pixels
    displacements_fwd: np.ndarray  # (n, h, w, 32), input pixels
    displacements_bwd: np.ndarray  # (n, h, w, 32), input pixels


class Backend(Protocol):
    """Owned by one thread at a time: the one that runs it closes it."""

    name: str  # onnxruntime or tensorrt
    device: str  # what it runs on, for people
    precision: str  # fp32, fp16 or int8
    max_batch: int  # most images of one run; no more than are fast together

    def needed_rows(self, letterboxes: Sequence[Letterbox]) -> range:
        """The rows of the input to be filled for such images; it knows the others to be black."""

    def input_buffer(self, count: int, rows: range | None = None) -> np.ndarray:
        """Where these rows of the images of the next run are best written; None: all of them.

        Returns:
            float32 (count, 3, rows, width).
        """

    def run(self, images: np.ndarray, rows: range | None = None) -> Heads:
        """Runs the network on images, of which there are these rows; None: all of them.

        Args:
            images: float32 (n, 3, rows, width), n from 1 to max_batch.
            rows: all, or what needed_rows said.

        Returns:
            Arrays that are good until the next run.

        Raises:
            BackendError: the runtime failed.
        """

    def close(self) -> None:
        """Frees what the backend holds. May be called twice."""
