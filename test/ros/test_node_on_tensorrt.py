"""The node on TensorRT, as a real process: the real pycuda, and stand-ins for what needs a GPU."""

import os
import shutil
import signal

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from goldens import ROOT
from host_driver import compile_driver
from lifecycle_msgs.msg import State, Transition
from posenet_ros.msg import ModelInfo, PoseArray
from ros_processes import as_image
from test_node import (
    LATCHED,
    NODE,
    Camera,
    change_state,
    collect_status,
    state,
    values_of,
)

pytestmark = pytest.mark.slow

# What `import tensorrt` finds in the node's process. A file that appears breaks the device.
SHIM = """
import os, sys, threading, time
from pathlib import Path
sys.path[:0] = [{root!r} + '/test/backends']
from host_driver import HostDriver
from tensorrt_stand_in import make_tensorrt
driver = HostDriver(Path({library!r}))
def watch():
    while True:
        if os.path.exists({breaker!r}):
            os.remove({breaker!r})
            driver.fail('cuStreamSynchronize')
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
module = make_tensorrt(driver)
module.__spec__ = __spec__
sys.modules[__name__] = module
"""


@pytest.fixture
def device(tmp_path, monkeypatch, fresh_home):
    """The environment of a process that finds a GPU, and the file that breaks it."""
    pytest.importorskip('pytools', reason='pycuda is not built here')
    if shutil.which('cc') is None:
        pytest.skip('no C compiler, and the CUDA driver of these tests is written in C')
    library = compile_driver(tmp_path)
    breaker = tmp_path / 'break'
    shim = tmp_path / 'modules'
    shim.mkdir()
    (shim / 'tensorrt.py').write_text(
        SHIM.format(root=str(ROOT), library=str(library), breaker=str(breaker))
    )
    return breaker, {
        'HOST_DRIVER_DEVICES': '1',
        'POSENET_HOME': fresh_home,
        'LD_LIBRARY_PATH': f'{tmp_path}:{os.environ.get("LD_LIBRARY_PATH", "")}',
        'PYTHONPATH': f'{shim}:{os.environ.get("PYTHONPATH", "")}',
    }


def test_cameras_share_an_engine(start_node, peer, node_poses, astronaut, device):
    _, environment = device
    received = {name: peer.collect(PoseArray, f'{NODE}/{name}/poses') for name in ('a', 'b')}
    info = peer.collect(ModelInfo, f'{NODE}/model_info', LATCHED)
    process = start_node('-p', 'cameras:=[a, b]', environment=environment)
    assert 'building the TensorRT engine (there is none yet)' in process.output
    assert 'built the TensorRT engine in' in process.output
    assert 'fp32 with tensorrt on host memory, no GPU' in process.output
    cameras = {name: Camera(peer, f'{name}/image_raw') for name in received}
    for camera in cameras.values():
        camera.wait_for_node()
    picture = as_image(astronaut)
    for name, camera in cameras.items():
        camera.send_until(picture, lambda name=name: len(received[name]) > 5)
    assert peer.spin_until(lambda: info) and info[0].backend == 'tensorrt'
    expected = node_poses(astronaut)[0]
    for messages in received.values():
        for message in messages:
            points = [(keypoint.x, keypoint.y) for keypoint in message.poses[0].keypoints]
            assert np.allclose(points, expected.keypoints, atol=0.01)
    assert process.stop(signal.SIGINT) == 0
    again = start_node('-p', 'cameras:=[a, b]', environment=environment)
    assert 'building the TensorRT engine' not in again.output
    assert again.stop(signal.SIGTERM) == 0
    assert 'PyCUDA' not in process.output + again.output


def test_lost_device_is_reported_and_a_new_model_recovers(start_node, peer, astronaut, device):
    breaker, environment = device
    found = collect_status(peer)
    poses = peer.collect(PoseArray, f'{NODE}/poses')
    process = start_node(environment=environment)
    camera = Camera(peer)
    camera.wait_for_node()
    picture = as_image(astronaut)
    camera.send_until(picture, lambda: poses)
    breaker.touch()
    camera.send_until(picture, lambda: found and 'inference fails' in found[-1].message)
    assert found[-1].level == DiagnosticStatus.ERROR
    assert 'CUDA failed' in found[-1].message
    assert int(values_of(found[-1])['dropped: inference failed']) > 0
    assert process.running() and state(peer) == State.PRIMARY_STATE_ACTIVE
    for transition in (
        Transition.TRANSITION_DEACTIVATE,
        Transition.TRANSITION_CLEANUP,
        Transition.TRANSITION_CONFIGURE,
        Transition.TRANSITION_ACTIVATE,
    ):
        assert change_state(peer, transition)
    poses.clear()
    camera.wait_for_node()
    camera.send_until(picture, lambda: poses)
    assert process.stop() == 0
