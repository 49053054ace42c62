"""With SROS2: who may see images and poses, and who may not. Run by `make test-security`."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from ros_processes import wait_until
from secure_peer import PATTERN

from posenet_ros.io.photos import write_image

pytestmark = pytest.mark.slow

READS = ('receive:poses', 'receive:image_annotated', 'receive:model_info', 'receive:diagnostics')
CALLS = ('call:set_parameters', 'call:enable')
NAMES = ('find:posenet_node', 'find:image_source')


def in_shared_memory(pattern: bytes) -> bool:
    return any(pattern in path.read_bytes() for path in Path('/dev/shm').glob('fast*'))


def on_the_network(pattern: bytes, seconds: float) -> tuple[bool, int]:
    """Whether a pattern is in this machine's packets, and how many bytes these had."""
    size, end = 0, time.monotonic() + seconds
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3)) as listener:
        listener.settimeout(0.2)
        while time.monotonic() < end:
            try:
                packet = listener.recv(65535)
            except TimeoutError:
                continue
            size += len(packet)
            if pattern in packet:
                return True, size
    return False, size


@pytest.mark.skipif(os.geteuid() != 0, reason='only root sees packets')
@pytest.mark.parametrize('transport', ['profile', 'UDPv4'])
@pytest.mark.parametrize('secure', [False, True], ids=['open', 'secure'])
def test_images_can_be_read_by_others_only_without_keys(try_as, monkeypatch, transport, secure):
    if transport == 'UDPv4':
        monkeypatch.delenv('FASTDDS_DEFAULT_PROFILES_FILE')
        monkeypatch.setenv('FASTDDS_BUILTIN_TRANSPORTS', 'UDPv4')
    reader = try_as('/posenet_node' if secure else '', 'receive:image_raw')
    writer = try_as('/camera' if secure else '', 'send:image_raw')
    writer.wait_for('send:image_raw works')
    reader.wait_for('receive:image_raw works')
    found, size = on_the_network(PATTERN, 2)
    assert (found or in_shared_memory(PATTERN)) is not secure
    if transport == 'UDPv4' and secure:
        assert size > 1_000_000


@pytest.fixture(scope='module')
def node_arguments(default_model_config, net) -> list[str]:
    model = f'model_url:={default_model_config.model_url or ""}'
    return ['--ros-args', '-p', model, '-p', 'lazy:=false']


@pytest.fixture(scope='module')
def node(start_secure, node_arguments):
    process = start_secure('posenet_node', *node_arguments, enclave='/posenet_node')
    process.wait_for('ready in')
    yield process
    assert process.stop() == 0


@pytest.fixture(scope='module')
def camera(node, start_secure, tmp_path_factory, astronaut):
    photo = tmp_path_factory.mktemp('camera') / 'photo.png'
    write_image(photo, astronaut)
    process = start_secure(
        'image_source', '--ros-args', '-p', f'source:={photo}', enclave='/camera'
    )
    process.wait_for('publishing')
    yield process
    assert process.stop() == 0


def test_with_keys_everything_works(camera, try_as):
    viewer = try_as('/viewer', *READS, *NAMES)
    for action in (*READS, *NAMES):
        viewer.wait_for(f'{action} works')


@pytest.fixture
def wait(try_as):
    """Waits for so long that others must have succeeded: until a viewer with keys has, and 2 s."""

    def until_a_viewer_succeeds() -> None:
        viewer = try_as('/viewer', *READS)
        for action in READS:
            viewer.wait_for(f'{action} works')
        time.sleep(2)

    return until_a_viewer_succeeds


def test_without_keys_nothing_is_seen_and_nothing_reaches_the_node(camera, try_as, wait):
    stranger = try_as('', *READS, *CALLS, *NAMES, 'receive:image_raw')
    wait()
    stranger.stop()  # the next one would send it images
    assert stranger.output == 'trying\n'
    stranger = try_as('', 'send:image_raw')
    wait()
    assert stranger.output == 'trying\n'


def test_keys_of_somebody_else_are_worth_nothing(camera, try_as, wait, foreign_keystore):
    viewer = try_as('/viewer', *READS, 'find:posenet_node', keys=foreign_keystore)
    sender = try_as('/camera', 'send:image_raw', keys=foreign_keystore)
    wait()
    for word in ('works', 'is refused'):
        assert word not in viewer.output + sender.output


def test_a_viewer_may_not_send_images_nor_read_the_cameras(camera, try_as):
    viewer = try_as('/viewer', 'send:image_raw', 'receive:image_raw')
    assert 'send:image_raw is refused' in viewer.output
    assert 'receive:image_raw is refused' in viewer.output


def test_a_camera_may_not_read_poses(camera, try_as):
    assert 'receive:poses is refused' in try_as('/camera', 'receive:poses').output


def test_only_the_operator_may_change_the_node(camera, try_as):
    viewer, operator = (try_as(enclave, *CALLS) for enclave in ('/viewer', '/operator'))
    for call in CALLS:
        assert f'{call} is refused' in viewer.output
        operator.wait_for(f'{call} works')


@pytest.mark.parametrize(
    ('enclave', 'arguments', 'said'),
    [
        ('/nobody', [], 'enclaves/nobody'),
        ('/', [], "couldn't find all security files"),
        ('/posenet_node', ['-r', '__node:=other'], 'SROS2 is on: do the keys of --enclave in '),
    ],
    ids=['no such enclave', 'no enclave', 'another name'],
)
def test_without_keys_of_its_own_the_node_does_not_start(start_secure, enclave, arguments, said):
    process = start_secure('posenet_node', '--ros-args', *arguments, enclave=enclave)
    assert wait_until(lambda: not process.running())
    assert process.stop() == 1
    assert said in process.output
    assert 'Traceback' not in process.output


def test_a_topic_that_the_keys_do_not_allow_is_told_with_advice(start_secure, node_arguments):
    process = start_secure(
        'posenet_node', *node_arguments, '-p', 'image_topic:=/front/image_raw',
        enclave='/posenet_node',
    )  # fmt: skip
    process.wait_for('cannot activate: ')
    process.wait_for('SROS2 is on: do the keys of --enclave in ')
    process.stop()
