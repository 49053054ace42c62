"""The benchmarks' own arithmetic, and that the page has what they measured."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))  # last: what is installed comes first

pytest.importorskip('benchmarks.figures', reason='the benchmarks are not part of a package')

from benchmarks.figures import Figure, interleaved, times_faster  # noqa: E402
from benchmarks.inputs import crowd_maps  # noqa: E402
from benchmarks.page import with_tables  # noqa: E402
from benchmarks.stages import largest_difference  # noqa: E402
from posenet_ros.core.decode import decode_multiple_poses  # noqa: E402


def test_page_has_what_was_measured():
    page = (ROOT / 'doc/performance.md').read_text()
    report = json.loads((ROOT / 'doc/performance.json').read_text())
    assert with_tables(page, report) == page
    assert not report['quick']


@pytest.mark.parametrize(
    ('value', 'target', 'at_least', 'reached'),
    [(3, 4, False, True), (5, 4, False, False), (5, 4, True, True), (3, 4, True, False)],
)
def test_target_is_the_most_or_the_least(value, target, at_least, reached):
    figure = Figure('', value, '', target, at_least)
    assert figure.reached is reached
    assert ('MISSED' in figure.row()) is not reached


def test_rounds_are_interleaved_and_the_first_do_not_count():
    calls = []

    def run(name, milliseconds):
        calls.append(name)
        return [milliseconds, 100.0, 0.0]

    samples = interleaved({'slow': lambda: run('slow', 8.0), 'fast': lambda: run('fast', 2.0)}, 3)
    assert samples == {'slow': [8.0] * 3, 'fast': [2.0] * 3}
    assert calls == ['slow', 'fast'] * 5
    assert times_faster(samples['slow'], samples['fast']) == 4


@pytest.mark.parametrize('people', [1, 2, 10, 30])
def test_made_up_crowd_has_so_many_people(people):
    poses = decode_multiple_poses(*crowd_maps(people), 8, 100)
    assert len(poses) == people
    assert min(pose.score for pose in poses) > 0.8


def test_difference_sees_every_number():
    poses = decode_multiple_poses(*crowd_maps(2), 8, 100)
    theirs = [pose.to_dict() for pose in poses]
    assert largest_difference(poses, theirs) == 0
    theirs[1]['keypoints'][16]['position']['y'] += 0.25
    assert largest_difference(poses, theirs) == pytest.approx(0.25)
    assert largest_difference(poses[:1], theirs) == np.inf
