"""A few images of whatever a user has: a photo, a folder of photos, a video or a bag."""

from __future__ import annotations

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
    if path.is_dir() and not (path / 'metadata.yaml').exists():
        paths = images_in(path)
        for i in _chosen(len(paths), count):
            yield read_image(paths[i])
    elif path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
        yield from _sampled_frames(path, count)
    elif path.is_dir() or path.suffix in ('.mcap', '.db3'):
        from posenet_ros.io.bag import bag_images  # needs an optional package

        yield from bag_images(path, lambda total: _chosen(total, count))
    else:
        yield read_image(path)


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
