"""Runs a TensorRT engine, from 8.5 to 11: one context, one stream, pinned buffers.

Named tensors and execute_async_v3 exist in all of these versions. TensorRT reports failures by
return values: False where something cannot be set or queued, None where an engine cannot be read.
Each is checked and raised with what TensorRT logged.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from posenet_ros.backends.cuda_memory import Cuda
from posenet_ros.backends.tensorrt_log import make_log
from posenet_ros.core.heads import HEADS, INPUT_NAME, Heads
from posenet_ros.errors import BackendError

logger = logging.getLogger('posenet_ros')

Shape = tuple[int, ...]


class EngineRefusedError(BackendError):
    """TensorRT cannot read an engine: another version built it, or it is damaged."""


class TensorRTBackend:
    """A TensorRT engine that is ready to run.

    Args:
        plan: the serialised engine. It is executable code: pass only what engine_cache returned.
        precision: that it was built for, to be shown.
        trt: the module tensorrt.
        cuda: the device; close() closes it too.

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
        self._launches: dict[Shape, Callable[[], None]] = {}  # by the input's shape
        self._shape: Shape | None = None  # that the context is set to
        self._heads_of: dict[Shape, list[np.ndarray]] = {}  # views of self._heads
        self._heads: list[np.ndarray] = []
        self._device_heads: list[int] = []
        self._resources = contextlib.ExitStack()  # freed in reverse order, in the CUDA context
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
        smallest, _, largest = (
            tuple(shape) for shape in self._engine.get_tensor_profile_shape(INPUT_NAME, 0)
        )
        self._smallest, self._largest = smallest, largest
        self._one_size = smallest[2:] == largest[2:]
        self.max_batch = largest[0]
        # Memory for the largest input and its heads; smaller ones take the beginning of it.
        self._images = self._pinned(largest)
        self._set_shape(largest)
        self._device_images = self._on_device(INPUT_NAME, self._images)
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
                raise BackendError(f'the engine has the wrong mode (input or output) for {name}')
            if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
                raise BackendError(f'the engine has {name} in {engine.get_tensor_dtype(name)!s}')

    def input_buffer(self, count: int, height: int, width: int) -> np.ndarray:
        return _beginning(self._images, (count, 3, height, width))

    def run(self, images: np.ndarray) -> Heads:
        if self._closed:
            raise BackendError('this model is closed')
        shape = images.shape
        if len(shape) != 4 or not all(
            low <= size <= high
            for low, size, high in zip(self._smallest, shape, self._largest, strict=True)
        ):
            raise BackendError(
                f'images of {shape}; this engine takes {self._smallest} to {self._largest}'
            )
        pinned = _beginning(self._images, shape)
        if images.ctypes.data != pinned.ctypes.data:
            pinned[:] = images
        with self._cuda.current():
            if shape in self._launches:
                self._launches[shape]()
            else:
                self._enqueue(pinned)
            self._cuda.synchronize()
            if shape not in self._launches and self._one_size:
                # Later runs are a CUDA graph, if it can be captured: one call instead of dozens.
                # Only where the size is always the same: a graph belongs to the state of the
                # context, and no GPU was there to prove that others may run in between.
                recorded = self._cuda.record(lambda: self._enqueue(pinned))
                self._launches[shape] = recorded or (lambda: self._enqueue(pinned))
        return Heads(*self._heads_of[shape])

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._free()
        with contextlib.suppress(BackendError):  # a lost device, which was logged already
            self._cuda.close()

    def _free(self) -> None:
        # Pushed last and so called first: a failed run may have left work on the stream.
        self._resources.callback(self._cuda.synchronize)
        try:
            with self._cuda.current():
                self._resources.close()
        except BackendError as error:
            # A lost device frees everything itself; only our references remain.
            logger.warning('while the engine was freed: %s', error)
            self._resources.pop_all()
            self._forget()

    def _enqueue(self, images: np.ndarray) -> None:
        shape = images.shape
        self._set_shape(shape)
        if shape not in self._heads_of:
            self._heads_of[shape] = [
                _beginning(head, tuple(self._context.get_tensor_shape(name)))
                for name, head in zip(HEADS, self._heads, strict=True)
            ]
        self._cuda.to_device(self._device_images, images)
        if not self._context.execute_async_v3(self._cuda.stream):
            raise self._log.error('TensorRT could not queue the network')
        for head, address in zip(self._heads_of[shape], self._device_heads, strict=True):
            self._cuda.to_host(head, address)

    def _set_shape(self, shape: Shape) -> None:
        if shape == self._shape:
            return
        if not self._context.set_input_shape(INPUT_NAME, shape):
            raise self._log.error(f'TensorRT does not take an input of {shape}')
        self._shape = shape

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
        """Drops the context, the engine and the runtime, in this order, which frees them."""
        self._launches = {}
        self._heads_of = {}
        self._context = self._engine = self._runtime = None


def _beginning(memory: np.ndarray, shape: Shape) -> np.ndarray:
    """The first elements of an array, in another shape: a view."""
    return memory.reshape(-1)[: math.prod(shape)].reshape(shape)
