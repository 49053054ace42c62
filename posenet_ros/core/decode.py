"""Heatmaps, offsets and displacements -> poses, for one person or for many.

The results are bit-identical to the reference's: single-person positions are float32, the
multi-person decoder computes in float64, and equal scores are taken in the same order.

Source: tfjs-models/posenet 2.2.2, single_pose/ and multi_pose/ (decode_multiple_poses.ts,
decode_pose.ts, build_part_with_score_queue.ts, max_heap.ts); Papandreou et al., PersonLab,
ECCV 2018, section 3.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from posenet_ros.config import DecoderConfig
from posenet_ros.core.heads import HEADS, Heads
from posenet_ros.core.jit import jit
from posenet_ros.core.keypoints import KEYPOINT_NAMES, NUM_KEYPOINTS, POSE_TREE

OFFSET_REFINE_STEPS = 2

_PARENTS = np.array([parent for parent, _ in POSE_TREE])
_CHILDREN = np.array([child for _, child in POSE_TREE])


@dataclass(frozen=True, eq=False)
class Pose:
    """One person. keypoints[i] and keypoint_scores[i] belong to KEYPOINT_NAMES[i]."""

    score: float
    keypoints: np.ndarray  # float64 (17, 2): x, y in pixels of the input or of the image
    keypoint_scores: np.ndarray  # float64 (17,), 0 to 1

    def to_dict(self) -> dict[str, Any]:
        """The reference's JSON shape: score, and keypoints with score, part and position."""
        return {
            'score': self.score,
            'keypoints': [
                {'score': score, 'part': part, 'position': {'x': x, 'y': y}}
                for part, (x, y), score in zip(
                    KEYPOINT_NAMES,
                    self.keypoints.tolist(),
                    self.keypoint_scores.tolist(),
                    strict=True,
                )
            ],
        }


def decode_single_pose(heatmap_scores: np.ndarray, offsets: np.ndarray, output_stride: int) -> Pose:
    """Takes each keypoint where its heatmap is highest: for images with exactly one person.

    Args:
        heatmap_scores: float32 (h, w, 17), after the sigmoid.
        offsets: float32 (h, w, 34): dy of the 17 keypoints, then dx, in input pixels.
        output_stride: input pixels per heatmap cell.

    Returns:
        The pose, in input pixels. Its score is the mean of the 17 keypoint scores.

    Raises:
        ValueError: an array has the wrong shape.
    """
    heatmap_scores, offsets = _checked(heatmap_scores, offsets)
    return as_poses(single_pose_arrays(heatmap_scores, offsets, output_stride))[0]


def decode_multiple_poses(
    heatmap_scores: np.ndarray,
    offsets: np.ndarray,
    displacements_fwd: np.ndarray,
    displacements_bwd: np.ndarray,
    output_stride: int,
    max_detections: float = 5,
    score_threshold: float = 0.5,
    nms_radius: float = 20,
) -> list[Pose]:
    """Finds everybody: each pose starts at a local maximum and follows the displacements.

    Args:
        heatmap_scores: float32 (h, w, 17), after the sigmoid.
        offsets: float32 (h, w, 34): dy of the 17 keypoints, then dx, in input pixels.
        displacements_fwd: float32 (h, w, 32): dy of the 16 edges from parent to child, then dx.
        displacements_bwd: float32 (h, w, 32): likewise from child to parent.
        output_stride: input pixels per heatmap cell.
        max_detections: stop at this many people.
        score_threshold: lowest heatmap score that starts a person.
        nms_radius: in input pixels; a keypoint this close to the same keypoint of an earlier
            person starts no person and adds nothing to a pose's score.

    Returns:
        Poses in input pixels, in the order in which they were found.

    Raises:
        ConfigError: max_detections, score_threshold or nms_radius is out of range.
        ValueError: an array has the wrong shape.
    """
    _check_options(max_detections, score_threshold, nms_radius)
    heads = Heads(*_checked(heatmap_scores, offsets, displacements_fwd, displacements_bwd))
    return as_poses(
        multiple_pose_arrays(heads, output_stride, max_detections, score_threshold, nms_radius)
    )


class PoseArrays(NamedTuple):
    """Several poses as arrays, one row a pose: what the decoders compute."""

    keypoints: np.ndarray  # float64 (n, 17, 2): x, y
    keypoint_scores: np.ndarray  # float64 (n, 17)
    scores: np.ndarray  # float64 (n,)


def as_poses(poses: PoseArrays) -> list[Pose]:
    """Pose objects, whose arrays are views of the given ones."""
    return [
        Pose(score, poses.keypoints[i], poses.keypoint_scores[i])
        for i, score in enumerate(poses.scores.tolist())
    ]


def single_pose_arrays(
    heatmap_scores: np.ndarray, offsets: np.ndarray, output_stride: int
) -> PoseArrays:
    """decode_single_pose without its checks: the heads must be float32 and C-contiguous."""
    return PoseArrays(*_single_pose(heatmap_scores, offsets, output_stride))


def multiple_pose_arrays(
    heads: Heads,
    output_stride: int,
    max_detections: float,
    score_threshold: float,
    nms_radius: float,
) -> PoseArrays:
    """decode_multiple_poses without its checks: the heads must be float32 and C-contiguous."""
    return PoseArrays(
        *_multiple_poses(
            *heads,
            output_stride,
            float(max_detections),
            float(score_threshold),
            float(nms_radius),
        )
    )


@functools.lru_cache(typed=True)  # the check takes 3 us of 15, and options rarely change
def _check_options(max_detections: float, score_threshold: float, nms_radius: float) -> None:
    DecoderConfig(False, max_detections, score_threshold, nms_radius)  # raises a ConfigError


def _checked(*heads: np.ndarray) -> list[np.ndarray]:
    """The given heads as C-contiguous float32. Raises a ValueError if a shape is wrong."""
    arrays = [np.ascontiguousarray(head, np.float32) for head in heads]
    height_and_width = arrays[0].shape[:2]
    for array, name, depth in zip(arrays, Heads._fields, HEADS.values(), strict=False):
        if array.ndim != 3 or array.shape[2] != depth or array.size == 0:
            raise ValueError(f'{name} has the shape {array.shape}; it should be (h, w, {depth})')
        if array.shape[:2] != height_and_width:
            raise ValueError(
                f'{name} is {array.shape[:2]} where heatmap_scores is {height_and_width}'
            )
    return arrays


@jit
def _single_pose(heatmap, offsets, stride):
    height, width, parts = heatmap.shape
    best = heatmap[0, 0].copy()
    best_cell = np.zeros(parts, np.int32)
    for y in range(height):
        for x in range(width):
            cell = np.int32(y * width + x)
            for part in range(parts):  # innermost: the channels are contiguous
                higher = heatmap[y, x, part] > best[part]
                best[part] = heatmap[y, x, part] if higher else best[part]
                best_cell[part] = cell if higher else best_cell[part]
    keypoints = np.empty((1, parts, 2), np.float64)
    scores = np.empty((1, parts), np.float64)
    total = 0.0
    for part in range(parts):
        y, x = best_cell[part] // width, best_cell[part] % width
        keypoints[0, part, 0] = np.float32(x * stride) + offsets[y, x, part + parts]
        keypoints[0, part, 1] = np.float32(y * stride) + offsets[y, x, part]
        scores[0, part] = best[part]
        total += scores[0, part]
    return keypoints, scores, np.full(1, total / parts)


@jit
def _multiple_poses(
    heatmap, offsets, displacements_fwd, displacements_bwd, stride, max_poses, threshold, nms_radius
):
    width, parts = heatmap.shape[1], heatmap.shape[2]
    heap_scores, heap_cells, queued = _build_queue(heatmap, threshold)
    capacity = int(min(np.ceil(max_poses), float(queued)))
    keypoints = np.empty((capacity, parts, 2), np.float64)
    scores = np.empty((capacity, parts), np.float64)
    pose_scores = np.empty(capacity, np.float64)
    squared_radius = nms_radius * nms_radius
    found = 0
    while found < max_poses and queued > 0:
        cell = _pop(heap_scores, heap_cells, queued)
        queued -= 1
        root = cell % parts
        y, x = cell // parts // width, cell // parts % width
        root_y = y * stride + float(offsets[y, x, root])
        root_x = x * stride + float(offsets[y, x, root + parts])
        if _near_earlier_pose(keypoints, found, root, root_y, root_x, squared_radius):
            continue
        points, marks = keypoints[found], scores[found]
        points[root, 0], points[root, 1], marks[root] = root_x, root_y, heatmap[y, x, root]
        _decode_pose(
            heatmap, offsets, displacements_fwd, displacements_bwd, stride, root, points, marks
        )
        total = 0.0
        for part in range(parts):
            part_x, part_y = keypoints[found, part, 0], keypoints[found, part, 1]
            if not _near_earlier_pose(keypoints, found, part, part_y, part_x, squared_radius):
                total += scores[found, part]
        pose_scores[found] = total / parts
        found += 1
    return keypoints[:found], scores[:found], pose_scores[:found]


@jit
def _build_queue(heatmap, threshold):
    """Max-heap of the local maxima at or above the threshold.

    A local maximum is at least as high as its eight neighbours, so every cell of a plateau is one.
    Each row is scanned without branches, which LLVM vectorises.

    Returns:
        Scores, cells (indices into the flattened heatmap), and how many there are.
    """
    height, width = heatmap.shape[:2]
    parts = NUM_KEYPOINTS  # a constant, or LLVM does not vectorise the loops over a row
    lowest = np.float32(threshold)
    if lowest < threshold:  # the smallest float32 that reaches the float64 threshold
        lowest = np.nextafter(lowest, np.float32(np.inf))
    rows = heatmap.reshape(height, width * parts)
    # Maximum of three rows at each column, with a border of -inf on either side.
    tallest = np.full((width + 2) * parts, -np.inf, np.float32)
    is_peak = np.empty(width * parts, np.bool_)
    row_peaks = np.empty(width * parts, np.int64)
    capacity = 256
    heap_scores = np.empty(capacity, np.float32)
    heap_cells = np.empty(capacity, np.int64)
    count = 0
    for y in range(height):
        row = rows[y]
        if not _any_reaches(row, lowest):
            continue
        _highest_of_rows(rows[max(0, y - 1)], row, rows[min(height - 1, y + 1)], parts, tallest)
        num_peaks = _find_peaks(row, lowest, parts, tallest, is_peak, row_peaks)
        while count + num_peaks > capacity:
            capacity *= 2
            heap_scores = _grown(heap_scores, np.empty(capacity, np.float32))
            heap_cells = _grown(heap_cells, np.empty(capacity, np.int64))
        for i in range(num_peaks):
            score = row[row_peaks[i]]
            # Sift up. As in the reference the root is 0 and a node's parent is node >> 1.
            node = count
            while node > 0 and heap_scores[node >> 1] < score:
                heap_scores[node], heap_cells[node] = heap_scores[node >> 1], heap_cells[node >> 1]
                node >>= 1
            heap_scores[node], heap_cells[node] = score, y * width * parts + row_peaks[i]
            count += 1
    return heap_scores, heap_cells, count


@jit
def _any_reaches(row, lowest):
    reaching = np.int32(0)
    for i in range(len(row)):
        reaching += np.int32(row[i] >= lowest)
    return reaching > 0


@jit
def _highest_of_rows(above, row, below, border, out):
    """Maximum of three rows, into `out` between its borders. NaN is ignored."""
    for i in range(len(row)):
        highest = np.float32(-np.inf)
        highest = above[i] if above[i] > highest else highest
        highest = row[i] if row[i] > highest else highest
        highest = below[i] if below[i] > highest else highest
        out[i + border] = highest


@jit
def _find_peaks(row, lowest, parts, tallest, is_peak, out):
    """Writes the indices of a row's local maxima at or above `lowest`; returns their number."""
    num_peaks = np.int32(0)
    for i in range(len(row)):
        score = row[i]
        is_peak[i] = (
            (score >= lowest)
            & (score >= tallest[i])
            & (score >= tallest[i + parts])
            & (score >= tallest[i + 2 * parts])
        )
        num_peaks += np.int32(is_peak[i])
    found = 0
    i = 0
    while found < num_peaks:
        if is_peak[i]:
            out[found] = i
            found += 1
        i += 1
    return found


@jit
def _grown(old, new):
    for i in range(len(old)):  # slice assignment would take numba seconds more to compile
        new[i] = old[i]
    return new


@jit
def _pop(heap_scores, heap_cells, count):
    """Removes the highest of `count` entries and returns its cell; `count` - 1 remain."""
    top = heap_cells[0]
    last = count - 1
    score, cell = heap_scores[last], heap_cells[last]
    heap_scores[0] = score  # with the parent at node >> 1, node 0 is its own left child
    node = 0
    while 2 * node < last:  # sift down
        child = 2 * node
        if child + 1 < last and heap_scores[child] < heap_scores[child + 1]:
            child += 1
        if not score < heap_scores[child]:
            break
        heap_scores[node], heap_cells[node] = heap_scores[child], heap_cells[child]
        node = child
    heap_scores[node], heap_cells[node] = score, cell
    return top


@jit
def _near_earlier_pose(keypoints, found, part, y, x, squared_radius):
    for pose in range(found):
        dy = y - keypoints[pose, part, 1]
        dx = x - keypoints[pose, part, 0]
        if dy * dy + dx * dx <= squared_radius:
            return True
    return False


@jit
def _decode_pose(
    heatmap, offsets, displacements_fwd, displacements_bwd, stride, root, keypoints, scores
):
    """Fills one pose from its root: backward along the tree first, then forward."""
    reached = np.zeros(len(scores), np.bool_)
    reached[root] = True
    for edge in range(len(_PARENTS) - 1, -1, -1):
        source, target = _CHILDREN[edge], _PARENTS[edge]
        if reached[source] and not reached[target]:
            _traverse(
                heatmap, offsets, displacements_bwd, stride, edge, source, target, keypoints, scores
            )
            reached[target] = True
    for edge in range(len(_PARENTS)):
        source, target = _PARENTS[edge], _CHILDREN[edge]
        if reached[source] and not reached[target]:
            _traverse(
                heatmap, offsets, displacements_fwd, stride, edge, source, target, keypoints, scores
            )
            reached[target] = True


@jit
def _traverse(heatmap, offsets, displacements, stride, edge, source, target, keypoints, scores):
    """Places `target` from `source`: by the displacement, then refined by the offsets, twice."""
    height, width, parts = heatmap.shape
    edges = displacements.shape[2] // 2
    source_x, source_y = keypoints[source, 0], keypoints[source, 1]
    row, column = _cell(source_y, stride, height), _cell(source_x, stride, width)
    y = source_y + float(displacements[row, column, edge])
    x = source_x + float(displacements[row, column, edge + edges])
    for _ in range(OFFSET_REFINE_STEPS):
        row, column = _cell(y, stride, height), _cell(x, stride, width)
        y = row * stride + float(offsets[row, column, target])
        x = column * stride + float(offsets[row, column, target + parts])
    row, column = _cell(y, stride, height), _cell(x, stride, width)
    keypoints[target, 0], keypoints[target, 1] = x, y
    scores[target] = heatmap[row, column, target]


@jit
def _cell(position, stride, size):
    """The heatmap row or column nearest to a position, inside the map; 0 for NaN."""
    cell = np.floor(position / stride + 0.5)
    if not cell > 0:
        return 0
    if cell >= size - 1:
        return size - 1
    return int(cell)
