"""Which Python runs the executables, and what is said where something is not installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from posenet_ros.environment import (
    chosen_python,
    default_environment,
    dependencies_for,
    expanded,
)
from posenet_ros.errors import DependencyError, PoseNetError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's home with nothing in it, outside any virtual environment."""
    for name in ('POSENET_PYTHON', 'XDG_DATA_HOME', 'VIRTUAL_ENV'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    return tmp_path


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text('#!/bin/sh\n')
    path.chmod(0o755)
    return path


@pytest.mark.xdist_group('together')
def test_groups_of_tests_stay_together(request):
    if not request.config.getoption('loadgroup', False):
        pytest.skip('groups are kept with pytest -n 2 --dist loadgroup, as in make test')
    assert request.node.nodeid.endswith('@together')  # pytest-xdist has seen the group


def test_running_python_is_used_without_an_environment(home):
    assert chosen_python() is None


def test_environment_of_setup_robot_is_used(home, monkeypatch):
    python = program(home / '.local/share/posenet_ros/venv/bin/python')
    assert chosen_python() == python
    monkeypatch.setenv('XDG_DATA_HOME', str(home / 'data'))
    assert chosen_python() is None
    assert default_environment() == home / 'data/posenet_ros/venv'


def test_active_environment_comes_first(home, monkeypatch):
    program(home / '.local/share/posenet_ros/venv/bin/python')
    monkeypatch.setenv('VIRTUAL_ENV', sys.prefix)
    assert chosen_python() is None


def test_active_environment_of_another_project_does_not(home, monkeypatch):
    python = program(home / '.local/share/posenet_ros/venv/bin/python')
    monkeypatch.setenv('VIRTUAL_ENV', sys.prefix)
    monkeypatch.setattr('posenet_ros.environment.find_spec', lambda name: None)
    assert chosen_python() == python


def test_named_python_comes_before_all(home, monkeypatch):
    monkeypatch.setenv('VIRTUAL_ENV', sys.prefix)
    python = program(home / 'own/python')
    monkeypatch.setenv('POSENET_PYTHON', '~/own/python')
    assert chosen_python() == python


def test_file_that_is_no_program_is_refused_by_name(home):
    (home / 'text').write_bytes(bytes(100))
    (home / 'text').chmod(0o755)
    result = run(home, POSENET_PYTHON=str(home / 'text'))
    assert result.returncode == 1
    assert result.stderr == f'program: cannot run {home}/text: Exec format error\n'


def test_named_python_in_an_unknown_home_is_one_sentence(home):
    result = run(home, POSENET_PYTHON='~nobody-of-that-name/python')
    assert result.returncode == 1
    assert result.stderr.startswith('program: ~nobody-of-that-name/python: the home directory')
    assert 'Traceback' not in result.stderr


@pytest.mark.parametrize('named', ['/nowhere/python', '/usr'])
def test_named_python_that_is_none_is_refused_by_name(home, monkeypatch, named):
    monkeypatch.setenv('POSENET_PYTHON', named)
    with pytest.raises(DependencyError, match=f'POSENET_PYTHON={named} is no program'):
        chosen_python()


RUN = """
import sys
sys.path.insert(0, {root!r})
from posenet_ros.environment import run

def main():
    print(sys.executable, *sys.argv[1:])
    {body}
    return 3

sys.exit(run('program', main))
"""


def run(home, body='pass', *arguments, python=sys.executable, **variables):
    script = home / 'program'
    script.write_text(RUN.format(root=str(Path(__file__).parents[2]), body=body))
    environment = {k: v for k, v in os.environ.items() if k not in ('VIRTUAL_ENV', 'PYTHONPATH')}
    return subprocess.run(
        [python, str(script), *arguments],
        capture_output=True, text=True, env={**environment, 'HOME': str(home), **variables},
    )  # fmt: skip


def test_program_changes_over_with_its_arguments_and_status(home):
    other = home / 'venv'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(other)], check=True)
    result = run(home, 'pass', 'a b', '--c', POSENET_PYTHON=f'{other}/bin/python')
    assert result.stdout == f'{other}/bin/python a b --c\n'
    assert result.returncode == 3


def test_program_does_not_change_over_to_itself(home):
    result = run(home, POSENET_PYTHON=sys.executable)
    assert result.stdout == f'{sys.executable}\n'


@pytest.mark.parametrize(
    ('body', 'said'),
    [
        ('import no_such_module', 'the program needs no_such_module'),
        ("raise ImportError('Numba needs NumPy 1.21 or less')", 'Numba needs NumPy 1.21 or less'),
        ("raise ModuleNotFoundError('rclpy', name='rclpy._rclpy')", 'setup.bash sourced'),
    ],
)
def test_missing_package_is_one_sentence(home, body, said):
    result = run(home, body)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith('program: ')
    assert said in line
    assert sys.executable in line


ROBOT = """
import os, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('onnx', 'requests', 'tqdm', 'cv2'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
import numpy as np
from posenet_ros import ModelConfig, PoseNet, PoseNetError
image = np.zeros((48, 64, 3), np.uint8)
for home in (None, sys.argv[2]):
    if home:
        os.environ['POSENET_HOME'] = home
    try:
        with PoseNet.load(ModelConfig(model_url=sys.argv[1] or None)) as net:
            print(net.estimate_multiple_poses(image))
    except PoseNetError as error:
        print(error)
"""


def test_network_that_is_there_needs_neither_onnx_nor_requests(net, default_model_config, tmp_path):
    """A network that has to be made or fetched says which packages it needs."""
    command = [sys.executable, '-c', ROBOT, default_model_config.model_url or '', str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    there, missing = result.stdout.splitlines()
    assert there == '[]', result.stderr
    local = default_model_config.model_url
    what = 'making the network needs onnx' if local else 'fetching the weights needs '
    assert missing.startswith(what)
    assert 'setup_robot' in missing


def test_optional_package_is_told_with_the_command_that_installs_it():
    with pytest.raises(PoseNetError, match=r'-m pip install ray$'), dependencies_for('--ray'):
        raise ModuleNotFoundError("No module named 'ray'", name='ray')


def test_missing_module_of_our_own_is_no_missing_package():
    with pytest.raises(ModuleNotFoundError), dependencies_for('this'):
        import posenet_ros.no_such_module  # noqa: F401


def test_unknown_home_is_refused():
    with pytest.raises(PoseNetError, match='~nobody-of-that-name/x: the home directory is unknown'):
        expanded('~nobody-of-that-name/x')
