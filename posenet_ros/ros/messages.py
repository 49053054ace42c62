"""The model and images as messages. Poses: serialized.py."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING

import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from posenet_ros.keypoints import KEYPOINT_NAMES, SKELETON
from posenet_ros.msg import ModelInfo

if TYPE_CHECKING:
    from posenet_ros.estimator import PoseNet


def image_message(header: Header, pixels: np.ndarray, encoding: str) -> Image:
    """A message of 8-bit pixels, (H, W) or (H, W, channels), already in `encoding`."""
    height, width = pixels.shape[:2]
    # rclpy takes an array.array as it is; an ndarray it would check byte by byte.
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(pixels).data.cast('B'))
    message = Image(header=header, height=height, width=width, encoding=encoding)
    message.step = len(data) // height
    message.data = data
    return message


def jpeg_message(header: Header, rgb: np.ndarray) -> CompressedImage:
    """A JPEG of uint8 RGB pixels, (H, W, 3), in the words of compressed_image_transport."""
    import cv2

    _, jpeg = cv2.imencode('.jpg', cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    message = CompressedImage(header=header, format='rgb8; jpeg compressed bgr8')
    message.data = array.array('B', jpeg.tobytes())
    return message


def pixels_of(message: Image) -> np.ndarray:
    """The pixels of a message of image_message, to read and to write: uint8 (H, W, channels)."""
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, -1)


def model_info(net: PoseNet) -> ModelInfo:
    """What ~/model_info says of a loaded model."""
    config = net.config
    return ModelInfo(
        architecture=config.architecture,
        multiplier=float(config.multiplier),
        output_stride=config.output_stride,
        input_width=net.input_width,
        input_height=net.input_height,
        precision=net.backend.precision,
        backend=net.backend.name,
        device=net.backend.device,
        model_sha256=net.model_sha256,
        keypoint_names=list(KEYPOINT_NAMES),
        skeleton_edges=[part for bone in SKELETON for part in bone],
    )
