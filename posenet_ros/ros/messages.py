"""Poses, images and the model as ROS messages."""

from __future__ import annotations

import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, PoseWithCovariance, Quaternion, TransformStamped, Vector3
from geometry_msgs.msg import Pose as PositionAndHeading
from geometry_msgs.msg import PoseArray as PositionArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from posenet_ros.config import ModelConfig
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

if TYPE_CHECKING:  # image_source runs without numba
    from posenet_ros.core.decode import Pose
    from posenet_ros.estimator import PoseNet
    from posenet_ros.space.lift import Pose3D


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
                torso=PoseWithCovariance(
                    pose=_oriented(person, person.torso),
                    covariance=person.covariance().reshape(-1),
                ),
                heading_known=person.heading_known,
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
                    for index, (state, (x, y, z), along, across) in enumerate(person.rows())
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
        poses=[oriented for _, oriented in _places(people, min_pose_score, point)],
    )


def transforms(
    header: Header, people: Sequence[Pose3D], min_pose_score: float, point: str
) -> list[TransformStamped]:
    """A frame person_ID for everybody with an id whose place is known; as in people_array."""
    frames = []
    for person, oriented in _places(people, min_pose_score, point):
        if person.track_id < 0:
            continue
        at = oriented.position
        frame = TransformStamped(header=header, child_frame_id=f'person_{person.track_id}')
        frame.transform.translation = Vector3(x=at.x, y=at.y, z=at.z)
        frame.transform.rotation = oriented.orientation
        frames.append(frame)
    return frames


def _places(
    people: Sequence[Pose3D], min_pose_score: float, point: str
) -> Iterator[tuple[Pose3D, PositionAndHeading]]:
    for person in people:
        place = person.point(point)
        if person.score >= min_pose_score and np.isfinite(place).all():
            yield person, _oriented(person, place)


def _oriented(person: Pose3D, place: np.ndarray) -> PositionAndHeading:
    x, y, z = place.tolist()
    a, b, c, w = person.orientation()
    return PositionAndHeading(
        position=Point(x=x, y=y, z=z), orientation=Quaternion(x=a, y=b, z=c, w=w)
    )


def duration(seconds: float) -> Duration:
    """A length of time."""
    whole, part = divmod(seconds, 1.0)
    return Duration(sec=int(whole), nanosec=int(part * 1e9))


def image_message(header: Header, pixels: np.ndarray, encoding: str) -> Image:
    """A message of pixels, (H, W) or (H, W, channels), already in `encoding`."""
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
