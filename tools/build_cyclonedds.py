"""Builds rmw_cyclonedds_cpp for the wheels, which have Fast DDS alone.

Usage: VENV/bin/python tools/build_cyclonedds.py FOLDER SOURCES, after `source VENV/bin/activate`

SOURCES has a checkout of ros2/rmw_cyclonedds in the version of the distribution (for Jazzy its
branch jazzy). Cyclone DDS itself is Debian's or Ubuntu's: apt install cyclonedds-dev. A minute on
two cores. The wheels' rcl is bound to Fast DDS, so FOLDER/lib/librmw_cyclonedds_cpp.so has to be
preloaded: LD_PRELOAD, with RMW_IMPLEMENTATION=rmw_cyclonedds_cpp.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def build(folder: Path, sources: Path) -> None:
    found = sorted(sources.rglob('rmw_cyclonedds_cpp/package.xml'))
    if not found:
        sys.exit(f'{sources} has no sources of rmw_cyclonedds_cpp')
    # tracetools asks the linker for a library that nothing here uses.
    stand_in = folder / 'stand_ins/liblttng-ust.so'
    stand_in.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(['c++', '-shared', '-x', 'c++', '/dev/null', '-o', str(stand_in)], check=True)
    options = {
        'BUILD_TESTING': 'OFF',
        'CMAKE_PREFIX_PATH': sys.prefix,
        'CMAKE_INSTALL_PREFIX': folder,
        'Python3_EXECUTABLE': sys.executable,
        'CMAKE_CXX_FLAGS': '-O2 -w',
        'CMAKE_SHARED_LINKER_FLAGS': f'-L{stand_in.parent} -Wl,--as-needed '
        '-Wl,--allow-shlib-undefined',
    }
    log = folder / 'build.log'
    with log.open('w') as output:
        for command in (
            ['cmake', '-G', 'Ninja', '-S', found[0].parent, '-B', folder / 'build']
            + [f'-D{name}={value}' for name, value in options.items()],
            ['cmake', '--build', folder / 'build', '--target', 'install'],
        ):
            words = [str(word) for word in command]
            if subprocess.run(words, stdout=output, stderr=subprocess.STDOUT).returncode:
                sys.exit(f'rmw_cyclonedds_cpp could not be built; the end of {log} says why')
    if not (folder / 'lib/librmw_cyclonedds_cpp.so').is_file():
        sys.exit('Cyclone DDS is not on this machine: sudo apt install cyclonedds-dev')


if __name__ == '__main__':
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    build(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
