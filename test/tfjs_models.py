"""Writes small tfjs graph models with real structure: for tests of reading and converting."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np


def b64(text: str) -> dict:
    return {'s': base64.b64encode(text.encode()).decode()}


def ints(*values: int) -> dict:
    return {'list': {'i': [str(value) for value in values]}}


class GraphWriter:
    """Collects nodes and weights, and writes them as the tfjs converter does."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.nodes: list[dict] = []
        self.weights: dict[str, np.ndarray] = {}
        self.node('sub_2', 'Placeholder')

    def node(self, name: str, op: str, *inputs: str, **attributes) -> str:
        self.nodes.append({'name': name, 'op': op, 'input': list(inputs), 'attr': attributes})
        return name

    def const(self, name: str, value: np.ndarray) -> str:
        self.weights[name] = value
        return self.node(name, 'Const')

    def random(self, name: str, *shape: int) -> str:
        return self.const(name, self.generator.normal(0, 0.3, shape).astype(np.float32))

    def conv(
        self,
        name: str,
        source: str,
        kernel: tuple[int, int, int, int],
        stride: int = 1,
        dilations: tuple[int, ...] = (1, 1, 1, 1),
        padding: str = 'SAME',
        activation: str | None = None,
        fused: bool = False,
    ) -> str:
        """Convolution, bias and activation; depthwise where the kernel says 1 output per input."""
        depthwise = kernel[3] == 0
        shape = (*kernel[:3], 1) if depthwise else kernel
        depth = kernel[2] if depthwise else kernel[3]
        weights = self.random(f'{name}/weights', *shape)
        bias = self.random(f'{name}/bias', depth)
        window = {
            'strides': ints(1, stride, stride, 1),
            'dilations': ints(*dilations),
            'padding': b64(padding),
            'data_format': b64('NHWC'),
        }
        if fused:
            names = ['BiasAdd', *([activation] if activation else [])]
            window['fused_ops'] = {'list': {'s': [b64(n)['s'] for n in names]}}
            op = 'FusedDepthwiseConv2dNative' if depthwise else '_FusedConv2D'
            return self.node(name, op, source, weights, bias, **window)
        op = 'DepthwiseConv2dNative' if depthwise else 'Conv2D'
        self.node(f'{name}/conv', op, source, weights, **window)
        biased = name if activation is None else f'{name}/biased'
        self.node(biased, 'BiasAdd', f'{name}/conv', bias)
        return self.node(name, activation, biased) if activation else name

    def heads(self, source: str, channels: int, fused: bool = False) -> None:
        for name, depth in (
            ('offset_2', 34),
            ('heatmap_2', 17),
            ('displacement_fwd_2', 32),
            ('displacement_bwd_2', 32),
        ):
            self.conv(f'net/{name}/BiasAdd', source, (1, 1, channels, depth), fused=fused)

    def write(self, path: Path, storage: str = 'float32', shards: int = 1) -> Path:
        """Writes the graph and its shards. `storage` is how the weights are kept."""
        data, manifest = b'', []
        for name, value in self.weights.items():
            entry: dict = {'name': name, 'shape': list(value.shape), 'dtype': str(value.dtype)}
            if value.dtype == np.float32 and storage == 'float16':
                entry['quantization'] = {'dtype': 'float16'}
                value = value.astype('<f2')
            elif value.dtype == np.float32 and storage in ('uint8', 'uint16'):
                low, high = float(value.min()), float(value.max())
                scale = (high - low) / np.iinfo(storage).max or 1.0
                entry['quantization'] = {'dtype': storage, 'min': low, 'scale': scale}
                value = np.rint((value - low) / scale).astype(storage)
            data += value.tobytes()
            manifest.append(entry)
        names = [f'group1-shard{i + 1}of{shards}.bin' for i in range(shards)]
        size = -(-len(data) // shards)
        for i, name in enumerate(names):
            (path.parent / name).write_bytes(data[i * size : (i + 1) * size])
        model = {
            'format': 'graph-model',
            'modelTopology': {'node': self.nodes},
            'weightsManifest': [{'paths': names, 'weights': manifest}],
        }
        path.write_text(json.dumps(model))
        return path


def mobilenet_like(
    fused: bool = False, dilations: tuple[int, ...] = (1, 1, 1, 1), output_stride: int = 4
) -> GraphWriter:
    """Two or more stride-2 convolutions, a depthwise one that may be dilated, the four heads."""
    graph = GraphWriter()
    relu6 = {'activation': 'Relu6', 'fused': fused}
    tensor = graph.conv('conv0', 'sub_2', (3, 3, 3, 8), stride=2, **relu6)
    tensor = graph.conv('conv1', tensor, (3, 3, 8, 0), stride=2, **relu6)
    for stride in range(3, output_stride.bit_length()):
        tensor = graph.conv(f'down{stride}', tensor, (3, 3, 8, 0), stride=2, **relu6)
    tensor = graph.conv('conv2', tensor, (3, 3, 8, 0), dilations=dilations, **relu6)
    tensor = graph.conv('conv3', tensor, (1, 1, 8, 16), **relu6)
    graph.heads(tensor, 16, fused)
    return graph


def resnet_like() -> GraphWriter:
    """Padding of its own, pooling, a residual addition and an identity: stride 4."""
    graph = GraphWriter(1)
    graph.const('pad/paddings', np.array([[0, 0], [3, 3], [3, 3], [0, 0]], np.int32))
    graph.node('pad', 'Pad', 'sub_2', 'pad/paddings')
    tensor = graph.conv(
        'conv1', 'pad', (7, 7, 3, 8), stride=2, padding='VALID', activation='Relu', fused=True
    )
    window = {'ksize': ints(1, 3, 3, 1), 'strides': ints(1, 2, 2, 1), 'padding': b64('SAME')}
    graph.node('pool', 'MaxPool', tensor, **window)
    branch = graph.conv('unit/conv', 'pool', (3, 3, 8, 8), dilations=(1, 2, 2, 1))
    graph.node('unit/identity', 'Identity', 'pool')
    graph.node('unit/add', 'AddV2', branch, 'unit/identity')
    graph.node('unit/relu', 'Relu', 'unit/add')
    graph.heads('unit/relu', 8)
    return graph


def reference_heads(graph: GraphWriter, image: np.ndarray, tfjs_dilations=False) -> dict:
    """What the graph computes, by the definitions of its operations, in plain numpy (float64).

    Of an image (3, height, width), as the ONNX graph takes it; tfjs has the channels last.
    """
    values: dict[str, np.ndarray] = {'sub_2': image.transpose(1, 2, 0).astype(np.float64)}
    for node in graph.nodes:
        name, op, attr = node['name'], node['op'], node['attr']
        if op in ('Placeholder', 'Const'):
            values.setdefault(name, graph.weights.get(name))
            continue
        inputs = [values[i] for i in node['input']]
        if op == 'Pad':
            value = np.pad(inputs[0], inputs[1][1:])
        elif op == 'MaxPool':
            value = slide(inputs[0], None, attr, (1, 1), maximum=True)
        elif 'Conv' in op:
            stored = [int(i) for i in attr['dilations']['list']['i']]
            swapped = stored[0] != 1 and not tfjs_dilations
            dilations = tuple(stored[:2] if swapped else stored[1:3])
            value = slide(inputs[0], inputs[1], attr, dilations, depthwise='Depthwise' in op)
            for i, code in enumerate(attr.get('fused_ops', {'list': {'s': []}})['list']['s']):
                fused = base64.b64decode(code).decode()
                value = value + inputs[2 + i] if fused == 'BiasAdd' else activate(fused, value)
        elif op in ('BiasAdd', 'AddV2'):
            value = inputs[0] + inputs[1]
        elif op == 'Identity':
            value = inputs[0]
        else:
            value = activate(op, inputs[0])
        values[name] = value
    heads = {n: values[f'net/{n}_2/BiasAdd'] for n in (
        'heatmap', 'offset', 'displacement_fwd', 'displacement_bwd')}  # fmt: skip
    heads['heatmap'] = 1 / (1 + np.exp(-heads['heatmap']))
    return heads


def activate(op: str, value: np.ndarray) -> np.ndarray:
    return np.clip(value, 0, {'Relu': np.inf, 'Relu6': 6.0}[op])


def slide(image, kernel, attr, dilations, depthwise=False, maximum=False) -> np.ndarray:
    """A window over an image (h, w, c), as TensorFlow defines SAME and VALID."""
    stride = int(attr['strides']['list']['i'][1])
    if maximum:
        size = tuple(int(i) for i in attr['ksize']['list']['i'][1:3])
    else:
        size = kernel.shape[:2]
    reach = [(size[i] - 1) * dilations[i] + 1 for i in range(2)]
    if base64.b64decode(attr['padding']['s']) == b'SAME':
        total = [
            max((-(-image.shape[i] // stride) - 1) * stride + reach[i] - image.shape[i], 0)
            for i in range(2)
        ]
        pads = [(t // 2, t - t // 2) for t in total]
        image = np.pad(image, [*pads, (0, 0)], constant_values=-np.inf if maximum else 0)
    rows = (image.shape[0] - reach[0]) // stride + 1
    columns = (image.shape[1] - reach[1]) // stride + 1
    result = []
    for y in range(rows):
        for x in range(columns):
            window = image[
                y * stride : y * stride + reach[0] : dilations[0],
                x * stride : x * stride + reach[1] : dilations[1],
            ]
            if maximum:
                result.append(window.max((0, 1)))
            elif depthwise:
                result.append((window[..., None] * kernel).sum((0, 1)).ravel())
            else:
                result.append(np.tensordot(window, kernel, 3))
    return np.array(result).reshape(rows, columns, -1)
