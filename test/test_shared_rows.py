"""Rows that are computed once and repeated: on x86 to the bit what computing all of them gives."""

import itertools
import platform
from dataclasses import replace

import numpy as np
import onnx
import pytest
from tfjs_models import mobilenet_like, resnet_like

from posenet_ros import DecoderConfig, PoseNet, loading
from posenet_ros.backends.onnxruntime import OnnxRuntimeBackend
from posenet_ros.onnx_export import export_onnx
from posenet_ros.preprocess import Letterbox, preprocess
from posenet_ros.quantization import to_int8
from posenet_ros.shared_rows import SharedRows, _after, share_rows
from posenet_ros.tfjs_graph import load_graph

SIZES = [(480, 640), (426, 640), (1080, 1920), (640, 480), (90, 90), (101, 102), (2, 4000), (1, 1)]


def rows_of_layer(rows, convolutions):
    """What each row of the last layer sees of the input, as one value; None lies outside."""
    for convolution in convolutions:
        (size, _), (stride, _) = convolution['kernel_shape'], convolution['strides']
        (dilation, _), (top, _, bottom, _) = convolution['dilations'], convolution['pads']
        padded = [None] * top + rows + [None] * bottom
        reach = dilation * (size - 1)
        rows = [
            tuple(padded[start : start + reach + 1 : dilation])
            for start in range(0, len(padded) - reach, stride)
        ]
    return rows


def test_repeated_rows_are_the_layers_rows_whatever_the_convolutions():
    generator = np.random.default_rng(0)
    skipped = 0
    for _ in range(400):
        height = int(generator.integers(30, 120))
        convolutions, shared = [], SharedRows(height, height, 1, 0, 0)
        for _ in range(generator.integers(1, 5)):
            size, stride, dilation = (int(generator.integers(1, n)) for n in (4, 3, 3))
            top, bottom = (int(generator.integers(0, size * dilation)) for _ in range(2))
            convolution = {
                'kernel_shape': [size, 3],
                'strides': [stride, 1],
                'dilations': [dilation, 1],
                'pads': [top, 1, bottom, 1],
            }
            if _after(shared, convolution).rows < 3:
                break
            convolutions.append(convolution)
            shared = _after(shared, convolution)
        above = int(generator.integers(0, height))
        below = int(generator.integers(0, height - above + 1))
        image = list(range(1, height - above - below + 1))
        rows = [0] * above + image + [0] * below
        wanted = rows_of_layer(rows, convolutions)
        assert shared.rows == len(wanted)
        needed = shared.needed(above, below)
        computed = rows_of_layer(rows[needed.start : needed.stop], convolutions)
        assert [computed[i] for i in shared.repeats(needed)] == wanted
        skipped += height - len(needed)
    assert skipped > 400  # of 30,000


@pytest.mark.parametrize(('height', 'width'), SIZES)
def test_black_rows_are_those_that_no_image_reaches(height, width):
    for rows, columns in ((257, 257), (193, 257), (17, 33)):
        letterbox = Letterbox.fit(height, width, rows, columns)
        white = np.full((height, width, 3), 255, np.uint8)
        out = np.zeros((3, rows, columns), np.float32)
        preprocess(white, letterbox, 'MobileNetV1', out)
        above, below = letterbox.black_rows()
        black = (out == -1).all(axis=(0, 2))
        assert black[:above].all()
        assert black[rows - below :].all()
        seen = black[above : rows - below]
        assert seen.size == 0 or not (seen[0] or seen[-1])
        for first, last in ((0, rows), (above, rows - below), (3, 11)):
            part = np.zeros((3, last - first, columns), np.float32)
            preprocess(white, letterbox, 'MobileNetV1', part, first)
            assert (part == out[:, first:last]).all()


def assert_same(head, wanted):
    # Other processors' products of matrices may add up in another order when there are fewer rows.
    tolerance = 0 if platform.machine() in ('x86_64', 'AMD64') else 1e-5 * np.abs(wanted).max()
    assert np.abs(head - wanted).max() <= tolerance


def heads_of(backend, image):
    letterbox = Letterbox.fit(*image.shape[:2], 257, 257)
    rows = backend.needed_rows([letterbox])
    batch = backend.input_buffer(1, rows)
    batch[:] = np.nan
    preprocess(image, letterbox, 'MobileNetV1', batch[0], rows.start)
    return [head.copy() for head in backend.run(batch, rows)], 257 - len(rows)


def assert_same_heads(backend, plain, rows_skipped):
    generator = np.random.default_rng(1)
    skipped = []
    for height, width in SIZES:
        image = generator.integers(0, 256, (height, width, 3), np.uint8)
        heads, rows = heads_of(backend, image)
        expected, none = heads_of(plain, image)
        assert none == 0
        for head, wanted in zip(heads, expected, strict=True):
            assert_same(head, wanted)
        skipped.append(rows)
    assert skipped == rows_skipped


def test_default_model_gives_the_same_bits(net, default_model_config):
    weights = loading.weights_for(default_model_config, 'fp32')
    plain = OnnxRuntimeBackend(loading.network(default_model_config, weights, 'fp32'))
    assert_same_heads(net.backend, plain, [16, 40, 64, 0, 0, 0, 208, 0])


@pytest.fixture
def graph(tmp_path):
    """A small network of the default model's form, at 257."""
    path = mobilenet_like(output_stride=16).write(tmp_path / 'model-stride16.json')
    return export_onnx(load_graph(path), 257, 257, 16)


@pytest.mark.parametrize('precision', ['fp32', 'int8'])
def test_small_model_gives_the_same_bits(graph, precision):
    if precision == 'int8':
        images = np.random.default_rng(2).uniform(-1, 1, (4, 3, 257, 257)).astype(np.float32)
        graph = to_int8(graph, images, 'onnxruntime')
    plain = OnnxRuntimeBackend(graph.SerializeToString(), precision)
    assert share_rows(graph)
    onnx.checker.check_model(graph)
    shared = OnnxRuntimeBackend(graph.SerializeToString(), precision)
    assert_same_heads(shared, plain, [48, 64, 96, 0, 0, 0, 240, 0])


def test_all_rows_are_taken_too(graph):
    images = np.random.default_rng(3).uniform(-1, 1, (2, 3, 257, 257)).astype(np.float32)
    expected = OnnxRuntimeBackend(graph.SerializeToString()).run(images)
    assert share_rows(graph)
    backend = OnnxRuntimeBackend(graph.SerializeToString())
    for head, wanted in zip(backend.run(images), expected, strict=True):
        assert_same(head, wanted)


def test_only_squares_that_gain_and_plain_chains_are_changed(tmp_path, graph):
    (tmp_path / 'resnet').mkdir()
    resnet = resnet_like().write(tmp_path / 'resnet/m.json')
    path = tmp_path / 'model-stride16.json'  # that graph's
    branched = onnx.ModelProto()
    branched.CopyFrom(graph)
    first = branched.graph.node[0].output[0]
    branched.graph.node.append(onnx.helper.make_node('Clip', [first], ['elsewhere']))
    for model in (
        export_onnx(load_graph(path), 241, 241, 16),
        export_onnx(load_graph(path), 257, 353, 16),
        export_onnx(load_graph(resnet), 257, 257, 4),
        branched,
    ):
        before = model.SerializeToString()
        assert not share_rows(model)
        assert model.SerializeToString() == before


def test_several_cameras_and_the_same_poses(default_model_config, astronaut):
    """Images of other sizes in turn, through one model whose input's height changes."""
    config = replace(default_model_config, input_resolution=257)
    images = [astronaut, astronaut[100:400], astronaut[100:300], astronaut[:, 100:300]]
    decoder = DecoderConfig(score_threshold=0.2)
    with PoseNet.load(config, 'onnxruntime', 'fp32') as net:
        alone = [net.estimate([image], decoder)[0] for image in images]
        together = net.estimate([*images, *images[::-1]], decoder)
    for poses, expected in zip(together, itertools.chain(alone, alone[::-1]), strict=True):
        assert len(poses) == len(expected)
        for pose, wanted in zip(poses, expected, strict=True):
            assert np.array_equal(pose.keypoints, wanted.keypoints)
