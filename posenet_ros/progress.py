"""The callback through which long work reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # what is being done, steps done, of how many


def no_progress(what: str, done: int, total: int) -> None:
    """Ignores progress, for callers that do not show it."""
