"""The node's parameters: their values now, and which changes are allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from posenet_ros.config import DecoderConfig, TrackerConfig
from posenet_ros.errors import ConfigError
from posenet_ros.ros.declare_parameters import declare_parameters
from posenet_ros.ros.parameters import (
    LIVE_GROUPS,
    PARAMETERS,
    SPECS,
    checked_values,
    decoder_config,
    model_config,
    tracker_config,
)


class NodeParameters:
    """Declares the parameters, and checks every change. Other threads may read it at any time.

    Args:
        model_loaded: whether the model's parameters are locked.
        changed: called after a change.
    """

    def __init__(self, model_loaded: Callable[[], bool], changed: Callable[[], None]) -> None:
        self.values: dict[str, Any] = {}  # replaced as a whole, never changed
        self.decoder = DecoderConfig()
        self.tracker = TrackerConfig()
        self._model_loaded = model_loaded
        self._changed = changed

    def declare(self, node: Node) -> None:
        """Declares the parameters, and checks them from now on.

        Raises:
            ConfigError: an override is not allowed.
        """
        self.values = declare_parameters(node, PARAMETERS)
        self.decoder = decoder_config(self.values)
        self.tracker = tracker_config(self.values)
        node.add_on_set_parameters_callback(self._on_set)

    def _on_set(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        """Accepts all parameters of a request, or rejects all of them with the reason."""
        changes = {p.name: p.value for p in parameters if p.name in SPECS}
        try:
            values = {**self.values, **checked_values(changes)}
            locked = [
                name
                for name in changes
                if SPECS[name].group not in LIVE_GROUPS and values[name] != self.values[name]
            ]
            if locked and self._model_loaded():
                raise ConfigError(
                    f'{", ".join(locked)} cannot change while the model is loaded; deactivate and '
                    'clean up first'
                )
            decoder, tracker = decoder_config(values), tracker_config(values)
            if not self._model_loaded() and _describe_a_model(self.values):
                # Not checked if the old values are invalid: two wrong values can then be
                # corrected one after the other.
                model_config(values)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.values, self.decoder, self.tracker = values, decoder, tracker
        self._changed()
        return SetParametersResult(successful=True)


def _describe_a_model(values: dict[str, Any]) -> bool:
    try:
        model_config(values)
    except ConfigError:
        return False
    return True


def with_doubles(parameters: list[Parameter[Any]]) -> list[Parameter[Any]]:
    """Parameters of a set request, with integers converted where the parameter is a double.

    `ros2 param set nms_radius 30` sends an integer. rclpy would refuse it, or change the type of
    the parameter, which C++ clients then refuse.
    """
    return [
        Parameter(p.name, value=float(p.value))
        if p.type_ == Parameter.Type.INTEGER and _is_double(p.name)
        else p
        for p in parameters
    ]


def _is_double(name: str) -> bool:
    return name in SPECS and isinstance(SPECS[name].default, float)
