"""Everything here needs ROS 2: real processes over real topics, on a network of their own."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from posenet_ros import Pose, PoseNet
from posenet_ros.ros.fastdds import this_machine_alone
from posenet_ros.ros.parameters import PARAMETERS, decoder_config, model_config

rclpy = pytest.importorskip('rclpy', reason='ROS 2 is not on this machine')
pytest.importorskip('posenet_ros.msg', reason='the messages are not built: make env')

# Set before anything starts, so that no other robot, test run or daemon sees these tests.
os.environ.update(this_machine_alone(os.environ))
# Two workers of pytest-xdist never meet: one has an even domain, the other an odd one.
WORKER = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))
os.environ['ROS_DOMAIN_ID'] = str(2 * random.randint(1, 50) + WORKER % 2)

from ros_processes import Camera, Peer, Process, yaml  # noqa: E402

# What counts frames and milliseconds runs in one worker; the other one's tests wait more than run.
IN_THE_OTHER_WORKER = (
    'robot', 'security', 'test_bridges.py', 'test_examples.py', 'test_node_on_tensorrt.py',
    'test_node_services.py', 'test_soak.py', 'test_view.py',
)  # fmt: skip

NodePoses = Callable[[np.ndarray], list[Pose]]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            other = item.path.relative_to(here).parts[0] in IN_THE_OTHER_WORKER
            item.add_marker(pytest.mark.xdist_group('ros_patient' if other else 'ros'))


@pytest.fixture(scope='session', autouse=True)
def ros() -> Iterator[None]:
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def peer() -> Iterator[Peer]:
    node = Peer()
    yield node
    node.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts processes that are stopped after the test."""
    processes: list[Process] = []

    def launch(name: str, *arguments: str, **kwargs) -> Process:
        processes.append(Process(name, *arguments, **kwargs))
        return processes[-1]

    yield launch
    for process in processes:
        process.stop()  # a killed process leaves its 64 MB of shared memory behind


@pytest.fixture(scope='session')
def node_poses(default_model_config, net) -> Iterator[NodePoses]:
    """The poses that the node finds by default: by the library, with the node's options."""
    values = {spec.name: spec.default for spec in PARAMETERS}
    values['model_url'] = default_model_config.model_url or ''
    with PoseNet.load(model_config(values)) as loaded:
        yield lambda image: loaded.estimate([image], decoder_config(values))[0]


@pytest.fixture
def start_node(start, default_model_config, net) -> Callable[..., Process]:
    """Starts posenet_node with the default model; parameters as keyword arguments."""

    def launch(*arguments: str, ready: bool = True, environment=None, **parameters) -> Process:
        parameters.setdefault('model_url', default_model_config.model_url or '')
        given = [part for name, v in parameters.items() for part in ('-p', f'{name}:={yaml(v)}')]
        process = start('posenet_node', '--ros-args', *given, *arguments, environment=environment)
        if ready:
            process.wait_for('ready in')
        return process

    return launch


@pytest.fixture
def camera(peer):
    return Camera(peer)
