"""Device memory through the real pycuda and the real cuda-python, on a driver without a GPU."""

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest
from goldens import ROOT
from host_driver import LAUNCH_FAILED, SOURCE

from posenet_ros.backends.cuda_memory import open_cuda
from posenet_ros.errors import BackendError, NoDeviceError


@pytest.fixture
def cuda(driver, library):
    opened = open_cuda(library)
    yield opened
    opened.close()


def test_device_is_described(cuda, library):
    assert cuda.library == library
    assert cuda.device_name == 'host memory, no GPU'
    assert cuda.compute_capability == (8, 6)
    assert cuda.driver_version == 13000
    assert cuda.stream > 0


def test_floats_come_back_as_they_went(cuda):
    with cuda.current():
        out, back = cuda.allocate_pinned((3, 5)), cuda.allocate_pinned((3, 5))
        assert out.dtype == np.float32 and not out.any()
        address = cuda.allocate(out.nbytes)
        out[:] = np.arange(15).reshape(3, 5)
        cuda.to_device(address, out)
        cuda.to_host(back, address)
        assert not back.any()  # nothing is done before somebody waits
        cuda.synchronize()
        assert np.array_equal(back, out)
        cuda.free(address)
        cuda.free_pinned(out)
        cuda.free_pinned(back)


def test_captured_graph_repeats_the_work(driver, cuda, library):
    with cuda.current():
        host = cuda.allocate_pinned((4,))
        address = cuda.allocate(host.nbytes)
        graph = cuda.record(lambda: cuda.to_device(address, host))
        assert (graph is not None) == (library == 'cuda-python')
        if graph is not None:
            host[:] = 7
            graph.launch()
            cuda.synchronize()
            host[:] = 0
            cuda.to_host(host, address)
            cuda.synchronize()
            assert (host == 7).all()
            before = driver.alive.executables
            graph.close()
            assert driver.alive.executables == before - 1
            assert cuda.record(lambda: cuda.to_device(address, host))  # freed with its device
        cuda.free(address)
        cuda.free_pinned(host)


def test_work_that_cannot_be_captured_runs_directly(driver, cuda):
    def fails():
        raise BackendError('no')

    with cuda.current():
        assert cuda.record(fails) is None


def test_nothing_works_outside_of_the_context(cuda):
    with pytest.raises(Exception, match='context'):
        cuda.allocate(4)


def test_out_of_memory_says_so(driver, cuda):
    with pytest.raises(BackendError, match='out of memory'), cuda.current():
        cuda.allocate(1 << 40)


def test_failing_device_says_what_failed(driver, cuda):
    driver.fail('cuStreamSynchronize', result=LAUNCH_FAILED)
    with pytest.raises(BackendError, match='launch fail'), cuda.current():
        cuda.synchronize()
    driver.reset()  # as after the context is gone


def test_no_device_says_so(driver, library):
    driver.reset(devices=0)
    with pytest.raises(NoDeviceError, match='no CUDA-capable device'):
        open_cuda(library)


def run_without(library, folder=None):
    """What open_cuda says in a process that finds the driver only in `folder`."""
    code = (
        'from posenet_ros.backends.cuda_memory import open_cuda\n'
        'from posenet_ros.errors import NoDeviceError\n'
        f'try:\n    open_cuda({library!r})\n'
        'except NoDeviceError as error:\n    print(error)'
    )
    paths = [str(folder)] if folder else []
    environment = {**os.environ, 'LD_LIBRARY_PATH': ':'.join(paths), 'PYTHONPATH': str(ROOT)}
    result = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def has_real_driver():
    try:
        ctypes.CDLL('libnvidia-ml.so.1')
    except OSError:
        return False
    return True


@pytest.mark.skipif(has_real_driver(), reason='this machine has an NVIDIA driver')
def test_missing_driver_says_so(library):
    assert 'the NVIDIA driver is missing' in run_without(library)


def test_pycuda_of_another_cuda_says_so(pycuda, tmp_path):
    (tmp_path / 'old.c').write_text('int cuInit(unsigned flags) { return 0; }')
    subprocess.run(
        ['cc', '-shared', '-fPIC', '-Wl,-soname,libcuda.so.1', '-o', 'libcuda.so.1', 'old.c'],
        cwd=tmp_path,
        check=True,
    )
    assert 'pycuda was built for another CUDA' in run_without(pycuda, tmp_path)


def test_missing_libraries_are_all_named(monkeypatch):
    for module in ('pycuda', 'pycuda.driver', 'cuda', 'cuda.bindings'):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NoDeviceError, match=r'pip install pycuda.*pip install cuda-python'):
        open_cuda()


# The driver's own checks: each wrong use is seen.


def overrun_copy(cuda, address, host):
    cuda.to_device(address + 4, host)


def stale_address(cuda, address, host):
    other = cuda.allocate(host.nbytes)
    cuda.free(other)
    cuda.to_device(other, host)


def host_address(cuda, address, host):
    cuda.to_device(host.ctypes.data, host)


def pageable_memory(cuda, address, host):
    cuda.to_device(address, np.zeros(4, np.float32))


def write_beside(cuda, address, host):
    ctypes.c_float.from_address(host.ctypes.data + host.nbytes).value = 1.0


def free_while_in_use(cuda, address, host):
    other = cuda.allocate_pinned((4,))
    cuda.to_device(address, other)
    cuda.free_pinned(other)


WRONG = {
    overrun_copy: 'past the end',
    stale_address: 'was freed',
    host_address: 'not a device address',
    pageable_memory: 'not pinned',
    write_beside: 'beside the allocation',
    free_while_in_use: 'still uses it',
}


@pytest.mark.parametrize('misuse', WRONG, ids=lambda misuse: misuse.__name__)
def test_driver_sees_misuse(loaded_driver, library, misuse):
    loaded_driver.reset()
    cuda = open_cuda(library)
    try:
        with cuda.current():
            host = cuda.allocate_pinned((4,))
            address = cuda.allocate(host.nbytes)
            try:
                misuse(cuda, address, host)
            except Exception as error:
                assert 'invalid' in str(error), error  # what CUDA says of such
            finally:
                cuda.free(address)
                cuda.free_pinned(host)
        assert WRONG[misuse] in loaded_driver.violations[0]
    finally:
        loaded_driver.reset()
        cuda.close()
        loaded_driver.reset(devices=0)


def test_only_the_tests_have_this_driver():
    assert SOURCE.is_relative_to(ROOT / 'test')
    packaged = [
        path.name for path in (ROOT / 'posenet_ros').rglob('*') if path.suffix in ('.c', '.so')
    ]
    assert packaged == []
