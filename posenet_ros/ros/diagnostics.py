"""What /diagnostics says: rates, drops and why, latency and the time of each stage."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue


@dataclass
class Window:
    """What one camera did since the last report."""

    seconds: float
    received: int = 0
    processed: int = 0
    people: int = 0
    dropped: Counter = field(default_factory=Counter)  # reason -> frames, since the start
    dropped_now: int = 0  # frames, in this window
    samples: dict[str, list[float]] = field(default_factory=dict)  # latency and stages, in s
    last_image_age: float | None = None
    waiting: float = 0.0  # seconds for the next image, since the last or since it listens
    clock_offset: float | None = None  # seconds from the stamps to our clock, if not ours


class CameraStatistics:
    """Counts of one camera. Written by the executor and the worker, read by the reporter."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._last_image: float | None = None
        self._listening_since = self._started
        self._clock_offset: float | None = None
        self._received = self._processed = self._people = self._dropped_now = 0
        self._dropped: Counter = Counter()
        self._samples: dict[str, list[float]] = defaultdict(list)

    def listening(self) -> None:
        """Images are expected from now on."""
        with self._lock:
            self._listening_since = time.monotonic()
            self._last_image = None

    def stamped_by_another_clock(self, offset: float | None) -> None:
        """Seconds from an image's stamp to our clock, where that cannot be latency; or None."""
        with self._lock:
            self._clock_offset = offset

    def image_received(self) -> None:
        with self._lock:
            self._received += 1
            self._last_image = time.monotonic()

    def image_dropped(self, reason: str) -> int:
        """Counts a frame that was not processed. Returns how many there were for this reason."""
        with self._lock:
            self._dropped[reason] += 1
            self._dropped_now += 1
            return self._dropped[reason]

    def image_processed(self, people: int, seconds: Mapping[str, float]) -> None:
        """Counts a published frame, with its latency and the time of its stages."""
        with self._lock:
            self._processed += 1
            self._people = people
            for name, value in seconds.items():
                self._samples[name].append(value)

    def start_window(self) -> Window:
        """What happened since the last call."""
        with self._lock:
            now = time.monotonic()
            window = Window(
                seconds=max(now - self._started, 1e-9),
                received=self._received,
                processed=self._processed,
                people=self._people,
                dropped=Counter(self._dropped),
                dropped_now=self._dropped_now,
                samples=dict(self._samples),
                last_image_age=None if self._last_image is None else now - self._last_image,
                waiting=now - max(self._last_image or 0.0, self._listening_since),
                clock_offset=self._clock_offset,
            )
            self._started = now
            self._received = self._processed = self._dropped_now = 0
            self._samples = defaultdict(list)
            return window


def clock_problem(offset: float) -> str:
    """What stamps say that are by another clock than the node's.

    Args:
        offset: seconds from the stamps to our clock; negative where they are ahead.
    """
    if offset < 0:
        return f"stamps {-offset:.1f} s ahead of this node's clock: they are by another clock"
    return (
        f"stamps {offset:.1f} s behind this node's clock: the camera has a clock of its own, or a "
        'bag is played without use_sim_time'
    )


def camera_status(
    name: str,
    hardware_id: str,
    window: Window,
    active: bool,
    thresholds: Mapping[str, Any],
    model: Mapping[str, str],
    failure: str = '',
    no_image_reason: str = '',
    resting: str = 'paused',
) -> DiagnosticStatus:
    """One camera's status while the model is loaded.

    Args:
        name: of the status.
        hardware_id: what the model runs on.
        window: what the camera did.
        active: whether images are expected.
        thresholds: the parameters of the group diagnostics.
        model: what to say of the model.
        failure: why the model does not run, if it does not.
        no_image_reason: why no image comes, if that is known.
        resting: why no images are expected, where they are not.
    """
    problems: list[tuple[bytes, str]] = []
    latencies = window.samples.get('latency', [])
    p95 = float(np.percentile(latencies, 95)) if latencies else 0.0
    if active and failure:
        problems.append((DiagnosticStatus.ERROR, f'inference fails: {failure}'))
    if active:
        age = window.last_image_age
        reason = f': {no_image_reason}' if no_image_reason else ''
        if age is None and window.waiting > thresholds['image_timeout']:
            problems.append((DiagnosticStatus.WARN, f'no image has come yet{reason}'))
        elif age is not None and age > thresholds['image_timeout']:
            problems.append((DiagnosticStatus.WARN, f'no image for {age:.1f} s{reason}'))
        if window.clock_offset is not None:
            problems.append((DiagnosticStatus.WARN, clock_problem(window.clock_offset)))
        elif p95 > thresholds['latency_error']:
            problems.append((DiagnosticStatus.ERROR, f'latency {p95:.3f} s'))
        elif p95 > thresholds['latency_warn']:
            problems.append((DiagnosticStatus.WARN, f'latency {p95:.3f} s'))
        if window.received and window.dropped_now / window.received > thresholds['drop_ratio_warn']:
            problems.append(
                (
                    DiagnosticStatus.WARN,
                    f'{window.dropped_now} of {window.received} images dropped',
                )
            )
    level = max((level for level, _ in problems), default=DiagnosticStatus.OK)
    well = 'running' if window.last_image_age is not None else 'waiting for the first image'
    message = '; '.join(text for _, text in problems) or (well if active else resting)
    values = {
        'rate in (Hz)': f'{window.received / window.seconds:.1f}',
        'rate out (Hz)': f'{window.processed / window.seconds:.1f}',
        'people': str(window.people if window.processed else 0),
        'dropped': str(sum(window.dropped.values())),
    }
    values.update((f'dropped: {reason}', str(n)) for reason, n in sorted(window.dropped.items()))
    for stage, seconds in window.samples.items():
        p50, p95, worst = np.percentile(seconds, [50, 95, 100]) * 1000
        values[f'{stage} p50/p95/max (ms)'] = f'{p50:.1f} / {p95:.1f} / {worst:.1f}'
    return status(name, hardware_id, level, message, {**values, **model})


def status(
    name: str, hardware_id: str, level: bytes, message: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    pairs: Sequence[KeyValue] = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id=hardware_id, values=pairs
    )
