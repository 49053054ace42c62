"""Sizes of the network's input: which ones a stride allows, and which one suits an image."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

Size = tuple[int, int]  # height and width in pixels

# Images that are longer get black borders, so that one network serves all images.
MAX_ASPECT = 2.5
_SLACK = 1.02  # an input may have this many times the pixels that were asked for


class InputSizes(NamedTuple):
    """The inputs that a network is made for: all of the same size, or a range of sizes."""

    smallest: Size
    typical: Size  # what most images need
    largest: Size

    @property
    def fixed(self) -> bool:
        return self.smallest == self.largest

    @classmethod
    def of(cls, sizes: list[Size]) -> InputSizes:
        """The range of some sizes, of which the first is the typical one."""
        heights, widths = zip(*sizes, strict=True)
        return cls((min(heights), min(widths)), sizes[0], (max(heights), max(widths)))

    def __str__(self) -> str:
        shown = [f'{width} x {height}' for height, width in (self.smallest, self.largest)]
        return shown[0] if self.fixed else f'{shown[0]} to {shown[1]}'


def valid_input_size(size: float, output_stride: int) -> int:
    """Rounds a requested input size, in pixels, to one that the network takes.

    A multiple of the stride plus 1 stays as it is. Any other size is rounded down to a multiple of
    the stride, then 1 is added: at stride 16, 256 becomes 257. Source: tfjs-models/posenet 2.2.2,
    util.ts, toValidInputResolution.
    """
    if (size - 1) % output_stride == 0:
        return int(size)
    return math.floor(size / output_stride) * output_stride + 1


@functools.lru_cache(maxsize=1024)
def fitted_input_size(pixels: float, height: int, width: int, output_stride: int) -> Size:
    """The input that shows an image largest, with about as many pixels as asked for.

    Args:
        pixels: of the input, all together; at most 2% more are taken.
        height: of the image, in pixels.
        width: of the image, in pixels.
        output_stride: input pixels per heatmap cell.
    """
    aspect = min(max(width / height, 1 / MAX_ASPECT), MAX_ASPECT)
    most = _SLACK * pixels
    best, best_scale = (1, 1), 0.0
    tallest = int(math.sqrt(most * MAX_ASPECT)) + output_stride
    for input_height in range(1, tallest + 1, output_stride):
        widest = int((most / input_height - 1) // output_stride) * output_stride + 1
        if widest < 1:
            break
        needed = math.ceil((input_height * aspect - 1) / output_stride) * output_stride + 1
        input_width = max(1, min(widest, needed))
        scale = min(input_height, input_width / aspect)
        if scale > best_scale:
            best, best_scale = (input_height, input_width), scale
    return best
