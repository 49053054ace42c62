"""Runs a TensorRT engine, from 8.5 to 11: a context per input shape, one stream, pinned buffers.

Named tensors and execute_async_v3 exist in all of these versions. TensorRT reports failures by
return values: False where something cannot be set or queued, None where an engine cannot be read.
Each is checked and raised with what TensorRT logged.
"""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from posenet_ros.backends.cuda_memory import Cuda, Graph
from posenet_ros.backends.engine_builder import shares_profiles
from posenet_ros.backends.tensorrt_log import make_log
from posenet_ros.core.heads import HEADS, INPUT_NAME, Heads
from posenet_ros.errors import BackendError

logger = logging.getLogger('posenet_ros')

Shape = tuple[int, ...]

# Input shapes that keep a context of their own: cameras, batches, close-ups. A context has scratch
# memory for the engine's largest input.
MOST_CONTEXTS = 8
# Recording a graph takes a few runs' time: not for a shape that comes once, and where shapes take
# turns in a context, whose graph goes with the shape, only for one that stays.
RUNS_BEFORE_GRAPH = 2
RUNS_BEFORE_GRAPH_IN_TURNS = 32


class EngineRefusedError(BackendError):
    """TensorRT cannot read an engine: another version built it, or it is damaged."""


@dataclass
class _Execution:
    """An execution context that is set to one input shape.

    NVIDIA asks for a context for each CUDA graph: a graph refers to the context's state, which
    another shape would change.
    """

    context: Any
    heads: list[np.ndarray]  # views of the pinned heads
    runs: int = 0
    graph: Graph | None = None


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
        self._executions: dict[Shape, _Execution] = {}  # by the input's shape, the latest last
        self._spare: Any = None  # a context without a shape
        self._most_contexts = MOST_CONTEXTS if shares_profiles(trt) else 1
        self._in_turns = False  # whether there are more shapes than contexts
        self._images = np.empty(0, np.float32)
        self._heads: list[np.ndarray] = []
        self._addresses: dict[str, int] = {}  # of the tensors on the device
        self._resources = contextlib.ExitStack()  # freed in reverse order, in the CUDA context
        try:
            with cuda.current():
                self._open(plan, trt)
        except BaseException:
            self.free()
            raise

    def _open(self, plan: bytes, trt: Any) -> None:
        self._resources.callback(self._forget)
        try:
            self._runtime = trt.Runtime(self._log)
        except TypeError as error:  # of the bindings, which got no object
            raise self._log.error('TensorRT cannot make a runtime') from error
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineRefusedError(str(self._log.error('TensorRT cannot read the engine')))
        self._check_tensors(trt)
        context = self._engine.create_execution_context()
        if context is None:
            raise self._log.error('TensorRT cannot make an execution context')
        smallest, _, largest = (
            tuple(shape) for shape in self._engine.get_tensor_profile_shape(INPUT_NAME, 0)
        )
        self._smallest, self._largest = smallest, largest
        self.max_batch = largest[0]
        # Memory for the largest input and its heads; smaller ones take the beginning of it.
        self._set_shape(context, largest)
        self._images = self._allocate(INPUT_NAME, largest)
        self._heads = [
            self._allocate(name, tuple(context.get_tensor_shape(name))) for name in HEADS
        ]
        self._set_addresses(context)
        self._spare = context

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
            execution = self._execution(shape)
            if execution.graph is not None:
                execution.graph.launch()
            else:
                self._enqueue(execution, pinned)
            self._cuda.synchronize()
            execution.runs += 1
            enough = RUNS_BEFORE_GRAPH_IN_TURNS if self._in_turns else RUNS_BEFORE_GRAPH
            if execution.runs == enough and execution.graph is None:
                # From now on one call instead of dozens.
                execution.graph = self._cuda.record(lambda: self._enqueue(execution, pinned))
        return Heads(*execution.heads)

    def close(self) -> None:
        if self._closed:
            return
        self.free()
        with contextlib.suppress(BackendError):  # a lost device, which was logged already
            self._cuda.close()

    def free(self) -> None:
        """Frees the engine; the device stays open."""
        self._closed = True
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

    def _execution(self, shape: Shape) -> _Execution:
        """The context for an input shape: its own, a new one, or else the longest unused one."""
        execution = self._executions.pop(shape, None)
        if execution is None:
            context = self._free_context()
            self._set_shape(context, shape)
            heads = [
                _beginning(head, tuple(context.get_tensor_shape(name)))
                for name, head in zip(HEADS, self._heads, strict=True)
            ]
            execution = _Execution(context, heads)
        self._executions[shape] = execution
        return execution

    def _free_context(self) -> Any:
        context, self._spare = self._spare, None
        if context is None and not self._in_turns and len(self._executions) < self._most_contexts:
            context = self._another_context()
        if context is None:
            self._in_turns = True
            oldest = self._executions.pop(next(iter(self._executions)))
            if oldest.graph is not None:
                oldest.graph.close()
            context = oldest.context
        return context

    def _another_context(self) -> Any:
        """A context beside the first, with the same profile; None if there is no memory for it."""
        context = self._engine.create_execution_context()
        if context is None or not context.set_optimization_profile_async(0, self._cuda.stream):
            reason = self._log.reasons()
            logger.info('TensorRT runs inputs of all shapes in one context: %s', reason)
            return None
        self._set_addresses(context)
        return context

    def _enqueue(self, execution: _Execution, images: np.ndarray) -> None:
        self._cuda.to_device(self._addresses[INPUT_NAME], images)
        if not execution.context.execute_async_v3(self._cuda.stream):
            raise self._log.error('TensorRT could not queue the network')
        for name, head in zip(HEADS, execution.heads, strict=True):
            self._cuda.to_host(head, self._addresses[name])

    def _set_shape(self, context: Any, shape: Shape) -> None:
        if not context.set_input_shape(INPUT_NAME, shape):
            raise self._log.error(f'TensorRT does not take an input of {shape}')

    def _set_addresses(self, context: Any) -> None:
        for name, address in self._addresses.items():
            if not context.set_tensor_address(name, address):
                raise self._log.error(f'TensorRT does not take an address for {name}')

    def _allocate(self, name: str, shape: Shape) -> np.ndarray:
        """A pinned array for a tensor, and memory of its size on the device."""
        array = self._cuda.allocate_pinned(shape)
        self._resources.callback(self._cuda.free_pinned, array)
        address = self._cuda.allocate(array.nbytes)
        self._resources.callback(self._cuda.free, address)
        self._addresses[name] = address
        return array

    def _forget(self) -> None:
        """Drops the contexts, the engine and the runtime, in this order, which frees them."""
        self._executions = {}
        self._spare = self._engine = self._runtime = None


def _beginning(memory: np.ndarray, shape: Shape) -> np.ndarray:
    """The first elements of an array, in another shape: a view."""
    return memory.reshape(-1)[: math.prod(shape)].reshape(shape)
