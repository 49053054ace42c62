"""Stands in for `rosdep install --from-paths src --ignore-src -y` in the tests.

Everything is installed already. This checks whether rosdep knows the dependencies in package.xml on
Ubuntu 22.04 and 24.04, by the dated list test/data/rosdep.json.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

KNOWN = Path(__file__).resolve().parent.parent / 'test/data/rosdep.json'


def keys_of(package_xml: Path) -> Iterator[str]:
    """The rosdep keys of all dependencies of a package."""
    for element in ElementTree.parse(package_xml).getroot():
        if element.tag.endswith('depend') and element.text:
            yield element.text.strip()


def unknown_keys(package_xml: Path) -> list[str]:
    """Keys that rosdep or apt does not have on one of the two releases of Ubuntu."""
    known = json.loads(KNOWN.read_text())
    available = {*known['ros_packages'], *known['apt_packages']}
    return sorted(set(keys_of(package_xml)) - available)


def main() -> int:
    if sys.argv[1:] != ['install', '--from-paths', 'src', '--ignore-src', '-y']:
        sys.exit(f'rosdep {" ".join(sys.argv[1:])} is not the command of README.md')
    unknown = [key for path in Path('src').glob('*/package.xml') for key in unknown_keys(path)]
    for key in unknown:
        print(f'ERROR: no rule for {key} on jammy and noble', file=sys.stderr)
    return 1 if unknown else 0


if __name__ == '__main__':
    sys.exit(main())
