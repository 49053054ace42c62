"""What a process can do on the topics of posenet_node: tries it until SIGINT, and says what works.

Usage: python secure_peer.py ACTION... [--ros-args -r __node:=NAME --enclave /ENCLAVE]

Actions: `find:posenet_node` looks for a node's name, `receive:poses` for messages, `send:image_raw`
publishes images and looks for a subscription, `call:enable` waits for a service's answer. For each
there is a line: `ACTION works`, or `ACTION is refused: why`. `trying` is said when all have begun.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Callable

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from posenet_ros.msg import ModelInfo, PoseArray
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool

BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TOPICS = {
    'poses': (PoseArray, '/posenet_node/poses', 10),
    'image_annotated': (Image, '/posenet_node/image_annotated', 10),
    'model_info': (ModelInfo, '/posenet_node/model_info', LATCHED),
    'diagnostics': (DiagnosticArray, '/diagnostics', 10),
    'image_raw': (Image, '/image_raw', BEST_EFFORT),
}
THRESHOLD = Parameter(name='score_threshold', value=ParameterValue(type=3, double_value=0.4))
SERVICES = {
    'set_parameters': (SetParameters, SetParameters.Request(parameters=[THRESHOLD])),
    'enable': (SetBool, SetBool.Request(data=True)),
}
# Fills an image, and can be recognised in captured packets and in shared memory.
PATTERN = b'posenet_ros must not be read by others; '


def image(width: int = 320, height: int = 240) -> Image:
    size = width * height * 3
    data = array.array('B', (PATTERN * (size // len(PATTERN) + 1))[:size])
    return Image(width=width, height=height, encoding='rgb8', step=width * 3, data=data)


def find(node: Node, name: str) -> Callable[[], bool]:
    return lambda: name in node.get_node_names()


def receive(node: Node, name: str) -> Callable[[], bool]:
    kind, topic, qos = TOPICS[name]
    received: list[object] = []
    node.create_subscription(kind, topic, received.append, qos)
    return lambda: bool(received)


def send(node: Node, name: str) -> Callable[[], bool]:
    kind, topic, qos = TOPICS[name]
    publisher, message = node.create_publisher(kind, topic, qos), image()
    node.create_timer(0.1, lambda: publisher.publish(message))
    return lambda: publisher.get_subscription_count() > 0


def call(node: Node, name: str) -> Callable[[], bool]:
    kind, request = SERVICES[name]
    client = node.create_client(kind, f'/posenet_node/{name}')
    futures = []

    def answered() -> bool:
        if not futures and client.service_is_ready():
            futures.append(client.call_async(request))
        return bool(futures) and futures[0].done()

    return answered


ACTIONS = {'find': find, 'receive': receive, 'send': send, 'call': call}


def main() -> None:
    rclpy.init(args=sys.argv)
    node = rclpy.create_node('peer')
    pending: dict[str, Callable[[], bool]] = {}
    for action in remove_ros_args(sys.argv)[1:]:
        what, _, name = action.partition(':')
        try:
            pending[action] = ACTIONS[what](node, name)
        except Exception as error:  # of rcl: these keys do not allow it
            print(f'{action} is refused: {error}')
    print('trying')
    while rclpy.ok():
        rclpy.spin_once(node, timeout_sec=0.05)
        for action in [action for action, works in pending.items() if works()]:
            print(f'{action} works')
            del pending[action]


if __name__ == '__main__':
    try:
        main()
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        rclpy.try_shutdown()
