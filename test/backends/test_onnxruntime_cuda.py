"""ONNX Runtime's CUDA provider. Without a GPU, the CPU's provider stands in for it."""

import numpy as np
import onnxruntime as ort
import pytest

from posenet_ros import BackendError, ConfigError, PoseNet
from posenet_ros.backends import engine_check, find_runtime, onnxruntime_cuda
from posenet_ros.config import RuntimeConfig
from posenet_ros.errors import NoDeviceError

if onnxruntime_cuda.PROVIDER in ort.get_available_providers():
    pytest.skip('there is a CUDA provider; these tests are for none', allow_module_level=True)


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(onnxruntime_cuda, 'PROVIDER', 'CPUExecutionProvider')
    monkeypatch.setattr(onnxruntime_cuda, 'OPTIONS', {})


def test_without_the_provider_it_says_what_to_install():
    with pytest.raises(NoDeviceError, match='no CUDA provider; onnxruntime-gpu has one'):
        find_runtime(RuntimeConfig(backend='onnxruntime-cuda'), 4)
    runtime = find_runtime(RuntimeConfig(), 4)
    assert runtime.name == 'onnxruntime'
    assert 'onnxruntime-cuda cannot run here' in runtime.reason


def test_a_provider_that_falls_back_to_the_cpu_is_no_gpu(monkeypatch):
    """It is what ONNX Runtime does if cuDNN is missing, and says nothing."""
    monkeypatch.setattr(ort, 'get_available_providers', lambda: [onnxruntime_cuda.PROVIDER])
    with pytest.raises((NoDeviceError, BackendError)):
        find_runtime(RuntimeConfig(backend='onnxruntime-cuda'), 4)


def test_poses_are_those_of_the_cpu(stand_in, default_model_config, net, astronaut):
    with PoseNet.load(default_model_config, 'onnxruntime-cuda') as other:
        assert other.backend.name == 'onnxruntime-cuda'
        poses = other.estimate_multiple_poses(astronaut)
    expected = net.estimate_multiple_poses(astronaut)
    assert len(poses) == len(expected) >= 1
    assert np.allclose(poses[0].keypoints, expected[0].keypoints, atol=1e-3)


def test_it_is_between_tensorrt_and_the_cpu(stand_in):
    runtime = find_runtime(RuntimeConfig(), 4)
    assert runtime.name == 'onnxruntime-cuda'
    assert runtime.reason.startswith('tensorrt cannot run here')
    assert find_runtime(RuntimeConfig(precision='int8'), 4).name == 'onnxruntime'


def test_scores_that_are_wrong_are_refused(stand_in, monkeypatch, default_model_config):
    monkeypatch.setitem(engine_check.LARGEST_ERROR, 'fp32', -1.0)
    with pytest.raises(
        BackendError, match=r'fp32 by the CUDA provider of ONNX Runtime .* is wrong'
    ):
        PoseNet.load(default_model_config, 'onnxruntime-cuda')


def test_dla_is_for_tensorrt(stand_in):
    with pytest.raises(ConfigError, match='dla_core 0 is for tensorrt'):
        find_runtime(RuntimeConfig(backend='onnxruntime-cuda', dla_core=0), 4)
