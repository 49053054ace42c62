"""The launch files, with the real `ros2 launch`, where it is installed."""

import os
import shutil
import signal
import subprocess

import pytest
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from ros_processes import wait_until

pytest.importorskip('launch_ros', reason='launch_ros is not on this machine')
if shutil.which('ros2') is None:
    pytest.skip('the ros2 command is not on this machine', allow_module_level=True)

from posenet_ros.msg import PoseArray

from posenet_ros.media import write_image


@pytest.fixture
def launch(tmp_path, default_model_config):
    running = []

    def run(file, *arguments):
        log = (tmp_path / f'{file}.log').open('w+')
        if default_model_config.model_url:
            arguments = (*arguments, f'model_url:={default_model_config.model_url}')
        process = subprocess.Popen(
            ['ros2', 'launch', 'posenet_ros', file, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'PYTHONUNBUFFERED': '1'},
        )
        running.append((process, log))
        return process, lambda: (tmp_path / f'{file}.log').read_text()

    yield run
    for process, log in running:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(20)
        log.close()


def test_posenet_launch_sets_namespace_topic_and_parameters(peer, launch):
    _, output = launch(
        'posenet.launch.py', 'namespace:=robot', 'image_topic:=/eye/image', 'nms_radius:=25',
        'input_resolution:=[321, 257]',
    )  # fmt: skip
    assert wait_until(lambda: 'ready in' in output(), 60), output()
    request = GetParameters.Request(names=['nms_radius', 'input_resolution'])
    radius, size = peer.call(GetParameters, '/robot/posenet_node/get_parameters', request).values
    assert radius.double_value == 25.0
    assert list(size.integer_array_value) == [321, 257]
    assert peer.spin_until(lambda: peer.count_subscribers('/eye/image') == 1)
    state = peer.call(GetState, '/robot/posenet_node/get_state', GetState.Request())
    assert state.current_state.label == 'active'


def test_wrong_argument_stops_the_launch_and_is_named(launch):
    process, output = launch('posenet.launch.py', 'nms_radius:=-3')
    assert process.wait(60) != 0
    assert 'Invalid nms_radius -3' in output()


def test_demo_launch_finds_the_person(peer, launch, tmp_path, astronaut):
    write_image(tmp_path / 'photo.png', astronaut)
    poses = peer.collect(PoseArray, '/posenet_node/poses')
    _, output = launch('demo.launch.py', f'source:={tmp_path}/photo.png', 'rviz:=false')
    assert peer.spin_until(lambda: poses, 60), output()
    assert len(poses[0].poses) == 1


def test_multi_camera_launch_listens_to_each_camera(peer, launch):
    _, output = launch('multi_camera.launch.py', 'cameras:=front,rear')
    assert wait_until(lambda: 'ready in' in output(), 60), output()
    for name in ('front', 'rear'):
        assert peer.spin_until(lambda name=name: peer.count_subscribers(f'/{name}/image_raw') == 1)
        assert peer.spin_until(
            lambda name=name: peer.count_publishers(f'/posenet_node/{name}/poses') == 1
        )
