"""What each camera did: images, drops and why, latency and the time of each stage.

Every image that came is counted once more, as processed, dropped or left out, or it waits.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_PUBLISHERS = 16  # of one topic, that are remembered


@dataclass
class Window:
    """What one camera did since the last diagnostics."""

    seconds: float
    received: int = 0
    processed: int = 0
    people: int = 0
    whole_images: int = 0  # looks, in this window
    closeups: int = 0
    tracked: tuple[int, int, int] | None = None  # people now; ids given and ended so far
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> frames, since the start
    dropped_now: int = 0  # frames, in this window
    total_received: int = 0  # since the start, as the following
    total_processed: int = 0
    left_out: int = 0  # by max_rate
    lost: int | None = None  # before they reached the node; None: the middleware does not tell
    lost_now: int = 0  # likewise, in this window
    last_problem: str = ''  # why the last frame was dropped or damaged, in words
    damaged: int = 0  # images that were used all the same, since the start
    samples: dict[str, list[float]] = field(default_factory=dict)  # latency and stages, in s
    last_image_age: float | None = None
    waiting: float = 0.0  # seconds since the last image, or since the subscription
    clock_offset: float | None = None  # now minus stamp in s, if from another clock
    with_depth: int = 0  # frames whose people were placed by a depth image, since the start
    without_depth: int = 0  # frames with lift depth and no depth image, since the start
    depth_problem: str = ''  # why the last of these had none

    @property
    def frames_waiting(self) -> int:
        """Frames that have come, and are neither processed nor dropped yet."""
        ended = self.total_processed + self.left_out + sum(self.dropped.values())
        return self.total_received - ended


class CameraStatistics:
    """Counts of one camera. Written by the executor's and the model's threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._last_image: float | None = None
        self._listening_since = self._started
        self._clock_offset: float | None = None
        self._received = self._processed = self._people = self._dropped_now = 0
        self._lost_now = 0
        self._whole_images = self._closeups = 0
        self._tracked: tuple[int, int, int] | None = None
        self._total_received = self._total_processed = self._left_out = self._damaged = 0
        self._lost: int | None = None
        self._last_problem = ''
        self._dropped: Counter[str] = Counter()
        self._with_depth = self._without_depth = 0
        self._depth_problem = ''
        self._samples: dict[str, list[float]] = defaultdict(list)

    def listening(self) -> None:
        """The camera is subscribed to: images are expected from now on."""
        with self._lock:
            self._listening_since = time.monotonic()
            self._last_image = None

    def stamped_by_another_clock(self, offset: float | None) -> None:
        """Now minus an image's stamp in seconds, if that cannot be latency; else None."""
        with self._lock:
            self._clock_offset = offset

    def image_received(self) -> None:
        with self._lock:
            self._received += 1
            self._total_received += 1
            self._last_image = time.monotonic()

    def images_lost(self, count: int) -> None:
        """Counts images that were published and did not reach the node."""
        with self._lock:
            self._lost = (self._lost or 0) + count
            self._lost_now += count

    def image_dropped(self, reason: str, problem: str = '') -> int:
        """Counts a frame that was not processed. Returns how many there were for this reason.

        Args:
            reason: one of a few.
            problem: what exactly was wrong, if anything was.
        """
        with self._lock:
            self._dropped[reason] += 1
            self._dropped_now += 1
            self._last_problem = problem or self._last_problem
            return self._dropped[reason]

    def image_left_out(self) -> None:
        """Counts an image that max_rate leaves out."""
        with self._lock:
            self._left_out += 1

    def image_damaged(self, problem: str) -> None:
        """Counts an image that is damaged, and is used all the same."""
        with self._lock:
            self._damaged += 1
            self._last_problem = problem

    def image_processed(self, people: int, seconds: Mapping[str, float]) -> None:
        """Counts a published frame, with the seconds of its latency and stages."""
        with self._lock:
            self._processed += 1
            self._total_processed += 1
            self._people = people
            for name, value in seconds.items():
                self._samples[name].append(value)

    def image_looked_at(
        self, whole: bool, closeups: int, tracked: tuple[int, int, int] | None
    ) -> None:
        """Counts the looks at a frame.

        Args:
            whole: whether all of it was looked at.
            closeups: of it.
            tracked: people with an id now; ids given, and ended, since the start. None: no tracker.
        """
        with self._lock:
            self._whole_images += whole
            self._closeups += closeups
            self._tracked = tracked

    def people_with_depth(self) -> None:
        """Counts a frame whose people were placed by a depth image."""
        with self._lock:
            self._with_depth += 1

    def people_without_depth(self, problem: str) -> None:
        """Counts a frame that should have had a depth image, and why it has none."""
        with self._lock:
            self._without_depth += 1
            self._depth_problem = problem

    def start_window(self) -> Window:
        """What happened since the last call."""
        with self._lock:
            now = time.monotonic()
            window = Window(
                seconds=max(now - self._started, 1e-9),
                received=self._received,
                processed=self._processed,
                people=self._people,
                whole_images=self._whole_images,
                closeups=self._closeups,
                tracked=self._tracked,
                dropped=Counter(self._dropped),
                dropped_now=self._dropped_now,
                total_received=self._total_received,
                total_processed=self._total_processed,
                left_out=self._left_out,
                lost=self._lost,
                lost_now=self._lost_now,
                last_problem=self._last_problem,
                damaged=self._damaged,
                samples=dict(self._samples),
                last_image_age=None if self._last_image is None else now - self._last_image,
                waiting=now - max(self._last_image or 0.0, self._listening_since),
                clock_offset=self._clock_offset,
                with_depth=self._with_depth,
                without_depth=self._without_depth,
                depth_problem=self._depth_problem,
            )
            self._started = now
            self._received = self._processed = self._dropped_now = self._lost_now = 0
            self._whole_images = self._closeups = 0
            self._samples = defaultdict(list)
            return window


class Gaps:
    """Counts the messages that are missing between those which came, by their numbers."""

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}  # publisher -> number of its last message

    def before(self, publisher: bytes, number: int) -> int:
        """How many messages of a publisher are missing before this one.

        Args:
            publisher: its identifier.
            number: of the message, counted by the publisher.
        """
        if len(self._last) > MAX_PUBLISHERS:
            self._last.clear()
        last = self._last.get(publisher)
        self._last[publisher] = number
        return 0 if last is None else max(number - last - 1, 0)
