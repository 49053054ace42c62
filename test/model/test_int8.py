"""int8: what its graphs are made of, and what they cost on real weights."""

import copy
import hashlib

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from tfjs_models import mobilenet_like, resnet_like

from posenet_ros import ModelConfig, PoseNet
from posenet_ros.backends.onnxruntime import OnnxRuntimeBackend, _int8_products_saturate
from posenet_ros.core.heads import HEADS, INPUT_NAME
from posenet_ros.evaluation.compare import compare
from posenet_ros.io.sampling import sampled_images
from posenet_ros.model import int8
from posenet_ros.model.calibration import CalibrationSet
from posenet_ros.model.int8 import (
    LAYOUTS,
    _centre,
    _equalise,
    _gptq,
    _quantize,
    _round_weights,
    _session,
    displacement_error,
    to_int8,
)
from posenet_ros.model.network import make_network
from posenet_ros.model.onnx_export import export_onnx
from posenet_ros.model.onnx_variants import head_nodes, producer, to_dynamic
from posenet_ros.model.tfjs_graph import load_graph

GRAPHS = [pytest.param(mobilenet_like(), id='mobilenet'), pytest.param(resnet_like(), id='resnet')]


def images(count, size=33):
    generator = np.random.default_rng(3)
    batch = generator.uniform(-1, 1, (count, size, size, 3)).astype(np.float32)
    return batch.transpose(0, 3, 1, 2)


def run(model, batch):
    """The heads, in int8's exact arithmetic also where products of int8 saturate."""
    options = ort.SessionOptions()
    options.add_session_config_entry('session.x64quantprecision', '1')
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=['CPUExecutionProvider']
    )
    return dict(zip(HEADS, session.run(list(HEADS), {INPUT_NAME: batch}), strict=True))


def exported(folder, graph, size=33):
    return export_onnx(load_graph(graph.write(folder / 'm.json')), size, size, 4)


def near(heads, expected, tolerance):
    for name in HEADS:
        scale = np.abs(expected[name]).max()
        assert np.abs(heads[name] - expected[name]).max() <= tolerance * scale, name


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('graph', GRAPHS)
def test_int8_stays_near_and_ends_in_float32(tmp_path, graph, layout):
    model = exported(tmp_path, graph)
    before = model.SerializeToString()
    quantized = to_int8(model, images(8), layout, float_layers=0)
    assert model.SerializeToString() == before
    heads, expected = run(quantized, images(2)), run(model, images(2))
    near(heads, expected, 0.1)
    assert all(head.dtype == np.float32 for head in heads.values())
    assert any(np.abs(heads[n] - expected[n]).max() > 0 for n in HEADS)  # it did compute in int8


@pytest.mark.parametrize('graph', GRAPHS)
def test_tensorrts_layout_has_the_types_that_it_accepts(tmp_path, graph):
    quantized = to_int8(exported(tmp_path, graph), images(4), 'tensorrt', float_layers=1)
    constants = {c.name: c for c in quantized.graph.initializer}
    producers = {node.output[0]: node for node in quantized.graph.node}
    heads = head_nodes(quantized)
    quantizers = [
        n for n in quantized.graph.node if n.op_type in ('QuantizeLinear', 'DequantizeLinear')
    ]
    for node in quantizers:
        zero = constants[node.input[2]]
        assert zero.data_type == TensorProto.INT8 and not numpy_helper.to_array(zero).any()
    convolutions = [n for n in quantized.graph.node if n.op_type == 'Conv']
    kinds = [
        [producers[name].op_type if name in producers else 'constant' for name in node.input]
        for node in convolutions
        if node.name not in heads
    ]
    assert kinds[0][1] == 'constant'  # the first stays in float32
    for kind in kinds[1:]:
        assert kind == ['DequantizeLinear', 'DequantizeLinear', 'constant']
    for node in convolutions:
        if node.name in heads:
            assert node.input[1] in constants
            assert constants[node.input[1]].data_type == TensorProto.FLOAT
    weights = producers[
        next(n for n in convolutions if n.name not in heads and n.input[1] in producers).input[1]
    ]
    assert numpy_helper.to_array(constants[weights.input[1]]).ndim == 1  # a scale per channel
    assert {opset.version for opset in quantized.opset_import if not opset.domain} == {17}


@pytest.mark.parametrize('graph', GRAPHS)
def test_heads_computed_as_one_are_the_same(tmp_path, graph, monkeypatch):
    model = exported(tmp_path, graph)
    merged = to_int8(model, images(4), 'onnxruntime', float_layers=1)
    monkeypatch.setattr(int8, '_merge_heads', lambda model: None)
    separate = to_int8(model, images(4), 'onnxruntime', float_layers=1)
    assert len(convolutions(separate)) == len(convolutions(merged)) + 3
    heads, expected = run(merged, images(2)), run(separate, images(2))
    assert all(np.array_equal(heads[name], expected[name]) for name in HEADS)


def test_heads_of_different_inputs_stay_apart(tmp_path):
    """Another training could give a graph with such heads."""
    model = exported(tmp_path, mobilenet_like())
    head = producer(model.graph, producer(model.graph, 'offset').input[0])
    model.graph.node.append(helper.make_node('Identity', [head.input[0]], ['apart'], name='apart'))
    head.input[0] = 'apart'
    before = model.SerializeToString()
    int8._merge_heads(model)
    assert model.SerializeToString() == before


def convolutions(model):
    return [node for node in model.graph.node if node.op_type == 'Conv']


def test_equalising_and_centring_change_nothing_in_float32(tmp_path):
    model = exported(tmp_path, mobilenet_like())
    changed = copy.deepcopy(model)
    _equalise(changed, images(8))
    equalised = changed.SerializeToString()
    assert equalised != model.SerializeToString()
    _centre(changed)
    assert changed.SerializeToString() != equalised
    heads, expected = run(changed, images(8)), run(model, images(8))
    for name in HEADS:
        assert np.allclose(heads[name], expected[name], rtol=1e-4, atol=1e-4), name


def test_no_limits_but_relu6s_are_left_for_tensorrt(tmp_path):
    """Others are wrong there in int8; quantisation limits what is centred."""
    quantized = to_int8(exported(tmp_path, mobilenet_like()), images(4), 'tensorrt', float_layers=1)
    constants = {c.name: c for c in quantized.graph.initializer}
    producers = {node.output[0]: node for node in quantized.graph.node}
    clips = [node for node in quantized.graph.node if node.op_type == 'Clip']
    assert clips
    for clip in clips:
        limits = [numpy_helper.to_array(constants[name]).item() for name in clip.input[1:]]
        assert limits == [0.0, 6.0]
    centred = [
        node
        for node in quantized.graph.node
        if node.op_type == 'QuantizeLinear' and producers[node.input[0]].op_type == 'Conv'
    ]
    assert centred
    for node in centred:
        assert numpy_helper.to_array(constants[node.input[1]]) == np.float32(3 / 128)
    used = {name for node in quantized.graph.node for name in node.input}
    assert set(constants) <= used  # ONNX Runtime warns of others


def test_rounding_by_the_output_beats_rounding_to_the_nearest():
    generator = np.random.default_rng(0)
    seen = generator.normal(1, 1, (500, 9)) @ generator.normal(0, 1, (9, 9))
    rows = generator.normal(0, 1, (20, 9))
    steps = np.abs(rows).max(axis=1) / 7
    nearest = np.rint(rows / steps[:, None])
    chosen = _gptq(rows, steps, seen.T @ seen)

    def error(whole):
        return np.square(seen @ (rows - whole * steps[:, None]).T).mean()

    assert np.array_equal(chosen, np.rint(chosen))
    assert error(chosen) < 0.5 * error(nearest)


def test_bias_correction_removes_the_mean_error(tmp_path):
    """The first layer has the same input as before rounding, so no mean error may remain."""
    batch = images(8) + 0.5  # with a mean, as photos have
    model = exported(tmp_path, mobilenet_like())
    rounded = _round_weights(model, batch, lambda what, done, total: None)
    first = next(node for node in model.graph.node if node.op_type == 'Conv').output[0]
    outputs = [
        np.concatenate([_session(m, [first]).run([first], {INPUT_NAME: i[None]})[0] for i in batch])
        for m in (model, rounded)
    ]
    difference = outputs[1] - outputs[0]
    assert np.abs(difference).max() > 1e-3
    assert np.abs(difference.mean(axis=(0, 2, 3))).max() < 1e-5


@pytest.mark.slow
def test_gptq_and_bias_correction_keep_the_accuracy(tmp_path, shared):
    """Plain quantisation of the same layers by the same quantizer is several times worse."""
    path = shared / 'models/mobilenet/float/075/model-stride16.json'
    model = export_onnx(load_graph(path), 129, 129, 16)
    batch = CalibrationSet().inputs(129, 129, 'MobileNetV1')[:8]
    ours = displacement_error(model, to_int8(model, batch, 'onnxruntime', 3), batch)
    plain = displacement_error(model, _quantize(model, batch, 'onnxruntime', 3), batch)
    assert ours < 0.5 * plain


@pytest.mark.parametrize('layout', LAYOUTS)
def test_dynamic_sizes_are_those_of_the_static_graph(tmp_path, layout):
    model = exported(tmp_path, mobilenet_like())
    quantized = to_int8(model, images(4), layout, float_layers=1)
    heads = run(to_dynamic(quantized), images(1, 49))
    assert heads['heatmap'].shape == (1, 13, 13, 17)
    expected = run(exported(tmp_path, mobilenet_like(), 49), images(1, 49))
    near(heads, expected, 0.1)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A small model, in a cache of its own."""
    monkeypatch.setenv('POSENET_HOME', str(tmp_path / 'home'))
    path = mobilenet_like(output_stride=16).write(tmp_path / 'model-stride16.json')
    return ModelConfig(input_resolution=33, model_url=str(path))


@pytest.mark.slow
def test_int8_graph_is_made_once_and_carries_its_calibration(tiny, caplog):
    with caplog.at_level('INFO'):
        first = make_network(tiny, 'int8', 'tensorrt')
        assert make_network(tiny, 'int8', 'tensorrt') == first
        assert make_network(tiny, 'int8', 'onnxruntime') != first
    assert caplog.text.count('making the int8 network') == 2
    properties = {p.key: p.value for p in onnx.load_from_string(first.onnx).metadata_props}
    inputs = CalibrationSet().inputs(33, 33, 'MobileNetV1')
    digest = hashlib.sha256(inputs.tobytes()).hexdigest()
    assert properties == {'calibration': 'generated', 'inputs_sha256': digest}


@pytest.mark.parametrize(
    ('machine', 'flags', 'overflow'),
    [
        ('x86_64', 'flags : avx2 avx512f avx512_vnni', False),
        ('x86_64', 'flags : avx2 avx_vnni', False),
        ('x86_64', 'flags : avx2 avx512f', True),
        ('x86_64', None, True),
        ('aarch64', 'Features : asimd asimddp', False),
    ],
)
def test_only_without_vnni_int8_products_saturate(tmp_path, monkeypatch, machine, flags, overflow):
    monkeypatch.setattr('platform.machine', lambda: machine)
    cpuinfo = tmp_path / 'cpuinfo'
    if flags:
        cpuinfo.write_text(flags)
    assert _int8_products_saturate(cpuinfo) == overflow


# What it costs, on real weights and people.


@pytest.fixture(scope='session')
def people(shared):
    """Photos and video frames, none of which the calibration sees."""
    photos = list(sampled_images(shared / 'images', 8))
    return photos + list(sampled_images(shared / 'video/pose_1.mp4', 12))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('multiplier', 'layout'),
    [(0.5, 'tensorrt'), (0.75, 'tensorrt'), (1.0, 'tensorrt'), (0.75, 'onnxruntime')],
)
def test_int8_keeps_the_poses_of_clear_people(
    shared, people, tmp_path, monkeypatch, multiplier, layout
):
    monkeypatch.setenv('POSENET_HOME', str(tmp_path))
    path = shared / f'models/mobilenet/float/{round(100 * multiplier):03d}/model-stride16.json'
    config = ModelConfig(multiplier=multiplier, model_url=str(path))
    backend = OnnxRuntimeBackend(make_network(config, 'int8', layout).onnx, 'int8')
    with PoseNet.load(config, 'onnxruntime', 'fp32') as exact, PoseNet(config, backend, '') as net:
        result = compare(exact, {'int8': net}, people)['int8']
    assert result.people >= 15
    assert result.mean_oks >= 0.97
    assert result.lost == result.found == 0
