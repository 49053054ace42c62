"""Reads a tfjs graph model: model-strideN.json (topology, weights manifest) and its weight shards.

The files come from anywhere. Their types, counts and sizes are checked against the schema below
before anything is used.

Source: tfjs-core 3.21 io/io_utils.ts (decodeWeights) and the graphs themselves.
"""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from posenet_ros.errors import GraphError, everything_as, quoted, reason

MAX_GRAPH_BYTES = 1 << 24  # the published ones have 50,000 to 110,000
MAX_WEIGHT_BYTES = 1 << 30  # ResNet50 has 95 million

_DTYPES: dict[str, np.dtype] = {
    'float32': np.dtype('<f4'),
    'float16': np.dtype('<f2'),
    'int32': np.dtype('<i4'),
    'uint16': np.dtype('<u2'),
    'uint8': np.dtype('u1'),
    'bool': np.dtype('u1'),
}

# The schema: what is read of the JSON. Protobuf writes integers as strings, and strings as base64.

_Name = Annotated[str, Meta(min_length=1, max_length=500)]
_Integer = Annotated[str, Meta(pattern='^-?[0-9]{1,9}$')]
_Base64 = Annotated[str, Meta(pattern='^[A-Za-z0-9+/=]{0,200}$')]
_Size = Annotated[int, Meta(ge=0, le=1 << 30)]
_Dtype = Literal['float32', 'float16', 'int32', 'uint16', 'uint8', 'bool']


class _List(Struct):
    i: Annotated[list[_Integer], Meta(max_length=100)] | None = None
    s: Annotated[list[_Base64], Meta(max_length=100)] | None = None


class _Attribute(Struct):
    i: _Integer | None = None
    s: _Base64 | None = None
    list: _List | None = None


class _Node(Struct):
    name: _Name
    op: _Name
    input: Annotated[list[_Name], Meta(max_length=100)] = []
    attr: Annotated[dict[_Name, _Attribute], Meta(max_length=100)] = {}


class _Quantization(Struct):
    dtype: _Dtype | None = None
    scale: float | None = None
    min: float = 0.0


class _Weight(Struct):
    name: _Name
    shape: Annotated[list[_Size], Meta(max_length=8)]
    dtype: _Dtype
    quantization: _Quantization | None = None


class _Group(Struct):
    paths: Annotated[list[Annotated[str, Meta(max_length=255)]], Meta(max_length=1000)]
    weights: Annotated[list[_Weight], Meta(max_length=10_000)]


class _Topology(Struct):
    node: Annotated[list[_Node], Meta(max_length=10_000)]


class _Model(Struct, rename='camel'):
    model_topology: _Topology
    weights_manifest: Annotated[list[_Group], Meta(max_length=100)]


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
    """One operation: its inputs by node name; its attributes that are numbers, strings or lists."""

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
    with everything_as(GraphError, f'cannot read {path}'):
        return _topology(_read(path, MAX_GRAPH_BYTES), path)


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


def load_graph(path: Path, sha256: str | None = None) -> Graph:
    """Reads a graph and its weights.

    Args:
        path: model-strideN.json; the shards lie beside it.
        sha256: of the graph and its shards, if what is read has to be what was checked before.

    Raises:
        GraphError: something is missing, malformed, of the wrong size or of another SHA-256.
    """
    with everything_as(GraphError, f'cannot read {path}'):
        content = _read(path, MAX_GRAPH_BYTES)
        digest = hashlib.sha256(content)
        topology = _topology(content, path)
        check_shards(topology, path.parent)
        weights = {}
        for group in topology.weight_groups:
            data = b''.join(_read(path.parent / name, group.num_bytes) for name in group.shards)
            digest.update(data)
            start = 0
            for spec in group.specs:
                weights[spec.name] = spec.decode(data[start : start + spec.num_bytes])
                start += spec.num_bytes
    if sha256 is not None and digest.hexdigest() != sha256:
        raise GraphError(f'{path} or its shards changed while they were read; start again')
    return Graph(topology.nodes, weights)


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open('rb') as file:
            data = file.read(most + 1)
    except OSError as error:
        raise GraphError(f'cannot read {path}: {reason(error)}') from error
    if len(data) > most:
        raise GraphError(f'{path} has more than {most} bytes')
    return data


def _topology(content: bytes, path: Path) -> Topology:
    try:
        model = msgspec.json.decode(content, type=_Model)
    except msgspec.ValidationError as error:
        raise GraphError(
            f'{path} is not a tfjs graph model with modelTopology.node and weightsManifest: {error}'
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise GraphError(f'{path} is not JSON (truncated?): {error}') from error
    groups = tuple(_weight_group(group, path) for group in model.weights_manifest)
    if sum(group.num_bytes for group in groups) > MAX_WEIGHT_BYTES:
        raise GraphError(f'{path} has weights of more than {MAX_WEIGHT_BYTES} bytes')
    for names in (
        [node.name for node in model.model_topology.node],
        [spec.name for group in groups for spec in group.specs],
    ):
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise GraphError(f'{path} has {quoted(twice)} twice')
    return Topology(tuple(map(_node, model.model_topology.node)), groups)


def _weight_group(group: _Group, path: Path) -> WeightGroup:
    for shard in group.paths:
        # A shard must lie beside the graph: a path could lead to any file of the machine.
        if shard in ('', '.', '..') or set(shard) & set('/\\\0') or not shard.isprintable():
            raise GraphError(f'{path} names the weight shard {quoted(shard)}, not a file name')
    return WeightGroup(tuple(group.paths), tuple(map(_weight_spec, group.weights)))


def _weight_spec(weight: _Weight) -> WeightSpec:
    quantization = weight.quantization or _Quantization()
    # float16 is stored as it is; uint8 and uint16 carry a scale and an offset.
    return WeightSpec(
        name=weight.name,
        shape=tuple(weight.shape),
        dtype='float32' if weight.dtype == 'float16' else weight.dtype,
        stored_dtype=_DTYPES[quantization.dtype or weight.dtype],
        scale=quantization.scale,
        min=quantization.min,
    )


def _node(node: _Node) -> Node:
    inputs = [name for name in node.input if not name.startswith('^')]
    attributes = {name: _attribute(value) for name, value in node.attr.items()}
    return Node(
        name=node.name,
        op=node.op,
        inputs=tuple(name.removesuffix(':0') for name in inputs),
        attributes={name: value for name, value in attributes.items() if value is not None},
    )


def _attribute(value: _Attribute) -> str | int | list[str] | list[int] | None:
    if value.s is not None:
        return _text(value.s)
    if value.i is not None:
        return int(value.i)
    if value.list is None:  # a type, a shape or another that no operation here needs
        return None
    if value.list.i is not None:
        return list(map(int, value.list.i))
    return list(map(_text, value.list.s or ()))


def _text(base64_text: str) -> str:
    return base64.b64decode(base64_text, validate=True).decode()
