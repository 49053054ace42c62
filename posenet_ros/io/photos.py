"""Photos: read as RGB arrays, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from posenet_ros.errors import ImageError, PoseNetError
from posenet_ros.io.atomic_file import atomic_path

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')


def read_image(path: Path) -> np.ndarray:
    """Reads a photo as uint8 RGB, (H, W, 3).

    Raises:
        ImageError: there is no such file, or it is no image.
    """
    import cv2  # 40 MB, and not needed to list photos

    if not path.is_file():
        raise ImageError(f'there is no image file {path}')
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ImageError(f'{path} is not an image that can be read')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def images_in(folder: Path) -> list[Path]:
    """The photos of a folder, by name.

    Raises:
        ImageError: there are none.
    """
    paths = sorted(
        path
        for path in folder.iterdir()
        # macOS writes ._a.jpg beside a.jpg; it is no image.
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.')
    )
    if not paths:
        raise ImageError(f'{folder} holds no image ({", ".join(IMAGE_SUFFIXES)})')
    return paths


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes uint8 RGB; the format follows the suffix.

    Raises:
        PoseNetError: the suffix is unknown, or the file cannot be written.
    """
    import cv2

    with atomic_path(path) as part:
        try:
            written = cv2.imwrite(str(part), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        except cv2.error as error:
            raise PoseNetError(
                f'cannot write {path}: {path.suffix or "no suffix"} is not an image format'
            ) from error
        if not written:
            raise PoseNetError(f'cannot write {path}')
