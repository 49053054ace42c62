"""make bench: measures every promised figure, beside its target and the reference.

Usage: python -m benchmarks [--quick] [--keep] [SECTION ...]

Prints the figures, whether their targets are reached or not; writes benchmarks.json and
benchmarks.png. All of it takes about 50 minutes; --quick takes about 10 and is less exact.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import date
from typing import Any

from benchmarks import node, space, stages, video
from benchmarks.figures import ROOT, Section, machine
from benchmarks.plot import draw
from benchmarks.reference import Reference, ReferenceUnavailableError

SECTIONS: dict[str, Callable[..., Section]] = {
    'decoding': stages.decoding,
    'preprocessing': stages.preprocessing,
    'end_to_end': stages.end_to_end,
    'latency': node.latency,
    'overload': node.overload,
    'cameras': node.cameras,
    'start': node.start,
    'memory': node.memory,
    'threads': stages.threads,
    'video': video.video,
    'space': space.space,
}
RACES = ('decoding', 'end_to_end')  # against the reference


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__)
    parser.add_argument('sections', nargs='*', metavar='SECTION', help=', '.join(SECTIONS))
    parser.add_argument('--quick', action='store_true', help='shorter runs')
    parser.add_argument(
        '--keep', action='store_true', help='keep the other sections of benchmarks.json'
    )
    arguments = parser.parse_args()
    unknown = set(arguments.sections) - set(SECTIONS)
    if unknown:
        parser.error(f'unknown {", ".join(sorted(unknown))}; known are {", ".join(SECTIONS)}')
    chosen = [name for name in SECTIONS if name in (arguments.sections or SECTIONS)]
    started = time.monotonic()
    report: dict[str, Any] = {
        'date': date.today().isoformat(),
        'quick': arguments.quick,
        'machine': machine(),
        'sections': {},
    }
    path = ROOT / 'benchmarks.json'
    if arguments.keep and path.exists():
        kept = json.loads(path.read_text())
        report = {**kept, **report, 'sections': kept['sections']}
    print(f'{report["machine"]["cpu"]}, {report["machine"]["cores"]} cores', flush=True)
    missed = []
    for name in chosen:
        try:
            section = run(name, arguments.quick, report)
        except ReferenceUnavailableError as error:
            print(f'\n{name}: not measured: {error}', flush=True)
            report['sections'][name] = {'title': name, 'not_measured': str(error)}
        else:
            report['sections'][name] = section.to_dict()
            print(f'\n{section.title}{f" ({section.remark})" if section.remark else ""}')
            for figure in section.figures:
                print(figure.row(), flush=True)
            missed += [f'{name}: {f.name}' for f in section.figures if f.reached is False]
        report['sections'] = {n: report['sections'][n] for n in SECTIONS if n in report['sections']}
        path.write_text(json.dumps(report, indent=1) + '\n')
    draw(report, ROOT / 'benchmarks.png')
    print(f'\n{len(missed)} missed{": " if missed else ""}{"; ".join(missed)}')
    minutes = (time.monotonic() - started) / 60
    print(f'Written: benchmarks.json, benchmarks.png ({minutes:.0f} minutes)')
    return 0


def run(name: str, quick: bool, report: dict[str, Any]) -> Section:
    if name not in RACES:
        return SECTIONS[name](quick)
    with Reference() as reference:
        report['reference'] = reference.about
        return SECTIONS[name](reference, quick)


if __name__ == '__main__':
    sys.exit(main())
