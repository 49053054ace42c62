"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from posenet_ros.errors import PoseNetError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, with its suffix, renamed to it when the block ends well.

    Raises:
        PoseNetError: the folder cannot be written to.
    """
    part = path.with_name(f'.{path.stem}.part{path.suffix}')
    if not path.parent.is_dir():
        raise PoseNetError(f'cannot write {path}: there is no folder {path.parent}')
    try:
        yield part
        if part.exists():
            part.replace(path)
    except OSError as error:
        raise PoseNetError(f'cannot write {path}: {error.strerror}') from error
    finally:
        part.unlink(missing_ok=True)
