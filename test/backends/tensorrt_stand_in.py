"""A stand-in for the module tensorrt, which needs a GPU: onnx parses, ONNX Runtime executes.

It offers exactly the names that the real bindings of one version have (../shared/tensorrt_api), so
that a name which that version lacks is an AttributeError here too. A network runs where TensorRT
would run it: on the stream, when the stream is synchronised, from device memory to device memory.
It cannot show speed, a GPU's numbers, or whether TensorRT accepts a graph; a real builder shows the
last in test_engine_builder.py.
"""

from __future__ import annotations

import ast
import ctypes
import json
import types
import weakref
from enum import Enum
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from host_driver import HostDriver

API = Path(__file__).resolve().parents[3] / 'shared/tensorrt_api'
VERSIONS = sorted(path.stem.removeprefix('api_') for path in API.glob('api_*.txt'))
MAGIC = b'stand-in plan '
KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

# Names that differ between the lists and the module.
NAMES = {'NetFlags': 'NetworkDefinitionCreationFlag', 'BuilderFlags': 'BuilderFlag'}


def api(version: str) -> dict:
    """Names of a version: class -> name -> whether it is there; enumeration -> its members."""
    names = {}
    for line in (API / f'api_{version}.txt').read_text().splitlines()[1:]:
        name, _, content = line.partition(' ')
        names[NAMES.get(name, name)] = ast.literal_eval(content)
    return names


class Strict:
    """Rejects attributes that its class does not have."""

    def __setattr__(self, name, value):
        if not hasattr(type(self), name) and name not in self._own:
            raise AttributeError(f'{type(self).__name__} has no attribute {name}')
        object.__setattr__(self, name, value)

    _own = ()


def make_tensorrt(driver: HostDriver, version: str | None = None) -> types.ModuleType:
    """The module.

    Args:
        driver: where device memory and streams are.
        version: whose names it has; None for all that we know, as TensorRT 10.13 has them.
    """
    trt = types.ModuleType('tensorrt')
    trt.__version__ = version or '10.13.3.9'
    trt.faults = set()  # names of calls that report failure, for the tests
    trt.contexts = weakref.WeakSet()  # execution contexts that are alive
    names = api(version) if version else {}

    def enumeration(name, *members):
        members = members if version is None or name not in names else names[name]
        if members is not None:  # None: this version has no such enumeration
            setattr(trt, name, Enum(name, {m: i for i, m in enumerate(members)}, type=Int))

    class Int(int):
        pass

    for name, *members in (
        ('NetworkDefinitionCreationFlag', 'EXPLICIT_BATCH', 'STRONGLY_TYPED'),
        ('BuilderFlag', 'FP16', 'INT8', 'GPU_FALLBACK', 'TF32', 'PREFER_PRECISION_CONSTRAINTS'),
        ('OnnxParserFlag', 'NATIVE_INSTANCENORM'),
        ('PreviewFeature', 'PROFILE_SHARING_0806'),
        ('TacticSource', 'CUBLAS', 'CUBLAS_LT', 'CUDNN', 'EDGE_MASK_CONVOLUTIONS'),
        ('MemoryPoolType', 'WORKSPACE'),
        ('DataType', 'FLOAT', 'HALF', 'INT8', 'INT32', 'BOOL'),
        ('TensorIOMode', 'NONE', 'INPUT', 'OUTPUT'),
        ('DeviceType', 'GPU', 'DLA'),
        ('LayerType', 'CONVOLUTION', 'OTHER'),
    ):
        enumeration(name, *members)

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def fails(name, log, why='the stand-in was told to fail'):
        if name in trt.faults:
            log.log(ILogger.ERROR, f'{name}: {why}')
            return True
        return False

    def made(name, log):
        if fails(name, log):
            raise TypeError('pybind11::init(): factory function returned nullptr')

    class Tensor:
        def __init__(self, name):
            self.name = name

    class ILayer(Strict):
        precision = None
        _own = ('type', 'name', 'inputs', 'outputs')

        def __init__(self, node):
            self.name, self.inputs, self.outputs = node.name, node.input, node.output
            self.type = trt.LayerType.CONVOLUTION if node.op_type == 'Conv' else trt.LayerType.OTHER

        num_outputs = property(lambda self: len(self.outputs))

        def get_output(self, index):
            return Tensor(self.outputs[index])

        def get_input(self, index):
            return Tensor(self.inputs[index])

    class INetworkDefinition(Strict):
        _own = ('flags', 'model', 'layers')

        def __init__(self, flags):
            self.flags, self.layers = flags, []

        num_layers = property(lambda self: len(self.layers))

        def get_layer(self, index):
            return self.layers[index]

    class OnnxParser(Strict):
        _own = ('network', 'errors', 'flags')

        def __init__(self, network, log):
            self.network, self.errors, self.flags = network, [], []

        num_errors = property(lambda self: len(self.errors))

        def set_flag(self, flag):
            self.flags.append(flag)

        def get_error(self, index):
            return self.errors[index]  # printed, as the real one is

        def parse(self, model):
            try:
                loaded = onnx.load_from_string(model)
                onnx.checker.check_model(loaded)
            except Exception as error:
                self.errors = [str(error), 'and a second reason']
                return False
            self.network.model = model
            self.network.layers = [ILayer(node) for node in loaded.graph.node]
            return True

    class Profile:
        shapes = None

        def set_shape(self, name, smallest, tuned, largest):
            self.shapes = [tuple(smallest), tuple(tuned), tuple(largest)]

        def __bool__(self):
            return self.shapes is not None and self.shapes[0][0] >= 1

    class TimingCache:
        def __init__(self, data):
            self.data = data

        def serialize(self):
            return memoryview(self.data + b'timed ')

    class IBuilderConfig(Strict):
        default_device_type = DLA_core = progress_monitor = None
        sources = 0b1111
        _own = ('flags', 'limits', 'profiles', 'cache', 'preview')

        def __init__(self):
            self.flags, self.limits, self.profiles, self.preview = {'TF32'}, {}, [], set()

        def get_tactic_sources(self):
            return self.sources

        def set_tactic_sources(self, sources):
            self.sources = sources
            return True

        def set_preview_feature(self, feature, on):
            self.preview.add(feature.name)

        def set_flag(self, flag):
            self.flags.add(flag.name)

        def clear_flag(self, flag):
            self.flags.discard(flag.name)

        def set_memory_pool_limit(self, pool, size):
            self.limits[pool.name] = size

        def add_optimization_profile(self, profile):
            self.profiles.append(profile)
            return len(self.profiles) - 1

        def create_timing_cache(self, data):
            return None if data.startswith(b'of another device') else TimingCache(data)

        def set_timing_cache(self, cache, ignore_mismatch):
            self.cache = cache
            return True

    class Builder(Strict):
        _own = ('log',)
        num_DLA_cores = 0

        def __init__(self, log):
            made('Builder', log)
            self.log = log

        def create_network(self, flags):
            return INetworkDefinition(flags)

        def create_builder_config(self):
            return IBuilderConfig()

        def create_optimization_profile(self):
            return Profile()

        def build_serialized_network(self, network, config):
            trt.built = (network, config)
            if fails('build_serialized_network', self.log):
                return None
            monitor = getattr(config, 'progress_monitor', None)
            if monitor is not None:
                monitor.phase_start('Building', None, 2)
                for step in range(2):
                    monitor.step_complete('Building', step)
                monitor.phase_finish('Building')
            # Contexts share the profile: on demand in 8.6, always from 10 on.
            shared = trt.__version__[0] == '1' or 'PROFILE_SHARING_0806' in config.preview
            header = json.dumps({'shapes': config.profiles[0].shapes, 'shared': shared}).encode()
            return memoryview(MAGIC + header + b'\n' + network.model)

    class IExecutionContext(Strict):
        _own = ('engine', 'shape', 'addresses', 'kernels', 'profile')

        def __init__(self, engine):
            self.engine, self.shape = engine, None
            self.addresses, self.kernels = {}, []
            self.profile = -1 if engine.contexts else 0  # only the first one gets it
            engine.contexts.add(self)
            trt.contexts.add(self)

        def set_optimization_profile_async(self, index, stream):
            assert type(stream) is int
            others = [c for c in self.engine.contexts if c is not self and c.profile == index]
            # There the real 8.5.3 ends the process with a segmentation fault.
            assert self.engine.shared or not others, 'two contexts with one profile'
            self.profile = index
            return True

        def set_input_shape(self, name, shape):
            if self.profile < 0:
                self.engine.log.log(ILogger.ERROR, 'no optimization profile')
                return False
            smallest, _, largest = self.engine.shapes
            allowed = all(a <= b <= c for a, b, c in zip(smallest, shape, largest, strict=True))
            if fails('set_input_shape', self.engine.log) or not allowed:
                return False
            self.shape = tuple(shape)
            return True

        def get_tensor_shape(self, name):
            if name in self.engine.inputs:
                return self.shape
            size = self.engine.outputs[name]
            if all(isinstance(dimension, int) for dimension in size[1:]):
                return (self.shape[0], *size[1:])
            # Of any size: as the network itself gives it.
            name_of_input = next(iter(self.engine.inputs))
            image = np.zeros(self.shape, np.float32)
            (head,) = self.engine.session.run([name], {name_of_input: image})
            return head.shape

        def set_tensor_address(self, name, address):
            assert type(address) is int
            if fails('set_tensor_address', self.engine.log):
                return False
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream):
            assert type(stream) is int
            if fails('execute_async_v3', self.engine.log):
                return False
            # Addresses and shape are copied now; the work itself is done later.
            kernel = KERNEL(self.engine.kernel(self.shape, dict(self.addresses)))
            self.kernels.append(kernel)
            return driver.launch(stream, kernel) == 0

    class ICudaEngine(Strict):
        _own = ('session', 'shapes', 'inputs', 'outputs', 'log', 'shared', 'contexts')

        def __init__(self, model, shapes, shared, log):
            self.shared, self.contexts = shared, weakref.WeakSet()
            self.session = ort.InferenceSession(model, providers=['CPUExecutionProvider'])
            self.shapes, self.log = shapes, log
            self.inputs = {i.name: i.shape for i in self.session.get_inputs()}
            self.outputs = {o.name: o.shape for o in self.session.get_outputs()}

        num_io_tensors = property(lambda self: len(self.inputs) + len(self.outputs))

        def get_tensor_name(self, index):
            return [*self.inputs, *self.outputs][index]

        def get_tensor_mode(self, name):
            return trt.TensorIOMode.INPUT if name in self.inputs else trt.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name):
            return trt.DataType.HALF if 'half heads' in trt.faults else trt.DataType.FLOAT

        def get_tensor_profile_shape(self, name, index):
            return self.shapes

        def create_execution_context(self):
            return None if fails('create_execution_context', self.log) else IExecutionContext(self)

        def kernel(self, shape, addresses):
            def array(name, size):
                place = driver.memory(addresses[name], 4 * int(np.prod(size)))
                return np.ctypeslib.as_array(
                    (ctypes.c_float * int(np.prod(size))).from_address(place)
                ).reshape(size)

            def run(_):
                image = array(next(iter(self.inputs)), shape)
                results = self.session.run(list(self.outputs), {next(iter(self.inputs)): image})
                for name, result in zip(self.outputs, results, strict=True):
                    if 'wrong kernel' in trt.faults:
                        result = 1 - result
                    array(name, result.shape)[:] = result

            return run

    class Runtime(Strict):
        _own = ('log',)

        def __init__(self, log):
            made('Runtime', log)
            self.log = log

        def deserialize_cuda_engine(self, plan):
            if fails('deserialize_cuda_engine', self.log) or not plan.startswith(MAGIC):
                return None
            header, _, model = plan[len(MAGIC) :].partition(b'\n')
            header = json.loads(header)
            shapes = [tuple(shape) for shape in header['shapes']]
            return ICudaEngine(model, shapes, header['shared'], self.log)

    class IProgressMonitor:
        pass

    for kind in (
        ILogger, ILayer, INetworkDefinition, OnnxParser, IBuilderConfig, Builder,
        IExecutionContext, ICudaEngine, Runtime,
    ):  # fmt: skip
        for name, there in names.get(kind.__name__, {}).items():
            if not there and name in vars(kind):
                delattr(kind, name)
        setattr(trt, kind.__name__, kind)
    if hasattr(IBuilderConfig, 'progress_monitor'):
        trt.IProgressMonitor = IProgressMonitor
    return trt
