"""What can be configured: the reference's options in snake_case, checked on construction.

Source: tfjs-models/posenet 2.2.2, posenet_model.ts (validateModelConfig and
validateMultiPersonInputConfig). The reference's own error texts are kept word for word, followed by
the option's name here and, where it helps, advice.
"""

from __future__ import annotations

import math
import numbers
import re
from dataclasses import Field, dataclass, field, fields
from typing import Any, cast

from posenet_ros.errors import ConfigError
from posenet_ros.input_size import (
    MAX_ASPECT,
    InputSizes,
    Size,
    fitted_input_size,
    valid_input_size,
)

ARCHITECTURES = ('MobileNetV1', 'ResNet50')
OUTPUT_STRIDES = {'MobileNetV1': (8, 16, 32), 'ResNet50': (32, 16)}
MULTIPLIERS = {'MobileNetV1': (0.5, 0.75, 1.0), 'ResNet50': (1.0,)}
QUANT_BYTES = (1, 2, 4)
DECODING_METHODS = ('multi-person', 'single-person')
DECODERS = ('reference', 'refined')
INPUT_ASPECTS = ('model', 'image')
ATTENTIONS = ('off', 'closeups', 'people')
# What the reference does not have, beside what it cannot check.
OURS = (
    'input_aspect',
    'attention',
    'closeup_resolution',
    'max_closeups',
    'whole_image_period',
)
CLOSEUP_ASPECTS = (0.5, 1.0, 2.0)  # width to height: standing, sitting and lying people
BACKENDS = ('auto', 'onnxruntime', 'onnxruntime-cuda', 'tensorrt')
PRECISIONS = ('fp32', 'fp16', 'int8')
CUDA_LIBRARIES = ('pycuda', 'cuda-python')
PRECISION_OF_QUANT_BYTES = {4: 'fp32', 2: 'fp16', 1: 'int8'}
SMALLEST_CLOSEUP = 65  # pixels of the input
LEAST_CLOSEUP_OF_PEOPLE = 97
MAX_BATCH = 64
SHA256 = re.compile('[0-9a-fA-F]{64}')
MAX_INPUT_PIXELS = 4097 * 4097
MAX_IMAGE_PIXELS = 7680 * 4320  # 8K, more than cameras on robots have


# Where the node's defaults are not the reference's, which the library has: what finds most people
# at 30 Hz on one core of a CPU. config/reference.yaml has the reference's values.
NODE_DEFAULTS: dict[str, Any] = {
    'input_resolution': 385,
    'input_aspect': 'image',
    'decoder': 'refined',
    'max_detections': 20,
}


class _NotGiven:
    """Stands for an option that was left out; becomes a value in __post_init__."""

    def __repr__(self) -> str:
        return 'not given'


NOT_GIVEN: Any = _NotGiven()


@dataclass(frozen=True)
class ModelConfig:
    """Which network runs, and on what: the input's size and shape, and close-ups.

    ModelConfig() is the model that the reference loads when load() gets no config: multiplier 0.75,
    or 1.0 where a model has no other. None stands for an option that is missing in the reference's
    config object, and becomes the reference's default for it (multiplier 1.0, for one).

    Raises:
        ConfigError: a value that the reference refuses, in the reference's order and words.
    """

    architecture: str = field(
        default='MobileNetV1',
        metadata={'help': 'Network architecture.', 'choices': ARCHITECTURES},
    )
    output_stride: int = field(
        default=16,
        metadata={
            'help': 'Input pixels per heatmap cell. MobileNetV1: 8, 16, or 32 with multiplier 1.0; '
            'ResNet50: 16 or 32. 8 takes two to three times as long as 16, and a larger input is '
            'worth more.',
            'choices': (8, 16, 32),
        },
    )
    multiplier: float = field(
        default=NOT_GIVEN,
        metadata={
            'default': 0.75,  # where the model has it
            'help': 'Depth multiplier of the convolutions: 0.5 takes half as long as 0.75, and 1.0 '
            'twice. For the same time, a larger input is worth more. ResNet50 has 1.0 only.',
            'choices': MULTIPLIERS['MobileNetV1'],
        },
    )
    input_resolution: float | tuple[float, float] = field(
        default=257,
        metadata={
            'help': 'Size of the network input in pixels: one number for a square, or width and '
            'height. Rounded to a multiple of the output stride plus 1. Time grows with the '
            'number of pixels. People who are 60 to 120 pixels tall in it are found every second '
            'time, taller ones four times of five.',
            'range': (1, 4097),
        },
    )
    input_aspect: str = field(
        default='model',
        metadata={
            'help': 'model: the input has the size of input_resolution, and images get black '
            'borders. image: the input has as many pixels, in the shape of each image, and shows '
            'people larger in the same time.',
            'choices': INPUT_ASPECTS,
        },
    )
    attention: str = field(
        default='off',
        metadata={
            'help': 'off: one look at each image. closeups: a second look, from close up, at those '
            'who are small in the input. Finds more people, and places them better, for at most '
            'max_closeups times the time of a close-up. people, for videos: close-ups of those who '
            'were there before, and the whole image only every whole_image_period.',
            'choices': ATTENTIONS,
        },
    )
    closeup_resolution: int = field(
        default=193,
        metadata={
            'help': 'Size of a close-up in pixels of the network input: the side of a square with '
            'as many pixels. With attention people the largest size; those who need less get less.',
            'range': (33, 1025),
        },
    )
    max_closeups: int = field(
        default=4,
        metadata={
            'help': 'Most close-ups of one image, so that its time is bounded. With attention '
            'people: an image may take the pixels of so many of the largest size, and whoever does '
            'not fit in waits for the next image.',
            'range': (1, 64),
        },
    )
    whole_image_period: float = field(
        default=0.5,
        metadata={
            'help': 'With attention people: seconds after which the whole image is looked at '
            'again. Newcomers are found within this time.',
            'range': (0.0, 3600.0),
        },
    )
    quant_bytes: int = field(
        default=4,
        metadata={
            'help': 'Bytes per weight of the checkpoint that is fetched: 4 is float32, 2 and 1 '
            'are smaller downloads with quantised weights. The MobileNetV1 files of 1 byte are '
            'broken upstream.',
            'choices': QUANT_BYTES,
        },
    )
    model_url: str | None = field(
        default=None,
        metadata={
            'help': 'A tfjs graph model to use instead of the official one: file, directory, '
            'file:// or http(s):// URL of a model-strideN.json.'
        },
    )
    model_sha256: str | None = field(
        default=None,
        metadata={
            'help': 'SHA-256 that the weights must have, as ~/model_info and `posenet fetch` show '
            'it; others are not loaded. Empty takes any.'
        },
    )
    tfjs_dilations: bool = field(
        default=False,
        metadata={
            'help': 'Run dilated layers as the reference does: rows dilated, columns not. This '
            'defect of the published graphs is repaired by default.'
        },
    )

    def __post_init__(self) -> None:
        def settle(name: str, value: Any) -> None:  # the dataclass is frozen
            object.__setattr__(self, name, value)

        for option, when_missing in (
            ('architecture', 'MobileNetV1'),
            ('input_resolution', 257),
            ('output_stride', 16),
            ('multiplier', 1.0),
            ('quant_bytes', 4),
        ):
            if getattr(self, option) is None:
                settle(option, when_missing)

        architecture = self.architecture
        if architecture not in ARCHITECTURES:
            raise ConfigError(
                f'Invalid architecture {architecture}. Should be one of {",".join(ARCHITECTURES)}'
            )
        settle('input_resolution', _checked_resolution(self.input_resolution))
        if self.multiplier is NOT_GIVEN:
            only_full = architecture == 'ResNet50' or self.output_stride == 32
            settle('multiplier', 1.0 if only_full else 0.75)
        for option, reference_name, allowed in (
            ('output_stride', 'outputStride', OUTPUT_STRIDES[architecture]),
            ('multiplier', 'multiplier', MULTIPLIERS[architecture]),
            ('quant_bytes', 'quantBytes', QUANT_BYTES),
        ):
            value = getattr(self, option)
            if not _is_number(value) or value not in allowed:
                advice = f' ({option}={value!r})'
                if option == 'multiplier' and value == 1.01:
                    advice += (
                        " The reference's README still names 1.01, but its code has refused it"
                        ' since 2.0; the model it meant is multiplier 1.0.'
                    )
                raise ConfigError(
                    f'Invalid {reference_name} {_js(value)}. Should be one of '
                    f'{",".join(map(_js, allowed))} for architecture {architecture}.{advice}'
                )
        settle('output_stride', int(self.output_stride))
        settle('quant_bytes', int(self.quant_bytes))
        settle('multiplier', float(self.multiplier))
        if architecture == 'MobileNetV1' and self.output_stride == 32 and self.multiplier != 1:
            raise ConfigError(
                'When using an output stride of 32, you must select 1 as the multiplier.'
                f' (output_stride=32, multiplier={_js(self.multiplier)})'
            )
        if self.model_url is not None and not isinstance(self.model_url, str):
            raise ConfigError(
                f'Invalid model_url {self.model_url!r}. Should be a file, a directory, or a '
                'file://, http:// or https:// URL, as a string'
            )
        settle('model_url', self.model_url or None)
        if self.model_sha256 and not (
            isinstance(self.model_sha256, str) and SHA256.fullmatch(self.model_sha256)
        ):
            raise ConfigError(
                f'Invalid model_sha256 {self.model_sha256!r}. Should be 64 digits, 0 to 9 and a to '
                'f, or empty'
            )
        settle('model_sha256', self.model_sha256.lower() if self.model_sha256 else None)
        if not isinstance(self.tfjs_dilations, bool):
            raise ConfigError(f'Invalid tfjs_dilations {self.tfjs_dilations!r}. Should be a bool')
        for ours in fields(self):  # what the reference does not have
            if ours.name in OURS:
                _check_field(ours, getattr(self, ours.name))
        if self.attention == 'people' and self.closeup_resolution < LEAST_CLOSEUP_OF_PEOPLE:
            raise ConfigError(
                f'Invalid closeup_resolution {self.closeup_resolution}. Should be '
                f'{LEAST_CLOSEUP_OF_PEOPLE} or more with attention people'
            )

    @property
    def valid_resolution(self) -> Size:
        """Height and width of the network input in pixels, rounded as the reference rounds."""
        resolution = self.input_resolution
        width, height = resolution if isinstance(resolution, tuple) else (resolution, resolution)
        return (
            valid_input_size(height, self.output_stride),
            valid_input_size(width, self.output_stride),
        )

    def input_size(self, image_height: int, image_width: int) -> Size:
        """Height and width of the network input for an image of this size, all in pixels."""
        if self.input_aspect == 'model':
            return self.valid_resolution
        pixels = math.prod(self.valid_resolution)
        return fitted_input_size(pixels, image_height, image_width, self.output_stride)

    @property
    def closeup_sizes(self) -> tuple[Size, ...]:
        """Height and width of the network input for close-ups: tall, square and wide."""
        pixels = self.closeup_resolution**2
        return tuple(
            fitted_input_size(pixels, 1000, round(1000 * aspect), self.output_stride)
            for aspect in CLOSEUP_ASPECTS
        )

    @property
    def input_sizes(self) -> InputSizes:
        """All sizes that the network's input can have; a camera has most often 4:3."""
        sizes = [self.input_size(480, 640)]
        if self.input_aspect == 'image':
            longest = round(1000 * MAX_ASPECT)
            sizes += [self.input_size(1000, longest), self.input_size(longest, 1000)]
        if self.attention != 'off':
            sizes += self.closeup_sizes
        if self.attention == 'people':
            longest = SMALLEST_CLOSEUP - 1 + valid_input_size(2 * self.closeup_resolution, 32)
            sizes += [(SMALLEST_CLOSEUP, SMALLEST_CLOSEUP), (longest, longest)]
        return InputSizes.of(sizes)


@dataclass(frozen=True)
class DecoderConfig:
    """How poses are decoded from the network's outputs. None becomes the default, as in tfjs.

    Raises:
        ConfigError: a value that the reference refuses, in the reference's words.
    """

    flip_horizontal: bool = field(
        default=False,
        metadata={
            'help': 'Mirror the x coordinates, for a camera that shows a mirror image. Left and '
            'right keep their names.'
        },
    )
    max_detections: float = field(
        default=5,
        metadata={'help': 'Most people to find in one image.', 'range': (1, 1000)},
    )
    score_threshold: float = field(
        default=0.5,
        metadata={
            'help': 'Lowest heatmap score that can start a person.',
            'range': (0.0, 1.0),
        },
    )
    nms_radius: float = field(
        default=20.0,
        metadata={
            'help': 'Two detections whose same body part is closer than this are one person. In '
            'pixels of the network input. More than 0.',
            'range': (0.001, 1000.0),
        },
    )
    decoding_method: str = field(
        default='multi-person',
        metadata={
            'help': 'multi-person finds many people; single-person takes the best keypoints of '
            'the whole image for one person, and is meant for images with exactly one.',
            'choices': DECODING_METHODS,
        },
    )
    decoder: str = field(
        default='reference',
        metadata={
            'help': 'reference gives the numbers of the reference; refined places keypoints better '
            "in about the same time. A person's score is then the expected OKS: lower, and better "
            'at telling right from wrong.',
            'choices': DECODERS,
        },
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            if getattr(self, option.name) is None:
                object.__setattr__(self, option.name, option.default)
        flip = self.flip_horizontal
        if not isinstance(flip, bool):
            raise ConfigError(f'Invalid flipHorizontal {flip}. Should be true or false')
        if not (_is_number(self.max_detections) and self.max_detections > 0):
            raise ConfigError(
                f'Invalid maxDetections {_js(self.max_detections)}. Should be > 0'
                f' (max_detections={self.max_detections!r})'
            )
        threshold = self.score_threshold
        if not (_is_number(threshold) and 0 <= threshold <= 1):
            raise ConfigError(
                f'Invalid scoreThreshold {_js(threshold)}. Should be in range [0.0, 1.0]'
                f' (score_threshold={threshold!r})'
            )
        if not (_is_number(self.nms_radius) and self.nms_radius > 0):
            raise ConfigError(
                f'Invalid nmsRadius {_js(self.nms_radius)}. Should be > 0 input pixels'
                f' (nms_radius={self.nms_radius!r})'
            )
        if self.decoding_method not in DECODING_METHODS:
            raise ConfigError(
                f'Invalid decoding_method {self.decoding_method}. Should be one of '
                f'{",".join(DECODING_METHODS)}'
            )
        if self.decoder not in DECODERS:
            raise ConfigError(
                f'Invalid decoder {self.decoder}. Should be one of {",".join(DECODERS)}'
            )


@dataclass(frozen=True)
class TrackerConfig:
    """How people get ids that stay from frame to frame. The defaults are measured in doc/video.md.

    Raises:
        ConfigError: an option has an invalid value.
    """

    min_hits: int = field(
        default=2,
        metadata={
            'help': 'Frames in which somebody has to be seen to get an id.',
            'range': (1, 100),
        },
    )
    max_age: float = field(
        default=1.5,
        metadata={
            'help': 'Seconds for which an id is kept for somebody who is not seen, behind somebody '
            'else for example. A camera has to be faster than that for anybody to have an id.',
            'range': (0.0, 3600.0),
        },
    )
    min_similarity: float = field(
        default=0.2,
        metadata={
            'help': 'How well a pose has to fit where a person should be, to be that person: OKS, '
            '0 to 1.',
            'range': (0.01, 1.0),
        },
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            _check_field(option, getattr(self, option.name))


@dataclass(frozen=True)
class RuntimeConfig:
    """What runs the network, and how.

    Raises:
        ConfigError: an option has an invalid value.
    """

    backend: str = field(
        default='auto',
        metadata={
            'help': 'What runs the network: tensorrt (NVIDIA GPUs), onnxruntime-cuda (the same, '
            'slower, with nothing but onnxruntime-gpu installed), onnxruntime (CPU), or auto: the '
            'first of these for which everything is there.',
            'choices': BACKENDS,
        },
    )
    precision: str | None = field(
        default=None,
        metadata={
            'help': 'Arithmetic of the network. Empty follows quant_bytes: 4 is fp32, 2 is fp16 '
            '(fp32 on the CPU, which has no fp16), 1 is int8.',
            'choices': PRECISIONS,
        },
    )
    calibration: str | None = field(
        default=None,
        metadata={
            'help': 'Photos for int8: a folder, a video or a bag of what the camera sees. Empty '
            'takes generated images.'
        },
    )
    num_threads: int = field(
        default=0,
        metadata={
            'help': 'CPU threads of one inference with onnxruntime; 0 is one per core. One leaves '
            'the other cores to other processes.',
            'range': (0, 256),
        },
    )
    allow_spinning: bool = field(
        default=False,
        metadata={
            'help': 'Let the inference threads of onnxruntime spin while they wait for work: a '
            'little faster on an otherwise idle machine, slower beside busy processes, and CPU '
            'time is used between images too.'
        },
    )
    cuda_library: str | None = field(
        default=None,
        metadata={
            'help': 'Python package through which tensorrt uses the GPU: pycuda, or cuda-python, '
            'which runs the network as a CUDA graph. Empty takes the first that is installed.',
            'choices': CUDA_LIBRARIES,
        },
    )
    workspace_mib: int = field(
        default=0,
        metadata={
            'help': 'Limit of the scratch memory of a layer, in MiB, while tensorrt builds and '
            'runs an engine; 0 leaves the limit to tensorrt.',
            'range': (0, 65536),
        },
    )
    dla_core: int = field(
        default=-1,
        metadata={
            'help': 'Run on this Deep Learning Accelerator of a Jetson (fp16 and int8); layers '
            'that it does not support run on the GPU. A DLA takes inputs of one size: input_aspect '
            'model and attention off. -1 uses only the GPU.',
            'range': (-1, 15),
        },
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if option.default is None and not value:
                object.__setattr__(self, option.name, None)
            else:
                _check_field(option, value)

    def precision_for(self, quant_bytes: int) -> str:
        """The precision asked for: fp32, fp16 or int8."""
        return self.precision or PRECISION_OF_QUANT_BYTES[quant_bytes]

    def largest_batch(self, wanted: int) -> int:
        """The largest batch that can run, at most `wanted`: a DLA takes one image at a time."""
        return wanted if self.dla_core < 0 else 1


def _check_field(option: Field[Any], value: Any) -> None:
    """Raises a ConfigError for a value that the field's own description does not allow."""
    choices, limits = option.metadata.get('choices'), option.metadata.get('range')
    if option.default is None and not isinstance(value, str):
        raise ConfigError(f'Invalid {option.name} {value!r}. Should be a string')
    if choices and value not in choices:
        raise ConfigError(f'Invalid {option.name} {value}. Should be one of {",".join(choices)}')
    if limits and not (
        (_is_number(value) if isinstance(option.default, float) else _is_integer(value))
        and limits[0] <= value <= limits[1]
    ):
        kind = 'a number' if isinstance(option.default, float) else 'an integer'
        raise ConfigError(
            f'Invalid {option.name} {value!r}. Should be {kind} from {limits[0]} to {limits[1]}'
        )
    if isinstance(option.default, bool) and not isinstance(value, bool):
        raise ConfigError(f'Invalid {option.name} {value!r}. Should be a bool')


def largest_batch(model: ModelConfig, runtime: RuntimeConfig, images: int) -> int:
    """The largest batch that is needed for so many images at a time, with their close-ups."""
    if model.attention != 'off':
        images = max(images, runtime.largest_batch(model.max_closeups))
    return images


def check_input_size(config: ModelConfig) -> None:
    """Raises a ConfigError for a network input that is empty or too large."""
    height, width = config.valid_resolution
    if height < 1 or width < 1:
        raise ConfigError(
            f'Invalid inputResolution {config.input_resolution}. It makes a network input of '
            f'{width} x {height} pixels, which should be at least 1 x 1'
        )
    if height * width > MAX_INPUT_PIXELS:
        raise ConfigError(
            f'Invalid inputResolution {config.input_resolution}. A network input of {width} x '
            f'{height} pixels is more than can be run; 4097 x 4097 is the most'
        )


def check_max_batch(max_batch: int) -> None:
    """Raises a ConfigError for a batch size that no runtime takes."""
    if not 1 <= max_batch <= MAX_BATCH:
        raise ConfigError(f'Invalid max_batch {max_batch}. Should be 1 to {MAX_BATCH}')


def option_name(config: type, option: Field[Any]) -> str:
    """The name of a config's field as a parameter of the node or an option of a command."""
    return f'track_{option.name}' if config is TrackerConfig else option.name


def default_of(option: Field[Any]) -> Any:
    """The default of a config's field, for tables and --help."""
    return option.metadata.get('default', option.default)


def _checked_resolution(resolution: Any) -> float | tuple[float, float]:
    if _is_number(resolution) and math.isfinite(resolution):
        return cast(float, resolution)
    if not isinstance(resolution, (tuple, list)) or len(resolution) != 2:
        raise ConfigError(
            f'Invalid inputResolution {resolution}. Should be a number or an object with width '
            'and height (input_resolution: a number, or (width, height))'
        )
    for name, value in zip(('width', 'height'), resolution, strict=True):
        if not _is_number(value) or not math.isfinite(value):
            raise ConfigError(
                f'inputResolution.{name} has a value of {_js(value)} which is invalid; it must '
                f'be a number (input_resolution={resolution!r})'
            )
    width, height = resolution
    return (width, height)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and not math.isnan(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _js(value: Any) -> str:
    """A value as JavaScript prints it, so that the reference's messages come out the same."""
    if value is None:
        return 'undefined'
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
