"""The black above and below a letterboxed image, computed once: 2 to 20% less work on a CPU.

A row of an early layer depends on few rows of the input. Where all of these are black, and none
lies outside the input, such rows are alike (computed by ONNX Runtime on x86, to the bit). One of
them is enough: the network gets an input with fewer black rows, and repeats that row after the
layer where the others would be. What comes after the layer sees no difference.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenet_ros.onnx_names import INPUT_NAME, ROWS_NAME

if TYPE_CHECKING:
    import onnx

METADATA = 'shared_rows'
# Rows of the input from one row of the layer to the next. Measured: after an earlier layer there is
# more to copy, before a later one fewer black rows are alike.
LARGEST_STEP = 4
# The repeating costs 1%. On smaller inputs that is more than the black of a 4:3 image saves.
SMALLEST_INPUT = 257


@dataclass(frozen=True)
class SharedRows:
    """How the layer that repeats rows depends on the rows of the input."""

    input_rows: int
    rows: int
    step: int  # row i of the layer depends on the rows i * step - above to i * step + below
    above: int
    below: int

    def needed(self, black_above: int, black_below: int) -> range:
        """The rows of the input to compute: some black ones at both ends can be left out.

        Args:
            black_above: black rows at the top of the input.
            black_below: and at its bottom; none of them is counted twice.
        """
        last_at_top = (black_above - 1 - self.below) // self.step
        first_at_bottom = -(-(self.input_rows - black_below + self.above) // self.step)
        skipped_above = max(0, last_at_top - self._first)
        skipped_below = max(0, self._last - first_at_bottom)
        return range(self.step * skipped_above, self.input_rows - self.step * skipped_below)

    def repeats(self, needed: range) -> np.ndarray:
        """For each row of the layer the one of the computed rows that it is equal to, int64."""
        skipped_above = needed.start // self.step
        skipped_below = (self.input_rows - needed.stop) // self.step
        times = np.ones(self.rows - skipped_above - skipped_below, np.int64)
        times[self._first] += skipped_above
        times[self._last - skipped_above - skipped_below] += skipped_below
        return np.repeat(np.arange(len(times)), times)

    @property
    def _first(self) -> int:
        """The first row that depends on nothing above the input."""
        return -(-self.above // self.step)

    @property
    def _last(self) -> int:
        """The last row that depends on nothing below it."""
        return (self.input_rows - 1 - self.below) // self.step

    @classmethod
    def of(cls, metadata: dict[str, str]) -> SharedRows | None:
        """What share_rows wrote into a model's metadata; None for a model without."""
        written = metadata.get(METADATA)
        return cls(**json.loads(written)) if written else None


def share_rows(model: onnx.ModelProto) -> bool:
    """Makes a graph, in place, take inputs of fewer rows, and which of them to repeat.

    Not every graph: the input must be a square, since others are made for the camera's aspect and
    have no black, and the first layers must be a chain of convolutions, which MobileNetV1's are.

    Returns:
        Whether it did. The graph then has a second input, int64 (rows of the layer).
    """
    from onnx import TensorProto, helper

    graph = model.graph
    image = next(value for value in graph.input if value.name == INPUT_NAME)
    _, _, height, width = (size.dim_value for size in image.type.tensor_type.shape.dim)
    if height != width or height < SMALLEST_INPUT:
        return False
    found = _layer(graph, height)
    if found is None:
        return False
    tensor, shared = found
    repeated = f'{tensor}/repeated'
    for node in _readers(graph, tensor):
        node.input[:] = [repeated if name == tensor else name for name in node.input]
    index = next(i for i, node in enumerate(graph.node) if tensor in node.output)
    gather = helper.make_node('Gather', [tensor, ROWS_NAME], [repeated], name=repeated, axis=2)
    graph.node.insert(index + 1, gather)
    graph.input.append(helper.make_tensor_value_info(ROWS_NAME, TensorProto.INT64, [shared.rows]))
    image.type.tensor_type.shape.dim[2].dim_param = 'rows'
    del graph.value_info[:]  # they name the height that the layers had
    helper.set_model_props(model, {**_metadata(model), METADATA: json.dumps(asdict(shared))})
    return True


def _layer(graph: onnx.GraphProto, height: int) -> tuple[str, SharedRows] | None:
    """The tensor to repeat rows of: the last with LARGEST_STEP, in a chain from the input on."""
    from onnx import helper

    tensor, shared = INPUT_NAME, SharedRows(height, height, 1, 0, 0)
    while True:
        readers = _readers(graph, tensor)
        if len(readers) != 1:
            return None
        (node,) = readers
        if node.op_type == 'Conv':
            attributes: dict[str, Any] = {
                attribute.name: helper.get_attribute_value(attribute)
                for attribute in node.attribute
            }
            grown = _after(shared, attributes)
            if grown.step > LARGEST_STEP:
                return (_as_bytes(graph, tensor), shared) if shared.step > 1 else None
            shared = grown
        elif node.op_type not in ('Clip', 'QuantizeLinear', 'DequantizeLinear'):
            return None
        tensor = node.output[0]


def _as_bytes(graph: onnx.GraphProto, tensor: str) -> str:
    """What a tensor of int8's graphs is computed from: a quarter to copy."""
    for node in graph.node:
        if tensor in node.output and node.op_type == 'DequantizeLinear':
            return node.input[0]
    return tensor


def _after(shared: SharedRows, convolution: dict[str, Any]) -> SharedRows:
    """What depends on what, one convolution on. Source: the shape inference of ONNX's Conv."""
    size = (convolution['kernel_shape'][0] - 1) * convolution.get('dilations', [1])[0] + 1
    stride = convolution.get('strides', [1])[0]
    top, _, bottom, _ = convolution.get('pads', [0, 0, 0, 0])
    return SharedRows(
        shared.input_rows,
        (shared.rows + top + bottom - size) // stride + 1,
        shared.step * stride,
        shared.above + top * shared.step,
        shared.below + (size - 1 - top) * shared.step,
    )


def _readers(graph: onnx.GraphProto, tensor: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if tensor in node.input]


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}
