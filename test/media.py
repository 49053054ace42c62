"""Small files of the kinds that people have, made by the tests themselves."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """Soft colours, uint8 RGB (H, W, 3): JPEG keeps them nearly."""
    small = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC))


def encoded(pixels: np.ndarray, kind: str = 'JPEG', **options) -> bytes:
    """A photo's bytes, in a format of Pillow."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **options)
    return data.getvalue()


def matroska(path: Path, frames: list[np.ndarray], milliseconds: list[int]) -> None:
    """A video of JPEGs, each at a time of its own: the simplest container that has such times."""
    height, width = frames[0].shape[:2]
    track = (
        _element(b'\xd7', b'\1')  # number
        + _element(b'\x73\xc5', b'\1')  # id
        + _element(b'\x83', b'\1')  # video
        + _element(b'\x86', b'V_MJPEG')
        + _element(
            b'\xe0',
            _element(b'\xb0', struct.pack('>H', width))
            + _element(b'\xba', struct.pack('>H', height)),
        )
    )
    blocks = b''.join(
        _element(b'\xa3', b'\x81' + struct.pack('>hB', time, 0x80) + encoded(frame))
        for time, frame in zip(milliseconds, frames, strict=True)
    )
    segment = (
        _element(
            b'\x15\x49\xa9\x66',
            _element(b'\x2a\xd7\xb1', struct.pack('>I', 1_000_000))
            + _element(b'\x44\x89', struct.pack('>d', milliseconds[-1] + 100)),
        )
        + _element(b'\x16\x54\xae\x6b', _element(b'\xae', track))
        + _element(b'\x1f\x43\xb6\x75', _element(b'\xe7', b'\0') + blocks)
    )
    header = _element(b'\x42\x82', b'matroska') + _element(b'\x42\x87', b'\4')
    path.write_bytes(_element(b'\x1a\x45\xdf\xa3', header) + _element(b'\x18\x53\x80\x67', segment))


def _element(number: bytes, content: bytes) -> bytes:
    """An EBML element: its number, its length in eight bytes, and its content."""
    return number + struct.pack('>Q', len(content) | 1 << 56) + content
