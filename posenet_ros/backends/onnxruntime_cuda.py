"""ONNX Runtime on an NVIDIA GPU, where TensorRT is not installed: pip install onnxruntime-gpu.

It builds no engines, so that it starts at once. The provider falls back to the CPU by itself and
without an error if a library of CUDA is missing; here that is an error.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import onnxruntime as ort

from posenet_ros.backends.engine_check import check_scores, generated_input
from posenet_ros.backends.onnxruntime import OnnxRuntimeBackend
from posenet_ros.config import RuntimeConfig
from posenet_ros.environment import dependencies_for
from posenet_ros.errors import BackendError, ConfigError, NoDeviceError
from posenet_ros.model.network import Network

PROVIDER = 'CUDAExecutionProvider'
OPTIONS = {'use_tf32': '0'}  # of the provider; with it fp32 would be no fp32


class OnnxRuntimeCuda:
    """The Runtime for GPUs without TensorRT.

    Args:
        options: precision.
        quant_bytes: of the model; decides the precision if the options do not.
        reason: why it is this runtime.

    Raises:
        ConfigError: an option is for TensorRT only.
        NoDeviceError: there is no CUDA provider, no GPU or no library of CUDA, or it is int8.
    """

    name = 'onnxruntime-cuda'
    int8_layout = 'onnxruntime'

    def __init__(self, options: RuntimeConfig, quant_bytes: int, reason: str) -> None:
        if options.dla_core >= 0:
            raise ConfigError(f'dla_core {options.dla_core} is for tensorrt; {reason}')
        self.reason = reason
        self.precision = self.network_precision = options.precision_for(quant_bytes)
        if self.precision == 'int8':
            raise NoDeviceError('the CUDA provider of ONNX Runtime has no int8 arithmetic')
        if PROVIDER not in ort.get_available_providers():
            raise NoDeviceError(
                'the onnxruntime that is installed has no CUDA provider; onnxruntime-gpu has one'
            )
        with _quietly():
            if hasattr(ort, 'preload_dlls'):  # from 1.21 on: those of the packages nvidia-*
                ort.preload_dlls()
            _session_on_gpu(_smallest_model())

    def load(self, network: Network, max_batch: int = 1) -> OnnxRuntimeBackend:
        backend = OnnxRuntimeBackend(
            network.onnx, self.precision, session=_session_on_gpu(network.onnx)
        )
        backend.name, backend.device, backend.max_batch = self.name, 'GPU 0, by CUDA', max_batch
        image = generated_input(network)
        check_scores(
            backend.run(image).heatmap_scores,
            self.precision,
            network,
            image,
            f'{self.precision} by the CUDA provider of ONNX Runtime {ort.__version__}',
        )
        return backend

    def close(self) -> None:
        pass  # it holds nothing


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps ONNX Runtime from printing what is missing: our errors say it."""
    ort.set_default_logger_severity(4)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        ort.set_default_logger_severity(2)  # its default


def _session_on_gpu(model: bytes) -> ort.InferenceSession:
    """A session that the GPU runs.

    Raises:
        NoDeviceError: the CPU would run it.
        BackendError: ONNX Runtime cannot load the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(model, options, providers=[(PROVIDER, OPTIONS)])
    except Exception as error:  # ONNX Runtime's errors have no common base class
        raise BackendError(f'ONNX Runtime cannot load the model: {error}') from error
    if session.get_providers()[0] != PROVIDER:
        raise NoDeviceError(
            'ONNX Runtime finds no GPU, or not the libraries of CUDA and cuDNN that it was built '
            'for: pip install "onnxruntime-gpu[cuda,cudnn]"'
        )
    return session


def _smallest_model() -> bytes:
    """A network of one operation, to see whether the GPU runs any."""
    with dependencies_for('trying the CUDA provider of ONNX Runtime'):
        from onnx import TensorProto, helper
    value = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ('image', 'same')
    ]
    node = helper.make_node('Relu', ['image'], ['same'])
    graph = helper.make_graph([node], 'smallest', value[:1], value[1:])
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8
    ).SerializeToString()
    return model
