"""Poses, images and the model as ROS messages."""

from __future__ import annotations

import array
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, PoseWithCovariance, Quaternion, TransformStamped, Vector3
from geometry_msgs.msg import Pose as PositionAndHeading
from geometry_msgs.msg import PoseArray as PositionArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from posenet_ros.config import ModelConfig
from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import KEYPOINT_NAMES, SKELETON
from posenet_ros.msg import (
    Keypoint,
    Keypoint3D,
    ModelInfo,
    PersonPose,
    PersonPose3D,
    PoseArray,
    PoseArray3D,
)
from posenet_ros.space.lift import Pose3D

if TYPE_CHECKING:
    from posenet_ros.estimator import PoseNet


LEAN = 0.15  # radians: standard deviation of a body's own axis


def pose_array(header: Header, width: int, height: int, poses: Sequence[Pose]) -> PoseArray:
    """The poses of one image.

    Args:
        header: of the image; used as it is.
        width: of the image, in pixels.
        height: of the image, in pixels.
        poses: in pixels of the image.
    """
    return PoseArray(
        header=header,
        image_width=width,
        image_height=height,
        poses=[
            PersonPose(
                track_id=pose.track_id,
                score=pose.score,
                keypoints=[
                    Keypoint(id=index, x=x, y=y, score=score, deviation=deviation)
                    for index, ((x, y), score, deviation) in enumerate(pose.rows())
                ],
            )
            for pose in poses
        ],
    )


def pose_array_3d(header: Header, depth_stamp: int, people: Sequence[Pose3D]) -> PoseArray3D:
    """People in space.

    Args:
        header: of the image; used as it is.
        depth_stamp: of the depth image that was used, in nanoseconds; 0 without one.
        people: in the order of ~/poses.
    """
    seconds, nanoseconds = divmod(depth_stamp, 1_000_000_000)
    return PoseArray3D(
        header=header,
        depth_stamp=Time(sec=seconds, nanosec=nanoseconds),
        poses=[
            PersonPose3D(
                track_id=person.track_id,
                score=person.score,
                torso_state=person.torso_state,
                torso=_torso(person),
                heading_known=not math.isnan(person.heading_deviation),
                keypoints=[
                    Keypoint3D(
                        id=index,
                        state=state,
                        x=x,
                        y=y,
                        z=z,
                        deviation_along=along,
                        deviation_across=across,
                    )
                    for index, (state, (x, y, z), along, across) in enumerate(
                        zip(
                            person.states.tolist(),
                            person.points.tolist(),
                            person.deviations_along.tolist(),
                            person.deviations_across.tolist(),
                            strict=True,
                        )
                    )
                ],
            )
            for person in people
        ],
    )


def people_array(
    header: Header, people: Sequence[Pose3D], min_pose_score: float, point: str
) -> PositionArray:
    """People as positions and headings, for other packages: those whose place is known.

    Args:
        header: of the image.
        people: in space.
        min_pose_score: of whoever counts.
        point: torso or feet.
    """
    return PositionArray(
        header=header,
        poses=[
            _oriented(person, place) for person, place in _places(people, min_pose_score, point)
        ],
    )


def transforms(
    header: Header, people: Sequence[Pose3D], min_pose_score: float, point: str
) -> list[TransformStamped]:
    """A frame person_ID for everybody with an id whose place is known; as in people_array."""
    frames = []
    for person, place in _places(people, min_pose_score, point):
        if person.track_id < 0:
            continue
        oriented = _oriented(person, place)
        at = oriented.position
        frame = TransformStamped(header=header, child_frame_id=f'person_{person.track_id}')
        frame.transform.translation = Vector3(x=at.x, y=at.y, z=at.z)
        frame.transform.rotation = oriented.orientation
        frames.append(frame)
    return frames


def _places(
    people: Sequence[Pose3D], min_pose_score: float, point: str
) -> Iterator[tuple[Pose3D, np.ndarray]]:
    for person in people:
        place = person.torso
        if point == 'feet':
            ankles = person.points[15:]
            known = ankles[np.isfinite(ankles).all(axis=1)]
            place = known.mean(axis=0) if len(known) else place
        if person.score >= min_pose_score and np.isfinite(place).all():
            yield person, place


def _oriented(person: Pose3D, place: np.ndarray) -> PositionAndHeading:
    x, y, z = place.tolist()
    # Whose heading is not known faces the camera.
    known = not math.isnan(person.heading_deviation)
    axes = person.heading if known else np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]])
    return PositionAndHeading(position=Point(x=x, y=y, z=z), orientation=_quaternion(axes))


def _torso(person: Pose3D) -> PoseWithCovariance:
    """Position and heading of a torso. What is not known is NaN; a heading has pi instead."""
    covariance = np.full((6, 6), np.nan)
    if np.isfinite(person.torso).all():
        covariance[:] = 0.0
        ray = person.torso / np.linalg.norm(person.torso)
        along, across = person.torso_deviation_along**2, person.torso_deviation_across**2
        covariance[:3, :3] = across * np.eye(3) + (along - across) * np.outer(ray, ray)
        covariance[3:, 3:] = math.pi**2 * np.eye(3)
        if not math.isnan(person.heading_deviation):
            # Around its own axis it is less sure than that axis is.
            up, heading = person.heading[:, 2], person.heading_deviation**2
            covariance[3:, 3:] = min(heading, LEAN**2) * np.eye(3)
            covariance[3:, 3:] += max(heading - LEAN**2, 0.0) * np.outer(up, up)
    return PoseWithCovariance(
        pose=_oriented(person, person.torso), covariance=covariance.reshape(-1)
    )


def _quaternion(axes: np.ndarray) -> Quaternion:
    """A rotation matrix as a quaternion."""
    # The largest component first, so that nothing small is divided by.
    m = axes
    squares = [
        1 + m[0, 0] + m[1, 1] + m[2, 2],
        1 + m[0, 0] - m[1, 1] - m[2, 2],
        1 - m[0, 0] + m[1, 1] - m[2, 2],
        1 - m[0, 0] - m[1, 1] + m[2, 2],
    ]
    largest = int(np.argmax(squares))
    root = 2 * math.sqrt(squares[largest])
    a, b, c = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    d, e, f = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
    rows = ((root * root / 4, a, b, c), (a, root * root / 4, d, e), (b, d, root * root / 4, f),
            (c, e, f, root * root / 4))  # fmt: skip
    w, x, y, z = (float(value / root) for value in rows[largest])
    return Quaternion(w=w, x=x, y=y, z=z)


def image_message(header: Header, pixels: np.ndarray, encoding: str) -> Image:
    """A message of 8-bit pixels, (H, W) or (H, W, channels), already in `encoding`."""
    height, width = pixels.shape[:2]
    # rclpy accepts an array.array as it is, and would check every byte of an ndarray.
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(pixels).data.cast('B'))
    message = Image(header=header, height=height, width=width, encoding=encoding)
    message.step = len(data) // height
    message.data = data
    return message


def jpeg_message(header: Header, rgb: np.ndarray) -> CompressedImage:
    """A JPEG of uint8 RGB pixels, (H, W, 3), in compressed_image_transport's format."""
    import cv2

    _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    message = CompressedImage(header=header, format='rgb8; jpeg compressed bgr8')
    message.data = array.array('B', jpeg.tobytes())
    return message


def pixels_of(message: Image) -> np.ndarray:
    """The pixels of a message from image_message: a writable view, uint8 (H, W, channels)."""
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, -1)


def describe_input(config: ModelConfig) -> str:
    """The network's input in words, for the log and the diagnostics."""
    height, width = config.input_sizes.typical
    text = f'{width} x {height}'
    if config.input_aspect == 'image':
        text += ' for 4:3, in the shape of each image'
    if config.attention == 'closeups':
        text += f', and up to {config.max_closeups} close-ups of {config.closeup_resolution} pixels'
    if config.attention == 'people':
        text += (
            f' every {config.whole_image_period:g} s, and close-ups of people of up to '
            f'{config.closeup_resolution} pixels'
        )
    return text


def model_info(net: PoseNet, tracking: bool, smoothing: bool) -> ModelInfo:
    """The message for ~/model_info."""
    config = net.config
    return ModelInfo(
        architecture=config.architecture,
        multiplier=float(config.multiplier),
        output_stride=config.output_stride,
        input_width=net.input_width,
        input_height=net.input_height,
        input_aspect=config.input_aspect,
        attention=config.attention,
        tracking=tracking or config.attention == 'people',
        smoothing=smoothing and (tracking or config.attention == 'people'),
        precision=net.backend.precision,
        backend=net.backend.name,
        device=net.backend.device,
        model_sha256=net.model_sha256,
        keypoint_names=list(KEYPOINT_NAMES),
        skeleton_edges=[part for bone in SKELETON for part in bone],
    )
