"""What the benchmarks measure: figures with their targets, and how samples are taken."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Figure:
    """One number, and what it should be."""

    name: str
    value: float
    unit: str = ''
    target: float | None = None
    at_least: bool = False  # the target is a minimum, not a maximum
    note: str = ''

    @property
    def reached(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def row(self) -> str:
        """One line of the printed table."""
        verdict = {None: '', True: 'reached', False: 'MISSED'}[self.reached]
        return (
            f'  {self.name:<58}{number(self.value):>9} {self.unit:<6}'
            f'{self.wanted():>14}  {verdict:<8}{self.note}'.rstrip()
        )

    def wanted(self) -> str:
        if self.target is None:
            return ''
        return f'{"at least" if self.at_least else "at most"} {number(self.target)}'


@dataclass
class Section:
    """What one benchmark found: its figures, and what the plot is drawn from."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)
    remark: str = ''

    def add(self, name: str, value: float, unit: str = '', *args: Any, **options: Any) -> None:
        self.figures.append(Figure(name, float(value), unit, *args, **options))

    def to_dict(self) -> dict[str, Any]:
        rows = [{**asdict(figure), 'reached': figure.reached} for figure in self.figures]
        return {
            'title': self.title,
            'remark': self.remark,
            'figures': rows,
            'series': self.series,
        }


def number(value: float) -> str:
    """A number with only its significant digits."""
    return f'{value:.3g}' if abs(value) < 100 else f'{value:.0f}'


def interleaved(
    cases: dict[str, Callable[[], list[float] | None]], rounds: int
) -> dict[str, list[float]]:
    """Times the cases in turn, so that changes of the machine affect all of them.

    Args:
        cases: each is called once per round. It returns its milliseconds, or None to be timed here.
        rounds: how many, after two rounds of warm-up.

    Returns:
        The median of each round, in milliseconds.
    """
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for i in range(rounds + 2):
        for name, run in cases.items():
            started = time.perf_counter()
            told = run()
            taken = [1000 * (time.perf_counter() - started)] if told is None else told
            if i >= 2:
                samples[name].append(statistics.median(taken))
    return samples


def medians(samples: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in samples.items()}


def times_faster(slow: list[float], fast: list[float]) -> float:
    """The median of the rounds' ratios: a disturbance of a round affects both."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def machine() -> dict[str, Any]:
    """The machine that the figures were measured on."""
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    names = [line.split(': ')[1] for line in lines if line.startswith('model name')]
    flags = next((line for line in lines if line.startswith(('flags', 'Features'))), '').split()
    memory = Path('/proc/meminfo').read_text().split()[1]
    return {
        'cpu': names[0] if names else platform.processor() or platform.machine(),
        'cores': len(names) or None,
        'vectors': [f for f in ('avx2', 'avx512f', 'avx512_vnni', 'asimd') if f in flags],
        'memory_gib': round(int(memory) / 2**20),
        'system': platform.platform(terse=True),
        'python': platform.python_version(),
        **{name: version(name) for name in ('numpy', 'numba', 'onnxruntime')},
    }
