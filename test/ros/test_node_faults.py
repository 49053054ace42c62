"""What the node promises when its model, its images or its cameras fail."""

from __future__ import annotations

import array
import math
import struct
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from posenet_ros.msg import PoseArray
from ros_processes import (
    NODE,
    Camera,
    Process,
    as_image,
    change_state,
    clear_people,
    collect_status,
    set_parameters,
    values_of,
    wait_until,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage
from visualization_msgs.msg import MarkerArray

pytestmark = pytest.mark.slow

# The node, with a backend that fails as the file FAULT says for as long as it is there.
FAULTY_NODE = """
import os, sys, time
from pathlib import Path
import numpy as np
from posenet_ros.backends.onnxruntime import OnnxRuntimeBackend
from posenet_ros.core.heads import Heads
from posenet_ros.ros import camera
from posenet_ros.ros.node import PoseNetNode
from posenet_ros.ros.process import run_node

fault, run, convert = Path(os.environ['FAULT']), OnnxRuntimeBackend.run, camera.image_to_rgb

def given_fault():
    return fault.read_text() if fault.exists() else ''

def fails_to_convert(*arguments):
    if given_fault() == 'convert':
        raise MemoryError('for a conversion')
    return convert(*arguments)

def fails(self, images):
    heads = run(self, images)
    what = given_fault()
    if what == 'hang':
        while fault.exists():
            time.sleep(0.05)
    elif what == 'shape':
        return Heads(*(head[:, :-1] for head in heads))
    elif what in ('nan', '3e38'):
        return Heads(*(np.full_like(head, float(what)) for head in heads))
    elif what not in ('', 'convert'):
        raise eval(what)
    return heads

OnnxRuntimeBackend.run, camera.image_to_rgb = fails, fails_to_convert
sys.exit(run_node(lambda stop: PoseNetNode(stop_requested=stop.requested), PoseNetNode.autostart))
"""


@pytest.fixture
def fault(tmp_path):
    return tmp_path / 'fault'


@pytest.fixture
def start_faulty(tmp_path, fault, default_model_config, net, monkeypatch):
    """Starts the node with the faulty backend; its images are read whoever subscribes."""
    nodes = []

    def launch(*arguments):
        script = tmp_path / 'posenet_node'
        script.write_text(f'#!{sys.executable}\n{FAULTY_NODE}')
        script.chmod(0o755)
        url = default_model_config.model_url or ''
        node = Process(
            str(script), '--ros-args', '-p', f'model_url:={url!r}', '-p', 'lazy:=false', *arguments,
            environment={'FAULT': str(fault)},
        )  # fmt: skip
        nodes.append(node)
        node.wait_for('ready in')
        return node

    yield launch
    fault.unlink(missing_ok=True)
    for node in nodes:
        node.stop()


def newest(found, name='posenet_node'):
    return next(status for status in reversed(found) if status.name == name)


def told(found, text, level=DiagnosticStatus.ERROR):
    return any(text in status.message and status.level == level for status in found)


FAULTS = {
    "SystemExit('the driver gives up')": 'SystemExit: the driver gives up',
    "KeyboardInterrupt('in a library')": 'KeyboardInterrupt: in a library',
    'MemoryError()': 'MemoryError',
    'RecursionError()': 'RecursionError',
    "UnicodeDecodeError('utf-8', bytes([255]), 0, 1, 'bad')": 'UnicodeDecodeError',
    "ValueError('\\udcff\\x00\\n' * 10000)": 'ValueError',
    'nan': 'NaN or infinite',
    'shape': 'should be float32 of',
    '3e38': 'impossible poses',
}


def test_whatever_a_backend_raises_is_told_and_the_next_frames_are_processed(
    start_faulty, peer, camera, astronaut, fault
):
    found, poses = collect_status(peer), peer.collect(PoseArray, f'{NODE}/poses')
    node = start_faulty()
    camera.wait_for_node()
    image = as_image(astronaut)
    for what, words in FAULTS.items():
        fault.write_text(what)
        found.clear()
        camera.send_until(image, lambda words=words: told(found, words))
        failing = newest(found)
        assert words in values_of(failing)['last problem']
        assert len(failing.message) < 3000 and failing.message.isprintable()
        fault.unlink()
        poses.clear()
        camera.send_until(image, lambda: len(poses) > 2)
        assert len(clear_people(poses[-1])) == 1
        camera.send_until(image, lambda: newest(found).level == DiagnosticStatus.OK)
    assert node.running()
    assert max(map(len, node.output.splitlines())) < 3000


def test_error_of_a_conversion_costs_its_frame(start_faulty, peer, camera, astronaut, fault):
    found, poses = collect_status(peer), peer.collect(PoseArray, f'{NODE}/poses')
    start_faulty()
    camera.wait_for_node()
    fault.write_text('convert')

    def counts():
        return values_of(newest(found)) if found else {}

    camera.send_until(as_image(astronaut), lambda: 'dropped: unexpected error' in counts())
    assert counts()['last problem'] == 'MemoryError: for a conversion'
    assert int(counts()['waiting']) <= 2
    fault.unlink()
    camera.send_until(as_image(astronaut), lambda: poses)


def test_model_that_hangs_is_told_and_its_frames_are_counted_apart(
    start_faulty, peer, camera, astronaut, fault
):
    found, poses = collect_status(peer), peer.collect(PoseArray, f'{NODE}/poses')
    node = start_faulty()
    camera.wait_for_node()
    image = as_image(astronaut)
    camera.send_until(image, lambda: len(poses) > 2)
    fault.write_text('hang')
    camera.send_until(image, lambda: told(found, 'the model hangs: a run has taken 4 s'))
    counts = values_of(newest(found))
    assert int(counts['dropped: the model hangs']) > 10
    assert int(counts['waiting']) == 2  # the one in the model, and the newest
    assert node.output.count('the model hangs') == 1
    fault.unlink()
    poses.clear()
    camera.send_until(image, lambda: poses and newest(found).level == DiagnosticStatus.OK)
    node.wait_for('the model does not hang any more')


def test_lifecycle_says_that_it_cannot_replace_a_model_that_hangs(
    start_faulty, peer, camera, astronaut, fault
):
    found = collect_status(peer)
    node = start_faulty()
    camera.wait_for_node()
    fault.write_text('hang')
    camera.send_until(as_image(astronaut), lambda: told(found, 'the model hangs'))
    assert change_state(peer, Transition.TRANSITION_DEACTIVATE)
    assert change_state(peer, Transition.TRANSITION_CLEANUP)
    assert peer.spin_until(lambda: told(found, 'restart the process'))
    assert not change_state(peer, Transition.TRANSITION_CONFIGURE)
    node.wait_for('still hangs')
    fault.unlink()
    assert peer.spin_until(lambda: change_state(peer, Transition.TRANSITION_CONFIGURE))
    assert change_state(peer, Transition.TRANSITION_ACTIVATE)
    camera.send_until(as_image(astronaut), lambda: newest(found).level == DiagnosticStatus.OK)


def test_frames_are_counted_once_and_those_lost_before_too(
    start_faulty, peer, camera, astronaut, fault
):
    """Bursts, broken images and errors: at every report the counts add up."""
    found = collect_status(peer)
    start_faulty()
    camera.wait_for_node()
    good, broken = as_image(astronaut), as_image(astronaut, encoding='nonsense')
    sent, ends = 0, time.monotonic() + 8
    dice = np.random.default_rng(1)
    while time.monotonic() < ends:
        if dice.random() < 0.05:
            fault.write_text('MemoryError()')
        else:
            fault.unlink(missing_ok=True)
        for _ in range(dice.integers(1, 8)):
            camera.send(good if dice.random() < 0.8 else broken)
            sent += 1
        peer.spin_for(0.05)
    peer.spin_for(2.5)
    reports = [values_of(status) for status in found]
    for counts in (counts for counts in reports if 'received' in counts):
        received, processed, dropped, waiting = (
            int(counts[name]) for name in ('received', 'processed', 'dropped', 'waiting')
        )
        assert received == processed + dropped + waiting and waiting >= 0
        by_reason = [int(n) for name, n in counts.items() if name.startswith('dropped: ')]
        assert sum(by_reason) == dropped <= received
    last = reports[-1]
    assert int(last['received']) > 20 and int(last['waiting']) == 0
    if last['lost before the node'] != 'not counted':
        # Those before the first that came, and after the last, are not known.
        assert 0 <= sent - int(last['received']) - int(last['lost before the node']) <= 14


# What comes from cameras.


def png_of(width, height):
    """A PNG that claims a size, with the rows of a black image as far as they go."""

    def chunk(name, data):
        return (
            struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
        )

    header = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((width // 8 + 1) * height, 1 << 27)), 9)
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')
    )


def jpeg_of(width, height):
    """A JPEG that claims a size, of which there are a few blocks."""
    data = bytearray(cv2.imencode('.jpg', np.zeros((64, 64, 3), np.uint8))[1].tobytes())
    frame = data.index(b'\xff\xc0')
    data[frame + 5 : frame + 9] = struct.pack('>HH', height, width)
    return bytes(data)


def many_scans(count):
    """A progressive JPEG with one of its scans over and over."""
    pixels = np.random.default_rng(1).integers(0, 255, (2000, 3000, 3), np.uint8)
    data = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    start = data.rindex(b'\xff\xda')
    scan = data[start:-2]
    return data[:start] + scan[:64] * count + scan + data[-2:]


def exif_bomb():
    """A JPEG with as much Exif as says nothing."""
    data = cv2.imencode('.jpg', np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    exif = b'\xff\xe1' + struct.pack('>H', 18) + b'Exif\0\0' + bytes(10)
    return data[:2] + 100_000 * exif + data[2:]


def peak_memory(pid):
    status = Path(f'/proc/{pid}/status').read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith('VmHWM')))


def test_compressed_image_that_claims_too_much_costs_nothing(start_node, peer, astronaut):
    poses, found = peer.collect(PoseArray, f'{NODE}/poses'), collect_status(peer)
    node = start_node('-r', 'image_raw:=/eye/image', image_transport='compressed')
    camera = Camera(peer, '/eye/image/compressed', CompressedImage)
    camera.wait_for_node()
    good = cv2.imencode('.jpg', astronaut[..., ::-1])[1].tobytes()
    bad = [
        png_of(20_000, 20_000), png_of(2**31 - 1, 2**31 - 1), jpeg_of(65_500, 65_500),
        many_scans(3000), exif_bomb(), b'GIF89a' + bytes(100), b'BM' + bytes(100),
        b'II*\0' + bytes(1000),
        b'RIFF\x00\x01\x00\x00WEBPVP8 ' + bytes(300), b'#?RADIANCE\n' + bytes(100),
        b'P6 60000 60000 255\n', b'\0\0\0\x0cjP  ' + bytes(100), b'', b'\xff\xd8',
        b'\x89PNG\r\n\x1a\n',
    ]  # fmt: skip

    def message(data, form='jpeg'):
        return CompressedImage(format=form, data=array.array('B', data))

    camera.send_until(message(good), lambda: len(poses) > 2)
    before = peak_memory(node.pid)
    for data in bad:
        dropped = int(values_of(newest(found)).get('dropped: broken image', 0))
        started = time.monotonic()
        camera.send_until(
            message(data),
            lambda dropped=dropped: int(
                values_of(newest(found)).get('dropped: broken image', 0)
            ) > dropped,
        )  # fmt: skip
        assert time.monotonic() - started < 10
    poses.clear()
    camera.send_until(message(good), lambda: len(poses) > 2)
    assert len(clear_people(poses[-1])) == 1
    assert peak_memory(node.pid) - before < 100_000  # KiB
    node.wait_for('claim 20000 x 20000 pixels; at most')


def test_largest_compressed_image_is_a_parameter(start_node, peer, astronaut):
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    node = start_node(
        '-r', 'image_raw:=/eye/image', image_transport='compressed', max_image_pixels=512 * 512 - 1
    )
    camera = Camera(peer, '/eye/image/compressed', CompressedImage)
    camera.wait_for_node()

    def message(pixels):
        return CompressedImage(format='png', data=array.array('B', cv2.imencode('.png', pixels)[1]))

    camera.send_until(message(astronaut), lambda: 'max_image_pixels' in node.output)
    assert not poses
    camera.send_until(message(astronaut[:-1]), lambda: poses)


def test_clock_of_before_1970_is_told_and_survived(start_node, peer, camera, astronaut):
    """Rclpy's own callback fails, which would end the process."""
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    node = start_node('-p', 'use_sim_time:=true')
    camera.wait_for_node()
    clock = peer.create_publisher(Clock, '/clock', 1)
    assert wait_until(lambda: clock.get_subscription_count() >= 1)
    for seconds in (-1, -(2**31), 2**31 - 1, 5):
        message = Clock()
        message.clock.sec, message.clock.nanosec = seconds, 2**32 - 1
        for _ in range(3):
            clock.publish(message)
            peer.spin_for(0.1)
    camera.send_until(as_image(astronaut), lambda: poses)
    assert node.running()
    assert node.output.count('/clock: Seconds value must not be negative') == 1


BAD_CALIBRATIONS = [
    {'k': [math.nan] * 9, 'p': [math.nan] * 12},
    {'k': [math.inf] * 9},
    {'p': [500.0, 0, 256, math.nan, 0, 500, 256, 0, 0, 0, 1, 0]},
    {'p': [1e-300, 0, 256, 0, 0, 1e-300, 256, 0, 0, 0, 1, 0]},
    {'k': [1e300, 0, 1e300, 0, 1e300, 1e300, 0, 0, 1]},
    {'p': [500.0, 0, 1e308, -1e308, 0, 500, -1e308, 1e308, 0, 0, 1, 0]},
    {'k': [-500.0, 0, 256, 0, -500, 256, 0, 0, 1]},
]


def test_markers_are_finite_whatever_the_calibration(start_node, peer, camera, astronaut):
    markers = peer.collect(MarkerArray, f'{NODE}/markers')
    node = start_node()
    camera.wait_for_node()
    infos = peer.create_publisher(CameraInfo, 'camera_info', 1)
    assert wait_until(lambda: infos.get_subscription_count() == 1)
    for values in BAD_CALIBRATIONS:
        info = CameraInfo(
            width=512, height=512, **{k: list(map(float, v)) for k, v in values.items()}
        )
        info.roi.x_offset = 2**32 - 1
        infos.publish(info)
        peer.spin_for(0.2)
        markers.clear()
        camera.send_until(as_image(astronaut), lambda: len(markers) > 3)
        points = [
            point
            for message in markers
            for marker in message.markers
            for point in [*marker.points, marker.pose.position]
        ]
        assert len(points) > 40
        assert all(math.isfinite(v) for p in points for v in (p.x, p.y, p.z)), values
    assert 1 <= node.output.count('are drawn as without a calibration') <= len(BAD_CALIBRATIONS)


def test_hostile_words_are_quoted_shortly_and_once(start_node, peer, camera, astronaut):
    found = collect_status(peer)
    node = start_node(lazy=False)
    camera.wait_for_node()
    image = as_image(astronaut)
    dice = np.random.default_rng(1)
    for i in range(300):
        noise = ''.join(map(chr, dice.integers(1, 0xD7FF, 5000)))
        image.encoding = f'{i}\x1b[31m\n{noise}'
        image.header.frame_id = noise
        camera.send(image)
        peer.spin_for(0.01)
    assert peer.spin_until(lambda: told(found, 'images dropped', DiagnosticStatus.WARN))
    lines = [line for line in node.output.splitlines() if 'image dropped' in line]
    assert 1 <= len(lines) <= 3  # once in five seconds
    assert all(len(line) < 1500 and '\x1b' not in line for line in lines)
    image = as_image(astronaut)
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    camera.send_until(image, lambda: poses)


@pytest.mark.parametrize(
    'url',
    ['\udcff\udcfe', 'a' * 100_000, 'http://[', 'file://%00', '/dev/zero', 'x\x1b[2J\ny', '~a/b'],
)
def test_node_lives_on_after_a_hostile_model_url(start, peer, url):
    """What a model_url can be as a parameter: any bytes."""
    found = collect_status(peer)
    node = start('posenet_node', '--ros-args', '-p', 'autostart:=false')
    node.wait_for('')
    try:
        result = set_parameters(peer, model_url=url)
    except UnicodeEncodeError:
        pytest.skip('rclpy sends no such string')
    assert result.successful, result.reason
    assert not change_state(peer, Transition.TRANSITION_CONFIGURE)
    assert peer.spin_until(lambda: found and newest(found).level == DiagnosticStatus.ERROR)
    assert len(newest(found).message) < 3000
    assert node.running()
    assert max(map(len, node.output.splitlines())) < 3000
