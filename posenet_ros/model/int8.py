"""float32 ONNX -> int8 ONNX, calibrated on images (post-training quantisation).

ONNX Runtime's quantizer writes the int8 graph. Alone it moves keypoints by twelve pixels, because
errors of the small depthwise kernels add up; three steps before it keep the poses:

1. Ranges, for TensorRT's symmetric activations. Cross-layer equalisation (Nagel et al. 2019):
   channels that stay far below ReLU6's limit are scaled up, and the next layer's weights down.
   Activations that no padding follows are centred on 0, so that all 256 steps are used. Neither
   changes the float32 result.
2. Rounding. GPTQ (Frantar et al. 2022): each weight is rounded so that it compensates the error
   that earlier ones made in the layer's output. Bias correction (Nagel et al. 2019): the bias
   compensates the rest of the mean error.
   Where they are, there is no Clip: quantisation itself ends at the limits.
3. The first layers lose most accuracy and cost little time. As many stay in float32 as it takes to
   keep displacements within a pixel on the images. The heads always stay in float32.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from posenet_ros.core.heads import HEADS, INPUT_NAME
from posenet_ros.model.calibration import CalibrationSet
from posenet_ros.model.onnx_variants import head_chains, head_nodes
from posenet_ros.progress import Progress, no_progress

LAYOUTS = ('tensorrt', 'onnxruntime')

# A convolution, its ReLU6, and the layers that read it.
Edge = tuple[onnx.NodeProto, onnx.NodeProto, list[onnx.NodeProto]]

RELU6_LIMIT = 6.0
CENTRE = RELU6_LIMIT / 2
# Channels are scaled to a quarter of the limit, which leaves headroom for other images. With half,
# networks calibrated on generated images lost 0.01 OKS on photos.
EQUALISATION_MARGIN = 4.0
MAX_EQUALISATION = 64.0
SAMPLES_PER_LAYER = 6000  # output positions, over all images, that a layer's rounding is fitted to
DAMPING = 0.01  # of GPTQ, relative to the mean diagonal
GPTQ_BLOCK = 64  # columns between two updates of the rest: affects only the speed
MAX_DISPLACEMENT_ERROR = 0.9  # pixels of the network input, root mean square over all cells
IMAGES_JUDGED = 8
# How many convolutions may stay in float32. Each count ends with a depthwise one: the output of a
# pointwise one is larger and loses two to three times as much when quantised.
FLOAT_LAYERS = (4, 6, 8, 10)

logger = logging.getLogger('posenet_ros')


def calibrated_int8(
    model: onnx.ModelProto,
    images: CalibrationSet,
    architecture: str,
    layout: str,
    progress: Progress,
) -> onnx.ModelProto:
    """to_int8 with a calibration set, which is named in the graph's metadata. Takes about 10 s.

    Args:
        model: from export_onnx, in float32, for one input size.
        images: what it is calibrated with.
        architecture: decides how images are normalised.
        layout: tensorrt or onnxruntime.
        progress: called with what is being done.

    Raises:
        ImageError, PoseNetError: the photos cannot be read.
    """
    height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[2:])
    inputs = images.inputs(height, width, architecture)
    quantized = to_int8(model, inputs, layout, progress=progress)
    digest = hashlib.sha256(inputs.tobytes()).hexdigest()
    helper.set_model_props(
        quantized, {'calibration': images.source or 'generated', 'inputs_sha256': digest}
    )
    return quantized


def to_int8(
    model: onnx.ModelProto,
    images: np.ndarray,
    layout: str,
    float_layers: int | None = None,
    progress: Progress = no_progress,
) -> onnx.ModelProto:
    """Quantises all layers but the first few and the heads.

    Args:
        model: from export_onnx, in float32; not changed.
        images: network inputs, float32 (n, 3, height, width).
        layout: tensorrt (symmetric, only the convolutions quantised) or onnxruntime (uint8
            activations, every operation quantised); each is slow in the other, or rejected.
        float_layers: how many of the first convolutions stay in float32; None decides by the error.
        progress: called with what is being done.
    """
    graph = copy.deepcopy(model)
    if layout == 'tensorrt':
        _equalise(graph, images)
        _centre(graph)
    rounded = _round_weights(graph, images, progress)
    choices = FLOAT_LAYERS if float_layers is None else (float_layers,)
    for i, count in enumerate(choices):
        progress('choosing the layers that stay in float32', i + 1, len(choices))
        partly = _with_float_front(rounded, graph, count)
        if layout == 'tensorrt':
            _uncentre_float(partly, count)
        quantized = _quantize(partly, images, layout, count)
        if layout == 'tensorrt':
            _limit_by_quantization(quantized)
        error = displacement_error(model, quantized, images[:IMAGES_JUDGED])
        if error <= MAX_DISPLACEMENT_ERROR:
            break
    if layout == 'onnxruntime':
        _merge_heads(quantized)
    logger.info('int8 (%s): %d layers in float32, error %.2f pixels', layout, count, error)
    return quantized


def displacement_error(
    reference: onnx.ModelProto, model: onnx.ModelProto, images: np.ndarray
) -> float:
    """Root mean square difference of all displacements, in pixels of the network input."""
    names = [name for name in HEADS if name.startswith('displacement')]
    sessions = [_session(graph, names) for graph in (reference, model)]
    squares = []
    for image in images:
        wanted, given = (session.run(names, {INPUT_NAME: image[None]}) for session in sessions)
        squares += [np.square(g - w).mean() for g, w in zip(given, wanted, strict=True)]
    return float(np.sqrt(np.mean(squares)))


# 1. Ranges.


def _equalise(model: onnx.ModelProto, images: np.ndarray) -> None:
    """Scales channels up towards ReLU6's limit. Only rare extremes change the float32 result."""
    constants = _constants(model)
    edges = _relu6_edges(model)
    if not edges:
        return  # ResNet50 has no ReLU6
    names = [clip.output[0] for _, clip, _ in edges]
    session = _session(model, names)
    highest = [np.zeros(1, np.float32)] * len(names)
    for image in images:
        outputs = session.run(names, {INPUT_NAME: image[None]})
        highest = [
            np.maximum(h, o.max(axis=(0, 2, 3))) for h, o in zip(highest, outputs, strict=True)
        ]
    for (conv, _, readers), largest in zip(edges, highest, strict=True):
        lowest_limit = RELU6_LIMIT / MAX_EQUALISATION
        factor = RELU6_LIMIT / np.clip(EQUALISATION_MARGIN * largest, lowest_limit, RELU6_LIMIT)
        kernel, bias = (constants[name] for name in conv.input[1:3])
        _set(kernel, _array(kernel) * factor[:, None, None, None])
        _set(bias, _array(bias) * factor)
        for reader in readers:
            kernel = constants[reader.input[1]]
            by_input = (-1, 1, 1, 1) if _attributes(reader)['group'] > 1 else (1, -1, 1, 1)
            _set(kernel, _array(kernel) / factor.reshape(by_input))


def _centre(model: onnx.ModelProto) -> None:
    """Shifts activations from [0, 6] to [-3, 3] where no zero padding follows."""
    edges = [
        (conv, clip, readers)
        for conv, clip, readers in _relu6_edges(model)
        if not any(any(_attributes(reader)['pads']) for reader in readers)
    ]
    _shift(model, edges, -CENTRE, (-CENTRE, CENTRE))


def _uncentre_float(model: onnx.ModelProto, float_layers: int) -> None:
    """Shifts activations back that stay in float: plain ReLU6 is what every runtime knows best."""
    quantized = {node.name for node in _inner_convolutions(model)[float_layers:]}
    constants = _constants(model)
    edges = [
        (conv, clip, readers)
        for conv, clip, readers in _relu6_edges(model)
        if _array(constants[clip.input[1]]) < 0
        and not all(reader.name in quantized for reader in readers)
    ]
    _shift(model, edges, CENTRE, (0.0, RELU6_LIMIT))


def _limit_by_quantization(model: onnx.ModelProto) -> None:
    """Takes the Clip away where quantisation does the same: -3 is -128 steps, and 3 is 127.

    It is one operation less. Besides, TensorRT 8.5 applies limits other than ReLU6's in steps
    instead of in values where it fuses them into an int8 depthwise convolution: -3 to 3 steps of
    128 were left, and nobody was seen (measured on an H200; doc/gpu.md).
    """
    constants = _constants(model)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    step = np.float32(CENTRE / 128)
    for clip in [node for node in model.graph.node if node.op_type == 'Clip']:
        quantizers = readers[clip.output[0]]
        if _array(constants[clip.input[1]]) >= 0 or any(
            node.op_type != 'QuantizeLinear' for node in quantizers
        ):
            continue
        for quantizer in quantizers:
            quantizer.input[0] = clip.input[0]
            for node in (quantizer, *readers[quantizer.output[0]]):
                _set(constants[node.input[1]], step)
        model.graph.node.remove(clip)
    _drop_unused_constants(model)


def _shift(
    model: onnx.ModelProto, edges: Sequence[Edge], offset: float, limits: tuple[float, float]
) -> None:
    """Adds an offset to activations, and takes it away again in the layers that read them."""
    constants = _constants(model)
    names = [f'{limit:g}' for limit in limits]
    model.graph.initializer.extend(
        numpy_helper.from_array(np.float32(limit), name)
        for limit, name in zip(limits, names, strict=True)
        if name not in constants
    )
    for conv, clip, readers in edges:
        bias = constants[conv.input[2]]
        _set(bias, _array(bias) + offset)
        clip.input[1], clip.input[2] = names
        for reader in readers:
            kernel, bias = (constants[name] for name in reader.input[1:3])
            _set(bias, _array(bias) - offset * _array(kernel).sum(axis=(1, 2, 3)))


def _relu6_edges(model: onnx.ModelProto) -> list[Edge]:
    """Convolution, its ReLU6, and the readers of that, where all readers are convolutions."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    producers = {node.output[0]: node for node in model.graph.node}
    return [
        (producers[clip.input[0]], clip, readers[clip.output[0]])
        for clip in model.graph.node
        if clip.op_type == 'Clip'
        and producers[clip.input[0]].op_type == 'Conv'
        and all(
            reader.op_type == 'Conv' and len(reader.input) == 3
            for reader in (producers[clip.input[0]], *readers[clip.output[0]])
        )
    ]


# 2. Rounding.


def _round_weights(
    model: onnx.ModelProto, images: np.ndarray, progress: Progress
) -> onnx.ModelProto:
    """The graph with every weight rounded to its grid of 255 steps, and corrected biases."""
    rounded = copy.deepcopy(model)
    constants = _constants(rounded)
    convolutions = _inner_convolutions(model)
    names = sorted({node.input[0] for node in convolutions})
    session = _session(model, names)
    generator = np.random.default_rng(0)
    samples = -(-SAMPLES_PER_LAYER // len(images))
    moments = {node.name: _Moments(len(images)) for node in convolutions}
    for i, image in enumerate(images):
        progress('measuring the activations', i + 1, len(images))
        inputs = dict(zip(names, session.run(names, {INPUT_NAME: image[None]}), strict=True))
        for node in convolutions:
            moments[node.name].add(inputs[node.input[0]][0], node, samples, generator)
    for i, node in enumerate(convolutions):
        progress('rounding the weights', i + 1, len(convolutions))
        kernel = constants[node.input[1]]
        weights = _array(kernel)
        rows = weights.reshape(len(weights), -1)
        steps = np.maximum(np.abs(rows).max(axis=1), 1e-12) / 127
        whole = _gptq(rows, steps, moments[node.name].products)
        # The largest weight defines the step, here and in the quantizer: it must not be changed.
        largest = np.abs(rows).argmax(axis=1)[:, None]
        np.put_along_axis(whole, largest, 127 * np.sign(np.take_along_axis(rows, largest, 1)), 1)
        given = (whole * steps[:, None]).astype(np.float32)
        _set(kernel, given.reshape(weights.shape))
        if len(node.input) == 3:
            bias = constants[node.input[2]]
            _set(bias, _array(bias) + ((rows - given) * moments[node.name].means).sum(axis=1))
    return rounded


class _Moments:
    """Means and products of the input patches of a convolution.

    Depthwise kernels (o, 1, kh, kw), a channel each: means (o, kh kw), products (o, k, k).
    Other kernels share their patches: means (1, c kh kw), products (k, k).
    """

    def __init__(self, num_images: int) -> None:
        self._num_images = num_images
        self.means: Any = 0.0
        self.products: Any = 0.0

    def add(
        self, image: np.ndarray, node: onnx.NodeProto, samples: int, generator: np.random.Generator
    ) -> None:
        """Adds an input (c, h, w), with its products at random output positions."""
        attributes = _attributes(node)
        top, left, bottom, right = attributes['pads']
        padded = np.pad(image, ((0, 0), (top, bottom), (left, right)))
        (kernel_h, kernel_w), (dy, dx) = attributes['kernel_shape'], attributes['dilations']
        sy, sx = attributes['strides']
        rows = (padded.shape[1] - (kernel_h - 1) * dy - 1) // sy + 1
        columns = (padded.shape[2] - (kernel_w - 1) * dx - 1) // sx + 1
        y = generator.integers(0, rows, samples) * sy
        x = generator.integers(0, columns, samples) * sx
        taps = [(i * dy, j * dx) for i in range(kernel_h) for j in range(kernel_w)]
        seen = np.stack([padded[:, y + i, x + j] for i, j in taps], axis=1)  # c, k, samples
        means = np.stack(
            [
                padded[:, i : i + rows * sy : sy, j : j + columns * sx : sx].mean(axis=(1, 2))
                for i, j in taps
            ],
            axis=1,
        )
        if attributes['group'] > 1:
            self.means = self.means + means / self._num_images
            self.products = self.products + seen @ seen.transpose(0, 2, 1)
        else:
            seen = seen.reshape(-1, samples)
            self.means = self.means + means.reshape(1, -1) / self._num_images
            self.products = self.products + seen @ seen.T


def _gptq(rows: np.ndarray, steps: np.ndarray, products: np.ndarray) -> np.ndarray:
    """GPTQ: integers (o, k) that minimise the error of the layer's output.

    Args:
        rows: weights (o, k).
        steps: size of the quantisation step of each row (o,).
        products: sum of patch times patch: (k, k), or (o, k, k) where each row has its own.
    """
    size = rows.shape[1]
    # Inputs with the largest moments are rounded first; small kernels keep their order.
    order = np.arange(size) if products.ndim == 3 else np.argsort(-np.diag(products), kind='stable')
    damped = products[..., order[:, None], order].astype(np.float64)
    diagonal = np.einsum('...ii->...i', damped)
    diagonal += DAMPING * diagonal.mean(axis=-1, keepdims=True) + 1e-9
    upper = np.swapaxes(np.linalg.cholesky(np.linalg.inv(damped)), -1, -2)
    left = rows[:, order].astype(np.float64)
    whole = np.empty_like(left)
    for start in range(0, size, GPTQ_BLOCK):
        end = min(start + GPTQ_BLOCK, size)
        errors = np.zeros((len(rows), end - start))
        for i in range(start, end):
            whole[:, i] = np.clip(np.rint(left[:, i] / steps), -127, 127)
            error = (left[:, i] - whole[:, i] * steps) / upper[..., i, i]
            left[:, i + 1 : end] -= error[:, None] * upper[..., i, i + 1 : end]
            errors[:, i - start] = error
        if end < size:
            left[:, end:] -= errors @ upper[start:end, end:]
    back = np.empty_like(whole)
    back[:, order] = whole
    return back


# 3. What stays in float32, and the quantizer.


def _with_float_front(
    rounded: onnx.ModelProto, original: onnx.ModelProto, count: int
) -> onnx.ModelProto:
    """The rounded graph with the first `count` convolutions as they were."""
    model = copy.deepcopy(rounded)
    constants, exact = _constants(model), _constants(original)
    for node in _inner_convolutions(model)[:count]:
        for name in node.input[1:]:
            constants[name].CopyFrom(exact[name])
    return model


def _quantize(
    model: onnx.ModelProto, images: np.ndarray, layout: str, float_layers: int
) -> onnx.ModelProto:
    """Runs ONNX Runtime's quantizer with the options of a layout."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {INPUT_NAME: image[None]}

    front = {node.name for node in _inner_convolutions(model)[:float_layers]}
    outputs = {node.output[0] for node in model.graph.node if node.name in front}
    front |= {  # and their activations
        node.name
        for node in model.graph.node
        if node.op_type != 'Conv' and node.input[0] in outputs
    }
    options: dict[str, Any]
    if layout == 'tensorrt':
        options = {
            'activation_type': QuantType.QInt8,
            'op_types_to_quantize': ['Conv'],
            'extra_options': {
                'ActivationSymmetric': True,
                'WeightSymmetric': True,
                'QuantizeBias': False,
                'OpTypesToExcludeOutputQuantization': ['Conv'],
            },
        }
    else:
        options = {
            'activation_type': QuantType.QUInt8,
            'op_types_to_quantize': ['Conv', 'Clip', 'Relu', 'Add', 'MaxPool'],
        }
    logging.getLogger().addFilter(_no_advice)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / 'float.onnx', Path(folder) / 'int8.onnx'
            onnx.save(model, source)
            quantize_static(
                str(source),
                str(target),
                Images(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=sorted(front | head_nodes(model)),
                **options,
            )
            return onnx.load(target)
    finally:
        logging.getLogger().removeFilter(_no_advice)


def _no_advice(record: logging.LogRecord) -> bool:
    """Filters advice on a step that our graphs do not need, and warnings of dead channels."""
    message = record.getMessage()
    return not ('pre-processing before quant' in message or message.startswith('Increased scale'))


def _merge_heads(model: onnx.ModelProto) -> None:
    """Merges the heads' convolutions into one, whose output is split; the numbers stay the same.

    ONNX Runtime would dequantise the shared input once for each head: at 513, 0.4 of 20 ms.
    TensorRT merges them by itself.
    """
    graph, constants = model.graph, _constants(model)
    chains = head_chains(model)
    convolutions = [chains[output][-1] for output in HEADS]
    between = {node.op_type for chain in chains.values() for node in chain[:-1]}
    if not between <= {'Transpose', 'Sigmoid'} or any(len(n.input) < 3 for n in convolutions):
        return
    first = convolutions[0]

    def kind(node: onnx.NodeProto) -> tuple[Any, ...]:
        kernel = _array(constants[node.input[1]])
        return node.input[0], kernel.shape[1:], _attributes(node)

    if any(kind(node) != kind(first) for node in convolutions):
        return
    kernels, biases = ([_array(constants[node.input[i]]) for node in convolutions] for i in (1, 2))
    for name, values in (
        ('heads/kernel', np.concatenate(kernels)),
        ('heads/bias', np.concatenate(biases)),
        ('heads/channels', np.array([bias.size for bias in biases])),
    ):
        graph.initializer.append(numpy_helper.from_array(values, name))
    for node in [node for chain in chains.values() for node in chain]:
        graph.node.remove(node)
    scores, *others = HEADS
    graph.node.extend(
        [
            helper.make_node(
                'Conv',
                [first.input[0], 'heads/kernel', 'heads/bias'],
                ['heads/conv'],
                name='heads/conv',
                **_attributes(first),
            ),
            helper.make_node(
                'Transpose',
                ['heads/conv'],
                ['heads/transpose'],
                name='heads/transpose',
                perm=[0, 2, 3, 1],
            ),
            helper.make_node(
                'Split',
                ['heads/transpose', 'heads/channels'],
                ['heads/logits', *others],
                name='heads/split',
                axis=3,
            ),
            helper.make_node('Sigmoid', ['heads/logits'], [scores], name=scores),
        ]
    )
    _drop_unused_constants(model)
    onnx.checker.check_model(model)


# Helpers.


def _inner_convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The convolutions before the heads, in their order."""
    heads = head_nodes(model)
    return [node for node in model.graph.node if node.op_type == 'Conv' and node.name not in heads]


def _session(model: onnx.ModelProto, outputs: Sequence[str]) -> ort.InferenceSession:
    """A session whose outputs are inner tensors."""
    changed = copy.deepcopy(model)
    known = {output.name: output for output in model.graph.output}
    del changed.graph.output[:]
    changed.graph.output.extend(
        known.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in outputs
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Exact also where products of int8 saturate: on x86 before VNNI.
    options.add_session_config_entry('session.x64quantprecision', '1')
    return ort.InferenceSession(
        changed.SerializeToString(), options, providers=['CPUExecutionProvider']
    )


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {constant.name: constant for constant in model.graph.initializer}


def _drop_unused_constants(model: onnx.ModelProto) -> None:
    used = {name for node in model.graph.node for name in node.input}
    for name, constant in _constants(model).items():
        if name not in used:
            model.graph.initializer.remove(constant)


def _array(constant: onnx.TensorProto) -> np.ndarray:
    return numpy_helper.to_array(constant)


def _set(constant: onnx.TensorProto, value: np.ndarray) -> None:
    array = np.ascontiguousarray(value, np.float32)
    constant.CopyFrom(numpy_helper.from_array(array, constant.name))
