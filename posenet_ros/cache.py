"""Cache of what takes long to build: ONNX networks and TensorRT engines, in POSENET_HOME.

An engine is executable code that TensorRT runs without checking it. So the cache lies in a folder
that only its owner can enter, and beside each file lies a manifest with everything that it was
built from and its SHA-256. A file is used only if its manifest is byte for byte the one that we
would write for it. It is read once, so the bytes that were checked are the bytes that are used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posenet_ros.environment import expanded
from posenet_ros.errors import BackendError, PoseNetError
from posenet_ros.io.atomic_file import atomic_path

logger = logging.getLogger('posenet_ros')

Key = dict[str, Any]  # everything that decides what is built; JSON

MAX_BYTES = 1 << 30  # per folder; beyond it the least recently used files are deleted
ABANDONED_SECONDS = 3600.0


class CacheError(BackendError):
    """The cache cannot be used, or cannot be trusted."""


def posenet_home() -> Path:
    """The folder of all caches: $POSENET_HOME, or ~/.cache/posenet_ros."""
    return expanded(os.environ.get('POSENET_HOME') or '~/.cache/posenet_ros')


class BuildCache:
    """Built files in a folder of posenet_home(), each with a manifest beside it.

    Args:
        name: of the folder, which is made with mode 0700 where it is missing.
        max_bytes: what the folder may hold; beyond it the least recently used files are deleted.

    Raises:
        CacheError: the folder cannot be made, belongs to somebody else, or others may enter it.
    """

    def __init__(self, name: str, max_bytes: int = MAX_BYTES) -> None:
        self.folder = posenet_home() / name
        self._max_bytes = max_bytes
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.folder.mkdir(mode=0o700)
            found = self.folder.lstat()
        except OSError as error:
            raise CacheError(f'cannot use the cache {self.folder}: {error}') from error
        if not stat.S_ISDIR(found.st_mode):
            raise CacheError(f'the cache {self.folder} is not a folder')
        if found.st_uid != os.getuid():
            raise CacheError(f'the cache {self.folder} belongs to another user')
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise CacheError(
                f'the cache {self.folder} can be entered by others, who may have changed its code: '
                f'delete its files, then run chmod 700 {self.folder}'
            )

    def path(self, key: Key) -> Path:
        """Where a file lies; its manifest has the suffix .json."""
        return self.folder / hashlib.sha256(_canonical(key)).hexdigest()[:32]

    def get(self, key: Key, build: Callable[[str], bytes], rebuild: bool = False) -> bytes:
        """The file of a key, from the cache or built.

        Args:
            key: everything that decides what is built.
            build: builds it, given the reason. Processes that want the same file at the same time
                wait for the one that builds it.
            rebuild: build it even if the cache has it.

        Raises:
            CacheError: it is not in the cache, and the cache cannot be written.
        """
        path = self.path(key)
        if not rebuild and (found := self.peek(key)) is not None:
            return found
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context(path.with_suffix('.lock').open('w'))
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                raise CacheError(f'cannot use the cache {self.folder}: {error}') from error
            data, reason = self._read(path, key)
            if rebuild:
                data, reason = None, 'a rebuild was asked for'
            if data is None:
                data = build(reason)
                self.put(key, data)
            return data

    def peek(self, key: Key) -> bytes | None:
        """The file of a key, if the cache has it."""
        return self._read(self.path(key), key)[0]

    def put(self, key: Key, data: bytes) -> None:
        """Stores a file, then its manifest: without a matching manifest it is not used."""
        path = self.path(key)
        manifest_path = path.with_suffix('.json')
        try:
            manifest_path.unlink(missing_ok=True)
            for target, content in ((path, data), (manifest_path, _manifest(key, data))):
                with atomic_path(target) as part, part.open('wb') as file:
                    os.fchmod(file.fileno(), 0o600)
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
        except (OSError, PoseNetError) as error:
            # The caller has the data; only the next start has to build it again.
            logger.warning('cannot keep %s in the cache: %s', path.name, error)
        with contextlib.suppress(OSError):  # another process may remove the folder
            self._prune(path)

    def _prune(self, newest: Path) -> None:
        """Deletes the least recently used files until the folder is within its limit."""
        now = time.time()
        entries = []  # when it was used last, bytes, path
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process prunes too
                found = path.stat()
                if path.name.startswith('.'):  # a process was killed while it wrote
                    if now - found.st_mtime > ABANDONED_SECONDS:
                        path.unlink()
                elif not path.suffix:
                    manifest = path.with_suffix('.json')
                    used = manifest.stat().st_mtime if manifest.exists() else found.st_mtime
                    entries.append((used, found.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._max_bytes or path == newest:
                continue
            with contextlib.suppress(OSError), path.with_suffix('.lock').open('w') as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while it is built
                for suffix in ('.json', '', '.lock'):
                    path.with_suffix(suffix).unlink(missing_ok=True)
                total -= size
                logger.info('deleted %s: the cache %s is full', path.name, self.folder)

    def _read(self, path: Path, key: Key) -> tuple[bytes | None, str]:
        """The data, or None and the reason why it is not used."""
        try:
            data, manifest = path.read_bytes(), path.with_suffix('.json').read_bytes()
        except FileNotFoundError:
            return None, 'there is none for this model and device yet'
        except OSError as error:
            return None, f'the one in the cache cannot be read ({error})'
        if manifest != _manifest(key, data):
            return None, f'the one in the cache is not what was built ({path.name})'
        with contextlib.suppress(OSError):  # a read-only cache works too
            os.utime(path.with_suffix('.json'))  # when it was used last, for _prune
        return data, ''


def _manifest(key: Key, data: bytes) -> bytes:
    return _canonical({'key': key, 'sha256': hashlib.sha256(data).hexdigest(), 'bytes': len(data)})


def _canonical(content: Key) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1).encode() + b'\n'
