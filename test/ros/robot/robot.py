"""A robot: a workspace on the stand-in for a distribution, used as README.md says, from a shell."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from goldens import ROOT
from ros_processes import wait_until

# Variables that `make env` sets; a robot has none of them.
OURS = (
    'VIRTUAL_ENV', 'VIRTUAL_ENV_PROMPT', 'PYTHONPATH', 'LD_LIBRARY_PATH', 'AMENT_PREFIX_PATH',
    'CMAKE_PREFIX_PATH', 'COLCON_PREFIX_PATH', 'RMW_IMPLEMENTATION',
    'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE', 'ROS_DISTRO',
    'POSENET_PYTHON',
    'XDG_DATA_HOME', 'BASH_ENV',
)  # fmt: skip

# Folders of the sources that no clone has.
GENERATED = ('.venv', 'build', 'install', 'log', 'dist', '.git', '.pytest', '.mypy', '.ruff')


def readme_block(heading: str) -> str:
    """The first block of commands below a heading of README.md."""
    below = (ROOT / 'README.md').read_text().split(f'\n{heading}\n', 1)[1]
    match = re.search(r'(?:^    .*\n)+', below, re.MULTILINE)
    assert match is not None
    return re.sub(r'(?m)^    ', '', match[0])


def page_block(page: str, heading: str) -> str:
    """The first block below a heading of a page of doc/."""
    text = '\n' + (ROOT / 'doc' / page).read_text()
    below = text.split(f'\n{heading}\n', 1)[1]
    match = re.search(r'(?ms)^```\w+\n(.*?)^```$', below)
    assert match is not None
    return match[1]


class Launched:
    """A command that goes on, with its output in a file."""

    def __init__(self, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open('w') as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=dict(environment),
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str, timeout: float = 60) -> None:
        wait_until(lambda: text in self.output or self._process.poll() is not None, timeout)
        assert text in self.output, f'{text!r} is not in:\n{self.output}'

    def ended(self, timeout: float = 30) -> int:
        return self._process.wait(timeout)

    def stop(self) -> None:
        """As Ctrl-C does: the whole group of processes gets the signal."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
                raise AssertionError(f'did not end on Ctrl-C:\n{self.output}') from None


class Robot:
    """A robot's home folder, and a shell in which the distribution's setup.bash was sourced.

    Args:
        distribution: folder of the stand-in.
        home: an empty folder.
    """

    def __init__(self, distribution: Path, home: Path) -> None:
        self.distribution = distribution
        self.home = home
        self.workspace = home / 'ros2_ws'
        self.setup = distribution / 'opt/ros/setup.bash'
        self.has_ros2 = (distribution / 'opt/ros/bin/ros2').exists()
        self.running: list[Launched] = []
        self.seconds: dict[str, float] = {}
        kept = {key: value for key, value in os.environ.items() if key not in OURS}
        mine = str(ROOT)
        path = [part for part in kept['PATH'].split(':') if not part.startswith(mine)]
        self.environment = {
            **kept,
            'PATH': ':'.join(path),
            'HOME': str(home),
            'PYTHONUNBUFFERED': '1',
            'POSENET_HOME': str(home / 'posenet'),
        }
        own_pip = Path('~/.config/pip/pip.conf').expanduser()
        if own_pip.exists():
            self.environment.setdefault('PIP_CONFIG_FILE', str(own_pip))

    def copy_sources(self) -> None:
        """Copies the sources like `git clone`, but with uncommitted changes and without git."""

        def left_out(folder: str, names: list[str]) -> list[str]:
            top = Path(folder) == ROOT
            return [n for n in names if n == '__pycache__' or (top and n.startswith(GENERATED))]

        shutil.copytree(ROOT, self.workspace / 'src/posenet_ros', ignore=left_out)

    def script(self, commands: str, built: bool = True) -> list[str]:
        lines = ['set -e', f'source {shlex.quote(str(self.setup))}']
        if built:
            lines += [f'cd {shlex.quote(str(self.workspace))}', 'source install/setup.bash']
        return ['bash', '-c', '\n'.join([*lines, commands])]

    def run(
        self, commands: str, built: bool = True, timeout: float = 120, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs commands in the shell. Output and errors come in stdout."""
        started = time.monotonic()
        result = subprocess.run(
            self.script(commands, built), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, stdin=subprocess.DEVNULL, timeout=timeout,
            env={**self.environment, **variables},
        )  # fmt: skip
        self.seconds[commands.strip()] = time.monotonic() - started
        return result

    def launch(self, command: str, built: bool = True, **variables: str) -> Launched:
        """Runs a command until the test has ended."""
        log = self.home / f'output_{len(self.running)}.log'
        self.running.append(
            Launched(
                self.script(f'exec {command}' if built else command, built),
                {**self.environment, **variables},
                log,
            )
        )
        return self.running[-1]

    def stop(self) -> None:
        for launched in self.running:
            launched.stop()
        self.running = []
