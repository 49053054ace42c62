"""Camera image -> network input: pad to the input's aspect, resize, normalise; and the way back.

Source: tfjs-models/posenet 2.2.2, util.ts (padAndResizeTo, scaleAndFlipPoses), mobilenet.ts and
resnet.ts (preprocessInput); tfjs-core 3.21 cpu backend, ResizeBilinear.ts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from posenet_ros.core.jit import jit
from posenet_ros.errors import ImageError

# What the reference adds to R, G, B for ResNet50.
RESNET_MEAN = np.array([-123.15, -115.90, -103.06], np.float32)

# Of each input column: left and right source column, the right one's weight; then from which
# column and to which one eight bytes can be read.
_Columns = tuple[np.ndarray, np.ndarray, np.ndarray, int, int]

# With at most 5 bytes per pixel, one load of eight bytes reads the colours of two neighbours.
MAX_PIXEL_BYTES = 5


@dataclass(frozen=True)
class Letterbox:
    """How an image is fitted into the network input: centred, with black bars.

    The padding is in image pixels and the same on both sides, as in the reference.
    """

    image_height: int
    image_width: int
    input_height: int
    input_width: int
    pad_y: int
    pad_x: int

    @classmethod
    def fit(
        cls, image_height: int, image_width: int, input_height: int, input_width: int
    ) -> Letterbox:
        """Chooses the padding that gives the image the aspect of the input."""
        target_aspect = input_width / input_height
        pad_y = pad_x = 0
        if image_width / image_height < target_aspect:
            pad_x = math.floor(0.5 * (target_aspect * image_height - image_width) + 0.5)
        else:
            pad_y = math.floor(0.5 * ((1 / target_aspect) * image_width - image_height) + 0.5)
        return cls(image_height, image_width, input_height, input_width, pad_y, pad_x)

    @property
    def scale(self) -> float:
        """Image pixels per pixel of the network input."""
        return (self.image_height + 2 * self.pad_y) / self.input_height

    def to_image(self, keypoints: np.ndarray) -> np.ndarray:
        """Input pixels to image pixels.

        Args:
            keypoints: (..., 2) x and y in pixels of the network input.

        Returns:
            (..., 2) float64 x and y in pixels of the image, which may lie outside it.
        """
        scale_x = (self.image_width + 2 * self.pad_x) / self.input_width
        scale_y = (self.image_height + 2 * self.pad_y) / self.input_height
        placed = np.array(keypoints, np.float64, order='C')
        _place(placed.reshape(-1, 2), scale_x, scale_y, self.pad_x, self.pad_y)
        return placed


@jit
def _place(points: np.ndarray, scale_x: float, scale_y: float, pad_x: int, pad_y: int) -> None:
    for i in range(len(points)):
        points[i, 0] = points[i, 0] * scale_x - pad_x
        points[i, 1] = points[i, 1] * scale_y - pad_y


def mirror(keypoints: np.ndarray, image_width: int) -> None:
    """Mirrors x, in place, as the reference's flipHorizontal does.

    The coordinates alone are mirrored: neither the image nor the names left and right.
    """
    keypoints[..., 0] = image_width - 1 - keypoints[..., 0]


def check_image(image: np.ndarray) -> None:
    """Checks that an array is an RGB image.

    Raises:
        ImageError: it is not uint8 of shape (height, width, 3), or has no pixels.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f'an image is a numpy array of uint8; this one is {kind}')
    if image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(f'an image has the shape (height, width, 3); this one has {image.shape}')
    if 0 in image.shape:
        raise ImageError(f'an image has at least one pixel; this one has the shape {image.shape}')


def preprocess(image: np.ndarray, architecture: str, out: np.ndarray) -> Letterbox:
    """Fills the network input from an image.

    Args:
        image: uint8 RGB, (H, W, 3), of any strides: a BGR image passes as image[..., ::-1].
        architecture: MobileNetV1 (x / 127.5 - 1) or ResNet50 (mean added).
        out: float32 (3, input height, input width), C-contiguous; overwritten.

    Returns:
        How the image was fitted, which maps keypoints back to it.
    """
    height, width = image.shape[:2]
    letterbox = Letterbox.fit(height, width, *out.shape[1:])
    memory, strides = _memory(image)
    resnet = architecture == 'ResNet50'
    _pad_resize_normalise(
        memory, height, width, strides, letterbox.pad_y, letterbox.pad_x, resnet, RESNET_MEAN, out
    )
    return letterbox


def _memory(image: np.ndarray) -> tuple[np.ndarray, tuple[int, int, int, int, int]]:
    """An image as flat memory and strides, so that one compiled function reads every layout.

    RGB, BGR, a fourth channel, one channel broadcast to three and padded rows are all read in
    place. An image whose rows or columns run backwards or have gaps is copied.

    Returns:
        The bytes, read-only; and five offsets in bytes: to the next row, to the next pixel, and to
        red, green and blue within a pixel.
    """
    row, pixel, channel = image.strides
    height, width, _ = image.shape
    if row < 0 or not 0 < pixel <= MAX_PIXEL_BYTES or abs(channel) > 1:
        image = np.array(image, order='C')
        row, pixel, channel = 3 * width, 3, 1
    first = image[..., ::-1] if channel < 0 else image
    size = (height - 1) * row + (width - 1) * pixel + 2 * abs(channel) + 1
    memory = np.lib.stride_tricks.as_strided(first, (size,), (1,), writeable=False)
    red = 2 if channel < 0 else 0
    return memory, (row, pixel, red, red + channel, red + 2 * channel)


@jit
def _pad_resize_normalise(
    memory: np.ndarray,
    height: int,
    width: int,
    strides: tuple[int, int, int, int, int],
    pad_y: int,
    pad_x: int,
    resnet: bool,
    mean: np.ndarray,
    out: np.ndarray,
) -> None:
    padded_height, padded_width = height + 2 * pad_y, width + 2 * pad_x
    input_height, input_width = out.shape[1:]
    scale_y, scale_x = padded_height / input_height, padded_width / input_width

    # The same in every row: left and right source column, and the weight of the right one.
    left = np.empty(input_width, np.int64)
    right = np.empty(input_width, np.int64)
    fraction_x = np.empty(input_width, np.float64)
    for x in range(input_width):
        source = scale_x * x
        floor = math.floor(source)
        left[x] = floor - pad_x
        right[x] = min(padded_width - 1, math.ceil(source)) - pad_x
        fraction_x[x] = source - floor
    # From inner_start to inner_end, eight bytes can be read without leaving the image; the left
    # column is never the image's last one there.
    last_offset = (width - 1) * strides[1] + max(strides[2], strides[4]) - 7
    inner_start = 0
    while inner_start < input_width and left[inner_start] < 0:
        inner_start += 1
    inner_end = inner_start
    while inner_end < input_width and left[inner_end] * strides[1] <= last_offset:
        inner_end += 1
    columns = (left, right, fraction_x, inner_start, inner_end)

    packed = np.empty(input_width, np.uint64)
    above = np.empty((3, input_width), np.float64)
    below = np.empty((3, input_width), np.float64)
    in_above = in_below = -pad_y - 1  # the image row that each holds; none yet
    for y in range(input_height):
        source = scale_y * y
        floor = math.floor(source)
        top = floor - pad_y
        bottom = min(padded_height - 1, math.ceil(source)) - pad_y
        fraction_y = source - floor
        if bottom < 0 or top >= height:
            for channel in range(3):
                out[channel, y] = mean[channel] if resnet else np.float32(-1.0)  # black
            continue
        if top == in_below:
            above, below, in_above, in_below = below, above, in_below, in_above
        if top != in_above:
            _resize_row(memory, height, width, strides, top, columns, packed, above)
            in_above = top
        if bottom != in_below:
            _resize_row(memory, height, width, strides, bottom, columns, packed, below)
            in_below = bottom
        for channel in range(3):
            _blend(above[channel], below[channel], fraction_y, out[channel, y])
            if resnet:
                _add(mean[channel], out[channel, y])
            else:
                _normalise(out[channel, y])


@jit
def _resize_row(
    memory: np.ndarray,
    height: int,
    width: int,
    strides: tuple[int, int, int, int, int],
    y: int,
    columns: _Columns,
    packed: np.ndarray,
    out: np.ndarray,
) -> None:
    """Interpolates an image row at the input's columns, (3, columns); black outside the image."""
    left, right, fraction, inner_start, inner_end = columns
    if y < 0 or y >= height:
        out[:] = 0.0
        return
    row, pixel = y * strides[0], strides[1]
    _gather(memory, row, pixel, left[inner_start:inner_end], packed[inner_start:inner_end])
    for channel in range(3):
        offset = strides[2 + channel]
        _resize_channel(
            packed[inner_start:inner_end],
            fraction[inner_start:inner_end],
            np.uint64(8 * offset),
            np.uint64(8 * (offset + pixel)),
            out[channel, inner_start:inner_end],
        )
        for x in range(inner_start):
            out[channel, x] = _between(
                memory, row + offset, width, pixel, left[x], right[x], fraction[x]
            )
        for x in range(inner_end, len(left)):
            out[channel, x] = _between(
                memory, row + offset, width, pixel, left[x], right[x], fraction[x]
            )


@jit
def _gather(memory: np.ndarray, start: int, pixel: int, left: np.ndarray, out: np.ndarray) -> None:
    """Loads eight bytes at each left column: they hold the right neighbour's colours too."""
    for x in range(len(left)):
        out[x] = _eight_bytes(memory, start + left[x] * pixel)


@jit
def _eight_bytes(memory: np.ndarray, start: int) -> np.uint64:
    """Eight bytes as a little-endian integer; LLVM makes a single load of it."""
    start = np.uint64(start)  # unsigned, so that numba adds no check for negative indices
    value = np.uint64(memory[start])
    for i in range(1, 8):
        value |= np.uint64(memory[start + np.uint64(i)]) << np.uint64(8 * i)
    return value


@jit
def _resize_channel(
    packed: np.ndarray,
    fraction: np.ndarray,
    left_shift: np.uint64,
    right_shift: np.uint64,
    out: np.ndarray,
) -> None:
    for x in range(len(packed)):
        a = np.int32((packed[x] >> left_shift) & np.uint64(255))
        b = np.int32((packed[x] >> right_shift) & np.uint64(255))
        out[x] = a + (b - a) * fraction[x]


@jit
def _between(
    memory: np.ndarray, start: int, width: int, pixel: int, left: int, right: int, fraction: float
) -> float:
    """One column of one channel at the image's left or right border; black beyond it."""
    a = float(memory[start + left * pixel]) if 0 <= left < width else 0.0
    b = float(memory[start + right * pixel]) if 0 <= right < width else 0.0
    return a + (b - a) * fraction


# The reference rounds to float32 after resizing, after dividing and at the end.


@jit
def _blend(above: np.ndarray, below: np.ndarray, fraction: float, out: np.ndarray) -> None:
    for x in range(len(out)):
        out[x] = np.float32(above[x] + (below[x] - above[x]) * fraction)


@jit
def _normalise(row: np.ndarray) -> None:
    for x in range(len(row)):
        row[x] = row[x] / np.float32(127.5) - np.float32(1.0)


@jit
def _add(value: np.float32, row: np.ndarray) -> None:
    for x in range(len(row)):
        row[x] += value
