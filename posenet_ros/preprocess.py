"""Camera image -> network input: pad to the input's aspect, resize, normalise; and the way back.

Source: tfjs-models/posenet 2.2.2, util.ts (padAndResizeTo, scaleAndFlipPoses), mobilenet.ts and
resnet.ts (preprocessInput); tfjs-core 3.21 cpu backend, ResizeBilinear.ts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np

from posenet_ros.errors import ImageError

# What the reference adds to R, G, B for ResNet50.
RESNET_MEAN = np.array([-123.15, -115.90, -103.06], np.float32)


@dataclass(frozen=True)
class Letterbox:
    """How an image of one size is fitted into an input of one size: centred, black around it.

    The padding is in pixels of the image, on both sides alike, as the reference pads.
    """

    image_height: int
    image_width: int
    input_height: int
    input_width: int
    pad_y: int
    pad_x: int

    @classmethod
    def fit(cls, image_height: int, image_width: int, input_height: int, input_width: int):
        """Chooses the padding that gives the image the aspect of the input."""
        target_aspect = input_width / input_height
        pad_y = pad_x = 0
        if image_width / image_height < target_aspect:
            pad_x = math.floor(0.5 * (target_aspect * image_height - image_width) + 0.5)
        else:
            pad_y = math.floor(0.5 * ((1 / target_aspect) * image_width - image_height) + 0.5)
        return cls(image_height, image_width, input_height, input_width, pad_y, pad_x)

    def to_image(self, keypoints: np.ndarray, flip_horizontal: bool = False) -> np.ndarray:
        """Input pixels to image pixels.

        Args:
            keypoints: (..., 2) x and y in pixels of the network input.
            flip_horizontal: mirror x. The reference mirrors the coordinates alone: neither the
                image nor the names left and right.

        Returns:
            (..., 2) float64 x and y in pixels of the image, which may lie outside it.
        """
        scale_x = (self.image_width + 2 * self.pad_x) / self.input_width
        scale_y = (self.image_height + 2 * self.pad_y) / self.input_height
        placed = np.asarray(keypoints, np.float64) * (scale_x, scale_y) - (self.pad_x, self.pad_y)
        if flip_horizontal:
            placed[..., 0] = self.image_width - 1 - placed[..., 0]
        return placed


def check_image(image: np.ndarray) -> None:
    """Refuses what is not an RGB image.

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


def preprocess(image: np.ndarray, letterbox: Letterbox, architecture: str, out: np.ndarray) -> None:
    """Fills the network input from an image.

    Args:
        image: uint8 RGB, (H, W, 3), of any strides: a BGR image passes as image[..., ::-1].
        letterbox: fitted to that image and to `out`.
        architecture: MobileNetV1 (x / 127.5 - 1) or ResNet50 (mean added).
        out: float32 (input height, input width, 3), C-contiguous; overwritten.
    """
    resnet = architecture == 'ResNet50'
    # Numba compiles a form per layout. A read-only view leaves two: contiguous and strided.
    image = image.view()
    image.flags.writeable = False
    _pad_resize_normalise(image, letterbox.pad_y, letterbox.pad_x, resnet, RESNET_MEAN, out)


@numba.njit(cache=True, nogil=True)
def _pad_resize_normalise(image, pad_y, pad_x, resnet, mean, out):
    height, width = image.shape[0], image.shape[1]
    padded_height, padded_width = height + 2 * pad_y, width + 2 * pad_x
    input_height, input_width = out.shape[0], out.shape[1]
    scale_y, scale_x = padded_height / input_height, padded_width / input_width

    # Columns are the same in every row: left and right source column, and the way between them.
    left = np.empty(input_width, np.int64)
    right = np.empty(input_width, np.int64)
    fraction_x = np.empty(input_width, np.float64)
    for x in range(input_width):
        source = scale_x * x
        floor = math.floor(source)
        left[x] = floor - pad_x
        right[x] = min(padded_width - 1, math.ceil(source)) - pad_x
        fraction_x[x] = source - floor

    above = np.empty(3 * input_width, np.float64)
    below = np.empty(3 * input_width, np.float64)
    mean_row = np.empty(3 * input_width, np.float32)
    for i in range(3 * input_width):
        mean_row[i] = mean[i % 3]
    in_above = in_below = -pad_y - 1  # which row of the image each holds: none yet
    for y in range(input_height):
        source = scale_y * y
        floor = math.floor(source)
        top = floor - pad_y
        bottom = min(padded_height - 1, math.ceil(source)) - pad_y
        fraction_y = source - floor
        if top == in_below:
            above, below, in_above, in_below = below, above, in_below, in_above
        if top != in_above:
            _resize_row(image, top, left, right, fraction_x, above)
            in_above = top
        if bottom != in_below:
            _resize_row(image, bottom, left, right, fraction_x, below)
            in_below = bottom
        row = out[y].reshape(3 * input_width)
        # The reference rounds to float32 after resizing, after dividing and at the end.
        if resnet:
            for i in range(3 * input_width):
                row[i] = np.float32(above[i] + (below[i] - above[i]) * fraction_y) + mean_row[i]
        else:
            for i in range(3 * input_width):
                value = np.float32(above[i] + (below[i] - above[i]) * fraction_y)
                row[i] = value / np.float32(127.5) - np.float32(1.0)


@numba.njit(cache=True, nogil=True)
def _resize_row(image, y, left, right, fraction_x, out):
    """One row of the image at the input's columns; black outside the image."""
    height, width = image.shape[0], image.shape[1]
    if y < 0 or y >= height:
        out[:] = 0.0
        return
    y = np.uint64(y)  # unsigned indices cannot be negative, so none is checked for that
    for x in range(len(left)):
        x0, x1, fraction = left[x], right[x], fraction_x[x]
        if x0 >= 0 and x1 < width:
            u0, u1 = np.uint64(x0), np.uint64(x1)
            for c in range(3):
                value = np.int64(image[y, u0, c])
                out[3 * x + c] = value + (np.int64(image[y, u1, c]) - value) * fraction
        else:
            for c in range(3):
                a = float(image[y, x0, c]) if 0 <= x0 < width else 0.0
                b = float(image[y, x1, c]) if 0 <= x1 < width else 0.0
                out[3 * x + c] = a + (b - a) * fraction
