"""Subscribes to the markers and the annotated image, and prints at the end how many came.

The messages stay serialised: rviz, which this stands for, does not deserialise them in Python.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter

import rclpy
from rclpy.executors import ExternalShutdownException
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray


def main() -> None:
    rclpy.init()
    node = rclpy.create_node('benchmark_viewer')
    seen: Counter[str] = Counter()
    for kind, topic in ((MarkerArray, 'markers'), (Image, 'image_annotated')):
        node.create_subscription(
            kind, f'posenet_node/{topic}', lambda _, topic=topic: seen.update([topic]), 10, raw=True
        )
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)
    print(json.dumps(seen), flush=True)


if __name__ == '__main__':
    main()
