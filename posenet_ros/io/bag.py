"""Bag in, rosbag2 out: the poses of recorded images, at the images' times."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from posenet_ros.core.decode import Pose
from posenet_ros.errors import ImageError, PoseNetError
from posenet_ros.io.bag_file import Bag, Part, Record, Topic
from posenet_ros.io.bag_space import BagSpace
from posenet_ros.io.bag_writer import IMAGE_TYPE, PoseBagWriter, typestore
from posenet_ros.io.draw import draw_poses
from posenet_ros.io.image_message import (
    compressed_to_rgb,
    copy_rgb,
    image_to_rgb,
    no_picture,
    stamp_seconds,
)

if TYPE_CHECKING:  # needs an optional package
    from posenet_ros.io.pose_table import PoseTable

COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'

logger = logging.getLogger('posenet_ros')


class LooksDiffer(PoseNetError):
    """What was seen before in a bag is not what is read of it now."""


@functools.lru_cache
def _ros1_types() -> Typestore:
    return get_typestore(Stores.ROS1_NOETIC)


def add_poses(
    source: Path,
    target: Path,
    poses_of: Callable[[Any, str, float], Sequence[Pose]],
    *,
    looks: Iterator[Any] | None = None,
    topics: Sequence[str] = (),
    annotated: bool = False,
    flipped: bool = False,
    storage: str = 'mcap',
    lift: bool = False,
    depth: str | None = None,
    table: AbstractContextManager[PoseTable | None] | None = None,
    notes: Callable[[dict[str, int]], Mapping[str, str]] = lambda counts: {},
    replace: bool = False,
    expect: Callable[[int], None] = lambda images: None,
    problem: Callable[[str], None] = logger.warning,
    note: Callable[[str], None] = logger.info,
) -> dict[str, int]:
    """Writes the poses of a bag's images to a new bag.

    An image on TOPIC gives a PoseArray on TOPIC/poses, and on TOPIC/annotated the drawn image,
    both with the image's header and at the image's time in the bag. An image that cannot be read
    gives neither.

    Args:
        source: a rosbag2 folder, MCAP or sqlite3, or a bag of ROS 1.
        target: of the new bag. Until it is complete it is the folder NAME.partial.
        poses_of: poses of a uint8 RGB image, given its topic and its stamp in seconds; of one of
            the `looks` where there are any.
        looks: what was seen before in the images that are read, in their order: an object with the
            image's `shape`, or the ImageError that it gave. The images are not decoded then.
        topics: to read; all of Image and CompressedImage where there are none.
        annotated: also write drawn images.
        flipped: the poses are those of the mirrored image, which is what is drawn on.
        storage: of the new bag, mcap or sqlite3.
        lift: also place people in space: a PoseArray3D on TOPIC/poses_3d.
        depth: topic of the depth images for that; None: by the usual size of people.
        table: also takes the people; it is complete before the new bag takes its name.
        notes: what to keep about the new bag in its metadata's custom_data, given the counts.
        replace: an earlier bag of the same name, once this one is complete.
        expect: called with the number of images before the first one.
        problem: called with what cannot be read, and why.
        note: called with what is left out, and is no problem: topics of depth images.

    Returns:
        Counts of images, people, and broken (images that could not be read).

    Raises:
        PoseNetError: the bag cannot be read or written, has no such images, or none can be read.
        LooksDiffer: there are more or fewer looks than images; then nothing is written.
    """
    counts = {'images': 0, 'people': 0, 'broken': 0}
    with Bag(source, problem) as bag:
        chosen = _topics_to_read(bag, source, topics, depth, note)
        # Its first image is looked at before anything is written.
        space = BagSpace(bag, chosen, depth, flipped, _message, problem) if lift else None
        images = _images(bag, chosen, source, problem, counts, space, looks)
        with (
            PoseBagWriter(target, storage, replace) as writer,
            table or contextlib.nullcontext() as rows,
        ):

            def write_people(everything: bool = False) -> None:
                for placed in space.ready(everything) if space is not None else ():
                    writer.write_people(placed)
                    if rows is not None:
                        image = placed.topic, placed.time, placed.header, placed.shape
                        rows.add(*image, placed.poses, placed.people)

            expect(sum(bag.topics[topic] for topic in chosen))
            for topic, time, message, image in images:
                poses = poses_of(image, topic.name, _seconds(message.header, time))
                counts['images'] += 1
                counts['people'] += len(poses)
                height, width = image.shape[:2]
                name = f'{topic.name}/poses'
                writer.write_poses(name, time, message.header, width, height, poses)
                if space is not None:
                    space.add(topic.name, time, message.header, width, height, poses)
                    write_people()
                elif rows is not None:
                    rows.add(topic.name, time, message.header, (height, width), poses)
                if annotated:
                    canvas = np.empty(image.shape, np.uint8)
                    copy_rgb(image[:, ::-1] if flipped else image, canvas)
                    draw_poses(canvas, poses)
                    writer.write_image(f'{topic.name}/annotated', time, message.header, canvas)
            write_people(everything=True)
            if counts['images'] == 0:
                raise PoseNetError(
                    f'no image of {source} could be read, of {counts["broken"]} on '
                    f'{", ".join(topic.name for topic in chosen)}'
                )
            writer.keep_notes(notes(counts))
    return counts


def bag_parts(
    source: Path, topics: Sequence[str], depth: str | None, most: int
) -> tuple[list[Part], int]:
    """Cuts a bag into parts of about `most` images each, in the bag's order; and how many images.

    Raises:
        PoseNetError: the bag cannot be read, or has no such images.
    """
    told: list[str] = []
    with Bag(source, told.append) as bag:
        chosen = _topics_to_read(bag, source, topics, depth, told.append)
        return bag.parts(chosen, most), sum(bag.topics[topic] for topic in chosen)


def bag_looks(
    source: Path,
    topics: Sequence[str],
    depth: str | None,
    part: Part,
    look: Callable[[np.ndarray], Any],
) -> list[Any] | None:
    """What a part of a bag shows, for add_poses: of each image a look, or the ImageError it gave.

    Returns:
        None if the part is damaged: the bag has to be read from its beginning then.
    """
    damages: list[str] = []
    looks: list[Any] = []
    with Bag(source, lambda problem: None) as bag:
        chosen = _topics_to_read(bag, source, topics, depth, lambda note: None)
        for record in bag.records(chosen, part, damages.append):
            try:
                looks.append(look(_to_rgb(_message(record))))
            except ImageError as error:
                looks.append(error)
    return None if damages else looks


def _seconds(header: Any, time: int) -> float:
    """The stamp of a message; the time of the bag, in nanoseconds, where it has none."""
    stamp = stamp_seconds(header)
    return stamp if stamp > 0 else time / 1e9


def check_bag(source: Path, topics: Sequence[str] = ()) -> None:
    """Raises PoseNetError if a bag cannot be opened, or has no images (on some topics)."""
    told: list[str] = []
    with Bag(source, told.append) as bag:
        try:
            _chosen_topics(bag, source, topics)
        except PoseNetError as error:
            raise PoseNetError('. '.join([str(error), *told])) from error


class Frame(NamedTuple):
    """An image of a bag."""

    topic: str
    time: int  # in the bag, nanoseconds
    image: np.ndarray  # uint8 RGB (H, W, 3)


def bag_frames(
    source: Path,
    chosen: Callable[[int], list[int]],
    problem: Callable[[str], None],
    topics: Sequence[str] = (),
) -> Iterator[Frame]:
    """Some images of a bag.

    Args:
        source: a rosbag2 folder, MCAP or sqlite3, or a bag of ROS 1.
        chosen: which images to take, given their number.
        problem: called with what cannot be read, and why.
        topics: to read; all of images where there are none.

    Raises:
        PoseNetError: the bag cannot be read.
        ImageError: it has no images.
    """
    with Bag(source, problem) as bag:
        read = _topics_to_read(bag, source, topics, None, logger.info)
        wanted = set(chosen(sum(bag.topics[topic] for topic in read)))
        told = _Limited(problem)
        for i, record in enumerate(bag.records(read)):
            if i in wanted:
                try:
                    image = np.array(_to_rgb(_message(record)))
                    yield Frame(record.topic.name, record.time, image)
                except ImageError as error:
                    told.add(record.topic, error)
        told.close()


def bag_frame(source: Path, name: str, time: int) -> np.ndarray:
    """The image of a topic that lies at a time of a bag, uint8 RGB (H, W, 3).

    Args:
        source: as in bag_frames.
        name: of the topic.
        time: in the bag, in nanoseconds.

    Raises:
        PoseNetError: the bag cannot be read.
        ImageError: it has no such image, or it cannot be read.
    """
    with Bag(source, logger.info) as bag:
        topics = _chosen_topics(bag, source, [name])
        for file in range(bag.num_files):
            for record in bag.records(topics, Part(file, time, time + 1)):
                return np.array(_to_rgb(_message(record)))
    raise ImageError(f'{source} has no image on {name} at {time} ns')


def _chosen_topics(bag: Bag, source: Path, names: Sequence[str]) -> list[Topic]:
    images = [
        topic
        for topic in bag.topics
        if topic.type in (IMAGE_TYPE, COMPRESSED_TYPE) and topic.encoding in ('cdr', 'ros1')
    ]
    known = sorted({topic.name for topic in images})
    missing = sorted(set(names) - set(known))
    if missing or not known:
        others = '' if known else f' of its {len(bag.topics)} topics'
        raise PoseNetError(
            f'{source} has no images on {", ".join(missing) or "any"}{others}; it has images on '
            f'{", ".join(known) or "no topic"}'
        )
    chosen = [topic for topic in images if not names or topic.name in names]
    if not any(bag.topics[topic] for topic in chosen):
        claims = sum(bag.claimed.get(topic.name, 0) for topic in chosen)
        claimed = f', where its metadata claim {claims}' if claims else ''
        raise ImageError(
            f'{source} has no image on {", ".join(topic.name for topic in chosen)}{claimed}'
        )
    return chosen


def _topics_to_read(
    bag: Bag,
    source: Path,
    names: Sequence[str],
    depth: str | None,
    note: Callable[[str], None],
) -> list[Topic]:
    """The topics of images: those with these names, or all that are not of depth images."""
    chosen = _chosen_topics(bag, source, names)
    if not names:
        chosen = list(_of_pictures(bag, chosen, note))
    return [topic for topic in chosen if topic.name != depth]


def _of_pictures(bag: Bag, topics: Sequence[Topic], note: Callable[[str], None]) -> Sequence[Topic]:
    """The topics whose first image is a picture; all of them if none is."""
    good = []
    for topic in topics:
        reason = ''
        for record in itertools.islice(bag.records([topic], damaged=lambda problem: None), 1):
            with contextlib.suppress(ImageError):  # a broken image may still be one of colours
                reason = no_picture(_message(record))
        if reason:
            note(f'{topic.name} is left out: {reason}')
        else:
            good.append(topic)
    return good or topics


def _images(
    bag: Bag,
    topics: Sequence[Topic],
    source: Path,
    problem: Callable[[str], None],
    counts: dict[str, int],
    space: BagSpace | None,
    looks: Iterator[Any] | None,
) -> Iterator[tuple[Topic, int, Any, Any]]:
    """The images that can be read, with their topic, time and message; counts the broken ones.

    With `looks`, those instead of the images.

    What `space` wants to see goes there.
    """
    told = _Limited(problem)
    read = 0
    others = [] if space is None else space.topics
    for record in bag.records([*topics, *others]):
        if space is not None and record.topic in others:
            try:
                space.see(record.topic, record.time, _message(record))
            except ImageError as error:
                told.add(record.topic, error)
            continue
        read += 1
        image: Any
        try:
            message = _message(record)
            if looks is None:
                image = _to_rgb(message)
            elif (image := next(looks, None)) is None:
                raise LooksDiffer(f'{source} has more images than were looked at')
            elif isinstance(image, ImageError):
                raise image
        except ImageError as error:
            counts['broken'] += 1
            told.add(record.topic, error)
            continue
        yield record.topic, record.time, message, image
    told.close()
    if looks is not None and next(looks, None) is not None:
        raise LooksDiffer(f'{source} has fewer images than were looked at')
    claims = sum(bag.claimed.get(name, 0) for name in {topic.name for topic in topics})
    if read < claims:
        problem(f'{source}: {read} images can be read of the {claims} that its metadata claim')


class _Limited:
    """Tells a problem of a topic once, and at the end how often it was there."""

    def __init__(self, problem: Callable[[str], None]) -> None:
        self._problem = problem
        self._counts: dict[tuple[str, str], list[str]] = {}

    def add(self, topic: Topic, error: ImageError) -> None:
        same = self._counts.setdefault((topic.name, re.sub(r'\d+', 'N', str(error))), [])
        same.append(str(error) if not same else '')
        if len(same) == 1:
            self._problem(f'an image on {topic.name} cannot be used: {error}')

    def close(self) -> None:
        for (topic, _), same in self._counts.items():
            if len(same) > 1:
                self._problem(f'{len(same)} images on {topic} cannot be used, as: {same[0]}')


def _message(record: Record) -> Any:
    """The message of a record.

    Raises:
        ImageError: it is cut or damaged.
    """
    name = record.topic.type
    try:
        if record.topic.encoding == 'ros1':
            return _ros1_types().deserialize_ros1(record.data, name)
        return typestore().deserialize_cdr(record.data, name)
    except Exception as error:  # whatever damaged data make the deserialiser raise
        raise ImageError(
            f'its {len(record.data)} bytes are no {name}: {error or type(error).__name__}'
        ) from error


def _to_rgb(message: Any) -> np.ndarray:
    if message.__msgtype__ == COMPRESSED_TYPE:
        return compressed_to_rgb(message)
    return image_to_rgb(message)
