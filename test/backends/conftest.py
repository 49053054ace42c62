"""Fixtures: a CUDA driver without a GPU, under the real pycuda and the real cuda-python."""

from __future__ import annotations

import importlib
import shutil
import sys

import pytest
from host_driver import NOTHING, HostDriver, compile_driver
from tensorrt_stand_in import API, VERSIONS, make_tensorrt

NO_LISTS = "the names of TensorRT's versions (../shared) are not on this machine"
MODULES = {'pycuda': 'pycuda.driver', 'cuda-python': 'cuda.bindings.driver'}


@pytest.fixture(scope='session')
def loaded_driver(tmp_path_factory):
    if shutil.which('cc') is None:
        pytest.skip('no C compiler, and the CUDA driver of these tests is written in C')
    driver = HostDriver(compile_driver(tmp_path_factory.mktemp('cuda')))
    driver.reset(devices=0)
    return driver


@pytest.fixture
def driver(loaded_driver):
    """The driver with one device; checks afterwards for leaks and for wrong calls."""
    loaded_driver.reset()
    before = loaded_driver.alive
    yield loaded_driver
    violations, alive = loaded_driver.violations, loaded_driver.alive
    loaded_driver.reset(devices=0)
    assert violations == []
    assert alive == before == NOTHING


@pytest.fixture(params=list(MODULES))
def library(request, loaded_driver):
    """Each library that reaches the GPU."""
    return needed(request.param)


@pytest.fixture
def pycuda(loaded_driver):
    return needed('pycuda')


def needed(library):
    try:
        importlib.import_module(MODULES[library])
    except ImportError as error:
        pytest.skip(f'{library} is not built here: {error}')
    return library


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv('POSENET_HOME', str(tmp_path / 'home'))
    return tmp_path / 'home'


@pytest.fixture
def tensorrt(driver, home, monkeypatch):
    """The stand-in, where `import tensorrt` finds it."""
    trt = make_tensorrt(driver)
    monkeypatch.setitem(sys.modules, 'tensorrt', trt)
    return trt


@pytest.fixture(params=VERSIONS or ['none'])
def each_tensorrt(request, driver, home, monkeypatch):
    """The stand-in with the names of each version."""
    if not API.is_dir():
        pytest.skip(NO_LISTS)
    trt = make_tensorrt(driver, request.param)
    monkeypatch.setitem(sys.modules, 'tensorrt', trt)
    return trt
