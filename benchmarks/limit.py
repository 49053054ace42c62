"""How long the network would take if all of it ran as fast as one matrix product."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

# The network's most frequent product at 513: 33 x 33 cells, 384 channels to 384.
CELLS, CHANNELS = 33 * 33, 384
PRODUCT_OPERATIONS = 2 * CELLS * CHANNELS * CHANNELS


def operations(network: bytes) -> int:
    """Multiplications and additions of a network's convolutions, for one image."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(network))
    shapes = {
        value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.value_info
    }
    kernels = {constant.name: constant.dims for constant in model.graph.initializer}
    return sum(
        2 * math.prod(shapes[node.output[0]]) * math.prod(kernels[node.input[1]][1:])
        for node in model.graph.node
        if node.op_type == 'Conv'
    )


def matrix_product() -> Callable[[], object]:
    """One product of PRODUCT_OPERATIONS in float32, by ONNX Runtime on one thread."""
    generator = np.random.default_rng(0)
    left = generator.random((CELLS, CHANNELS), np.float32)
    right = generator.random((CHANNELS, CHANNELS), np.float32)
    graph = helper.make_graph(
        [helper.make_node('MatMul', ['left', 'right'], ['product'])],
        'product',
        [helper.make_tensor_value_info('left', TensorProto.FLOAT, left.shape)],
        [helper.make_tensor_value_info('product', TensorProto.FLOAT, left.shape)],
        [numpy_helper.from_array(right, 'right')],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    return lambda: session.run(None, {'left': left})
