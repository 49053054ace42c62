"""rosbag2 in, rosbag2 out: the poses of recorded images, at the images' times.

DEFINITIONS repeats msg/*.msg, which an installed library does not have; a test compares them.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import SNAKE_CASE_NAMES
from posenet_ros.errors import ImageError, PoseNetError
from posenet_ros.io.draw import draw_poses
from posenet_ros.io.image_message import compressed_to_rgb, copy_rgb, image_to_rgb

IMAGE_TYPE = 'sensor_msgs/msg/Image'
COMPRESSED_TYPE = 'sensor_msgs/msg/CompressedImage'
STORAGE_FORMATS = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}
UNTRACKED = -1


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
        if self._path.exists():
            raise PoseNetError(f'{self._path} exists already')
        if not self._path.parent.is_dir():
            raise PoseNetError(f'cannot write {self._path}: there is no folder {self._path.parent}')
        # The files of a bag carry its name: the temporary bag has that name, in another folder.
        self._scratch = Path(tempfile.mkdtemp(prefix='.bag-', dir=self._path.parent))
        self._writer = Writer(
            self._scratch / self._path.name, version=9, storage_plugin=self._storage
        )
        self._writer.open()
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            self._writer.close()
            if kind is None:
                (self._scratch / self._path.name).rename(self._path)
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def write_poses(
        self, topic: str, time: int, header: Any, width: int, height: int, poses: Sequence[Pose]
    ) -> None:
        """Adds a PoseArray at a time of the bag, in nanoseconds; `header` is the image's."""
        types = self._store.types
        people = [
            types['posenet_ros/msg/PersonPose'](
                track_id=UNTRACKED,
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
        self._writer.write(self._connections[topic, kind], time, data)


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
    poses_of: Callable[[np.ndarray], Sequence[Pose]],
    *,
    topics: Sequence[str] = (),
    annotated: bool = False,
    storage: str = 'mcap',
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> dict[str, int]:
    """Writes the poses of a bag's images to a new bag.

    An image on TOPIC gives a PoseArray on TOPIC/poses, and on TOPIC/annotated the drawn image,
    both with the image's header and at the image's time in the bag.

    Args:
        source: a rosbag2 folder, MCAP or sqlite3.
        target: of the new bag.
        poses_of: poses of a uint8 RGB image.
        topics: to read; all of Image and CompressedImage where there are none.
        annotated: also write drawn images.
        storage: of the new bag, mcap or sqlite3.
        progress: wraps the messages, given their number.

    Returns:
        Counts of images, people, and broken (images that could not be read).

    Raises:
        PoseNetError: the bag cannot be read or written, or has no such images.
    """
    counts = {'images': 0, 'people': 0, 'broken': 0}
    with _opened(source) as reader, PoseBagWriter(target, storage) as writer:
        images = _image_connections(reader)
        known = sorted({connection.topic for connection in images})
        missing = sorted(set(topics) - set(known))
        if missing or not known:
            raise PoseNetError(
                f'{source} has no images on {", ".join(missing) or "any topic"}; it has images on '
                f'{", ".join(known) or "no topic"}'
            )
        chosen = [c for c in images if not topics or c.topic in topics]
        total = sum(connection.msgcount for connection in chosen)
        for connection, time, data in progress(reader.messages(chosen), total):
            message: Any = reader.deserialize(data, connection.msgtype)
            try:
                image = _to_rgb(message)
            except ImageError:
                counts['broken'] += 1
                continue
            poses = poses_of(image)
            counts['images'] += 1
            counts['people'] += len(poses)
            height, width = image.shape[:2]
            topic = connection.topic
            writer.write_poses(f'{topic}/poses', time, message.header, width, height, poses)
            if annotated:
                canvas = np.empty(image.shape, np.uint8)
                copy_rgb(image, canvas)
                draw_poses(canvas, poses)
                writer.write_image(f'{topic}/annotated', time, message.header, canvas)
    return counts


def bag_images(source: Path, chosen: Callable[[int], list[int]]) -> Iterator[np.ndarray]:
    """Some images of a bag, as uint8 RGB (H, W, 3).

    Args:
        source: a rosbag2 folder, MCAP or sqlite3.
        chosen: which images to take, given their number.

    Raises:
        PoseNetError: the bag cannot be read.
        ImageError: it has no images.
    """
    with _opened(source) as reader:
        images = _image_connections(reader)
        total = sum(connection.msgcount for connection in images)
        if total == 0:
            raise ImageError(f'{source} has no images on any topic')
        wanted = set(chosen(total))
        for i, (connection, _, data) in enumerate(reader.messages(images)):
            if i in wanted:
                with contextlib.suppress(ImageError):  # broken images are left out
                    yield np.array(_to_rgb(reader.deserialize(data, connection.msgtype)))


def _image_connections(reader: AnyReader) -> list[Any]:
    return [c for c in reader.connections if c.msgtype in (IMAGE_TYPE, COMPRESSED_TYPE)]


def _to_rgb(message: Any) -> np.ndarray:
    if message.__msgtype__ == COMPRESSED_TYPE:
        return compressed_to_rgb(message)
    return image_to_rgb(message)


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[AnyReader]:
    if not source.exists():
        raise PoseNetError(f'there is no bag {source}')
    try:
        reader = AnyReader([source], default_typestore=typestore())
        reader.open()
    except (AnyReaderError, OSError, ValueError) as error:
        raise PoseNetError(f'{source} is not a bag that can be read: {error}') from error
    try:
        yield reader
    finally:
        reader.close()
