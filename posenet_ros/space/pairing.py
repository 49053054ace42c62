"""Poses and the depth images of the same moment: each waits for the other, and never for long."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

Item = TypeVar('Item')

# Depth images of a camera that are kept: a slow network gives the poses long after the image.
DEPTH_SECONDS = 2.0
MOST_DEPTHS = 64
MOST_WAITING = 30  # of a camera; beyond them the oldest waits no longer
NANOSECONDS = 1_000_000_000


class Depth(NamedTuple):
    """A depth image that came."""

    stamp: int  # nanoseconds
    message: Any


class Paired(NamedTuple):  # not generic as well: Python 3.10 has no such thing
    """An item, and the depth image of its moment; None if none came in time."""

    item: Any
    depth: Depth | None


@dataclass
class _Waiting(Generic[Item]):
    item: Item
    stamp: int
    deadline: float


class Pairing(Generic[Item]):
    """Gives each item the depth image whose stamp is nearest, in the order of the items.

    An item is ready when a depth image as new as it, or newer, has come; when the next one is not
    expected to be nearer than the last; or at its deadline.

    Args:
        slop: most seconds between an item and its depth image.
        wait: most seconds that an item waits.
        clock: that seconds are counted by.
    """

    def __init__(
        self, slop: float, wait: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slop = round(slop * NANOSECONDS)
        self._wait = wait
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: dict[str, deque[_Waiting[Item]]] = {}
        self._depths: dict[str, deque[Depth]] = {}
        self._closed = False

    def put(self, camera: str, stamp: int, item: Item) -> None:
        """Adds an item, with its stamp in nanoseconds."""
        with self._changed:
            waiting = self._waiting.setdefault(camera, deque())
            waiting.append(_Waiting(item, stamp, self._clock() + self._wait))
            self._changed.notify()

    def put_depth(self, camera: str, stamp: int, message: Any) -> None:
        """Adds a depth image. Where stamps begin again, as those of a bag do, earlier ones go."""
        with self._changed:
            depths = self._depths.setdefault(camera, deque(maxlen=MOST_DEPTHS))
            if depths and stamp < depths[-1].stamp - NANOSECONDS:
                depths.clear()
            depths.append(Depth(stamp, message))
            while depths[0].stamp < stamp - round(DEPTH_SECONDS * NANOSECONDS):
                depths.popleft()
            self._changed.notify()

    def take(self, most: int | None = None) -> dict[str, Paired] | None:
        """Waits for items that are ready, and takes one of each camera; None once closed."""
        with self._changed:
            while not self._closed:
                now = self._clock()
                ready = self._ready_at(now)
                if ready:
                    return {camera: self._pair(camera) for camera in ready[:most]}
                deadlines = [waiting[0].deadline for waiting in self._waiting.values() if waiting]
                self._changed.wait(min(deadlines) - now if deadlines else None)
            return None

    def ready(self, everything: bool = False) -> Iterator[tuple[str, Paired]]:
        """What is ready now, without waiting: for a recording, whose own time is the clock.

        Args:
            everything: whatever else waits, too.
        """
        with self._changed:
            while ready := self._ready_at(math.inf if everything else self._clock()):
                for camera in ready:
                    yield camera, self._pair(camera)

    def clear(self) -> None:
        """Forgets everything."""
        with self._changed:
            self._waiting, self._depths = {}, {}

    def close(self) -> None:
        """Makes every take() return None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _ready_at(self, now: float) -> list[str]:
        """Cameras whose oldest item is ready."""
        return [
            camera
            for camera, waiting in self._waiting.items()
            if waiting and (len(waiting) > MOST_WAITING or self._ready(camera, waiting[0], now))
        ]

    def _ready(self, camera: str, waiting: _Waiting[Item], now: float) -> bool:
        depths = self._depths.get(camera)
        if now >= waiting.deadline:
            return True
        if not depths:
            return False
        last = depths[-1].stamp
        if last >= waiting.stamp or len(depths) < 2:
            return last >= waiting.stamp
        expected = last + (last - depths[-2].stamp)  # stamp of the next one
        return waiting.stamp - last <= min(self._slop, expected - waiting.stamp)

    def _pair(self, camera: str) -> Paired:
        waiting = self._waiting[camera].popleft()
        nearest = min(
            reversed(self._depths.get(camera, deque())),  # the newest of several without a stamp
            key=lambda depth: abs(depth.stamp - waiting.stamp),
            default=None,
        )
        if nearest is None or abs(nearest.stamp - waiting.stamp) > self._slop:
            return Paired(waiting.item, None)
        return Paired(waiting.item, nearest)
