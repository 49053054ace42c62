"""Somebody who looks at the markers and the annotated image: subscribes, and does nothing."""

from __future__ import annotations

import rclpy
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray


def main() -> None:
    rclpy.init()
    node = rclpy.create_node('benchmark_viewer')
    node.create_subscription(MarkerArray, 'posenet_node/markers', lambda message: None, 1)
    node.create_subscription(Image, 'posenet_node/image_annotated', lambda message: None, 1)
    rclpy.spin(node)


if __name__ == '__main__':
    main()
