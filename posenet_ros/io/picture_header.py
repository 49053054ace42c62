"""What a JPEG or a PNG says of itself, read and bounded before anything decodes it.

A few kilobytes can claim a hundred thousand pixels a side, or a thousand passes over them, and a
megabyte can have 100,000 parts that say nothing: without a bound they take gigabytes and minutes.

Sources: ITU-T T.81, B.1 (JPEG: segments); ISO/IEC 15948, 5 (PNG: chunks).
"""

from __future__ import annotations

import struct

import numpy as np

from posenet_ros.config import MAX_IMAGE_PIXELS
from posenet_ros.errors import ImageError

JPEG_MAGIC = b'\xff\xd8\xff'
PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
MARKER, START_OF_SCAN, END_OF_IMAGE = 0xFF, 0xDA, 0xD9
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # these are tables
USUAL_SCANS = 10  # of a progressive JPEG; each is a pass over all pixels
MAX_SEGMENTS = 1000  # of a JPEG, before its frame
MAX_CHUNKS = 20_000  # of a PNG; one has 8 KB of 8K's 100 MB


def is_jpeg(data: memoryview) -> bool:
    return data[:3] == JPEG_MAGIC


def check_header(data: memoryview, max_pixels: int = MAX_IMAGE_PIXELS) -> None:
    """Checks that data are a JPEG or a PNG which can be decoded within bounds.

    Args:
        data: the bytes of the file.
        max_pixels: that it may have. A JPEG of more than USUAL_SCANS may have fewer.

    Raises:
        ImageError: they are not, with what they claim.
    """
    scans = 1
    if is_jpeg(data):
        name, size, scans = 'JPEG', _size_of_jpeg(data), _num_scans(data)
    elif data[:8] == PNG_MAGIC:
        name, size = 'PNG', _size_of_png(data)
    else:
        raise ImageError(f'{len(data)} bytes that are neither JPEG nor PNG')
    if size is None:
        raise ImageError(f'{len(data)} bytes of {name} whose header is damaged')
    width, height = size
    if width * height * max(1.0, scans / USUAL_SCANS) > max_pixels:
        passes = f' in {scans} scans' if scans > USUAL_SCANS else ''
        raise ImageError(
            f'{len(data)} bytes of {name} claim {width} x {height} pixels{passes}; at most '
            f'{max_pixels} are decoded (max_image_pixels)'
        )


def _size_of_jpeg(data: memoryview) -> tuple[int, int] | None:
    """Width and height from the first frame; None if there is none within bounds."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        if at + 4 > len(data) or data[at] != MARKER:
            return None
        kind = data[at + 1]
        if kind == MARKER or kind in WITHOUT_LENGTH:  # a fill byte, or nothing behind it
            at += 1 if kind == MARKER else 2
            continue
        if kind in (START_OF_SCAN, END_OF_IMAGE):
            return None
        if kind in START_OF_FRAME:
            if at + 9 > len(data):
                return None
            height, width = struct.unpack_from('>HH', data, at + 5)
            return width, height
        (length,) = struct.unpack_from('>H', data, at + 2)
        at += 2 + length
    return None


def _num_scans(data: memoryview) -> int:
    """Scans of a JPEG: a marker cannot be within a scan's own data."""
    octets = np.frombuffer(data, np.uint8)
    markers = np.flatnonzero(octets[:-1] == MARKER)  # three times as fast as bytes.count
    return int(np.count_nonzero(octets[markers + 1] == START_OF_SCAN))


def _size_of_png(data: memoryview) -> tuple[int, int] | None:
    """Width and height; None if the first chunk is another one, or there are too many."""
    if bytes(data[12:16]) != b'IHDR' or len(data) < 33:
        return None
    at = len(PNG_MAGIC)
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            width, height = struct.unpack_from('>II', data, 16)
            return width, height
        (length,) = struct.unpack_from('>I', data, at)
        at += 12 + length
    return None
