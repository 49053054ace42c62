"""The images that int8 is calibrated with: the user's own, or generated ones."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from posenet_ros.core.preprocess import preprocess
from posenet_ros.environment import expanded
from posenet_ros.io.sampling import fingerprint, sampled_images

NUM_IMAGES = 32
FEW_IMAGES = 8  # fewer give a warning
SEED = 0
# Part of the cache keys: increase it when generated_images changes its images.
GENERATOR_VERSION = 1

logger = logging.getLogger('posenet_ros')


@dataclass(frozen=True)
class CalibrationSet:
    """Where the images come from: a photo, a folder, a video or a bag; None generates them."""

    source: str | None = None

    def fingerprint(self) -> str:
        """A hash that tells one set from another, without decoding an image.

        Raises:
            ImageError: there are no files, or they cannot be read.
        """
        if self.source is None:
            recipe = f'generated {GENERATOR_VERSION} {NUM_IMAGES} {SEED}'
            return hashlib.sha256(recipe.encode()).hexdigest()
        return fingerprint(expanded(self.source), NUM_IMAGES)

    def inputs(self, height: int, width: int, architecture: str) -> np.ndarray:
        """The images as network inputs: float32 (n, 3, height, width).

        Raises:
            ImageError, PoseNetError: there are no images, or they cannot be read.
        """
        if self.source is None:
            images = generated_images(NUM_IMAGES, height, width)
        else:
            images = sampled_images(expanded(self.source), NUM_IMAGES)
        inputs = []
        for image in images:
            tensor = np.zeros((3, height, width), np.float32)
            preprocess(image, architecture, tensor)
            inputs.append(tensor)
        if len(inputs) < FEW_IMAGES:
            logger.warning(
                'int8 is calibrated with %d image(s) of %s; %d or more of different scenes are '
                'better',
                len(inputs),
                self.source,
                FEW_IMAGES,
            )
        return np.stack(inputs)


def generated_images(count: int, height: int, width: int) -> Iterator[np.ndarray]:
    """Images of shapes that occlude each other, the "dead leaves" model of natural images.

    Edges, areas and contrasts are distributed much as in photos (Lee, Mumford and Huang, 2001),
    and the ranges and moments of a network's activations depend on these.

    Yields:
        uint8 RGB (height, width, 3).
    """
    import cv2

    generator = np.random.default_rng(SEED)
    for _ in range(count):
        canvas = np.full((2 * height, 2 * width, 3), generator.uniform(0, 255, 3), np.float32)
        _cover_with_leaves(canvas, generator)
        image = cv2.GaussianBlur(np.clip(canvas, 0, 255), (0, 0), generator.uniform(0.5, 2))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        # Contrast, exposure and noise of a camera.
        image = 128 + generator.uniform(0.5, 1.2) * (image - 128) + generator.normal(0, 25)
        image += generator.normal(0, generator.uniform(0, 8), image.shape)
        yield np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _cover_with_leaves(canvas: np.ndarray, generator: np.random.Generator) -> None:
    """Paints polygons on float32 RGB: plain ones, and large ones with a gradient or stripes."""
    import cv2

    height, width = canvas.shape[:2]
    size = max(height, width) / 2
    saturation = generator.uniform(0.1, 1)
    # Radii by a power law of -3, as for objects at all distances, and some large ones.
    radii = np.minimum(2 / np.sqrt(generator.uniform(1e-4, 1, 700)), size / 2)
    close = generator.integers(10, 50)
    radii[:close] = generator.uniform(size / 6, size / 1.5, close)
    for radius in radii:
        centre = generator.uniform((0, 0), (width, height))
        colour = generator.uniform(0, 255, 3)
        colour = colour.mean() + saturation * (colour - colour.mean())
        corners = generator.integers(3, 12)
        angles = np.sort(generator.uniform(0, 2 * np.pi, corners))
        reach = radius * generator.uniform(0.5, 1.5, corners)
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        outline = (centre + reach[:, None] * directions).astype(np.int32)
        if radius < 12 or generator.random() < 0.6:
            cv2.fillPoly(canvas, [outline], colour.tolist())
            continue
        left, top = np.clip(outline.min(axis=0), 0, (width - 1, height - 1))
        right, bottom = np.clip(outline.max(axis=0) + 1, (left + 1, top + 1), (width, height))
        inside = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(inside, [outline - (left, top)], 1)
        rows, columns = np.mgrid[top:bottom, left:right] - centre[::-1, None, None]
        across, down = generator.normal(size=2)
        shade = (columns * across + rows * down) / radius
        if generator.random() < 0.4:
            shade = np.sin(shade * generator.uniform(3, 25))
        tint = 40 * (saturation * generator.normal(size=3) + generator.normal())
        part = canvas[top:bottom, left:right]
        part[inside > 0] = (colour + shade[..., None] * tint)[inside > 0]
