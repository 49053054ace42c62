"""sensor_msgs/Image -> uint8 RGB array: zero-copy for 8-bit colour and mono images.

Takes any object with the message's fields, from a topic or from a bag. Other encodings are
converted by cv_bridge where one is given, and otherwise by our own code, with the same result.

Sources: sensor_msgs/image_encodings.hpp; cv_bridge.cpp (colours first, then 16 bits to 8 with a
factor of 255 / 65535).
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

from posenet_ros.config import MAX_IMAGE_PIXELS
from posenet_ros.errors import ImageError, quoted, reason
from posenet_ros.io.jpeg import decode_jpeg
from posenet_ros.io.picture_header import check_header, is_jpeg

VALUES = r'(8|16|32|64)[USF]C\d+'  # encodings of OpenCV's, which name only a type

# Channels and bits of the packed encodings.
_PACKED = {
    'rgb8': (3, 8), 'bgr8': (3, 8), 'rgba8': (4, 8), 'bgra8': (4, 8), 'mono8': (1, 8),
    'rgb16': (3, 16), 'bgr16': (3, 16), 'rgba16': (4, 16), 'bgra16': (4, 16), 'mono16': (1, 16),
    '8UC1': (1, 8), '8UC3': (3, 8), '8UC4': (4, 8),
}  # fmt: skip

# OpenCV names a Bayer pattern by its second row and column: BayerBG is ROS's rggb.
_BAYER = {
    'bayer_rggb': 'COLOR_BayerBG2RGB',
    'bayer_bggr': 'COLOR_BayerRG2RGB',
    'bayer_gbrg': 'COLOR_BayerGR2RGB',
    'bayer_grbg': 'COLOR_BayerGB2RGB',
}

_YUV422 = {
    'yuv422': 'COLOR_YUV2RGB_UYVY',
    'uyvy': 'COLOR_YUV2RGB_UYVY',
    'yuv422_yuy2': 'COLOR_YUV2RGB_YUY2',
    'yuyv': 'COLOR_YUV2RGB_YUY2',
}

_YUV420 = {'nv12': 'COLOR_YUV2RGB_NV12', 'nv21': 'COLOR_YUV2RGB_NV21'}

ENCODINGS = (
    *_PACKED,
    *(f'{pattern}{bits}' for bits in (8, 16) for pattern in _BAYER),
    *_YUV422,
    *_YUV420,
)

# Encodings whose pixels must be computed, and which cv_bridge can convert.
FOR_CV_BRIDGE = (
    'mono16', 'rgb16', 'bgr16', 'rgba16', 'bgra16', 'yuv422', 'yuv422_yuy2',
    *(f'{pattern}{bits}' for bits in (8, 16) for pattern in _BAYER),
)  # fmt: skip


class Image(Protocol):
    """The fields of sensor_msgs/Image."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any  # a buffer of bytes


class CompressedImage(Protocol):
    """The fields of sensor_msgs/CompressedImage."""

    format: str
    data: Any  # a buffer of bytes


class CvBridge(Protocol):
    """The method of cv_bridge.CvBridge that is used."""

    def imgmsg_to_cv2(self, message: Any, desired_encoding: str) -> np.ndarray: ...


def image_to_rgb(message: Image, bridge: CvBridge | None = None) -> np.ndarray:
    """The pixels of an Image.

    Args:
        message: sensor_msgs/Image.
        bridge: a cv_bridge for FOR_CV_BRIDGE encodings.

    Returns:
        uint8 RGB (H, W, 3). For 8-bit colour and mono images a view of the message, with any
        strides; otherwise a new array.

    Raises:
        ImageError: the image is empty, has an unknown encoding, or too little data for its size.
    """
    encoding = message.encoding
    _check(message)
    if encoding in _PACKED and _PACKED[encoding][1] == 8:
        return _packed_to_rgb(_rows(message, *_PACKED[encoding]), encoding)
    if bridge is not None and encoding in FOR_CV_BRIDGE and _suits_cv_bridge(message):
        try:
            return bridge.imgmsg_to_cv2(message, desired_encoding='rgb8')
        except Exception:  # no common base class; our own code converts it
            pass
    if encoding in _PACKED:
        return _packed_to_rgb(_rows(message, *_PACKED[encoding]), encoding)
    if encoding in _YUV422:
        return _coloured(_rows(message, 2, 8), _YUV422[encoding])
    if encoding in _YUV420:
        return _coloured(_rows(message, 1, 8)[..., 0], _YUV420[encoding])
    mosaic = _rows(message, 1, 16 if encoding.endswith('16') else 8)[..., 0]
    native = mosaic.astype(mosaic.dtype.newbyteorder('='), copy=False)
    return to_8_bits(_coloured(native, _BAYER[encoding[:10]]))


def compressed_to_rgb(
    message: CompressedImage,
    damaged: Callable[[str], None] = lambda what: None,
    max_pixels: int = MAX_IMAGE_PIXELS,
) -> np.ndarray:
    """The pixels of a JPEG or PNG CompressedImage, as uint8 RGB (H, W, 3).

    `format` tells the encoding that the camera had, as image_transport writes it: "bayer_rggb8;
    jpeg compressed ". Where the file holds the camera's own samples, as a grey picture, they are
    taken for what they are; where a raw image of that encoding is refused, so is this one.

    Args:
        message: sensor_msgs/CompressedImage.
        damaged: called with what is wrong with an image that can be decoded all the same.
        max_pixels: that it may have; see check_header.

    Raises:
        ImageError: the data is no JPEG or PNG that can be decoded, claims too many pixels, or holds
            something else than colours or grey.
    """
    encoding = _camera_encoding(message.format)
    data = memoryview(message.data)
    check_header(data, max_pixels)
    if not is_jpeg(data):
        samples = decode_png(data)
    elif encoding:
        samples = _decode_samples_of_jpeg(data)
    else:
        picture, damage = decode_jpeg(data)
        if picture is None:
            why = damage or 'its data are cut or damaged'
            raise ImageError(f'{len(data)} bytes of JPEG cannot be decoded: {why}')
        if damage:
            damaged(damage)
        return picture
    if samples.ndim == 3:
        return samples
    return _samples_to_rgb(
        samples, encoding or ('mono16' if samples.dtype == np.uint16 else 'mono8')
    )


def decode_png(data: memoryview) -> np.ndarray:
    """uint8 RGB (H, W, 3), or samples as they are: uint8 or uint16 (H, W).

    By Pillow: libpng by OpenCV takes as long, and writes to stderr what is wrong with an image.
    """
    from PIL.PngImagePlugin import PngImageFile

    try:
        with PngImageFile(io.BytesIO(data)) as picture:
            if picture.mode == 'L':
                return np.asarray(picture)
            if picture.mode.startswith('I'):  # 16 bits
                return np.asarray(picture).astype(np.uint16)
            return np.asarray(picture.convert('RGB'))
    except Exception as error:  # Pillow's parsers raise many kinds
        raise ImageError(
            f'{len(data)} bytes of PNG cannot be decoded: {quoted(reason(error))}'
        ) from error


def _decode_samples_of_jpeg(data: memoryview) -> np.ndarray:
    """uint8 (H, W), or RGB (H, W, 3) if it has colours."""
    import cv2

    # The EXIF orientation is ignored, as image_transport does: camera_info refers to raw pixels.
    flags = cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise ImageError(f'{len(data)} bytes of JPEG cannot be decoded')
    return image if image.ndim == 2 else image[..., 2::-1]


def no_picture(message: Any) -> str:
    """Why an Image or a CompressedImage is no picture, but depth or other values; else empty."""
    if hasattr(message, 'format'):
        try:
            _camera_encoding(message.format)
        except ImageError as error:
            return str(error)
        return ''
    encoding = message.encoding
    values = re.fullmatch(VALUES, encoding) and encoding not in ENCODINGS
    return f'{quoted(encoding)} holds depth or other values, not a picture' if values else ''


def _camera_encoding(text: str) -> str:
    """The encoding of samples that are in a compressed image as they came; empty for a picture.

    Raises:
        ImageError: it holds depth, or another encoding that is no picture.
    """
    camera, semicolon, how = (part.strip() for part in text.partition(';'))
    if 'compresseddepth' in text.lower():
        raise ImageError(f'format {quoted(text)} holds depth, not a picture')
    words = how.split()
    if not semicolon or (words and words[-1] in ENCODINGS):
        return ''  # a picture, converted when it was compressed
    if re.fullmatch(VALUES, camera) and camera not in ENCODINGS:
        raise ImageError(f'unknown encoding {quoted(camera)}, in the format {quoted(text)}')
    own = camera.startswith('bayer_') or camera in _YUV422 or camera == 'mono16'
    return camera if own and camera in ENCODINGS else ''


def _samples_to_rgb(samples: np.ndarray, encoding: str) -> np.ndarray:
    """A camera's samples, decoded as a grey picture: uint8 or uint16, (rows, columns)."""
    height, width = samples.shape
    if encoding in _YUV422:
        width //= 2  # two samples to a pixel
    if samples.dtype == np.uint8 and encoding.endswith('16'):
        encoding = 'mono8' if encoding == 'mono16' else f'{encoding[:-2]}8'
    elif samples.dtype == np.uint16 and encoding.endswith('8'):
        encoding = f'{encoding[:-1]}16'
    raw = SimpleNamespace(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(sys.byteorder == 'big'),
        step=samples.strides[0],
        data=samples.reshape(-1).view(np.uint8),
    )
    return image_to_rgb(raw)


def stamp_seconds(header: Any) -> float:
    """The stamp of a message's header, in seconds."""
    return float(header.stamp.sec + header.stamp.nanosec / 1e9)


def stamp_nanoseconds(header: Any) -> int:
    """Likewise, in nanoseconds."""
    return int(header.stamp.sec) * 1_000_000_000 + int(header.stamp.nanosec)


def copy_rgb(image: np.ndarray, out: np.ndarray) -> None:
    """Copies an image into a contiguous array.

    numpy's own copy of reversed, padded or broadcast channels takes 7 to 9 ms at 1920x1080, since
    its inner loop has three elements.

    Args:
        image: uint8 RGB (H, W, 3), of any strides.
        out: of the same shape, C-contiguous; overwritten.
    """
    pixel_and_channel = image.strides[1:]
    if pixel_and_channel == (3, 1):
        out[:] = image
    elif pixel_and_channel == (3, -1):
        import cv2

        cv2.cvtColor(image[..., ::-1], cv2.COLOR_BGR2RGB, dst=out)
    else:
        for channel in range(3):
            out[..., channel] = image[..., channel]


def _check(message: Image) -> None:
    encoding, height, width = message.encoding, message.height, message.width
    if encoding not in ENCODINGS:
        raise ImageError(f'unknown encoding {quoted(encoding)}; known are {", ".join(ENCODINGS)}')
    if height == 0 or width == 0:
        raise ImageError(f'the image has no pixels: it is {width} x {height}')
    if encoding in _YUV422 and width % 2:
        raise ImageError(f'{encoding} has two pixels to a sample; the width {width} is odd')
    if encoding in _YUV420 and (width % 2 or height % 2):
        raise ImageError(
            f'{encoding} has 2 x 2 pixels to a sample; the size {width} x {height} is odd'
        )
    row_bytes = width * _pixel_bytes(encoding)
    if message.step < row_bytes:
        raise ImageError(
            f'step {message.step} is less than the {row_bytes} bytes of a row of {width} '
            f'{encoding} pixels'
        )
    # The last row may lack its padding.
    needed = message.step * (_num_rows(message) - 1) + row_bytes
    if len(message.data) < needed:
        raise ImageError(
            f'{len(message.data)} bytes of data where {width} x {height} {encoding} pixels with '
            f'step {message.step} need {needed}'
        )


def _pixel_bytes(encoding: str) -> int:
    if encoding in _PACKED:
        channels, bits = _PACKED[encoding]
        return channels * bits // 8
    return 2 if encoding in _YUV422 or encoding.endswith('16') else 1


def _num_rows(message: Image) -> int:
    # The Y rows are followed by half as many rows of interleaved UV.
    return message.height * 3 // 2 if message.encoding in _YUV420 else message.height


def _rows(message: Image, channels: int, bits: int) -> np.ndarray:
    """A view of the data as (rows, width, channels), without the rows' padding."""
    dtype = np.dtype('u1' if bits == 8 else '>u2' if message.is_bigendian else '<u2')
    rows: np.ndarray = np.ndarray(
        (_num_rows(message), message.width, channels),
        dtype,
        buffer=message.data,
        strides=(message.step, channels * dtype.itemsize, dtype.itemsize),
    )
    return rows


def _packed_to_rgb(pixels: np.ndarray, encoding: str) -> np.ndarray:
    if pixels.shape[2] == 1:
        # Repeats the channel with a stride of 0.
        rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    elif encoding.startswith(('bgr', '8UC')):  # OpenCV's colour images are BGR
        rgb = pixels[..., 2::-1]
    else:
        rgb = pixels[..., :3]
    return to_8_bits(rgb)


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """uint16 as uint8, rounded; uint8 as it is."""
    if pixels.dtype == np.uint8:
        return pixels
    # round(value * 255 / 65535), exactly
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _coloured(pixels: np.ndarray, conversion: str) -> np.ndarray:
    import cv2  # 40 MB, only for the encodings that need it

    rgb: np.ndarray = cv2.cvtColor(np.ascontiguousarray(pixels), getattr(cv2, conversion))
    return rgb


def _suits_cv_bridge(message: Image) -> bool:
    """cv_bridge fails if step is not a whole number of pixels, or (numpy 2) on big-endian data."""
    return not message.is_bigendian and message.step % _pixel_bytes(message.encoding) == 0
