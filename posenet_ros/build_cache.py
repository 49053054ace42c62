"""What takes long to make, kept on disk: TensorRT engines and ONNX graphs.

An engine is code: whoever can replace the file can run what he likes in our process, and TensorRT
does not notice. So what is loaded from here is only what was built here: it lies in a folder that
nobody else can enter, and beside each file lies a manifest that holds all that it was built from
and for, and its SHA-256. The manifest must be, byte for byte, the one that we would write for what
we want and the file that we found; and what was checked is what is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posenet_ros.checkpoint import posenet_home
from posenet_ros.errors import BackendError, PoseNetError
from posenet_ros.files import atomic_path

logger = logging.getLogger('posenet_ros')

Key = dict[str, Any]  # what a file is made from and for; JSON


class CacheError(BackendError):
    """The cache cannot be used, or not be trusted."""


class BuildCache:
    """Files in a folder of the user's own, each with a manifest beside it.

    Args:
        name: of the folder, in our cache folder. It is made, for its owner alone, if it is not
            there.

    Raises:
        CacheError: the folder cannot be made, belongs to somebody else, or others may enter it.
    """

    def __init__(self, name: str) -> None:
        self.folder = posenet_home() / name
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
                f'the cache {self.folder} can be entered by others, and what is in it is run: '
                f'chmod 700 {self.folder}, after deleting what is there'
            )

    def path(self, key: Key) -> Path:
        """Of a file; its manifest lies beside it, with the suffix .json."""
        return self.folder / hashlib.sha256(_canonical(key)).hexdigest()[:32]

    def get(self, key: Key, build: Callable[[str], bytes], rebuild: bool = False) -> bytes:
        """The file of a key: the one that is there, or a new one.

        Args:
            key: all that decides what is built.
            build: makes it. It is told why, and called at most once; processes that want the same
                at the same time wait for the one that builds it.
            rebuild: build it whatever is there.

        Raises:
            CacheError: nothing is there, and nothing can be written.
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
                data, reason = None, 'the one in the cache is not wanted'
            if data is None:
                data = build(reason)
                self.put(key, data)
            return data

    def peek(self, key: Key) -> bytes | None:
        """The file of a key, if it is there."""
        return self._read(self.path(key), key)[0]

    def put(self, key: Key, data: bytes) -> None:
        """Keeps a file, the manifest last: without the right one it is not used."""
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
            # It can be used all the same; only the next start has to build it again.
            logger.warning('cannot keep %s in the cache: %s', path.name, error)

    def _read(self, path: Path, key: Key) -> tuple[bytes | None, str]:
        """What is there, or why it is not used."""
        try:
            data, manifest = path.read_bytes(), path.with_suffix('.json').read_bytes()
        except FileNotFoundError:
            return None, 'there is none for this model and device yet'
        except OSError as error:
            return None, f'the one in the cache cannot be read ({error})'
        if manifest != _manifest(key, data):
            return None, f'the one in the cache is not what was built ({path.name})'
        return data, ''


def _manifest(key: Key, data: bytes) -> bytes:
    return _canonical({'key': key, 'sha256': hashlib.sha256(data).hexdigest(), 'bytes': len(data)})


def _canonical(content: Key) -> bytes:
    return json.dumps(content, sort_keys=True, indent=1).encode() + b'\n'
