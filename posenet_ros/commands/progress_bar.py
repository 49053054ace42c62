"""Progress bars on a terminal; nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TypeVar

from tqdm import tqdm

from posenet_ros.recordings.job import Outcome
from posenet_ros.recordings.workers import Workers

Item = TypeVar('Item')


def with_progress(items: Iterable[Item], total: int = 0) -> Iterable[Item]:
    """The items, counted while they are read; `total` is 0 where it is not known."""
    bar: Iterable[Item] = tqdm(
        items, total=total or None, unit='frame', disable=not _on_a_terminal()
    )
    return bar


class BagProgress:
    """A bar over bags and their frames, with the time left.

    How many frames there are is known of the bags that were opened; of the others it is taken from
    their size.

    Args:
        sizes: bytes of each bag that is to be done, by its name.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = dict(sizes)
        self._bags, self._bytes = len(sizes), sum(sizes.values())
        self._workers: Workers | None = None
        self._finished = 0, 0  # frames and bytes of finished bags

    def __enter__(self) -> BagProgress:
        self._bar = tqdm(unit='frame', disable=not _on_a_terminal())
        return self

    def watch(self, workers: Workers) -> None:
        """Whose frames are shown."""
        self._workers = workers

    def finished(self, outcome: Outcome) -> None:
        """Takes a bag as done."""
        frames, size = self._finished
        images = outcome.images + outcome.broken
        self._finished = frames + images, size + self._sizes.pop(outcome.name, 0)
        self.tick()

    def tick(self) -> None:
        """Shows where the workers are."""
        if self._bar.disable or self._workers is None:
            return
        done, known = self._workers.frames
        frames, size = self._finished
        if size:
            known = max(known, round(frames * self._bytes / size))
        self._bar.total = max(known, done) or None
        if self._bags > 1:
            self._bar.set_description(f'bag {self._bags - len(self._sizes)}/{self._bags}', False)
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        self._bar.close()


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
