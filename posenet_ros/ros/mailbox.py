"""Hands items from thread to thread, keeping only the newest per key: latency cannot grow."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Generic, TypeVar

Item = TypeVar('Item')


class Mailbox(Generic[Item]):
    """One slot per key. put() replaces a waiting item; take() starts with the oldest key."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[str, Item] = {}
        self._closed = False

    def put(self, key: str, item: Item) -> bool:
        """Puts an item. Returns whether it replaced one that was not taken yet."""
        with self._changed:
            replaced = key in self._waiting
            self._waiting[key] = item
            self._changed.notify()
            return replaced

    def take(self, most: int | None = None) -> dict[str, Item] | None:
        """Waits for items and takes them; None once the mailbox is closed.

        Args:
            most: how many to take; the rest stays and may be replaced. None takes all.
        """
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            # dicts keep insertion order, and a replaced item keeps its place.
            keys = list(self._waiting)[:most]
            return {key: self._waiting.pop(key) for key in keys}

    def clear(self, keys: Collection[str] | None = None) -> dict[str, Item]:
        """Removes all items, or those of some keys. Returns them."""
        with self._changed:
            wanted = list(self._waiting) if keys is None else self._waiting.keys() & keys
            return {key: self._waiting.pop(key) for key in list(self._waiting) if key in wanted}

    def close(self) -> None:
        """Makes every take() return None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
