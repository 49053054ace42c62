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


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file with the suffix of `path`, renamed to `path` when the block succeeds.

    A symbolic link is followed. A pipe or a device, such as /dev/stdout, is written to.

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
    """Whether a path is a pipe or a device, which is written to and not replaced."""
    if path.is_relative_to('/dev') or path.is_relative_to('/proc'):
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
