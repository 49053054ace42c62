"""Options that subcommands share: one for each field of a config, described by the field."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from posenet_ros.config import (
    NODE_DEFAULTS,
    DecoderConfig,
    ModelConfig,
    RuntimeConfig,
    TrackerConfig,
    default_of,
    option_name,
)
from posenet_ros.environment import expanded
from posenet_ros.errors import ConfigError
from posenet_ros.estimator import PoseNet
from posenet_ros.io.sampling import look_at
from posenet_ros.io.source import find_source
from posenet_ros.stream import PoseStream

Config = TypeVar('Config', ModelConfig, DecoderConfig, TrackerConfig, RuntimeConfig)


def add_options(
    parser: argparse.ArgumentParser, config: type[Config], without: Sequence[str] = ()
) -> None:
    """Adds an option for each field of a config but those named in `without`."""
    for field in fields(config):
        if field.name in without:
            continue
        default = default_of(field)
        flag = '--' + option_name(config, field).replace('_', '-')
        shown = '' if default is None else f' ({default})'
        help_text = field.metadata['help'].rstrip('.').replace('%', '%%') + shown
        # Without a value the option is left out, and the config takes its own default.
        options: dict[str, Any] = {'default': argparse.SUPPRESS, 'help': help_text}
        if isinstance(default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **options)
            continue
        options['metavar'] = field.name.rsplit('_', 1)[-1].upper()
        if field.name == 'input_resolution':
            options['type'] = _size
        elif not isinstance(default, (str, type(None))):
            options['type'] = _number
        parser.add_argument(flag, **options)


def add_node_option(parser: argparse.ArgumentParser) -> None:
    """--node, which config_from reads."""
    parser.add_argument(
        '--node',
        nargs='?',
        const=Path(),
        default=argparse.SUPPRESS,
        type=Path,
        metavar='PARAMS_FILE',
        help="take the node's defaults instead of the reference's, and what a params file such as "
        'config/balanced.yaml says; other options override both',
    )


def add_estimation_options(parser: argparse.ArgumentParser) -> None:
    """The model, the decoder and the runtime."""
    add_node_option(parser)
    add_options(parser, ModelConfig)
    add_options(parser, DecoderConfig)
    add_options(parser, RuntimeConfig, without=('allow_spinning',))


def add_video_options(parser: argparse.ArgumentParser) -> None:
    """How people are tracked from frame to frame."""
    parser.add_argument(
        '--tracking',
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help='give people ids that stay from frame to frame (on, for what has frames)',
    )
    parser.add_argument(
        '--smoothing',
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help='hold the joints of people with an id still; needs --tracking (off)',
    )
    add_options(parser, TrackerConfig)


def stream_from(options: argparse.Namespace, config: ModelConfig) -> PoseStream:
    """What is remembered of a video, as the options say.

    Args:
        options: of the command.
        config: of the model.

    Raises:
        ConfigError: a value is not allowed.
    """
    tracker, smoothing = tracking_from(options, config)
    return PoseStream(config, tracker, smoothing)


def tracking_from(
    options: argparse.Namespace, config: ModelConfig
) -> tuple[TrackerConfig | None, bool]:
    """How people are tracked, None where they are not; and whether they are smoothed.

    Raises:
        ConfigError: a value is not allowed.
    """
    values = {**(_node_parameters(options.node) if 'node' in options else {}), **vars(options)}
    tracker = config_from(TrackerConfig, options)
    tracking = values.get('tracking', True) or config.attention == 'people'
    return (tracker if tracking else None), values.get('smoothing', False)


def config_from(config: type[Config], options: argparse.Namespace) -> Config:
    """A config of the options that were given.

    Raises:
        ConfigError: a value is not allowed, or the params file cannot be read.
    """
    values = vars(options)
    if 'node' in options:
        values = {**NODE_DEFAULTS, **_node_parameters(options.node), **values}
    names = {field.name: option_name(config, field) for field in fields(config)}
    given = {name: values[option] for name, option in names.items() if option in values}
    return config(**given)


def _node_parameters(path: Path) -> dict[str, Any]:
    """The parameters in a params file, of all nodes together; none without a file."""
    if path == Path():
        return {}
    import yaml

    try:
        nodes = yaml.safe_load(path.read_text())
        parameters: dict[str, Any] = {}
        for node in nodes.values():
            parameters.update(node['ros__parameters'])
    except OSError as error:
        raise ConfigError(f'cannot read {path}: {error.strerror}') from error
    except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f'{path} is not a params file, NODE: ros__parameters: ...') from error
    if parameters.get('attention') is False:
        parameters['attention'] = 'off'  # as YAML reads it
    return parameters


def load_model(options: argparse.Namespace) -> PoseNet:
    """The model that the options describe."""
    return PoseNet.load(config_from(ModelConfig, options), **asdict(runtime_from(options)))


def runtime_from(options: argparse.Namespace) -> RuntimeConfig:
    """The RuntimeConfig of commands that run image after image.

    Raises:
        ConfigError: a value is not allowed.
        ImageError: there are no photos at --calibration.
    """
    runtime = config_from(RuntimeConfig, options)
    if runtime.calibration is not None:
        look_at(find_source(expanded(runtime.calibration)))
    # Threads that spin while they wait soon have work again.
    return replace(runtime, allow_spinning=True)


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text} is not a number') from None


def _size(text: str) -> float | tuple[float, ...]:
    """257, 640x480 or 640,480."""
    numbers = tuple(_number(part) for part in text.replace('x', ',').split(','))
    if len(numbers) > 2 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f'{text} should be a number of 1 or more, or WIDTHxHEIGHT')
    return numbers[0] if len(numbers) == 1 else numbers
