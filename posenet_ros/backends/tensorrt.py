"""TensorRT on an NVIDIA GPU, from 8.5 to 11: finds it, and makes engines of networks."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from typing import Any

from posenet_ros.backends.cuda_memory import Cuda, open_cuda
from posenet_ros.backends.engine import EngineRefusedError, TensorRTBackend
from posenet_ros.backends.engine_builder import EngineOptions, Profile, is_strongly_typed
from posenet_ros.backends.engine_cache import cached_engine
from posenet_ros.backends.engine_check import check_engine
from posenet_ros.config import RuntimeConfig
from posenet_ros.errors import BackendError, NoDeviceError
from posenet_ros.model.network import Network
from posenet_ros.progress import Progress

NO_TENSORRT = (
    'the Python package tensorrt is missing (on a Jetson: apt install python3-libnvinfer, and a '
    'virtual environment with --system-site-packages; elsewhere: pip install tensorrt)'
)

logger = logging.getLogger('posenet_ros')


class TensorRT:
    """The Runtime for NVIDIA GPUs.

    Args:
        options: precision, CUDA library, workspace and DLA.
        quant_bytes: of the model; decides the precision if the options do not.
        reason: why it is this runtime; empty if its device decided.

    Raises:
        NoDeviceError: with everything that is missing, and what to install.
    """

    name = 'tensorrt'
    int8_layout = 'tensorrt'

    def __init__(self, options: RuntimeConfig, quant_bytes: int, reason: str = '') -> None:
        self.precision = options.precision_for(quant_bytes)
        self._options = options
        self.trt, self.cuda = open_tensorrt(options.cuda_library)
        self.reason = reason or f'{self.cuda.device_name} answers'

    @property
    def network_precision(self) -> str:
        # Before strong typing, TensorRT derives fp16 from a float32 network.
        derived = self.precision == 'fp16' and not is_strongly_typed(self.trt)
        return 'fp32' if derived else self.precision

    def engine(
        self,
        network: Network,
        max_batch: int = 1,
        *,
        rebuild: bool = False,
        progress: Progress | None = None,
    ) -> bytes:
        """The serialised engine of a network, from the cache or built; see cached_engine."""
        engine_options = EngineOptions(
            self.precision,
            Profile.batches(network.sizes, max_batch),
            self._options.workspace_mib,
            self._options.dla_core if self._options.dla_core >= 0 else None,
        )

        def check(plan: bytes) -> None:
            check_engine(self.trt, self.cuda, plan, self.precision, network)

        return cached_engine(
            self.trt,
            self.cuda,
            network.onnx,
            engine_options,
            check=check,
            rebuild=rebuild,
            progress=progress,
        )

    def load(self, network: Network, max_batch: int = 1) -> TensorRTBackend:
        plan = self.engine(network, max_batch)
        try:
            return TensorRTBackend(plan, self.precision, self.trt, self.cuda)
        except EngineRefusedError as error:
            logger.warning('%s; building it anew', error)
        plan = self.engine(network, max_batch, rebuild=True)
        return TensorRTBackend(plan, self.precision, self.trt, self.cuda)

    def close(self) -> None:
        with contextlib.suppress(BackendError):  # a lost device: the first error matters
            self.cuda.close()


def open_tensorrt(cuda_library: str | None = None) -> tuple[Any, Cuda]:
    """The module tensorrt, and a device for it.

    CUDA is opened first: without a driver, TensorRT's Runtime can crash the process.

    Args:
        cuda_library: pycuda or cuda-python; None takes the first that is installed.

    Raises:
        NoDeviceError: with all that is missing, and what to install.
    """
    missing = []
    cuda = None
    try:
        cuda = open_cuda(cuda_library)
    except NoDeviceError as error:
        missing.append(str(error))
    try:
        # Its libraries are large: imported only if there is a device.
        trt = importlib.import_module('tensorrt') if cuda else importlib.util.find_spec('tensorrt')
    except (ImportError, OSError, ValueError) as error:
        found = getattr(error, 'name', None) != 'tensorrt'
        trt, reason = None, f'tensorrt cannot be imported: {error}' if found else NO_TENSORRT
    else:
        reason = NO_TENSORRT
    if trt is None:
        missing.append(reason)
    if missing or cuda is None:
        if cuda is not None:
            cuda.close()
        raise NoDeviceError('; '.join(missing))
    return trt, cuda
