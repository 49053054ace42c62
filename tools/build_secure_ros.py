"""Builds what the wheels lack for SROS2: Fast DDS with security, and the package sros2.

Usage: VENV/bin/python tools/build_secure_ros.py FOLDER SOURCES, after `source VENV/bin/activate`

SOURCES has checkouts of eProsima/Fast-DDS, of rmw_fastrtps and of ros2/sros2, in the versions of
the wheels that VENV has; packages are found by their package.xml. The wheels' Fast DDS has no
security, so it and the two packages of rmw_fastrtps are built anew: ten minutes on two cores, and
again only what has changed. Everything else stays the wheels'. FOLDER/lib has the libraries, which
belong in front of LD_LIBRARY_PATH, and in its site-packages sros2 with cryptography and lxml.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from xml.etree import ElementTree

PREFIX = Path(sys.prefix)
# In the order in which they need each other.
LIBRARIES = ('fastdds', 'rmw_fastrtps_shared_cpp', 'rmw_fastrtps_cpp')
PYTHON_PACKAGES = ('cryptography', 'lxml')  # that sros2 needs

PROGRAMS = ('cmake', 'ninja', 'c++')
HEADERS = ('asio.hpp', 'tinyxml2.h', 'openssl/ssl.h')
ADVICE = 'sudo apt install cmake ninja-build g++ libasio-dev libtinyxml2-dev libssl-dev'

# In a library that has security.
MARK = b'dds.sec.access.plugin'
FAST_DDS_OPTIONS = (
    '-DNO_TLS=ON',
    '-DSQLITE3_SUPPORT=OFF',
    '-DFASTDDS_STATISTICS=OFF',
    '-DCOMPILE_TOOLS=OFF',
)


def missing_tools() -> list[str]:
    """The programs and headers that are not on this machine."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if 'c++' in missing:
        return [*missing, *HEADERS]
    for header in HEADERS:
        command = ['c++', '-E', '-x', 'c++', '-o', os.devnull, '-']
        source = f'#include <{header}>\n'
        if subprocess.run(command, input=source, text=True, stderr=subprocess.DEVNULL).returncode:
            missing.append(header)
    return missing


def find_packages(sources: Path) -> dict[str, Path]:
    """The folder of each package that is built, by name."""
    found: dict[str, Path] = {}
    for file in sorted(sources.rglob('package.xml')):
        name = ElementTree.parse(file).findtext('name', '')
        if name in (*LIBRARIES, 'sros2'):
            found.setdefault(name, file.parent)
    missing = [name for name in (*LIBRARIES, 'sros2') if name not in found]
    if missing:
        sys.exit(f'{sources} has no sources of {", ".join(missing)}: no package.xml names them')
    return found


def version_of_wheel(name: str) -> str:
    if name == 'fastdds':  # its wheel has no package.xml, and a version of the packaging's own
        libraries = (PREFIX / 'lib').glob('libfastdds.so.*')
        return max((path.name for path in libraries), key=len, default='').partition('.so.')[2]
    return ElementTree.parse(PREFIX / f'share/{name}/package.xml').findtext('version', '')


def check_versions(packages: dict[str, Path]) -> None:
    """The wheels' other libraries are used with these, so the binary interface must be the same."""
    for name in LIBRARIES:
        wheel = version_of_wheel(name)
        source = ElementTree.parse(packages[name] / 'package.xml').findtext('version', '')
        if wheel.split('.')[:2] != source.split('.')[:2]:
            sys.exit(f'the sources of {name} are {source}, and the wheels have {wheel or "none"}')


def build_library(name: str, source: Path, folder: Path) -> None:
    # tracetools asks the linker for a library that nothing here uses.
    stand_in = folder / 'build/stand_ins/liblttng-ust.so'
    stand_in.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(['c++', '-shared', '-x', 'c++', '/dev/null', '-o', str(stand_in)], check=True)
    build = folder / 'build' / name
    link = f'-L{stand_in.parent} -Wl,--as-needed -Wl,--allow-shlib-undefined'
    options = [
        '-DSECURITY=ON',
        '-DBUILD_TESTING=OFF',
        f'-DCMAKE_PREFIX_PATH={folder};{PREFIX}',  # ours first
        f'-Dfoonathan_memory_DIR={PREFIX}/lib/foonathan_memory/cmake',
        f'-DCMAKE_INSTALL_PREFIX={folder}',
        f'-DCMAKE_INSTALL_RPATH={PREFIX}/lib',
        f'-DCMAKE_SHARED_LINKER_FLAGS={link}',
        f'-DPython3_EXECUTABLE={sys.executable}',
        '-DCMAKE_BUILD_TYPE=None',
        '-DCMAKE_C_FLAGS=-O1 -w -DNDEBUG',
    ]
    flags = '-DCMAKE_CXX_FLAGS=-O1 -w -DNDEBUG'
    if name == 'fastdds':
        options += [flags, *FAST_DDS_OPTIONS]
    else:
        # The wheels' config.hpp is found first, and says that there is no security.
        options.append(f'{flags} -include {folder}/include/fastdds/config.hpp')
        options.append(f'-Dfastdds_DIR={folder}/share/fastdds/cmake')
    log = folder / 'build' / f'{name}.log'
    with log.open('w') as output:
        for command in (
            ['cmake', '-G', 'Ninja', '-S', str(source), '-B', str(build), *options],
            ['cmake', '--build', str(build), '--target', 'install'],
        ):
            if subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode:
                sys.exit(f'{name} could not be built; the end of {log} says why')
    if name != 'rmw_fastrtps_cpp' and MARK not in (folder / f'lib/lib{name}.so').read_bytes():
        sys.exit(f'{name} was built without security')


def install_sros2(source: Path, folder: Path) -> None:
    copy = folder / 'build/sros2'  # setup.py writes beside itself
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', 'install', '-q']
    pip += ['--prefix', str(folder), '--ignore-installed']
    subprocess.run([*pip, '--no-deps', '--no-build-isolation', str(copy)], check=True)
    subprocess.run([*pip, *PYTHON_PACKAGES], check=True)


def build(folder: Path, sources: Path) -> None:
    missing = missing_tools()
    if missing:
        sys.exit(f'not on this machine: {", ".join(missing)}. On Debian and Ubuntu: {ADVICE}')
    packages = find_packages(sources)
    check_versions(packages)
    for name in LIBRARIES:
        print(f'Building {name} with security.')
        build_library(name, packages[name], folder)
    install_sros2(packages['sros2'], folder)
    python = sysconfig.get_python_version()
    print(f'{folder}/lib has the libraries, {folder}/lib/python{python}/site-packages sros2.')


if __name__ == '__main__':
    build(*(Path(argument).resolve() for argument in sys.argv[1:3]))
