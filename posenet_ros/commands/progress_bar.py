"""Progress bars on a terminal; nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar('Item')


def with_progress(items: Iterable[Item], total: int = 0) -> Iterable[Item]:
    """The items, counted while they are read; `total` is 0 where it is not known."""
    bar: Iterable[Item] = tqdm(
        items, total=total or None, unit='frame', disable=not _on_a_terminal()
    )
    return bar


class ProgressBar:
    """A bar for work in several phases."""

    def __enter__(self) -> ProgressBar:
        self._bar = tqdm(disable=not _on_a_terminal(), leave=False)
        self._phase = ''
        return self

    def show(self, phase: str, done: int, total: int) -> None:
        """Shows a step; this is a posenet_ros.progress.Progress."""
        if self._bar.disable:
            return
        if phase != self._phase:
            self._phase = phase
            self._bar.reset(total)
            self._bar.set_description(phase)
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _on_a_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
