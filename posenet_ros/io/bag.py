"""rosbag2 in, rosbag2 out: the poses of recorded images, at the images' times.

DEFINITIONS repeats msg/*.msg, which an installed library does not have; a test compares them.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from posenet_ros.atomic_file import lock, partial_name
from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import SNAKE_CASE_NAMES
from posenet_ros.errors import ImageError, PoseNetError
from posenet_ros.io.bag_file import Bag, Record, Topic
from posenet_ros.io.bag_space import BagSpace, Placed
from posenet_ros.io.draw import draw_poses
from posenet_ros.io.image_message import (
    compressed_to_rgb,
    copy_rgb,
    image_to_rgb,
    no_picture,
    stamp_seconds,
)
from posenet_ros.space.lift import Pose3D
from posenet_ros.space.pairing import NANOSECONDS

IMAGE_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
STORAGE_FORMATS = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}

logger = logging.getLogger('posenet_ros')

DEFINITIONS = {
    'posenet_ros/msg/Keypoint': '\n'.join(
        [
            *(f'uint8 {name.upper()}={i}' for i, name in enumerate(SNAKE_CASE_NAMES)),
            'uint8 id\nfloat32 x\nfloat32 y\nfloat32 score\nfloat32 deviation',
        ]
    ),
    'posenet_ros/msg/PersonPose': 'int32 UNTRACKED=-1\nint32 track_id\nfloat32 score\n'
    'Keypoint[17] keypoints',
    'posenet_ros/msg/PoseArray': 'std_msgs/Header header\nuint32 image_width\nuint32 image_height\n'
    'PersonPose[] poses',
    'posenet_ros/msg/Keypoint3D': 'uint8 UNKNOWN=0\nuint8 MEASURED=1\nuint8 INFERRED=2\n'
    'uint8 id\nuint8 state\nfloat32 x\nfloat32 y\nfloat32 z\nfloat32 deviation_along\n'
    'float32 deviation_across',
    'posenet_ros/msg/PersonPose3D': 'int32 track_id\nfloat32 score\nuint8 UNKNOWN=0\n'
    'uint8 MEASURED=1\nuint8 INFERRED=2\nuint8 GUESSED=3\nuint8 torso_state\n'
    'geometry_msgs/PoseWithCovariance torso\nbool heading_known\nKeypoint3D[17] keypoints',
    'posenet_ros/msg/PoseArray3D': 'std_msgs/Header header\n'
    'builtin_interfaces/Time depth_stamp\nPersonPose3D[] poses',
}


class PoseBagWriter:
    """Writes a bag of poses, which appears under its name when the block succeeds.

    Args:
        path: of the new bag, a folder.
        storage: mcap or sqlite3.
    """

    def __init__(self, path: Path, storage: str) -> None:
        self._path = path
        self._storage = STORAGE_FORMATS[storage]
        self._store = typestore()
        self._connections: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> PoseBagWriter:
        if os.path.lexists(self._path):
            raise PoseNetError(f'{self._path} exists already')
        if not self._path.parent.is_dir():
            raise PoseNetError(f'cannot write {self._path}: there is no folder {self._path.parent}')
        # The files of a bag carry its name: the partial bag has that name, in another folder.
        self._partial = partial_name(self._path)
        inside = self._partial / self._path.name
        try:
            if self._partial.exists() and {path.name for path in self._partial.iterdir()} - {
                inside.name
            }:
                raise PoseNetError(f'{self._partial} is in the way: it is no bag of an earlier run')
            self._partial.mkdir(exist_ok=True)
            self._held = os.open(self._partial, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise PoseNetError(f'cannot write {self._path}: {error.strerror}') from error
        try:
            lock(self._held, self._partial)
            shutil.rmtree(inside, ignore_errors=True)
            with self._errors():
                self._writer = Writer(inside, version=9, storage_plugin=self._storage)
                self._writer.open()
        except BaseException:
            os.close(self._held)
            raise
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            with self._errors() if kind is None else contextlib.suppress(Exception):
                self._writer.close()
            if kind is None:
                with self._errors():
                    (self._partial / self._path.name).rename(self._path)
            if kind is None or not self._connections:
                shutil.rmtree(self._partial, ignore_errors=True)
        finally:
            os.close(self._held)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, WriterError) as error:
            raise PoseNetError(f'cannot write {self._path}: {error}') from error

    def write_poses(
        self, topic: str, time: int, header: Any, width: int, height: int, poses: Sequence[Pose]
    ) -> None:
        """Adds a PoseArray at a time of the bag, in nanoseconds; `header` is the image's."""
        types = self._store.types
        people = [
            types['posenet_ros/msg/PersonPose'](
                track_id=pose.track_id,
                score=pose.score,
                keypoints=[
                    types['posenet_ros/msg/Keypoint'](
                        id=index, x=x, y=y, score=score, deviation=deviation
                    )
                    for index, ((x, y), score, deviation) in enumerate(pose.rows())
                ],
            )
            for pose in poses
        ]
        message = types['posenet_ros/msg/PoseArray'](
            header=header, image_width=width, image_height=height, poses=people
        )
        self._write(topic, time, message)

    def write_people(self, placed: Placed) -> None:
        """Adds a PoseArray3D on TOPIC/poses_3d, at the image's time in the bag."""
        types = self._store.types
        seconds, nanoseconds = divmod(placed.depth_stamp, NANOSECONDS)
        message = types['posenet_ros/msg/PoseArray3D'](
            header=placed.header,
            depth_stamp=types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds),
            poses=[self._person(person) for person in placed.people],
        )
        self._write(f'{placed.topic}/poses_3d', placed.time, message)

    def _person(self, person: Pose3D) -> Any:
        types = self._store.types
        (x, y, z), (a, b, c, w) = person.torso.tolist(), person.orientation()
        torso = types['geometry_msgs/msg/PoseWithCovariance'](
            pose=types['geometry_msgs/msg/Pose'](
                position=types['geometry_msgs/msg/Point'](x=x, y=y, z=z),
                orientation=types['geometry_msgs/msg/Quaternion'](x=a, y=b, z=c, w=w),
            ),
            covariance=person.covariance().reshape(-1),
        )
        return types['posenet_ros/msg/PersonPose3D'](
            track_id=person.track_id,
            score=person.score,
            torso_state=person.torso_state,
            torso=torso,
            heading_known=person.heading_known,
            keypoints=[
                types['posenet_ros/msg/Keypoint3D'](
                    id=index, state=state, x=x, y=y, z=z, deviation_along=along,
                    deviation_across=across,
                )
                for index, (state, (x, y, z), along, across) in enumerate(person.rows())
            ],
        )  # fmt: skip

    def write_image(self, topic: str, time: int, header: Any, image: np.ndarray) -> None:
        """Adds an Image of uint8 RGB."""
        height, width = image.shape[:2]
        message = self._store.types[IMAGE_TYPE](
            header=header,
            height=height,
            width=width,
            encoding='rgb8',
            is_bigendian=0,
            step=3 * width,
            data=image.reshape(-1),
        )
        self._write(topic, time, message)

    def _write(self, topic: str, time: int, message: Any) -> None:
        kind = message.__msgtype__
        if (topic, kind) not in self._connections:
            self._connections[topic, kind] = self._writer.add_connection(
                topic, kind, typestore=self._store
            )
        data = self._store.serialize_cdr(message, kind)
        with self._errors():
            self._writer.write(self._connections[topic, kind], time, data)


@functools.lru_cache
def _ros1_types() -> Typestore:
    return get_typestore(Stores.ROS1_NOETIC)


@functools.lru_cache
def typestore() -> Typestore:
    """The standard message types, and ours."""
    store = get_typestore(Stores.LATEST)
    types: dict[str, Any] = {}
    for name, text in DEFINITIONS.items():
        types.update(get_types_from_msg(text, name))
    store.register(types)
    return store


def add_poses(
    source: Path,
    target: Path,
    poses_of: Callable[[np.ndarray, str, float], Sequence[Pose]],
    *,
    topics: Sequence[str] = (),
    annotated: bool = False,
    flipped: bool = False,
    storage: str = 'mcap',
    lift: bool = False,
    depth: str | None = None,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
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
        poses_of: poses of a uint8 RGB image, given its topic and its stamp in seconds.
        topics: to read; all of Image and CompressedImage where there are none.
        annotated: also write drawn images.
        flipped: the poses are those of the mirrored image, which is what is drawn on.
        storage: of the new bag, mcap or sqlite3.
        lift: also place people in space: a PoseArray3D on TOPIC/poses_3d.
        depth: topic of the depth images for that; None: by the usual size of people.
        progress: wraps the messages, given their number.
        problem: called with what cannot be read, and why.
        note: called with what is left out, and is no problem: topics of depth images.

    Returns:
        Counts of images, people, and broken (images that could not be read).

    Raises:
        PoseNetError: the bag cannot be read or written, has no such images, or none can be read.
    """
    counts = {'images': 0, 'people': 0, 'broken': 0}
    with Bag(source, problem) as bag:
        chosen = _chosen_topics(bag, source, topics)
        if not topics:
            chosen = list(_of_pictures(bag, chosen, note))
        chosen = [topic for topic in chosen if topic.name != depth]
        # Its first image is looked at before anything is written.
        space = BagSpace(bag, chosen, depth, flipped, _message, problem) if lift else None
        images = _images(bag, chosen, source, problem, counts, space)
        with PoseBagWriter(target, storage) as writer:
            total = sum(bag.topics[topic] for topic in chosen)
            for topic, time, message, image in progress(images, total):
                poses = poses_of(image, topic.name, _seconds(message.header, time))
                counts['images'] += 1
                counts['people'] += len(poses)
                height, width = image.shape[:2]
                name = f'{topic.name}/poses'
                writer.write_poses(name, time, message.header, width, height, poses)
                if space is not None:
                    space.add(topic.name, time, message.header, width, height, poses)
                    for placed in space.ready():
                        writer.write_people(placed)
                if annotated:
                    canvas = np.empty(image.shape, np.uint8)
                    copy_rgb(image[:, ::-1] if flipped else image, canvas)
                    draw_poses(canvas, poses)
                    writer.write_image(f'{topic.name}/annotated', time, message.header, canvas)
            if space is not None:
                for placed in space.ready(everything=True):
                    writer.write_people(placed)
            if counts['images'] == 0:
                raise PoseNetError(
                    f'no image of {source} could be read, of {counts["broken"]} on '
                    f'{", ".join(topic.name for topic in chosen)}'
                )
    return counts


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


def bag_images(
    source: Path, chosen: Callable[[int], list[int]], problem: Callable[[str], None]
) -> Iterator[np.ndarray]:
    """Some images of a bag, as uint8 RGB (H, W, 3).

    Args:
        source: a rosbag2 folder, MCAP or sqlite3, or a bag of ROS 1.
        chosen: which images to take, given their number.
        problem: called with what cannot be read, and why.

    Raises:
        PoseNetError: the bag cannot be read.
        ImageError: it has no images.
    """
    with Bag(source, problem) as bag:
        topics = _of_pictures(bag, _chosen_topics(bag, source, ()), logger.info)
        wanted = set(chosen(sum(bag.topics[topic] for topic in topics)))
        told = _Limited(problem)
        for i, record in enumerate(bag.records(topics)):
            if i in wanted:
                try:
                    yield np.array(_to_rgb(_message(record)))
                except ImageError as error:
                    told.add(record.topic, error)
        told.close()


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


def _of_pictures(bag: Bag, topics: Sequence[Topic], note: Callable[[str], None]) -> Sequence[Topic]:
    """The topics whose first image is a picture; all of them if none is."""
    good = []
    for topic in topics:
        reason = ''
        for record in itertools.islice(bag.records([topic]), 1):
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
) -> Iterator[tuple[Topic, int, Any, np.ndarray]]:
    """The images that can be read, with their topic, time and message; counts the broken ones.

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
        try:
            message = _message(record)
            image = _to_rgb(message)
        except ImageError as error:
            counts['broken'] += 1
            told.add(record.topic, error)
            continue
        yield record.topic, record.time, message, image
    told.close()
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
