"""Files that are written whole or not at all, or kept under a name that says they are partial.

What takes a file's name is on the disk before: a power cut leaves the old file or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from posenet_ros.errors import PoseNetError, reason

LOCK_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
FIRST_WORD_SECONDS = 1.0  # of waiting for a lock
NEXT_WORD_SECONDS = 60.0


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file with the suffix of `path`, renamed to `path` when the block succeeds.

    A symbolic link is followed. A pipe or a device, such as /dev/stdout, is written to.

    Raises:
        PoseNetError: it cannot be written.
    """
    with _errors_of(path):
        if is_stream(path):
            with tempfile.TemporaryDirectory() as folder:
                part = Path(folder) / f'part{path.suffix}'
                yield part
                if part.exists():
                    with part.open('rb') as source, path.open('wb') as stream:
                        shutil.copyfileobj(source, stream)
            return
        target = _target(path)
        # Short, since names may be as long as a file system allows.
        part = target.with_name(f'.part-{os.urandom(4).hex()}{target.suffix}')
        try:
            yield part
            if part.exists():
                to_disk(part)
                part.replace(target)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def partial_path(path: Path, check: Callable[[Path], None] = lambda part: None) -> Iterator[Path]:
    """NAME.partial.SUFFIX, for work that takes long; renamed to `path` when the block succeeds.

    What was there before stays until then. If the block fails or is interrupted, what it has
    written stays under the partial name.

    Args:
        path: of the finished file or folder.
        check: raises an error if what was written is not good; then it does not take the name.

    Raises:
        PoseNetError: it cannot be written.
    """
    with _errors_of(path), contextlib.ExitStack() as stack:
        target = _target(path)
        part = partial_name(target)
        if part.is_dir():
            raise PoseNetError(f'{part} is in the way: it is a folder')
        held = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
        stack.callback(os.close, held)
        lock(held, part)
        os.ftruncate(held, 0)
        stack.pop_all()
    try:
        try:
            yield part
        except BaseException:
            if part.is_file() and part.stat().st_size == 0:
                part.unlink()
            raise
        check(part)
        with _errors_of(path):
            if not os.path.samestat(part.stat(), os.fstat(held)):
                raise PoseNetError(f'cannot write {path}: {part} was replaced meanwhile')
            to_disk(part)
            part.replace(target)
    finally:
        os.close(held)


@contextlib.contextmanager
def replaced(path: Path, part: Path, mode: int) -> Iterator[BinaryIO]:
    """An open file that takes the name `path` when the block succeeds.

    Args:
        path: of the finished file.
        part: where it is written; what was there is removed.
        mode: the file's permissions.

    Raises:
        OSError: it cannot be written; then there is no `part`.
    """
    part.unlink(missing_ok=True)
    try:
        held = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(held, 'wb') as file:
            yield file
            file.flush()
            os.fsync(held)
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[float, str], None]) -> Iterator[None]:
    """Holds a lock that other processes wait for. The lock's file is there only meanwhile.

    A process that is killed leaves the file, and not the lock.

    Args:
        path: of the lock's file.
        waiting: called while another process has the lock, after a second and then every minute,
            with the seconds so far and the name of the process.

    Raises:
        OSError: the file cannot be made or locked.
    """
    started = time.monotonic()
    next_word = started + FIRST_WORD_SECONDS
    while True:
        held = os.open(path, LOCK_FLAGS | os.O_CREAT, 0o600)
        try:
            while not _flock(held):
                if time.monotonic() >= next_word:
                    waiting(time.monotonic() - started, _owner(held))
                    next_word = time.monotonic() + NEXT_WORD_SECONDS
                time.sleep(0.05)
            if not _is_at(path, held):  # the one before has removed it, as below
                continue
            os.truncate(held, 0)
            os.write(held, str(os.getpid()).encode())
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    path.unlink()
            return
        finally:
            os.close(held)


@contextlib.contextmanager
def unlocked(path: Path) -> Iterator[bool]:
    """Whether a lock's file was left by a process that is gone; if so, it is removed afterwards.

    Raises:
        OSError: the file is not there or cannot be opened.
    """
    held = os.open(path, LOCK_FLAGS)
    try:
        free = _flock(held) and _is_at(path, held)
        yield free
        if free:
            path.unlink()
    finally:
        os.close(held)


def lock(held: int, path: Path) -> None:
    """Keeps other runs from what an open file or folder is for, until it is closed.

    Raises:
        PoseNetError: another run has it.
    """
    if not _flock(held):
        raise PoseNetError(f'another run is writing {path}')


def is_written(path: Path) -> bool:
    """Whether another run holds the lock of what it writes to `path`, a file or a folder."""
    try:
        held = os.open(partial_name(path), os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _flock(held)
    finally:
        os.close(held)


def to_disk(path: Path) -> None:
    """Returns when what was written to a file, or the names in a folder, would survive a power cut.

    Raises:
        OSError: it cannot be written.
    """
    held = os.open(path, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def partial_name(path: Path) -> Path:
    """NAME.partial.SUFFIX, where unfinished work is."""
    return path.with_name(f'{path.stem}.partial{path.suffix}')


def is_stream(path: Path) -> bool:
    """Whether a path is a pipe or a device, which is written to and not replaced."""
    if path.parent == Path('/dev/fd') or str(path) in ('/dev/stdout', '/dev/stderr'):
        return True
    if path.is_relative_to('/proc') and path.parent.name == 'fd':
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # ValueError: a name with a null byte
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _flock(held: int) -> bool:
    """Locks an open file or folder, if it is free. Returns whether it was."""
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, held: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(held))
    except FileNotFoundError:
        return False


def _owner(held: int) -> str:
    number = os.pread(held, 20, 0).decode('ascii', 'replace')
    return f'process {number}' if number.isdigit() else 'another process'


def _target(path: Path) -> Path:
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if not target.parent.is_dir():
        raise PoseNetError(f'cannot write {path}: there is no folder {target.parent}')
    if target.is_dir():
        raise PoseNetError(f'cannot write {path}: Is a directory')
    return target


@contextlib.contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PoseNetError(f'cannot write {path}: {reason(error)}') from error
    except ValueError as error:
        if 'null' not in str(error):
            raise
        raise PoseNetError(f'cannot write {path}: {error}') from error
