"""Declares parameters on a node from their table, with descriptions and ranges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from posenet_ros.errors import ConfigError
from posenet_ros.ros.parameters import ParameterSpec
from posenet_ros.ros.unused_arguments import in_one_sentence


def declare_parameters(node: Node, specs: Iterable[ParameterSpec]) -> dict[str, Any]:
    """Declares every parameter of a table. Returns their values, with overrides.

    Raises:
        ConfigError: the value of an override is not allowed.
    """
    values = {}
    for spec in specs:
        try:
            declared = node.declare_parameter(spec.name, spec.default, _descriptor(spec)).value
        except Exception as error:  # rclpy's errors for a bad override have no common base class
            raise ConfigError(in_one_sentence(error)) from error
        value = values[spec.name] = spec.checked(declared)
        if isinstance(value, (float, str)) and type(value) is not type(declared):
            # 25 was given for 25.0, or off, which YAML reads as false.
            node.set_parameters([Parameter(spec.name, value=value)])
    return values


def _descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=spec.help)
    # ParameterSpec.checked checks the types.
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
