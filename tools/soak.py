"""make soak: the node beside a camera for an hour, disturbed every minute, and watched.

Real processes over real topics: image_source at 30 Hz, the node, and this one. In every round the
node is reconfigured, its camera is killed and started again, it is paused, and it goes through its
lifecycle. Its memory, threads, files and counts are sampled; a plot and the samples are written.

Usage: python tools/soak.py MINUTES [--round SECONDS] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rclpy
import skimage.data
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from posenet_ros.msg import PoseArray
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool
from visualization_msgs.msg import MarkerArray

from posenet_ros.io.photos import write_image
from posenet_ros.ros.fastdds import this_machine_alone

NODE = '/posenet_node'
RATE = 30.0
SAMPLE_SECONDS = 5.0
READY_SECONDS = 120.0  # the first start fetches the model
# The first rounds fill caches and pools. From then on, memory may grow by this share to the end.
SETTLING_SHARE = 0.15
GROWTH = 0.05
FAULTS = ('Traceback', 'unexpected', 'Segmentation', 'hangs')


class Watcher(Node):
    """Subscribes to what the node publishes, and disturbs it."""

    def __init__(self) -> None:
        super().__init__('soak')
        self.poses = 0
        self.status: DiagnosticStatus | None = None
        self.wrong_counts: list[str] = []
        self.create_subscription(PoseArray, f'{NODE}/poses', self._on_poses, 10)
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.viewers: list[Any] = []

    def _on_poses(self, message: PoseArray) -> None:
        self.poses += bool(message.poses)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == NODE[1:]:
                self.status = status
                counts = self.counts
                if counts and counts['received'] != (
                    counts['processed'] + counts['dropped'] + counts['waiting']
                ):
                    self.wrong_counts.append(str(counts))

    @property
    def values(self) -> dict[str, str]:
        return {pair.key: pair.value for pair in self.status.values} if self.status else {}

    @property
    def counts(self) -> dict[str, int]:
        names = ('received', 'processed', 'dropped', 'waiting')
        return {n: int(self.values[n]) for n in names} if 'received' in self.values else {}

    def spin(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            rclpy.spin_once(self, timeout_sec=0.05)
        return until()

    def call(self, kind: type, name: str, request: Any) -> Any:
        client = self.create_client(kind, f'{NODE}/{name}')
        try:
            if not self.spin(30, client.service_is_ready):
                raise RuntimeError(f'there is no service {name}')
            future = client.call_async(request)
            if not self.spin(60, future.done):
                raise RuntimeError(f'{name} does not answer')
            return future.result()
        finally:
            self.destroy_client(client)

    def set_parameters(self, **values: Any) -> None:
        messages: list[ParameterMessage] = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        request = SetParametersAtomically.Request(parameters=messages)
        result = self.call(SetParametersAtomically, 'set_parameters_atomically', request).result
        if not result.successful:
            raise RuntimeError(result.reason)

    def transition(self, number: int) -> None:
        request = ChangeState.Request(transition=Transition(id=number))
        if not self.call(ChangeState, 'change_state', request).success:
            raise RuntimeError(f'transition {number} failed')

    def look(self, at_all: bool) -> None:
        """Subscribes to the overlays, or stops that."""
        for viewer in self.viewers:
            self.destroy_subscription(viewer)
        self.viewers = []
        if at_all:
            for kind, name in ((MarkerArray, 'markers'), (Image, 'image_annotated')):
                topic = f'{NODE}/{name}'
                self.viewers.append(self.create_subscription(kind, topic, lambda _: None, 1))


class Camera:
    """image_source as a process that can be unplugged."""

    def __init__(self, photo: Path) -> None:
        self._command = [
            'image_source', '--ros-args', '-p', f'source:={photo}', '-p', f'rate:={RATE}',
        ]  # fmt: skip
        self.plug()

    def plug(self) -> None:
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self._command, stdout=quiet, stderr=quiet)

    def unplug(self) -> None:
        self._process.kill()
        self._process.wait()


def disturbances(watcher: Watcher, camera: Camera, dice: random.Random) -> Iterator[str]:
    """What happens in a round; each step gets an equal part of it."""
    while True:
        yield 'runs'
        watcher.look(dice.random() < 0.5)
        watcher.set_parameters(
            nms_radius=dice.uniform(10, 30), decoder=dice.choice(['reference', 'refined'])
        )
        yield 'reconfigured'
        camera.unplug()
        yield 'unplugged'
        camera.plug()
        yield 'plugged in'
        watcher.call(SetBool, 'enable', SetBool.Request(data=False))
        watcher.spin(1.0)
        watcher.call(SetBool, 'enable', SetBool.Request(data=True))
        watcher.transition(Transition.TRANSITION_DEACTIVATE)
        watcher.transition(Transition.TRANSITION_CLEANUP)
        watcher.set_parameters(input_resolution=dice.choice([257, 321, 385]))
        watcher.transition(Transition.TRANSITION_CONFIGURE)
        watcher.transition(Transition.TRANSITION_ACTIVATE)
        yield 'cycled'


def sample(process: subprocess.Popen[Any], watcher: Watcher) -> dict[str, float]:
    proc = Path(f'/proc/{process.pid}')
    status = dict(
        line.split(':', 1) for line in (proc / 'status').read_text().splitlines() if ':' in line
    )
    stat = (proc / 'stat').read_text().rsplit(')', 1)[1].split()
    latency = watcher.values.get('latency p50/p95/max (ms)', 'nan / nan / nan').split(' / ')
    return {
        'memory MB': int(status['VmRSS'].split()[0]) / 1024,
        'threads': int(status['Threads']),
        'files': len(list((proc / 'fd').iterdir())),
        'cpu s': (int(stat[11]) + int(stat[12])) / os.sysconf('SC_CLK_TCK'),
        'latency p95 ms': float(latency[1]),
        'poses': watcher.poses,
        **watcher.counts,
    }


def soak(minutes: float, round_seconds: float, out: Path) -> list[str]:
    """Returns what went wrong."""
    os.environ.update(this_machine_alone(os.environ))
    os.environ['ROS_DOMAIN_ID'] = str(random.randint(1, 100))
    out.mkdir(parents=True, exist_ok=True)
    photo = out / 'photo.png'
    write_image(photo, skimage.data.astronaut())
    rclpy.init()
    watcher = Watcher()
    log = (out / 'node.log').open('w')
    node = subprocess.Popen(['posenet_node'], stdout=log, stderr=subprocess.STDOUT)
    camera = Camera(photo)
    problems: list[str] = []
    samples: list[dict[str, Any]] = []
    try:
        if not watcher.spin(READY_SECONDS, lambda: watcher.poses > 10):
            return ['no poses came']
        started = time.monotonic()
        steps = disturbances(watcher, camera, random.Random(1))
        step_seconds = round_seconds / 5
        while (time.monotonic() - started) < 60 * minutes and not problems:
            before, event = watcher.poses, next(steps)
            ends = time.monotonic() + step_seconds
            while (left := ends - time.monotonic()) > 0:
                watcher.spin(min(SAMPLE_SECONDS, left))
                if node.poll() is not None:
                    problems.append(f'the node ended with status {node.returncode}')
                    break
                seconds = round(time.monotonic() - started, 1)
                samples.append({'seconds': seconds, 'event': event, **sample(node, watcher)})
            if event != 'unplugged' and watcher.poses == before:
                problems.append(f'no poses in {step_seconds:.0f} s after: {event}')
    except RuntimeError as error:
        problems.append(str(error))
    finally:
        camera.unplug()
        node.send_signal(signal.SIGINT)
        try:
            if node.wait(20) != 0:
                problems.append(f'the node ended with status {node.returncode}')
        except subprocess.TimeoutExpired:
            node.kill()
            problems.append('the node did not end on SIGINT')
        log.close()
        watcher.destroy_node()
        rclpy.shutdown()
        (out / 'samples.json').write_text(json.dumps(samples, indent=1))
    if watcher.wrong_counts:
        problems.append(f'counts that do not add up: {watcher.wrong_counts[0]}')
    text = (out / 'node.log').read_text()
    problems += [f'the log has {fault!r}' for fault in FAULTS if fault in text]
    problems += growth(samples)
    plot(samples, out / 'soak.png')
    return problems


def growth(samples: list[dict[str, Any]]) -> list[str]:
    """What grows from when everything has settled to the end."""
    settled = samples[int(SETTLING_SHARE * len(samples)) :]
    half = len(settled) // 2
    if half < 5:
        return []
    problems = []
    for what, allowed in (('memory MB', GROWTH), ('threads', GROWTH), ('files', GROWTH)):
        first = max(s[what] for s in settled[:half])
        last = max(s[what] for s in settled[half:])
        if last > (1 + allowed) * first + 1:
            problems.append(f'{what} grew from {first:.0f} to {last:.0f}')
    return problems


def plot(samples: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    minutes = [s['seconds'] / 60 for s in samples]
    panels = ('memory MB', 'threads', 'files', 'latency p95 ms', 'processed per s')
    for before, now in zip([samples[0], *samples], samples, strict=False):
        span = now['seconds'] - before['seconds']
        done = now.get('processed', 0) - before.get('processed', 0)
        now['processed per s'] = done / span if span > 0 and done >= 0 else float('nan')
    figure, axes = pyplot.subplots(len(panels), 1, sharex=True, figsize=(11, 10))
    for axis, name in zip(axes, panels, strict=True):
        values = [s[name] for s in samples]
        axis.plot(minutes, values, linewidth=0.8)
        axis.set_ylabel(name)
        axis.set_ylim(0, 1.1 * max(value for value in values if value == value))
        for minute, s in zip(minutes, samples, strict=True):
            if s['event'] == 'cycled':
                axis.axvspan(minute - 0.04, minute + 0.04, color='0.9', linewidth=0)
    axes[-1].set_xlabel('minutes; grey: lifecycle cycled')
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('minutes', type=float)
    parser.add_argument('--round', type=float, default=60.0, help='seconds')
    parser.add_argument('--out', type=Path, default=Path(tempfile.gettempdir()) / 'posenet_soak')
    options = parser.parse_args()
    problems = soak(options.minutes, options.round, options.out)
    print('\n'.join(problems) or 'nothing went wrong', f'\n{options.out}/soak.png')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
