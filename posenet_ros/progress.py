"""How long work reports how far it has come."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]  # what is being done, steps done, of how many


def no_progress(what: str, done: int, total: int) -> None:
    """For callers that show none."""
