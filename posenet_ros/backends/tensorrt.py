"""The network on TensorRT, from 8.5 to 11: one engine, one stream, pinned buffers.

Named tensors and execute_async_v3 exist in all of these versions. TensorRT reports failures by what
it returns: False where something cannot be set or queued, None where an engine cannot be read. Each
is checked here and raised with what TensorRT logged.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from posenet_ros.backends import Heads
from posenet_ros.backends.cuda_memory import Cuda, open_cuda
from posenet_ros.errors import BackendError, NoDeviceError
from posenet_ros.onnx_names import HEADS, INPUT_NAME
from posenet_ros.preprocess import Letterbox

NO_TENSORRT = (
    'the Python package tensorrt is missing (on a Jetson: apt install python3-libnvinfer, and a '
    'virtual environment with --system-site-packages; elsewhere: pip install tensorrt)'
)

logger = logging.getLogger('posenet_ros')


class EngineRefusedError(BackendError):
    """TensorRT cannot read an engine: another version built it, or it is damaged."""


def open_tensorrt(cuda_library: str | None = None) -> tuple[Any, Cuda]:
    """The module tensorrt, and a device for it.

    CUDA is asked for a device first: without a driver, TensorRT's Runtime can crash the process.

    Args:
        cuda_library: pycuda or cuda-python; None takes the first that is installed.

    Raises:
        NoDeviceError: with all that is missing, and what to install.
    """
    missing = []
    cuda = None
    try:
        cuda = open_cuda(cuda_library)
    except NoDeviceError as error:
        missing.append(str(error))
    try:
        # Not imported in vain: its libraries are large.
        trt = importlib.import_module('tensorrt') if cuda else importlib.util.find_spec('tensorrt')
    except (ImportError, OSError, ValueError) as error:
        found = getattr(error, 'name', None) != 'tensorrt'
        trt, reason = None, f'tensorrt cannot be imported: {error}' if found else NO_TENSORRT
    else:
        reason = NO_TENSORRT
    if trt is None:
        missing.append(reason)
    if missing or cuda is None:
        if cuda is not None:
            cuda.close()
        raise NoDeviceError('; '.join(missing))
    return trt, cuda


def make_log(trt: Any) -> Any:
    """A TensorRT logger that passes on to Python's, and keeps the last errors for exceptions."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=5)

        def log(self, severity: Any, message: str) -> None:
            levels = trt.ILogger
            if severity in (levels.INTERNAL_ERROR, levels.ERROR):
                self.errors.append(' '.join(message.split()))
            elif severity == levels.WARNING:
                logger.warning('TensorRT: %s', message.strip())
            else:
                logger.debug('TensorRT: %s', message.strip())

        def error(self, what: str) -> BackendError:
            """What went wrong, with the reasons that were logged since the last time."""
            reasons, self.errors = '; '.join(self.errors), deque(maxlen=5)
            return BackendError(f'{what}: {reasons}' if reasons else what)

    return Log()


class TensorRTBackend:
    """An engine that is ready to run.

    Args:
        plan: the serialised engine. Running one is running native code: only plans that the
            engine cache vouches for come here.
        precision: that it was built for, for people.
        trt: the module tensorrt.
        cuda: the device. Belongs to the backend once that is made: close() closes it too.

    Raises:
        BackendError: the plan cannot be read, is not a PoseNet engine, or does not fit in memory.
    """

    name = 'tensorrt'

    def __init__(self, plan: bytes, precision: str, trt: Any, cuda: Cuda) -> None:
        self.precision = precision
        self.device = f'{cuda.device_name}, TensorRT {trt.__version__}, {cuda.library}'
        self._cuda = cuda
        self._closed = False
        self._log = make_log(trt)
        self._launches: dict[int, Callable[[], None]] = {}  # by batch size
        self._batch = 0  # that the context is set to
        self._resources = contextlib.ExitStack()  # freed in reverse order, within the context
        try:
            with cuda.current():
                self._open(plan, trt)
        except BaseException:
            self._free()
            raise

    def _open(self, plan: bytes, trt: Any) -> None:
        self._resources.callback(self._forget)
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineRefusedError(str(self._log.error('TensorRT cannot read the engine')))
        self._check_tensors(trt)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise self._log.error('TensorRT cannot make an execution context')
        _, _, largest = self._engine.get_tensor_profile_shape(INPUT_NAME, 0)
        self.max_batch = largest[0]
        self._images = self._pinned(tuple(largest))
        self._set_batch(self.max_batch)
        self._device_images = self._on_device(INPUT_NAME, self._images)
        self._heads, self._device_heads = [], []
        for name in HEADS:
            head = self._pinned(tuple(self._context.get_tensor_shape(name)))
            self._heads.append(head)
            self._device_heads.append(self._on_device(name, head))

    def _check_tensors(self, trt: Any) -> None:
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        if sorted(names) != sorted([INPUT_NAME, *HEADS]):
            raise BackendError(f'the engine has the tensors {", ".join(names)}: not a PoseNet')
        for name in names:
            wanted = trt.TensorIOMode.INPUT if name == INPUT_NAME else trt.TensorIOMode.OUTPUT
            if engine.get_tensor_mode(name) != wanted:
                raise BackendError(f'the engine has {name} on the wrong side')
            if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
                raise BackendError(f'the engine has {name} in {engine.get_tensor_dtype(name)}')

    def needed_rows(self, letterboxes: Sequence[Letterbox]) -> range:
        return range(self._images.shape[2])

    def input_buffer(self, count: int, rows: range | None = None) -> np.ndarray:
        return self._images[:count]

    def run(self, images: np.ndarray, rows: range | None = None) -> Heads:
        if self._closed:
            raise BackendError('this model is closed')
        count = len(images)
        if not 1 <= count <= self.max_batch:
            raise BackendError(f'a batch of {count}; this engine takes 1 to {self.max_batch}')
        pinned = self._images[:count]
        if images.shape != pinned.shape:
            raise BackendError(f'images of {images.shape}; this engine takes {pinned.shape}')
        if images.ctypes.data != pinned.ctypes.data:
            pinned[:] = images
        with self._cuda.current():
            if count in self._launches:
                self._launches[count]()
            else:
                self._enqueue(count)
            self._cuda.synchronize()
            if count not in self._launches:
                # From now on as a graph, where it can be recorded: one call instead of dozens.
                recorded = self._cuda.record(lambda: self._enqueue(count))
                self._launches[count] = recorded or (lambda: self._enqueue(count))
        return Heads(*(head[:count] for head in self._heads))

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._free()
        with contextlib.suppress(BackendError):  # a lost device: told already
            self._cuda.close()

    def _free(self) -> None:
        # Called first, since a failed run may have left work on the stream.
        self._resources.callback(self._cuda.synchronize)
        try:
            with self._cuda.current():
                self._resources.close()
        except BackendError as error:
            # A lost device takes everything with it. What is ours is forgotten all the same.
            logger.warning('while the engine was freed: %s', error)
            self._resources.pop_all()
            self._forget()

    def _enqueue(self, count: int) -> None:
        self._set_batch(count)
        self._cuda.to_device(self._device_images, self._images[:count])
        if not self._context.execute_async_v3(self._cuda.stream):
            raise self._log.error('TensorRT could not queue the network')
        for head, address in zip(self._heads, self._device_heads, strict=True):
            self._cuda.to_host(head[:count], address)

    def _set_batch(self, count: int) -> None:
        if count == self._batch:
            return
        shape = self._images[:count].shape
        if not self._context.set_input_shape(INPUT_NAME, shape):
            raise self._log.error(f'TensorRT does not take an input of {shape}')
        self._batch = count

    def _pinned(self, shape: tuple[int, ...]) -> np.ndarray:
        array = self._cuda.allocate_pinned(shape)
        self._resources.callback(self._cuda.free_pinned, array)
        return array

    def _on_device(self, name: str, like: np.ndarray) -> int:
        address = self._cuda.allocate(like.nbytes)
        self._resources.callback(self._cuda.free, address)
        if not self._context.set_tensor_address(name, address):
            raise self._log.error(f'TensorRT does not take an address for {name}')
        return address

    def _forget(self) -> None:
        """Frees the context, the engine and the runtime, in this order."""
        self._launches = {}
        self._context = self._engine = self._runtime = None
