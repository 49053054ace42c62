"""The network on ONNX Runtime: any CPU, nothing to build."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from posenet_ros.backends import Heads
from posenet_ros.errors import BackendError
from posenet_ros.onnx_names import HEADS, INPUT_NAME, ROWS_NAME
from posenet_ros.preprocess import Letterbox
from posenet_ros.shared_rows import SharedRows

CPUINFO = Path('/proc/cpuinfo')


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
        if _bytes_overflow():
            # Computed in uint8 alone they do not, in about twice the time.
            options.add_session_config_entry('session.x64quantprecision', '1')
        try:
            self._session: ort.InferenceSession | None = ort.InferenceSession(
                model, options, providers=['CPUExecutionProvider']
            )
        except Exception as error:  # ONNX Runtime has no common class of its errors
            raise BackendError(f'ONNX Runtime cannot load the model: {error}') from error
        self.precision = precision
        self.device = f'CPU {platform.machine()}'
        self._shared_rows = SharedRows.of(self._session.get_modelmeta().custom_metadata_map)
        _, channels, height, width = self._session.get_inputs()[0].shape
        if self._shared_rows:
            height = self._shared_rows.input_rows
        self._all_rows = range(height)
        self._images = np.zeros((1, channels, height, width), np.float32)

    def needed_rows(self, letterboxes: Sequence[Letterbox]) -> range:
        if self._shared_rows is None:
            return self._all_rows
        (letterbox,) = letterboxes
        return self._shared_rows.needed(*letterbox.black_rows())

    def input_buffer(self, count: int, rows: range | None = None) -> np.ndarray:
        rows = self._all_rows if rows is None else rows
        _, channels, _, width = self._images.shape
        used = self._images.reshape(-1)[: count * channels * len(rows) * width]
        return used.reshape(count, channels, len(rows), width)

    def run(self, images: np.ndarray, rows: range | None = None) -> Heads:
        if self._session is None:
            raise BackendError('this model is closed')
        inputs = {INPUT_NAME: images}
        if self._shared_rows:
            inputs[ROWS_NAME] = self._shared_rows.repeats(self._all_rows if rows is None else rows)
        try:
            return Heads(*self._session.run(list(HEADS), inputs))
        except Exception as error:
            raise BackendError(f'ONNX Runtime failed: {error}') from error

    def close(self) -> None:
        self._session = None


def _bytes_overflow(cpuinfo: Path = CPUINFO) -> bool:
    """Whether sums of uint8 times int8 do: on x86 without VNNI (before Zen 4, Ice Lake)."""
    if platform.machine() not in ('x86_64', 'AMD64'):
        return False
    try:
        flags = cpuinfo.read_text()
    except OSError:
        return True  # cannot be told
    return 'avx512_vnni' not in flags and 'avx_vnni' not in flags
