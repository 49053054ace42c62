"""The topics of each camera, and an explanation from the ROS graph if no image comes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.utilities import get_rmw_implementation_identifier

from posenet_ros.errors import ConfigError
from posenet_ros.ros.security import keys_advice

IMAGE_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
COMPRESSED = '/compressed'
COMPRESSED_DEPTH = 'compressedDepth'
LOST_ADVICE = (
    '; Fast DDS loses large images between processes unless whoever sends them has the profile '
    'config/fastdds.xml (doc/install.md)'
)
CAMERA_NAME = re.compile('[A-Za-z][A-Za-z0-9_]*')
MOST_NAMED = 4  # topics or nodes in one sentence


@dataclass(frozen=True)
class CameraTopics:
    """The topics to subscribe to, before rclpy remaps them."""

    image: str
    image_type: str
    camera_info: str


@dataclass(frozen=True)
class DepthTopics:
    """The topics of depth images to subscribe to, before rclpy remaps them."""

    depth: str
    compressed: bool
    camera_info: str


def camera_topics(
    node: Node, camera: str, image_topic: str, camera_info_topic: str, transport: str, alone: bool
) -> CameraTopics:
    """The topics of one camera.

    Args:
        node: whose namespace and remappings apply.
        camera: its name; empty for none.
        image_topic: {camera} stands for the name; without it the name is put in front.
        camera_info_topic: likewise. Empty: beside the images, as in image_transport.
        transport: raw or compressed.
        alone: whether it is the only camera.

    Raises:
        ConfigError: a topic is not valid.
    """
    with _as_config_error(image_topic, camera_info_topic):
        image = _of_camera('image_topic', image_topic, camera, alone)
        resolved = node.resolve_topic_name(image)
        if camera_info_topic:
            camera_info = _of_camera('camera_info_topic', camera_info_topic, camera, alone)
            node.resolve_topic_name(camera_info)
        else:
            camera_info = f'{camera}/camera_info' if camera else 'camera_info'
            here = node.resolve_topic_name(camera_info, only_expand=True)
            if node.resolve_topic_name(camera_info) == here:  # not remapped
                camera_info = _info_beside(resolved)
    if transport == 'compressed':
        # As in image_transport, the base topic is remapped, then extended.
        return CameraTopics(resolved + COMPRESSED, COMPRESSED_TYPE, camera_info)
    return CameraTopics(image, IMAGE_TYPE, camera_info)


def depth_topics(
    node: Node, camera: str, depth_topic: str, camera_info_topic: str, transport: str, alone: bool
) -> DepthTopics:
    """The depth topics of one camera.

    Args:
        node: whose namespace and remappings apply.
        camera: its name; empty for none.
        depth_topic: {camera} stands for the name; without it the name is put in front.
        camera_info_topic: likewise. Empty: beside the depth images.
        transport: raw or compressedDepth.
        alone: whether it is the only camera.

    Raises:
        ConfigError: a topic is not valid.
    """
    with _as_config_error(depth_topic, camera_info_topic):
        depth = _of_camera('depth_topic', depth_topic, camera, alone)
        resolved = node.resolve_topic_name(depth)
        if camera_info_topic:
            info = _of_camera('depth_camera_info_topic', camera_info_topic, camera, alone)
            node.resolve_topic_name(info)
        else:
            info = _info_beside(resolved)
    if transport == COMPRESSED_DEPTH:
        return DepthTopics(f'{resolved}/{COMPRESSED_DEPTH}', True, info)
    return DepthTopics(depth, False, info)


@contextlib.contextmanager
def _as_config_error(*topics: str) -> Iterator[None]:
    """Names the topics if one is not valid: rclpy's errors have no common base class."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        given = ', '.join(topic for topic in topics if topic)
        raise ConfigError(f'Invalid topic, one of {given}: {error}') from error


def _info_beside(images: str) -> str:
    return f'{images.rpartition("/")[0]}/camera_info'


def _of_camera(parameter: str, topic: str, camera: str, alone: bool) -> str:
    if '{camera}' in topic:
        if not camera:
            raise ConfigError(
                f'Invalid {parameter} {topic}. It contains {{camera}}, but cameras names no camera'
            )
        return topic.replace('{camera}', camera)
    if not camera:
        return topic
    if topic.startswith(('/', '~')):
        if not alone:
            raise ConfigError(
                f'Invalid {parameter} {topic}. Should have {{camera}} in it, since there are '
                f'several cameras: /{{camera}}/{topic.rpartition("/")[2]}'
            )
        return topic
    return f'{camera}/{topic}'


def why_no_image(node: Node, topic: str, kind: str) -> str:
    """Explains in one sentence why no image comes, from the ROS graph.

    Args:
        node: that subscribes.
        topic: that it subscribes to, resolved.
        kind: IMAGE_TYPE or COMPRESSED_TYPE.
    """
    publishers = node.get_publishers_info_by_topic(topic)
    same_type = [info for info in publishers if info.topic_type == kind]
    if same_type:
        names = sorted({_node_name(info) for info in same_type})
        return (
            f'{_some(names)} publishes {topic}, but no image comes{keys_advice() or loss_advice()}'
        )
    if publishers:
        types = sorted({info.topic_type for info in publishers})
        return f'{topic} is published as {", ".join(types)}, not as {kind}' + _transport_advice(
            node, topic, kind
        )
    sentence = f'nobody publishes {topic}'
    if topic.endswith(COMPRESSED * 2):
        return f'{sentence}; image_transport:=compressed adds {COMPRESSED} to image_topic by itself'
    advice = _transport_advice(node, topic, kind)
    if advice:
        return sentence + advice
    images = {
        name: types
        for name, types in node.get_topic_names_and_types()
        if {IMAGE_TYPE, COMPRESSED_TYPE} & set(types)
        and name != topic
        and not name.startswith(f'{node.get_fully_qualified_name()}/')
        and node.count_publishers(name) > 0
    }
    if images:
        found = [
            f'{name} ({"compressed" if COMPRESSED_TYPE in types else "raw"})'
            for name, types in sorted(images.items())
        ]
        return f'{sentence}; there are images on {_some(found)}'
    return f'{sentence}, nor any other images'


def loss_advice() -> str:
    """Why images may not arrive, where the middleware is Fast DDS."""
    return LOST_ADVICE if 'fastrtps' in get_rmw_implementation_identifier() else ''


def _transport_advice(node: Node, topic: str, kind: str) -> str:
    """How to choose the other transport, if that would give images."""

    def is_published(name: str, kind: str) -> bool:
        return any(info.topic_type == kind for info in node.get_publishers_info_by_topic(name))

    base = topic[: -len(COMPRESSED)] if topic.endswith(COMPRESSED) else ''
    if kind == IMAGE_TYPE:
        if base and is_published(topic, COMPRESSED_TYPE):
            return f'; image_topic:={base} image_transport:=compressed reads it'
        if is_published(topic + COMPRESSED, COMPRESSED_TYPE):
            return f'; {topic}{COMPRESSED} is there: image_transport:=compressed reads it'
    elif base and is_published(base, IMAGE_TYPE):
        return f'; {base} is there: image_transport:=raw reads it'
    return ''


def _node_name(info: object) -> str:
    namespace, name = info.node_namespace, info.node_name  # type: ignore[attr-defined]
    if 'UNKNOWN' in name:  # its node is not announced, or SROS2 keeps it to itself
        return 'somebody'
    return f'{namespace.rstrip("/")}/{name}'


def _some(names: list[str]) -> str:
    more = f' and {len(names) - MOST_NAMED} more' if len(names) > MOST_NAMED else ''
    return ', '.join(names[:MOST_NAMED]) + more
