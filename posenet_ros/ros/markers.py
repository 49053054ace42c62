"""Poses as rviz markers: joints and bones of each person, in the camera's optical frame.

With a camera_info each joint lies on the camera's ray through its pixel, so that rviz's Camera
display draws it over the image. Source of the projection: sensor_msgs/CameraInfo, P.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import SKELETON
from posenet_ros.io.draw import person_colour, person_number

# In pixels, of K and P: beyond them no camera is, and positions would overflow.
LEAST_FOCAL_LENGTH = 0.01
LARGEST_VALUE = 1e9
JOINT_METRES = 0.05
BONE_METRES = 0.025
LABEL_METRES = 0.12
CIRCLE_METRES = 0.01  # the width of the line
CIRCLE_SIDES = 16


@dataclass(frozen=True)
class PixelPlane:
    """Maps pixels onto a plane across the optical axis (x right, y down, z forward; metres)."""

    focal_x: float
    focal_y: float
    centre_x: float
    centre_y: float
    distance: float
    # Of the camera from the origin of its frame: a stereo pair's right camera is in the left's.
    offset_x: float = 0.0
    offset_y: float = 0.0

    @classmethod
    def of_camera(cls, info: CameraInfo, width: int, height: int, distance: float) -> PixelPlane:
        """The plane of a calibrated camera; `width` and `height` are the image's, in pixels."""
        focal_x, focal_y, centre_x, centre_y = info.p[0], info.p[5], info.p[2], info.p[6]
        offset_x = offset_y = 0.0
        if focal_x > LEAST_FOCAL_LENGTH and focal_y > LEAST_FOCAL_LENGTH:
            offset_x, offset_y = -info.p[3] / focal_x, -info.p[7] / focal_y
        else:
            focal_x, focal_y, centre_x, centre_y = info.k[0], info.k[4], info.k[2], info.k[5]
        # The calibration is that of the whole sensor. The image may be a window of it, and may
        # have been scaled since: binned, for example.
        roi = info.roi
        scale_x = width / (roi.width or info.width or width)
        scale_y = height / (roi.height or info.height or height)
        return cls(
            focal_x * scale_x,
            focal_y * scale_y,
            (centre_x - roi.x_offset) * scale_x,
            (centre_y - roi.y_offset) * scale_y,
            distance,
            offset_x,
            offset_y,
        )

    @classmethod
    def uncalibrated(
        cls, width: int, height: int, distance: float, plane_width: float
    ) -> PixelPlane:
        """A plane on which the whole image is `plane_width` metres wide, centred on the axis."""
        focal = width * distance / plane_width
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2, distance)

    def mirrored(self, width: int) -> PixelPlane:
        """The plane for pixels whose x was mirrored in an image of this width."""
        return replace(self, focal_x=-self.focal_x, centre_x=width - 1 - self.centre_x)

    def points(self, pixels: np.ndarray) -> list[Point]:
        """Points of (n, 2) pixels."""
        scaled = (pixels - (self.centre_x, self.centre_y)) / (self.focal_x, self.focal_y)
        places = scaled * self.distance + (self.offset_x, self.offset_y)
        return [Point(x=x, y=y, z=self.distance) for x, y in places.tolist()]


def has_values(info: CameraInfo) -> bool:
    """Whether a camera_info holds a calibration at all; uncalibrated cameras publish zeros."""
    return bool(np.any(info.p) or np.any(info.k))


def calibrated(info: CameraInfo | None) -> bool:
    """Whether a camera_info has a calibration that places pixels in space."""
    if info is None:
        return False
    values = np.abs([*info.p, *info.k])
    if not (values < LARGEST_VALUE).all():  # false for NaN
        return False
    least = LEAST_FOCAL_LENGTH
    return bool(
        (info.p[0] > least and info.p[5] > least) or (info.k[0] > least and info.k[4] > least)
    )


def pose_markers(
    header: Header,
    poses: Sequence[Pose],
    plane: PixelPlane,
    min_keypoint_score: float,
    min_pose_score: float,
    lifetime: float = 0.0,
    deviations: bool = False,
) -> MarkerArray:
    """Joints, bones and a label per person, preceded by DELETEALL.

    Args:
        header: of the image.
        poses: in pixels of the image. People keep the colour of their track_id; without one
            person i has that of number i.
        plane: where the pixels lie in space.
        min_keypoint_score: joints below it, and their bones, are left out.
        min_pose_score: people below it are left out.
        lifetime: seconds after which rviz removes markers that were not replaced; 0 is never.
        deviations: also a circle of one standard deviation around each joint.
    """
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for index, pose in enumerate(poses):
        seen = pose.keypoint_scores >= min_keypoint_score
        if pose.score < min_pose_score or not seen.any():
            continue
        points = plane.points(pose.keypoints)
        number, name = person_number(pose, index)
        red, green, blue = (channel / 255 for channel in person_colour(number))
        colour = ColorRGBA(r=red, g=green, b=blue, a=1.0)

        joints = _marker(header, 'joints', index, Marker.SPHERE_LIST, JOINT_METRES, colour)
        joints.points = [point for point, visible in zip(points, seen, strict=True) if visible]
        markers.append(joints)

        bones = _marker(header, 'bones', index, Marker.LINE_LIST, BONE_METRES, colour)
        bones.points = [points[end] for bone in SKELETON if seen[list(bone)].all() for end in bone]
        if bones.points:
            markers.append(bones)

        if deviations:
            circles = _marker(header, 'deviations', index, Marker.LINE_LIST, CIRCLE_METRES, colour)
            circles.points = plane.points(
                _circles(pose.keypoints[seen], pose.keypoint_deviations[seen])
            )
            markers.append(circles)

        label = _marker(header, 'label', index, Marker.TEXT_VIEW_FACING, LABEL_METRES, colour)
        top = min(joints.points, key=lambda point: point.y)
        label.pose.position = Point(x=top.x, y=top.y - 2 * LABEL_METRES, z=top.z)
        label.text = f'{name}: {pose.score:.2f}'
        markers.append(label)
    seconds, part = divmod(lifetime, 1.0)
    for marker in markers[1:]:
        marker.lifetime = Duration(sec=int(seconds), nanosec=int(part * 1e9))
    return MarkerArray(markers=markers)


def no_markers(header: Header) -> MarkerArray:
    """Removes all markers."""
    return MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])


def _circles(centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """The sides of circles as polygons, (n * CIRCLE_SIDES * 2, 2): pairs of ends, in pixels."""
    angles = np.linspace(0, 2 * np.pi, CIRCLE_SIDES + 1)
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    outlines = centres[:, None] + radii[:, None, None] * corners  # (n, sides + 1, 2)
    return np.stack([outlines[:, :-1], outlines[:, 1:]], axis=2).reshape(-1, 2)


def _marker(
    header: Header, namespace: str, index: int, kind: int, size: float, colour: ColorRGBA
) -> Marker:
    marker = Marker(
        header=header, ns=namespace, id=index, type=kind, action=Marker.ADD, color=colour
    )
    marker.pose.orientation.w = 1.0
    marker.scale.x = marker.scale.y = marker.scale.z = size
    return marker
