"""ONNX Runtime on the CPU: runs everywhere, and has nothing to build."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnxruntime as ort

from posenet_ros.config import RuntimeConfig
from posenet_ros.core.heads import HEADS, INPUT_NAME, Heads
from posenet_ros.errors import BackendError, ConfigError
from posenet_ros.model.network import Network

CPUINFO = Path('/proc/cpuinfo')


class OnnxRuntime:
    """The Runtime for CPUs.

    Args:
        options: precision, threads and spinning.
        quant_bytes: of the model; decides the precision if the options do not.
        reason: why it is this runtime.

    Raises:
        ConfigError: an option is for TensorRT only.
    """

    name = 'onnxruntime'
    int8_layout = 'onnxruntime'

    def __init__(self, options: RuntimeConfig, quant_bytes: int, reason: str) -> None:
        if options.dla_core >= 0:
            raise ConfigError(f'dla_core {options.dla_core} is for tensorrt; {reason}')
        self.reason = reason
        self.precision = options.precision_for(quant_bytes)
        if options.precision is None and self.precision == 'fp16':
            self.precision = 'fp32'  # CPUs have no float16 arithmetic
        self.network_precision = self.precision
        self._options = options

    def load(self, network: Network, max_batch: int = 1) -> OnnxRuntimeBackend:
        return OnnxRuntimeBackend(
            network.onnx, self.precision, self._options.num_threads, self._options.allow_spinning
        )

    def close(self) -> None:
        pass  # it holds nothing


class OnnxRuntimeBackend:
    """An ONNX Runtime session on the CPU.

    Args:
        model: serialised ONNX, for one input size or any.
        precision: that it computes in, to be shown.
        num_threads: of one run; 0 is one per core.
        allow_spinning: threads spin while they wait for work, between images too.
        session: of the model, if another provider than the CPU's runs it.

    Raises:
        BackendError: ONNX Runtime cannot load the model.
    """

    name = 'onnxruntime'
    # Batches gain nothing on a CPU: from 1 to 8 images, each takes the same time within 5%.
    max_batch = 1

    def __init__(
        self,
        model: bytes,
        precision: str = 'fp32',
        num_threads: int = 0,
        allow_spinning: bool = False,
        session: ort.InferenceSession | None = None,
    ) -> None:
        self.precision = precision
        self.device = f'CPU {platform.machine()}'
        self._memory = np.zeros(0, np.float32)  # of the input; grows to the largest one
        self._session: ort.InferenceSession | None = session
        if session is not None:
            return
        options = ort.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # it would keep the activations twice, and is no faster
        options.add_session_config_entry(
            'session.intra_op.allow_spinning', str(int(allow_spinning))
        )
        if _int8_products_saturate():
            # uint8 times uint8 instead of uint8 times int8: exact, in about twice the time.
            options.add_session_config_entry('session.x64quantprecision', '1')
        try:
            self._session = ort.InferenceSession(model, options, providers=['CPUExecutionProvider'])
        except Exception as error:  # ONNX Runtime's errors have no common base class
            raise BackendError(f'ONNX Runtime cannot load the model: {error}') from error

    def input_buffer(self, count: int, height: int, width: int) -> np.ndarray:
        size = count * 3 * height * width
        if size > len(self._memory):
            self._memory = np.zeros(size, np.float32)
        return self._memory[:size].reshape(count, 3, height, width)

    def run(self, images: np.ndarray) -> Heads:
        if self._session is None:
            raise BackendError('this model is closed')
        try:
            return Heads(*self._session.run(list(HEADS), {INPUT_NAME: images}))
        except Exception as error:
            raise BackendError(f'ONNX Runtime failed: {error}') from error

    def close(self) -> None:
        self._session = None


def _int8_products_saturate(cpuinfo: Path = CPUINFO) -> bool:
    """Whether sums of uint8 times int8 saturate at 16 bits: x86 before VNNI (Zen 4, Ice Lake)."""
    if platform.machine() not in ('x86_64', 'AMD64'):
        return False
    try:
        flags = cpuinfo.read_text()
    except OSError:
        return True  # not known: assume that they do
    return 'avx512_vnni' not in flags and 'avx_vnni' not in flags
