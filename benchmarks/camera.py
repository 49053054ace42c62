"""The camera's side of the node benchmark: publishes images, receives poses, prints JSON."""

from __future__ import annotations

import json
import statistics
import sys
import time

import rclpy
from posenet_ros.msg import PoseArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from benchmarks.__main__ import photo
from posenet_ros.ros.messages import image_message

RATE = 30.0
FRAMES = 120
WARM_UP = 15


class BenchmarkCamera(Node):
    """Sends at a steady rate, and keeps when each frame's poses came back."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__('benchmark_camera')
        self.message: Image = image_message(Header(frame_id='camera'), photo(width, height), 'rgb8')
        best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.publisher = self.create_publisher(Image, 'image_raw', best_effort)
        self.create_subscription(PoseArray, 'posenet_node/poses', self._on_poses, 100)
        self.latencies: dict[int, float] = {}

    def send(self) -> int:
        now = self.get_clock().now()
        self.message.header.stamp = now.to_msg()
        self.publisher.publish(self.message)
        return now.nanoseconds

    def _on_poses(self, message: PoseArray) -> None:
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        self.latencies[stamp] = (self.get_clock().now().nanoseconds - stamp) / 1e6


def main() -> None:
    rclpy.init()
    camera = BenchmarkCamera(int(sys.argv[1]), int(sys.argv[2]))
    while camera.publisher.get_subscription_count() == 0:
        rclpy.spin_once(camera, timeout_sec=0.1)
    sent = []
    for _ in range(WARM_UP + FRAMES):
        due = time.monotonic() + 1 / RATE
        sent.append(camera.send())
        while (left := due - time.monotonic()) > 0:
            rclpy.spin_once(camera, timeout_sec=left)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        rclpy.spin_once(camera, timeout_sec=0.1)
    counted = [camera.latencies[stamp] for stamp in sent[WARM_UP:] if stamp in camera.latencies]
    result = {
        'image': [camera.message.width, camera.message.height],
        'sent': FRAMES,
        'received': len(counted),
        'latency_ms': statistics.median(counted) if counted else None,
    }
    print(json.dumps(result))
    camera.destroy_node()
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
