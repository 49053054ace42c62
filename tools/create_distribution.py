"""Creates a stand-in for a robot's distribution: ROS 2 for the system's Python, nothing of ours.

Usage: VENV/bin/python tools/create_distribution.py FOLDER [ROS2_SOURCES]

FOLDER/usr is the system's Python with what rosdep installs (of Ubuntu 22.04 for Python 3.10, else
of 24.04), FOLDER/opt/ros the distribution, from the wheels that VENV has, FOLDER/bin a stand-in
for rosdep. ROS2_SOURCES is a folder with checkouts of what has no wheels: ros2/launch, launch_ros,
ros2cli, rosidl_runtime_py and rcl_interfaces (for composition_interfaces); with it the `ros2`
command is there too. `source FOLDER/opt/ros/setup.bash` is what a robot's user does.

As on a robot: PYTHONPATH leads to the distribution, the system's packages come after those of a
virtual environment with --system-site-packages, and such an environment is made from the system's
Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import distributions
from pathlib import Path

from create_env import repair_cmake_exports

ROOT = Path(__file__).resolve().parent.parent
SITE_PACKAGES = f'lib/python{sysconfig.get_python_version()}/site-packages'

# What rosdep installs for package.xml, in the versions of the Ubuntu that has this Python.
RELEASE = 'jammy' if sys.version_info < (3, 11) else 'noble'
# What the distribution's own tools need.
SYSTEM_PACKAGES = (
    'packaging',
    'lark',
    'catkin_pkg',
    'empy==3.3.4',
    'setuptools<80',
    'wheel',
    'typing_extensions',
    'osrf-pycommon',
    'argcomplete',
    'psutil',
    'importlib-metadata',
    'pytest',
    'pytest-timeout',
)
ROS2_PACKAGES = (
    'rosidl_runtime_py',
    'launch/launch',
    'launch/launch_xml',
    'launch/launch_yaml',
    'launch_ros/launch_ros',
    'launch_ros/ros2launch',
    'ros2cli/ros2cli',
    'ros2cli/ros2lifecycle',
    'ros2cli/ros2node',
    'ros2cli/ros2param',
    'ros2cli/ros2pkg',
    'ros2cli/ros2run',
    'ros2cli/ros2service',
    'ros2cli/ros2topic',
)
COMPOSITION_INTERFACES = 'rcl_interfaces/composition_interfaces'

# The system's packages are found last, in virtual environments too. The packages of the Python that
# the stand-in is made from are hidden.
SITECUSTOMIZE = """import site
import sys
import sysconfig

under = sysconfig.get_path('purelib', vars=dict(base=sys.base_prefix, platbase=sys.base_prefix))
sys.path = [path for path in sys.path if path != under]
site.addsitedir({packages!r})
"""

SETUP = """# As a distribution's setup.bash.
export ROS_DISTRO={distro} ROS_VERSION=2 ROS_PYTHON_VERSION=3
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
export AMENT_PREFIX_PATH={ros} CMAKE_PREFIX_PATH={ros}
export PYTHONPATH={ros}/{site_packages}
export LD_LIBRARY_PATH={libraries}
export PATH={folder}/bin:{ros}/bin:{usr}/bin:$PATH
# CMake would take the newest Python of this machine, which is not the stand-in's.
export Python3_ROOT={usr}
"""


def pip(python: Path, *arguments: str) -> None:
    command = [str(python), '-m', 'pip', '--disable-pip-version-check', 'install', '-q', *arguments]
    subprocess.run(command, check=True)


def create(folder: Path, sources: Path | None) -> None:
    usr, ros = folder / 'usr', folder / 'opt/ros'
    shutil.rmtree(folder, ignore_errors=True)
    base = Path(sys.base_prefix) / 'bin' / f'python{sysconfig.get_python_version()}'
    subprocess.run([str(base), '-m', 'venv', str(usr)], check=True)
    python = usr / 'bin/python3'
    release = f'-r{ROOT}/requirements/{RELEASE}.txt'
    pip(python, 'colcon-common-extensions', *SYSTEM_PACKAGES, release)
    wheels = [
        f'{wheel.name}=={wheel.version}'
        for wheel in distributions()
        if wheel.name.startswith('ros-')
    ]
    pip(python, '--no-deps', '--ignore-installed', '--prefix', str(ros), *wheels)
    if sources is not None:
        copies = folder / 'sources'  # setup.py writes beside itself
        for package in ROS2_PACKAGES:
            shutil.copytree(sources / package, copies / package)
        paths = [str(copies / package) for package in ROS2_PACKAGES]
        pip(python, '--no-deps', '--no-build-isolation', '--prefix', str(ros), *paths)
        copies_of_messages = copies / COMPOSITION_INTERFACES
        shutil.copytree(sources / COMPOSITION_INTERFACES, copies_of_messages)
    packages = ros / SITE_PACKAGES
    system = SITECUSTOMIZE.format(packages=str(usr / SITE_PACKAGES))
    (packages / 'sitecustomize.py').write_text(system)
    repair_cmake_exports(ros, python)
    (ros / 'setup.bash').write_text(
        SETUP.format(
            distro=os.environ.get('ROS_DISTRO', 'kilted'),
            folder=folder,
            ros=ros,
            usr=usr,
            site_packages=SITE_PACKAGES,
            libraries=':'.join(map(str, [ros / 'lib', *sorted(packages.glob('ros_*.libs'))])),
        )
    )
    if sources is not None:
        build = f'cmake -G Ninja -S {copies_of_messages} -B {folder}/build -DBUILD_TESTING=OFF'
        build += f' -DCMAKE_INSTALL_PREFIX={ros} && cmake --build {folder}/build --target install'
        command = f'source {ros}/setup.bash && ({build}) > {folder}/build.log'
        subprocess.run(['bash', '-c', command], check=True)
    rosdep = folder / 'bin/rosdep'
    rosdep.parent.mkdir()
    rosdep.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tools/rosdep_stand_in.py "$@"\n')
    rosdep.chmod(0o755)


if __name__ == '__main__':
    create(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else None)
