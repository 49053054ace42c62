"""What an input is: a photo, a folder of photos, a video, a bag, a camera or a stream.

The one place that decides, for every command and for image_source. A file is what its content says;
its suffix counts only where the content says nothing.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from posenet_ros.errors import ImageError, reason

PHOTO_SUFFIXES = (
    '.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.bmp', '.dib', '.webp', '.tif', '.tiff',
    '.gif', '.ppm', '.pgm', '.pbm', '.pnm', '.jp2', '.avif', '.heic', '.heif', '.tga',
)  # fmt: skip
VIDEO_SUFFIXES = (
    '.mp4', '.m4v', '.mov', '.mkv', '.webm', '.avi', '.mpg', '.mpeg', '.ts', '.mts', '.m2ts',
    '.flv', '.3gp', '.3g2', '.ogv', '.wmv', '.asf', '.mjpeg', '.mjpg', '.h264', '.h265', '.hevc',
)  # fmt: skip
BAG_SUFFIXES = ('.mcap', '.db3', '.bag')
STREAMS = ('rtsp', 'rtsps', 'rtmp', 'http', 'https', 'udp', 'tcp', 'rtp', 'srt')

WHAT_IS_KNOWN = (
    f'a photo ({", ".join(PHOTO_SUFFIXES[:8])}, ...), a folder of photos, a video '
    f'({", ".join(VIDEO_SUFFIXES[:7])}, ...), a bag ({", ".join(BAG_SUFFIXES)}, or its folder), '
    f'the number or device of a camera, or a stream ({", ".join(STREAMS[:4])}, ...)'
)

# The first bytes of files.
_PHOTOS = (
    b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'GIF87a', b'GIF89a', b'BM', b'II*\0', b'MM\0*',
    b'\0\0\0\x0cjP  ',
)  # fmt: skip
_VIDEOS = (b'\x1aE\xdf\xa3', b'FLV\x01', b'OggS', b'\0\0\x01\xba', b'\0\0\x01\xb3', b'0&\xb2u')
_BAGS = (b'\x89MCAP0\r\n', b'SQLite format 3\0', b'#ROSBAG V')
_ZSTANDARD = b'(\xb5/\xfd'
_PHOTO_BRANDS = (b'heic', b'heix', b'mif1', b'msf1', b'hevc', b'avif', b'avis')


@dataclass(frozen=True)
class Source:
    """An input, and what it is."""

    kind: str  # photo, folder, video, bag, camera or stream
    path: Path  # of a file, a folder or a camera's device
    number: int | None = None  # of a camera without a device's path
    url: str = ''  # of a stream

    def __str__(self) -> str:
        return self.url or (f'camera {self.number}' if self.number is not None else str(self.path))


def find_source(text: str | Path) -> Source:
    """Decides what an input is.

    Args:
        text: as a user gives it: a path, a file:// URL, the URL of a stream, or a camera's number.

    Raises:
        ImageError: there is no such thing, or it is nothing that can be read.
    """
    given = str(text)
    if not given:
        raise ImageError(f'the input is empty: it should be {WHAT_IS_KNOWN}')
    if re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', given):
        scheme = given.partition(':')[0].lower()
        if scheme in STREAMS:
            return Source('stream', Path(), url=given)
        if scheme != 'file':
            raise ImageError(f'{given}: {scheme} is no protocol of {", ".join(STREAMS)}')
        text = unquote(urlsplit(given).path)
        if not text:
            raise ImageError(f'{given} names no file')
    path = Path(text)
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            return Source('bag' if _is_folder_of_a_bag(path) else 'folder', path)
        if stat.S_ISCHR(found.st_mode):
            return Source('camera', path)
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f'{path} is a pipe or a device, where a file is needed')
        with path.open('rb') as file:
            head = file.read(4096)
    except (FileNotFoundError, NotADirectoryError):
        if re.fullmatch(r'[0-9]{1,4}', given):
            return Source('camera', Path(), int(given))
        raise ImageError(f'there is no file or folder {path}') from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise ImageError(f'cannot read {given}: {reason(error)}') from error
    return Source(_kind_of_file(path, head), path)


def expect(source: Source, kinds: tuple[str, ...], instead: str = '') -> Source:
    """The source itself.

    Args:
        source: that a user gave.
        kinds: what it may be.
        instead: what to use for another kind.

    Raises:
        ImageError: it is another kind.
    """
    if source.kind not in kinds:
        advice = f'; {instead}' if instead else ''
        raise ImageError(
            f'{source} is a {source.kind}, where a {" or a ".join(kinds)} is needed{advice}'
        )
    return source


def is_photo_name(path: Path) -> bool:
    """Whether a file of a folder should be a photo. macOS writes ._a.jpg beside a.jpg."""
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith('.')


def _is_folder_of_a_bag(folder: Path) -> bool:
    names = [path for path in folder.iterdir() if not path.name.startswith('.')]
    if any(is_photo_name(path) for path in names):
        return False
    return any(
        path.name == 'metadata.yaml' or without_zstandard(path).suffix in ('.mcap', '.db3')
        for path in names
    )


def _kind_of_file(path: Path, head: bytes) -> str:
    suffix = path.suffix.lower()
    if not head:
        raise ImageError(f'{path} is empty')
    if head.startswith(_BAGS):
        return 'bag'
    if head.startswith(_ZSTANDARD) and without_zstandard(path).suffix in BAG_SUFFIXES:
        return 'bag'
    if head.startswith(b'\xff\xd8\xff') and suffix in VIDEO_SUFFIXES:
        return 'video'  # JPEGs one after the other
    if head.startswith(_PHOTOS) or (head[:1] == b'P' and head[1:2] in b'1234567'):
        return 'photo'
    if head[:4] == b'RIFF':
        return 'photo' if head[8:12] == b'WEBP' else 'video'
    if head[4:8] == b'ftyp':
        return 'photo' if head[8:12] in _PHOTO_BRANDS else 'video'
    if head.startswith(_VIDEOS) or (head[:1] == b'G' and head[188:189] == b'G'):
        return 'video'
    for kind, suffixes in (
        ('photo', PHOTO_SUFFIXES),
        ('video', VIDEO_SUFFIXES),
        ('bag', BAG_SUFFIXES),
    ):
        if suffix in suffixes:
            return kind
    raise ImageError(f'{path} is nothing that can be read: it should be {WHAT_IS_KNOWN}')


def without_zstandard(path: Path) -> Path:
    """The path of a compressed file without .zstd or .zst; another one as it is."""
    return path.with_suffix('') if path.suffix in ('.zstd', '.zst') else path
