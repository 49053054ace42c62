"""Options that subcommands share: one for each field of a config, described by the field."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from posenet_ros.config import DecoderConfig, ModelConfig, RuntimeConfig, default_of
from posenet_ros.estimator import PoseNet
from posenet_ros.io.atomic_file import atomic_path

Config = TypeVar('Config', ModelConfig, DecoderConfig, RuntimeConfig)


def add_options(
    parser: argparse.ArgumentParser, config: type[Config], without: Sequence[str] = ()
) -> None:
    """Adds an option for each field of a config but those named in `without`."""
    for field in fields(config):
        if field.name in without:
            continue
        default = default_of(field)
        flag = '--' + field.name.replace('_', '-')
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


def add_estimation_options(parser: argparse.ArgumentParser) -> None:
    """The model, the decoder and the runtime."""
    add_options(parser, ModelConfig)
    add_options(parser, DecoderConfig)
    add_options(parser, RuntimeConfig, without=('allow_spinning',))


def config_from(config: type[Config], options: argparse.Namespace) -> Config:
    """A config of the options that were given.

    Raises:
        ConfigError: a value is not allowed.
    """
    names = [field.name for field in fields(config)]
    return config(**{name: getattr(options, name) for name in names if name in options})


def load_model(options: argparse.Namespace) -> PoseNet:
    """The model that the options describe."""
    return PoseNet.load(config_from(ModelConfig, options), **asdict(runtime_from(options)))


def runtime_from(options: argparse.Namespace) -> RuntimeConfig:
    """The RuntimeConfig of commands that run image after image.

    Raises:
        ConfigError: a value is not allowed.
    """
    # Threads that spin while they wait soon have work again.
    return replace(config_from(RuntimeConfig, options), allow_spinning=True)


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Writes JSON, with null for NaN and infinity, which JSON does not have."""
    with atomic_path(path) as part:
        part.write_text(json.dumps(_finite(value), indent=indent) + '\n')


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
