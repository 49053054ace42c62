"""How cost grows with resolution, people and cameras, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(report: dict[str, Any], path: Path) -> None:
    """Draws what the report's sections hold; what was not measured is left out."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    sections = report['sections']
    series = {name: sections.get(name, {}).get('series') or None for name in sections}
    figure, (resolution, people, cameras) = pyplot.subplots(1, 3, figsize=(13, 4))
    if found := series.get('end_to_end'):
        for name, label in (
            ('reference', 'reference, WebAssembly'),
            ('fp32', 'posenet_ros, fp32'),
            ('int8', 'posenet_ros, int8'),
        ):
            resolution.plot(found['resolution'], found[name], marker='o', label=label)
        resolution.set_xticks(found['resolution'])
        resolution.legend()
    resolution.set(title='Photo to poses, one thread', xlabel='input resolution', ylabel='ms')
    if found := series.get('decoding'):
        people.plot(found['people'], found['us'], marker='o', color='C1')
    people.set(title='Decoding, 65 x 65 map', xlabel='people', ylabel='µs')
    if found := series.get('cameras'):
        cameras.plot(found['cameras'], found['fps'], marker='o', color='C1')
        cameras.set_xticks(found['cameras'])
    cameras.set(title='Node, all cameras together', xlabel='cameras', ylabel='frames a second')
    for axes in (resolution, people, cameras):
        axes.set_ylim(0, 1.05 * axes.dataLim.y1 if axes.lines else None)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    machine = report['machine']
    figure.suptitle(f'{machine["cpu"]}, {machine["cores"]} cores', fontsize=9, y=0.02, va='bottom')
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
