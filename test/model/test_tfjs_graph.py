import json

import numpy as np
import pytest
from tfjs_models import mobilenet_like

from posenet_ros import GraphError
from posenet_ros.model.tfjs_graph import load_graph, read_topology


@pytest.fixture
def model(tmp_path):
    return mobilenet_like().write(tmp_path / 'model-stride16.json', shards=3)


def edit(path, change):
    model = json.loads(path.read_text())
    change(model)
    path.write_text(json.dumps(model))


def test_weights_come_back_across_shard_borders(model):
    graph = load_graph(model)
    written = mobilenet_like().weights
    assert graph.weights.keys() == written.keys()
    assert all(np.array_equal(graph.weights[name], written[name]) for name in written)


@pytest.mark.parametrize(
    ('storage', 'tolerance'), [('float16', 1e-3), ('uint16', 1e-4), ('uint8', 1e-2)]
)
def test_quantised_weights_are_restored_within_their_step(tmp_path, storage, tolerance):
    written = mobilenet_like()
    graph = load_graph(written.write(tmp_path / 'model.json', storage))
    for name, value in written.weights.items():
        assert graph.weights[name].dtype == np.float32
        assert np.abs(graph.weights[name] - value).max() <= tolerance


def test_attributes_become_plain_values(model):
    node = next(node for node in read_topology(model).nodes if node.name == 'conv0/conv')
    assert node.attributes['padding'] == 'SAME'
    assert node.attributes['strides'] == [1, 2, 2, 1]


def test_every_checkpoint_of_the_reference_can_be_read(shared):
    paths = sorted((shared / 'models').rglob('model-stride*.json'))
    assert len(paths) >= 20
    for path in paths:
        graph = load_graph(path)
        assert all(np.isfinite(value).all() for value in graph.weights.values())


def test_missing_graph_is_named(tmp_path):
    with pytest.raises(GraphError, match=r'nothing\.json: No such file'):
        load_graph(tmp_path / 'nothing.json')


def test_truncated_graph_is_named(model):
    model.write_bytes(model.read_bytes()[:1000])
    with pytest.raises(GraphError, match='not JSON'):
        load_graph(model)


@pytest.mark.parametrize('content', ['[]', '{}', '{"modelTopology": {"node": 3}}', '3'])
def test_json_that_is_no_graph_is_refused(model, content):
    model.write_text(content)
    with pytest.raises(GraphError, match='not a tfjs graph model'):
        load_graph(model)


def test_missing_shard_is_named(model):
    (model.parent / 'group1-shard2of3.bin').unlink()
    with pytest.raises(GraphError, match=r'shard2of3\.bin is missing'):
        load_graph(model)


@pytest.mark.parametrize('change', [lambda data: data[:-1], lambda data: data + b'x'])
def test_shards_of_the_wrong_size_are_refused_with_both_sizes(model, change):
    shard = model.parent / 'group1-shard3of3.bin'
    shard.write_bytes(change(shard.read_bytes()))
    with pytest.raises(GraphError, match=r'hold \d+ bytes where the manifest needs \d+'):
        load_graph(model)


@pytest.mark.parametrize('name', ['../secret.bin', '/etc/passwd', 'a/b.bin', '..', 'a\\b.bin'])
def test_shards_cannot_name_files_elsewhere(model, name):
    edit(model, lambda m: m['weightsManifest'][0]['paths'].__setitem__(0, name))
    with pytest.raises(GraphError, match='not a file name'):
        load_graph(model)


def test_unknown_dtype_is_named(model):
    edit(model, lambda m: m['weightsManifest'][0]['weights'][0].__setitem__('dtype', 'complex64'))
    with pytest.raises(GraphError, match='complex64'):
        load_graph(model)
