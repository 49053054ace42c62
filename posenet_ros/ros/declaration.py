"""Declares parameters on a node from their table, with descriptions and ranges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from posenet_ros.errors import ConfigError
from posenet_ros.ros.parameters import ParameterSpec


def declare_parameters(node: Node, specs: Iterable[ParameterSpec]) -> dict[str, Any]:
    """Declares every parameter of a table. Returns their values, overrides included.

    Raises:
        ConfigError: an override has a value that the parameter cannot have.
    """
    values = {}
    for spec in specs:
        try:
            declared = node.declare_parameter(spec.name, spec.default, _descriptor(spec)).value
        except Exception as error:  # rclpy's errors for a bad override share no class
            raise ConfigError(str(error)) from error
        values[spec.name] = spec.checked(declared)
    return values


def _descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=spec.help)
    # The table checks the types.
    descriptor.dynamic_typing = spec.dynamic or isinstance(spec.default, float)
    if spec.choices:
        descriptor.additional_constraints = spec.allowed
    if spec.range:
        low, high = spec.range
        if isinstance(spec.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    return descriptor
