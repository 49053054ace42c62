"""From ONNX to a TensorRT engine, with one code for TensorRT 8.5 to 11.

Where TensorRT knows strongly typed networks (10 and later), the precision is in the ONNX graph and
nothing else is said. Before that, the graph is float32 or Q/DQ, and builder flags allow fp16 and
int8. What is asked is whether a name exists, never which version it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from posenet_ros.backends.tensorrt import make_log
from posenet_ros.errors import BackendError, ConfigError
from posenet_ros.onnx_names import HEADS, INPUT_NAME

# Part of every engine's key: raise it when the same ONNX and options make another engine.
BUILDER_VERSION = 1

Shape = tuple[int, int, int, int]
Progress = Callable[[str, float], None]  # what is being done, and how much of it (0 to 1)


@dataclass(frozen=True)
class Profile:
    """The input shapes (n, 3, height, width) that an engine takes, and the one it is tuned for."""

    smallest: Shape
    tuned: Shape
    largest: Shape

    @classmethod
    def batches(cls, height: int, width: int, max_batch: int) -> Profile:
        """One size, any batch up to max_batch; tuned for the largest."""
        largest = (max_batch, 3, height, width)
        return cls((1, 3, height, width), largest, largest)


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is built, beside its ONNX.

    Args:
        precision: fp32, fp16 or int8: what the ONNX was made for.
        profile: the inputs that it takes.
        workspace_mib: most scratch memory that a layer may take, in MiB; 0 leaves TensorRT's limit.
        dla_core: run on this Deep Learning Accelerator, and what it cannot do on the GPU.
    """

    precision: str
    profile: Profile
    workspace_mib: int = 0
    dla_core: int | None = None


def is_strongly_typed(trt: Any) -> bool:
    """Whether precision is in the ONNX alone. If not, fp16 engines are built from float32 ONNX."""
    return hasattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED')


def build_engine(
    trt: Any,
    model: bytes,
    options: EngineOptions,
    timing_cache: bytes = b'',
    progress: Progress | None = None,
) -> tuple[bytes, bytes]:
    """Builds an engine. Takes seconds on a desktop, minutes on a small Jetson.

    Args:
        trt: the module tensorrt.
        model: serialised ONNX.
        options: how.
        timing_cache: of an earlier build on this device, or empty.
        progress: told what is done, where TensorRT can tell (10 and later).

    Returns:
        The serialised engine, and the timing cache for later builds (empty where there is none).

    Raises:
        ConfigError: the device has no such accelerator, or it cannot have this precision.
        BackendError: TensorRT refuses the model, or cannot build it; with all that it said.
    """
    log = make_log(trt)
    builder = trt.Builder(log)
    flags = trt.NetworkDefinitionCreationFlag
    if is_strongly_typed(trt):
        network = builder.create_network(1 << int(flags.STRONGLY_TYPED))
    else:
        network = builder.create_network(1 << int(flags.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, log)
    parser_flags: Any = getattr(trt, 'OnnxParserFlag', None)  # 8.5 has none
    if options.dla_core is not None and hasattr(parser_flags, 'ADJUST_FOR_DLA'):
        parser.set_flag(parser_flags.ADJUST_FOR_DLA)
    if not parser.parse(model):
        errors = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        reasons = [' '.join(error.split()) for error in errors]
        raise BackendError(f'TensorRT does not take the ONNX model: {"; ".join(reasons)}')

    config = builder.create_builder_config()
    # float32 means float32, as in the reference; TF32 has the mantissa of float16.
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_mib:
        config.set_memory_pool_limit(
            trt.MemoryPoolType.WORKSPACE, options.workspace_mib * 1024 * 1024
        )
    if not is_strongly_typed(trt):
        _allow_precision(trt, config, network, options.precision)
    if options.dla_core is not None:
        _use_dla(trt, builder, config, options)
    _add_profile(builder, config, options.profile, log)
    cache = config.create_timing_cache(timing_cache)
    if cache is None:
        cache = config.create_timing_cache(b'')  # of another device or version
    if cache is not None and not config.set_timing_cache(cache, False):
        cache = None
    if progress is not None and hasattr(trt.IBuilderConfig, 'progress_monitor'):
        config.progress_monitor = _monitor(trt, progress)

    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise log.error('TensorRT could not build the engine')
    return bytes(plan), b'' if cache is None else bytes(cache.serialize())


def _allow_precision(trt: Any, config: Any, network: Any, precision: str) -> None:
    """Allows fp16 and int8 in a network without types of its own. The heads stay in float32."""
    if precision == 'fp32':
        return
    config.set_flag(trt.BuilderFlag.FP16)
    if precision == 'int8':
        config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    makers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    for head in HEADS:
        # The output's transposition, (the sigmoid,) and the convolution before it.
        layer = makers.get(head)
        while layer is not None:
            layer.precision = trt.DataType.FLOAT
            if layer.type == trt.LayerType.CONVOLUTION:
                break
            layer = makers.get(layer.get_input(0).name)


def _use_dla(trt: Any, builder: Any, config: Any, options: EngineOptions) -> None:
    cores = builder.num_DLA_cores
    if not 0 <= options.dla_core < cores:  # type: ignore[operator]
        known = f'0 to {cores - 1}' if cores else 'none: this device has no DLA'
        raise ConfigError(f'Invalid dla_core {options.dla_core}. Allowed here: {known}')
    if options.precision == 'fp32':
        raise ConfigError('a DLA runs fp16 and int8 only; choose one as the precision')
    if options.profile.smallest != options.profile.largest:
        raise ConfigError('a DLA takes inputs of one shape only, so max_batch must be 1')
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = options.dla_core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _add_profile(builder: Any, config: Any, profile: Profile, log: Any) -> None:
    optimization = builder.create_optimization_profile()
    optimization.set_shape(INPUT_NAME, profile.smallest, profile.tuned, profile.largest)
    if not optimization or config.add_optimization_profile(optimization) < 0:
        raise log.error(
            f'TensorRT does not take the inputs {profile.smallest} to {profile.largest}'
        )


def _monitor(trt: Any, progress: Progress) -> Any:
    """TensorRT's progress, flattened: its outermost phase tells how far the build is."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, num_steps: int) -> None:
            if not parent:
                self.phases[name] = max(num_steps, 1)

        def step_complete(self, name: str, step: int) -> bool:
            if name in self.phases:
                progress(name, min(1.0, (step + 1) / self.phases[name]))
            return True  # go on

        def phase_finish(self, name: str) -> None:
            if self.phases.pop(name, None):
                progress(name, 1.0)

    return Monitor()
