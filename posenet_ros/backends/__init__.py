"""What runs the network. A backend takes normalised images and gives the four heads."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np


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

    def input_buffer(self, count: int) -> np.ndarray:
        """Where the images of the next run are best written: float32 (count, 3, height, width)."""

    def run(self, images: np.ndarray) -> Heads:
        """Runs the network on float32 images (n, 3, height, width), n from 1 to max_batch.

        Returns:
            Arrays that are good until the next run.

        Raises:
            BackendError: the runtime failed.
        """

    def close(self) -> None:
        """Frees what the backend holds. May be called twice."""
