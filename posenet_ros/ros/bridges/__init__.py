"""Poses as messages of other packages, for software that reads those already: one module each."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from rclpy.node import Node

from posenet_ros.errors import ConfigError
from posenet_ros.ros.bridges.bridge import Bridge

# The values of the parameter `bridges`, which are modules here, and the packages that they need.
PACKAGES = {
    'annotations': 'foxglove_msgs',
    'detections': 'vision_msgs',
    'humans': 'hri_msgs',
    'image_markers': 'visualization_msgs',
}


def open_bridges(names: Sequence[str], node: Node, cameras: Sequence[str]) -> list[Bridge]:
    """Creates the topics of each bridge.

    Args:
        names: keys of PACKAGES.
        node: that owns the topics.
        cameras: prefixes of the topics; an empty one for none.

    Raises:
        ConfigError: see bridge_classes.
    """
    bridges: list[Bridge] = []
    try:
        for bridge_class in bridge_classes(names):
            bridges.append(bridge_class(node, cameras))
    except BaseException:
        for bridge in bridges:
            bridge.destroy()
        raise
    return bridges


def bridge_classes(names: Sequence[str]) -> list[type[Bridge]]:
    """The classes behind names.

    Raises:
        ConfigError: a package is not installed.
    """
    return [_bridge_class(name) for name in names]


def _bridge_class(name: str) -> type[Bridge]:
    try:
        module = importlib.import_module(f'{__name__}.{name}')
    except ImportError as error:
        package = PACKAGES[name]
        raise ConfigError(
            f'Invalid bridges {name}. It needs the package {package}, which is not installed: '
            f'apt install ros-$ROS_DISTRO-{package.replace("_", "-")}'
        ) from error
    bridge_class: type[Bridge] = module.BRIDGE
    return bridge_class
