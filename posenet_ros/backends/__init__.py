"""What runs networks: TensorRT or ONNX Runtime on an NVIDIA GPU, ONNX Runtime on the CPU.

A Runtime is found on this machine, is given a Network, and returns a Backend that is ready to run.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from posenet_ros.config import RuntimeConfig
from posenet_ros.core.heads import Heads
from posenet_ros.environment import dependencies_for
from posenet_ros.errors import NoDeviceError
from posenet_ros.model.network import Network


class Backend(Protocol):
    """A network that is ready to run. Used and closed by one thread at a time."""

    name: str  # tensorrt, onnxruntime-cuda or onnxruntime
    device: str  # what it runs on, to be shown
    precision: str  # fp32, fp16 or int8
    max_batch: int  # images of one run; 1 if batches are not faster

    def input_buffer(self, count: int, height: int, width: int) -> np.ndarray:
        """Where to write the images of the next run: float32 (count, 3, height, width).

        Its memory is that of the last one, which is overwritten.
        """

    def run(self, images: np.ndarray) -> Heads:
        """Runs the network.

        Args:
            images: float32 (n, 3, height, width), n from 1 to max_batch; fastest in input_buffer.

        Returns:
            Heads (n, h, w, channels), valid until the next run.

        Raises:
            BackendError: the runtime failed.
        """

    def close(self) -> None:
        """Frees everything. May be called twice."""


class Runtime(Protocol):
    """Loads networks. Close it if it has loaded none: a Backend takes over its device."""

    name: str  # tensorrt, onnxruntime-cuda or onnxruntime
    reason: str  # why this runtime was chosen
    precision: str  # that networks will run in: fp32, fp16 or int8
    int8_layout: str  # of int8 networks: see make_network

    @property
    def network_precision(self) -> str:
        """The precision that the ONNX must have for it."""

    def load(self, network: Network, max_batch: int = 1) -> Backend:
        """Makes a network ready to run. The Backend then owns the device.

        Args:
            network: of network_precision.
            max_batch: images of one run, at most.

        Raises:
            BackendError: the network cannot run here.
        """

    def close(self) -> None:
        """Releases the device."""


def find_runtime(options: RuntimeConfig, quant_bytes: int) -> Runtime:
    """The runtime that was asked for, or for `auto` the best one that works here.

    Args:
        options: which runtime, and how it should run.
        quant_bytes: of the model; decides the precision if the options do not.

    Raises:
        ConfigError: the runtime does not support an option.
        NoDeviceError: the runtime that was asked for cannot run; says what is missing.
    """
    openers = {  # best first
        'tensorrt': _open_tensorrt,
        'onnxruntime-cuda': _open_onnxruntime_cuda,
        'onnxruntime': _open_onnxruntime,
    }
    reasons = []
    if options.backend != 'auto':
        openers = {options.backend: openers[options.backend]}
        reasons = [f'the backend {options.backend} was asked for']
    for name, opener in openers.items():
        try:
            return opener(options, quant_bytes, '; '.join(reasons))
        except NoDeviceError as error:
            reasons.append(f'{name} cannot run here: {error}')
    raise NoDeviceError(reasons[-1])


def _open_tensorrt(options: RuntimeConfig, quant_bytes: int, reason: str) -> Runtime:
    from posenet_ros.backends.tensorrt import TensorRT

    return TensorRT(options, quant_bytes, reason)


def _open_onnxruntime_cuda(options: RuntimeConfig, quant_bytes: int, reason: str) -> Runtime:
    with dependencies_for('running on a GPU'):
        from posenet_ros.backends.onnxruntime_cuda import OnnxRuntimeCuda

    return OnnxRuntimeCuda(options, quant_bytes, reason)


def _open_onnxruntime(options: RuntimeConfig, quant_bytes: int, reason: str) -> Runtime:
    with dependencies_for('running on the CPU'):
        from posenet_ros.backends.onnxruntime import OnnxRuntime

    return OnnxRuntime(options, quant_bytes, reason)
