"""posenet_view: reads a PoseNet node's topics while somebody looks at the page, and serves it."""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage
from std_srvs.srv import SetBool

from posenet_ros.core.keypoints import MIN_KEYPOINT_SCORE
from posenet_ros.errors import ConfigError, ImageError, in_words
from posenet_ros.io.draw import person_colour
from posenet_ros.msg import ModelInfo, PoseArray
from posenet_ros.ros.declare_parameters import declare_parameters
from posenet_ros.ros.node_parameters import NOT_SET
from posenet_ros.ros.parameters import CAMERA_GROUPS, PARAMETERS, SPECS, ParameterSpec
from posenet_ros.ros.publishing import LATCHED_QOS
from posenet_ros.ros.serialized_image import read_compressed_image
from posenet_ros.ros.topics import CAMERA_NAME
from posenet_ros.view.server import ViewServer

NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
LOST_SECONDS = 3.0  # without diagnostics, which come every second
OLD_SECONDS = 2.0  # after which people are shown no more
PARAMETER_SECONDS = 2.0  # between two looks at the parameters
ANSWER_SECONDS = 5.0  # of a service
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
    """Subscribes to nothing while nobody looks. See server.Source, which this is.

    The server's thread hands work to the executor's thread by a guard condition: only that thread
    creates, destroys and calls. What it reads of each other's attributes is replaced as a whole.
    """

    def __init__(self) -> None:
        super().__init__('posenet_view')
        values = declare_parameters(self, VIEW_PARAMETERS)
        self._target = self.resolve_topic_name(values['node'])
        self._work: deque[Callable[[], None]] = deque()
        self._guard = self.create_guard_condition(self._do_work)
        self._cameras: frozenset[str] = frozenset()  # that are looked at
        self._subscriptions_of: dict[str, list[Subscription[Any]]] = {}
        self._common: list[Subscription[Any]] = []
        self._people: dict[str, tuple[float, PoseArray]] = {}  # time.monotonic(), message
        self._status: dict[str, DiagnosticStatus] = {}
        self._status_at = 0.0
        self._model: ModelInfo | None = None
        self._values: dict[str, Any] = {}  # of the target's parameters
        self._own_values: dict[str, dict[str, Any]] = {}  # of its cameras
        self._clients_of: dict[type, Client[Any, Any]] = {
            kind: self.create_client(kind, f'{self._target}/{name}')
            for kind, name in (
                (GetParameters, 'get_parameters'),
                (SetParametersAtomically, 'set_parameters_atomically'),
                (SetBool, 'enable'),
            )
        }
        self._calls: list[Call] = []  # that have no answer yet
        self._asked_at = 0.0
        self._server = ViewServer(self, values['host'], values['port'], values['token'])
        self.get_logger().info(f'open {self._server.url}')

    def destroy_node(self) -> None:
        self._server.close()
        super().destroy_node()

    # For the server's thread.

    def look(self, cameras: frozenset[str]) -> None:
        self._soon(lambda: self._follow(cameras))

    def cameras(self) -> list[str]:
        prefix = f'{self._target.lstrip("/")}: '
        names = [name.removeprefix(prefix) for name in self._status if name.startswith(prefix)]
        names = [name for name in names if CAMERA_NAME.fullmatch(name)]
        if names or self._target.lstrip('/') in self._status:
            return names or ['']
        pattern = re.compile(f'{re.escape(self._target)}/(?:({CAMERA_NAME.pattern})/)?poses')
        topics = (pattern.fullmatch(name) for name, _ in self.get_topic_names_and_types())
        return [match[1] or '' for match in topics if match] or ['']

    def state(self, camera: str) -> dict[str, Any]:
        now = time.monotonic()
        if now > self._asked_at + PARAMETER_SECONDS:
            self._asked_at = now
            self._soon(lambda: self._ask_for_values(camera))
        lost = now > self._status_at + LOST_SECONDS
        name = self._target.lstrip('/')
        status = self._status.get(f'{name}: {camera}' if camera else name)
        seen, people = self._people.get(camera, (0.0, PoseArray()))
        values = {**self._values, **self._own_values.get(camera, {})}
        return {
            'node': self._target,
            'lost': lost,
            'camera': camera,
            'cameras': self.cameras(),
            'level': LEVELS.get(status.level, 'error') if status else '',
            'message': status.message if status else '',
            'paused': bool(status and status.message == 'paused'),
            'values': {pair.key: pair.value for pair in status.values} if status else {},
            'model': _described(self._model) if self._model else '',
            'people': [_person(p) for p in people.poses] if now < seen + OLD_SECONDS else [],
            'parameters': [
                _control(spec, values[spec.name]) for spec in LIVE if spec.name in values
            ],
        }

    def command(self, camera: str, command: dict[str, Any], answer: Callable[[str], None]) -> None:
        if 'enable' in command:
            request = SetBool.Request(data=bool(command['enable']))
            self._soon(lambda: self._call(SetBool, request, lambda _: answer(''), answer))
            return
        name = str(command.get('parameter'))
        if name not in {spec.name for spec in LIVE}:
            raise ConfigError(f'{name} cannot be changed here')
        value = SPECS[name].checked(command.get('value'))
        own = name in self._own_values.get(camera, {})
        full_name = f'{camera}.{name}' if own else name
        change: ParameterMessage = Parameter(full_name, value=value).to_parameter_msg()
        request_set = SetParametersAtomically.Request(parameters=[change])

        def changed(response: SetParametersAtomically.Response) -> None:
            self._asked_at = 0.0  # asks again at once
            answer(response.result.reason)

        self._soon(lambda: self._call(SetParametersAtomically, request_set, changed, answer))

    def _soon(self, work: Callable[[], None]) -> None:
        self._work.append(work)
        with contextlib.suppress(Exception):  # the node is being destroyed
            self._guard.trigger()

    # In the executor's thread.

    def _do_work(self) -> None:
        while self._work:
            try:
                self._work.popleft()()
            except Exception as error:  # must not end the process
                self.get_logger().error(f'unexpected {in_words(error)}')
        for call in [call for call in self._calls if call.ended()]:
            self._calls.remove(call)

    def _follow(self, cameras: frozenset[str]) -> None:
        if cameras == self._cameras:
            return
        self._cameras = cameras
        if cameras and not self._common:
            self._status_at = time.monotonic()
            self._common = [
                self.create_subscription(DiagnosticArray, '/diagnostics', self._on_status, 10),
                self.create_subscription(
                    ModelInfo, f'{self._target}/model_info', self._on_model, LATCHED_QOS
                ),
            ]
        for camera in cameras - self._subscriptions_of.keys():
            self._subscriptions_of[camera] = self._subscribe(camera)
        unwanted = self._subscriptions_of.keys() - cameras
        subscriptions = [self._subscriptions_of.pop(camera) for camera in unwanted]
        if not cameras:
            subscriptions.append(self._common)
            self._common, self._people, self._status = [], {}, {}
        for subscription in [each for group in subscriptions for each in group]:
            self.destroy_subscription(subscription)

    def _subscribe(self, camera: str) -> list[Subscription[Any]]:
        prefix = f'{self._target}/{camera}/' if camera else f'{self._target}/'

        def on_people(message: PoseArray) -> None:
            self._people = {**self._people, camera: (time.monotonic(), message)}

        def on_picture(message: bytes) -> None:
            with contextlib.suppress(ImageError):
                self._server.show(camera, bytes(read_compressed_image(message).data))

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

    def _ask_for_values(self, camera: str) -> None:
        if any(call.client is self._clients_of[GetParameters] for call in self._calls):
            return  # the last answer has not come yet
        names = [spec.name for spec in LIVE]

        def came(response: GetParameters.Response) -> None:
            # A node that does not have all of them answers with none.
            values = map(parameter_value_to_python, response.values)
            self._values = dict(zip(names, values, strict=False))

        self._call(GetParameters, GetParameters.Request(names=names), came)
        if not camera:
            return
        own_names = [spec.name for spec in LIVE if spec.group in CAMERA_GROUPS]

        def own_came(response: GetParameters.Response) -> None:
            values = zip(own_names, map(parameter_value_to_python, response.values), strict=False)
            own = {name: value for name, value in values if value not in (None, NOT_SET)}
            self._own_values = {**self._own_values, camera: own}

        request = GetParameters.Request(names=[f'{camera}.{name}' for name in own_names])
        self._call(GetParameters, request, own_came)

    def _call(
        self,
        kind: type,
        request: Any,
        done: Callable[[Any], None],
        failed: Callable[[str], None] = lambda problem: None,
    ) -> None:
        """Calls a service of the target."""
        client = self._clients_of[kind]
        if not client.service_is_ready():
            failed(f'{self._target} does not answer')
            return
        self._calls.append(Call(client, client.call_async(request), done, failed))
        self._calls[-1].future.add_done_callback(lambda _: self._do_work())


class Call:
    """A call of a service that has no answer yet."""

    def __init__(
        self,
        client: Client[Any, Any],
        future: Future[Any],
        done: Callable[[Any], None],
        failed: Callable[[str], None],
    ) -> None:
        self.client, self.future = client, future
        self._done, self._failed = done, failed
        self._deadline = time.monotonic() + ANSWER_SECONDS

    def ended(self) -> bool:
        """Whether the answer came, which is then passed on, or is not waited for any more."""
        if self.future.done():
            if self.future.exception() is None:
                self._done(self.future.result())
            return True
        if time.monotonic() > self._deadline:
            self.client.remove_pending_request(self.future)
            self._failed(f'{self.client.srv_name} does not answer')
            return True
        return False


def _control(spec: ParameterSpec, value: Any) -> dict[str, Any]:
    return {
        'name': spec.name,
        'value': value,
        'range': spec.range,
        'choices': spec.choices,
        'whole': isinstance(spec.default, int),
        'help': spec.help,
    }


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
