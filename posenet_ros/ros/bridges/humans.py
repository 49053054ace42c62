"""People as the bodies of ROS4HRI, under /humans/bodies: hri_msgs.

Source: REP-155, "Bodies" and "Identifier Syntax"; hri_msgs/Skeleton2D.
"""

from __future__ import annotations

import random
import string
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hri_msgs.msg import (
    IdsList,
    NormalizedPointOfInterest2D,
    NormalizedRegionOfInterest2D,
    Skeleton2D,
)
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import Header

from posenet_ros.core.keypoints import SNAKE_CASE_NAMES
from posenet_ros.ros.bridges.bridge import Bridge, Frame, Person
from posenet_ros.ros.publishing import POSES_QOS, no_events

BODIES = '/humans/bodies'
PREFIX_LETTERS = 4
AGE_SECONDS = 0.5  # between two looks at who has gone


@dataclass
class Body:
    """The topics of somebody, and when that was seen last."""

    roi: Publisher[NormalizedRegionOfInterest2D]
    skeleton: Publisher[Skeleton2D]
    seen: float  # time.monotonic()
    memory: float  # seconds for which it stays without being seen


class Humans(Bridge):
    """Everybody with a track_id is a body, from the first image until the id is given up.

    An id is a few letters, which are drawn when the node starts, and the track_id: ids stay unique
    beside other nodes, and after a restart.
    """

    def __init__(self, node: Node, cameras: Sequence[str]) -> None:
        self._node = node
        self._prefix = ''.join(random.choices(string.ascii_lowercase, k=PREFIX_LETTERS))
        self._bodies: dict[str, dict[int, Body]] = {camera: {} for camera in cameras}
        self._lock = threading.Lock()  # frames come from the model's thread, clear() from another
        self._tracked: Publisher[IdsList] | None = node.create_publisher(
            IdsList, f'{BODIES}/tracked', POSES_QOS, event_callbacks=no_events()
        )
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(AGE_SECONDS, self._age, clock=steady)

    def wanted(self, camera: str) -> bool:
        with self._lock:
            tracked = self._tracked
            return tracked is not None and (
                tracked.get_subscription_count() > 0
                or any(_listeners(body) for body in self._bodies[camera].values())
            )

    def publish(self, camera: str, frame: Frame) -> None:
        with self._lock:
            if self._tracked is None:
                return
            now = time.monotonic()
            bodies = self._bodies[camera]
            people = [person for person in frame.people if person.pose.track_id >= 0]
            for person in people:
                body = bodies.get(person.pose.track_id)
                if body is None:
                    body = bodies[person.pose.track_id] = self._new_body(person.pose.track_id)
                body.seen, body.memory = now, frame.memory
            self._remove_old()
            self._publish_tracked(frame.header)
            for person in people:
                body = bodies[person.pose.track_id]
                if body.roi.get_subscription_count() > 0:
                    body.roi.publish(_region(frame, person))
                if body.skeleton.get_subscription_count() > 0:
                    body.skeleton.publish(_skeleton(frame, person))

    def _age(self) -> None:
        """Also where no image comes any more."""
        with self._lock:
            if self._tracked is not None and self._remove_old():
                self._publish_tracked(Header(stamp=self._node.get_clock().now().to_msg()))

    def _remove_old(self) -> bool:
        now, removed = time.monotonic(), False
        for bodies in self._bodies.values():
            for track_id, body in list(bodies.items()):
                if now - body.seen > body.memory:
                    self._remove(bodies.pop(track_id))
                    removed = True
        return removed

    def clear(self, camera: str) -> None:
        with self._lock:
            if self._tracked is None:
                return
            bodies, self._bodies[camera] = self._bodies[camera], {}
            for body in bodies.values():
                self._remove(body)
            if bodies:
                self._publish_tracked(Header(stamp=self._node.get_clock().now().to_msg()))

    def destroy(self) -> None:
        self._node.destroy_timer(self._timer)
        for camera in self._bodies:
            self.clear(camera)
        with self._lock:
            if self._tracked is not None:
                self._node.destroy_publisher(self._tracked)
                self._tracked = None

    def _publish_tracked(self, header: Header) -> None:
        assert self._tracked is not None
        if self._tracked.get_subscription_count() > 0:
            ids = [track_id for bodies in self._bodies.values() for track_id in bodies]
            self._tracked.publish(
                IdsList(header=header, ids=[f'{self._prefix}{track_id}' for track_id in ids])
            )

    def _new_body(self, track_id: int) -> Body:
        topic = f'{BODIES}/{self._prefix}{track_id}'
        roi = self._node.create_publisher(
            NormalizedRegionOfInterest2D, f'{topic}/roi', POSES_QOS, event_callbacks=no_events()
        )
        try:
            skeleton = self._node.create_publisher(
                Skeleton2D, f'{topic}/skeleton2d', POSES_QOS, event_callbacks=no_events()
            )
        except BaseException:
            self._node.destroy_publisher(roi)
            raise
        return Body(roi, skeleton, 0.0, 0.0)

    def _remove(self, body: Body) -> None:
        self._node.destroy_publisher(body.roi)
        self._node.destroy_publisher(body.skeleton)


def _listeners(body: Body) -> int:
    return body.roi.get_subscription_count() + body.skeleton.get_subscription_count()


def _region(frame: Frame, person: Person) -> NormalizedRegionOfInterest2D:
    left, top, right, bottom = person.box
    return NormalizedRegionOfInterest2D(
        header=frame.header,
        xmin=_normalised(left, frame.width),
        ymin=_normalised(top, frame.height),
        xmax=_normalised(right, frame.width),
        ymax=_normalised(bottom, frame.height),
        c=_confidence(person.pose.score),
    )


def _skeleton(frame: Frame, person: Person) -> Skeleton2D:
    message = Skeleton2D(header=frame.header)
    points = person.pose.keypoints.tolist()
    scores = person.pose.keypoint_scores.tolist()
    for name, (x, y), score in zip(SNAKE_CASE_NAMES, points, scores, strict=True):
        message.skeleton[getattr(Skeleton2D, name.upper())] = _point(frame, x, y, score)
    left, right = (SNAKE_CASE_NAMES.index(f'{side}_shoulder') for side in ('left', 'right'))
    (left_x, left_y), (right_x, right_y) = points[left], points[right]
    message.skeleton[Skeleton2D.NECK] = _point(
        frame, (left_x + right_x) / 2, (left_y + right_y) / 2, min(scores[left], scores[right])
    )
    return message


def _point(frame: Frame, x: float, y: float, score: float) -> NormalizedPointOfInterest2D:
    return NormalizedPointOfInterest2D(
        x=_normalised(x, frame.width), y=_normalised(y, frame.height), c=_confidence(score)
    )


def _normalised(pixels: float, size: int) -> float:
    """0 at the first pixel's centre, 1 at the last one's; clipped, as the message wants it."""
    return min(max(pixels / max(size - 1, 1), 0.0), 1.0)


def _confidence(score: float) -> float:
    return min(max(score, 0.0), 1.0)


BRIDGE = Humans
