"""sensor_msgs/Image read in place: a view of the serialised message, without a copy.

rclpy would deserialise the pixels into an array.array, which copies them three times: 2 ms at
640x480. So the node subscribes with raw=True and gets the bytes as they came.

This fails with a middleware that does not serialise to CDR, or if sensor_msgs/Image changes, which
is unlikely. Any encoding other than little-endian CDR is deserialised by rclpy. Bytes that do not
parse raise an ImageError: the frame is dropped, and counted. A test compares the result with
rclpy's for each version of ROS that it runs on.

Source: OMG Common Data Representation (CDR) as DDS-RTPS 2.2, 10.2 and 10.5, uses it: numbers are
aligned to their size, counted from the end of the four-byte encapsulation header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from posenet_ros.errors import ImageError

_LITTLE_ENDIAN_CDR = b'\x00\x01'
_START = 4  # after the encapsulation header


@dataclass
class ImageView:
    """The fields of sensor_msgs/Image; `data` is a view of the serialised message."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


def read_serialized(serialized: bytes) -> ImageView | Image:
    """Reads a serialised Image: as a view, or deserialised if it is not little-endian CDR.

    Raises:
        ImageError: the bytes are no sensor_msgs/Image.
    """
    if serialized[:2] == _LITTLE_ENDIAN_CDR:
        try:
            return _view(memoryview(serialized))
        except (struct.error, IndexError):
            raise ImageError(f'{len(serialized)} bytes are no sensor_msgs/Image') from None
    try:
        return deserialize_message(serialized, Image)
    except Exception as error:  # the middlewares' errors have no common base class
        raise ImageError(f'{len(serialized)} bytes are no sensor_msgs/Image: {error}') from error


def _view(buffer: memoryview) -> ImageView:
    seconds, nanoseconds = struct.unpack_from('<iI', buffer, _START)
    frame_id, at = _string(buffer, _START + 8)
    at = _aligned(at)
    height, width = struct.unpack_from('<II', buffer, at)
    encoding, at = _string(buffer, at + 8)
    is_bigendian = buffer[at]
    at = _aligned(at + 1)
    step, size = struct.unpack_from('<II', buffer, at)
    data = buffer[at + 8 : at + 8 + size]
    if len(data) != size:
        raise IndexError
    header = Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=frame_id)
    return ImageView(header, height, width, encoding, is_bigendian, step, data)


def _string(buffer: memoryview, at: int) -> tuple[str, int]:
    """A string and the offset after it: uint32 length, then bytes that end with a zero."""
    (length,) = struct.unpack_from('<I', buffer, at)
    end = at + 4 + length
    if end > len(buffer):
        raise IndexError
    return str(buffer[at + 4 : max(end - 1, at + 4)], 'utf-8', 'replace'), end


def _aligned(at: int) -> int:
    return _START + (at - _START + 3) // 4 * 4
