"""Poses as a table in Parquet: a row for each person of each frame; doc/tables.md describes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from posenet_ros.atomic_file import partial_path
from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import NUM_KEYPOINTS, SNAKE_CASE_NAMES
from posenet_ros.errors import PoseNetError
from posenet_ros.io.image_message import stamp_nanoseconds
from posenet_ros.space.lift import Pose3D

VERSION = 1  # of SCHEMA; a later version only adds columns
ROWS_IN_MEMORY = 8192

_NAME = pa.dictionary(pa.int32(), pa.string())
_PIXELS = [
    f'{name}_{what}' for name in SNAKE_CASE_NAMES for what in ('x', 'y', 'score', 'deviation')
]
_METRES = [f'{name}_{axis}_m' for name in ('torso', *SNAKE_CASE_NAMES) for axis in 'xyz']
SCHEMA = pa.schema(
    [
        pa.field('bag', _NAME, nullable=False),
        pa.field('topic', _NAME, nullable=False),
        pa.field('frame_id', _NAME, nullable=False),
        pa.field('stamp', pa.timestamp('ns'), nullable=False),
        pa.field('bag_time', pa.timestamp('ns'), nullable=False),
        pa.field('image_width', pa.uint32(), nullable=False),
        pa.field('image_height', pa.uint32(), nullable=False),
        pa.field('track_id', pa.int32()),
        pa.field('score', pa.float32(), nullable=False),
        *(pa.field(name, pa.float32()) for name in (*_PIXELS, *_METRES)),
    ],
    {'posenet_ros.table_version': str(VERSION)},
)
_TEXTS = [field.name for field in SCHEMA if field.type == _NAME]


@contextlib.contextmanager
def pose_table(path: Path, bag: str) -> Iterator[PoseTable]:
    """A table to write to, which appears under its name when the block succeeds.

    Args:
        path: of the file.
        bag: its name in the table.

    Raises:
        PoseNetError: it cannot be written.
    """
    with partial_path(path) as part:
        try:
            with pq.ParquetWriter(
                part, SCHEMA, compression='zstd', use_dictionary=_TEXTS
            ) as writer:
                table = PoseTable(writer, bag)
                yield table
                table.flush()
        except (OSError, pa.ArrowException) as error:
            part.unlink(missing_ok=True)
            raise PoseNetError(f'cannot write {path}: {error}') from error
        except BaseException:
            part.unlink(missing_ok=True)  # nothing can read half of it
            raise


class PoseTable:
    """Collects the rows of a Parquet file, and writes them in groups; see pose_table."""

    def __init__(self, writer: pq.ParquetWriter, bag: str) -> None:
        self._writer = writer
        self._bag = bag
        self._rows: list[tuple[Any, ...]] = []
        self._numbers = np.empty((ROWS_IN_MEMORY, len(_PIXELS) + len(_METRES)), np.float32)

    def add(
        self,
        topic: str,
        time: int,
        header: Any,
        shape: tuple[int, int],
        poses: Sequence[Pose],
        people: Sequence[Pose3D] = (),
    ) -> None:
        """Adds the people of an image.

        Args:
            topic: of the image.
            time: of the image in the bag, in nanoseconds.
            header: of the image.
            shape: of the image: height, width.
            poses: in pixels of the image.
            people: the same ones in space, in metres in the frame of the image; may be left out.
        """
        image = self._bag, topic, header.frame_id, stamp_nanoseconds(header) or time, time
        for i, pose in enumerate(poses):
            numbers = self._numbers[len(self._rows)]
            pixels = numbers[: len(_PIXELS)].reshape(NUM_KEYPOINTS, 4)
            pixels[:, :2] = pose.keypoints
            pixels[:, 2] = pose.keypoint_scores
            pixels[:, 3] = pose.keypoint_deviations
            metres = numbers[len(_PIXELS) :].reshape(1 + NUM_KEYPOINTS, 3)
            if people:
                metres[0], metres[1:] = people[i].torso, people[i].points
            else:
                metres[:] = np.nan
            track_id = pose.track_id if pose.track_id >= 0 else None
            self._rows.append((*image, shape[1], shape[0], track_id, pose.score))
            if len(self._rows) == ROWS_IN_MEMORY:
                self.flush()

    def flush(self) -> None:
        """Writes the rows that are in memory."""
        if not self._rows:
            return
        columns = zip(*self._rows, strict=True)
        arrays = [
            pa.array(column).cast(field.type)
            if field.type == _NAME
            else pa.array(column, field.type)
            for column, field in zip(columns, SCHEMA, strict=False)
        ]
        numbers = self._numbers[: len(self._rows)]
        arrays += [pa.array(column, from_pandas=True) for column in numbers.T]  # NaN is null
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))
        self._rows.clear()
