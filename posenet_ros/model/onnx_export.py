"""tfjs graph -> ONNX: the PoseNet graphs of MobileNetV1 and ResNet50, operation by operation.

Input: normalised images, float32 (batch, 3, height, width). Outputs: heatmap scores (after the
sigmoid), offsets and displacements, float32, channels last as the decoders read them. Only basic
operations of opset 17 are used, so that TensorRT 8.5 parses the graph too.
"""

from __future__ import annotations

import math
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from posenet_ros.core.heads import HEADS, INPUT_NAME
from posenet_ros.errors import GraphError
from posenet_ros.model.tfjs_graph import Graph, Node

OPSET = 17
# Of a tensor. PoseNets have up to 17 per pixel of the input; a hostile graph could fill the memory.
MAX_VALUES_PER_PIXEL = 64
MIN_PIXELS = 65 * 65  # of a small input, which is padded more


def export_onnx(
    graph: Graph, height: int, width: int, output_stride: int, tfjs_dilations: bool = False
) -> onnx.ModelProto:
    """Converts a graph for inputs of one size, any batch.

    Args:
        graph: a PoseNet graph of tfjs.
        height: of the network input, in pixels.
        width: likewise.
        output_stride: the stride that the graph should have; it is checked.
        tfjs_dilations: run dilations stored as [d, d, 1, 1] as tfjs does, d rows by 1 column,
            instead of the intended d by d.

    Raises:
        GraphError: an unknown operation, by name; a head that is missing or of the wrong shape.
    """
    return _Exporter(graph, height, width, tfjs_dilations).export(output_stride)


class _Exporter:
    """State of one conversion: the ONNX nodes so far, and the size of every tensor."""

    def __init__(self, graph: Graph, height: int, width: int, tfjs_dilations: bool) -> None:
        self.nodes = graph.nodes
        self.weights = dict(graph.weights)
        self.tfjs_dilations = tfjs_dilations
        self.input_size = (height, width)
        self.onnx_nodes: dict[str, onnx.NodeProto] = {}  # by output tensor
        self.constants: dict[str, np.ndarray] = {}
        self.tensors: dict[str, str] = {}  # tfjs node -> ONNX tensor, channels first
        self.sizes: dict[str, tuple[int, int]] = {}  # ONNX tensor -> height, width
        self.depths: dict[str, int] = {INPUT_NAME: 3}  # ONNX tensor -> channels
        self.paddings: dict[str, list[int]] = {}  # of Pad nodes, merged into the next convolution
        self.consumers = Counter(name for node in graph.nodes for name in node.inputs)

    def export(self, output_stride: int) -> onnx.ModelProto:
        operations = {
            'Placeholder': self.placeholder,
            'Const': self.skip,
            'Conv2D': self.conv,
            'DepthwiseConv2dNative': self.conv,
            '_FusedConv2D': self.conv,
            'FusedDepthwiseConv2dNative': self.conv,
            'BiasAdd': self.bias_add,
            'Add': self.add,
            'AddV2': self.add,
            'Relu': self.activation,
            'Relu6': self.activation,
            'MaxPool': self.max_pool,
            'Pad': self.pad,
            'Identity': self.identity,
        }
        for node in self.in_order():
            if node.op not in operations:
                raise GraphError(
                    f'the graph uses the operation {node.op} (node {node.name}), which PoseNet '
                    f'graphs do not have; known are {", ".join(operations)}'
                )
            try:
                operations[node.op](node)
            except (LookupError, TypeError, ValueError, ArithmeticError, StopIteration) as error:
                raise GraphError(
                    f'{node.op} {node.name} is malformed ({type(error).__name__}: {error})'
                ) from error
        outputs = [self.head(name, output_stride) for name in HEADS]
        image = helper.make_tensor_value_info(
            INPUT_NAME, TensorProto.FLOAT, ['batch', 3, *self.input_size]
        )
        model = helper.make_model(
            helper.make_graph(
                list(self.onnx_nodes.values()),
                'posenet',
                [image],
                outputs,
                [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
            ),
            opset_imports=[helper.make_opsetid('', OPSET)],
            ir_version=8,
            producer_name='posenet_ros',
        )
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            raise GraphError(f'the graph makes no valid ONNX model: {error}') from error
        return model

    def in_order(self) -> list[Node]:
        """The nodes in topological order, which tfjs files need not have."""
        nodes = {node.name: node for node in self.nodes}
        sorter = TopologicalSorter(
            {name: [i for i in node.inputs if i in nodes] for name, node in nodes.items()}
        )
        try:
            return [nodes[name] for name in sorter.static_order()]
        except CycleError as error:
            raise GraphError(f'the graph has a cycle: {error.args[1]}') from error

    # Operations, one method each.

    def placeholder(self, node: Node) -> None:
        if INPUT_NAME in self.sizes:
            raise GraphError(f'the graph has a second input, {node.name}')
        self.sizes[INPUT_NAME] = self.input_size
        self.tensors[node.name] = INPUT_NAME

    def skip(self, node: Node) -> None:
        if node.name not in self.weights:
            raise GraphError(f'the constant {node.name} has no weights')

    def identity(self, node: Node) -> None:
        source = node.inputs[0]
        if source in self.weights:
            self.weights.setdefault(node.name, self.weights[source])
        else:
            self.tensors[node.name] = self.tensor(node, 0)

    def conv(self, node: Node) -> None:
        depthwise = 'Depthwise' in node.op
        fused = node.attributes.get('fused_ops') or []
        if fused not in ([], ['BiasAdd'], ['BiasAdd', 'Relu'], ['BiasAdd', 'Relu6']):
            raise GraphError(f'{node.op} {node.name} has the fused operations {fused}')
        kernel = self.weight(node, 1, 4)  # kh, kw, in, out; depthwise: kh, kw, in, per channel
        kernel_size = kernel.shape[:2]
        if depthwise:
            channels = kernel.shape[2]
            kernel = kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel_size)
        else:
            channels, kernel = 1, kernel.transpose(3, 2, 0, 1)
        dilations = self.dilations(node)
        source, strides, pads, size = self.window(node, kernel_size, dilations)
        inputs = [source, self.constant(f'{node.name}/kernel', kernel)]
        if fused:
            inputs.append(self.constant(f'{node.name}/bias', self.weight(node, 2, 1)))
        tensor = self.emit(
            'Conv',
            inputs,
            node.name,
            size,
            kernel_shape=list(kernel_size),
            strides=list(strides),
            dilations=list(dilations),
            pads=pads,
            group=channels,
        )
        self.tensors[node.name] = tensor
        if len(fused) == 2:
            self.tensors[node.name] = self.activate(fused[1], tensor, f'{node.name}/{fused[1]}')

    def bias_add(self, node: Node) -> None:
        tensor = self.tensor(node, 0)
        bias = self.weight(node, 1, 1)
        producer = self.onnx_nodes.get(tensor)
        if (
            producer is not None
            and producer.op_type == 'Conv'
            and len(producer.input) == 2
            and tensor == node.inputs[0]
            and self.consumers[tensor] == 1
        ):
            producer.input.append(self.constant(f'{node.name}/bias', bias))
            self.tensors[node.name] = tensor
        else:
            constant = self.constant(f'{node.name}/bias', bias.reshape(1, -1, 1, 1))
            self.tensors[node.name] = self.emit(
                'Add', [tensor, constant], node.name, self.sizes[tensor]
            )

    def add(self, node: Node) -> None:
        inputs = [
            self.constant(f'{node.name}/{name}', self.weight(node, i, 1).reshape(1, -1, 1, 1))
            if name in self.weights
            else self.tensor(node, i)
            for i, name in enumerate(node.inputs)
        ]
        size = next(self.sizes[name] for name in inputs if name in self.sizes)
        self.tensors[node.name] = self.emit('Add', inputs, node.name, size)

    def activation(self, node: Node) -> None:
        self.tensors[node.name] = self.activate(node.op, self.tensor(node, 0), node.name)

    def activate(self, op: str, tensor: str, name: str) -> str:
        if op == 'Relu':
            return self.emit('Relu', [tensor], name, self.sizes[tensor])
        limits = [self.constant(f'{limit}', np.array(limit, np.float32)) for limit in (0, 6)]
        return self.emit('Clip', [tensor, *limits], name, self.sizes[tensor])

    def max_pool(self, node: Node) -> None:
        kernel_size = tuple(node.attributes['ksize'][1:3])
        source, strides, pads, size = self.window(node, kernel_size, (1, 1))
        self.tensors[node.name] = self.emit(
            'MaxPool',
            [source],
            node.name,
            size,
            kernel_shape=list(kernel_size),
            strides=list(strides),
            pads=pads,
        )

    def pad(self, node: Node) -> None:
        paddings = self.weight(node, 1, 2)
        if paddings.shape != (4, 2) or paddings[[0, 3]].any() or (paddings < 0).any():
            raise GraphError(f'Pad {node.name} does more than pad rows and columns')
        (top, bottom), (left, right) = paddings[1:3].tolist()
        readers = [other for other in self.nodes if node.name in other.inputs]
        tensor = self.tensor(node, 0)
        if readers and all('Conv' in reader.op for reader in readers):
            # Zero padding before a convolution is merged into the convolution's own padding.
            self.tensors[node.name] = tensor
            self.paddings[node.name] = [top, left, bottom, right]
            return
        pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        height, width = self.sizes[tensor]
        self.tensors[node.name] = self.emit(
            'Pad',
            [tensor, self.constant(f'{node.name}/pads', pads)],
            node.name,
            (height + top + bottom, width + left + right),
        )

    # Heads.

    def head(self, name: str, output_stride: int) -> onnx.ValueInfoProto:
        """Adds an output: the leaf of the graph whose name contains `name`."""
        leaves = [
            node.name
            for node in self.nodes
            if not self.consumers[node.name] and node.name in self.tensors
        ]
        found = [leaf for leaf in leaves if name in leaf]
        if len(found) != 1:
            raise GraphError(
                f'the graph has no single {name} output; its outputs are {", ".join(leaves)}'
            )
        tensor = self.tensors[found[0]]
        expected = tuple((size - 1) // output_stride + 1 for size in self.input_size)
        if self.sizes[tensor] != expected:
            rows, columns = self.sizes[tensor]
            raise GraphError(
                f'{found[0]} is {rows} x {columns} for an input of {self.input_size[0]} x '
                f'{self.input_size[1]}, which is not output stride {output_stride}: the graph '
                'has another output stride'
            )
        channels = self.depths[tensor]
        if channels != HEADS[name]:
            raise GraphError(f'{found[0]} has {channels} channels; PoseNet has {HEADS[name]}')
        if name == 'heatmap':
            tensor = self.emit('Sigmoid', [tensor], f'{name}/sigmoid', expected)
        if name in self.onnx_nodes:
            raise GraphError(f'the graph has an inner node {name}, which is the name of an output')
        self.emit('Transpose', [tensor], name, expected, perm=[0, 2, 3, 1])
        return helper.make_tensor_value_info(
            name, TensorProto.FLOAT, ['batch', *expected, channels]
        )

    # Helpers.

    def window(
        self, node: Node, kernel_size: tuple[int, int], dilations: tuple[int, int]
    ) -> tuple[str, tuple[int, int], list[int], tuple[int, int]]:
        """Input tensor, strides, ONNX pads and output size of a sliding window."""
        source = self.tensor(node, 0)
        strides = tuple(node.attributes['strides'][1:3])
        padding = node.attributes['padding']
        explicit = self.paddings.get(node.inputs[0], [0, 0, 0, 0])
        before, after, size = [], [], []
        for axis in range(2):
            reach = (kernel_size[axis] - 1) * dilations[axis] + 1
            extent = self.sizes[source][axis] + explicit[axis] + explicit[axis + 2]
            if padding == 'SAME':
                cells = -(-extent // strides[axis])
                total = max((cells - 1) * strides[axis] + reach - extent, 0)
            elif padding == 'VALID':
                cells = (extent - reach) // strides[axis] + 1
                total = 0
            else:
                raise GraphError(f'{node.op} {node.name} has the padding {padding}')
            if cells < 1:
                raise GraphError(
                    f'an input of {self.input_size[0]} x {self.input_size[1]} is too small for '
                    f'{node.op} {node.name}'
                )
            before.append(explicit[axis] + total // 2)
            after.append(explicit[axis + 2] + total - total // 2)
            size.append(cells)
        return source, strides, before + after, (size[0], size[1])

    def dilations(self, node: Node) -> tuple[int, int]:
        """Row and column dilation. Stock graphs store [d, d, 1, 1] where [1, d, d, 1] is meant."""
        stored = node.attributes.get('dilations') or [1, 1, 1, 1]
        if stored[0] != 1 and not self.tfjs_dilations:
            return stored[0], stored[1]
        return stored[1], stored[2]

    def tensor(self, node: Node, index: int) -> str:
        name = node.inputs[index]
        if name not in self.tensors:
            raise GraphError(f'{node.op} {node.name} reads {name}, which no earlier node produces')
        return self.tensors[name]

    def weight(self, node: Node, index: int, rank: int) -> np.ndarray:
        name = node.inputs[index] if index < len(node.inputs) else '(nothing)'
        value = self.weights.get(name)
        if value is None or value.ndim != rank:
            raise GraphError(
                f'{node.op} {node.name} needs constant weights of {rank} dimensions as input '
                f'{index}, and has {name}'
            )
        return value

    def channels(self, name: str) -> int:
        """Of a tensor, or of a constant that is added to one."""
        if name in self.depths:
            return self.depths[name]
        shape = self.constants[name].shape
        return shape[1] if len(shape) == 4 else 1

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def emit(
        self, op: str, inputs: list[str], name: str, size: tuple[int, int], **attributes: Any
    ) -> str:
        self.onnx_nodes[name] = helper.make_node(op, inputs, [name], name=name, **attributes)
        self.sizes[name] = size
        if op == 'Conv':
            self.depths[name] = self.constants[inputs[1]].shape[0]
        else:
            self.depths[name] = max(map(self.channels, inputs))
        values = math.prod(size) * self.depths[name]
        if values > MAX_VALUES_PER_PIXEL * max(math.prod(self.input_size), MIN_PIXELS):
            raise GraphError(f'{op} {name} has {values} values, more than in any PoseNet')
        return name
