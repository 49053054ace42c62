"""Runs a TensorRT engine, from 8.5 to 11: one context, one stream, pinned buffers.

Named tensors and execute_async_v3 exist in all of these versions. TensorRT reports failures by
return values: False where something cannot be set or queued, None where an engine cannot be read.
Each is checked and raised with what TensorRT logged.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from posenet_ros.backends.cuda_memory import Cuda
from posenet_ros.backends.tensorrt_log import make_log
from posenet_ros.core.heads import HEADS, INPUT_NAME, Heads
from posenet_ros.errors import BackendError

logger = logging.getLogger('posenet_ros')


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
        self._launches: dict[int, Callable[[], None]] = {}  # by batch size
        self._batch = 0  # batch size that the context is set to
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
                raise BackendError(f'the engine has the wrong mode (input or output) for {name}')
            if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
                raise BackendError(f'the engine has {name} in {engine.get_tensor_dtype(name)!s}')

    def input_buffer(self, count: int) -> np.ndarray:
        return self._images[:count]

    def run(self, images: np.ndarray) -> Heads:
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
                # Later runs are a CUDA graph, if it can be captured: one call instead of dozens.
                recorded = self._cuda.record(lambda: self._enqueue(count))
                self._launches[count] = recorded or (lambda: self._enqueue(count))
        return Heads(*(head[:count] for head in self._heads))

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
        """Drops the context, the engine and the runtime, in this order, which frees them."""
        self._launches = {}
        self._context = self._engine = self._runtime = None
