"""One waiting frame per camera: the newest. Nothing ever queues, so latency cannot grow."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Item = TypeVar('Item')


class Mailbox(Generic[Item]):
    """A slot per key. Writers replace what waits; the reader takes all that waits at once."""

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

    def take(self) -> dict[str, Item] | None:
        """Waits until there is something, and takes all of it; None once closed."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            waiting, self._waiting = self._waiting, {}
            return waiting

    def clear(self) -> None:
        """Throws away what waits."""
        with self._changed:
            self._waiting = {}

    def close(self) -> None:
        """Ends the reader's waiting for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
