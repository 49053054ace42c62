"""Checkpoint -> tfjs graph -> ONNX -> fp16 or int8: built once, then read from the cache."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from posenet_ros.cache import open_cache
from posenet_ros.config import ModelConfig, check_input_size
from posenet_ros.environment import dependencies_for
from posenet_ros.errors import CheckpointError, GraphError, everything_as
from posenet_ros.input_size import InputSizes
from posenet_ros.model.calibration import CalibrationSet
from posenet_ros.model.checkpoint import Checkpoint, fetch_checkpoint
from posenet_ros.progress import Progress, no_progress

# Part of the cache keys: increase them when the same weights give another graph.
EXPORTER_VERSION = 3
QUANTIZER_VERSION = 5

logger = logging.getLogger('posenet_ros')


@dataclass(frozen=True)
class Network:
    """A PoseNet as ONNX, for any batch."""

    onnx: bytes  # input and outputs: core/heads.py
    precision: str  # fp32, fp16 or int8
    sizes: InputSizes  # that it takes; those of a range are all in the ONNX, with free dimensions
    architecture: str  # decides how images are normalised
    weights_sha256: str


def make_network(
    config: ModelConfig,
    precision: str,
    layout: str = 'tensorrt',
    calibration: str | None = None,
    progress: Progress = no_progress,
) -> Network:
    """The network of a model, from the cache or built.

    Args:
        config: which model.
        precision: fp32, fp16 or int8.
        layout: of int8: tensorrt or onnxruntime. Each is slow in the other runtime, or rejected.
        calibration: photos for int8: a folder, a video or a bag; None takes generated images.
        progress: called while int8 is built.

    Raises:
        ConfigError: the input size cannot be run.
        CheckpointError: the weights are missing, unreachable or damaged.
        GraphError: the checkpoint's graph is not a PoseNet graph.
        ImageError: there are no photos at `calibration`.
    """
    check_input_size(config)
    sizes = config.input_sizes
    # Made for one size and then opened for others, which needs the same layers and weights. int8
    # is calibrated on inputs of this size, and as good on others (doc/int8.md).
    height, width = sizes.typical
    checkpoint = weights_for(config, precision)
    key: dict[str, Any] = {
        'weights': checkpoint.sha256,
        'input': [height, width] if sizes.fixed or precision == 'int8' else None,
        'any_size': not sizes.fixed,
        'output_stride': config.output_stride,
        'tfjs_dilations': config.tfjs_dilations,
        'exporter': EXPORTER_VERSION,
        'precision': precision,
    }
    images = CalibrationSet(calibration)
    if precision == 'int8':
        with dependencies_for('int8'):
            import onnxruntime

        key |= {
            'architecture': config.architecture,  # decides how images are normalised
            'layout': layout,
            'calibration': images.fingerprint(),
            'quantizer': QUANTIZER_VERSION,
            'onnxruntime': onnxruntime.__version__,
        }

    def build(reason: str) -> bytes:
        logger.info('making the %s network (%s)', precision, reason)
        with dependencies_for('making the network'):
            from posenet_ros.model.onnx_export import export_onnx
            from posenet_ros.model.onnx_variants import to_dynamic, to_fp16
        from posenet_ros.model.tfjs_graph import load_graph

        with everything_as(GraphError, f'cannot make a network of {checkpoint.graph_path}'):
            graph = load_graph(checkpoint.graph_path, checkpoint.sha256)
            model = export_onnx(graph, height, width, config.output_stride, config.tfjs_dilations)
            if precision == 'fp16':
                model = to_fp16(model)
            elif precision == 'int8':
                with dependencies_for('making the int8 network'):
                    from posenet_ros.model.int8 import calibrated_int8

                logger.info('int8 takes about ten seconds')
                model = calibrated_int8(model, images, config.architecture, layout, progress)
            if not sizes.fixed:
                model = to_dynamic(model)
            serialized: bytes = model.SerializeToString()
            return serialized

    cache = open_cache('networks', 'the network is built')
    onnx = cache.get(key, build) if cache else build('there is no cache')
    return Network(onnx, precision, sizes, config.architecture, checkpoint.sha256)


def weights_for(config: ModelConfig, precision: str) -> Checkpoint:
    """The checkpoint that a precision is made from.

    int8 is made from the most precise weights available: weights quantised for download would be
    quantised twice, and the published MobileNetV1 files of 1 byte are broken.
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
