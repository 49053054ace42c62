"""The node as a process beside a camera's: latency, overload, cameras, start, memory."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import ROOT, Section
from posenet_ros import ModelConfig
from posenet_ros.checkpoint import fetch_checkpoint, posenet_home

PROFILES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
TICKS = os.sysconf('SC_CLK_TCK')


def environment(profile: str | None = 'fastdds.xml') -> dict[str, str]:
    """Of a benchmark's process: a domain of its own, and one of our Fast DDS profiles or none."""
    variables = {
        **os.environ,
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'ROS_DOMAIN_ID': DOMAIN,
    }
    for name in PROFILES:
        if name in variables:  # the one that this distribution reads, set by `make env`
            if profile is None:
                del variables[name]
            else:
                variables[name] = str(ROOT / 'config' / profile)
    return variables


DOMAIN = str(random.randint(1, 100))


class NodeProcess:
    """posenet_node, and what /proc tells of it."""

    def __init__(
        self,
        variables: dict[str, str] | None = None,
        profile: str | None = 'fastdds_node.xml',
        **parameters: Any,
    ) -> None:
        arguments = ['--ros-args'] if parameters else []
        for name, value in parameters.items():
            arguments += ['-p', f'{name}:={json.dumps(value)}']
        self.started = time.time()
        self._process = subprocess.Popen(
            ['posenet_node', *arguments],
            env={**environment(profile), **(variables or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def memory(self) -> float:
        """Resident, in MB."""
        text = Path(f'/proc/{self._process.pid}/status').read_text()
        return int(re.findall(r'VmRSS:\s+(\d+)', text)[0]) * 1024 / 1e6

    def cpu_seconds(self) -> float:
        fields = Path(f'/proc/{self._process.pid}/stat').read_text().rsplit(')', 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


@contextlib.contextmanager
def camera(profile: str | None = 'fastdds.xml', **request: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, '-m', 'benchmarks.camera', json.dumps(request)],
        env=environment(profile),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def seen_by_camera(**request: Any) -> dict[str, Any]:
    with camera(**request) as process:
        assert process.stdout is not None
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError("the benchmark's camera failed; its messages above say why")
        return json.loads(answer)


def drops(result: dict[str, Any]) -> int:
    return sum(int(values.get('dropped', 0)) for values in result['diagnostics'].values())


def latency(quick: bool) -> Section:
    section = Section('4. The node: camera process to poses received in that process, 30 Hz')
    section.remark = 'one thread'
    frames = 150 if quick else 450
    rounds = 1 if quick else 3
    for width, height, target in ((640, 480, 4.0), (1920, 1080, 15.0)):
        name = f'{width} x {height}'
        request = {'width': width, 'height': height, 'rate': 30, 'frames': frames}
        plain, looked_at = [], []
        with NodeProcess(num_threads=1) as node:
            seen_by_camera(**{**request, 'frames': 30})
            for _ in range(rounds):
                plain.append(measured(node, request))
                viewer = subprocess.Popen(
                    [sys.executable, '-m', 'benchmarks.viewer'], env=environment(), cwd=ROOT
                )
                try:
                    time.sleep(2)
                    looked_at.append(measured(node, request))
                finally:
                    viewer.kill()
                    viewer.wait()
        inference = statistics.median(run['inference'] for run in plain)
        median = statistics.median(run['latency'] for run in plain)
        watched = statistics.median(run['latency'] for run in looked_at)
        lost = 1 - sum(run['answered'] for run in plain) / sum(run['sent'] for run in plain)
        section.add(
            f'{name}: latency without inference',
            statistics.median(run['overhead'] for run in plain), 'ms', target,
            note=f'{median:.1f} ms, of which {inference:.1f} inference',
        )  # fmt: skip
        section.add(f'{name}: frames without poses', 100 * lost, '%')
        section.add(f'{name}: processor', statistics.median(r['cpu'] for r in plain), '%')
        section.add(f'{name}: latency more while overlays are looked at', watched - median, 'ms')
        section.add(
            f'{name}: processor while overlays are looked at',
            statistics.median(r['cpu'] for r in looked_at), '%', note='of one core',
        )  # fmt: skip
    for width, height in ((640, 480), (1920, 1080)):
        with NodeProcess(profile=None):
            result = seen_by_camera(
                profile=None, width=width, height=height, rate=30, frames=120, patience=5
            )
        lost = 1 - result['answered_counted'] / result['sent_counted']
        section.add(
            f"{width} x {height}: frames without poses, Fast DDS's default", 100 * lost, '%'
        )
    with NodeProcess() as node:
        seen_by_camera(width=640, height=480, rate=30, frames=30)
        used, seconds = node.cpu_seconds(), 10 if quick else 30
        time.sleep(seconds)
        section.add('idle, no image comes', 100 * (node.cpu_seconds() - used) / seconds, '%', 2.0)
    return section


def measured(node: NodeProcess, request: dict[str, Any]) -> dict[str, float]:
    used = node.cpu_seconds()
    result = seen_by_camera(**request)
    return {
        'latency': result['latency_ms']['50'],
        'inference': result['inference_ms'],
        'overhead': result['overhead_ms'],
        'answered': result['answered_counted'],
        'sent': result['sent_counted'],
        'cpu': 100 * (node.cpu_seconds() - used) / result['seconds'],
    }


def overload(quick: bool) -> Section:
    minutes = 0.5 if quick else 5
    section = Section(f'5. Overload: 60 Hz into a model of 40 ms, {minutes:g} minutes')
    section.remark = 'MobileNetV1 0.75 at 513 on one thread'
    request = {'width': 640, 'height': 480, 'rate': 60, 'frames': int(60 * 60 * minutes)}
    with NodeProcess(input_resolution=513, num_threads=1) as node:
        alone = seen_by_camera(width=640, height=480, rate=5, frames=40)
        memory = node.memory()
        before = drops(alone)
        result = seen_by_camera(**request)
        grown = node.memory() - memory
    inference = alone['inference_ms']
    section.add('inference, not overloaded', inference, 'ms')
    p99 = result['latency_ms']['99']
    section.add('latency, 99th percentile', p99, 'ms')
    section.add('latency, 99th percentile, by inference', p99 / inference, 'x', 2.2)
    section.add('memory grown by', grown, 'MB', 5.0)
    dropped = drops(result) - before
    section.add('frames sent', result['sent'])
    section.add('frames with poses', result['answered'])
    section.add('frames dropped, as the node counts', dropped)
    unaccounted = result['sent'] - result['answered'] - dropped
    section.add('frames neither processed nor counted', abs(unaccounted), '', 0.0)
    return section


def cameras(quick: bool) -> Section:
    section = Section('6. Cameras on one model, together more than it can take')
    counts = (1, 2, 4, 8)
    runs: dict[int, list[float]] = {count: [] for count in counts}
    resident: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(1 if quick else 5):
        for count in counts:
            names = [f'camera{i}' for i in range(count)]
            with NodeProcess(cameras=names) as node:
                result = seen_by_camera(
                    width=640, height=480, rate=160 / count, cameras=names,
                    frames=(300 if quick else 1000) // count,
                )  # fmt: skip
                resident[count].append(node.memory())
            runs[count].append(result['answered_counted'] / result['seconds'])
    rates = [statistics.median(runs[count]) for count in counts]
    memory = [statistics.median(resident[count]) for count in counts]
    for count, rate, megabytes in zip(counts, rates, memory, strict=True):
        section.add(f'{count} cameras, together', rate, 'fps', note=f'{megabytes:.0f} MB')
    section.add("least of them, by one camera's", min(rates) / rates[0], 'x', 0.95, True)
    section.add('memory of 8 cameras more than of one', memory[-1] - memory[0], 'MB', 60.0)
    section.series = {'cameras': list(counts), 'fps': rates, 'memory_mb': memory}
    return section


def start(quick: bool) -> Section:
    section = Section('7. Start: posenet_node to the first poses received by a camera process')
    warm = [_first_poses({}) for _ in range(3 if quick else 12)]
    section.add('warm', statistics.median(warm), 's', 2.5, note=f'worst {max(warm):.1f} s')
    cold = []
    for _ in range(1 if quick else 3):
        with tempfile.TemporaryDirectory() as folder:
            config = ModelConfig()
            weights = fetch_checkpoint(config).graph_path.parent
            kept = Path(folder) / 'posenet' / weights.relative_to(posenet_home())
            shutil.copytree(weights, kept)
            cold.append(
                _first_poses(
                    {
                        'HOME': folder,
                        'XDG_CACHE_HOME': f'{folder}/cache',
                        'POSENET_HOME': f'{folder}/posenet',
                        'NUMBA_CACHE_DIR': f'{folder}/numba',
                        'PYTHONPYCACHEPREFIX': f'{folder}/pyc',
                    }
                )
            )
    section.add(
        'cold: nothing compiled, nothing cached but weights', statistics.median(cold), 's', 15.0,
        note=f'worst {max(cold):.1f} s',
    )  # fmt: skip
    return section


def _first_poses(variables: dict[str, str]) -> float:
    """Seconds from exec to the first poses, at a camera that sends already."""
    with camera(width=640, height=480, rate=30, frames=1, warm_up=0) as process:
        time.sleep(2.5)
        with NodeProcess(variables) as node:
            assert process.stdout is not None
            first = json.loads(process.stdout.readline())['first']
            if first is None:
                raise RuntimeError("no poses came within the camera's patience")
            return first - node.started


def memory(quick: bool) -> Section:
    frames = 5_000 if quick else 108_000
    section = Section(f'8. Memory: default model, one camera, {frames} frames as fast as they go')
    parts = 20
    with (
        NodeProcess() as node,
        camera(width=640, height=480, rate=0, frames=frames, reports=parts) as process,
    ):
        assert process.stdout is not None and process.stdin is not None
        resident = []
        while 'sent' in (told := json.loads(process.stdout.readline())) and 'first' not in told:
            resident.append(node.memory())
            process.stdin.write('\n')
            process.stdin.flush()
    section.add('resident at the end', resident[-1], 'MB', 350.0)
    section.add('most of all', max(resident), 'MB', 350.0)
    # From the second part on: by then everything was touched once.
    section.add('growth from the first tenth to the end', resident[-1] - resident[1], 'MB', 5.0)
    section.add('frames a second', told['answered_counted'] / told['seconds'], 'fps')
    section.series = {'resident_mb': resident}
    return section
