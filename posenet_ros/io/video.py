"""Video files and cameras: read frame by frame, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posenet_ros.errors import ImageError, PoseNetError
from posenet_ros.io.atomic_file import atomic_path

if TYPE_CHECKING:  # 40 MB: imported by whoever opens a video
    import cv2

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


@dataclass(frozen=True)
class Frame:
    """One frame of a video."""

    index: int
    seconds: float  # from the start of the video
    image: np.ndarray  # uint8 RGB (H, W, 3), C-contiguous


class Video:
    """A video file, or a camera by number, as an iterator of frames. Close it after use.

    Raises:
        ImageError: it cannot be opened.
    """

    def __init__(self, source: Path | int) -> None:
        import cv2

        self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        if not self._capture.isOpened():
            self._capture.release()
            what = f'camera {source}' if isinstance(source, int) else f'video {source}'
            raise ImageError(f'{what} cannot be opened')
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else 30.0
        self.num_frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[Frame]:
        import cv2

        index = 0
        while True:
            good, image = self._capture.read()
            if not good:
                return
            yield Frame(index, index / self.fps, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            index += 1

    def close(self) -> None:
        self._capture.release()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class VideoWriter:
    """Writes a video in the format of its suffix; the file appears when the block succeeds."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._file = atomic_path(path)

    def __enter__(self) -> VideoWriter:
        self._part = self._file.__enter__()
        return self

    def write(self, image: np.ndarray) -> None:
        """Adds a frame: uint8 RGB, all of one size.

        Raises:
            PoseNetError: the format cannot be written.
        """
        import cv2

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

    def __exit__(self, *error: Any) -> None:
        if self._writer is not None:
            self._writer.release()
        self._file.__exit__(*error)
