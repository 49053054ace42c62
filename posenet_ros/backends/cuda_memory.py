"""The CUDA that a network needs: one context, one stream, device memory and pinned buffers.

Through pycuda, or through NVIDIA's cuda-python; only cuda-python captures CUDA graphs. Both use the
device's primary context, which they share with all other CUDA code in the process. All calls are
made inside `with cuda.current()`, by one thread at a time.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from posenet_ros.errors import BackendError, NoDeviceError

MODULES = {'pycuda': 'pycuda', 'cuda-python': 'cuda'}  # what each library is imported as


class Graph(Protocol):
    """Recorded work, freed with its device if not before."""

    def launch(self) -> None:
        """Queues the work again."""

    def close(self) -> None:
        """Frees it; it must not be running."""


class Cuda(Protocol):
    """A device's memory and one stream on it. Failures raise BackendError, with CUDA's reason."""

    library: str  # pycuda or cuda-python
    device_name: str
    compute_capability: tuple[int, int]
    driver_version: int  # 13000 for CUDA 13.0
    stream: int  # its handle

    def current(self) -> contextlib.AbstractContextManager[None]:
        """Makes the device's context current in this thread. The methods below need it."""

    def allocate(self, num_bytes: int) -> int:
        """Allocates device memory; returns its address."""

    def free(self, address: int) -> None:
        """Frees device memory."""

    def allocate_pinned(self, shape: tuple[int, ...]) -> np.ndarray:
        """A float32 array in page-locked memory, for fast asynchronous copies."""

    def free_pinned(self, array: np.ndarray) -> None:
        """Frees a pinned array, which must not be used afterwards."""

    def to_device(self, address: int, array: np.ndarray) -> None:
        """Queues a copy of a pinned array (C order) to device memory."""

    def to_host(self, array: np.ndarray, address: int) -> None:
        """Queues a copy of device memory into a pinned array (C order)."""

    def synchronize(self) -> None:
        """Waits until the stream is empty."""

    def record(self, work: Callable[[], None]) -> Graph | None:
        """Captures what `work` queues as a CUDA graph, which uses the same addresses.

        Returns:
            None if the library or the queued work does not support capturing.
        """

    def close(self) -> None:
        """Frees the stream and the context, in the thread that opened them.

        Everything allocated must have been freed.
        """


def open_cuda(library: str | None = None) -> Cuda:
    """Opens the first device, through pycuda or else cuda-python.

    Args:
        library: pycuda or cuda-python; None takes the first that is installed.

    Raises:
        NoDeviceError: the library, the driver or the device is missing; says which.
    """
    try:  # without a driver, importing a library is a waste: 70 ms, 10 MB
        ctypes.CDLL('libcuda.so.1')
    except OSError as error:
        wanted = {library} if library else {'pycuda', 'cuda-python'}
        found = {name for name, module in MODULES.items() if importlib.util.find_spec(module)}
        packages = (
            ''
            if wanted & found
            else f'; {" or ".join(sorted(wanted))} is missing too (pip install)'
        )
        raise NoDeviceError(f'the NVIDIA driver is missing: {error}{packages}') from error
    openers: dict[str, Callable[[], Cuda]] = {'pycuda': PyCuda, 'cuda-python': CudaPython}
    if library:
        return openers[library]()
    missing = []
    for opener in openers.values():
        try:
            return opener()
        except _NotInstalledError as error:
            missing.append(str(error))
    raise NoDeviceError('; or '.join(missing))


class _NotInstalledError(NoDeviceError):
    """The Python package is not installed; the other one may be."""


class PyCuda:
    """Cuda through pycuda."""

    library = 'pycuda'

    def __init__(self) -> None:
        try:
            import pycuda.driver as driver
        except ModuleNotFoundError as error:
            if (error.name or '').split('.')[0] != 'pycuda':
                raise NoDeviceError(f'pycuda cannot be imported: {error}') from error
            raise _NotInstalledError(
                'the Python package pycuda is missing (pip install pycuda)'
            ) from error
        except ImportError as error:
            raise NoDeviceError(
                f'pycuda was built for another CUDA than the driver has ({error}); install it '
                'again: pip install --force-reinstall --no-binary pycuda pycuda'
            ) from error
        self._driver = driver
        self._allocations: dict[int, Any] = {}
        try:
            driver.init()
            if driver.Device.count() == 0:
                raise NoDeviceError('there is no NVIDIA GPU')
            device = driver.Device(0)
            self.device_name = device.name()
            self.compute_capability = device.compute_capability()
            self.driver_version = driver.get_driver_version()
            self._context = device.retain_primary_context()
        except driver.Error as error:
            raise NoDeviceError(f'no NVIDIA GPU answers: {error}') from error
        try:
            with self.current():
                self._stream = driver.Stream()
                self.stream = int(self._stream.handle)
        except BaseException:
            self._detach()
            raise

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        driver = self._driver
        try:
            self._context.push()
            try:
                yield
            finally:
                driver.Context.pop()
        except driver.MemoryError as error:
            raise BackendError(f'the GPU is out of memory: {error}') from error
        except driver.Error as error:
            raise BackendError(f'CUDA failed: {error}') from error

    def allocate(self, num_bytes: int) -> int:
        allocation = self._driver.mem_alloc(num_bytes)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        self._allocations.pop(address).free()

    def allocate_pinned(self, shape: tuple[int, ...]) -> np.ndarray:
        array: np.ndarray = self._driver.pagelocked_zeros(shape, np.float32)
        return array

    def free_pinned(self, array: np.ndarray) -> None:
        owner: Any = array.base
        owner.free()

    def to_device(self, address: int, array: np.ndarray) -> None:
        self._driver.memcpy_htod_async(address, array, self._stream)

    def to_host(self, array: np.ndarray, address: int) -> None:
        self._driver.memcpy_dtoh_async(array, address, self._stream)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def record(self, work: Callable[[], None]) -> Graph | None:
        return None

    def close(self) -> None:
        try:
            with self.current():
                del self._stream  # the last reference: destroys the stream in its context
        finally:
            # On a lost device this fails. With the context detached, pycuda forgets what is left
            # without calling CUDA; such a call would abort the process.
            self._detach()

    def _detach(self) -> None:
        # pycuda pushes the context to release it and leaves it on the thread's stack, where later
        # calls would find it destroyed (seen in pycuda 2026.1).
        libcuda = ctypes.CDLL('libcuda.so.1')
        before, after = ctypes.c_void_p(), ctypes.c_void_p()
        libcuda.cuCtxGetCurrent(ctypes.byref(before))
        self._context.detach()
        libcuda.cuCtxGetCurrent(ctypes.byref(after))
        if after.value != before.value:
            libcuda.cuCtxPopCurrent_v2(ctypes.byref(after))


class CudaPython:
    """Cuda through cuda-python."""

    library = 'cuda-python'

    def __init__(self) -> None:
        try:
            from cuda.bindings import driver
        except ModuleNotFoundError as error:
            raise _NotInstalledError(
                'the Python package cuda-python is missing (pip install cuda-python)'
            ) from error
        except ImportError as error:
            raise NoDeviceError(f'cuda-python cannot be imported: {error}') from error
        self._driver = driver
        self._graphs: dict[int, Any] = {}  # executable graphs, by their handles
        try:
            self._call(driver.cuInit, 0)
            if self._call(driver.cuDeviceGetCount) == 0:
                raise NoDeviceError('there is no NVIDIA GPU')
            device = self._device = self._call(driver.cuDeviceGet, 0)
            name = self._call(driver.cuDeviceGetName, 256, device)
            self.device_name = name.split(b'\0')[0].decode()
            attribute = driver.CUdevice_attribute
            self.compute_capability = (
                self._call(
                    driver.cuDeviceGetAttribute,
                    attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                    device,
                ),
                self._call(
                    driver.cuDeviceGetAttribute,
                    attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                    device,
                ),
            )
            self.driver_version = self._call(driver.cuDriverGetVersion)
            self._context = self._call(driver.cuDevicePrimaryCtxRetain, device)
        except RuntimeError as error:  # libcuda, or a function of it, was not found
            raise NoDeviceError(f'the NVIDIA driver is missing: {error}') from error
        except BackendError as error:
            raise NoDeviceError(f'no NVIDIA GPU answers: {error}') from error
        try:
            with self.current():
                self._stream = self._call(
                    driver.cuStreamCreate, driver.CUstream_flags.CU_STREAM_NON_BLOCKING
                )
                self.stream = int(self._stream)
        except BaseException:
            driver.cuDevicePrimaryCtxRelease(self._device)
            raise

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        status, *values = function(*arguments)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            if status == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
                raise BackendError(f'the GPU is out of memory: {function.__name__}')
            _, text = self._driver.cuGetErrorString(status)
            raise BackendError(f'CUDA failed: {function.__name__}: {text.decode()}')
        return values[0] if values else None

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self._call(self._driver.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            self._driver.cuCtxPopCurrent()

    def allocate(self, num_bytes: int) -> int:
        return int(self._call(self._driver.cuMemAlloc, num_bytes))

    def free(self, address: int) -> None:
        self._call(self._driver.cuMemFree, address)

    def allocate_pinned(self, shape: tuple[int, ...]) -> np.ndarray:
        count = math.prod(shape)
        address = int(self._call(self._driver.cuMemHostAlloc, 4 * count, 0))
        floats = (ctypes.c_float * count).from_address(address)
        array = np.ctypeslib.as_array(floats).reshape(shape)
        array[:] = 0.0
        return array

    def free_pinned(self, array: np.ndarray) -> None:
        self._call(self._driver.cuMemFreeHost, array.ctypes.data)

    def to_device(self, address: int, array: np.ndarray) -> None:
        self._call(
            self._driver.cuMemcpyHtoDAsync, address, array.ctypes.data, array.nbytes, self._stream
        )

    def to_host(self, array: np.ndarray, address: int) -> None:
        self._call(
            self._driver.cuMemcpyDtoHAsync, array.ctypes.data, address, array.nbytes, self._stream
        )

    def synchronize(self) -> None:
        self._call(self._driver.cuStreamSynchronize, self._stream)

    def record(self, work: Callable[[], None]) -> Graph | None:
        driver = self._driver
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call(driver.cuStreamBeginCapture, self._stream, mode)
        try:
            work()
        except BackendError:
            status, graph = driver.cuStreamEndCapture(self._stream)
            if status == driver.CUresult.CUDA_SUCCESS and graph is not None:
                driver.cuGraphDestroy(graph)
            return None
        graph = self._call(driver.cuStreamEndCapture, self._stream)
        try:
            executable = self._call(driver.cuGraphInstantiate, graph, 0)
        finally:
            driver.cuGraphDestroy(graph)
        self._graphs[int(executable)] = executable
        return _CudaPythonGraph(self, executable)

    def launch(self, executable: Any) -> None:
        self._call(self._driver.cuGraphLaunch, executable, self._stream)

    def forget(self, executable: Any) -> None:
        self._call(self._driver.cuGraphExecDestroy, self._graphs.pop(int(executable)))

    def close(self) -> None:
        try:
            with self.current():
                for executable in list(self._graphs.values()):
                    self.forget(executable)
                self._driver.cuStreamDestroy(self._stream)
        finally:
            self._driver.cuDevicePrimaryCtxRelease(self._device)


class _CudaPythonGraph:
    def __init__(self, cuda: CudaPython, executable: Any) -> None:
        self._cuda = cuda
        self._executable = executable

    def launch(self) -> None:
        self._cuda.launch(self._executable)

    def close(self) -> None:
        self._cuda.forget(self._executable)
