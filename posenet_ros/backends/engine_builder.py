"""ONNX -> TensorRT engine, with one code path for TensorRT 8.5 to 11.

From TensorRT 10 on networks are strongly typed: the ONNX graph alone decides the precision. Before
that the graph is float32 or Q/DQ, and builder flags allow fp16 and int8. The code checks whether a
name exists in the module, and never compares version numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posenet_ros.backends.tensorrt_log import make_log
from posenet_ros.core.heads import HEADS, INPUT_NAME
from posenet_ros.errors import BackendError, ConfigError
from posenet_ros.input_size import InputSizes
from posenet_ros.progress import Progress

# Part of every engine's key: increase it when the same ONNX and options make another engine.
BUILDER_VERSION = 2

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Profile:
    """The input shapes (n, 3, height, width) that an engine takes, and the one it is tuned for."""

    smallest: Shape
    tuned: Shape
    largest: Shape

    @classmethod
    def batches(cls, sizes: InputSizes, max_batch: int) -> Profile:
        """A network's input sizes, in batches of up to max_batch; tuned for the typical size."""
        return cls(
            (1, 3, *sizes.smallest), (max_batch, 3, *sizes.typical), (max_batch, 3, *sizes.largest)
        )


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is built from its ONNX.

    Args:
        precision: fp32, fp16 or int8: what the ONNX was made for.
        profile: the input shapes that it takes.
        workspace_mib: limit of a layer's scratch memory in MiB; 0 keeps TensorRT's own.
        dla_core: the Deep Learning Accelerator to run on; other layers use the GPU.
    """

    precision: str
    profile: Profile
    workspace_mib: int = 0
    dla_core: int | None = None


def is_strongly_typed(trt: Any) -> bool:
    """Whether the ONNX decides the precision. If not, fp16 engines are built from float32 ONNX."""
    return hasattr(trt.NetworkDefinitionCreationFlag, 'STRONGLY_TYPED')


def shares_profiles(trt: Any) -> bool:
    """Whether several execution contexts may use one optimization profile: from 8.6 on.

    TensorRT 8.5 crashes when a second context is given the profile of the first.
    """
    return is_strongly_typed(trt) or hasattr(trt.PreviewFeature, 'PROFILE_SHARING_0806')


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
        progress: called during the build by TensorRT 10 and later.

    Returns:
        The serialised engine, and the timing cache for later builds (empty where there is none).

    Raises:
        ConfigError: the device has no such accelerator, or it cannot have this precision.
        BackendError: TensorRT cannot parse or build the model; with what it logged.
    """
    log = make_log(trt)
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # of the bindings, which got no object
        raise log.error('TensorRT cannot make a builder') from error
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
    # TF32 has a mantissa as short as float16's: too inaccurate for fp32.
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_mib:
        config.set_memory_pool_limit(
            trt.MemoryPoolType.WORKSPACE, options.workspace_mib * 1024 * 1024
        )
    if not is_strongly_typed(trt):
        _allow_precision(trt, config, network, options.precision)
    if options.dla_core is not None:
        _use_dla(trt, builder, config, options)
    _use_own_kernels(trt, config)
    _share_profile(trt, config)
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
    """Allows fp16 and int8 in a weakly typed network. The heads stay in float32."""
    if precision == 'fp32':
        return
    config.set_flag(trt.BuilderFlag.FP16)
    if precision == 'int8':
        config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    makers = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    for head in HEADS:
        # Transpose, sigmoid and convolution, from the output back.
        layer = makers.get(head)
        while layer is not None:
            layer.precision = trt.DataType.FLOAT
            if layer.type == trt.LayerType.CONVOLUTION:
                break
            layer = makers.get(layer.get_input(0).name)


def _use_own_kernels(trt: Any, config: Any) -> None:
    """Lets TensorRT 8.5 do without cuDNN and cuBLAS, as later versions do.

    They are a gigabyte in memory, and where they are missing no engine is built.
    """
    if hasattr(trt.PreviewFeature, 'DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805'):
        feature = trt.PreviewFeature.DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805
        config.set_preview_feature(feature, True)
        others = (trt.TacticSource.CUBLAS, trt.TacticSource.CUBLAS_LT, trt.TacticSource.CUDNN)
        kept = config.get_tactic_sources() & ~sum(1 << int(source) for source in others)
        config.set_tactic_sources(kept)


def _share_profile(trt: Any, config: Any) -> None:
    """Lets several contexts, each set to an input shape, use the one profile; 8.5 cannot."""
    if hasattr(trt.PreviewFeature, 'PROFILE_SHARING_0806'):
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)


def _use_dla(trt: Any, builder: Any, config: Any, options: EngineOptions) -> None:
    cores = builder.num_DLA_cores
    if not 0 <= options.dla_core < cores:  # type: ignore[operator]
        known = f'0 to {cores - 1}' if cores else 'none: this device has no DLA'
        raise ConfigError(f'Invalid dla_core {options.dla_core}. Allowed here: {known}')
    if options.precision == 'fp32':
        raise ConfigError('a DLA runs fp16 and int8 only; choose one as the precision')
    if options.profile.smallest != options.profile.largest:
        raise ConfigError(
            'a DLA takes inputs of one shape only, so max_batch must be 1, input_aspect model and '
            'attention off'
        )
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
    """An IProgressMonitor that reports the outermost phase."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, num_steps: int) -> None:
            if not parent:
                self.phases[name] = max(num_steps, 1)

        def step_complete(self, name: str, step: int) -> bool:
            if name in self.phases:
                progress(name, min(step + 1, self.phases[name]), self.phases[name])
            return True  # do not cancel the build

        def phase_finish(self, name: str) -> None:
            if total := self.phases.pop(name, None):
                progress(name, total, total)

    return Monitor()
