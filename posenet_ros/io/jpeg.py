"""JPEG -> RGB, by simplejpeg where it is installed, and otherwise by OpenCV: the same pixels.

Both are libjpeg-turbo. simplejpeg takes half the time, and gives libjpeg's warnings to us, where
OpenCV lets them go to stderr, thirty lines a second for some cameras.
"""

from __future__ import annotations

from typing import Any

import numpy as np

CUT = 'Premature end'
MAX_PIXELS = 1 << 27  # more than any camera has; damaged headers claim anything


def decode_jpeg(data: Any) -> tuple[np.ndarray | None, str]:
    """The pixels of a JPEG as they are stored, not turned by EXIF.

    Args:
        data: a buffer of bytes.

    Returns:
        uint8 RGB (H, W, 3) of any strides, or None if it cannot be decoded; and what is wrong with
        it, which is empty if nothing is known.
    """
    try:
        import simplejpeg
    except ImportError:
        return _by_opencv(data), ''
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data, strict=False)
        if height * width > MAX_PIXELS:
            return None, f'its header claims {width} x {height} pixels'
        return simplejpeg.decode_jpeg(data, 'RGB', strict=True), ''
    except MemoryError:
        return None, 'it is too large for the memory'
    except (ValueError, KeyError) as error:  # KeyError: of colours that it does not know
        damage = ' '.join(str(error).split())
    if CUT in damage:
        return None, damage
    try:
        return simplejpeg.decode_jpeg(data, 'RGB', strict=False), damage
    except (ValueError, KeyError):  # of four colours, for example
        return _by_opencv(data), damage


def _by_opencv(data: Any) -> np.ndarray | None:
    import cv2

    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # the header claims an impossible size
        return None
    return None if image is None else image[..., ::-1]
