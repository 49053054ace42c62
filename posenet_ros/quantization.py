"""The network in int8, from the float32 graph and images like those that it will see.

onnxruntime's quantizer writes the int8 graph. What comes before it is what keeps the poses: plain
rounding loses a person in twelve pixels, since errors of the small depthwise kernels add up.

1. Ranges (TensorRT's layout, whose activations are symmetric): channels that never come near their
   limit of 6 are scaled up and the next layer's weights down (cross-layer equalisation, Nagel et
   al. 2019, here without any effect on the float32 result), and activations that no padding
   follows are centred on 0, so that all 255 steps are used and not half of them.
2. Rounding: each weight is rounded so that what the rounding of the ones before it did to the
   layer's output is made up for (GPTQ, Frantar et al. 2022), and the bias takes the rest of the
   mean error (bias correction, Nagel et al. 2019).
3. The first layers lose most and cost little: as many stay in float32 as it takes to keep the
   displacements within a pixel, measured on the images. The heads always do.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from posenet_ros.calibration import CalibrationSet
from posenet_ros.onnx_names import HEADS, INPUT_NAME
from posenet_ros.onnx_precision import head_nodes, producer

LAYOUTS = ('tensorrt', 'onnxruntime')

RELU6_LIMIT = 6.0
# Channels are scaled to a quarter of the limit: so images unlike these have room before they are
# cut. With half of it, generated images cost photos 0.01 of OKS.
EQUALISATION_MARGIN = 4.0
MAX_EQUALISATION = 64.0
SAMPLES_PER_LAYER = 6000  # places of all images that a layer's rounding is fitted to
DAMPING = 0.01  # of GPTQ, relative to the mean diagonal
GPTQ_BLOCK = 64  # weights of a row after which the rest is made up for: for speed alone
MAX_DISPLACEMENT_ERROR = 0.9  # pixels of the network input, root mean square over all cells
IMAGES_JUDGED = 8
# How many convolutions may stay in float32: up to a depthwise one, since what a pointwise one gives
# loses two to three times as much by being rounded, and is larger.
FLOAT_LAYERS = (4, 6, 8, 10)

Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much

logger = logging.getLogger('posenet_ros')


def calibrated_int8(
    model: onnx.ModelProto,
    images: CalibrationSet,
    architecture: str,
    layout: str,
    progress: Progress = lambda what, done, total: None,
) -> onnx.ModelProto:
    """to_int8 with a calibration set, whose hash goes into the graph's metadata.

    Takes ten seconds or so.

    Args:
        model: of export_onnx, in float32, for one input size.
        images: what it is calibrated with.
        architecture: which tells how images are normalised.
        layout: tensorrt or onnxruntime.
        progress: told what is done.

    Raises:
        ImageError, PoseNetError: the photos cannot be read.
    """
    height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[2:])
    inputs = images.inputs(height, width, architecture)
    quantized = to_int8(model, inputs, layout, progress=progress)
    helper.set_model_props(
        quantized, {'calibration': images.source or 'generated', 'sha256': images.sha256}
    )
    return quantized


def to_int8(
    model: onnx.ModelProto,
    images: np.ndarray,
    layout: str,
    float_layers: int | None = None,
    progress: Progress = lambda what, done, total: None,
) -> onnx.ModelProto:
    """A graph that computes in int8, from the image to the last convolution before the heads.

    Args:
        model: of export_onnx, in float32; not changed.
        images: network inputs, float32 (n, 3, height, width).
        layout: tensorrt (symmetric, quantised around the convolutions alone) or onnxruntime
            (uint8 activations, every operation quantised): each is slow or refused elsewhere.
        float_layers: how many convolutions stay in float32 at the front; None chooses.
        progress: told what is done.
    """
    graph = copy.deepcopy(model)
    if layout == 'tensorrt':
        _equalise(graph, images)
        _centre(graph)
    rounded = _round_weights(graph, images, progress)
    choices = FLOAT_LAYERS if float_layers is None else (float_layers,)
    for i, count in enumerate(choices):
        progress('choosing the layers that stay in float32', i + 1, len(choices))
        quantized = _quantize(_with_float_front(rounded, graph, count), images, layout, count)
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
    """Scales channels up to their limit of 6. The float32 result stays, but for rare extremes."""
    constants = _constants(model)
    edges = _relu6_edges(model)
    if not edges:
        return  # ResNet's activations have no limit
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
    """Turns [0, 6] into [-3, 3] where no padding follows, which would no longer be 0."""
    constants = _constants(model)
    half = RELU6_LIMIT / 2
    limits = [numpy_helper.from_array(np.float32(limit), f'{limit:g}') for limit in (-half, half)]
    model.graph.initializer.extend(limits)
    for conv, clip, readers in _relu6_edges(model):
        if any(any(_attributes(reader)['pads']) for reader in readers):
            continue
        bias = constants[conv.input[2]]
        _set(bias, _array(bias) - half)
        clip.input[1], clip.input[2] = (limit.name for limit in limits)
        for reader in readers:
            kernel, bias = (constants[name] for name in reader.input[1:3])
            _set(bias, _array(bias) + half * _array(kernel).sum(axis=(1, 2, 3)))


def _relu6_edges(
    model: onnx.ModelProto,
) -> list[tuple[onnx.NodeProto, onnx.NodeProto, list[onnx.NodeProto]]]:
    """Convolution, ReLU6, and the convolutions that read it, where nothing else does."""
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
    """The same graph with every weight on its grid of 255 steps, and biases that fit."""
    rounded = copy.deepcopy(model)
    constants = _constants(rounded)
    convolutions = _inner_convolutions(model)
    names = sorted({node.input[0] for node in convolutions})
    session = _session(model, names)
    generator = np.random.default_rng(0)
    samples = -(-SAMPLES_PER_LAYER // len(images))
    moments = {node.name: _Moments(len(images)) for node in convolutions}
    for i, image in enumerate(images):
        progress('looking at the images', i + 1, len(images))
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
        # The largest weight sets the step, here and in the quantizer after us.
        largest = np.abs(rows).argmax(axis=1)[:, None]
        np.put_along_axis(whole, largest, 127 * np.sign(np.take_along_axis(rows, largest, 1)), 1)
        given = (whole * steps[:, None]).astype(np.float32)
        _set(kernel, given.reshape(weights.shape))
        if len(node.input) == 3:
            bias = constants[node.input[2]]
            _set(bias, _array(bias) + ((rows - given) * moments[node.name].means).sum(axis=1))
    return rounded


class _Moments:
    """First and second moments of what the kernel of a convolution sees.

    Depthwise kernels (o, 1, kh, kw) see a channel each: means (o, kh kw), products (o, k, k).
    Others see the same: means (1, c kh kw), products (k, k).
    """

    def __init__(self, num_images: int) -> None:
        self._num_images = num_images
        self.means: Any = 0.0
        self.products: Any = 0.0

    def add(
        self, image: np.ndarray, node: onnx.NodeProto, samples: int, generator: np.random.Generator
    ) -> None:
        """Adds an input (c, h, w), its products at some places of the output."""
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
    """Whole numbers (o, k) for weights (o, k) in steps (o,), by the error of the output.

    Args:
        rows: the weights.
        steps: of each row.
        products: what the weights see, times itself, summed: (k, k), or (o, k, k) a row's own.
    """
    size = rows.shape[1]
    # What matters most is rounded first; small kernels are left in their order.
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
    """The graph by onnxruntime's quantizer, as each layout wants it."""
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
    """The quantizer advises a step that our graphs do not need, and tells of dead channels."""
    message = record.getMessage()
    return not ('pre-processing before quant' in message or message.startswith('Increased scale'))


def _merge_heads(model: onnx.ModelProto) -> None:
    """The heads' convolutions as one, whose output is split; to the same numbers.

    ONNX Runtime gives each head a float32 copy of its input of its own: at 513, 0.4 of 20 ms.
    TensorRT merges them by itself.
    """
    graph, constants = model.graph, _constants(model)
    heads = head_nodes(model)
    convolutions = []  # in the order of HEADS
    for output in HEADS:
        node = producer(graph, output)
        while node.op_type in ('Transpose', 'Sigmoid'):
            node = producer(graph, node.input[0])
        if node.op_type != 'Conv' or len(node.input) < 3:
            return
        convolutions.append(node)
    first = convolutions[0]

    def kind(node: onnx.NodeProto) -> tuple:
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
    for node in [node for node in graph.node if node.name in heads]:
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
    used = {name for node in graph.node for name in node.input}
    for constant in [constant for constant in graph.initializer if constant.name not in used]:
        graph.initializer.remove(constant)
    onnx.checker.check_model(model)


# Helpers.


def _inner_convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The convolutions before the heads, in their order."""
    heads = head_nodes(model)
    return [node for node in model.graph.node if node.op_type == 'Conv' and node.name not in heads]


def _session(model: onnx.ModelProto, outputs: Sequence[str]) -> ort.InferenceSession:
    """A session that gives inner tensors too, and runs no further than needed."""
    changed = copy.deepcopy(model)
    known = {output.name: output for output in model.graph.output}
    del changed.graph.output[:]
    changed.graph.output.extend(
        known.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in outputs
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(
        changed.SerializeToString(), options, providers=['CPUExecutionProvider']
    )


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {constant.name: constant for constant in model.graph.initializer}


def _array(constant: onnx.TensorProto) -> np.ndarray:
    return numpy_helper.to_array(constant)


def _set(constant: onnx.TensorProto, value: np.ndarray) -> None:
    array = np.ascontiguousarray(value, np.float32)
    constant.CopyFrom(numpy_helper.from_array(array, constant.name))
