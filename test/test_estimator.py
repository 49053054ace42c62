"""The whole chain: a photo goes in, the reference's poses come out."""

import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace

import numpy as np
import pytest
from goldens import DATA, SHARED, check_poses, golden_config, golden_paths, load_golden
from tfjs_models import mobilenet_like

from posenet_ros import (
    BackendError,
    CheckpointError,
    ConfigError,
    DecoderConfig,
    ImageError,
    ModelConfig,
    PoseNet,
)
from posenet_ros.cache import posenet_home
from posenet_ros.core.heads import HEADS, Heads
from posenet_ros.io.photos import read_image

ANYBODY = DecoderConfig(score_threshold=0.0)  # in noise there is always somebody

E2E = [pytest.param(path, id=path.stem) for path in golden_paths('e2e')]


@pytest.fixture
def small_net_options(tmp_path):
    """A small network: its poses mean nothing, and it takes no time."""
    url = str(mobilenet_like(output_stride=16).write(tmp_path / 'model-stride16.json'))
    return {'input_resolution': 65, 'model_url': url}


@pytest.mark.parity
@pytest.mark.skipif(not E2E, reason='models and photos (../shared) are not on this machine')
@pytest.mark.parametrize('path', E2E)
def test_poses_of_real_photos_equal_the_references(path):
    golden = load_golden(path)
    image = read_image(SHARED / 'images' / golden.expected['image'])
    with PoseNet.load(golden_config(golden), precision='fp32') as net:
        assert check_poses(net, image, golden.expected) < 0.01


@pytest.mark.parity
def test_poses_of_the_astronaut_equal_the_references(net, astronaut):
    import json

    expected = json.loads((DATA / 'e23_astronaut.json').read_text())
    assert expected['multi'] and expected['single']
    assert check_poses(net, astronaut, expected) < 0.01


@pytest.mark.parity
def test_repaired_dilation_is_the_default(shared):
    """The stock file, repaired, gives what the reference gives with a corrected file."""
    golden = load_golden(shared / 'golden/e2e/e20_075_s8fix_257_couple.cpu.json')
    assert 'fixeddil' in golden.expected['modelFile']
    stock = str(shared / golden.expected['modelFile']).replace('-fixeddil', '')
    image = read_image(shared / 'images' / golden.expected['image'])
    config = ModelConfig(output_stride=8, multiplier=0.75, model_url=stock)
    with PoseNet.load(config) as net:
        assert check_poses(net, image, golden.expected) < 0.01


def test_default_arguments_equal_the_references(net, astronaut):
    plain = [pose.to_dict() for pose in net.estimate_multiple_poses(astronaut)]
    spelt_out = net.estimate_multiple_poses(astronaut, False, 5, 0.5, 20)
    assert plain == [pose.to_dict() for pose in spelt_out]


def test_pose_is_what_the_documentation_says(net, astronaut):
    pose = net.estimate_single_pose(astronaut)
    assert isinstance(pose.score, float)
    assert (pose.keypoints.dtype, pose.keypoints.shape) == (np.float64, (17, 2))
    assert pose.keypoint_scores.shape == (17,)
    as_json = pose.to_dict()
    assert as_json['keypoints'][0]['part'] == 'nose'
    assert as_json['keypoints'][0]['position'] == {
        'x': pose.keypoints[0, 0],
        'y': pose.keypoints[0, 1],
    }


def test_batch_gives_each_image_its_own_poses(net, astronaut):
    images = [astronaut, astronaut[::2, ::2], np.zeros((100, 50, 3), np.uint8)]
    decoder = DecoderConfig()
    together = net.estimate(images, decoder)
    assert together[2] == []
    for image, poses in zip(images, together, strict=True):
        alone = net.estimate([image], decoder)[0]
        assert len(poses) == len(alone)
        for a, b in zip(poses, alone, strict=True):
            assert np.abs(a.keypoints - b.keypoints).max() < 0.01


def test_poses_of_one_image_do_not_change_with_the_next(net, astronaut):
    pose = net.estimate_single_pose(astronaut)
    before = pose.keypoints.copy()
    net.estimate_single_pose(np.zeros_like(astronaut))
    assert np.array_equal(pose.keypoints, before)


def test_image_is_not_written_to(net, astronaut):
    image = astronaut.copy()
    net.estimate_multiple_poses(image)
    assert np.array_equal(image, astronaut)
    assert image.flags.writeable


def test_wrong_image_and_wrong_options_are_refused(net, astronaut):
    with pytest.raises(ImageError, match='float64'):
        net.estimate_single_pose(astronaut / 255)
    with pytest.raises(ConfigError, match='scoreThreshold 2'):
        net.estimate_multiple_poses(astronaut, score_threshold=2)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'backend': 'cuda'}, 'backend cuda.*onnxruntime,onnxruntime-cuda,tensorrt'),
        ({'precision': 'fp8'}, 'precision fp8.*fp32'),
        ({'num_threads': -1}, 'num_threads -1'),
    ],
)
def test_wrong_ways_to_run_are_refused_by_name(default_model_config, options, named):
    with pytest.raises(ConfigError, match=named):
        PoseNet.load(default_model_config, **options)


def test_wrong_weights_are_refused():
    with pytest.raises(CheckpointError, match='/nowhere'):
        PoseNet.load(ModelConfig(model_url='/nowhere'))


@pytest.mark.parametrize(
    'heads', [['heatmap'], ['offset'], ['displacement_fwd'], ['displacement_bwd'], list(HEADS)]
)
def test_network_that_gives_nan_is_reported(tmp_path, heads):
    graph = mobilenet_like(output_stride=16)
    for head in heads:
        graph.weights[f'net/{head}_2/BiasAdd/bias'][-1] = np.nan
    path = graph.write(tmp_path / 'model-stride16.json')
    config = ModelConfig(input_resolution=33, model_url=str(path))
    with pytest.raises(BackendError, match=f'NaN or infinite values .{heads[0]}'):
        PoseNet.load(config, 'onnxruntime')


class Given:
    """A backend that gives the heads which it was given."""

    max_batch = 1

    def __init__(self, heads):
        self.heads = heads

    def input_buffer(self, count, height, width):
        return np.zeros((count, 3, height, width), np.float32)

    def run(self, images):
        return self.heads


def heads_of(*shapes, dtype=np.float32):
    return Heads(*(np.full(shape, 0.6, dtype) for shape in shapes))


@pytest.mark.parametrize(
    ('heads', 'told'),
    [
        (heads_of((1, 3, 3, 17), (1, 3, 3, 34), (1, 3, 3, 32), (1, 3, 3, 30)), 'displacement_bwd'),
        (heads_of((1, 3, 4, 17), (1, 3, 3, 34), (1, 3, 3, 32), (1, 3, 3, 32)), 'heatmap'),
        (heads_of((2, 3, 3, 17), (2, 3, 3, 34), (2, 3, 3, 32), (2, 3, 3, 32)), 'heatmap'),
        (heads_of((17,), (34,), (32,), (32,)), 'heatmap'),
        (
            heads_of(*((1, 3, 3, depth) for depth in HEADS.values()), dtype=np.float16),
            'heatmap as float16',
        ),
    ],
)
def test_heads_of_another_shape_are_refused(heads, told):
    net = PoseNet(ModelConfig(input_resolution=33), Given(heads), 'test')
    with pytest.raises(BackendError, match=f'gave {told}.*should be float32'):
        net.warm_up()


@pytest.mark.parametrize('method', ['single-person', 'multi-person'])
@pytest.mark.parametrize('decoder', ['reference', 'refined'])
@pytest.mark.parametrize('value', [1e4, -1e9, 3e38, -3e38])
@pytest.mark.parametrize('head', range(4))
def test_absurd_heads_give_an_error_and_no_poses(fuzz, method, decoder, value, head):
    """Whatever finite numbers the network gives."""
    heads = heads_of(*((1, 3, 3, depth) for depth in HEADS.values()))
    heads[0][...] = fuzz.dice.random()
    heads[head][:, :, :, :] = value
    net = PoseNet(ModelConfig(input_resolution=33), Given(heads), 'test')
    image = np.zeros((48, 64, 3), np.uint8)
    config = DecoderConfig(decoding_method=method, decoder=decoder, score_threshold=0.1)
    try:
        (poses,) = net.estimate([image], config)
    except BackendError as error:
        assert 'impossible poses' in str(error)
    else:
        for pose in poses:
            assert np.abs(pose.keypoints).max() < 1000 and 0 <= pose.score <= 1.1
            assert np.isfinite(pose.keypoint_deviations).all()
        # Displacements lead to a cell of the grid, however long they are.
        assert head >= 2 or not poses


def test_closed_model_says_so(default_model_config):
    net = PoseNet.load(default_model_config)
    net.close()
    net.close()
    with pytest.raises(BackendError, match='closed'):
        net.estimate_single_pose(np.zeros((10, 10, 3), np.uint8))


def test_live_frame_waits_for_no_compilation(default_model_config, astronaut):
    """compile_loops compiles all that a model needs, whatever the image and options."""
    program = f"""
import sys
import numpy as np
from numba.core.registry import CPUDispatcher
from posenet_ros import DecoderConfig, ModelConfig, PoseNet
from posenet_ros.core import decode, heads, preprocess
from posenet_ros.warm_up import compile_loops

def forms():
    compiled = [f for m in (decode, heads, preprocess) for f in vars(m).values()
                if isinstance(f, CPUDispatcher)]
    assert len(compiled) > 10
    return sum(len(f.overloads) for f in compiled)

photo = np.load(sys.argv[1])
compile_loops()
ahead = forms()
net = PoseNet.load(ModelConfig(model_url={default_model_config.model_url!r}), 'onnxruntime')
alpha = np.dstack([photo, photo[..., :1]])
mono = np.broadcast_to(photo[..., :1], photo.shape)
received = np.frombuffer(photo.tobytes(), np.uint8).reshape(photo.shape)
views = [photo, photo[..., ::-1], alpha[..., :3], alpha[..., 2::-1], mono, received, photo[::2]]
before = forms()
for view in [*views, photo[:, ::-1], np.zeros((3, 2, 3), np.uint8)]:
    for flip in (False, True):
        for method in ('single-person', 'multi-person'):
            net.estimate([view], DecoderConfig(flip, 3, 0.3, 20.0, method))
print(before - ahead, forms() - before)
"""
    with tempfile.TemporaryDirectory() as folder:
        np.save(f'{folder}/photo.npy', astronaut)
        command = [sys.executable, '-c', program, f'{folder}/photo.npy']
        run = subprocess.run(command, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ('0 0\n', '')


def test_quant_bytes_stand_for_precisions(default_model_config, tmp_path, monkeypatch):
    """On a CPU, which has no float16, 2 bytes run in float32."""
    monkeypatch.setenv('POSENET_HOME', str(tmp_path))
    url = str(mobilenet_like(output_stride=16).write(tmp_path / 'model-stride16.json'))
    for quant_bytes, precision in ((4, 'fp32'), (2, 'fp32'), (1, 'int8')):
        config = ModelConfig(input_resolution=33, quant_bytes=quant_bytes, model_url=url)
        with PoseNet.load(config, 'onnxruntime') as net:
            assert net.backend.precision == precision
        with PoseNet.load(config, 'onnxruntime', 'fp16') as net:
            assert net.backend.precision == 'fp16'
            assert len(net.estimate([np.zeros((9, 9, 3), np.uint8)], DecoderConfig())) == 1


def test_options_of_another_backend_are_refused(default_model_config):
    for options, reason in (
        ({'dla_core': 0}, 'dla_core 0 is for tensorrt'),
        ({'max_batch': 0}, 'max_batch 0'),
        ({'num_threads': -1}, 'num_threads -1.*0 to 256'),
        ({'cuda_library': 'opencl'}, 'cuda_library opencl.*pycuda,cuda-python'),
        ({'workspace_mib': 1.5}, 'workspace_mib 1.5.*integer'),
    ):
        with pytest.raises(ConfigError, match=reason):
            PoseNet.load(default_model_config, 'onnxruntime', **options)


def test_more_images_than_a_batch_run_one_after_the_other(net, astronaut):
    images = [astronaut, astronaut[::2, ::2], astronaut[:, ::-1]]
    assert net.backend.max_batch < len(images)
    alone = [net.estimate([image], DecoderConfig())[0] for image in images]
    took = net.stage_times.inference
    together = net.estimate(images, DecoderConfig())
    assert [len(poses) for poses in together] == [len(poses) for poses in alone]
    for a, b in zip(together, alone, strict=True):
        assert np.array_equal(a[0].keypoints, b[0].keypoints)
    assert net.stage_times.inference > took  # of all of them


def test_second_thread_on_one_model_is_refused(default_model_config, astronaut):
    """Their images would share buffers: 35 of 200 poses were wrong, silently."""
    with PoseNet.load(default_model_config) as net:
        expected = net.estimate_multiple_poses(astronaut)[0].to_dict()
        results: list = []

        def run():
            for _ in range(20):
                try:
                    results.append(net.estimate_multiple_poses(astronaut)[0].to_dict())
                except BackendError as error:
                    results.append(str(error))

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [one for one in results if isinstance(one, str)]
        assert all('another thread runs this model' in text for text in refused)
        assert refused
        assert all(one == expected for one in results if not isinstance(one, str))
        assert net.estimate_multiple_poses(astronaut)[0].to_dict() == expected


SENDS_NOTHING = """
import os, sys, time
from pathlib import Path
import numpy as np
from posenet_ros import ModelConfig, PoseNet

with PoseNet.load(ModelConfig(model_url=sys.argv[1] or None)) as net:
    net.estimate_multiple_poses(np.zeros((48, 64, 3), np.uint8))
    time.sleep(1)
    open_files = [os.readlink(fd) for fd in Path('/proc/self/fd').iterdir() if fd.is_symlink()]
    print([name for name in open_files if name.startswith('socket:')])
"""


def test_nothing_is_sent_and_nothing_written_but_the_networks(net, default_model_config, tmp_path):
    """ONNX Runtime's telemetry is off: no device id, no database, no socket."""
    result = subprocess.run(
        [sys.executable, '-c', SENDS_NOTHING, default_model_config.model_url or ''],
        capture_output=True,
        text=True,
        env={
            **{k: v for k, v in os.environ.items() if k != 'ORT_DISABLE_TELEMETRY'},
            'HOME': str(tmp_path),
            'POSENET_HOME': str(posenet_home()),
            'PYTHONPATH': os.pathsep.join(sys.path),
        },
    )
    assert result.stdout == '[]\n', result.stderr
    assert [path for path in tmp_path.rglob('*') if path.is_file()] == []


def test_the_input_follows_each_images_shape(small_net_options):
    shapes = [(480, 640), (640, 480), (480, 640), (90, 160), (500, 500)]
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    with PoseNet.load(ModelConfig(input_aspect='image', **small_net_options)) as net:
        seen = []
        run = net.backend.run
        net.backend.run = lambda batch: seen.append(batch.shape) or run(batch)
        together = net.estimate(pictures, ANYBODY)
        assert set(seen) == {(1, 3, *net.config.input_size(*shape)) for shape in shapes}
        alone = [net.estimate([picture], ANYBODY)[0] for picture in pictures]
    assert [len(poses) for poses in together] == [5] * 5
    for one, other in zip(together, alone, strict=True):
        assert [pose.to_dict(True) for pose in one] == [pose.to_dict(True) for pose in other]


def test_an_input_in_the_images_shape_equals_a_network_made_for_that_size(astronaut):
    photo = np.ascontiguousarray(astronaut[:384])
    with PoseNet.load(ModelConfig(input_aspect='image'), 'onnxruntime') as net:
        followed = net.estimate_multiple_poses(photo)
        height, width = net.config.input_size(*photo.shape[:2])
    with PoseNet.load(ModelConfig(input_resolution=(width, height)), 'onnxruntime') as net:
        made = net.estimate_multiple_poses(photo)
    assert followed and len(followed) == len(made)
    for one, other in zip(followed, made, strict=True):
        assert one.to_dict(True) == other.to_dict(True)


@pytest.mark.parametrize('method', ['multi-person', 'single-person'])
def test_closeups_see_a_person_who_is_far_away(astronaut, method):
    far = np.full((840, 1120, 3), 128, np.uint8)
    far[200:456, 300:556] = astronaut[::2, ::2]
    decoder = DecoderConfig(decoder='refined', score_threshold=0.3, decoding_method=method)
    with PoseNet.load(ModelConfig(), 'onnxruntime') as net:
        truth = net.estimate([astronaut], decoder)[0][0]
        (first,) = net.estimate([far], decoder)[0]
    with PoseNet.load(ModelConfig(attention='closeups'), 'onnxruntime') as net:
        (closer,) = net.estimate([far], decoder)[0]
        (flipped,) = net.estimate([far], replace(decoder, flip_horizontal=True))[0]
        nobody = net.estimate([np.zeros((3, 2, 3), np.uint8)], DecoderConfig())
    assert nobody == [[]]
    clear = truth.keypoint_scores > 0.5
    wanted = truth.keypoints[clear] / 2 + (300, 200)
    errors = [
        np.linalg.norm(pose.keypoints[clear] - wanted, axis=1).mean() for pose in (first, closer)
    ]
    assert errors[1] < 0.3 * errors[0]
    assert closer.score > first.score
    assert closer.keypoint_deviations[clear].mean() < first.keypoint_deviations[clear].mean()
    np.testing.assert_allclose(flipped.keypoints[:, 0], 1119 - closer.keypoints[:, 0])
