"""Bags as they are found: rosbag2 folders and files (sqlite3, MCAP, compressed or not) and ROS 1.

Only what is asked for is read: a topic with an unknown type, without a definition or in another
encoding is nobody's business. A file that was cut gives what can be read of it, and tells so.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Callable, Collection, Iterator
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import yaml
import zstandard
from mcap.reader import McapReader, make_reader
from mcap.records import Channel, Message, Schema
from mcap.stream_reader import StreamReader
from rosbags.rosbag1 import Reader, ReaderError

from posenet_ros.errors import PoseNetError


class Topic(NamedTuple):
    """A topic of a bag."""

    name: str
    type: str  # as sensor_msgs/msg/Image
    encoding: str  # cdr, ros1, or one that is not read


class Record(NamedTuple):
    """A message of a bag."""

    topic: Topic
    time: int  # when it was recorded, in nanoseconds
    data: bytes


class Part(NamedTuple):
    """A part of a bag: what one of its files has from one time until before another."""

    file: int  # which of the bag's files
    start: int | None = None  # nanoseconds
    end: int | None = None


class _File(Protocol):
    """A file of a bag. A damaged one raises _Damaged when its messages end."""

    def topics(self) -> dict[Topic, int]:
        """The topics, and how many messages each has."""

    def records(
        self, topics: Collection[Topic], start: int | None = None, end: int | None = None
    ) -> Iterator[Record]:
        """The messages of some topics, by their time: from `start` until before `end`."""

    def cuts(self, topics: Collection[Topic], most: int) -> list[int]:
        """Times that cut the file into parts of about `most` messages; none if it is damaged."""


class _Damaged(Exception):
    """A file ends before its end, or has a part that cannot be read."""


class Bag:
    """A bag that is open for reading. Close it after use.

    Args:
        path: a folder of rosbag2, a file of one, or a bag of ROS 1.
        problem: called with what is damaged, and what can be done about it.

    Attributes:
        topics: and how many messages each has.
        claimed: how many the metadata claims of each topic's name, if there are metadata.
        copied: whether it was decompressed, or copied, to be read.

    Raises:
        PoseNetError: it is no bag that can be read.
    """

    def __init__(self, path: Path, problem: Callable[[str], None]) -> None:
        self._path = path
        self._problem = problem
        self._stack = contextlib.ExitStack()
        self.claimed: dict[str, int] = {}
        self.copied = False
        try:
            self.topics: dict[Topic, int] = {}
            self._files = self._open()
        except (PoseNetError, KeyboardInterrupt):
            self.close()
            raise
        except Exception as error:  # whatever a damaged file makes a reader raise
            self.close()
            raise PoseNetError(f'{path} is not a bag that can be read: {_reason(error)}') from error

    @property
    def num_files(self) -> int:
        """Files of the bag that can be read."""
        return len(self._files)

    def records(
        self,
        topics: Collection[Topic],
        part: Part | None = None,
        damaged: Callable[[str], None] | None = None,
    ) -> Iterator[Record]:
        """The messages of some topics, file by file, by their time in each.

        Args:
            topics: to read.
            part: to read; None for everything.
            damaged: called with what is damaged; None tells it as a problem.
        """
        parts = [Part(i) for i in range(len(self._files))] if part is None else [part]
        for file, start, end in parts:
            try:
                for record in self._files[file].records(topics, start, end):
                    if (start or 0) > record.time or (end is not None and end <= record.time):
                        continue  # a file without an index
                    if record.data.startswith(_ZSTANDARD):  # CDR begins with zeros
                        record = record._replace(data=_decompressed(record.data))
                    yield record
            except _Damaged as error:
                (damaged or self._problem)(f'{self._path}: {error}')

    def parts(self, topics: Collection[Topic], most: int) -> list[Part]:
        """The bag in parts of about `most` messages of some topics: together they are `records`.

        There are none if it was copied to be read: it would be copied again for each part.
        """
        if self.copied:
            return []
        parts = []
        for i, file in enumerate(self._files):
            cuts = file.cuts(topics, most)
            times = zip([None, *cuts], [*cuts, None], strict=True)
            parts += [Part(i, start, end) for start, end in times]
        return parts

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> list[_File]:
        path = self._path
        if not path.exists():
            raise PoseNetError(f'there is no bag {path}')
        if path.is_file():
            return [self._file(path)]
        metadata = self._metadata()
        names = metadata.get('relative_file_paths')
        if names is not None:
            files = [path / Path(name).name for name in names]
            missing = [file for file in files if not file.exists()]
            for file in missing:
                self._problem(f'{path}: its file {file.name} is missing')
            files = [file for file in files if file not in missing]
        else:
            files = sorted((p for p in path.iterdir() if p.name.endswith(_STORAGES)), key=_natural)
        if not files:
            raise PoseNetError(
                f'{path} is not a bag: it has no file NAME{" or NAME".join(_STORAGES)}'
            )
        good = []
        for file in files:
            try:
                good.append(self._file(file))
            except Exception as error:  # a bad file does not end the others
                self._problem(f'{file} is left out: {_reason(error)}')
        if not good:
            raise PoseNetError(f'{path} has no file that can be read')
        return good

    def _metadata(self) -> dict[str, Any]:
        """What metadata.yaml says; nothing where there is none."""
        file = self._path / 'metadata.yaml'
        if not file.exists():
            self._problem(
                f'{self._path} has no metadata.yaml, as after an interrupted recording; its files '
                f'are read as they are. To repair it: ros2 bag reindex {self._path}'
            )
            return {}
        try:
            metadata = yaml.safe_load(file.read_text())['rosbag2_bagfile_information']
            for topic in metadata.get('topics_with_message_count') or []:
                name = topic['topic_metadata']['name']
                self.claimed[name] = self.claimed.get(name, 0) + int(topic['message_count'])
            return dict(metadata)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            self._problem(
                f'{file} cannot be used ({_reason(error)}); the files beside it are read as they '
                f'are. To repair it: ros2 bag reindex {self._path}'
            )
            self.claimed = {}
            return {}

    def _file(self, path: Path) -> _File:
        file = self._opened(path)
        if not file.topics():  # or what is damaged would never be told
            try:
                list(file.records(()))
            except _Damaged as error:
                self._problem(f'{path}: {error}')
        for topic, count in file.topics().items():
            self.topics[topic] = self.topics.get(topic, 0) + count
        return file

    def _opened(self, path: Path) -> _File:
        if path.suffix in ('.zstd', '.zst') or _pending(path):
            self.copied = True
        if path.suffix in ('.zstd', '.zst'):
            path = self._decompressed_file(path)
        with path.open('rb') as file:
            magic = file.read(16)
        if magic.startswith(b'SQLite format 3\0'):
            return _SqliteFile(path, self._stack)
        if magic.startswith(_MCAP_MAGIC):
            return _McapFile(path)
        if magic.startswith(b'#ROSBAG V'):
            return _Ros1File(path, self._stack)
        kind = 'is empty' if not magic else 'is neither sqlite3 nor MCAP nor a bag of ROS 1'
        raise PoseNetError(f'{path} {kind}')

    def _decompressed_file(self, path: Path) -> Path:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix='posenet-bag-'))
        target = Path(folder) / path.stem
        left = int(SHARE_OF_DISK * shutil.disk_usage(folder).free)
        with path.open('rb') as source, target.open('wb') as out:
            try:
                for part in zstandard.ZstdDecompressor().read_to_iter(source):
                    left -= len(part)
                    if left < 0:
                        raise PoseNetError(f'{path} takes more than the free space of {folder}')
                    out.write(part)
            except zstandard.ZstdError as error:
                self._problem(f'{path} is cut or damaged: {error}')
        return target


SHARE_OF_DISK = 0.9  # of the free space, that decompressed files may take
MAX_CHUNK_BYTES = 1 << 30  # after decompression; writers make chunks of a few million
MAX_MESSAGE_BYTES = 1 << 29  # after decompression; 8K in colour has 100 million
_MCAP_MAGIC = b'\x89MCAP0\r\n'
_BOUNDS = 'starting_at', 'ending_before'  # in nanoseconds
if 'starting_at' not in signature(McapReader.iter_messages).parameters:
    _BOUNDS = 'start_time', 'end_time'  # their names in older versions of mcap
_MCAP_CHUNK = 0x06
_ZSTANDARD = b'(\xb5/\xfd'
_STORAGES = ('.db3', '.mcap', '.db3.zstd', '.mcap.zstd', '.db3.zst', '.mcap.zst')


class _McapFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._topics: dict[Topic, int] = {}
        self._damage = ''
        _check_chunks(path)
        try:
            self._indexed = self._read_summary()
        except Exception as error:  # the index is behind everything else
            self._indexed = False
            self._damage = _reason(error)
        if not self._indexed:
            for topic, _ in self._scanned(None):
                self._topics[topic] = self._topics.get(topic, 0) + 1

    def topics(self) -> dict[Topic, int]:
        return self._topics

    def cuts(self, topics: Collection[Topic], most: int) -> list[int]:
        number = sum(self._topics.get(topic, 0) for topic in topics)
        if not self._indexed or number <= most:
            return []
        # Images are what most bytes are for, and a chunk has about a million.
        with self._path.open('rb') as file:
            summary = make_reader(file).get_summary()
        assert summary is not None  # or it would not be indexed
        chunks = sorted((c.message_start_time, c.uncompressed_size) for c in summary.chunk_indexes)
        size = most / number * sum(size for _, size in chunks)  # of a part
        cuts, seen = [], 0.0
        for start, length in chunks:
            if seen >= size:
                cuts.append(start)
                seen = 0.0
            seen += length
        return sorted(set(cuts))

    def records(
        self, topics: Collection[Topic], start: int | None = None, end: int | None = None
    ) -> Iterator[Record]:
        if not self._indexed:
            yield from (record for _, record in self._scanned(topics))
            if self._damage:
                raise self._damaged(sum(self._topics.values()))
            return
        names = {topic.name for topic in topics}
        read = 0
        try:
            with self._path.open('rb') as file:
                bounds: dict[str, Any] = dict(zip(_BOUNDS, (start, end), strict=True))
                for schema, channel, message in make_reader(file).iter_messages(names, **bounds):
                    topic = _mcap_topic(schema, channel)
                    if topic in topics:
                        read += 1
                        yield Record(topic, message.log_time, message.data)
        except GeneratorExit:
            raise
        except Exception as error:
            self._damage = _reason(error)
            raise self._damaged(read) from error

    def _read_summary(self) -> bool:
        with self._path.open('rb') as file:
            summary = make_reader(file).get_summary()
        if summary is None or summary.statistics is None or not summary.chunk_indexes:
            return False
        counts = summary.statistics.channel_message_counts
        schemas = {channel.schema_id for channel in summary.channels.values()} - {0}
        if not (counts.keys() <= summary.channels.keys() and schemas <= summary.schemas.keys()):
            return False  # channels or schemas are only beside their messages
        for number, channel in summary.channels.items():
            topic = _mcap_topic(summary.schemas.get(channel.schema_id), channel)
            self._topics[topic] = self._topics.get(topic, 0) + counts.get(number, 0)
        return True

    def _scanned(self, wanted: Collection[Topic] | None) -> Iterator[tuple[Topic, Record]]:
        """From the beginning until it cannot be read any further."""
        schemas: dict[int, Any] = {}
        channels: dict[int, Topic] = {}
        records = 0
        try:
            with self._path.open('rb') as file:
                for record in StreamReader(file).records:
                    if isinstance(record, Schema):
                        schemas[record.id] = record
                    elif isinstance(record, Channel):
                        channels[record.id] = _mcap_topic(schemas.get(record.schema_id), record)
                    elif isinstance(record, Message) and record.channel_id in channels:
                        topic = channels[record.channel_id]
                        records += 1
                        if wanted is None or topic in wanted:
                            yield topic, Record(topic, record.log_time, record.data)
        except GeneratorExit:
            raise
        except Exception as error:
            self._damage = self._damage or _reason(error)

    def _damaged(self, read: int) -> _Damaged:
        name = self._path.name
        return _Damaged(
            f'{name} is cut or damaged ({self._damage}); {read} messages of it can be read. To '
            f'repair it: mcap recover {name} -o recovered.mcap'
        )


def _check_chunks(path: Path) -> None:
    """Reads the sizes that an MCAP's chunks claim, without their content.

    Source: mcap.dev/spec: records are an opcode, a length, and content.

    Raises:
        PoseNetError: one would take more than MAX_CHUNK_BYTES.
    """
    size = path.stat().st_size
    with path.open('rb') as file:
        file.seek(len(_MCAP_MAGIC))
        while len(start := file.read(9)) == 9:
            opcode, length = struct.unpack('<BQ', start)
            end = file.tell() + length
            if opcode == _MCAP_CHUNK:
                head = file.read(min(length, 80))
                (claimed,) = struct.unpack_from('<Q', head.ljust(24, b'\0'), 16)
                at = head.find(_ZSTANDARD)
                if at >= 0:  # the frame itself may claim more
                    claimed = max(claimed, zstandard.frame_content_size(head[at:]))
                if claimed > MAX_CHUNK_BYTES:
                    raise PoseNetError(f'{path} has a chunk of {claimed} bytes')
            if end > size:
                return  # it is cut or damaged here
            file.seek(end)


def _mcap_topic(schema: Any, channel: Any) -> Topic:
    name = schema.name if schema is not None else ''
    if channel.message_encoding == 'ros1':
        name = name.replace('/', '/msg/', 1) if '/msg/' not in name else name
    return Topic(channel.topic, name, channel.message_encoding)


class _SqliteFile:
    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        self._path = path
        self._database = _opened(path, stack)
        # Not a view or a virtual table, which could compute for ever.
        tables = self._database.execute(
            "SELECT lower(name) FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
        )
        if not {('topics',), ('messages',)} <= set(tables.fetchall()):
            raise PoseNetError(f'{path} is not a bag: it has no tables topics and messages')
        rows = self._database.execute('SELECT id, name, type, serialization_format FROM topics')
        self._by_id = {
            number: Topic(*texts)
            for number, *texts in rows
            if all(isinstance(text, str) for text in texts)
        }
        self._damage = ''
        self._counts: dict[Topic, int] = dict.fromkeys(self._by_id.values(), 0)
        try:
            found = self._database.execute('SELECT topic_id, count(*) FROM messages GROUP BY 1')
            for number, count in found.fetchall():
                if number in self._by_id:
                    self._counts[self._by_id[number]] += count
        except sqlite3.Error as error:
            self._damage = str(error)
            for record in self._until_damage():
                self._counts[record.topic] += 1

    def topics(self) -> dict[Topic, int]:
        return self._counts

    def cuts(self, topics: Collection[Topic], most: int) -> list[int]:
        number = sum(self._counts.get(topic, 0) for topic in topics)
        if self._damage or number <= most:
            return []
        with contextlib.suppress(sqlite3.Error):
            chosen, numbers = self._chosen(topics)
            rows = self._database.execute(
                f'SELECT timestamp FROM messages WHERE {chosen} ORDER BY timestamp', numbers
            )
            times = [time for i, (time,) in enumerate(rows) if i % most == 0]
            return sorted(set(times[1:]))
        return []

    def _chosen(self, topics: Collection[Topic]) -> tuple[str, list[int]]:
        """A condition for messages of some topics, and its values."""
        numbers = [number for number, topic in self._by_id.items() if topic in topics]
        return f'topic_id IN ({", ".join("?" * len(numbers))})', numbers

    def records(
        self, topics: Collection[Topic], start: int | None = None, end: int | None = None
    ) -> Iterator[Record]:
        if self._damage:
            read = 0
            for record in self._until_damage():
                if record.topic in topics:
                    read += 1
                    yield record
            raise self._damaged(read)
        chosen, values = self._chosen(topics)
        for condition, time in (('>=', start), ('<', end)):
            if time is not None:
                chosen += f' AND timestamp {condition} ?'
                values.append(time)
        read = 0
        try:
            for number, time, data in self._database.execute(
                f'SELECT topic_id, timestamp, data FROM messages WHERE {chosen} '
                'ORDER BY timestamp, id',
                values,
            ):
                read += 1
                yield Record(self._by_id[number], time, _as_bytes(data))
        except sqlite3.Error as error:
            self._damage = str(error)
            raise self._damaged(read) from error

    def _until_damage(self) -> Iterator[Record]:
        with contextlib.suppress(sqlite3.Error):
            for number, time, data in self._database.execute(
                'SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id'
            ):
                if number in self._by_id:
                    yield Record(self._by_id[number], time, _as_bytes(data))

    def _damaged(self, read: int) -> _Damaged:
        name = self._path.name
        return _Damaged(
            f'{name} is cut or damaged ({self._damage}); {read} of its messages can be read. To '
            f'repair it: sqlite3 {name} .recover | sqlite3 recovered.db3'
        )


def _pending(path: Path) -> list[Path]:
    """What lies beside a database that was not closed."""
    beside = [path.with_name(path.name + end) for end in ('-wal', '-journal')]
    return [file for file in beside if file.exists() and file.stat().st_size]


def _opened(path: Path, stack: contextlib.ExitStack) -> sqlite3.Connection:
    """A database for reading. One that was not closed has its last messages in files beside it."""
    pending = _pending(path)
    if pending:
        # SQLite would write to the recording to take them in.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix='posenet-bag-')))
        for file in (path, *pending):
            shutil.copyfile(file, folder / file.name)
        path = folder / path.name
    address = f'file:{quote(os.fsencode(path.resolve()))}{"" if pending else "?immutable=1"}'
    database = sqlite3.connect(address, uri=True)
    stack.callback(database.close)
    return database


def _as_bytes(data: Any) -> bytes:
    """The data of a row; none where a damaged database has something else there."""
    return data if isinstance(data, bytes) else b''


class _Ros1File:
    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        self._path = path
        try:
            self._reader = stack.enter_context(Reader(path))
        except ReaderError as error:
            raise PoseNetError(
                f'{path} is not a bag that can be read: {error}. After an interrupted recording: '
                f'rosbag reindex {path}'
            ) from error
        self._topics = {
            connection.id: Topic(connection.topic, connection.msgtype, 'ros1')
            for connection in self._reader.connections
        }

    def topics(self) -> dict[Topic, int]:
        counts: dict[Topic, int] = dict.fromkeys(self._topics.values(), 0)
        for connection in self._reader.connections:
            counts[self._topics[connection.id]] += connection.msgcount
        return counts

    def cuts(self, topics: Collection[Topic], most: int) -> list[int]:
        return []  # a bag of ROS 1 is read as a whole

    def records(
        self, topics: Collection[Topic], start: int | None = None, end: int | None = None
    ) -> Iterator[Record]:
        wanted = [c for c in self._reader.connections if self._topics[c.id] in topics]
        if not wanted:
            return
        read = 0
        try:
            for connection, time, data in self._reader.messages(wanted, start, end):
                read += 1
                yield Record(self._topics[connection.id], time, data)
        except GeneratorExit:
            raise
        except Exception as error:
            raise _Damaged(
                f'{self._path.name} is damaged ({_reason(error)}); {read} of its messages can be '
                'read'
            ) from error


def _decompressed(data: bytes) -> bytes:
    """A message that was compressed on its own; as it is if it is damaged or would be too large."""
    parts, size = [], 0
    try:
        for part in zstandard.ZstdDecompressor().read_to_iter(data):
            parts.append(part)
            size += len(part)
            if size > MAX_MESSAGE_BYTES:
                return data
    except zstandard.ZstdError:
        return data
    return b''.join(parts)


def _natural(path: Path) -> list[Any]:
    """Sorts bag_2 before bag_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', path.name)]


def _reason(error: BaseException) -> str:
    return ' '.join(str(error).split())[:200] or type(error).__name__
