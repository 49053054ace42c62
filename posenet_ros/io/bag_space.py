"""The people of a bag's images in space: each image with its lens, and its depth image if any."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from posenet_ros.core.decode import Pose
from posenet_ros.errors import ImageError, PoseNetError
from posenet_ros.io.bag_file import Bag, Record, Topic
from posenet_ros.io.image_message import stamp_nanoseconds
from posenet_ros.io.placing import Placer, is_rectified
from posenet_ros.space.lift import Pose3D
from posenet_ros.space.pairing import NANOSECONDS, Pairing

IMAGE_TYPES = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
INFO_TYPE = 'sensor_msgs/msg/CameraInfo'
SLOP_SECONDS = 0.05  # between an image and its depth image
WAIT_SECONDS = 2.0  # of the bag's time, for a depth image that comes later


@dataclass(frozen=True)
class Placed:
    """People of an image."""

    topic: str
    time: int  # of the image in the bag, nanoseconds
    header: Any
    depth_stamp: int  # nanoseconds; 0 without a depth image
    people: list[Pose3D]
    shape: tuple[int, int]  # of the image: height, width
    poses: Sequence[Pose]  # of the same people, in pixels


@dataclass(frozen=True)
class _Found:
    time: int
    header: Any
    width: int
    height: int
    poses: Sequence[Pose]


class BagSpace:
    """Places people as the messages of a bag go by, in the order of the images of each topic.

    Args:
        bag: that is open.
        images: its topics of images.
        depth: name of the topic of depth images, registered to the images; None: people are placed
            by their usual size.
        flipped: x of the poses is mirrored.
        message_of: the message of a record; raises an ImageError if it is damaged.
        problem: called with what cannot be used, once for each kind.

    Attributes:
        topics: to read beside the images.

    Raises:
        PoseNetError: the bag lacks the depth images, or every camera_info.
    """

    def __init__(
        self,
        bag: Bag,
        images: Sequence[Topic],
        depth: str | None,
        flipped: bool,
        message_of: Callable[[Record], Any],
        problem: Callable[[str], None],
    ) -> None:
        self._flipped = flipped
        self._problem = problem
        self._told: set[str] = set()
        self._depth = depth
        self._now = 0.0
        self._placed: deque[Placed] = deque()
        self._pairing: Pairing[_Found] = Pairing(
            SLOP_SECONDS, WAIT_SECONDS if depth else 0.0, lambda: self._now
        )
        self._placers = {
            topic.name: Placer(
                is_rectified(topic.name),
                is_rectified(depth or ''),
                partial(self._tell, topic.name),
            )
            for topic in images
        }
        self._info_of = {name: info_topic(name) for name in self._placers}
        wanted = set(self._info_of.values())
        if depth is not None:
            wanted |= {depth, info_topic(depth)}
        self.topics = [
            topic
            for topic in bag.topics
            if topic.name in wanted
            and topic.type in (*IMAGE_TYPES, INFO_TYPE)
            and topic not in images
        ]
        known = {topic.name: topic for topic in self.topics}
        if depth is not None and (depth not in known or known[depth].type == INFO_TYPE):
            raise PoseNetError(f'the bag has no depth images on {depth}')
        if not any(name in known for name in self._info_of.values()):
            raise PoseNetError(
                'people can only be placed with a camera_info; the bag has none on '
                + ', '.join(sorted(set(self._info_of.values())))
            )

        # An image may lie before the first camera_info.
        for topic in self.topics:
            if topic.type == INFO_TYPE:
                for record in itertools.islice(bag.records([topic]), 1):
                    with contextlib.suppress(ImageError):
                        self.see(topic, 0, message_of(record))

    def see(self, topic: Topic, time: int, message: Any) -> None:
        """Takes a message of one of `topics`."""
        self._now = time / NANOSECONDS
        if topic.type != INFO_TYPE:
            for name in self._placers:
                self._pairing.put_depth(name, _stamp(message.header, time), message)
            self._place_ready()
            return
        for name, placer in self._placers.items():
            if self._info_of[name] == topic.name:
                placer.info = message
            if self._depth is not None and info_topic(self._depth) == topic.name:
                placer.depth_info = message

    def add(
        self, topic: str, time: int, header: Any, width: int, height: int, poses: Sequence[Pose]
    ) -> None:
        """Adds the poses of an image."""
        self._now = time / NANOSECONDS
        found = _Found(time, header, width, height, poses)
        self._pairing.put(topic, _stamp(header, time), found)

    def ready(self, everything: bool = False) -> Iterator[Placed]:
        """The images whose people are placed by now; at the end of the bag, everything."""
        self._place_ready(everything)
        while self._placed:
            yield self._placed.popleft()

    def _place_ready(self, everything: bool = False) -> None:
        """Places people as soon as their depth image is there: it is not kept for long."""
        for name, (found, depth) in self._pairing.ready(everything):
            image = found.header.frame_id, found.width, found.height
            placer = self._placers[name]
            if placer.model(found.width, found.height) is None:
                self._tell(name, f'no calibration on {self._info_of[name]}: nobody is placed')
                depth = None
            message, stamp = (depth.message, depth.stamp) if depth is not None else (None, 0)
            people, why = placer.place_or_guess(*image, found.poses, message, self._flipped)
            if why:
                self._tell(name, f'a depth image cannot be used: {why}')
                stamp = 0
            shape = found.height, found.width
            self._placed.append(
                Placed(name, found.time, found.header, stamp, people, shape, found.poses)
            )

    def _tell(self, topic: str, text: str) -> None:
        kind = re.sub(r'\d+', 'N', f'{topic}: {text}')
        if kind not in self._told:
            self._told.add(kind)
            self._problem(f'{topic}: {text}')


def info_topic(images: str) -> str:
    """The topic of the camera_info of images, as in image_transport."""
    for suffix in ('/compressed', '/compressedDepth'):
        images = images.removesuffix(suffix)
    return f'{images.rpartition("/")[0]}/camera_info'


def _stamp(header: Any, time: int) -> int:
    """Nanoseconds of a header; the bag's time where it has none."""
    return stamp_nanoseconds(header) or time
