"""Poses, images and the model as ROS messages."""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from posenet_ros.config import ModelConfig
from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import KEYPOINT_NAMES, SKELETON
from posenet_ros.msg import Keypoint, ModelInfo, PersonPose, PoseArray

if TYPE_CHECKING:
    from posenet_ros.estimator import PoseNet


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
