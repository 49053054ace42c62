"""posenet_view: reads a PoseNet node's topics while somebody looks at the page, and serves it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import SetBool

from posenet_ros.core.keypoints import MIN_KEYPOINT_SCORE
from posenet_ros.errors import ConfigError, ImageError
from posenet_ros.io.draw import person_colour
from posenet_ros.msg import ModelInfo, PoseArray
from posenet_ros.ros.declare_parameters import declare_parameters
from posenet_ros.ros.parameters import PARAMETERS, SPECS, ParameterSpec
from posenet_ros.ros.serialized_image import read_compressed_image
from posenet_ros.view.server import ViewServer

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
LOST_SECONDS = 3.0  # without diagnostics, which come every second
PARAMETER_SECONDS = 2.0  # between two looks at the parameters
# What can be changed on the page.
LIVE = [spec for spec in PARAMETERS if spec.group == 'decoder'] + [
    SPECS[name] for name in ('min_pose_score', 'min_keypoint_score', 'show_deviations')
]
LEVELS = {
    DiagnosticStatus.OK: 'ok',
    DiagnosticStatus.WARN: 'warning',
    DiagnosticStatus.ERROR: 'error',
}

VIEW_PARAMETERS = (
    ParameterSpec('node', 'posenet_node', 'The PoseNet node to look at.', 'input'),
    ParameterSpec(
        'host',
        '127.0.0.1',
        'Where to listen. Another than the machine itself asks for a token: whoever reaches the '
        'page sees what the camera sees.',
        'output',
    ),
    ParameterSpec('port', 8080, 'Likewise; 0 takes one that is free.', 'output', range=(0, 65535)),
    ParameterSpec('token', '', 'That viewers must know; empty makes one up if needed.', 'output'),
)


class ViewNode(Node):
    """Subscribes to nothing while nobody looks. See server.Source, which this is."""

    def __init__(self) -> None:
        super().__init__('posenet_view')
        values = declare_parameters(self, VIEW_PARAMETERS)
        self._target = self.resolve_topic_name(values['node'])
        self._lookers: Counter[str] = Counter()  # by camera; the server's thread
        self._subscriptions_of: dict[str, list[Subscription[Any]]] = {}  # the executor's thread
        self._common: list[Subscription[Any]] = []
        self._people: dict[str, PoseArray] = {}
        self._status: dict[str, DiagnosticStatus] = {}
        self._status_at = 0.0
        self._model: ModelInfo | None = None
        self._values: dict[str, Any] = {}  # of the target's parameters
        self._get: Client[Any, Any] = self.create_client(
            GetParameters, f'{self._target}/get_parameters'
        )
        self._set: Client[Any, Any] = self.create_client(
            SetParametersAtomically, f'{self._target}/set_parameters_atomically'
        )
        self._enable: Client[Any, Any] = self.create_client(SetBool, f'{self._target}/enable')
        self._asked_at = 0.0
        self._server = ViewServer(self, values['host'], values['port'], values['token'])
        self.get_logger().info(f'open {self._server.url}')

    def destroy_node(self) -> None:
        self._server.close()
        super().destroy_node()

    # For the server's thread.

    def look(self, camera: str) -> None:
        self._lookers[camera] += 1
        self._soon(self._follow_lookers)

    def leave(self, camera: str) -> None:
        self._lookers[camera] -= 1
        self._soon(self._follow_lookers)

    def cameras(self) -> list[str]:
        prefix = f'{self._target.lstrip("/")}: '
        names = [name[len(prefix) :] for name in self._status if name.startswith(prefix)]
        return names or self._cameras_of_topics()

    def _cameras_of_topics(self) -> list[str]:
        pattern = re.compile(f'{re.escape(self._target)}/(?:([^/]+)/)?poses')
        found = [
            match[1] or ''
            for name, _ in self.get_topic_names_and_types()
            if (match := pattern.fullmatch(name))
        ]
        return found or ['']

    def state(self, camera: str) -> dict[str, Any]:
        if time.monotonic() > self._asked_at + PARAMETER_SECONDS:
            self._asked_at = time.monotonic()
            self._soon(self._ask_for_values)
        lost = time.monotonic() > self._status_at + LOST_SECONDS
        name = self._target.lstrip('/')
        status = self._status.get(f'{name}: {camera}' if camera else name)
        people, model = self._people.get(camera), self._model
        return {
            'node': self._target,
            'lost': lost,
            'camera': camera,
            'cameras': self.cameras(),
            'level': LEVELS.get(status.level, 'error') if status else '',
            'message': status.message if status else '',
            'paused': bool(status and status.message == 'paused'),
            'values': {pair.key: pair.value for pair in status.values} if status else {},
            'model': _described(model) if model else '',
            'people': [_person(p) for p in people.poses] if people and not lost else [],
            'parameters': [
                {
                    'name': spec.name,
                    'value': self._values[spec.name],
                    'range': spec.range,
                    'choices': spec.choices,
                    'whole': isinstance(spec.default, int),
                    'help': spec.help,
                }
                for spec in LIVE
                if spec.name in self._values
            ],
        }

    def command(self, command: dict[str, Any], answer: Callable[[str], None]) -> None:
        if 'enable' in command:
            request = SetBool.Request(data=bool(command['enable']))
            self._soon(lambda: self._call(self._enable, request, lambda _: answer('')), answer)
            return
        name = str(command.get('parameter'))
        if name not in {spec.name for spec in LIVE}:
            raise ConfigError(f'{name} cannot be changed here')
        value = SPECS[name].checked(command.get('value'))
        change: ParameterMessage = Parameter(name, value=value).to_parameter_msg()
        request_set = SetParametersAtomically.Request(parameters=[change])

        def changed(response: SetParametersAtomically.Response) -> None:
            if response.result.successful:
                self._values[name] = value
            answer(response.result.reason)

        self._soon(lambda: self._call(self._set, request_set, changed), answer)

    # In the executor's thread.

    def _soon(
        self, work: Callable[[], None], answer: Callable[[str], None] = lambda problem: None
    ) -> None:
        if self.executor is None:
            answer('posenet_view is ending')
        else:
            self.executor.create_task(work)

    def _follow_lookers(self) -> None:
        wanted = {camera for camera, count in self._lookers.items() if count > 0}
        if wanted and not self._common:
            self._status_at = time.monotonic()
            self._common = [
                self.create_subscription(DiagnosticArray, '/diagnostics', self._on_status, 10),
                self.create_subscription(
                    ModelInfo, f'{self._target}/model_info', self._on_model, LATCHED
                ),
            ]
        for camera in wanted - self._subscriptions_of.keys():
            self._subscriptions_of[camera] = self._subscribe(camera)
        unwanted = self._subscriptions_of.keys() - wanted
        subscriptions = [self._subscriptions_of.pop(camera) for camera in unwanted]
        if not wanted:
            subscriptions.append(self._common)
            self._common, self._people, self._status = [], {}, {}
        for subscription in [each for group in subscriptions for each in group]:
            self.destroy_subscription(subscription)

    def _subscribe(self, camera: str) -> list[Subscription[Any]]:
        prefix = f'{self._target}/{camera}/' if camera else f'{self._target}/'

        def on_people(message: PoseArray) -> None:
            self._people[camera] = message

        def on_picture(message: bytes) -> None:
            try:
                picture = read_compressed_image(message)
            except ImageError:
                return
            self._server.show(camera, bytes(picture.data))

        return [
            self.create_subscription(PoseArray, f'{prefix}poses', on_people, NEWEST),
            self.create_subscription(
                CompressedImage, f'{prefix}image_annotated/compressed', on_picture, NEWEST, raw=True
            ),
        ]

    def _on_status(self, message: DiagnosticArray) -> None:
        name = self._target.lstrip('/')
        ours = [s for s in message.status if s.name == name or s.name.startswith(f'{name}: ')]
        if ours:
            self._status = {status.name: status for status in ours}
            self._status_at = time.monotonic()

    def _on_model(self, message: ModelInfo) -> None:
        self._model = message

    def _ask_for_values(self) -> None:
        names = [spec.name for spec in LIVE]

        def came(response: GetParameters.Response) -> None:
            self._values = {
                name: parameter_value_to_python(value)
                for name, value in zip(names, response.values, strict=True)
            }

        self._call(self._get, GetParameters.Request(names=names), came)

    def _call(self, client: Client[Any, Any], request: Any, done: Callable[[Any], None]) -> None:
        if not client.service_is_ready():
            return

        def came(future: Future[Any]) -> None:
            if future.exception() is None:
                done(future.result())

        client.call_async(request).add_done_callback(came)


def _person(person: Any) -> dict[str, Any]:
    clear = [keypoint for keypoint in person.keypoints if keypoint.score >= MIN_KEYPOINT_SCORE]
    return {
        'id': person.track_id,
        'score': round(person.score, 3),
        'keypoints': len(clear),
        'colour': '#{:02x}{:02x}{:02x}'.format(*person_colour(max(person.track_id, 0))),
    }


def _described(model: ModelInfo) -> str:
    return (
        f'{model.architecture} {model.multiplier:g}, stride {model.output_stride}, input '
        f'{model.input_width} x {model.input_height}, {model.precision}, {model.backend} on '
        f'{model.device}'
    )
