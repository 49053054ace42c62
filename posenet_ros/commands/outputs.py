"""What commands write: never over an input or another output, and never lost on the way."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from posenet_ros.atomic_file import atomic_path, is_stream, partial_name, partial_path
from posenet_ros.errors import PoseNetError, reason

STANDARD_OUTPUT = Path('-')
LINES_SUFFIXES = ('.jsonl', '.ndjson')


def check_outputs(inputs: Sequence[Path | None], outputs: Sequence[Path | None]) -> None:
    """Refuses outputs that are an input, lie in the way of one, or are the same.

    Args:
        inputs: files and folders that are read.
        outputs: files and folders that are to be written.

    Raises:
        PoseNetError: with the names.
    """
    read = [path for path in inputs if path is not None]
    written = [p for p in outputs if p is not None and p != STANDARD_OUTPUT and not is_stream(p)]
    for i, output in enumerate(written):
        if any(_same(output, other) for other in written[:i]):
            raise PoseNetError(f'{output} is given for two outputs; choose another name for one')
        for source in read:
            partial = partial_name(output)
            if _same(partial, source) or any(_same(partial, above) for above in source.parents):
                raise PoseNetError(
                    f'{output} would be {partial} while it is written, which is in the way: it '
                    f'is, or holds, the input {source}'
                )
            if _same(output, source):
                raise PoseNetError(
                    f'{output} is the input itself; choose another name for the output'
                )
            if source.is_dir() and output.exists() and _same(output.parent, source):
                raise PoseNetError(
                    f'{output} is a file of the input {source}; choose another name for the output'
                )
        if not output.parent.is_dir():
            raise PoseNetError(f'cannot write {output}: there is no folder {output.parent}')
        try:
            with suppress(FileNotFoundError):
                output.stat()
        except (OSError, ValueError) as error:  # a loop of links, a name with a null byte
            raise PoseNetError(f'cannot write {output}: {reason(error)}') from error


class Problems:
    """Items that could not be used. Each is told at once, and does not end the rest."""

    def __init__(self) -> None:
        self.items = 0

    def add(self, problem: object) -> None:
        """Counts an item that could not be used."""
        self.items += 1
        self.warn(problem)

    def warn(self, what: object) -> None:
        """Tells something that is no failure."""
        warn(what)

    def raise_if_any(self, what: str, done: int) -> None:
        """Ends the command with exit status 1 if there were problems.

        Args:
            what: plural of the items.
            done: items that could be used.

        Raises:
            PoseNetError: with the numbers.
        """
        if self.items:
            rest = 'the results of the others are complete' if done else 'there are no results'
            raise PoseNetError(
                f'{self.items} of {self.items + done} {what} could not be used (see above); {rest}'
            )

    def raise_if_incomplete(self, source: object) -> None:
        """Ends the command with exit status 1 if there were problems with its one input."""
        if self.items:
            raise PoseNetError(f'{source} could not be read completely (see above)')


def warn(what: object) -> None:
    """A warning on stderr, for people."""
    tell(f'posenet: warning: {what}')


def tell(text: str) -> None:
    """A line on stderr, which may be closed, beside a progress bar."""
    if sys.stderr is not None:
        from tqdm import tqdm

        with suppress(OSError):
            tqdm.write(text, file=sys.stderr)


@contextmanager
def kept(output: Path | None) -> Iterator[None]:
    """Tells where the finished part of an output is, if the block fails or is interrupted."""
    try:
        yield
    except BaseException:
        if output is not None:
            partial = partial_name(output)
            if partial.exists():
                warn(f'what was finished is in {partial}')
        raise


class JsonOutput:
    """JSON that is written as results come: to a file, or to standard output.

    FILE.json and standard output get an array, with an entry on each line; FILE.jsonl and "-" get
    an entry on each line and nothing else. A file is FILE.partial.json until the block succeeds. If
    it is interrupted or fails, the array is closed, so that the partial file is valid too.

    Args:
        path: of the file; "-" for lines on standard output; None for an array there.
        single: the one entry is the whole value, without an array.
    """

    def __init__(self, path: Path | None, single: bool = False) -> None:
        self._path = path
        self._lines = path is not None and (
            path == STANDARD_OUTPUT or path.suffix.lower() in LINES_SUFFIXES
        )
        self._single = single
        self._stack = ExitStack()
        self._written = 0

    def __enter__(self) -> JsonOutput:
        self._stream = self._open()
        return self

    def write(self, entry: Any) -> None:
        """Adds an entry, with null for NaN and infinity, which JSON does not have.

        Raises:
            PoseNetError: it cannot be written.
        """
        text = json.dumps(finite(entry))
        if not self._lines and not self._single:
            text = ('[' if self._written == 0 else ',\n') + text
        self._written += 1
        self._put(text + ('\n' if self._lines or self._single else ''))

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if not self._lines and not self._single and (self._written or kind is None):
            with suppress(*(() if kind is None else (PoseNetError, OSError))):  # the first counts
                self._put(']\n' if self._written else '[]\n')
        self._stack.__exit__(kind, error, trace)

    def _open(self) -> TextIO:
        if self._path is None or self._path == STANDARD_OUTPUT:
            if sys.stdout is None:
                raise PoseNetError('standard output is closed; give --json FILE')
            return sys.stdout
        if is_stream(self._path):
            part = self._stack.enter_context(atomic_path(self._path))
        else:
            self._stack.enter_context(kept(self._path))
            part = self._stack.enter_context(partial_path(self._path))
        try:
            return self._stack.enter_context(part.open('w', encoding='ascii'))
        except OSError as error:
            raise PoseNetError(f'cannot write {self._path}: {error.strerror}') from error

    def _put(self, text: str) -> None:
        where = self._path if self._stream is not sys.stdout else 'to standard output'
        _put(self._stream, text, where)


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Writes one JSON value, with null for NaN and infinity; "-" is standard output.

    Raises:
        PoseNetError: it cannot be written.
    """
    text = json.dumps(finite(value), indent=indent) + '\n'
    if path == STANDARD_OUTPUT:
        say(text, end='')
        return
    with atomic_path(path) as part:
        part.write_text(text, encoding='ascii')


def say(text: str, end: str = '\n') -> None:
    """Prints a result on standard output.

    Raises:
        PoseNetError: standard output is closed or full.
    """
    if sys.stdout is None:
        raise PoseNetError('standard output is closed')
    _put(sys.stdout, text + end, 'to standard output')


def _put(stream: TextIO, text: str, where: object) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PoseNetError(f'cannot write {where}: {error.strerror}') from error


def finite(value: Any) -> Any:
    """A JSON value with null for NaN and infinity."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # not there, or a name with a null byte
        return os.path.realpath(one) == os.path.realpath(other)  # survives loops of links
