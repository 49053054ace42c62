"""Arguments of the launch files: text, parsed as ROS parses parameters. Needs no ROS."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import yaml

from posenet_ros.errors import ConfigError
from posenet_ros.ros.parameters import PARAMETERS, ParameterSpec

TRUE, FALSE = ('true', 'yes', 'on', '1'), ('false', 'no', 'off', '0')


def flag(name: str, text: str) -> bool:
    """An argument that is on or off.

    Raises:
        ConfigError: it is neither.
    """
    word = text.strip().lower()
    if word not in TRUE + FALSE:
        raise ConfigError(f'Invalid {name} {text!r}. Should be one of {", ".join(TRUE + FALSE)}')
    return word in TRUE


def given_parameters(given: Callable[[str], str]) -> dict[str, Any]:
    """The node's parameters among the arguments; empty ones keep the node's default.

    Args:
        given: returns the text of an argument.

    Raises:
        ConfigError: a value is not allowed.
    """
    return {spec.name: _value(spec, given(spec.name)) for spec in PARAMETERS if given(spec.name)}


def _value(spec: ParameterSpec, text: str) -> Any:
    try:
        if isinstance(spec.default, bool):
            return flag(spec.name, text)
        value = text if isinstance(spec.default, str) else yaml.safe_load(text)
        if isinstance(spec.default, float):
            with contextlib.suppress(ValueError):
                value = float(text)  # 1e-1 is a string in YAML 1.1
        if isinstance(spec.default, list) and isinstance(value, str):
            value = [part.strip() for part in value.split(',')]
        return spec.checked(value)
    except (ConfigError, yaml.YAMLError) as error:
        raise ConfigError(
            f'{error}. If {spec.name} is an argument of another launch file, which includes this '
            'one, put the inclusion into a group of its own: see doc/launch.md'
        ) from error
