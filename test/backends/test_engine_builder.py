"""Every graph that we export is one that TensorRT parses and builds an engine from.

Our own builder drives TensorRT for RTX, which can build ahead of time, without a GPU. These tests
prove nothing about speed, numbers or a Jetson. They prove that the parser accepts our operations,
types and profiles, and that wrong input is rejected with a reason.
"""

from __future__ import annotations

import copy
import functools

import numpy as np
import onnx
import pytest
from goldens import SHARED
from onnx import helper
from tfjs_models import mobilenet_like, resnet_like

from posenet_ros import BackendError, ConfigError, ModelConfig
from posenet_ros.backends.engine_builder import EngineOptions, Profile, build_engine
from posenet_ros.config import PRECISIONS
from posenet_ros.input_size import InputSizes
from posenet_ros.model.int8 import _centre, _equalise, _quantize, to_int8
from posenet_ros.model.onnx_export import export_onnx
from posenet_ros.model.onnx_variants import to_dynamic, to_fp16
from posenet_ros.model.tfjs_graph import load_graph

pytestmark = pytest.mark.slow

rtx = pytest.importorskip('tensorrt_rtx', reason='TensorRT for RTX is not on this machine')


def square(size: int) -> InputSizes:
    return InputSizes.of([(size, size)])


MODELS = SHARED / 'models'
CHECKPOINTS = [
    (path, int(path.stem.split('stride')[1].split('-')[0]))
    for path in sorted(MODELS.glob('mobilenet/float/*/model-stride*.json'))
    if 'fixeddil' not in path.name
] + [(path, 16) for path in MODELS.glob('synthetic_resnet/*.json')]


class AheadOfTime:
    """The module tensorrt_rtx, whose builder gets a fixed compute capability: there is no GPU."""

    class Builder(rtx.Builder):
        def create_builder_config(self):
            config = super().create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(rtx.ComputeCapability.SM86, 0)
            return config

    def __getattr__(self, name):
        return getattr(rtx, name)


def build(model: onnx.ModelProto, profile: Profile, **options) -> bytes:
    plan, _ = build_engine(
        AheadOfTime(), model.SerializeToString(), EngineOptions('', profile, **options)
    )
    return plan


def profile_of(size: int, dynamic: bool, max_batch: int = 4) -> Profile:
    if not dynamic:
        return Profile.batches(square(size), max_batch)
    return Profile((1, 3, 129, 129), (1, 3, 257, 257), (max_batch, 3, 513, 513))


def in_precision(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    if precision == 'int8':
        *_, height, width = (d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)
        images = np.random.default_rng(0).uniform(-1, 1, (1, 3, height, width)).astype(np.float32)
        # to_int8 without the rounding, which takes long and changes numbers alone.
        model = copy.deepcopy(model)
        _equalise(model, images)
        _centre(model)
        return _quantize(model, images, 'tensorrt', 3)
    return to_fp16(model) if precision == 'fp16' else model


@functools.cache
def real_model(path, stride: int, precision: str) -> onnx.ModelProto:
    return in_precision(export_onnx(load_graph(path), 257, 257, stride), precision)


def small_model(folder, graph=None) -> onnx.ModelProto:
    graph = mobilenet_like() if graph is None else graph
    return export_onnx(load_graph(graph.write(folder / 'm.json')), 129, 129, 4)


@pytest.mark.parametrize('dynamic', [False, True], ids=['static', 'dynamic'])
@pytest.mark.parametrize('precision', PRECISIONS)
@pytest.mark.parametrize('graph', [mobilenet_like(), resnet_like()], ids=['mobilenet', 'resnet'])
def test_small_graphs_build(tmp_path, graph, precision, dynamic):
    model = in_precision(small_model(tmp_path, graph), precision)
    model = to_dynamic(model) if dynamic else model
    assert len(build(model, profile_of(129, dynamic))) > 1000


@pytest.mark.skipif(not CHECKPOINTS, reason='the checkpoints (../shared) are not on this machine')
@pytest.mark.parametrize('dynamic', [False, True], ids=['static', 'dynamic'])
@pytest.mark.parametrize('precision', PRECISIONS)
@pytest.mark.parametrize(
    ('path', 'stride'),
    [pytest.param(*c, id=f'{c[0].parent.name}-stride{c[1]}') for c in CHECKPOINTS],
)
def test_real_checkpoints_build(path, stride, precision, dynamic):
    model = real_model(path, stride, precision)
    model = to_dynamic(model) if dynamic else model
    assert len(build(model, profile_of(257, dynamic))) > 100_000


@pytest.mark.parametrize('precision', PRECISIONS)
def test_inputs_in_the_shape_of_the_image_and_closeups_share_an_engine(tmp_path, precision):
    config = ModelConfig(input_resolution=257, input_aspect='image', attention='closeups')
    sizes = config.input_sizes
    graph = load_graph(mobilenet_like(output_stride=16).write(tmp_path / 'm.json'))
    model = to_dynamic(in_precision(export_onnx(graph, *sizes.typical, 16), precision))
    assert len(build(model, Profile.batches(sizes, 4))) > 1000


def test_every_option_is_accepted(tmp_path):
    told = []
    model = small_model(tmp_path).SerializeToString()
    options = EngineOptions('fp32', Profile.batches(square(129), 2), workspace_mib=64)
    plan, timing_cache = build_engine(
        AheadOfTime(), model, options, b'', lambda *progress: told.append(progress)
    )
    assert plan and isinstance(timing_cache, bytes)
    assert told and all(0 < done <= total for _, done, total in told)
    assert told[-1][1] == told[-1][2]
    again, _ = build_engine(AheadOfTime(), model, options, timing_cache)
    assert again


# What is wrong is refused: each of these checks can fail.


def test_graph_with_mixed_types_is_refused(tmp_path):
    model = to_fp16(small_model(tmp_path))
    cast = next(node for node in model.graph.node if node.op_type == 'Cast')
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == cast.output[0]:
                node.input[i] = cast.input[0]
    model.graph.node.remove(cast)
    with pytest.raises(BackendError, match=r'does not take the ONNX.*must be of same type'):
        build(model, profile_of(129, False))


def test_int8_with_rounded_weights_builds(tmp_path):
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, 129, 129)).astype(np.float32)
    model = to_int8(small_model(tmp_path), images, 'tensorrt', float_layers=1)
    assert len(build(model, profile_of(129, False))) > 1000


def test_int8_of_the_cpu_is_refused(tmp_path):
    """It has uint8 with a zero point and int32 biases; that is why there are two layouts."""
    model = small_model(tmp_path)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, 129, 129)).astype(np.float32)
    with pytest.raises(BackendError, match='TensorRT'):
        build(to_int8(model, images, 'onnxruntime', float_layers=1), profile_of(129, False))


def test_unknown_operation_is_refused(tmp_path):
    model = small_model(tmp_path)
    node = next(node for node in model.graph.node if node.op_type == 'Clip')
    node.op_type, node.domain = 'Invented', 'nobody'
    model.opset_import.append(helper.make_opsetid('nobody', 1))
    with pytest.raises(BackendError, match=r'does not take the ONNX.*Invented'):
        build(model, profile_of(129, False))


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(BackendError, match='does not take the ONNX'):
        build_engine(AheadOfTime(), b'\xff' * 64, EngineOptions('fp32', profile_of(129, False)))


@pytest.mark.parametrize(
    'profile',
    [
        Profile((1, 3, 257, 257), (1, 3, 129, 129), (1, 3, 513, 513)),
        Profile((4, 3, 129, 129), (1, 3, 129, 129), (1, 3, 129, 129)),
    ],
    ids=['size out of order', 'batch out of order'],
)
def test_profile_out_of_order_is_refused(tmp_path, profile):
    with pytest.raises(BackendError, match='TensorRT'):
        build(to_dynamic(small_model(tmp_path)), profile)


def test_profile_of_another_size_is_refused(tmp_path):
    with pytest.raises(BackendError, match='could not build the engine'):
        build(small_model(tmp_path), Profile.batches(square(257), 1))


def test_dla_on_a_device_without_one_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r'Invalid dla_core 0\. Allowed here: none'):
        build(small_model(tmp_path), profile_of(129, False), dla_core=0)
