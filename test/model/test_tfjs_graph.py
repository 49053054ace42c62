import hashlib
import json

import numpy as np
import pytest
from tfjs_models import b64, mobilenet_like

from posenet_ros import GraphError
from posenet_ros.model.tfjs_graph import (
    MAX_GRAPH_BYTES,
    MAX_WEIGHT_BYTES,
    Node,
    load_graph,
    read_topology,
)


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


def test_shards_are_those_of_all_groups(model):
    edit(model, lambda m: m['weightsManifest'].append({'paths': ['more.bin'], 'weights': []}))
    names = [f'group1-shard{i}of3.bin' for i in (1, 2, 3)]
    assert read_topology(model).shards == (*names, 'more.bin')


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


# The schema's bounds.


@pytest.fixture
def smallest(tmp_path):
    """Writes a graph of one node and one weight, changed; returns its path."""

    def write(change):
        node = {'name': 'n', 'op': 'Const', 'input': [], 'attr': {}}
        weight = {'name': 'w', 'shape': [1], 'dtype': 'uint8'}
        group = {'paths': ['w.bin'], 'weights': [weight]}
        model = {'modelTopology': {'node': [node]}, 'weightsManifest': [group]}
        change(model, node, group, weight)
        path = tmp_path / 'model.json'
        path.write_text(json.dumps(model))
        return path

    return write


def copies(item, count):
    return [{**item, 'name': f'{item["name"]}{i}'} for i in range(count)]


def attribute(value):
    return {'a': value}


BOUNDS = {  # what is set to a number, the least and the most that it may be
    'name of a node': (lambda m, n, g, w, i: n.update(name=i * 'x'), 1, 500),
    'operation': (lambda m, n, g, w, i: n.update(op=i * 'x'), 1, 500),
    'nodes': (lambda m, n, g, w, i: m['modelTopology'].update(node=copies(n, i)), 0, 10_000),
    'inputs': (lambda m, n, g, w, i: n.update(input=i * ['x']), 0, 100),
    'attributes': (lambda m, n, g, w, i: n.update(attr={f'{j}': {} for j in range(i)}), 0, 100),
    'digits': (lambda m, n, g, w, i: n.update(attr=attribute({'i': i * '7'})), 1, 9),
    'string': (lambda m, n, g, w, i: n.update(attr=attribute({'s': i * 'QUJD'})), 0, 50),
    'ints': (lambda m, n, g, w, i: n.update(attr=attribute({'list': {'i': i * ['1']}})), 0, 100),
    'strings': (lambda m, n, g, w, i: n.update(attr=attribute({'list': {'s': i * ['']}})), 0, 100),
    'groups': (lambda m, n, g, w, i: m.update(weightsManifest=i * [{**g, 'weights': []}]), 0, 100),
    'shards': (lambda m, n, g, w, i: g.update(paths=i * ['x']), 0, 1000),
    'name of a shard': (lambda m, n, g, w, i: g.update(paths=[i * 'x']), 1, 255),
    'weights': (lambda m, n, g, w, i: g.update(weights=copies(w, i)), 0, 10_000),
    'dimensions': (lambda m, n, g, w, i: w.update(shape=i * [1]), 0, 8),
    'size': (lambda m, n, g, w, i: w.update(shape=[i]), 0, 1 << 30),
}


@pytest.mark.parametrize(('change', 'least', 'most'), BOUNDS.values(), ids=BOUNDS)
def test_everything_in_a_graph_has_its_bounds(smallest, change, least, most):
    for number in (least, most):
        read_topology(smallest(lambda *parts, number=number: change(*parts, number)))
    beyond = (most + 1,) if least == 0 and most < 1 << 30 else (least - 1, most + 1)
    for number in beyond:
        path = smallest(lambda *parts, number=number: change(*parts, number))
        with pytest.raises(GraphError, match=r'not a tfjs graph model|not a file name'):
            read_topology(path)


def test_graph_and_weights_have_a_largest_size(smallest):
    path = smallest(lambda *_: None)
    with path.open('a') as file:
        file.write(' ' * (MAX_GRAPH_BYTES - path.stat().st_size))
    assert path.stat().st_size == MAX_GRAPH_BYTES == 16 * 1024 * 1024
    read_topology(path)
    with path.open('a') as file:
        file.write(' ')
    with pytest.raises(GraphError, match=f'model.json has more than {MAX_GRAPH_BYTES} bytes'):
        read_topology(path)

    def too_large(model, node, group, weight):
        weight['shape'] = [MAX_WEIGHT_BYTES]
        group['weights'] = copies(weight, 2)
        group['weights'][1]['shape'] = [1]

    assert MAX_WEIGHT_BYTES == 1024**3
    with pytest.raises(GraphError, match=f'weights of more than {MAX_WEIGHT_BYTES} bytes'):
        read_topology(smallest(too_large))


@pytest.mark.parametrize('part', ['nodes', 'weights'])
def test_name_that_is_there_twice_is_told(smallest, part):
    def twice(model, node, group, weight):
        if part == 'nodes':
            model['modelTopology']['node'] = [node, {**node, 'name': 'x'}, {**node, 'name': 'x'}]
        else:
            group['weights'] = [weight, {**weight, 'name': 'x'}, {**weight, 'name': 'x'}]

    with pytest.raises(GraphError, match="has 'x' twice"):
        read_topology(smallest(twice))


def test_node_has_its_inputs_by_name_and_its_attributes_as_plain_values(smallest):
    def change(model, node, group, weight):
        node['input'] = ['a', '^control', 'b:0']
        node['attr'] = {
            'number': {'i': '-7'},
            'text': b64('größe'),
            'numbers': {'list': {'i': ['1', '22']}},
            'texts': {'list': {'s': [b64('BiasAdd')['s'], b64('Relu6')['s']]}},
            'nothing': {'list': {}},
            'T': {'type': 'DT_FLOAT'},
        }

    (node,) = read_topology(smallest(change)).nodes
    attributes = {
        'number': -7,
        'text': 'größe',
        'numbers': [1, 22],
        'texts': ['BiasAdd', 'Relu6'],
        'nothing': [],
    }
    assert node == Node('n', 'Const', ('a', 'b'), attributes)


def test_text_that_is_no_base64_is_refused(smallest):
    path = smallest(lambda model, node, *_: node.update(attr={'a': {'s': '=QUJD'}}))
    with pytest.raises(GraphError, match=r'cannot read .*model\.json'):
        read_topology(path)


@pytest.mark.parametrize(
    ('dtype', 'quantization', 'expected'),
    [
        ('uint8', None, [0, 1, 255]),
        ('float32', {'dtype': 'uint8', 'scale': 0.5}, [0, 0.5, 127.5]),
        ('float32', {'dtype': 'uint8', 'scale': 2, 'min': -3}, [-3, -1, 507]),
        ('int32', {'dtype': 'uint8', 'scale': 0.3, 'min': 0.5}, [0, 1, 77]),  # rounded to even
        ('bool', None, [0, 1, 1]),
    ],
)
def test_stored_numbers_become_values(smallest, dtype, quantization, expected):
    def change(model, node, group, weight):
        weight |= {'dtype': dtype, 'shape': [3]}
        if quantization:
            weight['quantization'] = quantization

    path = smallest(change)
    (path.parent / 'w.bin').write_bytes(bytes([0, 1, 255]))
    values = load_graph(path).weights['w']
    assert values.dtype == dtype and values.tolist() == expected


def test_graph_that_changed_since_it_was_checked_is_refused(model):
    content = [model.read_bytes()]
    content += [path.read_bytes() for path in sorted(model.parent.glob('group1-shard*.bin'))]
    digest = hashlib.sha256(b''.join(content)).hexdigest()
    assert load_graph(model, digest).nodes == load_graph(model).nodes
    with pytest.raises(GraphError, match='or its shards changed while they were read'):
        load_graph(model, '0' * 64)


@pytest.mark.parametrize('content', [b'\xff\xfe{}', b'{"modelTopology": {"node": "\xff"}}', b''])
def test_bytes_that_are_no_text_are_no_json(model, content):
    model.write_bytes(content)
    with pytest.raises(GraphError, match=r'model-stride16\.json'):
        load_graph(model)
