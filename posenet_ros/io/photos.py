"""Photos: read upright as RGB arrays, written whole or not at all.

What a photo looks like is decided here, the same for every format and every version of OpenCV:
EXIF turns it upright, transparent pixels lie on black (as a browser's canvas has them), 16 bits
become 8, and of an animation the first picture counts.
"""

from __future__ import annotations

import contextlib
import io
import logging
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from posenet_ros.atomic_file import atomic_path
from posenet_ros.errors import ImageError, PoseNetError, reason
from posenet_ros.io.image_message import decode_png, to_8_bits
from posenet_ros.io.jpeg import decode_jpeg
from posenet_ros.io.picture_header import check_header
from posenet_ros.io.source import is_photo_name

WRITABLE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff', '.ppm')
JPEG_QUALITY = 95

logger = logging.getLogger('posenet_ros')

# Pillow's names. Not all that it knows: PostScript, for example, is a program that it would run.
FORMATS = (
    'JPEG', 'MPO', 'PNG', 'BMP', 'DIB', 'WEBP', 'TIFF', 'GIF', 'PPM', 'JPEG2000', 'AVIF', 'HEIF',
    'TGA',
)  # fmt: skip


def read_image(path: Path) -> np.ndarray:
    """Reads a photo as uint8 RGB, (H, W, 3), upright.

    Raises:
        ImageError: there is no such file, or it is no image.
    """
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ImageError(f'{path} is a pipe or a device, where a file is needed')
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f'there is no image file {path}') from error
    except IsADirectoryError as error:
        raise ImageError(f'{path} is a folder, not an image') from error
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise ImageError(f'cannot read {path}: {reason(error)}') from error
    return decode_photo(data, str(path))


def decode_photo(data: bytes, name: str) -> np.ndarray:
    """The pixels of an encoded photo as uint8 RGB, (H, W, 3), upright.

    Args:
        data: the content of a file.
        name: of the file, for errors.

    Raises:
        ImageError: it is no image that can be read, with the reason.
    """
    if not data:
        raise ImageError(f'{name} is empty')
    from PIL import Image, UnidentifiedImageError

    with contextlib.suppress(ImportError):  # an iPhone's photos
        from pillow_heif import register_heif_opener

        register_heif_opener()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of unusual but readable files
            Image.init()
            known = [name for name in FORMATS if name in Image.OPEN]
            with Image.open(io.BytesIO(data), formats=known) as picture:
                # Pillow 9 has it of a TIFF only before the pixels, and of a PNG only after them.
                early = picture.getexif() if picture.format == 'TIFF' else None
                pixels = _pixels(picture, data, name)
                orientation = (early or picture.getexif()).get(0x0112, 1)
        return np.require(_upright(pixels, orientation), requirements=['C', 'W'])
    except UnidentifiedImageError as error:
        advice = ''
        if data[4:8] == b'ftyp' and data[8:11] in (b'hei', b'mif', b'hev'):
            advice = ': it is HEIC, which needs a package: pip install pillow-heif'
        raise ImageError(f'{name} is not an image that can be read{advice}') from error
    except MemoryError as error:
        raise ImageError(f'{name} is too large for the memory') from error
    except Exception as error:  # whatever a damaged file makes a decoder raise
        raise ImageError(f'{name} is not an image that can be read: {error}') from error


def images_in(folder: Path) -> list[Path]:
    """The photos of a folder, by name.

    Raises:
        ImageError: there are none, or the folder cannot be read.
    """
    paths, left_out = photos_and_others(folder)
    if not paths:
        others = f'; it holds {len(left_out)} other entries' if left_out else ''
        raise ImageError(f'{folder} holds no photo{others}')
    return paths


def photos_and_others(folder: Path) -> tuple[list[Path], list[Path]]:
    """What a folder holds, by name: photos, and all else that is not hidden.

    Raises:
        ImageError: the folder cannot be read.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ImageError(f'cannot read {folder}: {error.strerror}') from error
    photos = [path for path in entries if is_photo_name(path)]
    others = [p for p in entries if not is_photo_name(p) and not p.name.startswith('.')]
    return photos, others


def read_depth(path: Path) -> np.ndarray:
    """A PNG of 16 bits, in millimetres: uint16 (H, W).

    Raises:
        ImageError: it is none.
    """
    try:
        data = memoryview(path.read_bytes())
        check_header(data)
        depth = decode_png(data)
    except OSError as error:
        raise ImageError(f'cannot read {path}: {error.strerror}') from error
    except ImageError as error:
        raise ImageError(f'{path} is no depth image: {error}') from error
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise ImageError(f'{path} is no depth image: it should have 16 bits and one channel')
    return depth


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes uint8 RGB; the format follows the suffix.

    Raises:
        PoseNetError: the suffix is unknown, or the file cannot be written.
    """
    from PIL import Image

    if path.suffix.lower() not in WRITABLE_SUFFIXES:
        raise PoseNetError(f'cannot write {path}: an image ends in {", ".join(WRITABLE_SUFFIXES)}')
    with atomic_path(path) as part:
        try:
            Image.fromarray(image).save(part, quality=JPEG_QUALITY)
        except (ValueError, KeyError) as error:
            raise PoseNetError(f'cannot write {path}: {error}') from error


def _pixels(picture: Any, data: bytes, name: str) -> np.ndarray:
    """The pixels as uint8 RGB, as they are stored."""
    from PIL import Image

    if picture.format in ('JPEG', 'MPO') and picture.mode in ('L', 'RGB'):
        decoded, damage = decode_jpeg(data)  # the same library inside, and five times as fast
        if decoded is None:
            raise ValueError(damage or 'its data are cut or damaged')
        if damage:
            logger.warning('%s is damaged, and used all the same: %s', name, damage)
        return decoded
    if picture.mode.startswith(('I', 'F')):
        values = np.asarray(picture)
        if values.dtype.kind == 'f':
            raise ValueError('its pixels are floating-point numbers, which have no brightness')
        grey = to_8_bits(np.clip(values, 0, 65535).astype(np.uint16))
        return np.repeat(grey[..., None], 3, axis=2)
    if 'A' in picture.mode or 'a' in picture.mode or 'transparency' in picture.info:
        seen = picture.convert('RGBA')
        black = Image.new('RGBA', seen.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, seen)
    return np.asarray(picture.convert('RGB'))


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an image as EXIF's orientation, 1 to 8, says; any other number is none."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
