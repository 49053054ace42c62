"""From a config to ONNX: made once, then read from the cache."""

import subprocess
import sys

import pytest
from tfjs_models import mobilenet_like

from posenet_ros import CheckpointError, ConfigError, ModelConfig, PoseNet
from posenet_ros.model import network
from posenet_ros.model.network import make_network, weights_for


def test_network_is_made_once_and_not_even_onnx_is_imported_again(
    tmp_path, monkeypatch, fresh_home
):
    monkeypatch.setenv('POSENET_HOME', fresh_home)
    url = str(mobilenet_like(output_stride=16).write(tmp_path / 'model-stride16.json'))
    program = f"""
import sys
from posenet_ros import ModelConfig, PoseNet
PoseNet.load(ModelConfig(input_resolution=33, model_url={url!r}), 'onnxruntime').close()
print(*(name in sys.modules for name in ('onnx', 'cv2', 'requests')))
"""
    runs = [
        subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [run.stdout.split() for run in runs] == [
        ['True', 'False', 'False'],
        ['False', 'False', 'False'],
    ]


def test_without_a_cache_the_network_is_built_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv('POSENET_HOME', str(tmp_path / 'home'))
    url = str(mobilenet_like(output_stride=16).write(tmp_path / 'model-stride16.json'))
    config = ModelConfig(input_resolution=33, model_url=url)
    first = make_network(config, 'fp32')
    (tmp_path / 'home' / 'networks').chmod(0o755)
    assert make_network(config, 'fp32') == first
    assert 'can be entered by others' in caplog.text
    (tmp_path / 'other').write_text('not a folder')
    monkeypatch.setenv('POSENET_HOME', str(tmp_path / 'other'))
    assert make_network(config, 'fp32') == first


def test_int8_is_made_from_the_most_precise_weights(monkeypatch):
    asked = []

    def fetch(config, force=False):
        asked.append(config.quant_bytes)
        if config.quant_bytes > 1:
            raise CheckpointError('cannot be reached')
        return 'broken'

    monkeypatch.setattr(network, 'fetch_checkpoint', fetch)
    assert weights_for(ModelConfig(quant_bytes=1), 'int8') == 'broken'
    assert asked == [4, 2, 1]
    asked.clear()
    with pytest.raises(CheckpointError):
        weights_for(ModelConfig(quant_bytes=2), 'fp16')
    assert asked == [2]


def test_input_without_pixels_is_refused():
    with pytest.raises(ConfigError, match='-15 x -15'):
        PoseNet.load(ModelConfig(input_resolution=-5), 'tensorrt')
