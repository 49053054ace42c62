"""Takes a few images from a photo, a folder of photos, a video or a bag."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from posenet_ros.errors import ImageError
from posenet_ros.io.photos import images_in, read_image
from posenet_ros.io.video import VIDEO_SUFFIXES, Video

SEED = 0


def sampled_images(path: Path, count: int) -> Iterator[np.ndarray]:
    """Up to `count` images at random, the same ones every time.

    Args:
        path: of a photo, a folder of photos, a video, or a rosbag2 folder or file.
        count: how many images at most.

    Yields:
        uint8 RGB (H, W, 3), in the source's order.

    Raises:
        ImageError: there are none, or one cannot be read.
        PoseNetError: a bag cannot be read, or its package is missing.
    """
    if _is_bag(path):
        from posenet_ros.io.bag import bag_images  # needs an optional package

        yield from bag_images(path, lambda total: _chosen(total, count))
    elif _is_video(path):
        yield from _sampled_frames(path, count)
    else:
        for photo in _sampled_photos(path, count):
            yield read_image(photo)


def fingerprint(path: Path, count: int) -> str:
    """A hash that changes with what sampled_images reads, and takes little time.

    Of photos it is made from the contents; of a video or a bag, which can be large, from the files'
    names, sizes and times of modification.

    Raises:
        ImageError: there are no files, or they cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if _is_bag(path) or _is_video(path):
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                found = file.stat()
                digest.update(f'{file.name} {found.st_size} {found.st_mtime_ns}\n'.encode())
        else:
            for photo in _sampled_photos(path, count):
                digest.update(hashlib.sha256(photo.read_bytes()).digest())
    except OSError as error:
        raise ImageError(f'cannot read {error.filename}: {error.strerror}') from error
    return digest.hexdigest()


def _is_bag(path: Path) -> bool:
    return (path / 'metadata.yaml').exists() or path.suffix in ('.mcap', '.db3')


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def _sampled_photos(path: Path, count: int) -> list[Path]:
    if not path.is_dir():
        return [path]
    paths = images_in(path)
    return [paths[i] for i in _chosen(len(paths), count)]


def _sampled_frames(path: Path, count: int) -> Iterator[np.ndarray]:
    with Video(path) as video:
        # A stream of JPEGs does not say how many frames it has.
        total = video.num_frames or sum(1 for _ in video)
    chosen = set(_chosen(total, count))
    empty = True
    with Video(path) as video:
        for i, frame in enumerate(video):
            if i in chosen:
                empty = False
                yield frame.image
    if empty:
        raise ImageError(f'{path} holds no frame that can be read')


def _chosen(total: int, count: int) -> list[int]:
    """Sorted indices: all of `total`, or `count` of them at random."""
    if total <= count:
        return list(range(total))
    return sorted(np.random.default_rng(SEED).choice(total, count, replace=False).tolist())
