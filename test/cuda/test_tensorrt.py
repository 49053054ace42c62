"""The TensorRT backend, image to poses: real pycuda and cuda-python, a stand-in for TensorRT.

Proves the run path: what is copied where and when, what is checked, freed and reported. Not speed,
nor a GPU's numbers.
"""

import sys
import threading

import numpy as np
import pytest
from goldens import SHARED, check_poses, golden_config, golden_paths, load_golden
from host_driver import LAUNCH_FAILED, NOTHING
from tfjs_models import mobilenet_like

from posenet_ros import BackendError, DecoderConfig, ModelConfig, PoseNet
from posenet_ros.errors import NoDeviceError
from posenet_ros.media import read_image

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


@pytest.mark.parity
@pytest.mark.skipif(not E2E, reason='models and photos (../shared) are not on this machine')
@pytest.mark.parametrize('path', E2E)
def test_poses_of_real_photos_are_the_references(tensorrt, pycuda, path):
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
        net.backend.run(np.zeros((1, 33, 33, 3), np.float32))


def test_wrong_batches_are_refused(tensorrt, pycuda, small):
    with PoseNet.load(small, 'tensorrt', max_batch=2) as net:
        for shape, reason in (
            ((3, 33, 33, 3), 'a batch of 3.*1 to 2'),
            ((0, 33, 33, 3), 'a batch of 0'),
            ((1, 33, 49, 3), r'\(1, 33, 49, 3\).*\(1, 33, 33, 3\)'),
        ):
            with pytest.raises(BackendError, match=reason):
                net.backend.run(np.zeros(shape, np.float32))


def test_images_of_other_memory_are_copied(tensorrt, pycuda, small):
    batch = np.random.default_rng(0).random((1, 33, 33, 3), np.float32)
    with PoseNet.load(small, 'onnxruntime') as net:
        expected = [head.copy() for head in net.backend.run(batch)]
    with PoseNet.load(small, 'tensorrt') as net:
        for head, wanted in zip(net.backend.run(batch), expected, strict=True):
            assert np.array_equal(head, wanted)


# What TensorRT reports by what it returns.


@pytest.mark.parametrize(
    'fault',
    ['create_execution_context', 'set_input_shape', 'set_tensor_address', 'execute_async_v3'],
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


def test_unreadable_engine_is_built_anew_once(tensorrt, pycuda, small, caplog):
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
