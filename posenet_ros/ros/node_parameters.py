"""The node's parameters: their values now, and which changes are allowed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from posenet_ros.config import DecoderConfig, TrackerConfig
from posenet_ros.errors import ConfigError
from posenet_ros.ros.declare_parameters import declare_parameters
from posenet_ros.ros.parameters import (
    CAMERA_GROUPS,
    LIVE_GROUPS,
    PARAMETERS,
    SPECS,
    checked_values,
    decoder_config,
    model_config,
    tracker_config,
)
from posenet_ros.ros.selection import Region
from posenet_ros.ros.unused_arguments import in_one_sentence

NOT_SET = 'null'  # as `ros2 param dump` writes what is not set, and rcl reads it


@dataclass(frozen=True)
class CameraParameters:
    """What a camera can have its own values of."""

    decoder: DecoderConfig
    region: Region | None
    max_rate: float

    @staticmethod
    def of(values: Mapping[str, Any]) -> CameraParameters:
        """What parameters say.

        Raises:
            ConfigError: a value is not allowed.
        """
        return CameraParameters(
            decoder_config(values), Region.of(values['region']), values['max_rate']
        )


class NodeParameters:
    """Declares the parameters, and checks every change. Other threads may read it at any time.

    Args:
        model_loaded: whether the model's parameters are locked.
        changed: called after a change.
    """

    def __init__(self, model_loaded: Callable[[], bool], changed: Callable[[], None]) -> None:
        # All of these are replaced as a whole, never changed.
        self.values: dict[str, Any] = {}
        self.tracker = TrackerConfig()
        self._of_all: CameraParameters | None = None
        self._own_values: dict[str, dict[str, Any]] = {}  # by camera
        self._of_camera: dict[str, CameraParameters] = {}
        self._model_loaded = model_loaded
        self._changed = changed
        self._unlocked_for = 0  # the thread that may change a loaded model's parameters
        self._lock = threading.RLock()  # services and set_model change them in two threads

    def declare(self, node: Node) -> None:
        """Declares the parameters, and checks them from now on.

        Raises:
            ConfigError: an override is not allowed.
        """
        values = declare_parameters(node, PARAMETERS)
        self.tracker, self._of_all = tracker_config(values), CameraParameters.of(values)
        self.values = values
        self.declare_of_cameras(node)
        node.add_on_set_parameters_callback(self._on_set)

    def declare_of_cameras(self, node: Node) -> None:
        """Declares what each named camera can have its own values of: not set, if not given.

        Raises:
            ConfigError: an override is not allowed.
        """
        own_values: dict[str, dict[str, Any]] = {}
        for camera in self.values['cameras']:
            if not camera or camera in self._own_values:
                own_values[camera] = self._own_values.get(camera, {})
                continue
            own = own_values[camera] = {}
            for spec in PARAMETERS:
                if spec.group not in CAMERA_GROUPS:
                    continue
                value = _declared(node, f'{camera}.{spec.name}', spec.help)
                if value not in (None, NOT_SET):
                    own[spec.name] = _checked(camera, spec.name, value)
        self._of_camera = self._for_each_camera(self.values, own_values)
        self._own_values = own_values

    def of_camera(self, name: str) -> CameraParameters:
        """What holds for a camera."""
        return self._of_camera.get(name) or self.of_all

    @property
    def of_all(self) -> CameraParameters:
        """What holds where a camera has no value of its own."""
        assert self._of_all is not None
        return self._of_all

    @contextmanager
    def unlocked(self) -> Iterator[None]:
        """This thread may set the model's parameters, although one is loaded."""
        self._unlocked_for = threading.get_ident()
        try:
            yield
        finally:
            self._unlocked_for = 0

    def _on_set(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        """Accepts all parameters of a request, or rejects all of them with the reason."""
        with self._lock:
            return self._change(parameters)

    def _change(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        changes = {p.name: p.value for p in parameters if p.name in SPECS}
        try:
            values = {**self.values, **checked_values(changes)}
            own_values = {camera: dict(own) for camera, own in self._own_values.items()}
            for parameter in parameters:
                camera, _, name = parameter.name.rpartition('.')
                if camera not in own_values or name not in SPECS:
                    continue
                if parameter.value is None:
                    raise ConfigError(f'{parameter.name} cannot be deleted; set another value')
                own_values[camera][name] = _checked(camera, name, parameter.value)
            locked = [
                name
                for name in changes
                if SPECS[name].group not in LIVE_GROUPS and values[name] != self.values[name]
            ]
            unlocked = self._unlocked_for == threading.get_ident()
            loaded = self._model_loaded() and not unlocked
            if locked and loaded:
                raise ConfigError(
                    f'{", ".join(locked)} cannot change while the model is loaded; deactivate and '
                    'clean up first'
                )
            tracker, of_all = tracker_config(values), CameraParameters.of(values)
            of_camera = self._for_each_camera(values, own_values)
            if not loaded and _describe_a_model(self.values):
                # Not checked if the old values are invalid: two wrong values can then be
                # corrected one after the other.
                model_config(values)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.values, self.tracker, self._of_all = values, tracker, of_all
        self._own_values, self._of_camera = own_values, of_camera
        self._changed()
        return SetParametersResult(successful=True)

    @staticmethod
    def _for_each_camera(
        values: Mapping[str, Any], own_values: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, CameraParameters]:
        return {
            camera: CameraParameters.of({**values, **own})
            for camera, own in own_values.items()
            if own
        }


def _declared(node: Node, name: str, description: str) -> Any:
    """The value of a parameter that may have none, and is declared if it is not yet."""
    if node.has_parameter(name):
        return node.get_parameter(name).value
    descriptor = ParameterDescriptor(description=description, dynamic_typing=True)
    try:
        return node.declare_parameter(name, None, descriptor).value
    except Exception as error:  # rclpy's have no common base class
        raise ConfigError(in_one_sentence(error)) from error


def _checked(camera: str, name: str, value: Any) -> Any:
    try:
        return SPECS[name].checked(value)
    except ConfigError as error:
        raise ConfigError(f'{camera}: {error}') from error


def _describe_a_model(values: dict[str, Any]) -> bool:
    try:
        model_config(values)
    except ConfigError:
        return False
    return True


def with_doubles(parameters: Iterable[Parameter[Any]]) -> list[Parameter[Any]]:
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
    name = name.rpartition('.')[2]
    return name in SPECS and isinstance(SPECS[name].default, float)
