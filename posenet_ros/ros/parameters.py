"""Every parameter of the node in one table: for declaration, checks, launch files and the docs.

Needs no ROS. Entries for the model, the runtime and the decoder are made from the fields of
ModelConfig, RuntimeConfig and DecoderConfig.
"""

from __future__ import annotations

import array
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, Literal

import yaml

from posenet_ros.config import (
    MAX_IMAGE_PIXELS,
    NODE_DEFAULTS,
    DecoderConfig,
    ModelConfig,
    RuntimeConfig,
    TrackerConfig,
    default_of,
    option_name,
)
from posenet_ros.core.keypoints import MIN_KEYPOINT_SCORE, MIN_POSE_SCORE
from posenet_ros.errors import ConfigError, quoted

Group = Literal[
    'model',
    'decoder',
    'tracking',
    'selection',
    'input',
    'space',
    'bridges',
    'output',
    'diagnostics',
]

# Groups that can be set at any time; the others only while the node is unconfigured.
LIVE_GROUPS: tuple[Group, ...] = ('decoder', 'tracking', 'selection', 'output', 'diagnostics')

# Groups that each named camera can have its own values of: NAME.PARAMETER.
CAMERA_GROUPS: tuple[Group, ...] = ('decoder', 'selection')


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter."""

    name: str
    default: Any
    help: str
    group: Group
    range: tuple[float, float] | None = None
    choices: tuple[Any, ...] = ()
    dynamic: bool = False  # also takes equivalent values of other types

    @property
    def type_name(self) -> str:
        if self.name == 'input_resolution':
            return 'int or int[2]'
        if isinstance(self.default, list):
            return 'string[]' if isinstance(self.default[0], str) else 'int[]'
        return {bool: 'bool', int: 'int', float: 'double', str: 'string'}[type(self.default)]

    @property
    def allowed(self) -> str:
        """The allowed values in words; empty if every value of the type is allowed."""
        if self.choices:
            return 'one of ' + ', '.join(repr(c) if c == '' else str(c) for c in self.choices)
        if self.range:
            return f'{self.range[0]} to {self.range[1]}'
        return ''

    def checked(self, value: Any) -> Any:
        """The value in the parameter's own type.

        Raises:
            ConfigError: it is of another type, not among the choices or out of range.
        """
        value = self._typed(value)
        if self.choices and value not in self.choices:
            raise ConfigError(f'Invalid {self.name} {value!r}. Should be {self.allowed}')
        if self.range:
            for number in value if isinstance(value, tuple) else (value,):
                if not self.range[0] <= number <= self.range[1]:
                    raise ConfigError(f'Invalid {self.name} {number}. Should be {self.allowed}')
        return value

    def _typed(self, value: Any) -> Any:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if self.name == 'input_resolution':
            if isinstance(value, int) and is_number:
                return value
            if isinstance(value, (list, tuple, array.array)):
                sizes = tuple(value)
                if len(sizes) == 2 and all(isinstance(size, int) for size in sizes):
                    return sizes
        elif isinstance(self.default, list):
            kind = type(self.default[0])
            if isinstance(value, (list, tuple, array.array)) and all(
                type(item) is kind for item in value
            ):
                return list(value)
        elif isinstance(self.default, float):
            if is_number:
                return float(value)
        elif type(value) is type(self.default):
            return value
        elif self.dynamic and value is False and 'off' in self.choices:
            return 'off'
        elif self.dynamic and isinstance(self.default, str) and is_number:
            return str(value)
        raise ConfigError(f'Invalid {self.name} {value!r}. Should be of type {self.type_name}')


def _from_field(field: Field[Any], group: Group, alone: bool = False) -> ParameterSpec:
    default = NODE_DEFAULTS.get(field.name, default_of(field))
    if default is None:  # ROS parameters have no None
        default = ''
    limits = field.metadata.get('range')
    # Choices that depend on each other are checked by ModelConfig.
    alone = alone or field.name in ('input_aspect', 'attention', 'decoder', 'decoding_method')
    choices = field.metadata.get('choices', ()) if alone else ()
    if choices and default == '':
        choices = ('', *choices)
    # 20 is accepted for 20.0, a size may be one number or two, and YAML reads off as false.
    dynamic = isinstance(default, float) or field.name in ('input_resolution', 'attention')
    name = option_name(TrackerConfig, field) if group == 'tracking' else field.name
    return ParameterSpec(name, default, field.metadata['help'], group, limits, choices, dynamic)


PARAMETERS: tuple[ParameterSpec, ...] = (
    *(_from_field(field, 'model') for field in fields(ModelConfig)),
    *(_from_field(field, 'model', alone=True) for field in fields(RuntimeConfig)),
    *(_from_field(field, 'decoder') for field in fields(DecoderConfig)),
    ParameterSpec(
        'tracking',
        True,
        'Give people in ~/poses a track_id that stays from frame to frame. attention people always '
        'does.',
        'tracking',
    ),
    *(_from_field(field, 'tracking') for field in fields(TrackerConfig)),
    ParameterSpec(
        'smoothing',
        False,
        'Hold the joints of people with a track_id still: a One Euro filter. Joints that move lag '
        'behind a little.',
        'tracking',
    ),
    ParameterSpec(
        'max_rate',
        0.0,
        'Most images a second that are looked at, of each camera: the newest, evenly spaced. The '
        'others are not even read. 0 looks at as many as the model can.',
        'selection',
        range=(0.0, 1000.0),
    ),
    ParameterSpec(
        'region',
        [0, 0, 0, 0],
        'Where in the image people are looked for: left, top, width and height in pixels. Poses '
        'stay in pixels of the whole image. Zeros mean all of it.',
        'selection',
    ),
    ParameterSpec(
        'autostart',
        True,
        'Configure and activate at start, without a lifecycle manager.',
        'input',
    ),
    ParameterSpec(
        'image_topic',
        'image_raw',
        'Images to find people in. With named cameras, {camera} is replaced by the name; a topic '
        'without it gets the name in front: NAME/image_raw. With image_transport compressed, '
        '/compressed is added.',
        'input',
    ),
    ParameterSpec(
        'camera_info_topic',
        '',
        'Calibration of the camera, for the markers; {camera} as in image_topic. Empty means '
        'camera_info in the namespace of the images, as in image_transport.',
        'input',
    ),
    ParameterSpec(
        'image_transport',
        'raw',
        'raw subscribes to image_topic; compressed to image_topic/compressed (JPEG or PNG).',
        'input',
        choices=('raw', 'compressed'),
    ),
    ParameterSpec(
        'max_image_pixels',
        MAX_IMAGE_PIXELS,
        'A compressed image whose header claims more pixels is dropped before it is decoded: a few '
        'kilobytes could take gigabytes.',
        'input',
        range=(1, 1 << 30),
    ),
    ParameterSpec(
        'cameras',
        [''],
        'Names of the cameras that share the model. A camera NAME has the topics NAME/image_raw, '
        'NAME/camera_info, ~/NAME/poses and so on; the empty name has them without a prefix.',
        'input',
    ),
    ParameterSpec(
        'lazy',
        True,
        'Read and compute nothing while nobody subscribes to poses, markers or annotated images.',
        'input',
    ),
    ParameterSpec(
        'lift',
        'off',
        'Place people in space, in metres, on ~/poses_3d and ~/people: depth from the images of a '
        'depth camera; size from the usual size of people, within about 10%; off. Both need a '
        'camera_info.',
        'space',
        choices=('off', 'size', 'depth'),
        dynamic=True,
    ),
    ParameterSpec(
        'depth_topic',
        'depth/image_rect_raw',
        'Depth images with lift depth, registered to the camera\'s images; {camera} as in '
        'image_topic. With depth_transport compressedDepth, /compressedDepth is added.',
        'space',
    ),
    ParameterSpec(
        'depth_camera_info_topic',
        '',
        'Calibration of the depth images, where they are of another size; {camera} as in '
        'image_topic. Empty means camera_info in their namespace.',
        'space',
    ),
    ParameterSpec(
        'depth_transport',
        'raw',
        'raw subscribes to depth_topic (16UC1 in millimetres or 32FC1 in metres); compressedDepth '
        'to depth_topic/compressedDepth (PNG or RVL).',
        'space',
        choices=('raw', 'compressedDepth'),
    ),
    ParameterSpec(
        'depth_slop',
        0.05,
        'The nearest depth image is taken if it is at most this much older or newer than the '
        'image. Seconds.',
        'space',
        range=(0.0, 10.0),
    ),
    ParameterSpec(
        'depth_wait',
        0.1,
        'How long ~/poses_3d waits for a depth image that comes later than the poses. ~/poses '
        'never waits. Seconds.',
        'space',
        range=(0.0, 10.0),
    ),
    ParameterSpec(
        'lens',
        'auto',
        'Whether images have the lens\'s distortion: raw, or rectified; auto tells it from the '
        'topic\'s name, image_rect or another.',
        'space',
        choices=('auto', 'raw', 'rectified'),
    ),
    ParameterSpec(
        'depth_lens',
        'auto',
        'The same of the depth images: those of depth_image_proc are rectified.',
        'space',
        choices=('auto', 'raw', 'rectified'),
    ),
    ParameterSpec(
        'people_point',
        'torso',
        'Where people are on ~/people and in tf: torso, or feet, where an ankle is known.',
        'space',
        choices=('torso', 'feet'),
    ),
    ParameterSpec(
        'publish_tf',
        False,
        'Publish a frame person_ID for everybody with a track_id, by tf2_ros. Then the node always '
        'runs: nobody knows who listens to tf.',
        'space',
    ),
    ParameterSpec(
        'bridges',
        [''],
        'Other packages\' messages to publish too, while somebody subscribes: detections '
        '(vision_msgs) on ~/detections, humans (hri_msgs) under /humans/bodies, annotations '
        '(foxglove_msgs) on ~/annotations, image_markers (visualization_msgs) on ~/image_markers.',
        'bridges',
    ),
    ParameterSpec(
        'min_published_pose_score',
        0.0,
        'People below this score are left out of ~/poses. 0 leaves out nobody.',
        'output',
        range=(0.0, 1.0),
    ),
    ParameterSpec(
        'min_published_keypoint_score',
        0.0,
        'People without any keypoint of at least this score are left out of ~/poses. 0 leaves out '
        'nobody. Everybody in ~/poses has all 17 keypoints.',
        'output',
        range=(0.0, 1.0),
    ),
    ParameterSpec(
        'min_keypoint_score',
        MIN_KEYPOINT_SCORE,
        'Keypoints below this score are left out of ~/markers and ~/image_annotated. ~/poses '
        'always has all of them.',
        'output',
        range=(0.0, 1.0),
    ),
    ParameterSpec(
        'min_pose_score',
        MIN_POSE_SCORE,
        'People below this score are left out of ~/markers and ~/image_annotated, and never of '
        '~/poses.',
        'output',
        range=(0.0, 1.0),
    ),
    ParameterSpec(
        'show_deviations',
        False,
        'Add a circle of one standard deviation around each keypoint to ~/markers and '
        '~/image_annotated.',
        'output',
    ),
    ParameterSpec(
        'show_closeups',
        False,
        'Draw what the close-ups of attention people showed as boxes in ~/image_annotated.',
        'output',
    ),
    ParameterSpec(
        'marker_distance',
        2.0,
        'Distance from the camera, in metres along the optical axis, at which ~/markers are '
        'drawn with lift off.',
        'output',
        range=(0.01, 1000.0),
    ),
    ParameterSpec(
        'marker_plane_width',
        2.0,
        'Width of the whole image in metres at marker_distance, for uncalibrated cameras.',
        'output',
        range=(0.01, 1000.0),
    ),
    ParameterSpec(
        'marker_lifetime',
        1.0,
        'Seconds after which rviz removes markers that no newer ones have replaced; 0 is never.',
        'output',
        range=(0.0, 3600.0),
    ),
    ParameterSpec(
        'latency_warn',
        0.2,
        'Diagnostics warn when the p95 of stamp-to-publish latency is above this. Seconds.',
        'diagnostics',
        range=(0.0, 3600.0),
    ),
    ParameterSpec(
        'latency_error',
        1.0,
        'Diagnostics report an error when the p95 of the latency is above this. Seconds.',
        'diagnostics',
        range=(0.0, 3600.0),
    ),
    ParameterSpec(
        'image_timeout',
        2.0,
        'Diagnostics warn when no image has come for this long while active. Seconds.',
        'diagnostics',
        range=(0.0, 3600.0),
    ),
    ParameterSpec(
        'drop_ratio_warn',
        0.5,
        'Diagnostics warn when more than this fraction of the last second\'s images was not '
        'processed, for any reason.',
        'diagnostics',
        range=(0.0, 1.0),
    ),
)  # fmt: skip

SPECS = {spec.name: spec for spec in PARAMETERS}


def checked_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of known parameters in their own types.

    Raises:
        ConfigError: one of them is not allowed.
    """
    return {name: SPECS[name].checked(value) for name, value in values.items()}


def model_parameters(text: str) -> dict[str, Any]:
    """Parameters of the model, from YAML as in a params file.

    Raises:
        ConfigError: it is no YAML, names another parameter, or a value is not allowed.
    """
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f'Invalid parameters {quoted(text)}. They are no YAML') from error
    names = [spec.name for spec in PARAMETERS if spec.group == 'model']
    if not isinstance(given, dict) or not given:
        raise ConfigError(
            f'Invalid parameters {quoted(text)}. Should be like "{{architecture: ResNet50, '
            'output_stride: 32}"'
        )
    for name in given:
        if name not in names:
            raise ConfigError(
                f'Invalid parameter {quoted(name)}. Should be one of {", ".join(names)}'
            )
    return checked_values(given)


def model_config(values: Mapping[str, Any]) -> ModelConfig:
    """The ModelConfig that the parameters describe.

    Raises:
        ConfigError: there is no such model.
    """
    options: dict[str, Any] = {field.name: values[field.name] for field in fields(ModelConfig)}
    if options['architecture'] == 'ResNet50' and options['multiplier'] == 0.75:
        # The parameter's default, which ResNet50 does not have.
        del options['multiplier']
    options['model_url'] = options['model_url'] or None
    options['model_sha256'] = options['model_sha256'] or None
    return ModelConfig(**options)


def runtime_config(values: Mapping[str, Any]) -> RuntimeConfig:
    """The RuntimeConfig that the parameters describe.

    Raises:
        ConfigError: a value is not allowed.
    """
    return RuntimeConfig(**{field.name: values[field.name] for field in fields(RuntimeConfig)})


def decoder_config(values: Mapping[str, Any]) -> DecoderConfig:
    """The DecoderConfig that the parameters describe.

    Raises:
        ConfigError: a value is not allowed.
    """
    return DecoderConfig(**{field.name: values[field.name] for field in fields(DecoderConfig)})


def tracker_config(values: Mapping[str, Any]) -> TrackerConfig:
    """The TrackerConfig that the parameters describe.

    Raises:
        ConfigError: a value is not allowed.
    """
    return TrackerConfig(
        **{field.name: values[option_name(TrackerConfig, field)] for field in fields(TrackerConfig)}
    )
