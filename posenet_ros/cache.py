"""Cache of what takes long to build: compiled loops, ONNX networks and TensorRT engines.

Loops and engines are code that runs as it is. So the cache lies in a folder of POSENET_HOME that
only its owner can enter, and each file begins with a manifest: everything that it was built from,
and its SHA-256. A file is used only if its manifest is byte for byte the one that we would write
for it. It is read once, so the bytes that were checked are the bytes that are used; and it is one
file, renamed when it is complete, so that other processes see all of it or nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from posenet_ros.atomic_file import locked, replaced, unlocked
from posenet_ros.environment import expanded
from posenet_ros.errors import BackendError, PoseNetError, reason

logger = logging.getLogger('posenet_ros')

Key = dict[str, Any]  # everything that decides what is built; JSON

MAX_BYTES = 1 << 30  # per folder; beyond it the least recently used files are deleted
ENTRY = re.compile('[0-9a-f]{32}')  # the name of a file
LOCK = re.compile(r'\.([0-9a-f]{32})\.lock')
END_OF_MANIFEST = b'\0'
DIGITS = 20  # of a file's length, and then some


class CacheError(BackendError):
    """The cache cannot be used, or cannot be trusted."""


def posenet_home() -> Path:
    """The folder of all caches: $POSENET_HOME, or ~/.cache/posenet_ros."""
    return expanded(os.environ.get('POSENET_HOME') or '~/.cache/posenet_ros')


def open_cache(name: str, without: str) -> BuildCache | None:
    """A BuildCache; None and a warning if it cannot be used.

    Args:
        name: of its folder.
        without: what happens at every start without it, for the warning.
    """
    try:
        return BuildCache(name)
    except CacheError as error:
        logger.warning('%s; %s anew at every start', error, without)
        return None


class BuildCache:
    """Built files in a folder of posenet_home().

    Args:
        name: of the folder, which is made with mode 0700 where it is missing.
        max_bytes: what the folder may hold; beyond it the least recently used files are deleted.

    Raises:
        CacheError: the folder cannot be made, belongs to somebody else, or others may enter it.
    """

    def __init__(self, name: str, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        try:
            self.folder = posenet_home() / name
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.folder.mkdir(mode=0o700)
            found = self.folder.lstat()
        except (OSError, PoseNetError) as error:
            raise CacheError(f'cannot use the cache {name}: {error}') from error
        if not stat.S_ISDIR(found.st_mode):
            raise CacheError(f'the cache {self.folder} is not a folder')
        if found.st_uid != os.getuid():
            raise CacheError(f'the cache {self.folder} belongs to another user')
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise CacheError(
                f'the cache {self.folder} can be entered by others, who may have changed its code: '
                f'delete its files, then run chmod 700 {self.folder}'
            )
        self._remove_leftovers()

    def path(self, key: Key) -> Path:
        """Where a file lies."""
        return self.folder / hashlib.sha256(_canonical(key)).hexdigest()[:32]

    def get(self, key: Key, build: Callable[[str], bytes], rebuild: bool = False) -> bytes:
        """The file of a key, from the cache or built.

        Processes that want the same file at the same time wait for the one that builds it. Where
        the cache cannot be locked or written, the file is built all the same, and a warning says
        why it is not kept.

        Args:
            key: everything that decides what is built.
            build: builds it, given the reason.
            rebuild: build it even if the cache has it.
        """
        if not rebuild and (found := self.peek(key)) is not None:
            return found
        path = self.path(key)
        with self._locked(path):
            data, why = self._read(path, key)
            if rebuild:
                data, why = None, 'a rebuild was asked for'
            if data is None:
                data = build(why)
                self._write(path, key, data)
        self._prune(path)
        return data

    def peek(self, key: Key) -> bytes | None:
        """The file of a key, if the cache has it."""
        return self._read(self.path(key), key)[0]

    def put(self, key: Key, data: bytes) -> None:
        """Stores a file. A warning says why where that fails."""
        path = self.path(key)
        with self._locked(path):
            self._write(path, key, data)
        self._prune(path)

    def _read(self, path: Path, key: Key) -> tuple[bytes | None, str]:
        """The data, or None and the reason why it is not used."""
        try:
            # Neither follows a link nor waits for a pipe.
            held = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                found = os.fstat(held)
                if not stat.S_ISREG(found.st_mode):
                    return None, f'{path} is not a file'
                # The folder may have been replaced since it was checked.
                if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
                    return None, f'{path} is not ours alone'
                with os.fdopen(held, 'rb', closefd=False) as file:
                    start = file.read(len(_manifest(key, b'')) + DIGITS)
                    manifest, _, data = start.partition(END_OF_MANIFEST)
                    size = found.st_size - len(manifest) - 1
                    # Not read if it is longer than its manifest says: it may be of any length.
                    if manifest.startswith(_start_of_manifest(size)):
                        data += file.read(size - len(data))
            finally:
                os.close(held)
        except FileNotFoundError:
            return None, 'there is none yet'
        except (OSError, MemoryError) as error:
            return None, f'the one in the cache cannot be read: {reason(error)}'
        if manifest != _manifest(key, data):
            return None, f'the one in the cache is not what was built ({path.name})'
        with contextlib.suppress(OSError):  # a read-only cache works too
            os.utime(path)  # when it was used last, for _prune
        return data, ''

    def _write(self, path: Path, key: Key, data: bytes) -> None:
        """Called with the lock of the file."""
        try:
            with replaced(path, self._part(path), mode=0o600) as file:
                file.write(_manifest(key, data) + END_OF_MANIFEST)
                file.write(data)
        except OSError as error:
            # The caller has the data; only the next start has to build it again.
            logger.warning('cannot keep %s in the cache: %s', path, reason(error))

    # Other processes.

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Keeps other processes from writing a file."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self._lock(path), _tell_of_waiting))
            except OSError as error:  # a read-only folder, or a file system without locks
                logger.warning('cannot lock the cache %s: %s', self.folder, reason(error))
            yield

    def _lock(self, path: Path) -> Path:
        return path.with_name(f'.{path.name}.lock')

    def _part(self, path: Path) -> Path:
        """The unfinished file. Only who holds the lock writes it."""
        return path.with_name(f'.{path.name}.part')

    def _remove_leftovers(self) -> None:
        """Removes what killed processes left, and what earlier versions kept beside each file."""
        with contextlib.suppress(OSError):
            for found in sorted(self.folder.iterdir()):
                if lock := LOCK.fullmatch(found.name):
                    with unlocked(found) as free:
                        if free:
                            self._part(self.folder / lock[1]).unlink(missing_ok=True)
                elif found.suffix in ('.json', '.lock') and ENTRY.fullmatch(found.stem):
                    found.unlink()

    def _prune(self, newest: Path) -> None:
        """Deletes the least recently used files until the folder is within its limit."""
        entries = []  # when it was used last, bytes, path
        with contextlib.suppress(OSError):  # another process may remove files
            for path in self.folder.iterdir():
                if ENTRY.fullmatch(path.name):
                    found = path.lstat()
                    entries.append((found.st_mtime, found.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._max_bytes or path == newest:
                continue
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size
                logger.info('deleted %s: the cache %s is full', path.name, self.folder)


def _tell_of_waiting(seconds: float, owner: str) -> None:
    logger.warning(
        'waiting for %s, which builds the same for the cache (%.0f s so far)', owner, seconds
    )


def _manifest(key: Key, data: bytes) -> bytes:
    return _canonical({'key': key, 'sha256': hashlib.sha256(data).hexdigest(), 'bytes': len(data)})


def _start_of_manifest(size: int) -> bytes:
    return f'{{\n "bytes": {size},'.encode()


def _canonical(content: Key) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1).encode() + b'\n'
