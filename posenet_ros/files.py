"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from posenet_ros.errors import PoseNetError


def expanded(path: Path | str) -> Path:
    """A path with ~ replaced.

    Raises:
        PoseNetError: there is no such home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise PoseNetError(f'{path}: nobody of that name has a home here') from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file, with the suffix of `path`, that becomes `path` when the block ends well.

    A link stays a link, to the new file. What is no regular file (a pipe, a device, /dev/stdout) is
    not replaced: the contents are written to it.

    Raises:
        PoseNetError: it cannot be written.
    """
    try:
        if _is_stream(path):
            with tempfile.TemporaryDirectory() as folder:
                part = Path(folder) / f'part{path.suffix}'
                yield part
                if part.exists():
                    with part.open('rb') as source, path.open('wb') as stream:
                        shutil.copyfileobj(source, stream)
            return
        target = path.resolve() if path.is_symlink() else path
        if not target.parent.is_dir():
            raise PoseNetError(f'cannot write {path}: there is no folder {target.parent}')
        part = target.with_name(f'.{target.stem}.part-{os.urandom(4).hex()}{target.suffix}')
        try:
            yield part
            if part.exists():
                part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise PoseNetError(f'cannot write {path}: {error.strerror or error}') from error


def _is_stream(path: Path) -> bool:
    """Whether a path leads to something that is written to, and not replaced."""
    if path.is_relative_to('/dev') or path.is_relative_to('/proc'):
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
