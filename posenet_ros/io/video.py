"""Video files, cameras and streams: read frame by frame; videos written whole or not at all.

PyAV reads and writes files: with the container's own times, in any version, where OpenCV derives
them, turns frames or not by its version, and crashes on some files and names. Cameras are OpenCV's.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from posenet_ros.atomic_file import partial_path
from posenet_ros.environment import dependencies_for
from posenet_ros.errors import ImageError, PoseNetError, reason
from posenet_ros.io.source import Source

# Names of the containers that are written, by their suffix.
CONTAINERS = {'.mp4': 'mp4', '.m4v': 'mp4', '.mov': 'mov', '.mkv': 'matroska', '.avi': 'avi'}
WRITABLE_SUFFIXES = tuple(CONTAINERS)
TICKS = 90_000  # per second, of the times that are written
STREAM_TIMEOUT = (10.0, 10.0)  # seconds to open a stream, and to wait for its next packet


@dataclass(frozen=True)
class Frame:
    """One frame of a video."""

    index: int
    seconds: float  # from the start of the video
    image: np.ndarray  # uint8 RGB (H, W, 3), C-contiguous


class Video:
    """A video file, a camera or a stream, as an iterator of frames. Close it after use.

    Frames are turned upright as the container says, and each has its own size.

    Attributes:
        fps: frames per second that it claims; 30 if it claims none.
        num_frames: that it claims, which is an estimate for many formats; 0 if it claims none.

    Raises:
        ImageError: it cannot be opened.
    """

    def __init__(self, source: Source | Path | int) -> None:
        self._name = f'camera {source}' if isinstance(source, int) else str(source)
        self._stack = contextlib.ExitStack()
        self._next = 0  # index of the next frame
        self._seconds = 0.0  # of the last one
        self._packets = 0  # that were read, of frames that are shown or not
        self._damage = ''
        try:
            if isinstance(source, int) or (isinstance(source, Source) and source.kind == 'camera'):
                self._frames = self._open_camera(source)
                self._is_file = False
            else:
                url = source.url if isinstance(source, Source) else ''
                path = source.path if isinstance(source, Source) else source
                self._frames = self._open_container(path, url)
                self._is_file = not url
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            yield Frame(self._next - 1, self._seconds, _upright_rgb(frame))

    def count(self) -> int:
        """The number of frames that are left, which are passed over."""
        return sum(1 for _ in self._frames)

    def shortfall(self) -> str:
        """How far a file that was read to its end is from what it claims; empty if it is whole.

        A claim of frames alone is an estimate for many formats; so the time has to be short, too.
        """
        enough = min(0.9 * self.num_frames, self.num_frames - 2)
        seconds = self.num_frames / self.fps
        # A container may hold frames that it says are not to be shown.
        whole = (
            max(self._next, self._packets) >= enough
            or self._seconds >= 0.9 * seconds - 1 / self.fps
        )
        if not self._is_file or (whole and not self._damage):
            return ''
        damage = f' ({self._damage})' if self._damage else ''
        claims = f' of the {self.num_frames} that it claims' if self.num_frames else ''
        return f'{self._name} is cut or damaged{damage}: {self._next} frames{claims} can be read'

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_container(self, path: Path, url: str) -> Iterator[Any]:
        """The decoded frames of a file or a stream."""
        av = _pyav()

        container: Any
        try:
            if url:
                container = av.open(url, timeout=STREAM_TIMEOUT, **_tolerant(av))
            else:
                # Opened here: FFmpeg would take parts of some names for something else.
                file = self._stack.enter_context(path.open('rb'))
                container = av.open(file, **_tolerant(av))
            self._stack.enter_context(container)
            if not container.streams.video:
                raise ImageError(f'{self._name} has no video in it')
            stream: Any = container.streams.video[0]
            stream.thread_type = 'AUTO'
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            self.fps = _believable(rate)
            seconds = float((stream.duration or 0) * stream.time_base)
            if not seconds and container.duration:
                seconds = container.duration / av.time_base
            self.num_frames = stream.frames or (0 if url else max(0, round(seconds * self.fps)))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise ImageError(
                f'{self._name} is not a video that can be opened: {reason(error)}'
            ) from error
        return self._decoded(container, stream)

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        offset: float | None = None
        for frame in self._readable(container, stream):
            after = self._seconds + 1 / self.fps if self._next else 0.0
            if frame.time is None:
                self._seconds = after
            else:
                if offset is None:
                    offset = -frame.time
                if frame.time + offset < self._seconds:  # a new beginning, as of a stream
                    offset = after - frame.time
                self._seconds = frame.time + offset
            self._next += 1
            yield frame

    def _readable(self, container: Any, stream: Any) -> Iterator[Any]:
        """The frames of all packets that can be decoded."""
        av = _pyav()

        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                self._damage = reason(error)
                return
            if packet is None:
                return
            self._packets += packet.size > 0
            try:
                yield from packet.decode()
            except EOFError:
                return
            except (av.FFmpegError, ValueError) as error:  # this packet alone
                self._damage = reason(error)

    def _open_camera(self, source: Source | int) -> Iterator[Any]:
        import cv2

        number: Any = source if isinstance(source, int) else source.number
        try:
            capture = cv2.VideoCapture(str(source) if number is None else number)
        except cv2.error as error:
            raise ImageError(f'{self._name} cannot be opened: {error}') from error
        self._stack.callback(capture.release)
        if not capture.isOpened():
            raise ImageError(f'{self._name} cannot be opened')
        self.fps = _believable(capture.get(cv2.CAP_PROP_FPS))
        self.num_frames = 0
        return self._captured(capture)

    def _captured(self, capture: Any) -> Iterator[Any]:
        import cv2

        started = None
        while True:
            try:
                good, image = capture.read()
            except cv2.error as error:
                raise ImageError(f'{self._name} cannot be read: {error}') from error
            if not good:
                return
            started = time.monotonic() if started is None else started
            self._seconds = time.monotonic() - started
            self._next += 1
            yield image


class VideoWriter:
    """Writes a video in the container of its suffix, H.264 where FFmpeg has it.

    Until the block succeeds it is NAME.partial.SUFFIX; what was there before stays until then.

    Args:
        path: of the video.
        fps: frames per second that it claims. Each frame is shown at its own time, but in .avi,
            which has no such times.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path = path
        self._rate = max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))
        self._container: Any = None
        self._stream: Any = None
        self._ticks = -1  # time of the last frame
        self._stack = contextlib.ExitStack()
        self.written = 0
        self.resized = 0  # frames of another size than the first

    def __enter__(self) -> VideoWriter:
        av = _pyav()

        self._part = self._stack.enter_context(partial_path(self._path, self._check))
        try:
            name = CONTAINERS.get(self._path.suffix.lower())
            if name is None:
                raise PoseNetError(
                    f'cannot write a video to {self._path}; its name should end in '
                    f'{", ".join(WRITABLE_SUFFIXES)}'
                )
            with self._errors():
                self._file = self._part.open('wb')
                self._container = av.open(self._file, 'w', format=name)
        except BaseException as error:
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def write(self, image: np.ndarray, seconds: float) -> None:
        """Adds a frame: uint8 RGB. One of another size than the first is scaled, with borders.

        Args:
            image: the frame.
            seconds: from the start of the video.

        Raises:
            PoseNetError: it cannot be written.
        """
        av = _pyav()

        with self._errors():
            if self._stream is None:
                self._add_stream(*image.shape[:2])
            frame = av.VideoFrame.from_ndarray(self._fitted(image), format='rgb24')
            frame.time_base = self._stream.codec_context.time_base
            self._ticks = max(self._ticks + 1, round(seconds / float(frame.time_base)))
            frame.pts = self._ticks
            self._container.mux(self._stream.encode(frame))
        self.written += 1

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            # What was written before an interruption is a video, too.
            with self._errors() if kind is None else contextlib.suppress(Exception):
                if self._stream is not None:
                    self._container.mux(self._stream.encode(None))
                self._container.close()
                self._file.close()
        except PoseNetError as failure:
            with contextlib.suppress(OSError):
                self._file.close()
            self._part.unlink(missing_ok=True)
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        if kind is not None and _frames_in(self._part) == 0:
            self._part.unlink(missing_ok=True)  # nothing of it could be shown
        self._stack.__exit__(kind, error, trace)

    def _add_stream(self, height: int, width: int) -> None:
        av = _pyav()

        avi = self._path.suffix.lower() == '.avi'
        h264 = not avi and 'libx264' in av.codecs_available
        self._stream = self._container.add_stream('libx264' if h264 else 'mpeg4', rate=self._rate)
        # The usual colours of videos have one sample to two pixels.
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = 'yuv420p'
        self._stream.codec_context.time_base = 1 / self._rate if avi else Fraction(1, TICKS)
        self._stream.options = (
            {'crf': '20', 'preset': 'veryfast'} if h264 else {'qscale': '3', 'flags': '+qscale'}
        )

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        import cv2

        width, height = self._stream.width, self._stream.height
        if self.written == 0:
            self._size = image.shape[:2]
        if image.shape[:2] != self._size:
            self.resized += 1
            scale = min(self._size[0] / image.shape[0], self._size[1] / image.shape[1])
            size = (max(1, round(scale * image.shape[1])), max(1, round(scale * image.shape[0])))
            image = cv2.resize(image, size)
        if image.shape[:2] == (height, width):
            return np.ascontiguousarray(image)
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: image.shape[0], : image.shape[1]] = image
        return canvas

    def _check(self, part: Path) -> None:
        """What was written is opened and counted before it takes its name."""
        found = _frames_in(part)
        if found < self.written:
            part.unlink()
            raise PoseNetError(
                f'cannot write {self._path}: {found} of {self.written} frames are in the file '
                f'({shutil.disk_usage(part.parent).free / 1e6:.0f} MB are free on the disk)'
            )

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        av = _pyav()

        try:
            yield
        except (av.FFmpegError, OSError, ValueError) as error:
            if isinstance(error, PoseNetError):
                raise
            raise PoseNetError(f'cannot write {self._path}: {reason(error)}') from error


def _believable(fps: float) -> float:
    """A rate that a source claims; 30 where it claims none or nonsense."""
    return fps if 0 < fps < 1000 else 30.0


def _pyav() -> Any:
    """The package av, which no distribution has in a version that suits."""
    with dependencies_for('reading and writing videos'):
        import av
    return av


def _tolerant(av: Any) -> dict[str, str]:
    """The option that passes over metadata which are no text; PyAV 19 does not have it any more."""
    return {'metadata_errors': 'ignore'} if int(av.__version__.split('.')[0]) < 19 else {}


def _frames_in(path: Path) -> int:
    """The number of frames that a video file holds, without decoding them."""
    av = _pyav()
    count = 0
    with (
        contextlib.suppress(av.FFmpegError, OSError, IndexError),
        path.open('rb') as file,
        av.open(file) as container,
    ):
        for packet in container.demux(video=0):
            count += packet.size > 0
    return count


def _upright_rgb(frame: Any) -> np.ndarray:
    """A decoded frame of a file, or OpenCV's of a camera, as uint8 RGB."""
    if isinstance(frame, np.ndarray):
        import cv2

        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    try:
        image = frame.to_ndarray(format='rgb24')
    except (ValueError, OSError) as error:
        raise ImageError(f'a frame of {frame.format.name} cannot be converted') from error
    # Degrees counter-clockwise to show it upright.
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
