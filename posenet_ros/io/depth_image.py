"""sensor_msgs/Image of depths, plain or compressed by compressed_depth_image_transport -> an array.

Sources: REP 118 (depth images); compressed_depth_image_transport's codec.cpp (a header of 12 bytes,
then PNG or RVL; depths in metres are quantised as their inverse).
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np

from posenet_ros.config import MAX_IMAGE_PIXELS
from posenet_ros.errors import ImageError, quoted
from posenet_ros.io.image_message import decode_png
from posenet_ros.io.picture_header import check_header
from posenet_ros.space.rvl import fill_from_rvl

# Metres of a unit of each encoding.
UNITS = {'16UC1': 0.001, 'mono16': 0.001, '32FC1': 1.0}
HEADER_BYTES = 12
RVL_HEADER_BYTES = 8


class DepthImage(NamedTuple):
    """What PoseLifter.lift takes."""

    depth: np.ndarray  # (H, W): a view of the message where it is not compressed
    metres: float  # of a unit


def depth_of(message: Any) -> DepthImage:
    """The depths of a sensor_msgs/Image, without a copy.

    Raises:
        ImageError: it is no depth image, is empty, or has too little data for its size.
    """
    encoding, height, width = message.encoding, message.height, message.width
    if encoding not in UNITS:
        raise ImageError(
            f'unknown encoding {quoted(encoding)} of a depth image; known are {", ".join(UNITS)}'
        )
    if height == 0 or width == 0:
        raise ImageError(f'the depth image has no pixels: it is {width} x {height}')
    kind = np.dtype('f4' if encoding == '32FC1' else 'u2')
    kind = kind.newbyteorder('>' if message.is_bigendian else '<')
    row = width * kind.itemsize
    if message.step < row:
        raise ImageError(
            f'step {message.step} is less than the {row} bytes of a row of {width} {encoding} '
            'pixels'
        )
    needed = message.step * (height - 1) + row  # the last row may lack its padding
    if len(message.data) < needed:
        raise ImageError(
            f'{len(message.data)} bytes of data where {width} x {height} {encoding} pixels with '
            f'step {message.step} need {needed}'
        )
    strides = message.step, kind.itemsize
    depth: np.ndarray = np.ndarray((height, width), kind, buffer=message.data, strides=strides)
    return DepthImage(depth, UNITS[encoding])


def compressed_depth_of(message: Any, max_pixels: int = MAX_IMAGE_PIXELS) -> DepthImage:
    """The depths of a sensor_msgs/CompressedImage on a topic .../compressedDepth.

    Args:
        message: with `format`, such as "16UC1; compressedDepth png".
        max_pixels: that it may have; its header is read before anything is decoded.

    Raises:
        ImageError: it is none, or damaged.
    """
    encoding, _, how = (part.strip() for part in message.format.partition(';'))
    words = how.split()
    if encoding not in UNITS or words[:1] != ['compressedDepth']:
        raise ImageError(
            f'unknown format {quoted(message.format)} of a depth image; known are 16UC1 and 32FC1, '
            'compressedDepth, png or rvl'
        )
    data = memoryview(message.data).cast('B')
    if len(data) < HEADER_BYTES:
        raise ImageError(f'{len(data)} bytes are no compressed depth image')
    _, a, b = struct.unpack_from('<iff', data)
    if words[1:] == ['rvl']:
        values = _decode_rvl(data[HEADER_BYTES:], max_pixels)
    elif words[1:] in ([], ['png']):
        values = _decode_png(data[HEADER_BYTES:], max_pixels)
    else:
        raise ImageError(f'unknown format {quoted(message.format)}; known are png and rvl')
    if encoding != '32FC1':
        return DepthImage(values, UNITS[encoding])
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        metres = np.float32(a) / (values.astype(np.float32) - np.float32(b))
    return DepthImage(np.where(values == 0, np.float32(np.nan), metres), 1.0)


def _decode_png(data: memoryview, max_pixels: int) -> np.ndarray:

    check_header(data, max_pixels)
    values = decode_png(data)
    if values.dtype != np.uint16 or values.ndim != 2:
        raise ImageError('the PNG of a depth image should have 16 bits and one channel')
    return values


def _decode_rvl(data: memoryview, max_pixels: int) -> np.ndarray:
    if len(data) < RVL_HEADER_BYTES:
        raise ImageError(f'{len(data)} bytes are no depth image in RVL')
    width, height = struct.unpack_from('<II', data)
    if not 0 < width * height <= max_pixels:
        raise ImageError(
            f'{len(data)} bytes of RVL claim {width} x {height} pixels; at most {max_pixels} are '
            'decoded (max_image_pixels)'
        )
    body = data[RVL_HEADER_BYTES:]
    words = np.frombuffer(body[: len(body) // 4 * 4], '<u4').astype(np.uint32)
    depth = np.zeros(width * height, np.uint16)
    if not fill_from_rvl(words, depth):
        raise ImageError(f'{len(data)} bytes of RVL are cut or damaged')
    return depth.reshape(height, width)
