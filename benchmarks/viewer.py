"""Somebody who looks at the markers and the annotated image, and tells at the end how many came.

The messages are taken as bytes: rviz, which this stands for, is no Python that takes them apart.
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
