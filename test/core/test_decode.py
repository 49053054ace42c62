"""The decoders against the reference's own results: every number, and the order of ties."""

import dataclasses
import inspect
import math

import numpy as np
import pytest
from goldens import golden_paths, load_golden, pose_difference

from posenet_ros import BackendError, ConfigError, DecoderConfig, Pose
from posenet_ros.core import decode
from posenet_ros.core.decode import (
    PoseArrays,
    area_of_person,
    check_poses,
    decode_multiple_poses,
    decode_single_pose,
)

GOLDENS = [pytest.param(path, id=path.stem) for path in golden_paths('decoder')]
MAPS = ('heatmapScores', 'offsets', 'displacementFwd', 'displacementBwd')


@pytest.mark.parity
@pytest.mark.parametrize('path', GOLDENS)
def test_multiple_poses_equal_the_references_to_the_last_bit(path):
    golden = load_golden(path)
    maps = [golden.tensors[name] for name in MAPS]
    assert golden.expected['multi']
    for run in golden.expected['multi']:
        options = run['config']
        poses = decode_multiple_poses(
            *maps,
            golden.expected['outputStride'],
            options['maxDetections'],
            options['scoreThreshold'],
            options['nmsRadius'],
        )
        assert len(poses) == len(run['poses'])
        for pose, expected in zip(poses, run['poses'], strict=True):
            assert pose_difference(pose, expected) == 0


@pytest.mark.parity
@pytest.mark.parametrize('path', GOLDENS)
def test_queue_gives_parts_in_the_references_order(path):
    golden = load_golden(path)
    heatmap = golden.tensors['heatmapScores']
    for run in golden.expected['multi']:
        scores, cells, count = decode._build_queue(heatmap, run['config']['scoreThreshold'])
        assert count == run['queueSize']
        popped = []
        for _ in run['queueOrder']:
            cell = decode._pop(scores, cells, count)
            count -= 1
            y, x, part = (int(i) for i in np.unravel_index(cell, heatmap.shape))
            popped.append([y, x, part, float(heatmap[y, x, part])])
        assert popped == run['queueOrder']


@pytest.mark.parity
@pytest.mark.parametrize('path', GOLDENS)
def test_single_pose_equals_the_references_to_the_last_bit(path):
    golden = load_golden(path)
    maps = [golden.tensors[name] for name in MAPS[:2]]
    pose = decode_single_pose(*maps, golden.expected['outputStride'])
    assert pose_difference(pose, golden.expected['single']) == 0


def naive_peaks(heatmap, threshold):
    """Cells that reach the threshold and have no higher neighbour, one after the other."""
    peaks = []
    for y, x, part in np.ndindex(heatmap.shape):
        window = heatmap[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2, part]
        if heatmap[y, x, part] >= threshold and not (window > heatmap[y, x, part]).any():
            peaks.append([y, x, part])
    return peaks


@pytest.mark.parametrize(
    ('height', 'width'), [(1, 1), (1, 7), (7, 1), (2, 2), (17, 17), (9, 40), (65, 65)]
)
@pytest.mark.parametrize('threshold', [0.0, 0.5, np.float64(0.7), 0.1 + 0.2, 1.0])
def test_queue_holds_every_local_maximum_and_nothing_else(height, width, threshold):
    heatmap = np.round(noise(height, width)[0], 1)  # equal neighbours, and scores at the threshold
    heatmap[::5, ::3, ::2] = np.nan
    scores, cells, count = decode._build_queue(heatmap, threshold)
    found = [[int(i) for i in np.unravel_index(cell, heatmap.shape)] for cell in cells[:count]]
    assert sorted(found) == naive_peaks(heatmap, threshold)
    assert [heatmap[tuple(cell)] for cell in found] == scores[:count].tolist()


def noise(height=9, width=7, seed=0):
    generator = np.random.default_rng(seed)
    return [
        generator.random((height, width, 17), np.float32),
        *(
            generator.normal(0, 30, (height, width, depth)).astype(np.float32)
            for depth in (34, 32, 32)
        ),
    ]


def test_empty_heatmaps_give_no_pose():
    maps = noise()
    maps[0][:] = 0
    assert decode_multiple_poses(*maps, 16) == []


def test_threshold_and_most_detections_bound_the_result():
    maps = noise()
    assert len(decode_multiple_poses(*maps, 16, 3, 0.1, 1)) == 3
    assert len(decode_multiple_poses(*maps, 16, 2.5, 0.1, 1)) == 3  # the reference counts up to it
    everybody = decode_multiple_poses(*maps, 16, math.inf, 0.0, 1e-6)
    assert len(everybody) > 50
    assert decode_multiple_poses(*maps, 16, 5, 1.0, 20) == []


def test_memory_order_and_dtype_of_the_maps_do_not_matter():
    maps = noise()
    expected = [pose.to_dict() for pose in decode_multiple_poses(*maps, 16)]
    assert expected
    for other in (
        [np.asfortranarray(m) for m in maps],
        [m.astype(np.float64) for m in maps],
        [np.ascontiguousarray(m[::-1])[::-1] for m in maps],
    ):
        assert [pose.to_dict() for pose in decode_multiple_poses(*other, 16)] == expected


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf, 3e38])
def test_numbers_that_are_not_positions_never_leave_the_map(bad):
    maps = noise()
    for depth_map in maps[1:]:
        depth_map[::2] = bad
    poses = decode_multiple_poses(*maps, 16, 20, 0.3, 1)
    assert poses  # and no crash: every cell that was read lies inside
    assert all(np.isin(pose.keypoint_scores, maps[0]).all() for pose in poses)


@pytest.mark.parametrize('shape', [(5, 5, 16), (5, 17), (0, 5, 17)])
def test_heatmaps_of_the_wrong_shape_are_refused_by_name(shape):
    maps = noise(5, 5)
    with pytest.raises(ValueError, match='heatmap_scores'):
        decode_multiple_poses(np.zeros(shape, np.float32), *maps[1:], 16)


def test_maps_without_a_cell_are_refused():
    for shape in ((0, 5), (5, 0)):
        maps = [np.zeros((*shape, depth), np.float32) for depth in (17, 34, 32, 32)]
        with pytest.raises(ValueError, match='heatmap_scores has the shape'):
            decode_multiple_poses(*maps, 16)
        with pytest.raises(ValueError, match='heatmap_scores has the shape'):
            decode_single_pose(*maps[:2], 16)


def test_maps_that_do_not_belong_together_are_refused_by_name():
    maps = noise(5, 5)
    named = r'displacements_bwd is \(5, 6\) where heatmap_scores is \(5, 5\)'
    with pytest.raises(ValueError, match=named):
        decode_multiple_poses(*maps[:3], noise(5, 6)[3], 16)
    named = r'offsets is \(5, 5\) where heatmap_scores is \(5, 6\)'
    with pytest.raises(ValueError, match=named):
        decode_single_pose(noise(5, 6)[0], maps[1], 16)
    with pytest.raises(ValueError, match='offsets'):
        decode_single_pose(maps[0], maps[2], 16)


def test_invalid_options_are_refused():
    maps = [np.zeros((2, 2, depth), np.float32) for depth in (17, 34, 32, 32)]
    with pytest.raises(ConfigError, match='Invalid maxDetections -1'):
        decode_multiple_poses(*maps, 16, max_detections=-1)
    assert decode_multiple_poses(*maps, 16) == []
    assert decode_multiple_poses(*maps, 16, max_detections=1) == []
    with pytest.raises(ConfigError, match='Invalid maxDetections True'):  # which equals 1
        decode_multiple_poses(*maps, 16, max_detections=True)


def test_defaults_are_those_of_the_config():
    defaults = inspect.signature(decode_multiple_poses).parameters
    for name in ('max_detections', 'score_threshold', 'nms_radius', 'decoder'):
        assert defaults[name].default == getattr(DecoderConfig(), name)
    assert inspect.signature(decode_single_pose).parameters['decoder'].default == 'reference'


def test_pose_as_a_dictionary_is_the_references_and_may_have_deviations():
    pose = Pose(0.5, np.arange(34.0).reshape(17, 2), np.arange(17.0), np.arange(17.0) + 100)
    plain, deviations = pose.to_dict(), pose.to_dict(deviations=True)
    assert plain['score'] == 0.5 and len(plain['keypoints']) == 17
    assert plain['keypoints'][1] == {
        'score': 1.0,
        'part': 'leftEye',
        'position': {'x': 2.0, 'y': 3.0},
    }
    assert deviations['keypoints'][1] == plain['keypoints'][1] | {'deviation': 101.0}
    assert np.isnan(Pose(0.5, pose.keypoints, pose.keypoint_scores).keypoint_deviations).all()
    assert 'track_id' not in plain and pose.to_dict(tracked=True) == {'track_id': -1, **plain}


def test_pose_stays_as_it_is_and_is_only_itself():
    pose = Pose(0.5, np.zeros((17, 2)), np.zeros(17))
    with pytest.raises(dataclasses.FrozenInstanceError):
        pose.score = 1.0
    assert pose in {pose} and Pose(0.5, pose.keypoints, pose.keypoint_scores) != pose
    assert pose.track_id == -1


def test_some_poses_of_arrays_are_chosen_by_row_or_mask():
    for rows in ([1], np.array([False, True])):
        chosen = two_poses().chosen(rows)
        assert chosen.scores.tolist() == [0.5] and chosen.keypoints.shape == (1, 17, 2)


@pytest.mark.parametrize('place', [(0, 0), (0, 6), (8, 0), (8, 6), (4, 3)])
def test_highest_cell_is_found_wherever_it_is(place):
    heatmap, offsets = np.zeros((9, 7, 17), np.float32), np.zeros((9, 7, 34), np.float32)
    heatmap[place] = 0.5
    pose = decode_single_pose(heatmap, offsets, 16)
    assert (pose.keypoints == (16 * place[1], 16 * place[0])).all()
    assert (pose.keypoint_scores == 0.5).all()


def test_position_between_two_cells_belongs_to_the_second():
    cells = [decode._cell(position, 9) for position in (0.49, 0.5, 7.49, 7.5, 8.0, 99.0, math.nan)]
    assert cells == [0, 1, 7, 8, 8, 8, 0]


def two_poses():
    return PoseArrays(
        np.zeros((2, 17, 2)), np.zeros((2, 17)), np.zeros((2, 17)), np.array([0.0, 0.5])
    )


@pytest.mark.parametrize('place', [(0, 0), (1, 16)])
@pytest.mark.parametrize(
    ('field', 'axis', 'least', 'most'),
    [
        ('keypoints', (0,), -490, 490),
        ('keypoints', (1,), -490, 490),
        ('keypoint_scores', (), 0, 1.1),
        ('keypoint_deviations', (), 0, 490),
        ('scores', None, 0, 1.1),
    ],
)
def test_poses_that_no_person_can_have_are_refused(field, axis, least, most, place):
    """Of an input of 33 x 49 pixels: up to ten times as far; int8 rounds scores to more than 1."""
    index = place[:1] if axis is None else place + axis
    poses = two_poses()
    array = getattr(poses, field)
    for array[index] in (least, most):
        check_poses(poses, 33, 49)
    for array[index] in (np.nextafter(least, -np.inf), np.nextafter(most, np.inf), np.nan):
        with pytest.raises(BackendError, match='for an input of 49 x 33 pixels'):
            check_poses(poses, 33, 49)


@pytest.mark.parametrize(
    ('points', 'area'),
    [
        ([(10, 20), (110, 220)], 0.6 * 100 * 200),
        ([(110, 20), (10, 220)], 0.6 * 100 * 200),
        ([(5, 20), (5, 220)], 0.6 * 50 * 200),  # nobody is a line
        ([(10, 7), (90, 7)], 0.6 * 80 * 20),
        ([(5, 5), (5, 5)], 1),
    ],
)
def test_area_of_a_person_comes_from_the_box_around_the_keypoints(points, area):
    keypoints = np.array([points[0], *15 * [points[1]], points[1]], np.float64)
    assert area_of_person(keypoints) == pytest.approx(area)
    assert area_of_person(keypoints[::-1].copy()) == pytest.approx(area)
