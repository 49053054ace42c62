"""People as rviz markers: joints and bones of each, in the camera's optical frame.

Where nobody knows how far away people are, each joint lies on the camera's ray through its pixel,
so that rviz's Camera display draws it over the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import SKELETON
from posenet_ros.io.draw import person_colour, person_number
from posenet_ros.io.placing import upright
from posenet_ros.ros.messages import duration
from posenet_ros.space.camera_model import CameraModel
from posenet_ros.space.lift import GUESSED, UNKNOWN, Pose3D

JOINT_METRES = 0.05
BONE_METRES = 0.025
LABEL_METRES = 0.12
DEVIATION_METRES = 0.01  # the width of the line
CIRCLE_SIDES = 16
GUESS_ALPHA = 0.4  # of people whose distance is a guess


@dataclass(frozen=True)
class Placed:
    """Where a person is drawn, in metres."""

    points: np.ndarray  # (17, 3); NaN for joints that are not drawn
    deviations: np.ndarray = field(default_factory=lambda: np.zeros((17, 0, 3)))  # ends of lines
    distance: str = ''  # in words
    alpha: float = 1.0


def on_plane(
    camera: CameraModel,
    poses: Sequence[Pose],
    distance: float,
    flipped: bool = False,
    deviations: bool = False,
) -> list[Placed]:
    """People on a plane across the optical axis.

    Args:
        camera: of the images.
        poses: in pixels of the image.
        distance: of the plane, in metres.
        flipped: x is mirrored; in space people are where they are.
        deviations: also a circle of one standard deviation around each joint.
    """
    placed = []
    for pose in poses:
        pixels = pose.keypoints
        circles = np.zeros((17, 0, 3))
        if deviations:
            outlines = _circles(pixels, pose.keypoint_deviations)
            circles = camera.points(_as_taken(outlines, camera, flipped), distance)
        placed.append(Placed(camera.points(_as_taken(pixels, camera, flipped), distance), circles))
    return placed


def in_space(
    camera: CameraModel | None,
    poses: Sequence[Pose],
    people: Sequence[Pose3D],
    flipped: bool = False,
    deviations: bool = False,
) -> list[Placed]:
    """People where they are; as a whole at a guessed distance if no joint is known.

    Args:
        camera: of the images; None if it is not known.
        poses: in pixels of the image.
        people: the same people in space.
        flipped: x of the poses is mirrored.
        deviations: also a line of one standard deviation along the ray of each joint.
    """
    placed = []
    for pose, person in zip(poses, people, strict=True):
        distance = float(np.linalg.norm(person.torso))
        if (person.states != UNKNOWN).any() or person.torso_state != GUESSED or camera is None:
            lines = np.zeros((17, 0, 3))
            if deviations:
                rays = person.points / np.linalg.norm(person.points, axis=1, keepdims=True)
                lines = person.deviations_along[:, None] * rays
                lines = np.stack([person.points - lines, person.points + lines], axis=1)
            words = '' if np.isnan(distance) else f', {distance:.1f} m'
            placed.append(Placed(person.points, lines, words))
            continue
        pixels = _as_taken(pose.keypoints, camera, flipped)
        points = camera.points(pixels, float(person.torso[2]))
        placed.append(Placed(points, distance=f', about {distance:.1f} m', alpha=GUESS_ALPHA))
    return placed


def pose_markers(
    header: Header,
    poses: Sequence[Pose],
    placed: Sequence[Placed],
    min_keypoint_score: float,
    min_pose_score: float,
    lifetime: float = 0.0,
) -> MarkerArray:
    """Joints, bones and a label per person, preceded by DELETEALL.

    Args:
        header: of the image.
        poses: people keep the colour of their track_id; without one person i has that of number i.
        placed: where they are.
        min_keypoint_score: joints below it, and their bones, are left out.
        min_pose_score: people below it are left out.
        lifetime: seconds after which rviz removes markers that were not replaced; 0 is never.
    """
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for index, (pose, place) in enumerate(zip(poses, placed, strict=True)):
        seen = pose.keypoint_scores >= min_keypoint_score
        seen &= np.isfinite(place.points).all(axis=1)
        if pose.score < min_pose_score or not seen.any():
            continue
        points = [Point(x=x, y=y, z=z) for x, y, z in place.points.tolist()]
        number, name = person_number(pose, index)
        red, green, blue = (channel / 255 for channel in person_colour(number))
        colour = ColorRGBA(r=red, g=green, b=blue, a=place.alpha)

        joints = _marker(header, 'joints', index, Marker.SPHERE_LIST, JOINT_METRES, colour)
        joints.points = [point for point, visible in zip(points, seen, strict=True) if visible]
        markers.append(joints)

        bones = _marker(header, 'bones', index, Marker.LINE_LIST, BONE_METRES, colour)
        bones.points = [points[end] for bone in SKELETON if seen[list(bone)].all() for end in bone]
        if bones.points:
            markers.append(bones)

        lines = place.deviations[seen].reshape(-1, 3)
        if len(lines):
            deviations = _marker(
                header, 'deviations', index, Marker.LINE_LIST, DEVIATION_METRES, colour
            )
            deviations.points = [
                Point(x=x, y=y, z=z) for x, y, z in lines[np.isfinite(lines).all(axis=1)].tolist()
            ]
            markers.append(deviations)

        label = _marker(header, 'label', index, Marker.TEXT_VIEW_FACING, LABEL_METRES, colour)
        top = min(joints.points, key=lambda point: point.y)
        label.pose.position = Point(x=top.x, y=top.y - 2 * LABEL_METRES, z=top.z)
        label.text = f'{name}: {pose.score:.2f}{place.distance}'
        markers.append(label)
    for marker in markers[1:]:
        marker.lifetime = duration(lifetime)
    return MarkerArray(markers=markers)


def no_markers(header: Header) -> MarkerArray:
    """Removes all markers."""
    return MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])


def _as_taken(pixels: np.ndarray, camera: CameraModel, flipped: bool) -> np.ndarray:
    return upright(pixels, camera.width) if flipped else pixels


def _circles(centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """The sides of circles as polygons, (n, 2 * CIRCLE_SIDES, 2): pairs of ends, in pixels."""
    angles = np.linspace(0, 2 * np.pi, CIRCLE_SIDES + 1)
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    outlines = centres[:, None] + radii[:, None, None] * corners  # (n, sides + 1, 2)
    sides = np.stack([outlines[:, :-1], outlines[:, 1:]], axis=2)
    return sides.reshape(len(centres), -1, 2)


def _marker(
    header: Header, namespace: str, index: int, kind: int, size: float, colour: ColorRGBA
) -> Marker:
    marker = Marker(
        header=header, ns=namespace, id=index, type=kind, action=Marker.ADD, color=colour
    )
    marker.pose.orientation.w = 1.0
    marker.scale.x = marker.scale.y = marker.scale.z = size
    return marker
