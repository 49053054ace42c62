"""The decoders against the reference's own results: every number, and the order of ties."""

import math

import numpy as np
import pytest
from goldens import golden_paths, load_golden, pose_difference

from posenet_ros import ConfigError
from posenet_ros.core import decode
from posenet_ros.core.decode import decode_multiple_poses, decode_single_pose

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


def test_maps_that_do_not_belong_together_are_refused_by_name():
    maps = noise(5, 5)
    with pytest.raises(ValueError, match='displacements_bwd'):
        decode_multiple_poses(*maps[:3], noise(5, 6)[3], 16)
    with pytest.raises(ValueError, match='offsets'):
        decode_single_pose(maps[0], maps[2], 16)


def test_invalid_options_are_refused():
    maps = [np.zeros((2, 2, depth), np.float32) for depth in (17, 34, 32, 32)]
    with pytest.raises(ConfigError, match='Invalid maxDetections -1'):
        decode_multiple_poses(*maps, 16, max_detections=-1)
    assert decode_multiple_poses(*maps, 16) == []
