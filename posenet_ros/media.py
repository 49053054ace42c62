"""Photos, folders and videos: read as RGB frames, written whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from posenet_ros.errors import ImageError, PoseNetError
from posenet_ros.files import atomic_path

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


@dataclass(frozen=True)
class Frame:
    """One image of a source."""

    name: str  # file name, or frame number
    seconds: float  # from the start of the source
    image: np.ndarray  # uint8 RGB (H, W, 3), C-contiguous


def read_image(path: Path) -> np.ndarray:
    """Reads a photo as uint8 RGB, (H, W, 3).

    Raises:
        ImageError: there is no such file, or it is no image.
    """
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
        # ._a.jpg is what macOS leaves beside a.jpg: no image.
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.')
    )
    if not paths:
        raise ImageError(f'{folder} holds no image ({", ".join(IMAGE_SUFFIXES)})')
    return paths


class Video:
    """A video file, or a camera by number, as an iterator of frames. Close it after use.

    Raises:
        ImageError: it cannot be opened.
    """

    def __init__(self, source: Path | int) -> None:
        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        if not self._capture.isOpened():
            self._capture.release()
            what = f'camera {source}' if isinstance(source, int) else f'video {source}'
            raise ImageError(f'{what} cannot be opened')
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else 30.0
        self.num_frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while True:
            good, image = self._capture.read()
            if not good:
                return
            yield Frame(str(index), index / self.fps, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            index += 1

    def close(self) -> None:
        self._capture.release()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_image(path: Path, image: np.ndarray) -> None:
    """Writes uint8 RGB; the format follows the suffix.

    Raises:
        PoseNetError: the suffix is unknown, or the file cannot be written.
    """
    with atomic_path(path) as part:
        try:
            written = cv2.imwrite(str(part), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        except cv2.error as error:
            raise PoseNetError(
                f'cannot write {path}: {path.suffix or "no suffix"} is not an image format'
            ) from error
        if not written:
            raise PoseNetError(f'cannot write {path}')


class VideoWriter:
    """An mp4 (or what the suffix says) that appears under its name when it is closed well."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._stack = contextlib.ExitStack()
        self._part = path

    def __enter__(self) -> VideoWriter:
        self._part = self._stack.enter_context(atomic_path(self._path))
        return self

    def write(self, image: np.ndarray) -> None:
        """Adds a frame: uint8 RGB, all of one size.

        Raises:
            PoseNetError: the format cannot be written.
        """
        if self._writer is None:
            codec = 'MJPG' if self._path.suffix.lower() == '.avi' else 'mp4v'
            self._writer = cv2.VideoWriter(
                str(self._part),
                cv2.VideoWriter.fourcc(*codec),
                self._fps,
                (image.shape[1], image.shape[0]),
            )
            if not self._writer.isOpened():
                raise PoseNetError(f'cannot write a video to {self._path}; try .mp4')
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.release()
        self._stack.__exit__(*error)  # type: ignore[arg-type]
