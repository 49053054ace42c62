"""The camera process of the node's benchmarks: sends images, receives poses, prints JSON.

Usage: python -m benchmarks.camera '{"width": 640, "height": 480, "rate": 30, "frames": 120}'

    width, height   of the images
    rate            images per second of each camera; 0 waits for the poses of the last image
    frames          that each camera sends, after `warm_up` frames that are not counted
    cameras         their names; without any, one camera without a name
    reports         print the progress this many times
    patience        seconds to wait for the first poses
    pid             of the node, to measure its CPU time
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from posenet_ros.msg import PoseArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from benchmarks.inputs import photo
from posenet_ros.ros.messages import image_message

PATIENCE_SECONDS = 90.0  # for the first poses; at most a second for later ones


class Camera(Node):
    """One or several cameras with the same picture."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__('benchmark_camera')
        self.request = request
        self.message: Image = image_message(
            Header(frame_id='camera'), photo(request['width'], request['height'])[..., ::-1], 'bgr8'
        )
        names = request.get('cameras') or ['']
        prefixes = [f'{name}/' if name else '' for name in names]
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.images = [
            self.create_publisher(Image, f'{prefix}image_raw', best_effort) for prefix in prefixes
        ]
        self.poses = [
            self.create_subscription(PoseArray, f'posenet_node/{prefix}poses', self._on_poses, 100)
            for prefix in prefixes
        ]
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.received: dict[int, float] = {}  # stamp -> milliseconds until its poses came
        self.diagnostics: dict[str, dict[str, str]] = {}
        # For each /diagnostics message (one per second): the median inference time, and how much
        # larger the median latency was.
        self.inference: list[float] = []
        self.overhead: list[float] = []
        self.second: list[float] = []
        self.reported = 0.0

    def send(self, index: int) -> int:
        now = self.get_clock().now()
        self.message.header.stamp = now.to_msg()
        self.images[index].publish(self.message)
        return now.nanoseconds

    def spin_until(self, done, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not done() and (left := until - time.monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=left)
        return done()

    def _on_poses(self, message: PoseArray) -> None:
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self.received[stamp] = (self.get_clock().now().nanoseconds - stamp) / 1e6
        self.second.append(self.received[stamp])

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            self.diagnostics[status.name] = values
            if stage := values.get('inference p50/p95/max (ms)'):
                self.inference.append(float(stage.split(' / ')[0]))
                if len(self.second) > 5:
                    self.overhead.append(float(np.median(self.second)) - self.inference[-1])
                self.second = []
        self.reported = time.monotonic()

    def run(self) -> dict[str, Any]:
        """Sends all images, and returns what came back."""
        request = self.request
        rate, count = request['rate'], len(self.images)
        if not self.send_until_answered():
            return {'first': None}
        first = time.time()
        # Frames that the node has dropped until now are not counted.
        self.await_diagnostics()
        dropped_before = self.dropped()
        sent: list[int] = []
        warm_up = request.get('warm_up', 15)
        total = warm_up + request['frames']
        every = total // request['reports'] if request.get('reports') else 0
        started = time.monotonic()
        for i in range(total):
            if i == warm_up:
                before, counted_from = len(sent), time.monotonic()
                used = cpu_seconds(request.get('pid'))
            for index in range(count):
                sent.append(self.send(index))
                if rate:
                    due = started + (i + (index + 1) / count) / rate
                    self.spin_until(lambda: False, due - time.monotonic())
            if not rate:
                self.spin_until(lambda: sent[-1] in self.received, 1.0)
            if every and (i + 1) % every == 0:
                print(json.dumps({'sent': i + 1}), flush=True)
                sys.stdin.readline()
        seconds = time.monotonic() - counted_from
        used = cpu_seconds(request.get('pid')) - used
        in_time = sum(stamp in self.received for stamp in sent[before:])
        self.spin_until(lambda: sent[-1] in self.received, 1.0)
        self.await_diagnostics()
        latencies = [self.received[stamp] for stamp in sent[before:] if stamp in self.received]
        return {
            'first': first,
            'sent': len(sent),
            'answered': sum(stamp in self.received for stamp in sent),
            'sent_counted': len(sent) - before,
            'answered_counted': len(latencies),
            'frames_per_second': in_time / seconds,
            'cpu_percent': 100 * used / seconds,
            'latency_ms': {str(q): float(np.percentile(latencies, q)) for q in (5, 50, 95, 99, 100)}
            if latencies
            else {},
            'inference_ms': float(np.median(self.inference or [np.nan])),
            'overhead_ms': float(np.median(self.overhead or [np.nan])),
            'dropped': self.dropped() - dropped_before,
        }

    def await_diagnostics(self) -> None:
        """Waits for diagnostics that include everything so far."""
        last = time.monotonic()
        self.spin_until(lambda: self.reported > last + 1.0, 4.0)

    def dropped(self) -> int:
        """Dropped frames of all cameras, by the last diagnostics."""
        return sum(int(values.get('dropped', 0)) for values in self.diagnostics.values())

    def send_until_answered(self) -> bool:
        """Sends images until poses come; returns whether they came in time."""
        until = time.monotonic() + self.request.get('patience', PATIENCE_SECONDS)
        while time.monotonic() < until and not (
            self.images[0].get_subscription_count() and self.poses[0].get_publisher_count()
        ):
            self.spin_until(lambda: False, 0.02)
        while not self.received and time.monotonic() < until:
            self.send(0)
            self.spin_until(lambda: bool(self.received), 0.05)
        return bool(self.received)


def cpu_seconds(pid: int | None) -> float:
    """CPU time that a process has used so far."""
    if pid is None:
        return 0.0
    fields = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def main() -> None:
    rclpy.init()
    camera = Camera(json.loads(sys.argv[1]))
    print(json.dumps(camera.run()), flush=True)
    camera.destroy_node()
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
