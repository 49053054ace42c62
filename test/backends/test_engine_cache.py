"""What an engine depends on: the key of the cache."""

import json
from pathlib import Path
from types import SimpleNamespace

from posenet_ros.backends import engine_builder
from posenet_ros.backends.engine_builder import EngineOptions, Profile
from posenet_ros.backends.engine_cache import device_key, engine_key
from posenet_ros.input_size import InputSizes

TRT = SimpleNamespace(
    __version__='10.13.3.9', NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1)
)
CUDA = SimpleNamespace(driver_version=13000, device_name='a GPU', compute_capability=(8, 6))
OPTIONS = EngineOptions('fp16', Profile.batches(InputSizes.of([(257, 257)]), 4), workspace_mib=256)


def test_everything_that_decides_the_engine_is_in_its_key(monkeypatch):
    def digest(**changes):
        trt, cuda, options, model = TRT, CUDA, OPTIONS, b'onnx'
        for name, value in changes.items():
            if name == 'model':
                model = value
            elif name == 'trt':
                trt = SimpleNamespace(**{**vars(TRT), **value})
            elif name == 'cuda':
                cuda = SimpleNamespace(**{**vars(CUDA), **value})
            elif name == 'options':
                options = EngineOptions(**{**vars(OPTIONS), **value})
        return json.dumps(engine_key(trt, cuda, model, options), sort_keys=True)

    keys = [
        digest(),
        digest(model=b'other onnx'),
        digest(trt={'__version__': '10.13.3.10'}),
        digest(trt={'NetworkDefinitionCreationFlag': SimpleNamespace()}),
        digest(cuda={'driver_version': 12080}),
        digest(cuda={'device_name': 'Orin'}),
        digest(cuda={'compute_capability': (8, 7)}),
        digest(options={'precision': 'int8'}),
        digest(options={'profile': Profile.batches(InputSizes.of([(257, 257)]), 1)}),
        digest(options={'workspace_mib': 128}),
        digest(options={'dla_core': 0}),
    ]
    monkeypatch.setattr('posenet_ros.backends.engine_cache._read_match', lambda path, _: path)
    keys.append(digest())  # another driver, another L4T
    monkeypatch.setattr('posenet_ros.backends.engine_cache.BUILDER_VERSION', 999)
    keys.append(digest())
    assert len(set(keys)) == len(keys)
    assert digest() == digest()


def test_key_reads_the_driver_and_the_jetsons_release(tmp_path, monkeypatch):
    files = {
        '/proc/driver/nvidia/version': 'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  '
        '580.82.07  Release Build\nGCC version: 12.3.0',
        '/etc/nv_tegra_release': '# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic',
    }
    real = Path.read_text
    monkeypatch.setattr(
        Path, 'read_text', lambda path, **kw: files.get(str(path)) or real(path, **kw)
    )
    key = device_key(TRT, CUDA)
    assert (key['driver'], key['l4t']) == ('580', '36 (release), REVISION: 4.3')
    assert key['cuda'] == 13
    assert key['builder'] == engine_builder.BUILDER_VERSION
