"""What every bridge is given, and does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import Header

from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import SKELETON
from posenet_ros.io.draw import person_colour, person_number
from posenet_ros.io.placing import upright
from posenet_ros.ros.publishing import POSES_QOS, no_events

Message = TypeVar('Message')
BONE_PIXELS = 1 / 200  # the width of a line, of the image's longer side


@dataclass(frozen=True)
class Person:
    """Somebody whose pose is clear enough to be shown."""

    pose: Pose  # in pixels of the image as the camera took it
    clear: np.ndarray  # bool (17,): which keypoints are; one at least
    name: str  # #7 for the track_id 7
    colour: tuple[float, float, float]  # RGB, 0 to 1: that of the markers

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the clear keypoints, in pixels."""
        points = self.pose.keypoints[self.clear]
        left, top = points.min(axis=0).tolist()
        right, bottom = points.max(axis=0).tolist()
        return left, top, right, bottom

    def joints(self) -> list[tuple[float, float]]:
        """The clear keypoints, in pixels."""
        return [(x, y) for x, y in self.pose.keypoints[self.clear].tolist()]

    def bones(self) -> list[tuple[float, float]]:
        """The ends of the bones between clear keypoints, two for each, in pixels."""
        points = self.pose.keypoints.tolist()
        bones = (bone for bone in SKELETON if self.clear[list(bone)].all())
        return [(points[end][0], points[end][1]) for bone in bones for end in bone]


@dataclass(frozen=True)
class Frame:
    """The people in one image."""

    header: Header  # of the image
    width: int  # pixels
    height: int
    people: list[Person]
    lifetime: float  # seconds for which they are shown, if nothing newer comes; 0 is for ever
    memory: float  # seconds for which somebody who is not seen keeps the track_id


def frame_of(
    header: Header,
    width: int,
    height: int,
    poses: Sequence[Pose],
    flipped: bool,
    values: Mapping[str, Any],
) -> Frame:
    """The people in one image, as the parameters say who is shown.

    Args:
        header: of the image.
        width: of the image, in pixels.
        height: of the image, in pixels.
        poses: in pixels of the image.
        flipped: the poses are mirrored.
        values: of the node's parameters.
    """
    people = []
    for index, pose in enumerate(poses):
        clear = pose.keypoint_scores >= values['min_keypoint_score']
        if pose.score < values['min_pose_score'] or not clear.any():
            continue
        number, name = person_number(pose, index)
        red, green, blue = (channel / 255 for channel in person_colour(number))
        if flipped:
            pose = replace(pose, keypoints=upright(pose.keypoints, width))
        people.append(Person(pose, clear, name, (red, green, blue)))
    return Frame(header, width, height, people, values['marker_lifetime'], values['track_max_age'])


class Bridge(ABC):
    """Publishes people as messages of another package. Its methods may be called by any thread."""

    @abstractmethod
    def __init__(self, node: Node, cameras: Sequence[str]) -> None:
        """Creates the topics.

        Args:
            node: that owns them.
            cameras: names of the cameras, which prefix topics of their own; empty for none.
        """

    @abstractmethod
    def wanted(self, camera: str) -> bool:
        """Whether anybody subscribes to what is published of a camera."""

    @abstractmethod
    def publish(self, camera: str, frame: Frame) -> None:
        """Publishes what somebody subscribes to."""

    def clear(self, camera: str) -> None:  # noqa: B027, most have nothing to do
        """Says that nobody is looked for any more."""

    @abstractmethod
    def destroy(self) -> None:
        """Destroys the topics."""


class TopicBridge(Bridge, Generic[Message]):
    """A bridge of one topic a camera, ~/NAME/TOPIC."""

    topic: str
    message_type: type[Message]

    def __init__(self, node: Node, cameras: Sequence[str]) -> None:
        self._node = node
        self._publishers: dict[str, Publisher[Message]] = {}
        for camera in cameras:
            self._publishers[camera] = node.create_publisher(
                self.message_type,
                f'~/{camera}/{self.topic}' if camera else f'~/{self.topic}',
                POSES_QOS,
                event_callbacks=no_events(),
            )

    @abstractmethod
    def messages(self, frame: Frame) -> list[Message]:
        """The messages of a frame."""

    def wanted(self, camera: str) -> bool:
        return self._publishers[camera].get_subscription_count() > 0

    def publish(self, camera: str, frame: Frame) -> None:
        if self.wanted(camera):
            for message in self.messages(frame):
                self._publishers[camera].publish(message)

    def destroy(self) -> None:
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)
        self._publishers = {}
