"""Takes a few images from a photo, a folder of photos, a video or a bag."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from posenet_ros.errors import ImageError
from posenet_ros.io.photos import images_in, read_image
from posenet_ros.io.source import Source, expect, find_source
from posenet_ros.io.video import Video

SEED = 0
KINDS = ('photo', 'folder', 'video', 'bag')

logger = logging.getLogger('posenet_ros')


def sampled_images(
    path: Path, count: int, problem: Callable[[str], None] = logger.warning
) -> Iterator[np.ndarray]:
    """Up to `count` images at random, the same ones every time.

    Args:
        path: of a photo, a folder of photos, a video, or a rosbag2 folder or file.
        count: how many images at most.
        problem: called with what cannot be read, and why; the others are taken.

    Yields:
        uint8 RGB (H, W, 3), in the source's order.

    Raises:
        ImageError: there are none that can be read.
        PoseNetError: a bag cannot be read, or its package is missing.
    """
    source = expect(find_source(path), KINDS)
    images = {'bag': _of_bag, 'video': _of_video}.get(source.kind, _of_photos)
    taken = 0
    for image in images(source, count, problem):
        taken += 1
        yield image
    if taken == 0:
        raise ImageError(f'{path} holds no image that can be read')


def look_at(source: Source, topics: Sequence[str] = ()) -> None:
    """Finds out what is wrong with an input before anything is loaded for it.

    Args:
        source: a photo, a folder of photos, a video or a bag.
        topics: of a bag, that have to be there.

    Raises:
        ImageError, PoseNetError: nothing of it can be read.
    """
    if source.kind == 'photo':
        read_image(source.path)
    elif source.kind == 'folder':
        images_in(source.path)
    elif source.kind == 'video':
        Video(source).close()
    elif source.kind == 'bag':
        from posenet_ros.io.bag import check_bag  # needs an optional package

        check_bag(source.path, topics)


def fingerprint(path: Path, count: int) -> str:
    """A hash that changes with what sampled_images reads, and takes little time.

    Of photos it is made from the contents; of a video or a bag, which can be large, from the files'
    names, sizes and times of modification.

    Raises:
        ImageError: there are no files, or they cannot be read.
    """
    digest = hashlib.sha256()
    source = expect(find_source(path), KINDS)
    try:
        if source.kind in ('bag', 'video'):
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                found = file.stat()
                digest.update(f'{file.name} {found.st_size} {found.st_mtime_ns}\n'.encode())
        else:
            for photo in _chosen_photos(source, count):
                if photo.is_file():
                    digest.update(hashlib.sha256(photo.read_bytes()).digest())
    except OSError as error:
        raise ImageError(f'cannot read {error.filename}: {error.strerror}') from error
    return digest.hexdigest()


def _of_photos(source: Source, count: int, problem: Callable[[str], None]) -> Iterator[np.ndarray]:
    for photo in _chosen_photos(source, count):
        try:
            yield read_image(photo)
        except ImageError as error:
            problem(str(error))


def _of_bag(source: Source, count: int, problem: Callable[[str], None]) -> Iterator[np.ndarray]:
    from posenet_ros.io.bag import bag_frames  # needs an optional package

    for frame in bag_frames(source.path, lambda total: chosen(total, count), problem):
        yield frame.image


def _of_video(source: Source, count: int, problem: Callable[[str], None]) -> Iterator[np.ndarray]:
    with Video(source) as video:
        # The number that a container claims is an estimate for many formats.
        total = video.count()
        if shortfall := video.shortfall():
            problem(shortfall)
    wanted = set(chosen(total, count))
    with Video(source) as video:
        for frame in video:
            if frame.index in wanted:
                yield frame.image


def _chosen_photos(source: Source, count: int) -> list[Path]:
    if source.kind == 'photo':
        return [source.path]
    paths = images_in(source.path)
    return [paths[i] for i in chosen(len(paths), count)]


def chosen(total: int, count: int) -> list[int]:
    """Sorted indices: all of `total`, or `count` of them at random."""
    if total <= count:
        return list(range(total))
    return sorted(np.random.default_rng(SEED).choice(total, count, replace=False).tolist())
