"""Everything that posenet_ros raises on purpose. Each message says what to do about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

MOST_CHARACTERS = 2000  # of a message
MOST_QUOTED = 100  # of a value from outside within it


class PoseNetError(Exception):
    """Base of all errors raised here. Its text can be logged, whatever it quotes: see printable."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(PoseNetError, ValueError):
    """An option has an invalid value."""


class CheckpointError(PoseNetError):
    """Weights could not be found, fetched or trusted."""


class GraphError(PoseNetError):
    """A tfjs graph cannot be read or converted."""


class BackendError(PoseNetError):
    """A backend is not available here, or failed while it ran."""


class ImageError(PoseNetError, ValueError):
    """An image cannot be used as it is."""


class CalibrationError(PoseNetError, ValueError):
    """A camera's calibration cannot be used."""


class NoDeviceError(BackendError):
    """The backend has no device to run on; the message says what is missing."""


class DependencyError(PoseNetError):
    """A package that is needed for this is not installed; the message says which, and where."""


class LabelError(PoseNetError):
    """A file of labels or predictions that cannot be used."""


def reason(error: BaseException) -> str:
    """Why something failed, for a message that names it already: without the system's number."""
    return str(getattr(error, 'strerror', None) or error) or type(error).__name__


def in_words(error: BaseException) -> str:
    """The kind of an error and its text, for one that was not foreseen."""
    return printable(f'{type(error).__name__}: {error}')


def printable(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text in one line that every terminal and log takes: the rest escaped, the middle left out.

    Args:
        text: of any characters, with bytes that are no UTF-8 as Python's surrogates.
        most: characters of the result, about.
    """
    text = _shortened(text, most)
    if text.isprintable():
        return text
    escaped = (
        c if c.isprintable() else ' ' if c == '\n' else c.encode('unicode_escape').decode()
        for c in text
    )
    return _shortened(''.join(escaped), most)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f'{text[: most - most // 4]} ... {text[-most // 4 :]}'


def quoted(value: object) -> str:
    """A value from outside as it appears in messages: in quotes, shortened and escaped."""
    return repr(printable(str(value), MOST_QUOTED))


@contextlib.contextmanager
def everything_as(kind: type[PoseNetError], what: str) -> Iterator[None]:
    """Turns any error within the block into one of ours, for what handles input from outside.

    Args:
        kind: of the error.
        what: failed: the begin of its message, with the file's name.
    """
    try:
        yield
    except PoseNetError:
        raise
    except Exception as error:
        raise kind(f'{what} ({type(error).__name__}: {reason(error)})') from error
