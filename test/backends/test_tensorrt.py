"""The TensorRT backend, image to poses: real pycuda and cuda-python, a stand-in for TensorRT.

Proves the run path: what is copied where and when, what is checked, freed and reported. Not speed,
nor a GPU's numbers.
"""

import json
import sys
import threading
from dataclasses import replace

import numpy as np
import onnx
import pytest
from goldens import SHARED, check_poses, golden_config, golden_paths, load_golden
from host_driver import LAUNCH_FAILED, NOTHING
from tfjs_models import mobilenet_like

from posenet_ros import (
    BackendError,
    ConfigError,
    DecoderConfig,
    ModelConfig,
    PoseNet,
    PoseStream,
    TrackerConfig,
)
from posenet_ros.commands import main
from posenet_ros.config import PRECISIONS
from posenet_ros.errors import NoDeviceError
from posenet_ros.io.photos import read_image
from posenet_ros.model.network import Network

E2E = [pytest.param(path, id=path.stem) for path in golden_paths('e2e')]


@pytest.fixture
def small(tmp_path):
    """A small network: seconds count when it is loaded often."""
    url = str(mobilenet_like(output_stride=16).write(tmp_path / 'model-stride16.json'))
    return ModelConfig(input_resolution=33, model_url=url)


def images(count, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(count)]


def all_numbers(results):
    return [(pose.score, pose.keypoints.tolist()) for poses in results for pose in poses]


SINGLE = DecoderConfig(decoding_method='single-person')


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.skipif(not E2E, reason='models and photos (../shared) are not on this machine')
@pytest.mark.parametrize('path', E2E)
def test_poses_of_real_photos_equal_the_references(tensorrt, pycuda, path):
    golden = load_golden(path)
    image = read_image(SHARED / 'images' / golden.expected['image'])
    config = golden_config(golden)
    with PoseNet.load(config, 'tensorrt', 'fp32', cuda_library='pycuda') as net:
        assert check_poses(net, image, golden.expected) < 0.01
        found = net.estimate([image], DecoderConfig())
    with PoseNet.load(config, 'onnxruntime', 'fp32') as net:
        assert all_numbers(net.estimate([image], DecoderConfig())) == all_numbers(found)


def test_every_version_runs_with_every_library(each_tensorrt, library, small):
    with PoseNet.load(small, 'onnxruntime') as net:
        expected = all_numbers(net.estimate(images(1), SINGLE))
    with PoseNet.load(small, 'tensorrt', cuda_library=library) as net:
        assert net.backend.name == 'tensorrt'
        assert net.backend.device == (
            f'host memory, no GPU, TensorRT {each_tensorrt.__version__}, {library}'
        )
        for _ in range(3):
            assert all_numbers(net.estimate(images(1), SINGLE)) == expected


def test_batches_of_every_size_in_any_order(tensorrt, library, small):
    pictures = images(7)
    with PoseNet.load(small, 'onnxruntime') as net:
        expected = [all_numbers(net.estimate([picture], SINGLE)) for picture in pictures]
    with PoseNet.load(small, 'tensorrt', max_batch=3, cuda_library=library) as net:
        assert net.backend.max_batch == 3
        for order in ([0], [1, 2, 3], [4, 5], [6], [3, 2, 1], [0, 1, 2, 3, 4, 5, 6], [5]):
            results = net.estimate([pictures[i] for i in order], SINGLE)
            assert [all_numbers([r]) for r in results] == [expected[i] for i in order]


def test_images_of_several_shapes_share_one_engine(tensorrt, library, small):
    config = replace(small, input_resolution=65, input_aspect='image', attention='closeups')
    config = replace(config, closeup_resolution=49, max_closeups=2)
    generator = np.random.default_rng(0)
    shapes = [(60, 80), (80, 60), (60, 80), (60, 60), (60, 80), (200, 300)]
    pictures = [generator.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    anybody = DecoderConfig(score_threshold=0.0, decoder='refined')
    with PoseNet.load(config, 'onnxruntime') as net:
        expected = [all_numbers(net.estimate([picture], anybody)) for picture in pictures]
    assert len(expected[0]) > 1
    with PoseNet.load(config, 'tensorrt', max_batch=3, cuda_library=library) as net:
        for _ in range(2):
            results = net.estimate(pictures, anybody)
            assert [all_numbers([poses]) for poses in results] == expected
        low, typical, high = config.input_sizes
        _, built = tensorrt.built
        assert built.profiles[0].shapes == [(1, 3, *low), (3, 3, *typical), (3, 3, *high)]
        with pytest.raises(BackendError, match=r'images of \(1, 3, 17, 17\); this engine takes'):
            net.backend.run(np.zeros((1, 3, 17, 17), np.float32))


def test_closeups_of_people_share_batches(tensorrt, library, small):
    """Frame after frame, with the same poses and ids as on the CPU."""
    config = replace(small, input_resolution=257, input_aspect='image', attention='people')
    config = replace(config, closeup_resolution=97, max_closeups=4, whole_image_period=0.3)
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (480, 640, 3), np.uint8)
    frames = [np.roll(picture, i, axis=1) for i in range(8)]
    anybody = DecoderConfig(score_threshold=0.0)
    results = {}
    for backend in ('onnxruntime', 'tensorrt'):
        options = {'cuda_library': library} if backend == 'tensorrt' else {}
        with PoseNet.load(config, backend, **options) as net:
            stream = PoseStream(config, TrackerConfig(min_hits=1))
            run, batches = net.backend.run, []
            net.backend.run = lambda images, run=run, batches=batches: (
                batches.append(images.shape) or run(images)
            )
            results[backend] = [
                [
                    (pose.track_id, pose.score, pose.keypoints.tolist())
                    for pose in net.estimate_stream(frame, i / 20, stream, anybody)
                ]
                for i, frame in enumerate(frames)
            ]
    assert results['tensorrt'] == results['onnxruntime']
    assert any(len(poses) > 1 for poses in results['tensorrt'])
    assert max(shape[0] for shape in batches) > 1, batches
    low, _, high = config.input_sizes
    assert all(
        size[0] <= height <= largest[0] and size[1] <= width <= largest[1]
        for _, _, height, width in batches
        for size, largest in [(low, high)]
    )


def test_a_context_and_a_graph_for_each_shape(each_tensorrt, driver, library, small, monkeypatch):
    monkeypatch.setattr('posenet_ros.backends.engine.MOST_CONTEXTS', 3)
    # TensorRT 8.5 cannot share the profile of an engine, so it has one context.
    most = 1 if each_tensorrt.__version__.startswith('8.5') else 3
    records = library == 'cuda-python'
    pictures = images(9)
    with PoseNet.load(small, 'onnxruntime') as net:
        expected = [all_numbers(net.estimate([picture], SINGLE)) for picture in pictures]
    with PoseNet.load(small, 'tensorrt', max_batch=8, cuda_library=library) as net:

        def check(count):
            results = net.estimate(pictures[:count], SINGLE)
            assert [all_numbers([poses]) for poses in results] == expected[:count]

        assert driver.alive.executables == records  # of the warm-up's shape
        for count in (2, 2, 3, 3):
            check(count)
        assert len(each_tensorrt.contexts) == most
        assert driver.alive.executables == (3 * records if most == 3 else 0)
        for count in (4, 5, 1, 4, 3, 1, 2):
            # More shapes than contexts: the longest unused one goes, and its graph with it.
            check(count)
            assert len(each_tensorrt.contexts) == most
        assert driver.alive.executables == 0  # none stayed for long
        for _ in range(40):
            check(5)
        assert driver.alive.executables == records
    assert len(each_tensorrt.contexts) == 0


def test_without_memory_for_another_context_shapes_share_one(tensorrt, library, small):
    pictures = images(2)
    with PoseNet.load(small, 'tensorrt', max_batch=2, cuda_library=library) as net:
        expected = all_numbers(net.estimate(pictures[:1], SINGLE))
        tensorrt.faults.add('create_execution_context')
        for _ in range(3):
            assert all_numbers(net.estimate(pictures, SINGLE)[:1]) == expected
            assert all_numbers(net.estimate(pictures[:1], SINGLE)) == expected
        assert len(tensorrt.contexts) == 1


def test_only_the_batchs_own_images_and_heads_are_copied(tensorrt, driver, library, small):
    with PoseNet.load(small, 'tensorrt', max_batch=4, cuda_library=library) as net:
        image, heads = 33 * 33 * 3 * 4, 3 * 3 * (17 + 34 + 32 + 32) * 4
        for count in (1, 3, 1):
            before = driver.copied
            net.estimate(images(count), SINGLE)
            assert driver.copied - before == count * (image + heads)


def test_two_models_share_a_device(tensorrt, library, small):
    with (
        PoseNet.load(small, 'tensorrt', cuda_library=library) as first,
        PoseNet.load(small, 'tensorrt', cuda_library=library) as second,
    ):
        alone = all_numbers(first.estimate(images(1), SINGLE))
        assert all_numbers(second.estimate(images(1), SINGLE)) == alone
        assert all_numbers(first.estimate(images(1), SINGLE)) == alone


def test_a_worker_thread_loads_runs_and_closes(tensorrt, library, small):
    results = []

    def work():
        with PoseNet.load(small, 'tensorrt', cuda_library=library) as net:
            results.append(all_numbers(net.estimate(images(1), SINGLE)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    with PoseNet.load(small, 'onnxruntime') as net:
        assert results == [all_numbers(net.estimate(images(1), SINGLE))]


@pytest.mark.slow
def test_a_hundred_rounds_leave_nothing(tensorrt, driver, library, small):
    for _ in range(100):
        with PoseNet.load(small, 'tensorrt', cuda_library=library) as net:
            net.estimate(images(1), SINGLE)
        assert driver.alive == NOTHING


def test_closing_twice_and_running_closed(tensorrt, pycuda, small):
    net = PoseNet.load(small, 'tensorrt')
    net.close()
    net.close()
    with pytest.raises(BackendError, match='closed'):
        net.backend.run(np.zeros((1, 3, 33, 33), np.float32))


def test_wrong_batches_are_refused(tensorrt, pycuda, small):
    with PoseNet.load(small, 'tensorrt', max_batch=2) as net:
        for shape, reason in (
            ((3, 3, 33, 33), r'\(3, 3, 33, 33\).*\(1, 3, 33, 33\) to \(2, 3, 33, 33\)'),
            ((0, 3, 33, 33), r'images of \(0, 3, 33, 33\)'),
            ((1, 3, 33, 49), r'\(1, 3, 33, 49\).*\(1, 3, 33, 33\)'),
        ):
            with pytest.raises(BackendError, match=reason):
                net.backend.run(np.zeros(shape, np.float32))


def test_images_of_other_memory_are_copied(tensorrt, pycuda, small):
    batch = np.random.default_rng(0).random((1, 3, 33, 33), np.float32)
    with PoseNet.load(small, 'onnxruntime') as net:
        expected = [head.copy() for head in net.backend.run(batch)]
    with PoseNet.load(small, 'tensorrt') as net:
        for head, wanted in zip(net.backend.run(batch), expected, strict=True):
            assert np.array_equal(head, wanted)


# What TensorRT reports by what it returns.


@pytest.mark.parametrize(
    'fault',
    [
        'Builder',
        'Runtime',
        'create_execution_context',
        'set_input_shape',
        'set_tensor_address',
        'execute_async_v3',
    ],
)
def test_unsuccessful_calls_are_raised_with_their_reason(tensorrt, library, small, fault):
    tensorrt.faults.add(fault)
    with pytest.raises(BackendError, match=f'TensorRT.*{fault}: the stand-in was told to fail'):
        PoseNet.load(small, 'tensorrt', cuda_library=library)


def test_failed_run_does_not_end_the_model(tensorrt, library, small):
    with PoseNet.load(small, 'tensorrt', max_batch=3, cuda_library=library) as net:
        expected = all_numbers(net.estimate(images(1), SINGLE))
        for fault in ('set_input_shape', 'execute_async_v3'):
            tensorrt.faults.add(fault)
            with pytest.raises(BackendError, match=fault):
                net.estimate(images(2), SINGLE)
            tensorrt.faults.clear()
        assert all_numbers(net.estimate(images(2)[:1], SINGLE)) == expected
        assert len(net.estimate(images(2), SINGLE)) == 2


def test_engine_of_another_network_is_refused(tensorrt, pycuda, small):
    tensorrt.faults.add('half heads')
    with pytest.raises(BackendError, match=r'the engine has .* in .*HALF'):
        PoseNet.load(small, 'tensorrt')


def test_engine_that_computes_something_else_is_not_kept(tensorrt, library, small):
    tensorrt.faults.add('wrong kernel')
    for _ in range(2):
        with pytest.raises(BackendError, match=r'is wrong: heatmap scores differ by'):
            PoseNet.load(small, 'tensorrt', 'fp16', cuda_library=library)
    tensorrt.faults.clear()
    PoseNet.load(small, 'tensorrt', 'fp16', cuda_library=library).close()
    tensorrt.faults.add('wrong kernel')
    PoseNet.load(small, 'tensorrt', 'fp16', cuda_library=library).close()


def test_unreadable_engine_is_rebuilt_once(tensorrt, pycuda, small, caplog):
    PoseNet.load(small, 'tensorrt').close()
    tensorrt.faults.add('deserialize_cuda_engine')
    with caplog.at_level('INFO'), pytest.raises(BackendError, match='cannot read the engine'):
        PoseNet.load(small, 'tensorrt')
    assert caplog.text.count('built the TensorRT engine in') == 1
    assert 'building it anew' in caplog.text


# What CUDA reports.


@pytest.mark.parametrize('memory', [1_000, 14_000, 16_000])
def test_too_little_memory_says_so_and_leaves_nothing(tensorrt, driver, library, small, memory):
    driver.reset(memory=memory)
    with pytest.raises(BackendError, match='the GPU is out of memory'):
        PoseNet.load(small, 'tensorrt', cuda_library=library)


@pytest.mark.parametrize(
    'function', ['cuMemcpyHtoDAsync_v2', 'cuMemcpyDtoHAsync_v2', 'cuStreamSynchronize']
)
def test_lost_device_is_an_error_and_closes(tensorrt, driver, pycuda, small, function):
    net = PoseNet.load(small, 'tensorrt', cuda_library='pycuda')
    driver.fail(function, result=LAUNCH_FAILED)
    for _ in range(3):
        with pytest.raises(BackendError, match=r'CUDA failed.*launch fail'):
            net.estimate(images(1), SINGLE)
    net.close()
    driver.reset()
    with PoseNet.load(small, 'tensorrt') as again:
        assert again.estimate(images(1), SINGLE)


# Which backend it is, and why.


def test_auto_takes_the_device_that_answers(tensorrt, pycuda, small):
    with PoseNet.load(small) as net:
        assert net.backend.name == 'tensorrt'
        assert net.backend_reason == 'host memory, no GPU answers'


def test_auto_without_tensorrt_takes_the_cpu_and_says_why(driver, home, pycuda, small, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    with PoseNet.load(small) as net:
        assert net.backend.name == 'onnxruntime'
        assert 'the Python package tensorrt is missing' in net.backend_reason
        assert 'pip install tensorrt' in net.backend_reason


def test_auto_without_a_device_takes_the_cpu_and_says_why(tensorrt, driver, pycuda, small):
    driver.reset(devices=0)
    with PoseNet.load(small) as net:
        assert net.backend.name == 'onnxruntime'
        assert 'no NVIDIA GPU answers' in net.backend_reason


def test_tensorrt_without_anything_names_all_that_is_missing(small, monkeypatch):
    for module in ('pycuda', 'pycuda.driver', 'cuda', 'cuda.bindings', 'tensorrt'):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NoDeviceError) as raised:
        PoseNet.load(small, 'tensorrt')
    message = str(raised.value)
    assert message.startswith('tensorrt cannot run here: ')
    for package in ('pip install pycuda', 'pip install cuda-python', 'pip install tensorrt'):
        assert package in message
    assert '\n' not in message


# Precision, as each version wants it said.


@pytest.mark.slow
@pytest.mark.parametrize('precision', PRECISIONS)
def test_precision_is_in_the_graph_or_in_the_flags(each_tensorrt, pycuda, small, precision):
    with PoseNet.load(small, 'onnxruntime') as net:
        expected = net.backend.run(np.zeros((1, 3, 33, 33), np.float32)).heatmap_scores.copy()
    with PoseNet.load(small, 'tensorrt', precision) as net:
        assert net.backend.precision == precision
        heatmaps = net.backend.run(np.zeros((1, 3, 33, 33), np.float32)).heatmap_scores
        assert heatmaps.dtype == np.float32 and np.abs(heatmaps - expected).max() < 0.1
    network, config = each_tensorrt.built
    flags = each_tensorrt.NetworkDefinitionCreationFlag
    graph = onnx.load_from_string(network.model).graph
    types = {constant.data_type for constant in graph.initializer}
    if hasattr(flags, 'STRONGLY_TYPED'):
        assert network.flags == 1 << flags.STRONGLY_TYPED
        assert config.flags == set()
        assert (onnx.TensorProto.FLOAT16 in types) == (precision == 'fp16')
    else:
        assert network.flags == 1 << flags.EXPLICIT_BATCH
        wanted = {'fp32': set(), 'fp16': {'FP16'}, 'int8': {'FP16', 'INT8'}}[precision]
        assert config.flags - {'PREFER_PRECISION_CONSTRAINTS'} == wanted
        assert onnx.TensorProto.FLOAT16 not in types
        held = [layer for layer in network.layers if layer.precision is not None]
        convolutions = [
            layer for layer in held if layer.type == each_tensorrt.LayerType.CONVOLUTION
        ]
        assert len(convolutions) == (0 if precision == 'fp32' else 4)
    assert (onnx.TensorProto.INT8 in types) == (precision == 'int8')


def test_dla_is_used_with_the_gpu_as_fallback(each_tensorrt, pycuda, small):
    each_tensorrt.Builder.num_DLA_cores = 2
    PoseNet.load(small, 'tensorrt', 'fp16', dla_core=1).close()
    _, config = each_tensorrt.built
    assert config.default_device_type == each_tensorrt.DeviceType.DLA
    assert config.DLA_core == 1 and 'GPU_FALLBACK' in config.flags
    for options, reason in (
        ({'precision': 'fp16', 'dla_core': 2}, 'dla_core 2. Allowed here: 0 to 1'),
        ({'precision': 'fp32', 'dla_core': 0}, 'fp16 and int8 only'),
        ({'precision': 'fp16', 'dla_core': 0, 'max_batch': 2}, 'max_batch must be 1'),
    ):
        with pytest.raises(ConfigError, match=reason):
            PoseNet.load(small, 'tensorrt', **options)
    following = replace(small, input_aspect='image')
    with pytest.raises(ConfigError, match='input_aspect model'):
        PoseNet.load(following, 'tensorrt', 'fp16', dla_core=0)


def test_every_option_of_the_build_reaches_tensorrt(tensorrt, pycuda, small):
    PoseNet.load(small, 'tensorrt', workspace_mib=64, max_batch=3).close()
    _, config = tensorrt.built
    assert config.limits == {'WORKSPACE': 64 * 2**20}
    assert config.profiles[0].shapes == [(1, 3, 33, 33), (3, 3, 33, 33), (3, 3, 33, 33)]
    assert config.cache.data == b''
    PoseNet.load(small, 'tensorrt', 'fp16').close()
    assert tensorrt.built[1].cache.data == b'timed '  # what the first build measured


def test_engines_need_no_other_libraries_and_share_their_profile(each_tensorrt, pycuda, small):
    PoseNet.load(small, 'tensorrt').close()
    config, version = each_tensorrt.built[1], each_tensorrt.__version__
    own = 0b1000 if version.startswith('8.') else 0b1111  # from 10 on it is the default
    assert config.sources == own
    wanted = {'PROFILE_SHARING_0806'} if version.startswith(('8.6', '10.')) else set()
    if version.startswith('8.'):
        wanted.add('DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805')
    assert config.preview == wanted


def test_refused_graph_is_reported_with_every_reason(tensorrt, pycuda, small, monkeypatch):
    no_graph = Network(b'no graph', 'fp32', small.input_sizes, 'MobileNetV1', '')
    monkeypatch.setattr('posenet_ros.estimator.make_network', lambda *_: no_graph)
    with pytest.raises(BackendError, match=r'does not take the ONNX model: .*and a second reason'):
        PoseNet.load(small, 'tensorrt')


# The commands.


def test_engine_built_ahead_is_the_one_that_is_loaded(tensorrt, pycuda, small, capsys, caplog):
    options = ['--model-url', small.model_url, '--input-resolution', '33']
    assert main(['build-engine', *options, '--precision', 'fp16', '--max-batch', '2']) == 0
    assert 'fp16 engine for 33 x 33, batches of 1 to 2' in capsys.readouterr().out
    with caplog.at_level('INFO'):
        PoseNet.load(small, 'tensorrt', 'fp16', max_batch=2).close()
        assert 'building' not in caplog.text
        assert main(['build-engine', *options, '--precision', 'fp16', '--rebuild']) == 0
        assert 'building' in caplog.text


@pytest.mark.slow
def test_selftest_measures_every_precision(tensorrt, library, small, tmp_path, capsys):
    report_path = tmp_path / 'report.json'
    options = ['--model-url', small.model_url, '--input-resolution', '33', '--rounds', '3']
    assert main(['selftest', *options, '--cuda-library', library, '--json', str(report_path)]) == 0
    report = json.loads(report_path.read_text())
    assert report['passed'] and 'not_checked' not in report
    assert report['device']['library'] == library
    assert set(report['device']['copies_ms']) == {'image', 'heads'}
    assert [run['precision'] for run in report['runs']] == list(PRECISIONS)
    for run in report['runs']:
        assert run['backend'] == 'tensorrt' and run['load_seconds'] > 0
        assert run['batch_error'] < 1e-4
        assert run['latency_ms']['4']['p50'] <= run['latency_ms']['4']['p99']
    assert max(report['runs'][0]['max_error'].values()) < 1e-4
    assert max(report['runs'][2]['max_error'].values()) > 0
    assert 'passed' in capsys.readouterr().out


def test_selftest_that_fails_says_so(tensorrt, pycuda, small, capsys):
    tensorrt.faults.add('execute_async_v3')
    options = ['--model-url', small.model_url, '--input-resolution', '33', '--rounds', '3']
    assert main(['selftest', *options]) == 1
    assert 'FAILED: TensorRT could not queue the network' in capsys.readouterr().out
