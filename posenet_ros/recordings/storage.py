"""Paths on disks and in object stores (s3://, gs://, ...), through fsspec where they are URLs."""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from posenet_ros.environment import dependencies_for
from posenet_ros.errors import DependencyError, PoseNetError, in_words


def path_of(text: str) -> Path:
    """A path as a user gives it: of a disk, or the URL of something that fsspec knows.

    Raises:
        PoseNetError: fsspec, or what it needs for this protocol, is missing or refuses it.
    """
    if not re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', text):
        return Path(text)
    if text.startswith('file://'):
        return Path(unquote(urlsplit(text).path))
    with dependencies_for(f'reading {text}'):
        from upath import UPath
    try:
        with errors_of(text):
            path: Any = UPath(text)
            _ = path.fs
    except ImportError as error:  # fsspec says which package it needs for this protocol
        raise DependencyError(f'{text}: {error} (this is {sys.executable})') from error
    return cast(Path, path)


def anywhere(path: Path) -> Path:
    """A path for workers, whose working directory may be another."""
    return path if is_remote(path) else path.absolute()


def is_remote(path: Path) -> bool:
    """Whether a path is of an object store."""
    return hasattr(path, 'fs')


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """A bag on this machine's disk, under its own name: itself, or a copy that is removed.

    Raises:
        PoseNetError: it cannot be copied.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix='posenet-bag-') as folder:
        copy = Path(folder) / path.name
        with errors_of(path):
            path.fs.get(path.path, str(copy), recursive=path.is_dir())  # type: ignore[attr-defined]
        yield copy


@contextlib.contextmanager
def written_to(path: Path, marker: str = '') -> Iterator[Path]:
    """Where to write a file or a folder that is to have this path when the block succeeds.

    Args:
        path: of the result.
        marker: the file of a folder that comes last to an object store: without it the folder is
            not finished.

    Raises:
        PoseNetError: it cannot be written.
    """
    if not is_remote(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PoseNetError(f'cannot make the folder {path.parent}: {error.strerror}') from error
        yield path
        return
    with tempfile.TemporaryDirectory(prefix='posenet-bag-') as folder:
        local = Path(folder) / path.name
        yield local
        fs = path.fs  # type: ignore[attr-defined]
        with errors_of(path):
            if local.is_file():
                fs.put_file(str(local), path.path)  # type: ignore[attr-defined]
                return
            # Without its marker what was there before is not finished.
            for old in (marker, f'{path.name}.mcap', f'{path.name}.db3'):
                if old and (path / old).exists():
                    fs.rm_file((path / old).path)  # type: ignore[attr-defined]
            for file in sorted(local.iterdir(), key=lambda file: (file.name == marker, file.name)):
                fs.put_file(str(file), (path / file.name).path)  # type: ignore[attr-defined]


@contextlib.contextmanager
def errors_of(what: object) -> Iterator[None]:
    """Turns the errors of an object store, which are of many kinds, into one of ours."""
    try:
        yield
    except (PoseNetError, ImportError):
        raise
    except Exception as error:
        raise PoseNetError(f'{what} cannot be reached: {in_words(error)}') from error
