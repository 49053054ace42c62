"""Reads a tfjs graph model: model-strideN.json (topology, weights manifest) and its weight shards.

Source: tfjs-core 3.21 io/io_utils.ts (decodeWeights) and the graphs themselves.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from posenet_ros.errors import GraphError

_DTYPES: dict[str, np.dtype] = {
    'float32': np.dtype('<f4'),
    'float16': np.dtype('<f2'),
    'int32': np.dtype('<i4'),
    'uint16': np.dtype('<u2'),
    'uint8': np.dtype('u1'),
    'bool': np.dtype('u1'),
}


@dataclass(frozen=True)
class WeightSpec:
    """One entry of the weights manifest."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # what the graph computes with
    stored_dtype: np.dtype  # what the shards hold
    scale: float | None = None  # quantised: value = stored * scale + min
    min: float = 0.0

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.stored_dtype.itemsize

    def decode(self, data: bytes) -> np.ndarray:
        stored = np.frombuffer(data, self.stored_dtype).reshape(self.shape)
        if self.scale is None:
            return stored.astype(self.dtype)
        values = stored.astype(np.float64) * self.scale + self.min
        return (np.rint(values) if self.dtype == 'int32' else values).astype(self.dtype)


@dataclass(frozen=True)
class WeightGroup:
    """Weights that lie one after another in the concatenation of some shards."""

    shards: tuple[str, ...]
    specs: tuple[WeightSpec, ...]

    @property
    def num_bytes(self) -> int:
        return sum(spec.num_bytes for spec in self.specs)


@dataclass(frozen=True)
class Node:
    """One operation: its inputs by node name, its attributes as plain Python values."""

    name: str
    op: str
    inputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Topology:
    """Nodes in the order of the file, and where their weights are."""

    nodes: tuple[Node, ...]
    weight_groups: tuple[WeightGroup, ...]

    @property
    def shards(self) -> tuple[str, ...]:
        return tuple(shard for group in self.weight_groups for shard in group.shards)


@dataclass(frozen=True)
class Graph:
    """A whole tfjs graph: nodes, and weights by node name in the layouts of TensorFlow."""

    nodes: tuple[Node, ...]
    weights: dict[str, np.ndarray]


def read_topology(path: Path) -> Topology:
    """Reads model-strideN.json.

    Raises:
        GraphError: the file is missing, not JSON, or not a tfjs graph model.
    """
    try:
        model = json.loads(path.read_bytes())
    except OSError as error:
        raise GraphError(f'cannot read {path}: {error.strerror}') from error
    except ValueError as error:
        raise GraphError(f'{path} is not JSON (truncated?): {error}') from error
    try:
        nodes = tuple(_node(node) for node in model['modelTopology']['node'])
        groups = tuple(_weight_group(group, path) for group in model['weightsManifest'])
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
        raise GraphError(
            f'{path} is not a tfjs graph model with modelTopology.node and weightsManifest '
            f'({type(error).__name__}: {error})'
        ) from error
    return Topology(nodes, groups)


def check_shards(topology: Topology, directory: Path) -> None:
    """Checks that the shards exist, and that their sizes match the manifest.

    Raises:
        GraphError: a shard is missing, or a group is too short or too long.
    """
    for group in topology.weight_groups:
        sizes = []
        for shard in group.shards:
            if not (directory / shard).is_file():
                raise GraphError(f'weight shard {directory / shard} is missing')
            sizes.append((directory / shard).stat().st_size)
        if sum(sizes) != group.num_bytes:
            raise GraphError(
                f'{", ".join(group.shards)} in {directory} hold {sum(sizes)} bytes where the '
                f'manifest needs {group.num_bytes}: truncated, or of another model'
            )


def load_graph(path: Path) -> Graph:
    """Reads a graph and its weights.

    Args:
        path: model-strideN.json; the shards lie beside it.

    Raises:
        GraphError: something is missing, malformed or of the wrong size.
    """
    topology = read_topology(path)
    check_shards(topology, path.parent)
    weights = {}
    for group in topology.weight_groups:
        try:
            data = b''.join((path.parent / shard).read_bytes() for shard in group.shards)
        except OSError as error:
            raise GraphError(f'cannot read {error.filename}: {error.strerror}') from error
        start = 0
        for spec in group.specs:
            weights[spec.name] = spec.decode(data[start : start + spec.num_bytes])
            start += spec.num_bytes
    return Graph(topology.nodes, weights)


def _weight_group(group: dict[str, Any], path: Path) -> WeightGroup:
    for shard in group['paths']:
        # A shard must lie beside the graph: a path could lead to any file of the machine.
        if PurePosixPath(shard).name != shard or shard in ('', '.', '..') or '\\' in shard:
            raise GraphError(f'{path} names the weight shard {shard!r}, which is not a file name')
    return WeightGroup(tuple(group['paths']), tuple(map(_weight_spec, group['weights'])))


def _weight_spec(entry: dict[str, Any]) -> WeightSpec:
    dtype = entry['dtype']
    quantization = entry.get('quantization') or {}
    stored = quantization.get('dtype', dtype)
    for name in (dtype, stored):
        if name not in _DTYPES:
            raise GraphError(
                f'weight {entry["name"]} has dtype {name}; known are {", ".join(_DTYPES)}'
            )
    # float16 is stored as it is; uint8 and uint16 carry a scale and an offset.
    return WeightSpec(
        name=entry['name'],
        shape=tuple(int(size) for size in entry['shape']),
        dtype='float32' if dtype == 'float16' else dtype,
        stored_dtype=_DTYPES[stored],
        scale=float(quantization['scale']) if 'scale' in quantization else None,
        min=float(quantization.get('min', 0.0)),
    )


def _node(node: dict[str, Any]) -> Node:
    inputs = [name for name in node.get('input', ()) if not name.startswith('^')]
    return Node(
        name=node['name'],
        op=node['op'],
        inputs=tuple(name.removesuffix(':0') for name in inputs),
        attributes={key: _attribute(value) for key, value in node.get('attr', {}).items()},
    )


def _attribute(value: dict[str, Any]) -> Any:
    """Protobuf JSON to plain values: integers come as strings, strings as base64."""
    if 's' in value:
        return base64.b64decode(value['s'], validate=True).decode()
    if 'i' in value:
        return int(value['i'])
    if 'list' in value:
        items = value['list'] or {}
        if 'i' in items:
            return [int(item) for item in items['i']]
        if 's' in items:
            return [base64.b64decode(item, validate=True).decode() for item in items['s']]
        return []
    return next(iter(value.values()), None)
