"""Every graph that we export is one that TensorRT parses and builds an engine from.

Built ahead of time with TensorRT for RTX, which needs no GPU. It proves neither speed nor numbers
nor any Jetson: it proves that the parser takes our operations, types and profiles.
"""

from __future__ import annotations

import onnx
import pytest
from goldens import SHARED
from tfjs_models import mobilenet_like, resnet_like

from posenet_ros.onnx_export import INPUT_NAME, export_onnx
from posenet_ros.onnx_precision import to_dynamic, to_fp16
from posenet_ros.tfjs_graph import load_graph

trt = pytest.importorskip('tensorrt_rtx', reason='TensorRT for RTX is not on this machine')

MODELS = SHARED / 'models'
CHECKPOINTS = [
    (path, int(path.stem.split('stride')[1].split('-')[0]))
    for path in sorted(MODELS.glob('mobilenet/float/*/model-stride*.json'))
    if 'fixeddil' not in path.name
] + [(path, 16) for path in MODELS.glob('synthetic_resnet/*.json')]


def build(model: onnx.ModelProto) -> int:
    """Size of the engine in bytes.

    Raises:
        ValueError: TensorRT refuses the graph; with its reasons.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.SerializeToString()):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise ValueError('; '.join(errors))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    profile = builder.create_optimization_profile()
    shape = tuple(network.get_input(0).shape)
    sizes = [
        tuple(given if given > 0 else wanted for given, wanted in zip(shape, wish, strict=True))
        for wish in ((1, 129, 129, 3), (1, 257, 257, 3), (4, 513, 513, 3))
    ]
    profile.set_shape(INPUT_NAME, *sizes)
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ValueError('no engine')
    return engine.nbytes


@pytest.mark.parametrize('dynamic', [False, True], ids=['static', 'dynamic'])
@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
@pytest.mark.parametrize('graph', [mobilenet_like(), resnet_like()], ids=['mobilenet', 'resnet'])
def test_small_graphs_build(tmp_path, graph, precision, dynamic):
    model = export_onnx(load_graph(graph.write(tmp_path / 'm.json')), 129, 129, 4)
    model = to_fp16(model) if precision == 'fp16' else model
    assert build(to_dynamic(model) if dynamic else model) > 0


@pytest.mark.skipif(not CHECKPOINTS, reason='the checkpoints (../shared) are not on this machine')
@pytest.mark.parametrize('dynamic', [False, True], ids=['static', 'dynamic'])
@pytest.mark.parametrize('precision', ['fp32', 'fp16'])
@pytest.mark.parametrize(
    ('path', 'stride'),
    [pytest.param(*c, id=f'{c[0].parent.name}-stride{c[1]}') for c in CHECKPOINTS],
)
def test_real_checkpoints_build(path, stride, precision, dynamic):
    model = export_onnx(load_graph(path), 257, 257, stride)
    model = to_fp16(model) if precision == 'fp16' else model
    assert build(to_dynamic(model) if dynamic else model) > 100_000


def test_graph_with_mixed_types_is_refused(tmp_path):
    """The check can fail: without one of its casts the half graph is no graph."""
    model = to_fp16(
        export_onnx(load_graph(mobilenet_like().write(tmp_path / 'm.json')), 129, 129, 4)
    )
    cast = next(node for node in model.graph.node if node.op_type == 'Cast')
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == cast.output[0]:
                node.input[i] = cast.input[0]
    model.graph.node.remove(cast)
    with pytest.raises(ValueError, match='must be of same type'):
        build(model)
