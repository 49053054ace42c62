"""One waiting frame per camera: the newest. Nothing ever queues, so latency cannot grow."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Item = TypeVar('Item')


class Mailbox(Generic[Item]):
    """A slot per key. Writers replace what waits; readers take what has waited longest."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, Item] = {}
        self._closed = False

    def put(self, key: str, item: Item) -> bool:
        """Leaves an item. Returns whether it replaced one that nobody had taken yet."""
        with self._changed:
            replaced = key in self._waiting
            self._waiting[key] = item
            self._changed.notify()
            return replaced

    def take(self, most: int | None = None) -> dict[str, Item] | None:
        """Waits until there is something, and takes it; None once closed.

        Args:
            most: leave what is more than this, to be replaced by newer. None takes everything.
        """
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            # In the order in which the keys began to wait: a replaced item keeps its place.
            keys = list(self._waiting)[:most]
            return {key: self._waiting.pop(key) for key in keys}

    def clear(self) -> list[str]:
        """Throws away what waits. Returns its keys."""
        with self._changed:
            waiting, self._waiting = self._waiting, {}
            return list(waiting)

    def close(self) -> None:
        """Ends the reader's waiting for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
