"""The network on ONNX Runtime: any CPU, nothing to build."""

from __future__ import annotations

import platform

import numpy as np
import onnxruntime as ort

from posenet_ros.backends import Heads
from posenet_ros.errors import BackendError
from posenet_ros.onnx_export import HEADS, INPUT_NAME


class OnnxRuntimeBackend:
    """An ONNX Runtime session on the CPU.

    Args:
        model: serialised ONNX model, as onnx_export makes it.
        num_threads: threads of one run; 0 lets ONNX Runtime take one per core.
    """

    name = 'onnxruntime'
    precision = 'fp32'

    def __init__(self, model: bytes, num_threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = 3
        # Threads that spin while they wait for the next frame take the cores from the robot's other
        # processes: on two busy cores they cost 35 ms of CPU a frame instead of 12, and time too.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        try:
            self._session: ort.InferenceSession | None = ort.InferenceSession(
                model, options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # ONNX Runtime has no common class of its errors
            raise BackendError(f'ONNX Runtime cannot load the model: {error}') from error
        self.device = f'CPU {platform.machine()}'

    def run(self, images: np.ndarray) -> Heads:
        if self._session is None:
            raise BackendError('this model is closed')
        try:
            return Heads(*self._session.run(list(HEADS), {INPUT_NAME: images}))
        except Exception as error:
            raise BackendError(f'ONNX Runtime failed: {error}') from error

    def close(self) -> None:
        self._session = None
