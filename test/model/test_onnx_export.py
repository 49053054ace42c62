"""Conversion against the definitions of the operations in plain numpy, and on real checkpoints."""

import json

import numpy as np
import onnxruntime as ort
import pytest
from goldens import SHARED, golden_paths, load_golden
from tfjs_models import (
    GraphWriter,
    b64,
    ints,
    mobilenet_like,
    reference_heads,
    resnet_like,
)

from posenet_ros import GraphError
from posenet_ros.core.heads import HEADS, INPUT_NAME
from posenet_ros.core.preprocess import RESNET_MEAN
from posenet_ros.model.onnx_export import export_onnx
from posenet_ros.model.tfjs_graph import load_graph

QUIRK = (2, 2, 1, 1)  # how the stock graphs store a dilation of 2 by 2


def run(model, images):
    session = ort.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    return dict(zip(HEADS, session.run(list(HEADS), {INPUT_NAME: images}), strict=True))


def images(count, height, width):
    return np.random.default_rng(2).uniform(-1, 1, (count, 3, height, width)).astype(np.float32)


def assert_close(heads, expected):
    for name in HEADS:
        assert heads[name].dtype == np.float32
        assert np.allclose(heads[name], expected[name], rtol=1e-4, atol=1e-5), name


@pytest.mark.parametrize('size', [(33, 33), (17, 49), (5, 9)])
@pytest.mark.parametrize(
    'graph',
    [
        pytest.param(mobilenet_like(), id='mobilenet'),
        pytest.param(mobilenet_like(fused=True), id='mobilenet, fused'),
        pytest.param(mobilenet_like(dilations=QUIRK), id='mobilenet, dilated'),
        pytest.param(resnet_like(), id='resnet'),
    ],
)
def test_graph_computes_what_its_operations_mean(tmp_path, graph, size):
    loaded = load_graph(graph.write(tmp_path / 'model.json'))
    batch = images(2, *size)
    heads = run(export_onnx(loaded, *size, output_stride=4), batch)
    for i, image in enumerate(batch):
        assert_close({name: head[i] for name, head in heads.items()}, reference_heads(graph, image))


def test_fused_and_unfused_graphs_are_the_same_network(tmp_path):
    batch = images(1, 33, 33)
    heads = []
    for fused in (False, True):
        graph = load_graph(mobilenet_like(fused).write(tmp_path / 'model.json'))
        heads.append(run(export_onnx(graph, 33, 33, 4), batch))
    assert_close(*heads)


def test_dilation_is_repaired_unless_tfjs_dilations_is_set(tmp_path):
    quirk = mobilenet_like(dilations=QUIRK)
    graph = load_graph(quirk.write(tmp_path / 'model.json'))
    intended = load_graph(mobilenet_like(dilations=(1, 2, 2, 1)).write(tmp_path / 'other.json'))
    batch = images(1, 33, 33)
    repaired = run(export_onnx(graph, 33, 33, 4), batch)
    as_tfjs = run(export_onnx(graph, 33, 33, 4, tfjs_dilations=True), batch)
    assert_close(repaired, run(export_onnx(intended, 33, 33, 4), batch))
    expected = reference_heads(quirk, batch[0], tfjs_dilations=True)
    assert_close({name: head[0] for name, head in as_tfjs.items()}, expected)
    assert np.abs(repaired['offset'] - as_tfjs['offset']).max() > 0.01


@pytest.mark.parity
def test_heads_of_every_real_checkpoint_equal_the_references():
    if not SHARED.is_dir():
        pytest.skip('checkpoints and tensors of the reference (../shared) are not on this machine')
    compared = 0
    for golden in map(load_golden, golden_paths('e2e')):
        if 'resizedInput' not in golden.tensors:
            continue
        model, tensors = golden.expected['model'], golden.tensors
        graph = load_graph(SHARED / golden.expected['modelFile'])
        resized = tensors['resizedInput']
        resnet = model['architecture'] == 'ResNet50'
        image = resized + RESNET_MEAN if resnet else resized / np.float32(127.5) - np.float32(1)
        heads = run(
            export_onnx(graph, *resized.shape[:2], model['outputStride'], tfjs_dilations=True),
            image.transpose(2, 0, 1)[None],
        )
        assert np.abs(heads['heatmap'][0] - tensors['heatmapScores']).max() < 1e-4
        assert np.abs(heads['offset'][0] - tensors['offsets']).max() < 0.01
        compared += 1
    assert compared >= 4


def test_every_real_checkpoint_converts_at_its_own_stride(shared):
    for path in sorted((shared / 'models').rglob('model-stride*.json')):
        stride = int(path.stem.split('stride')[1].split('-')[0])
        size = 4 * stride + 1
        model = export_onnx(load_graph(path), size, size, stride)
        heads = run(model, images(1, size, size))
        assert heads['heatmap'].shape == (1, 5, 5, 17), path
        assert all(np.isfinite(head).all() for head in heads.values()), path


def change(tmp_path, edit):
    path = mobilenet_like().write(tmp_path / 'model.json')
    model = json.loads(path.read_text())
    edit(model['modelTopology']['node'])
    path.write_text(json.dumps(model))
    return load_graph(path)


@pytest.mark.parametrize('graph', [mobilenet_like(), resnet_like()], ids=['mobilenet', 'resnet'])
def test_order_of_the_nodes_does_not_matter(tmp_path, graph):
    batch = images(1, 33, 33)
    expected = run(export_onnx(load_graph(graph.write(tmp_path / 'a.json')), 33, 33, 4), batch)
    graph.nodes = graph.nodes[::-1]
    loaded = load_graph(graph.write(tmp_path / 'b.json'))
    assert_close(run(export_onnx(loaded, 33, 33, 4), batch), expected)


def test_padding_before_something_else_than_a_convolution(tmp_path):
    graph = GraphWriter()
    tensor = graph.conv('conv0', 'sub_2', (3, 3, 3, 8), stride=2, activation='Relu')
    graph.const('pad/paddings', np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    graph.node('pad', 'Pad', tensor, 'pad/paddings')
    window = {'ksize': ints(1, 3, 3, 1), 'strides': ints(1, 2, 2, 1), 'padding': b64('VALID')}
    graph.node('pool', 'MaxPool', 'pad', **window)
    graph.heads('pool', 8)
    batch = images(1, 33, 33)
    heads = run(export_onnx(load_graph(graph.write(tmp_path / 'm.json')), 33, 33, 4), batch)
    assert_close({n: head[0] for n, head in heads.items()}, reference_heads(graph, batch[0]))


def test_convolution_that_is_read_twice_keeps_its_own_value(tmp_path):
    """Its bias must not be folded in: the other reader wants it without."""
    graph = GraphWriter()
    tensor = graph.conv('conv0', 'sub_2', (3, 3, 3, 8), stride=2)
    graph.node('copy', 'Identity', 'conv0/conv')
    graph.node('biased', 'BiasAdd', 'copy', graph.random('other/bias', 8))
    graph.node('sum', 'AddV2', tensor, 'biased')
    graph.heads('sum', 8)
    batch = images(1, 33, 33)
    heads = run(export_onnx(load_graph(graph.write(tmp_path / 'm.json')), 33, 33, 2), batch)
    assert_close({n: head[0] for n, head in heads.items()}, reference_heads(graph, batch[0]))


@pytest.mark.parametrize(
    'edit',
    [
        lambda node: node['attr'].pop('strides'),
        lambda node: node['attr'].pop('padding'),
        lambda node: node.pop('input'),
        lambda node: node['attr'].update(strides=ints(1, 0, 0, 1)),
    ],
)
def test_malformed_node_is_refused_by_name(tmp_path, edit):
    graph = change(
        tmp_path, lambda nodes: edit(next(node for node in nodes if node['op'] == 'Conv2D'))
    )
    with pytest.raises(GraphError, match='Conv2D conv0/conv'):
        export_onnx(graph, 33, 33, 4)


def test_circle_is_refused(tmp_path):
    def edit(nodes):
        next(node for node in nodes if node['name'] == 'conv0/conv')['input'][0] = 'conv3'

    with pytest.raises(GraphError, match='cycle'):
        export_onnx(change(tmp_path, edit), 33, 33, 4)


def test_unknown_operation_is_refused_by_name(tmp_path):
    def edit(nodes):
        next(node for node in nodes if node['op'] == 'Relu6')['op'] = 'LeakyRelu'

    with pytest.raises(GraphError, match='operation LeakyRelu'):
        export_onnx(change(tmp_path, edit), 33, 33, 4)


def test_missing_head_is_refused_by_name(tmp_path):
    def edit(nodes):
        nodes[:] = [node for node in nodes if 'heatmap' not in node['name']]

    with pytest.raises(GraphError, match='no single heatmap output'):
        export_onnx(change(tmp_path, edit), 33, 33, 4)


def test_graph_of_another_stride_is_refused(tmp_path):
    graph = load_graph(mobilenet_like().write(tmp_path / 'model.json'))
    with pytest.raises(GraphError, match='not output stride 8'):
        export_onnx(graph, 33, 33, 8)


def test_node_that_reads_nothing_known_is_named(tmp_path):
    def edit(nodes):
        next(node for node in nodes if node['op'] == 'Relu6')['input'] = ['nowhere']

    with pytest.raises(GraphError, match='reads nowhere'):
        export_onnx(change(tmp_path, edit), 33, 33, 4)


def test_constant_that_is_added_counts_for_the_bound_of_values(tmp_path):
    """One channel plus a constant of thousands."""
    graph = GraphWriter()
    graph.conv('one', 'sub_2', (1, 1, 3, 1))
    graph.const('many', np.zeros(3000, np.float32))
    graph.node('sum', 'Add', 'one/conv', 'many')
    path = graph.write(tmp_path / 'model.json')
    with pytest.raises(GraphError, match=r'sum has \d+ values, more than in any PoseNet'):
        export_onnx(load_graph(path), 257, 257, 16)


def node_of(nodes, op):
    return next(node for node in nodes if node['op'] == op)


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (
            lambda nodes: nodes.append({'name': 'x', 'op': 'Placeholder'}),
            'the graph has a second input',
        ),
        (
            lambda nodes: nodes.append({'name': 'x', 'op': 'Const'}),
            'the constant x has no weights',
        ),
        (
            lambda nodes: node_of(nodes, 'Conv2D').update(
                attr=node_of(nodes, 'Conv2D')['attr']
                | {'fused_ops': {'list': {'s': [b64('Elu')['s']]}}}
            ),
            r"Conv2D conv0/conv has the fused operations \['Elu'\]",
        ),
        (
            lambda nodes: node_of(nodes, 'Conv2D')['attr'].update(padding=b64('EXPLICIT')),
            'Conv2D conv0/conv has the padding EXPLICIT',
        ),
    ],
)
def test_what_no_posenet_has_is_refused_by_name(tmp_path, edit, message):
    with pytest.raises(GraphError, match=message):
        export_onnx(change(tmp_path, edit), 33, 33, 4)


def padded(tmp_path, paddings):
    graph = GraphWriter()
    graph.const('pad/paddings', np.array(paddings, np.int32))
    graph.node('pad', 'Pad', 'sub_2', 'pad/paddings')
    graph.conv('conv0', 'pad', (3, 3, 3, 8), stride=4, activation='Relu')
    graph.heads('conv0', 8)
    return load_graph(graph.write(tmp_path / 'model.json'))


@pytest.mark.parametrize(
    'paddings',
    [
        [[0, 0], [1, 1], [1, 1]],
        [[1, 0], [1, 1], [1, 1], [0, 0]],
        [[0, 0], [1, 1], [1, 1], [0, 2]],
        [[0, 0], [1, -1], [1, 1], [0, 0]],
    ],
)
def test_padding_of_anything_but_rows_and_columns_is_refused(tmp_path, paddings):
    export_onnx(padded(tmp_path, [[0, 0], [1, 1], [1, 1], [0, 0]]), 33, 33, 4)
    with pytest.raises(GraphError, match='Pad pad does more than pad rows and columns'):
        export_onnx(padded(tmp_path, paddings), 33, 33, 4)


def test_head_of_other_channels_is_refused(tmp_path):
    graph = GraphWriter()
    graph.conv('conv0', 'sub_2', (3, 3, 3, 8), stride=4, activation='Relu')
    for name, depth in (('offset', 34), ('heatmap', 16), ('displacement_fwd', 32)):
        graph.conv(f'net/{name}_2/BiasAdd', 'conv0', (1, 1, 8, depth))
    with pytest.raises(GraphError, match='has 16 channels; PoseNet has 17'):
        export_onnx(load_graph(graph.write(tmp_path / 'model.json')), 33, 33, 4)


def test_inner_node_with_the_name_of_an_output_is_refused(tmp_path):
    graph = GraphWriter()
    graph.conv('offset', 'sub_2', (3, 3, 3, 8), stride=4, activation='Relu')
    graph.heads('offset', 8)
    with pytest.raises(GraphError, match='an inner node offset, which is the name of an output'):
        export_onnx(load_graph(graph.write(tmp_path / 'model.json')), 33, 33, 4)


def test_input_that_is_too_small_for_a_window_is_refused(tmp_path):
    writer = GraphWriter()
    writer.conv('conv0', 'sub_2', (7, 7, 3, 8), stride=4, padding='VALID')
    writer.heads('conv0', 8)
    graph = load_graph(writer.write(tmp_path / 'model.json'))
    with pytest.raises(GraphError, match='an input of 5 x 33 is too small for Conv2D conv0/conv'):
        export_onnx(graph, 5, 33, 4)


def test_graph_that_would_fill_the_memory_is_refused(tmp_path):
    graph = GraphWriter()
    paddings = np.array([[0, 0], [30_000, 0], [30_000, 0], [0, 0]], np.int32)
    graph.const('pad/paddings', paddings)
    graph.node('pad', 'Pad', 'sub_2', 'pad/paddings')
    graph.conv('conv0', 'pad', (3, 3, 3, 8), stride=1)
    graph.heads('conv0', 8)
    with pytest.raises(GraphError, match=r'Conv conv0/conv has \d+ values, more than in any'):
        export_onnx(load_graph(graph.write(tmp_path / 'model.json')), 33, 33, 1)


def test_constant_behind_an_identity_is_a_constant(tmp_path):
    graph = GraphWriter()
    tensor = graph.conv('conv0', 'sub_2', (3, 3, 3, 8), stride=4, activation='Relu')
    graph.node('bias/read', 'Identity', graph.random('bias', 8))
    graph.node('sum', 'AddV2', tensor, 'bias/read')
    graph.heads('sum', 8)
    batch = images(1, 33, 33)
    heads = run(export_onnx(load_graph(graph.write(tmp_path / 'm.json')), 33, 33, 4), batch)
    assert_close({n: head[0] for n, head in heads.items()}, reference_heads(graph, batch[0]))
