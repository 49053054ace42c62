"""What a JPEG or a PNG says of itself, read and bounded before anything decodes it.

A few kilobytes can claim a hundred thousand pixels a side, or a thousand passes over them: without
a bound they take gigabytes and minutes.
"""

from __future__ import annotations

import io

import numpy as np

from posenet_ros.config import MAX_IMAGE_PIXELS
from posenet_ros.errors import ImageError

JPEG_MAGIC = b'\xff\xd8\xff'
PNG_MAGIC = b'\x89PNG\r\n\x1a\n'
MARKER, START_OF_SCAN = 0xFF, 0xDA
USUAL_SCANS = 10  # of a progressive JPEG; each is a pass over all pixels


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
    # 15 ms, and only for compressed images. Not Image.open, whose own bound is another.
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    if not is_jpeg(data) and data[:8] != PNG_MAGIC:
        raise ImageError(f'{len(data)} bytes that are neither JPEG nor PNG')
    name, read = ('JPEG', JpegImageFile) if is_jpeg(data) else ('PNG', PngImageFile)
    try:
        with read(io.BytesIO(data)) as picture:
            width, height = picture.size
    except Exception as error:  # Pillow's parsers raise many kinds
        raise ImageError(f'{len(data)} bytes of {name} whose header is damaged') from error
    scans = _num_scans(data) if name == 'JPEG' else 1
    if width * height * max(1.0, scans / USUAL_SCANS) > max_pixels:
        passes = f' in {scans} scans' if scans > USUAL_SCANS else ''
        raise ImageError(
            f'{len(data)} bytes of {name} claim {width} x {height} pixels{passes}; at most '
            f'{max_pixels} are decoded (max_image_pixels)'
        )


def _num_scans(data: memoryview) -> int:
    """Scans of a JPEG: a marker cannot be within a scan's own data."""
    octets = np.frombuffer(data, np.uint8)
    markers = np.flatnonzero(octets[:-1] == MARKER)  # three times as fast as bytes.count
    return int(np.count_nonzero(octets[markers + 1] == START_OF_SCAN))
