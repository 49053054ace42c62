"""From what is asked for to what runs it: the precision, the weights, the graph, the backend."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from posenet_ros.backends import Backend
from posenet_ros.backends.cuda_memory import Cuda
from posenet_ros.build_cache import BuildCache, CacheError
from posenet_ros.calibration import CalibrationSet
from posenet_ros.checkpoint import Checkpoint, fetch_checkpoint
from posenet_ros.config import ModelConfig, RuntimeConfig
from posenet_ros.environment import dependencies_for
from posenet_ros.errors import BackendError, CheckpointError, ConfigError, NoDeviceError
from posenet_ros.onnx_names import EXPORTER_VERSION, QUANTIZER_VERSION, SHARED_ROWS_VERSION

if TYPE_CHECKING:
    from posenet_ros.backends.engine_builder import EngineOptions
    from posenet_ros.quantization import Progress

# What is heavy (onnx, onnxruntime, tensorrt) is imported where it is used.

MAX_INPUT_PIXELS = 4097 * 4097
PRECISION_OF_QUANT_BYTES = {4: 'fp32', 2: 'fp16', 1: 'int8'}

logger = logging.getLogger('posenet_ros')


@dataclass(frozen=True)
class LoadedBackend:
    """A backend that is ready to run, what it runs, and why it is this one."""

    backend: Backend
    checkpoint: Checkpoint
    reason: str


def load_backend(config: ModelConfig, runtime: RuntimeConfig, max_batch: int = 1) -> LoadedBackend:
    """Fetches the weights, makes the graph and whatever runs it.

    Args:
        config: which network.
        runtime: what is to run it, and how.
        max_batch: most images of one run, where that must be known (tensorrt).

    Raises:
        ConfigError, CheckpointError, GraphError, BackendError: see PoseNet.load.
    """
    _check_input_size(config)
    if not 1 <= max_batch <= 64:
        raise ConfigError(f'Invalid max_batch {max_batch}. Should be 1 to 64')
    reason = f'the backend {runtime.backend} was asked for'
    if runtime.backend != 'onnxruntime':
        from posenet_ros.backends.tensorrt import open_tensorrt

        try:
            trt, cuda = open_tensorrt(runtime.cuda_library)
        except NoDeviceError as error:
            reason = f'tensorrt cannot run here: {error}'
            if runtime.backend == 'tensorrt':
                raise NoDeviceError(reason) from error
        else:
            if runtime.backend == 'auto':
                reason = f'{cuda.device_name} answers'
            backend, checkpoint = _load_tensorrt(config, runtime, max_batch, trt, cuda)
            return LoadedBackend(backend, checkpoint, reason)
    if runtime.dla_core >= 0:
        raise ConfigError(f'dla_core {runtime.dla_core} is for tensorrt; {reason}')
    backend, checkpoint = _load_onnxruntime(config, runtime)
    return LoadedBackend(backend, checkpoint, reason)


def chosen_precision(config: ModelConfig, runtime: RuntimeConfig) -> str:
    """What quant_bytes stands for, where nothing else is asked for."""
    return runtime.precision or PRECISION_OF_QUANT_BYTES[config.quant_bytes]


def weights_for(config: ModelConfig, precision: str) -> Checkpoint:
    """The checkpoint that a precision is made from.

    int8 is made from the most precise weights that can be had: weights that were rounded for
    storage would be rounded twice, and the published MobileNetV1 files of 1 byte are broken.
    """
    if precision == 'int8' and config.model_url is None:
        for quant_bytes in (4, 2):
            try:
                return fetch_checkpoint(replace(config, quant_bytes=quant_bytes))
            except CheckpointError as error:
                logger.warning('no weights of %d bytes to make int8 from: %s', quant_bytes, error)
    if config.quant_bytes == 1 and config.architecture == 'MobileNetV1' and not config.model_url:
        logger.warning(
            'quant_bytes 1: the published MobileNetV1 weights of 1 byte are broken and find '
            'nobody; 2 and 4 work, and int8 is made from these'
        )
    return fetch_checkpoint(config)


def network(
    config: ModelConfig,
    checkpoint: Checkpoint,
    precision: str,
    layout: str = 'tensorrt',
    calibration: str | None = None,
    progress: Progress = lambda what, done, total: None,
    shared_rows: bool = False,
) -> bytes:
    """The network as ONNX, for one input size and any batch; made once, then from the cache.

    Args:
        config: which network.
        checkpoint: its weights.
        precision: fp32, fp16 or int8.
        layout: of int8: tensorrt or onnxruntime.
        calibration: photos for int8: a folder, a video or a bag.
        progress: told what is done, how much of it and of how much, while int8 is made.
        shared_rows: black rows of the input are computed once, where that is possible.
    """
    key: dict[str, Any] = {
        'weights': checkpoint.sha256,
        'input': list(config.valid_resolution),
        'output_stride': config.output_stride,
        'tfjs_dilations': config.tfjs_dilations,
        'exporter': EXPORTER_VERSION,
        'precision': precision,
    }
    if precision == 'int8':
        with dependencies_for('int8'):
            import onnxruntime

        images = CalibrationSet.of(calibration)
        key['architecture'] = config.architecture  # which tells how the images are normalised
        key['layout'] = layout
        key['calibration'] = images.sha256
        key['quantizer'] = QUANTIZER_VERSION
        key['onnxruntime'] = onnxruntime.__version__
    if shared_rows:
        key['shared_rows'] = SHARED_ROWS_VERSION

    def build(reason: str) -> bytes:
        # Imported here: what is in the cache takes none of this, nor its time and memory.
        with dependencies_for('making the network'):
            from posenet_ros.onnx_export import export_onnx
        from posenet_ros.tfjs_graph import load_graph

        height, width = config.valid_resolution
        graph = load_graph(checkpoint.graph_path)
        model = export_onnx(graph, height, width, config.output_stride, config.tfjs_dilations)
        if precision == 'fp16':
            from posenet_ros.onnx_precision import to_fp16

            model = to_fp16(model)
        elif precision == 'int8':
            with dependencies_for('making the int8 network'):
                from posenet_ros.quantization import calibrated_int8

            logger.info('making the int8 network (%s): about ten seconds', reason)
            model = calibrated_int8(model, images, config.architecture, layout, progress)
        if shared_rows:
            from posenet_ros.shared_rows import share_rows

            share_rows(model)
        return model.SerializeToString()

    try:
        return BuildCache('networks').get(key, build)
    except CacheError as error:
        logger.warning('%s; the network is made anew at every start', error)
        return build('there is no cache')


def _check_input_size(config: ModelConfig) -> None:
    height, width = config.valid_resolution
    if height < 1 or width < 1:
        raise ConfigError(
            f'Invalid inputResolution {config.input_resolution}. It makes a network input of '
            f'{width} x {height} pixels, which should be at least 1 x 1'
        )
    if height * width > MAX_INPUT_PIXELS:
        raise ConfigError(
            f'Invalid inputResolution {config.input_resolution}. A network input of {width} x '
            f'{height} pixels is more than can be run; 4097 x 4097 is the most'
        )


def _load_onnxruntime(config: ModelConfig, runtime: RuntimeConfig) -> tuple[Backend, Checkpoint]:
    with dependencies_for('running on the CPU'):
        from posenet_ros.backends.onnxruntime import OnnxRuntimeBackend

    precision = chosen_precision(config, runtime)
    if runtime.precision is None and precision == 'fp16':
        precision = 'fp32'  # CPUs have no float16 to compute in
    checkpoint = weights_for(config, precision)
    model = network(
        config, checkpoint, precision, 'onnxruntime', runtime.calibration, shared_rows=True
    )
    backend = OnnxRuntimeBackend(model, precision, runtime.num_threads, runtime.allow_spinning)
    return backend, checkpoint


def _load_tensorrt(
    config: ModelConfig, runtime: RuntimeConfig, max_batch: int, trt: Any, cuda: Cuda
) -> tuple[Backend, Checkpoint]:
    from posenet_ros.backends.engine_cache import cached_engine
    from posenet_ros.backends.tensorrt import EngineRefusedError, TensorRTBackend

    try:
        model, options, checkpoint = engine_inputs(config, runtime, max_batch, trt)
        plan = cached_engine(trt, cuda, model, options)
        try:
            backend = TensorRTBackend(plan, options.precision, trt, cuda)
        except EngineRefusedError as error:
            logger.warning('%s; building it anew', error)
            plan = cached_engine(trt, cuda, model, options, rebuild=True)
            backend = TensorRTBackend(plan, options.precision, trt, cuda)
        return backend, checkpoint
    except BaseException:
        with contextlib.suppress(BackendError):  # the first error is the one to tell
            cuda.close()
        raise


def engine_inputs(
    config: ModelConfig,
    runtime: RuntimeConfig,
    max_batch: int,
    trt: Any,
    progress: Progress = lambda what, done, total: None,
) -> tuple[bytes, EngineOptions, Checkpoint]:
    """What an engine is built from: the ONNX, how, and the weights."""
    from posenet_ros.backends.engine_builder import EngineOptions, Profile, is_strongly_typed

    precision = chosen_precision(config, runtime)
    checkpoint = weights_for(config, precision)
    # Older TensorRT makes its own fp16 from float32.
    in_graph = 'fp32' if precision == 'fp16' and not is_strongly_typed(trt) else precision
    model = network(config, checkpoint, in_graph, 'tensorrt', runtime.calibration, progress)
    options = EngineOptions(
        precision,
        Profile.batches(*config.valid_resolution, max_batch),
        runtime.workspace_mib,
        runtime.dla_core if runtime.dla_core >= 0 else None,
    )
    return model, options, checkpoint
