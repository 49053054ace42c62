"""Half precision and dynamic sizes, run on the CPU against the float32 graph."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from tfjs_models import mobilenet_like, resnet_like

from posenet_ros.core.heads import HEADS, INPUT_NAME
from posenet_ros.model.onnx_export import export_onnx
from posenet_ros.model.onnx_variants import to_dynamic, to_fp16
from posenet_ros.model.tfjs_graph import load_graph

GRAPHS = [pytest.param(mobilenet_like(), id='mobilenet'), pytest.param(resnet_like(), id='resnet')]


def run(model, images):
    session = ort.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    return dict(zip(HEADS, session.run(list(HEADS), {INPUT_NAME: images}), strict=True))


def images(count, height, width):
    return np.random.default_rng(3).uniform(-1, 1, (count, 3, height, width)).astype(np.float32)


def element_types(model):
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}


@pytest.mark.parametrize('graph', GRAPHS)
def test_half_precision_stays_near_and_ends_in_float32(tmp_path, graph):
    model = export_onnx(load_graph(graph.write(tmp_path / 'm.json')), 33, 33, 4)
    half = to_fp16(model)
    batch = images(2, 33, 33)
    expected, heads = run(model, batch), run(half, batch)
    for name in HEADS:
        assert heads[name].dtype == np.float32
        assert np.allclose(heads[name], expected[name], rtol=0.02, atol=0.02), name
        assert np.abs(heads[name] - expected[name]).max() > 0  # it did compute in half


@pytest.mark.parametrize('graph', GRAPHS)
def test_all_but_the_heads_computes_in_half(tmp_path, graph):
    half = to_fp16(export_onnx(load_graph(graph.write(tmp_path / 'm.json')), 33, 33, 4))
    types = element_types(half)
    convolutions = [node for node in half.graph.node if node.op_type == 'Conv']
    floats = [n.name for n in convolutions if types[n.output[0]] == onnx.TensorProto.FLOAT]
    assert len(floats) == 4 and len(convolutions) > 4
    assert all('2/BiasAdd' in name for name in floats)


@pytest.mark.parametrize('graph', GRAPHS)
def test_dynamic_graph_is_each_static_one(tmp_path, graph):
    loaded = load_graph(graph.write(tmp_path / 'm.json'))
    # With the shapes of all tensors, as the quantizer leaves them.
    dynamic = to_dynamic(onnx.shape_inference.infer_shapes(export_onnx(loaded, 33, 33, 4)))
    session = ort.InferenceSession(dynamic.SerializeToString(), providers=['CPUExecutionProvider'])
    for output in session.get_outputs():
        assert not any(isinstance(dimension, int) for dimension in output.shape[:3]), output.name
    for size in ((33, 33), (17, 49), (65, 5)):
        batch = images(1, *size)
        expected, heads = run(export_onnx(loaded, *size, 4), batch), run(dynamic, batch)
        for name in HEADS:
            assert np.allclose(heads[name], expected[name], rtol=1e-5, atol=1e-6), name


def test_real_models_in_half_keep_their_scores(shared):
    for multiplier in ('050', '075', '100'):
        path = shared / f'models/mobilenet/float/{multiplier}/model-stride16.json'
        model = export_onnx(load_graph(path), 129, 129, 16)
        batch = images(1, 129, 129)
        expected, heads = run(model, batch), run(to_fp16(model), batch)
        assert np.abs(heads['heatmap'] - expected['heatmap']).max() < 0.02, multiplier
