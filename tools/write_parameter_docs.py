"""Writes config/posenet.yaml and the tables of doc/parameters.md from the table in the code.

Usage: python tools/write_parameter_docs.py. A test checks that they agree.
"""

from __future__ import annotations

import re
import textwrap
from itertools import groupby
from pathlib import Path

import yaml

from posenet_ros.ros.parameters import LIVE_GROUPS, PARAMETERS, ParameterSpec

ROOT = Path(__file__).resolve().parent.parent
YAML_PATH = ROOT / 'config/posenet.yaml'
PAGE_PATH = ROOT / 'doc/parameters.md'
PAGE_SECTION = re.compile(r'(?<=<!-- parameters -->\n).*?(?=<!-- /parameters -->)', re.DOTALL)

GROUP_TITLES = {
    'model': 'Model. Can be changed while the node is unconfigured.',
    'decoder': 'Decoder. Can be changed at any time; takes effect with the next image.',
    'tracking': 'Tracking. Can be changed at any time; ids stay.',
    'selection': 'Which images, and which part of them. Can be changed at any time.',
    'input': 'Input. Can be changed while the node is unconfigured.',
    'space': 'People in space. Can be changed while the node is unconfigured.',
    'bridges': "Other packages' messages. Can be changed while the node is unconfigured.",
    'output': 'Markers and annotated image. Can be changed at any time.',
    'diagnostics': 'Thresholds of the diagnostics. Can be changed at any time.',
}


def yaml_text() -> str:
    """The whole of config/posenet.yaml."""
    lines = [
        '# Every parameter of the node, with its default.',
        '# Use: ros2 launch posenet_ros posenet.launch.py params_file:=/path/to/this.yaml',
        '/**:',
        '  ros__parameters:',
    ]
    for group, specs in groupby(PARAMETERS, key=lambda spec: spec.group):
        lines += ['', f'    # --- {GROUP_TITLES[group]}']
        for spec in specs:
            allowed = (
                f' {spec.type_name}, {spec.allowed}.' if spec.allowed else f' {spec.type_name}.'
            )
            wrapped = textwrap.wrap(spec.help + allowed, 92)
            lines += ['', *(f'    # {line}' for line in wrapped), f'    {spec.name}: {_yaml(spec)}']
    return '\n'.join(lines) + '\n'


def page_tables() -> str:
    """The tables between the page's two parameter marks."""
    lines: list[str] = []
    for group, specs in groupby(PARAMETERS, key=lambda spec: spec.group):
        live = '' if group in LIVE_GROUPS else ' (unconfigured only)'
        lines += ['', f'**{GROUP_TITLES[group].split(". ")[0]}**{live}', '']
        lines += ['| parameter | type | default | allowed | meaning |', '|---|---|---|---|---|']
        for spec in specs:
            cells = (f'`{spec.name}`', spec.type_name, f'`{_yaml(spec)}`', spec.allowed, spec.help)
            lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n\n'


def page_text(page: str) -> str:
    """The page with the current tables."""
    return PAGE_SECTION.sub(lambda match: page_tables(), page)


def _yaml(spec: ParameterSpec) -> str:
    return yaml.safe_dump(spec.default, default_flow_style=True).splitlines()[0]


if __name__ == '__main__':
    YAML_PATH.write_text(yaml_text())
    PAGE_PATH.write_text(page_text(PAGE_PATH.read_text()))
