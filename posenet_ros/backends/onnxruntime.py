"""The network on ONNX Runtime: any CPU, nothing to build."""

from __future__ import annotations

import platform

import numpy as np
import onnxruntime as ort

from posenet_ros.backends import Heads
from posenet_ros.errors import BackendError
from posenet_ros.onnx_names import HEADS, INPUT_NAME


class OnnxRuntimeBackend:
    """An ONNX Runtime session on the CPU.

    Args:
        model: serialised ONNX model, as onnx_export makes it, for one input size.
        precision: that it computes in, for people.
        num_threads: threads of one run; 0 lets ONNX Runtime take one per core.
        allow_spinning: threads spin while they wait for work. That is faster where nothing else
            runs, and takes the cores from whatever else does, between frames too.
    """

    name = 'onnxruntime'
    # A CPU gains nothing by several at once: with 1 to 8 of them an image takes the same time,
    # within 5%; the first would wait for the last, and each takes 14 MB more.
    max_batch = 1

    def __init__(
        self,
        model: bytes,
        precision: str = 'fp32',
        num_threads: int = 0,
        allow_spinning: bool = False,
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # a second copy of the activations, and no faster
        options.add_session_config_entry(
            'session.intra_op.allow_spinning', str(int(allow_spinning))
        )
        # Products of uint8 and int8 overflow where the CPU lacks VNNI (before Zen 4, Ice Lake):
        # there, and only there, ONNX Runtime then computes in uint8 alone, slower and right.
        options.add_session_config_entry('session.x64quantprecision', '1')
        try:
            self._session: ort.InferenceSession | None = ort.InferenceSession(
                model, options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # ONNX Runtime has no common class of its errors
            raise BackendError(f'ONNX Runtime cannot load the model: {error}') from error
        self.precision = precision
        self.device = f'CPU {platform.machine()}'
        image_shape = self._session.get_inputs()[0].shape[1:]
        self._images = np.zeros((1, *image_shape), np.float32)

    def input_buffer(self, count: int) -> np.ndarray:
        return self._images[:count]

    def run(self, images: np.ndarray) -> Heads:
        if self._session is None:
            raise BackendError('this model is closed')
        try:
            return Heads(*self._session.run(list(HEADS), {INPUT_NAME: images}))
        except Exception as error:
            raise BackendError(f'ONNX Runtime failed: {error}') from error

    def close(self) -> None:
        self._session = None
