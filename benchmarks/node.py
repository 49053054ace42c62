"""The node as a process beside a camera's: latency, overload, cameras, start, memory."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.camera import cpu_seconds
from benchmarks.figures import ROOT, Section
from posenet_ros import ModelConfig
from posenet_ros.cache import posenet_home
from posenet_ros.model.checkpoint import fetch_checkpoint
from posenet_ros.ros.fastdds import profile_environment, this_machine_alone

LOG = ROOT / 'build/benchmark_node.log'
DOMAIN = str(random.randint(1, 100))
PROFILES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')


def environment(profile: str | None = 'fastdds.xml') -> dict[str, str]:
    """For a benchmark process: a separate ROS domain, and one of our Fast DDS profiles or none."""
    variables = {key: value for key, value in os.environ.items() if key not in PROFILES}
    variables |= this_machine_alone(variables)
    if profile is not None:
        variables |= profile_environment(variables, ROOT, profile)[0]
    return {**variables, 'ROS_DOMAIN_ID': DOMAIN}


class NodeProcess:
    """posenet_node as a process, and its memory by /proc."""

    def __init__(
        self,
        variables: dict[str, str] | None = None,
        profile: str | None = 'fastdds_node.xml',
        command: Sequence[str] = ('posenet_node',),
        **parameters: Any,
    ) -> None:
        arguments = ['--ros-args'] if parameters else []
        for name, value in parameters.items():
            arguments += ['-p', f'{name}:={json.dumps(value)}']
        self.started = time.time()
        LOG.parent.mkdir(exist_ok=True)
        self._log = LOG.open('w')
        self._process = subprocess.Popen(
            [*command, *arguments],
            env={**environment(profile), **(variables or {})},
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def memory(self, part: str = 'RssAnon') -> float:
        """Anonymous memory in MB. RssFile: pages of files, most of them libraries; VmRSS: all."""
        text = Path(f'/proc/{self.pid}/status').read_text()
        return int(re.findall(rf'{part}:\s+(\d+)', text)[0]) * 1024 / 1e6

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self.pid, signal.SIGTERM)  # ros2 run's child too
        self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            while True:  # until the child has ended as well
                os.killpg(self.pid, 0)
                time.sleep(0.02)
        self._log.close()


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
        return answer_of(process)


def answer_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a camera prints.

    Raises:
        RuntimeError: it failed, or no poses ever came.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    answer = json.loads(line) if line else {}
    if 'sent' not in answer and answer.get('first') is None:
        raise RuntimeError(f'no poses came; the node says:\n{LOG.read_text()}')
    return answer


def latency(quick: bool) -> Section:
    section = Section('4. The node: camera process to poses received in that process, 30 Hz')
    section.remark = 'one thread'
    frames = 150 if quick else 300
    rounds = 1 if quick else 5
    for width, height, target in ((640, 480, 4.0), (1920, 1080, 15.0)):
        name = f'{width} x {height}'
        plain, watched = [], []
        with NodeProcess(num_threads=1) as node:
            request = {'width': width, 'height': height, 'rate': 30, 'frames': frames}
            request['pid'] = node.pid
            seen_by_camera(**{**request, 'frames': 30})
            for _ in range(rounds):
                plain.append(seen_by_camera(**request))
                with viewer() as seen:
                    watched.append(seen_by_camera(**request))
                least = min(seen.get(topic, 0) for topic in ('markers', 'image_annotated'))
                if least < 0.9 * frames:
                    raise RuntimeError(f'the viewer saw {least} of {frames} frames: {seen}')

        def median(runs: list[dict[str, Any]], key: str) -> float:
            return statistics.median(run[key] for run in runs)

        def more(key: str, plain=plain, watched=watched) -> float:
            """The median difference of consecutive runs with and without a viewer."""
            pairs = zip(watched, plain, strict=True)
            return statistics.median(with_[key] - without[key] for with_, without in pairs)

        inference, overhead = median(plain, 'inference_ms'), median(plain, 'overhead_ms')
        p99 = statistics.median(run['latency_ms']['99'] for run in plain)
        lost = 1 - sum(r['answered_counted'] for r in plain) / sum(r['sent_counted'] for r in plain)
        cpu = median(plain, 'cpu_percent')
        section.add(
            f'{name}: latency without inference', overhead, 'ms', target,
            note=f'inference {inference:.1f} ms; latency, 99th percentile, {p99:.1f} ms',
        )  # fmt: skip
        section.add(f'{name}: frames without poses', 100 * lost, '%')
        section.add(f'{name}: processor', cpu, '%', note='of one core')
        section.add(
            f'{name}: latency more while overlays are looked at',
            more('overhead_ms'), 'ms', 1.0,
        )  # fmt: skip
        section.add(
            f'{name}: processor more while overlays are looked at',
            more('cpu_percent'), '%', note='of one core',
        )  # fmt: skip
    for width, height in ((640, 480), (1920, 1080)):
        section.add(
            f'{width} x {height}: frames without poses, Fast DDS\'s default',
            100 * lost_by_default(width, height), '%',
        )  # fmt: skip
    with NodeProcess() as node:
        seen_by_camera(width=640, height=480, rate=30, frames=30)
        used, seconds = cpu_seconds(node.pid), 10 if quick else 30
        time.sleep(seconds)
        section.add('idle, no image comes', 100 * (cpu_seconds(node.pid) - used) / seconds, '%', 2)
    return section


@contextlib.contextmanager
def viewer() -> Iterator[dict[str, int]]:
    """A process that subscribes to the overlays. Afterwards the dict has the counts."""
    process = subprocess.Popen(
        [sys.executable, '-m', 'benchmarks.viewer'],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    seen: dict[str, int] = {}
    try:
        time.sleep(2)
        yield seen
    finally:
        process.send_signal(signal.SIGINT)
        seen.update(json.loads(process.communicate()[0] or '{}'))


def lost_by_default(width: int, height: int) -> float:
    """The share of frames without poses when our profiles are not used; 1 if no poses came."""
    with (
        NodeProcess(profile=None),
        camera(
            profile=None, width=width, height=height, rate=30, frames=120, patience=5
        ) as process,
    ):
        assert process.stdout is not None
        result = json.loads(process.stdout.readline())
    if result['first'] is None:
        return 1.0
    return 1 - result['answered_counted'] / result['sent_counted']


def overload(quick: bool) -> Section:
    minutes = 0.5 if quick else 5
    section = Section(f'5. Overload: 60 Hz into a model of 40 ms, {minutes:g} minutes')
    section.remark = 'MobileNetV1 0.75 at 513 on one thread'
    request = {'width': 640, 'height': 480, 'rate': 60, 'frames': int(60 * 60 * minutes)}
    with NodeProcess(input_resolution=513, num_threads=1) as node:
        alone = seen_by_camera(width=640, height=480, rate=5, frames=40)
        memory = node.memory()
        result = seen_by_camera(**request)
        grown = node.memory() - memory
    inference = alone['inference_ms']
    section.add('inference, not overloaded', inference, 'ms')
    p99 = result['latency_ms']['99']
    section.add('latency, 99th percentile', p99, 'ms')
    section.add('latency, 99th percentile, by inference', p99 / inference, 'x', 2.2)
    section.add('memory grown by', grown, 'MB', 5.0)
    section.add('frames sent', result['sent'])
    section.add('frames with poses', result['answered'])
    section.add('frames dropped, as the node counts', result['dropped'])
    difference = result['sent'] - result['answered'] - result['dropped']
    section.add('frames sent, less those with poses and those dropped', abs(difference), '', 0.0)
    return section


def cameras(quick: bool) -> Section:
    section = Section('6. Cameras on one model, together more than it can take')
    section.remark = 'one thread'
    counts = (1, 2, 4, 8)
    runs: dict[int, list[float]] = {count: [] for count in counts}
    resident: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(1 if quick else 3):
        for count in counts:
            names = [f'camera{i}' for i in range(count)]
            with NodeProcess(cameras=names, num_threads=1) as node:
                result = seen_by_camera(
                    width=640, height=480, rate=120 / count, cameras=names,
                    frames=(300 if quick else 750) // count,
                )  # fmt: skip
                resident[count].append(node.memory())
            runs[count].append(result['frames_per_second'])
    rates = [statistics.median(runs[count]) for count in counts]
    memory = [statistics.median(resident[count]) for count in counts]
    for count, rate, megabytes in zip(counts, rates, memory, strict=True):
        section.add(f'{count} cameras, together', rate, 'fps', note=f'{megabytes:.0f} MB')
    section.add("least of them, by one camera's", min(rates) / rates[0], 'x', 0.95, True)
    section.add('memory of 8 cameras more than of one', memory[-1] - memory[0], 'MB', 60.0)
    section.series = {'cameras': list(counts), 'fps': rates, 'memory_mb': memory}
    return section


def start(quick: bool) -> Section:
    section = Section('7. Start: from nothing to the first poses received by a camera process')
    command = ['ros2', 'run', 'posenet_ros'] if shutil.which('ros2') else []
    command.append('posenet_node')
    section.remark = ' '.join(command)
    warm = [_first_poses(command, {}) for _ in range(3 if quick else 8)]
    section.add('warm', statistics.median(warm), 's', 3.0, note=f'worst {max(warm):.1f} s')
    cold = []
    for _ in range(1 if quick else 3):
        with tempfile.TemporaryDirectory() as folder:
            config = ModelConfig()
            weights = fetch_checkpoint(config).graph_path.parent
            kept = Path(folder) / 'posenet' / weights.relative_to(posenet_home())
            shutil.copytree(weights, kept)
            cold.append(
                _first_poses(
                    command,
                    {
                        'HOME': folder,
                        'XDG_CACHE_HOME': f'{folder}/cache',
                        'POSENET_HOME': f'{folder}/posenet',
                        'NUMBA_CACHE_DIR': f'{folder}/numba',
                        'PYTHONPYCACHEPREFIX': f'{folder}/pyc',
                    },
                )
            )
    section.add(
        'cold: nothing compiled, nothing cached but weights', statistics.median(cold), 's', 15.0,
        note=f'worst {max(cold):.1f} s',
    )  # fmt: skip
    return section


def _first_poses(command: Sequence[str], variables: dict[str, str]) -> float:
    """Seconds from the start of the node to the first poses, with the camera already running."""
    with camera(width=640, height=480, rate=30, frames=1, warm_up=0) as process:
        time.sleep(2.5)
        with NodeProcess(variables, command=command) as node:
            return answer_of(process)['first'] - node.started


def memory(quick: bool) -> Section:
    frames = 5_000 if quick else 27_000
    section = Section(f'8. Memory: default model, one camera, {frames} frames as fast as they go')
    parts = 20
    with (
        NodeProcess() as node,
        camera(width=640, height=480, rate=0, frames=frames, reports=parts) as process,
    ):
        assert process.stdin is not None
        anonymous = []
        while 'first' not in (told := answer_of(process)):
            anonymous.append(node.memory())
            process.stdin.write('\n')
            process.stdin.flush()
        mapped = node.memory('RssFile')
    if told['answered_counted'] < 0.99 * frames:
        raise RuntimeError(f'only {told["answered_counted"]} of {frames} frames got poses')
    with tempfile.TemporaryDirectory() as folder, NodeProcess({'NUMBA_CACHE_DIR': folder}) as node:
        seen_by_camera(width=640, height=480, rate=30, frames=100)
        first_start = node.memory()
    section.add('anonymous memory at the end', anonymous[-1], 'MB', 230.0)
    section.add('most of all', max(anonymous), 'MB', 230.0)
    # From the second part on: by then everything was touched once.
    section.add('growth from the first tenth to the end', anonymous[-1] - anonymous[1], 'MB', 5.0)
    section.add('after a first start, which compiles', first_start, 'MB', 230.0)
    section.add(
        'pages of files beside that', mapped, 'MB', note='libraries, shared with other processes'
    )
    section.add('frames a second', told['frames_per_second'], 'fps')
    section.series = {'anonymous_mb': anonymous}
    return section
