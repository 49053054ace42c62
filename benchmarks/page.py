"""Publishes a report of make bench: doc/performance.json, .png and the tables of .md.

Usage: python -m benchmarks.page REPORT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.figures import ROOT, Figure, number
from benchmarks.plot import draw

START, END = '<!-- performance -->', '<!-- /performance -->'


def rendered(report: dict[str, Any]) -> str:
    """Markdown of all sections of a report of make bench."""
    machine = report['machine']
    software = ', '.join(
        f'{name} {machine[name]}' for name in ('python', 'numpy', 'numba', 'onnxruntime')
    )
    lines = [
        f'Measured on {machine["cpu"]} ({", ".join(machine["vectors"])}), {machine["cores"]} '
        f'cores, {machine["memory_gib"]} GiB, {software}, on {report["date"]}.',
        '',
        '![Cost by resolution, people and cameras](performance.png)',
    ]
    if about := report.get('reference'):
        lines[0] += (
            f' The reference: posenet {about["posenet"]}, tfjs {about["tfjs"]} on '
            f'{about["backend"]} with SIMD, one thread, Node.js {about["node"]}.'
        )
    for section in report['sections'].values():
        lines += ['', f'**{section["title"]}**', '']
        if remark := section.get('remark'):
            lines[-2] += f' ({remark})'
        if 'not_measured' in section:
            lines.append(f'Not measured: {section["not_measured"]}.')
            continue
        lines += ['| | measured | target | |', '|---|---|---|---|']
        for row in section['figures']:
            figure = Figure(**{k: v for k, v in row.items() if k != 'reached'})
            wanted = figure.wanted() + (', missed' if figure.reached is False else '')
            value = f'{number(figure.value)} {figure.unit}'.strip()
            lines.append(f'| {figure.name} | {value} | {wanted} | {figure.note} |')
    return '\n'.join(lines) + '\n'


def with_tables(page: str, report: dict[str, Any]) -> str:
    """The page with the tables of a report between its marks."""
    before, rest = page.split(START)
    after = rest.split(END)[1]
    return f'{before}{START}\n{rendered(report)}{END}{after}'


def main() -> None:
    path = Path(sys.argv[1])
    report = json.loads(path.read_text())
    (ROOT / 'doc/performance.json').write_text(path.read_text())
    draw(report, ROOT / 'doc/performance.png')
    page = ROOT / 'doc/performance.md'
    page.write_text(with_tables(page.read_text(), report))


if __name__ == '__main__':
    main()
