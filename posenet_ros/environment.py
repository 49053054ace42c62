"""Chooses the Python that runs the executables: one that has their dependencies.

`ros2` starts them with the system's Python, which has ROS but not numba or ONNX Runtime. Those are
in a virtual environment. The executables switch to its Python themselves, however they are started:
by `ros2 run`, `ros2 launch`, a robot's own launch file or systemd. Uses only the standard library.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from posenet_ros.errors import DependencyError, PoseNetError

PYTHON_VARIABLE = 'POSENET_PYTHON'
# Modules that setup_robot does not install, and the packages that they are in.
OPTIONAL = {'pyarrow': 'pyarrow', 'ray': 'ray', 'upath': 'universal_pathlib'}
_STARTED_AS = '_POSENET_STARTED_AS'  # set while one Python hands over to another


def expanded(path: Path | str) -> Path:
    """A path with ~ replaced.

    Raises:
        PoseNetError: the user is unknown, or has no home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise PoseNetError(f'{path}: the home directory is unknown') from error


def default_environment() -> Path:
    """The virtual environment that setup_robot makes by default."""
    data = os.environ.get('XDG_DATA_HOME') or '~/.local/share'
    with contextlib.suppress(PoseNetError):  # no home directory: keep the ~
        data = str(expanded(data))
    return Path(data) / 'posenet_ros' / 'venv'


def chosen_python() -> Path | None:
    """The Python that should run the executables; None for the one that is running.

    $POSENET_PYTHON; otherwise an active virtual environment with numba; otherwise the one that
    setup_robot made; otherwise the Python that is running.

    Raises:
        DependencyError: POSENET_PYTHON is not an executable file.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        python = expanded(named)
        if not os.access(python, os.X_OK) or python.is_dir():
            raise DependencyError(
                f'{PYTHON_VARIABLE}={named} is no program; it should be the Python of the '
                'environment that has numba and onnxruntime: VENV/bin/python'
            )
        return python
    python = default_environment() / 'bin' / 'python'
    made = os.access(python, os.X_OK)
    if os.environ.get('VIRTUAL_ENV') == sys.prefix and (find_spec('numba') or not made):
        return None
    return python if made else None


def run(name: str, main: Callable[[], int]) -> int:
    """Runs an executable in the Python that has its dependencies.

    Args:
        name: of the executable, for messages.
        main: imports what it needs and does the work.

    Returns:
        The exit status.
    """
    try:
        python = None if os.environ.pop(_STARTED_AS, None) else chosen_python()
        if python is not None and not _is_running(python):
            os.environ[_STARTED_AS] = sys.executable
            try:
                os.execv(python, [str(python), *sys.argv])
            except OSError as error:
                raise DependencyError(f'cannot run {python}: {error.strerror}') from error
    except PoseNetError as error:
        print(f'{name}: {error}', file=sys.stderr)
        return 1
    return run_here(name, main)


def run_here(name: str, main: Callable[[], int]) -> int:
    """Runs an executable in this Python; see run."""
    try:
        try:
            Path.cwd()  # several packages fail without one when they are imported
        except OSError as error:
            raise PoseNetError('the working directory was removed; go to another one') from error
        with dependencies_for('the program'):
            return main()
    except PoseNetError as error:
        print(f'{name}: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # during the imports
        return 130


@contextlib.contextmanager
def dependencies_for(purpose: str) -> Iterator[None]:
    """Turns a failed import within the block into one sentence that says what to install.

    Raises:
        DependencyError: something cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        module = (error.name or '').split('.')[0]
        if module == 'posenet_ros':
            raise
        if module in ('rclpy', 'rpyutils') or module.endswith('_msgs'):
            version = f'{sys.version_info.major}.{sys.version_info.minor}'
            advice = (
                f'This is Python {version} at {sys.executable}: it has to be the one that this '
                'ROS 2 was built for, with its setup.bash sourced'
            )
        elif module in OPTIONAL:
            advice = f'It is optional: {sys.executable} -m pip install {OPTIONAL[module]}'
        else:
            advice = (
                f'{sys.executable} does not have it; `ros2 run posenet_ros setup_robot` makes an '
                f'environment that does, and {PYTHON_VARIABLE} names another Python'
            )
        raise DependencyError(
            f'{purpose} needs {module or "a module"} ({error}). {advice}'
        ) from error


def _is_running(python: Path) -> bool:
    # Compares the folder too: a virtual environment's Python is a symlink to the system's.
    running = Path(sys.executable)
    same_folder = python.parent.resolve() == running.parent.resolve()
    return same_folder and python.resolve() == running.resolve()
