"""A robot for the session: README.md's commands were run on the stand-in for a distribution."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from robot import Launched, Robot, readme_block


@pytest.fixture(scope='session')
def distribution() -> Path:
    folder = os.environ.get('POSENET_DISTRIBUTION')
    if not folder:
        pytest.skip('no stand-in for a distribution: `make test` makes one')
    return Path(folder).resolve()


@pytest.fixture(scope='session')
def installed(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Robot:
    """README.md's block up to the launch was run."""
    robot = Robot(distribution, tmp_path_factory.mktemp('robot'))
    (robot.workspace / 'src').mkdir(parents=True)
    *setup, launch = readme_block('## On a robot').splitlines()
    assert launch.startswith('ros2 launch posenet_ros posenet.launch.py')
    block = '\n'.join(setup)
    assert 'git clone <this repository> posenet_ros' in block
    block = block.replace('git clone <this repository> posenet_ros', 'true')
    robot.copy_sources()
    if not robot.has_ros2:  # the command has no wheel; `ros2 run` starts what lies here
        block = block.replace('ros2 run posenet_ros ', 'install/posenet_ros/lib/posenet_ros/')
    result = robot.run(block, built=False, timeout=280)
    assert result.returncode == 0, result.stdout
    assert 'Compiling for this machine' in result.stdout and 'that failed' not in result.stdout
    return robot


@pytest.fixture
def robot(installed: Robot) -> Iterator[Robot]:
    yield installed
    installed.stop()


@pytest.fixture
def launch(robot: Robot, default_model_config) -> Callable[..., Launched]:
    """`ros2 launch posenet_ros FILE ARGUMENT...`, with the weights of ../shared where it is."""
    if not robot.has_ros2:
        pytest.skip('the ros2 command has no wheel: make test-launch ROS2_SOURCES=...')

    def run(file: str, *arguments: str, **variables: str) -> Launched:
        if default_model_config.model_url:
            arguments = (*arguments, f'model_url:={default_model_config.model_url}')
        quoted = ' '.join(f"'{argument}'" for argument in arguments)
        place = file if '/' in file else f'posenet_ros {file}'
        return robot.launch(f'ros2 launch {place} {quoted}', **variables)

    return run
