"""Writes a rosbag2 of poses, which appears under its name when it is complete.

DEFINITIONS repeats msg/*.msg, which an installed library does not have; a test compares them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from posenet_ros.atomic_file import is_written, lock, partial_name, to_disk
from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import SNAKE_CASE_NAMES
from posenet_ros.errors import PoseNetError
from posenet_ros.io.bag_space import Placed
from posenet_ros.space.lift import Pose3D
from posenet_ros.space.pairing import NANOSECONDS

IMAGE_TYPE = 'sensor_msgs/msg/Image'
BEFORE = '.before'  # what a new bag replaces, for a moment
STORAGE_FORMATS = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}

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
        replace: an earlier bag of that name, once this one is complete.
    """

    def __init__(self, path: Path, storage: str, replace: bool = False) -> None:
        self._path = path
        self._replace = replace
        self._storage = STORAGE_FORMATS[storage]
        self._store = typestore()
        self._connections: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> PoseBagWriter:
        if os.path.lexists(self._path) and not self._replace:
            raise PoseNetError(f'{self._path} exists already')
        if not self._path.parent.is_dir():
            raise PoseNetError(f'cannot write {self._path}: there is no folder {self._path.parent}')
        # The files of a bag carry its name: the partial bag has that name, in another folder.
        self._partial = partial_name(self._path)
        inside = self._partial / self._path.name
        before = self._partial / BEFORE
        try:
            if self._partial.exists() and {path.name for path in self._partial.iterdir()} - {
                inside.name,
                before.name,
            }:
                raise PoseNetError(f'{self._partial} is in the way: it is no bag of an earlier run')
            self._partial.mkdir(exist_ok=True)
            self._held = os.open(self._partial, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise PoseNetError(f'cannot write {self._path}: {error.strerror}') from error
        try:
            lock(self._held, self._partial)
            if before.exists() and not self._path.exists():
                before.rename(self._path)  # an earlier run ended between its last two steps
            shutil.rmtree(before, ignore_errors=True)
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
                    self._take_its_name()
            if kind is None or not self._connections:
                shutil.rmtree(self._partial, ignore_errors=True)
        finally:
            os.close(self._held)

    def _take_its_name(self) -> None:
        inside, before = self._partial / self._path.name, self._partial / BEFORE
        for path in (*inside.iterdir(), inside):
            to_disk(path)
        replaced = self._replace and self._path.is_dir()
        if replaced:
            self._path.rename(before)
        try:
            inside.rename(self._path)
        except OSError:
            if replaced:
                before.rename(self._path)
            raise
        to_disk(self._path.parent)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, WriterError) as error:
            raise PoseNetError(f'cannot write {self._path}: {error}') from error

    def keep_notes(self, notes: Mapping[str, str]) -> None:
        """Keeps what is known about the bag in its metadata's custom_data."""
        for name, text in notes.items():
            self._writer.set_custom_data(name, text)

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


def remove_leftovers(path: Path) -> None:
    """Removes what is left of the partial bag where a run ended just after `path` was complete."""
    partial = partial_name(path)
    if not partial.is_dir() or is_written(path):
        return
    shutil.rmtree(partial / BEFORE, ignore_errors=True)
    with contextlib.suppress(OSError):  # something else is in it
        partial.rmdir()


@functools.lru_cache
def typestore() -> Typestore:
    """The standard message types, and ours."""
    store = get_typestore(Stores.LATEST)
    types: dict[str, Any] = {}
    for name, text in DEFINITIONS.items():
        types.update(get_types_from_msg(text, name))
    store.register(types)
    return store
