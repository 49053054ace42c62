"""Accuracy against labels: equal to COCO's own tool, and to scores worked out by hand."""

import math

import numpy as np
import pytest

from posenet_ros import Pose
from posenet_ros.core.keypoints import COCO_SIGMAS
from posenet_ros.evaluation.accuracy import accuracy, similarity
from posenet_ros.evaluation.labels import Person, Photo, read_labels, to_coco, to_results

pycocotools = pytest.importorskip('pycocotools', reason='pip install posenet_ros[evaluate]')


def person(left=0.0, top=0.0, labelled=17, crowd=False, area=2500.0):
    steps = np.linspace(0, 1, 17)
    keypoints = np.stack([left + 50 * steps, top + 100 * steps[::-1]], axis=1)
    return Person(keypoints, np.arange(17) < labelled, area, (left, top, 50.0, 100.0), crowd)


def photo(*people, number=1):
    return Photo(number, f'{number}.jpg', 480, 640, people)


def pose_of(someone, score=0.9, shift=0.0, deviation=1.0):
    """A pose whose keypoints are all shifted to the right."""
    return Pose(
        score,
        someone.keypoints + np.array([shift, 0.0]),
        np.full(17, 0.9),
        np.full(17, deviation),
    )


def test_a_score_worked_out_by_hand():
    """Two people. One is found exactly; the other is missed; one pose is nobody.

    Precision is 1 until the first half of the people is found, at every OKS, and the pose that is
    nobody comes last: COCO's mean over 101 recalls is 51 / 101.
    """
    found, missed = person(0), person(300)
    poses = {1: [pose_of(found, 0.9), pose_of(person(500, 300), 0.3)]}
    result = accuracy([photo(found, missed)], poses)
    assert result.ap == result.ap50 == result.ap75 == pytest.approx(51 / 101)
    assert (result.ar, result.oks, result.found) == (0.5, 0.5, 0.5)
    assert (result.photos, result.people, result.false_people) == (1, 2, 1.0)


def test_an_oks_worked_out_by_hand():
    """Shifted so that a nose has exp(-1), with one keypoint labelled of an area of 2500."""
    someone = person(labelled=1)
    shift = math.sqrt(2 * 2500) * 2 * COCO_SIGMAS[0]
    assert similarity([pose_of(someone, shift=shift)], someone)[0] == pytest.approx(math.exp(-1))
    result = accuracy([photo(someone)], {1: [pose_of(someone, shift=shift)]})
    assert result.oks == pytest.approx(math.exp(-1)) and result.found == 0 and result.ap == 0


def test_similarities_are_cocos_own():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    generator = np.random.default_rng(0)
    people = [
        person(x, y, int(labelled), area=float(area))
        for x, y, labelled, area in zip(
            generator.uniform(0, 400, 6), generator.uniform(0, 300, 6),
            generator.integers(1, 18, 6), generator.uniform(500, 9000, 6), strict=True,
        )
    ]  # fmt: skip
    poses = [
        Pose(float(score), p.keypoints + generator.normal(0, 6, (17, 2)), np.ones(17))
        for score, p in zip(np.linspace(0.9, 0.1, 6), people, strict=True)
    ]
    labels = COCO()
    labels.dataset = to_coco([photo(*people)])
    labels.createIndex()
    judge = COCOeval(labels, labels.loadRes(to_results({1: poses})), 'keypoints')
    judge.evaluate()
    expected = judge.computeOks(1, 1)  # rows: poses by score; columns: people
    ours = np.stack([similarity(poses, p) for p in people], axis=1)
    np.testing.assert_allclose(ours, expected, rtol=1e-9)


def test_crowds_and_unlabelled_people_are_neither_missed_nor_false():
    labelled, unlabelled, crowd = person(0), person(200, labelled=0), person(400, crowd=True)
    poses = {1: [pose_of(p) for p in (labelled, unlabelled, crowd)]}
    result = accuracy([photo(labelled, unlabelled, crowd)], poses)
    assert (result.people, result.found, result.false_people) == (1, 1.0, 0.0)
    assert result.ap == pytest.approx(1)
    assert accuracy([photo(labelled, unlabelled, crowd)], {}).found == 0


def test_photos_of_nobody_cost_precision():
    seen, empty = photo(person(), number=1), photo(number=2)
    right, wrong = pose_of(person(), 0.5), pose_of(person(), 0.9)
    assert accuracy([seen, empty], {1: [right]}).ap == pytest.approx(1)
    result = accuracy([seen, empty], {1: [right], 2: [wrong]})
    assert result.ap == pytest.approx(0.5)
    assert result.false_people == 0.5
    assert accuracy([seen, empty], {1: [right], 2: [wrong]}, min_score=0.95).false_people == 0
    assert math.isnan(accuracy([empty], {2: [wrong]}).ap)


def test_one_pose_counts_for_one_person():
    twins = photo(person(), person())
    assert accuracy([twins], {1: [pose_of(person())]}).found == 0.5
    assert accuracy([twins], {1: [pose_of(person())] * 2}).found == 1


def test_people_are_grouped_by_their_height_in_the_network():
    people = [photo(person(), number=1), photo(person(), number=2)]
    result = accuracy(people, {1: [pose_of(person())]}, lambda p: 0.25 if p.id == 1 else 1.0)
    groups = {group.name: (group.people, group.oks) for group in result.by_height}
    assert groups['0 to 30'] == (1, 1.0) and groups['60 to 120'] == (1, 0.0)
    assert sum(g.people for g in result.by_height) == result.people


def test_errors_are_counted_in_deviations():
    someone = person()
    for shift, deviation, one, two in ((3, 4, 1, 1), (3, 2, 0.5, 1), (3, 1, 0.5, 0.5)):
        poses = {1: [pose_of(someone, shift=shift, deviation=deviation)]}
        result = accuracy([photo(someone)], poses)  # y is always exact
        assert (result.deviations.within_one, result.deviations.within_two) == (one, two)
        assert result.deviations.coordinates == 34
        assert {(g.coordinates, g.within_one) for g in result.deviations_by_part} == {(2, one)}
        tall = next(g for g in result.deviations_by_height if g.name == '60 to 120')
        assert (tall.coordinates, tall.within_two) == (34, two)
    unknown = Pose(0.9, someone.keypoints, np.ones(17))
    assert math.isnan(accuracy([photo(someone)], {1: [unknown]}).deviations.within_one)


def test_cocos_own_figures_on_its_own_file(shared):
    """Perfect predictions, and every second person: what pycocotools says of them itself."""
    import contextlib
    import io
    import json

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    path = shared / 'labelled/annotations.json'
    photos = read_labels(path)
    generator = np.random.default_rng(0)
    poses = {
        p.id: [
            pose_of(someone, float(generator.random()), shift=generator.normal(0, 8))
            for someone in p.people[::2]
            if someone.counts
        ]
        for p in photos
    }
    content = json.loads(path.read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        labels = COCO()
        labels.dataset = content
        labels.createIndex()
        judge = COCOeval(labels, labels.loadRes(to_results(poses)), 'keypoints')
        judge.params.imgIds = [p.id for p in photos]
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    ours = accuracy(photos, poses)
    assert 0.1 < ours.ap < 0.9
    assert (ours.ap, ours.ap50, ours.ap75, ours.ar) == tuple(judge.stats[i] for i in (0, 1, 2, 5))
