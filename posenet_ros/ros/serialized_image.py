"""sensor_msgs/Image and CompressedImage read in place: views of the serialised message.

rclpy would deserialise the pixels into an array.array, which copies them three times: 2 ms at
640x480. And what is no message can crash the middleware's deserialiser, with the process. So the
node subscribes with raw=True and gets the bytes as they came. What does not parse raises an
ImageError: the frame is dropped, and counted. A test compares the result with rclpy's for each
version of ROS that it runs on.

This fails with a middleware that does not serialise to CDR, or if the messages change, which is
unlikely.

Source: OMG Common Data Representation (CDR) as DDS-RTPS 2.2, 10.2 and 10.5, and DDS-XTypes 1.3,
7.6.2, use it: numbers are aligned to their size, counted from the end of the four-byte
encapsulation header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from posenet_ros.errors import ImageError

# The encapsulation: byte order of plain CDR, version 1 or 2, which are the same for these messages.
_BYTE_ORDER = {b'\x00\x00': '>', b'\x00\x01': '<', b'\x00\x06': '>', b'\x00\x07': '<'}
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


@dataclass
class CompressedImageView:
    """The fields of sensor_msgs/CompressedImage; `data` is a view of the serialised message."""

    header: Header
    format: str
    data: memoryview


def read_image(serialized: bytes) -> ImageView:
    """Reads a serialised Image.

    Raises:
        ImageError: the bytes are no sensor_msgs/Image.
    """
    reader = _Reader(serialized, 'sensor_msgs/Image')
    return ImageView(
        header=reader.header(),
        height=reader.uint32(),
        width=reader.uint32(),
        encoding=reader.string(),
        is_bigendian=reader.uint8(),
        step=reader.uint32(),
        data=reader.octets(),
    )


def read_compressed_image(serialized: bytes) -> CompressedImageView:
    """Reads a serialised CompressedImage.

    Raises:
        ImageError: the bytes are no sensor_msgs/CompressedImage.
    """
    reader = _Reader(serialized, 'sensor_msgs/CompressedImage')
    return CompressedImageView(reader.header(), reader.string(), reader.octets())


class _Reader:
    """Reads the fields of a message one after another."""

    def __init__(self, serialized: bytes, kind: str) -> None:
        self._buffer = memoryview(serialized)
        self._error = ImageError(f'{len(serialized)} bytes are no {kind}')
        self._at = _START
        order = _BYTE_ORDER.get(serialized[:2])
        if order is None:
            raise self._error
        self._int32, self._uint32 = struct.Struct(f'{order}i'), struct.Struct(f'{order}I')

    def header(self) -> Header:
        seconds = self._number(self._int32)
        stamp = Time(sec=seconds, nanosec=self.uint32())
        return Header(stamp=stamp, frame_id=self.string())

    def uint32(self) -> int:
        return self._number(self._uint32)

    def uint8(self) -> int:
        return self._take(1)[0]

    def string(self) -> str:
        text = self.octets()  # which ends with a zero
        return str(text[: max(len(text) - 1, 0)], 'utf-8', 'replace')

    def octets(self) -> memoryview:
        return self._take(self.uint32())

    def _number(self, kind: struct.Struct) -> int:
        self._at += -(self._at - _START) % kind.size
        (number,) = kind.unpack(self._take(kind.size))
        return int(number)

    def _take(self, count: int) -> memoryview:
        taken = self._buffer[self._at : self._at + count]
        if len(taken) != count:
            raise self._error
        self._at += count
        return taken
