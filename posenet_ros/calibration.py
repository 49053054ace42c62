"""The images that int8 is made with: the user's own, or generated ones."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posenet_ros.errors import ImageError
from posenet_ros.files import expanded
from posenet_ros.preprocess import Letterbox, preprocess

NUM_IMAGES = 32
FEW_IMAGES = 8  # of which a warning tells
SEED = 0
# Part of the set's name: raise it when generated_images gives others.
GENERATOR_VERSION = 1


logger = logging.getLogger('posenet_ros')


@dataclass(frozen=True)
class CalibrationSet:
    """Where the images come from, and what tells one set from another."""

    source: str | None  # a photo, a folder, a video or a bag; None for generated images
    sha256: str  # of the chosen images; of their recipe where they are generated

    @classmethod
    def of(cls, source: str | None) -> CalibrationSet:
        """Reads what is there, so that its hash is known.

        Raises:
            ImageError, PoseNetError: there are no images, or they cannot be read.
        """
        digest = hashlib.sha256()
        if source is None:
            digest.update(f'generated {GENERATOR_VERSION} {NUM_IMAGES} {SEED}'.encode())
        else:
            count = 0
            for image in sampled_images(expanded(source), NUM_IMAGES):
                count += 1
                digest.update(f'{image.shape}'.encode())
                digest.update(np.ascontiguousarray(image).tobytes())
            if count < FEW_IMAGES:
                logger.warning(
                    'int8 is calibrated with %d image(s) of %s; %d or more of different scenes '
                    'are better',
                    count,
                    source,
                    FEW_IMAGES,
                )
        return cls(source, digest.hexdigest())

    def inputs(self, height: int, width: int, architecture: str) -> np.ndarray:
        """The images as the network sees them: float32 (n, 3, height, width)."""
        if self.source is None:
            images = generated_images(NUM_IMAGES, height, width)
        else:
            images = sampled_images(expanded(self.source), NUM_IMAGES)
        inputs = []
        for image in images:
            tensor = np.zeros((3, height, width), np.float32)
            letterbox = Letterbox.fit(image.shape[0], image.shape[1], height, width)
            preprocess(image, letterbox, architecture, tensor)
            inputs.append(tensor)
        return np.stack(inputs)


def sampled_images(path: Path, count: int) -> Iterator[np.ndarray]:
    """Some images of a photo, a folder, a video or a bag, the same ones every time.

    Args:
        path: of the photo, the folder of photos, the video, or the rosbag2 folder or file.
        count: most images.

    Yields:
        uint8 RGB (H, W, 3), in the source's order.

    Raises:
        ImageError: there are none, or one cannot be read.
        PoseNetError: a bag cannot be read, or its package is missing.
    """
    from posenet_ros.media import VIDEO_SUFFIXES, Video, images_in, read_image

    if path.is_dir() and not (path / 'metadata.yaml').exists():
        paths = images_in(path)
        for i in _chosen(len(paths), count):
            yield read_image(paths[i])
    elif path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        with Video(path) as video:
            total = video.num_frames
        if not total:  # a stream of JPEGs does not tell
            with Video(path) as video:
                total = sum(1 for _ in video)
        with Video(path) as video:
            chosen = set(_chosen(total, count))
            empty = True
            for i, frame in enumerate(video):
                if i in chosen:
                    empty = False
                    yield frame.image
            if empty:
                raise ImageError(f'{path} holds no frame that can be read')
    elif path.is_dir() or path.suffix in ('.mcap', '.db3'):
        from posenet_ros.bag import bag_images

        yield from bag_images(path, lambda total: _chosen(total, count))
    else:
        yield read_image(path)


def _chosen(total: int, count: int) -> list[int]:
    """Which of `total` are taken: all, or as many as wanted at random, in their order."""
    if total <= count:
        return list(range(total))
    return sorted(np.random.default_rng(SEED).choice(total, count, replace=False).tolist())


def generated_images(count: int, height: int, width: int) -> Iterator[np.ndarray]:
    """Images of shapes that cover each other, as things in photos do ("dead leaves").

    Their edges, areas and contrasts are distributed much as those of photos (Lee, Mumford and
    Huang, 2001), which is what the ranges and moments of a network's activations depend on.

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
    """Paints polygons on float32 RGB: plain ones, and large ones shaded or striped."""
    import cv2

    height, width = canvas.shape[:2]
    size = max(height, width) / 2
    saturation = generator.uniform(0.1, 1)
    # Sizes by the power law -3, as things at all distances have; and some things close by.
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
