"""Frames of bags as pictures for people to label, and found again by the pictures' names."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from posenet_ros.errors import ImageError, PoseNetError
from posenet_ros.io.photos import write_image
from posenet_ros.io.sampling import chosen
from posenet_ros.recordings.find import Found, find_bags
from posenet_ros.recordings.storage import local_copy

# run_7--camera.image_raw--1700000000123456789.png: the bag, the topic, and its time in the bag.
# Labelling tools put folders, or a few characters of their own, before the names of files.
_NAME = re.compile(r'(?P<bag>.+)--(?P<topic>[\w.~]+)--(?P<time>\d+)\.\w+')


def frame_name(bag: str, topic: str, time: int) -> str:
    """The name of a frame's picture.

    Args:
        bag: its name, as in find_bags.
        topic: of the image.
        time: in the bag, in nanoseconds.
    """
    return f'{_flat(bag)}--{topic.strip("/").replace("/", ".")}--{time}.png'


def save_frames(
    bag: Found,
    folder: Path,
    count: int,
    topics: Sequence[str],
    problem: Callable[[str], None],
) -> int:
    """Writes some frames of a bag as pictures; returns how many.

    Args:
        bag: to take them from.
        folder: of the pictures.
        count: how many at most; they are chosen at random, the same ones every time.
        topics: of images; all of them where there are none.
        problem: called with what cannot be read.

    Raises:
        PoseNetError: the bag cannot be read, or a picture cannot be written.
    """
    from posenet_ros.io.bag import bag_frames  # needs optional packages

    saved = 0
    with local_copy(bag.path) as path:
        for frame in bag_frames(path, lambda total: chosen(total, count), problem, topics):
            write_image(folder / frame_name(bag.name, frame.topic, frame.time), frame.image)
            saved += 1
    return saved


def read_frame(source: Path, name: str) -> np.ndarray:
    """The frame whose picture has this name, uint8 RGB (H, W, 3), from the bag itself.

    Args:
        source: a bag, or a folder of bags.
        name: of the picture.

    Raises:
        PoseNetError: the bag cannot be read.
        ImageError: it is no such name, or there is no such frame.
    """
    from posenet_ros.io.bag import bag_frame  # needs optional packages

    parts, bag = _parsed(source, name)
    if bag is None:
        raise ImageError(f'{source} has neither the picture {name} nor a bag that it is a frame of')
    topic = '/' + parts['topic'].replace('.', '/')
    return bag_frame(bag, topic, int(parts['time']))


def is_frame_name(source: Path, name: str) -> bool:
    """Whether a picture's name says that it is a frame of a bag that is there."""
    return _parsed(source, name)[1] is not None


def _parsed(source: Path, name: str) -> tuple[dict[str, str], Path | None]:
    parts = _NAME.fullmatch(Path(name).name)
    if parts is None:
        return {}, None
    bags = _bags(str(source))
    fitting = [bag for bag in bags if parts['bag'].endswith(bag)]
    return parts.groupdict(), bags[max(fitting, key=len)] if fitting else None


@functools.lru_cache
def _bags(source: str) -> dict[str, Path]:
    try:
        bags = find_bags([source])
    except PoseNetError:
        return {}
    return {name: bag.path for name, bag in by_name_in_pictures(bags).items()}


def by_name_in_pictures(bags: Iterable[Found]) -> dict[str, Found]:
    """Bags by what the names of their frames' pictures begin with.

    Raises:
        PoseNetError: two would have the same.
    """
    named: dict[str, Found] = {}
    for bag in bags:
        other = named.setdefault(_flat(bag.name), bag)
        if other is not bag:
            raise PoseNetError(
                f'pictures of {other.path} and {bag.path} would have the same names: rename one'
            )
    return named


def _flat(name: str) -> str:
    return name.replace('/', '-')
