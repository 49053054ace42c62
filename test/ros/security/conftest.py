"""Processes on a Fast DDS with security, each with keys or without."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from goldens import ROOT
from ros_processes import Process

HERE = Path(__file__).parent
POLICY = ROOT / 'config/security.policy.xml'


@dataclass(frozen=True)
class SecureRos:
    """The folder of tools/build_secure_ros.py."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """In which a process loads the libraries that have security."""
        before = os.environ['LD_LIBRARY_PATH']
        return {'LD_LIBRARY_PATH': f'{self.folder}/lib:{before}'}

    def make_keystore(self, folder: Path) -> Path:
        packages = f'lib/python{sysconfig.get_python_version()}/site-packages'
        environment = {
            **os.environ,
            'PYTHONPATH': f'{os.environ["PYTHONPATH"]}:{self.folder / packages}',
            'AMENT_PREFIX_PATH': f'{os.environ["AMENT_PREFIX_PATH"]}:{self.folder}',
        }
        command = [sys.executable, str(HERE / 'make_keystore.py'), str(folder), str(POLICY)]
        subprocess.run(command, check=True, env=environment)
        return folder


@pytest.fixture(scope='session')
def secure_ros() -> SecureRos:
    folder = os.environ.get('POSENET_SECURE_ROS')
    if not folder:
        pytest.skip("the wheels' Fast DDS has no security: make test-security builds one that has")
    return SecureRos(Path(folder).resolve())


@pytest.fixture(scope='session')
def keystore(secure_ros, tmp_path_factory) -> Path:
    return secure_ros.make_keystore(tmp_path_factory.mktemp('own') / 'keystore')


@pytest.fixture(scope='session')
def foreign_keystore(secure_ros, tmp_path_factory) -> Path:
    """The same enclaves and permissions, signed by somebody else."""
    return secure_ros.make_keystore(tmp_path_factory.mktemp('foreign') / 'keystore')


@pytest.fixture(scope='session')
def start_secure(secure_ros, keystore) -> Iterator[Callable[..., Process]]:
    """Starts a process with the keys of an enclave; with enclave='' it has none."""
    processes: list[Process] = []

    def launch(name: str, *arguments: str, enclave: str, keys=keystore, **variables) -> Process:
        environment = {**secure_ros.environment, **variables}
        if enclave:
            arguments = (*arguments, '--ros-args', '--enclave', enclave)
            environment['ROS_SECURITY_ENABLE'] = 'true'
            environment['ROS_SECURITY_STRATEGY'] = 'Enforce'
            environment['ROS_SECURITY_KEYSTORE'] = str(keys)
        processes.append(Process(name, *arguments, environment=environment))
        return processes[-1]

    yield launch
    for process in processes:
        process.stop()


@pytest.fixture
def try_as(start_secure) -> Iterator[Callable[..., Process]]:
    """Starts secure_peer.py with an enclave's keys and the node name that they are for."""
    names = {'/camera': 'image_source', '': 'peer'}
    processes: list[Process] = []

    def launch(enclave: str, *actions: str, **options) -> Process:
        node = ('--ros-args', '-r', f'__node:={names.get(enclave, enclave[1:])}')
        peer = (sys.executable, str(HERE / 'secure_peer.py'))
        processes.append(start_secure(*peer, *actions, *node, enclave=enclave, **options))
        processes[-1].wait_for('trying')
        return processes[-1]

    yield launch
    for process in processes:
        process.stop()
