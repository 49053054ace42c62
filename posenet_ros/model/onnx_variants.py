"""Variants of an exported ONNX graph: float16, and inputs of any size."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from posenet_ros.core.heads import HEADS, INPUT_NAME

HALF_INPUT = f'{INPUT_NAME}/fp16'


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Converts all layers but the heads to float16. Inputs and outputs stay float32.

    The heads' convolutions and the sigmoid stay in float32: displacements reach hundreds of pixels,
    where float16 has steps of a quarter of a pixel and more.

    Args:
        model: from export_onnx, in float32; not changed.
    """
    graph = model.graph
    in_float = head_nodes(model)
    constants = {initializer.name: initializer for initializer in graph.initializer}
    nodes = [helper.make_node('Cast', [INPUT_NAME], [HALF_INPUT], to=TensorProto.FLOAT16)]
    halved: set[str] = set()
    widened: dict[str, str] = {}  # float16 tensor -> its float32 copy
    for original in graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if node.input[0] == INPUT_NAME:
            node.input[0] = HALF_INPUT
        if node.name in in_float:
            source = node.input[0]
            if source not in constants and producer(graph, source).name not in in_float:
                if source not in widened:
                    widened[source] = f'{source}/fp32'
                    nodes.append(
                        helper.make_node('Cast', [source], [widened[source]], to=TensorProto.FLOAT)
                    )
                node.input[0] = widened[source]
        else:
            halved.update(name for name in node.input if name in constants)
        nodes.append(node)
    initializers = [
        numpy_helper.from_array(numpy_helper.to_array(constant).astype(np.float16), name)
        if name in halved and constant.data_type == TensorProto.FLOAT
        else constant
        for name, constant in constants.items()
    ]
    return _with_graph(
        model,
        helper.make_graph(nodes, graph.name, list(graph.input), list(graph.output), initializers),
    )


def to_dynamic(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph for inputs of any valid size: one more than a multiple of the output stride.

    The padding is the same for all of them, so only the declared sizes change.
    """
    dynamic = onnx.ModelProto()
    dynamic.CopyFrom(model)
    for value, axes in (
        (dynamic.graph.input[0], {2: 'height', 3: 'width'}),
        *((output, {1: 'rows', 2: 'columns'}) for output in dynamic.graph.output),
    ):
        for axis, name in axes.items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    del dynamic.graph.value_info[:]  # of the size that it was made for, from the quantizer
    onnx.checker.check_model(dynamic)
    return dynamic


def head_chains(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes of each head, from the output back to its convolution."""
    chains = {}
    for output in HEADS:
        chain = [producer(model.graph, output)]
        while chain[-1].op_type != 'Conv':
            chain.append(producer(model.graph, chain[-1].input[0]))
        chains[output] = chain
    return chains


def head_nodes(model: onnx.ModelProto) -> set[str]:
    """Names of the nodes of all heads."""
    return {node.name for chain in head_chains(model).values() for node in chain}


def producer(graph: onnx.GraphProto, tensor: str) -> onnx.NodeProto:
    """The node whose output a tensor is."""
    found: onnx.NodeProto = next(node for node in graph.node if tensor in node.output)
    return found


def _with_graph(model: onnx.ModelProto, graph: onnx.GraphProto) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.CopyFrom(graph)
    onnx.checker.check_model(changed, full_check=True)
    return changed
