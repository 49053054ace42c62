"""The decoder `refined`, against its definition in plain numpy, and how sure it says it is."""

from dataclasses import replace

import numpy as np
import pytest
from goldens import golden_paths, load_golden
from refined_in_numpy import multiple_poses, single_pose

from posenet_ros import ConfigError, DecoderConfig, PoseNet
from posenet_ros.core.decode import (
    _variance_of_votes,
    decode_multiple_poses,
    decode_single_pose,
)
from posenet_ros.core.keypoints import POSE_TREE

MAPS = ('heatmapScores', 'offsets', 'displacementFwd', 'displacementBwd')
GOLDENS = [pytest.param(path, id=path.stem) for path in golden_paths('decoder')]


def golden_maps(path):
    golden = load_golden(path)
    return [golden.tensors[name] for name in MAPS], golden.expected


def check_equal(pose, expected):
    positions, scores, deviations, score = expected
    np.testing.assert_allclose(pose.keypoints, positions[:, ::-1], atol=1e-3)
    np.testing.assert_allclose(pose.keypoint_scores, scores, atol=1e-5)
    np.testing.assert_allclose(pose.keypoint_deviations, deviations, rtol=1e-4)
    assert pose.score == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize('path', GOLDENS)
def test_many_people_equal_the_definition(path):
    maps, expected = golden_maps(path)
    for run in expected['multi']:
        names = ('maxDetections', 'scoreThreshold', 'nmsRadius')
        options = [run['config'][name] for name in names]
        stride = expected['outputStride']
        poses = decode_multiple_poses(*maps, stride, *options, decoder='refined')
        wanted = multiple_poses(maps, stride, *options)
        scores = [score for *_, score in run['queueOrder']]
        if len(set(scores)) < len(scores):  # equal ones are taken in the reference's order
            assert poses
            continue
        assert len(poses) == len(wanted)
        for pose, each in zip(poses, wanted, strict=True):
            check_equal(pose, each)


@pytest.mark.parametrize('path', GOLDENS)
def test_one_person_equals_the_definition(path):
    maps, expected = golden_maps(path)
    stride = expected['outputStride']
    pose = decode_single_pose(*maps[:2], stride, decoder='refined')
    check_equal(pose, single_pose(*maps[:2], stride))


def maps_of_one_person(spread):
    """A person whose cells agree on every position but for `spread` pixels, at stride 16."""
    size, stride = 9, 16
    generator = np.random.default_rng(0)
    wanted = generator.uniform(30, 98, (17, 2))  # y, x
    rows, columns = np.mgrid[:size, :size] * stride
    heatmap = np.zeros((size, size, 17), np.float32)
    offsets = np.zeros((size, size, 34), np.float32)
    for part, (y, x) in enumerate(wanted):
        heatmap[..., part] = np.exp(-(np.square(rows - y) + np.square(columns - x)) / 2 / 20**2)
        offsets[..., part] = y - rows + generator.normal(0, spread, (size, size))
        offsets[..., part + 17] = x - columns + generator.normal(0, spread, (size, size))
    return heatmap, offsets, wanted


def test_cells_that_agree_give_the_exact_position():
    heatmap, offsets, wanted = maps_of_one_person(0)
    pose = decode_single_pose(heatmap, offsets, 16, 'refined')
    np.testing.assert_allclose(pose.keypoints, wanted[:, ::-1], atol=1e-4)


def test_rounding_makes_no_variance_negative():
    """Its root would be NaN. All cells say (64, 64), and rounding alone is left."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:9, :9] * 16
    offsets = np.zeros((9, 9, 34), np.float32)
    offsets[..., 0], offsets[..., 17] = 64 - rows, 64 - columns
    for x, y in generator.uniform(0, 128, (200, 2)):
        heatmap = generator.random((9, 9, 17), np.float32)
        assert 0 <= _variance_of_votes(heatmap, offsets, 16, 0, x, y) < 1e-9


@pytest.mark.parametrize('decoder', ['reference', 'refined'])
def test_cells_that_disagree_raise_the_deviations(decoder):
    deviations = [
        decode_single_pose(*maps_of_one_person(spread)[:2], 16, decoder).keypoint_deviations
        for spread in (0, 2, 8)
    ]
    assert (deviations[0] > 0).all()
    assert deviations[0].mean() < deviations[1].mean() < deviations[2].mean()


def test_cells_that_disagree_lower_the_score_of_the_pose_and_not_of_its_keypoints():
    sure, unsure = (
        decode_single_pose(*maps_of_one_person(spread)[:2], 16, 'refined') for spread in (0, 8)
    )
    assert sure.score == pytest.approx(sure.keypoint_scores.mean(), rel=1e-6)
    assert unsure.score < 0.8 * unsure.keypoint_scores.mean()


def test_deviations_are_the_same_for_both_decoders_where_positions_are():
    heatmap, offsets, _ = maps_of_one_person(0)
    one, other = (decode_single_pose(heatmap, offsets, 16, d) for d in ('reference', 'refined'))
    np.testing.assert_allclose(one.keypoints, other.keypoints, atol=1e-3)
    near = (
        np.abs(one.keypoint_scores - other.keypoint_scores) < 0.1
    )  # of the cell, and interpolated
    assert near.sum() > 8
    np.testing.assert_allclose(
        one.keypoint_deviations[near], other.keypoint_deviations[near], rtol=0.06
    )


def test_a_second_root_of_the_same_person_gives_no_second_pose(net, astronaut):
    """At 385 a second maximum of her shoulder leads to the same face."""
    counts = {}
    with PoseNet.load(replace(net.config, input_resolution=385), 'onnxruntime') as larger:
        for decoder in ('reference', 'refined'):
            config = DecoderConfig(max_detections=20, decoder=decoder)
            counts[decoder] = len(larger.estimate([astronaut], config)[0])
    assert counts['reference'] > 1 == counts['refined']


def maps_with_a_second_nose(own_eye, others):
    """Two people, and a second nose and left eye whose displacements lead to the first of them.

    Args:
        own_eye: score of the second left eye.
        others: scores of the first person's keypoints 1 to 16.
    """
    shape, stride = (20, 44), 16
    places = np.array([(2 + 4 * (k % 5), 2 + 4 * (k // 5)) for k in range(17)])  # row, column
    second_nose, second_eye = (12, 18), (17, 18)
    heatmap = np.zeros((*shape, 17), np.float32)
    offsets = np.zeros((*shape, 34), np.float32)
    forward, backward = (np.zeros((*shape, 32), np.float32) for _ in range(2))
    cells = np.stack(np.mgrid[: shape[0], : shape[1]], axis=-1)
    right_half = cells[..., 1:] >= 22
    for edge, (parent, child) in enumerate(POSE_TREE):
        for maps, target in ((forward, child), (backward, parent)):
            goal = np.where(right_half, places[target] + (0, 22), places[target])
            maps[..., edge], maps[..., edge + 16] = np.moveaxis((goal - cells) * stride, -1, 0)
    to_the_eye = (np.array(second_eye) - second_nose) * stride
    forward[(*second_nose, 0)], forward[(*second_nose, 16)] = to_the_eye
    for part, (row, column) in enumerate(places):
        heatmap[row, column, part] = 0.9 if part == 0 else others[part - 1]
        heatmap[row, column + 22, part] = 0.6
    heatmap[(*second_nose, 0)] = 0.7
    heatmap[(*second_eye, 1)] = own_eye
    return heatmap, offsets, forward, backward


@pytest.mark.parametrize(
    ('own_eye', 'others', 'people'),
    [
        (0.2, 16 * [0.55], 2),  # a nose of its own is no person
        (0.35, 16 * [0.55], 3),  # two clear keypoints are
        (0.2, 16 * [0.2], 3),  # nothing that is clear is shared
        (0.2, 15 * [0.2] + [0.55], 3),  # as much is shared as is not
        (0.2, 14 * [0.2] + [0.55, 0.55], 2),
    ],
)
def test_pose_that_has_hardly_a_keypoint_of_its_own_is_left_out(own_eye, others, people):
    assert POSE_TREE[0] == (0, 1)
    maps = maps_with_a_second_nose(own_eye, others)
    poses = decode_multiple_poses(*maps, 16, 20, 0.5, 20, 'refined')
    assert len(poses) == people
    assert len(decode_multiple_poses(*maps, 16, 20, 0.5, 20)) == 3
    assert poses[0].keypoints[0].tolist() == [32.0, 32.0]
    assert poses[-1].keypoints[:, 0].min() >= 22 * 16  # whoever comes later is found, too


@pytest.mark.parametrize('shape', [(1, 1), (1, 4), (4, 1)])
def test_maps_of_a_single_row_or_column_are_decoded(shape):
    generator = np.random.default_rng(0)
    maps = [
        generator.random((*shape, depth), np.float32) for depth in (17, 34, 32, 32)
    ]  # fmt: skip
    poses = decode_multiple_poses(*maps, 16, 3, 0.1, 20, 'refined')
    assert poses
    assert all(np.isfinite(pose.keypoint_deviations).all() for pose in poses)


def test_an_unknown_decoder_is_refused():
    maps = [np.zeros((2, 2, depth), np.float32) for depth in (17, 34, 32, 32)]
    with pytest.raises(ConfigError, match='Invalid decoder better'):
        decode_multiple_poses(*maps, 16, decoder='better')
    with pytest.raises(ConfigError, match='Invalid decoder better'):
        decode_single_pose(*maps[:2], 16, 'better')
