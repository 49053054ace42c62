"""A bag of many as a task: what is asked for, what became of it, and whether it is finished."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from posenet_ros.config import DecoderConfig, ModelConfig, RuntimeConfig, TrackerConfig
from posenet_ros.errors import PoseNetError, in_words
from posenet_ros.recordings.storage import errors_of, is_remote
from posenet_ros.version import __version__

if TYPE_CHECKING:  # needs optional packages
    from posenet_ros.io.bag_file import Part

NAME_OF_NOTES = 'posenet_ros'  # in a result's metadata
_LOADER = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)  # ten times as fast, where there is one
SAMPLED_BLOCKS, BLOCK_BYTES = 16, 1 << 16  # of a file, to tell whether it is the same
# What changes how fast a result comes, and not what it is.
OF_SPEED = ('num_threads', 'allow_spinning', 'workspace_mib', 'cuda_library')


@dataclass(frozen=True)
class BagSettings:
    """What is done with every bag."""

    model: ModelConfig = field(default_factory=ModelConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    tracker: TrackerConfig | None = field(default_factory=TrackerConfig)  # None: nobody is tracked
    smoothing: bool = False
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    topics: tuple[str, ...] = ()  # of images; all of them where there are none
    annotated: bool = False  # also write drawn images
    storage: str = 'mcap'  # or sqlite3
    lift: bool = False  # place people in space
    depth: str | None = None  # topic of the depth images for that

    @property
    def can_be_cut(self) -> bool:
        """Whether parts of a bag can be looked at by several workers.

        Not where a look depends on the frames before it, or where every image is needed at the end.
        """
        return self.model.attention != 'people' and not self.annotated

    def described(self) -> dict[str, Any]:
        """What decides the result, as JSON."""
        described = asdict(self)
        for name in OF_SPEED:
            del described['runtime'][name]
        return described


@dataclass(frozen=True)
class BagJob:
    """A bag to do."""

    name: str
    source: Path
    target: Path  # folder of the new bag
    table: Path | None  # Parquet
    settings: BagSettings
    replace: bool = False  # an earlier result
    patience: float = 0.0  # seconds, for another run that writes the same result


@dataclass(frozen=True)
class Outcome:
    """What became of a bag."""

    name: str
    images: int = 0
    people: int = 0
    broken: int = 0  # images that could not be read
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    error: str = ''  # why there is no result
    skipped: bool = False  # it was finished before


class Cut(NamedTuple):
    """A bag that is long enough for several workers."""

    parts: list[Part]


def failed(job: BagJob, error: BaseException) -> Outcome:
    """The outcome of a bag that an error ended."""
    known = isinstance(error, PoseNetError)
    return Outcome(job.name, error=str(error) if known else in_words(error))


def notes_about(job: BagJob) -> dict[str, Any]:
    """What decides a job's result; kept with the result, it says later that nothing has changed."""
    return {
        'version': __version__,
        'source': fingerprint(job.source),
        'settings': job.settings.described(),
        'table': job.table is not None,
    }


def finished_before(job: BagJob) -> Outcome | None:
    """What became of a job in an earlier run, if neither its bag nor its settings have changed."""
    try:
        kept = notes_of(job.target)
        if not kept or (job.table is not None and not job.table.exists()):
            return None
        results = {path.name for path in job.target.iterdir()}
        if not results & {f'{job.target.name}.mcap', f'{job.target.name}.db3'}:
            return None
        if not _same_source(kept['source'], job.source):
            return None
        now = {'settings': job.settings.described(), 'table': job.table is not None}
        if {name: kept[name] for name in now} != _as_json(now):
            return None
        return Outcome(
            job.name,
            **kept['counts'],
            problems=tuple(kept['problems']),
            notes=tuple(kept['notes']),
            skipped=True,
        )
    except Exception:  # of an object store, or of notes by another version: it is done again
        return None


def check_target(job: BagJob) -> None:
    """Refuses to write where something is that no earlier run has written.

    Raises:
        PoseNetError: with its name.
    """
    name = job.target.name
    ours = {'metadata.yaml', f'{name}.mcap', f'{name}.db3'}
    with errors_of(job.target):
        there = {path.name for path in job.target.iterdir()} if job.target.is_dir() else None
        blocked = there is None and job.target.exists()
        table_there = job.table is not None and job.table.exists()
        notes = notes_of(job.target) if there else {}
    if there is not None:
        # An upload that was interrupted has no metadata.
        mine = bool(notes) or (is_remote(job.target) and 'metadata.yaml' not in there)
        blocked = not (job.replace and mine and there <= ours)
    if blocked:
        raise PoseNetError(f'{job.target} exists already, and is no result of an earlier run')
    if table_there and not notes.get('table'):
        raise PoseNetError(f'{job.table} exists already, and is no table of an earlier run')
    if not is_remote(job.target):
        for folder in job.target.parents:
            if notes_of(folder):
                raise PoseNetError(f'{job.target} would lie in the result {folder}')


def size_of(source: Path) -> int:
    """Bytes of a bag; 0 where it cannot be read, which whoever reads it will say."""
    try:
        return sum(file.stat().st_size for _, file in _files(source))
    except Exception:
        return 0


def fingerprint(source: Path) -> dict[str, dict[str, Any]]:
    """For each file of a bag: its size, when it was modified, and a hash of blocks all over it.

    Of an object store there is the store's own word for the file's version in place of the hash.
    """
    return {name: _fingerprint(file) for name, file in _files(source)}


def _fingerprint(file: Path) -> dict[str, Any]:
    if is_remote(file):
        with errors_of(file):
            known = file.fs.info(file.path)  # type: ignore[attr-defined]
        version = known.get('ETag') or known.get('etag') or known.get('LastModified')
        return {'bytes': known.get('size'), 'version': str(version or known.get('mtime', ''))}
    found = file.stat()
    return {
        'bytes': found.st_size,
        'modified': found.st_mtime_ns,
        'sha256_of_blocks': _hash_of_blocks(file, found.st_size),
    }


def _same_source(kept: Mapping[str, Any], source: Path) -> bool:
    """Whether a bag's files are those of a fingerprint. Only if the times differ are they read."""
    files = dict(_files(source))
    if kept.keys() != files.keys():
        return False
    for name, file in files.items():
        before = kept[name]
        if 'modified' in before and not is_remote(file):
            found = file.stat()
            if (found.st_size, found.st_mtime_ns) == (before['bytes'], before['modified']):
                continue
            now = {**_fingerprint(file), 'modified': before['modified']}
        else:
            now = _fingerprint(file)
        if now != before:
            return False
    return True


def _files(source: Path) -> list[tuple[str, Path]]:
    if not source.is_dir():
        return [(source.name, source)]
    inside = sorted(source.iterdir(), key=lambda path: path.name)
    return [(path.name, path) for path in inside if not path.is_dir()]


def _hash_of_blocks(file: Path, size: int) -> str:
    last = max(0, size - BLOCK_BYTES)
    starts = sorted({last * i // (SAMPLED_BLOCKS - 1) for i in range(SAMPLED_BLOCKS)})
    digest = hashlib.sha256()
    with file.open('rb') as stream:
        for start in starts:
            stream.seek(start)
            digest.update(stream.read(BLOCK_BYTES))
    return digest.hexdigest()


def notes_of(result: Path) -> dict[str, Any]:
    """What was kept with a result, in its metadata's custom_data; nothing where there is none."""
    try:
        metadata = yaml.load((result / 'metadata.yaml').read_text(), _LOADER)
        notes = json.loads(metadata['rosbag2_bagfile_information']['custom_data'][NAME_OF_NOTES])
        return dict(notes)
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return {}


def _as_json(value: Any) -> Any:
    """A value as it is after JSON: tuples are lists."""
    if isinstance(value, dict):
        return {name: _as_json(inner) for name, inner in value.items()}
    return [_as_json(inner) for inner in value] if isinstance(value, (list, tuple)) else value
