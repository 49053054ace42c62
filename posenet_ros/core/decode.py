"""Heatmaps, offsets and displacements -> poses, for one person or for many.

The decoder `reference` is bit-identical to the reference: single-person positions are float32,
many people are decoded in float64, and equal scores are taken in the same order.

The decoder `refined` starts people at the same cells, and differs in three ways (doc/seeing.md).
Positions, of all but the root: offsets are interpolated between four cells, and applied three
times. Scores: a pose's score is the expected value of its OKS, COCO's measure of how well it agrees
with a person's label. And a pose is left out that shares its clear keypoints, but for one, with
earlier poses.

Both say how sure a position is. The cells around a keypoint each vote for its position; the spread
of their votes gives its standard deviation.

Source: tfjs-models/posenet 2.2.2, single_pose/ and multi_pose/ (decode_multiple_poses.ts,
decode_pose.ts, build_part_with_score_queue.ts, max_heap.ts); Papandreou et al., PersonLab,
ECCV 2018, section 3.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from posenet_ros.config import DecoderConfig
from posenet_ros.core.heads import HEADS, Heads
from posenet_ros.core.jit import jit
from posenet_ros.core.keypoints import (
    COCO_SIGMAS,
    KEYPOINT_NAMES,
    MIN_KEYPOINT_SCORE,
    NUM_KEYPOINTS,
    POSE_TREE,
)
from posenet_ros.errors import BackendError

OFFSET_REFINE_STEPS = 2
INTERPOLATED_REFINE_STEPS = 3
# A person who is partly outside the image reaches as far as it is large. What is this many times as
# far is no person: the network is broken, or it is another network.
FARTHEST = 10.0
HIGHEST_SCORE = 1.1  # int8 rounds
LEAST_OWN_KEYPOINTS = 2  # clear ones that a pose must not share, if it shares most

# Keypoints, their scores and deviations, and the poses' scores: the fields of PoseArrays.
_Poses = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

_PARENTS = np.array([parent for parent, _ in POSE_TREE])
_CHILDREN = np.array([child for _, child in POSE_TREE])

# Square of the distance, relative to the person's size, at which OKS is exp(-1/2).
TOLERANCES = np.square(2 * np.array(COCO_SIGMAS))
# The size of a person in OKS is the area that is covered, about this share of the keypoints' box.
_COVERED = 0.6
_NARROWEST = 0.25  # of the box: a side is taken as at least this share of the other
# Standard deviation of a position, along one axis: factor * sqrt(spread of votes * size / score).
# Fitted to 10,000 labelled joints of 321 photos: 68% are within one deviation (doc/seeing.md).
_DEVIATION_FACTORS = np.array(
    [
        0.25,  # nose
        *2 * [0.21],  # eyes
        *2 * [0.21],  # ears
        *2 * [0.33],  # shoulders
        *2 * [0.38],  # elbows
        *2 * [0.38],  # wrists
        *2 * [0.41],  # hips
        *2 * [0.39],  # knees
        *2 * [0.41],  # ankles
    ]
)
_LEAST_SPREAD = 0.25  # pixels of the network input
_LEAST_SCORE = 0.1  # below it, scores say no more about the position


@dataclass(frozen=True, eq=False)
class Pose:
    """One person. keypoints[i] and keypoint_scores[i] belong to KEYPOINT_NAMES[i]."""

    score: float
    keypoints: np.ndarray  # float64 (17, 2): x, y in pixels of the input or of the image
    keypoint_scores: np.ndarray  # float64 (17,), 0 to 1
    # float64 (17,): standard deviations along one axis, in the same pixels; NaN is not known
    keypoint_deviations: np.ndarray = field(default_factory=lambda: np.full(NUM_KEYPOINTS, np.nan))
    track_id: int = -1  # the same person's in every frame; -1 is not tracked

    def rows(self) -> Iterator[tuple[tuple[float, float], float, float]]:
        """Position (x, y), score and deviation of each keypoint, as Python's numbers."""
        return zip(
            self.keypoints.tolist(),
            self.keypoint_scores.tolist(),
            self.keypoint_deviations.tolist(),
            strict=True,
        )

    def to_dict(self, deviations: bool = False, tracked: bool = False) -> dict[str, Any]:
        """The reference's JSON shape: score, and keypoints with score, part and position.

        Args:
            deviations: give each keypoint its `deviation` too, which the reference does not have.
            tracked: give the `track_id` too.
        """
        return {
            **({'track_id': self.track_id} if tracked else {}),
            'score': self.score,
            'keypoints': [
                {'score': score, 'part': part, 'position': {'x': x, 'y': y}}
                | ({'deviation': deviation} if deviations else {})
                for part, ((x, y), score, deviation) in zip(
                    KEYPOINT_NAMES, self.rows(), strict=True
                )
            ],
        }


def decode_single_pose(
    heatmap_scores: np.ndarray,
    offsets: np.ndarray,
    output_stride: int,
    decoder: str = 'reference',
) -> Pose:
    """Takes each keypoint where its heatmap is highest: for images with exactly one person.

    Args:
        heatmap_scores: float32 (h, w, 17), after the sigmoid.
        offsets: float32 (h, w, 34): dy of the 17 keypoints, then dx, in input pixels.
        output_stride: input pixels per heatmap cell.
        decoder: reference or refined.

    Returns:
        The pose, in input pixels. Its score is the mean of the 17 keypoint scores, or with
        `refined` the expected OKS.

    Raises:
        ConfigError: there is no such decoder.
        ValueError: an array has the wrong shape.
    """
    _check_options(decoder=decoder)
    heatmap_scores, offsets = _checked(heatmap_scores, offsets)
    refined = decoder == 'refined'
    return as_poses(single_pose_arrays(heatmap_scores, offsets, output_stride, refined))[0]


def decode_multiple_poses(
    heatmap_scores: np.ndarray,
    offsets: np.ndarray,
    displacements_fwd: np.ndarray,
    displacements_bwd: np.ndarray,
    output_stride: int,
    max_detections: float = 5,
    score_threshold: float = 0.5,
    nms_radius: float = 20,
    decoder: str = 'reference',
) -> list[Pose]:
    """Finds many people: each pose starts at a local maximum and follows the displacements.

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
        decoder: reference or refined.

    Returns:
        Poses in input pixels, in the order in which they were found.

    Raises:
        ConfigError: max_detections, score_threshold, nms_radius or decoder is not allowed.
        ValueError: an array has the wrong shape.
    """
    _check_options(max_detections, score_threshold, nms_radius, decoder)
    heads = Heads(*_checked(heatmap_scores, offsets, displacements_fwd, displacements_bwd))
    return as_poses(
        multiple_pose_arrays(
            heads, output_stride, max_detections, score_threshold, nms_radius, decoder == 'refined'
        )
    )


class PoseArrays(NamedTuple):
    """Several poses as arrays, one row a pose: what the decoders compute."""

    keypoints: np.ndarray  # float64 (n, 17, 2): x, y
    keypoint_scores: np.ndarray  # float64 (n, 17)
    keypoint_deviations: np.ndarray  # float64 (n, 17)
    scores: np.ndarray  # float64 (n,)

    def chosen(self, rows: Any) -> PoseArrays:
        """Some of the poses: their rows, or a mask."""
        return PoseArrays(*(array[rows] for array in self))


def as_poses(poses: PoseArrays) -> list[Pose]:
    """Pose objects, whose arrays are views of the given ones."""
    return [
        Pose(score, poses.keypoints[i], poses.keypoint_scores[i], poses.keypoint_deviations[i])
        for i, score in enumerate(poses.scores.tolist())
    ]


def check_poses(poses: PoseArrays, input_height: int, input_width: int) -> None:
    """Checks that poses can be people's: near the input, with scores from 0 to 1.

    Args:
        poses: in pixels of the network input.
        input_height: in pixels.
        input_width: in pixels.

    Raises:
        BackendError: they cannot; the network is broken, or no PoseNet.
    """
    limit = FARTHEST * max(input_height, input_width)
    if not _are_possible(*poses, limit):
        farthest = np.abs(poses.keypoints).max()
        raise BackendError(
            f'the network gave impossible poses: keypoints up to {farthest:.3g} pixels away, '
            f'scores up to {poses.keypoint_scores.max():.3g}, for an input of {input_width} x '
            f'{input_height} pixels'
        )


def single_pose_arrays(
    heatmap_scores: np.ndarray, offsets: np.ndarray, output_stride: int, refined: bool
) -> PoseArrays:
    """decode_single_pose without its checks: the heads must be float32 and C-contiguous."""
    return PoseArrays(*_single_pose(heatmap_scores, offsets, output_stride, refined))


def multiple_pose_arrays(
    heads: Heads,
    output_stride: int,
    max_detections: float,
    score_threshold: float,
    nms_radius: float,
    refined: bool,
) -> PoseArrays:
    """decode_multiple_poses without its checks: the heads must be float32 and C-contiguous."""
    return PoseArrays(
        *_multiple_poses(
            *heads,
            output_stride,
            float(max_detections),
            float(score_threshold),
            float(nms_radius),
            refined,
        )
    )


@functools.lru_cache(typed=True)  # the check takes 3 us of 15, and options rarely change
def _check_options(
    max_detections: float = 5,
    score_threshold: float = 0.5,
    nms_radius: float = 20,
    decoder: str = 'reference',
) -> None:
    DecoderConfig(False, max_detections, score_threshold, nms_radius, decoder=decoder)  # may raise


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
def _are_possible(
    keypoints: np.ndarray,
    keypoint_scores: np.ndarray,
    deviations: np.ndarray,
    scores: np.ndarray,
    limit: float,
) -> bool:
    possible = True
    for i in range(len(scores)):
        possible &= 0.0 <= scores[i] <= HIGHEST_SCORE  # false for NaN
        for part in range(NUM_KEYPOINTS):
            possible &= -limit <= keypoints[i, part, 0] <= limit
            possible &= -limit <= keypoints[i, part, 1] <= limit
            possible &= 0.0 <= keypoint_scores[i, part] <= HIGHEST_SCORE
            possible &= 0.0 <= deviations[i, part] <= limit
    return possible


@jit
def _single_pose(heatmap: np.ndarray, offsets: np.ndarray, stride: int, refined: bool) -> _Poses:
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
    deviations = np.empty((1, parts), np.float64)
    expected = np.empty(parts, np.float64)
    for part in range(parts):
        row, column = best_cell[part] // width, best_cell[part] % width
        keypoints[0, part, 0] = np.float32(column * stride) + offsets[row, column, part + parts]
        keypoints[0, part, 1] = np.float32(row * stride) + offsets[row, column, part]
        scores[0, part] = best[part]
        if refined:
            x, y = keypoints[0, part, 0], keypoints[0, part, 1]
            _place_between_cells(heatmap, offsets, stride, part, x, y, keypoints[0], scores[0])
    _judge_pose(heatmap, offsets, stride, keypoints[0], scores[0], deviations[0], expected)
    total = 0.0
    for part in range(parts):
        total += expected[part] if refined else scores[0, part]
    return keypoints, scores, deviations, np.full(1, total / parts)


@jit
def _multiple_poses(
    heatmap: np.ndarray,
    offsets: np.ndarray,
    displacements_fwd: np.ndarray,
    displacements_bwd: np.ndarray,
    stride: int,
    max_poses: int,
    threshold: float,
    nms_radius: float,
    refined: bool,
) -> _Poses:
    width, parts = heatmap.shape[1], heatmap.shape[2]
    heap_scores, heap_cells, queued = _build_queue(heatmap, threshold)
    capacity = int(min(np.ceil(max_poses), float(queued)))
    keypoints = np.empty((capacity, parts, 2), np.float64)
    scores = np.empty((capacity, parts), np.float64)
    deviations = np.empty((capacity, parts), np.float64)
    expected = np.empty(parts, np.float64)
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
            heatmap,
            offsets,
            displacements_fwd,
            displacements_bwd,
            stride,
            root,
            refined,
            points,
            marks,
        )
        _judge_pose(heatmap, offsets, stride, points, marks, deviations[found], expected)
        total = 0.0
        clear = shared = 0
        for part in range(parts):
            part_x, part_y = keypoints[found, part, 0], keypoints[found, part, 1]
            is_clear = scores[found, part] >= MIN_KEYPOINT_SCORE
            clear += is_clear
            if _near_earlier_pose(keypoints, found, part, part_y, part_x, squared_radius):
                shared += is_clear
            else:
                total += expected[part] if refined else scores[found, part]
        if refined and shared > clear - shared < LEAST_OWN_KEYPOINTS:
            continue  # earlier people once more
        pose_scores[found] = total / parts
        found += 1
    return keypoints[:found], scores[:found], deviations[:found], pose_scores[:found]


@jit
def _build_queue(heatmap: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, int]:
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
def _any_reaches(row: np.ndarray, lowest: float) -> bool:
    reaching = np.int32(0)
    for i in range(len(row)):
        reaching += np.int32(row[i] >= lowest)
    return reaching > 0


@jit
def _highest_of_rows(
    above: np.ndarray, row: np.ndarray, below: np.ndarray, border: int, out: np.ndarray
) -> None:
    """Maximum of three rows, into `out` between its borders. NaN is ignored."""
    for i in range(len(row)):
        highest = np.float32(-np.inf)
        highest = above[i] if above[i] > highest else highest
        highest = row[i] if row[i] > highest else highest
        highest = below[i] if below[i] > highest else highest
        out[i + border] = highest


@jit
def _find_peaks(
    row: np.ndarray,
    lowest: float,
    parts: int,
    tallest: np.ndarray,
    is_peak: np.ndarray,
    out: np.ndarray,
) -> int:
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
def _grown(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    for i in range(len(old)):  # slice assignment would take numba seconds more to compile
        new[i] = old[i]
    return new


@jit
def _pop(heap_scores: np.ndarray, heap_cells: np.ndarray, count: int) -> int:
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
def _near_earlier_pose(
    keypoints: np.ndarray, found: int, part: int, y: float, x: float, squared_radius: float
) -> bool:
    for pose in range(found):
        dy = y - keypoints[pose, part, 1]
        dx = x - keypoints[pose, part, 0]
        if dy * dy + dx * dx <= squared_radius:
            return True
    return False


@jit
def _decode_pose(
    heatmap: np.ndarray,
    offsets: np.ndarray,
    displacements_fwd: np.ndarray,
    displacements_bwd: np.ndarray,
    stride: int,
    root: int,
    refined: bool,
    keypoints: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Fills one pose from its root: backward along the tree first, then forward."""
    reached = 1 << root  # a bit for each part
    for edge in range(len(_PARENTS) - 1, -1, -1):
        source, target = _CHILDREN[edge], _PARENTS[edge]
        if reached >> source & 1 and not reached >> target & 1:
            x, y = _displaced(displacements_bwd, stride, edge, source, keypoints)
            _place(heatmap, offsets, stride, target, refined, x, y, keypoints, scores)
            reached |= 1 << target
    for edge in range(len(_PARENTS)):
        source, target = _PARENTS[edge], _CHILDREN[edge]
        if reached >> source & 1 and not reached >> target & 1:
            x, y = _displaced(displacements_fwd, stride, edge, source, keypoints)
            _place(heatmap, offsets, stride, target, refined, x, y, keypoints, scores)
            reached |= 1 << target


@jit
def _displaced(
    displacements: np.ndarray, stride: int, edge: int, source: int, keypoints: np.ndarray
) -> tuple[float, float]:
    """Where the displacement of an edge leads from the keypoint `source`, in input pixels."""
    height, width, depth = displacements.shape
    x, y = keypoints[source, 0], keypoints[source, 1]
    cells = 1.0 / stride  # exact for every stride of the reference: these are powers of two
    row, column = _cell(y * cells, height), _cell(x * cells, width)
    return (
        x + _at(displacements, row, column, edge + depth // 2),
        y + _at(displacements, row, column, edge),
    )


@jit
def _place(
    heatmap: np.ndarray,
    offsets: np.ndarray,
    stride: int,
    part: int,
    refined: bool,
    x: float,
    y: float,
    keypoints: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Refines a position with the offsets, and reads its score."""
    height, width, parts = heatmap.shape
    if refined:
        _place_between_cells(heatmap, offsets, stride, part, x, y, keypoints, scores)
        return
    cells = 1.0 / stride
    for _ in range(OFFSET_REFINE_STEPS):
        row, column = _cell(y * cells, height), _cell(x * cells, width)
        y = row * stride + _at(offsets, row, column, part)
        x = column * stride + _at(offsets, row, column, part + parts)
    row, column = _cell(y * cells, height), _cell(x * cells, width)
    keypoints[part, 0], keypoints[part, 1] = x, y
    scores[part] = _at(heatmap, row, column, part)


@jit
def _at(values: np.ndarray, row: int, column: int, channel: int) -> float:
    """One value. Unsigned indices: numba checks signed ones for being negative, 5% of the time."""
    return np.float64(values[np.uint64(row), np.uint64(column), np.uint64(channel)])


@jit
def _cell(cells: float, size: int) -> int:
    """The heatmap row or column nearest to a position in cells, inside the map; 0 for NaN."""
    if not cells >= 0.5:
        return 0
    if cells >= size - 1:
        return size - 1
    return int(cells + 0.5)


# The decoder `refined`: interpolated positions, and how sure they are.


@jit
def _between_cells(cells: float, size: int) -> tuple[int, float]:
    """A position, in cells: the row or column before it inside the map, and the share beyond."""
    if not cells > 0:
        return 0, 0.0
    if cells >= size - 1:
        return size - 1, 0.0
    return int(cells), cells - int(cells)


@jit
def _interpolated(
    values: np.ndarray, row: float, column: float, below: float, right: float, channel: int
) -> float:
    """A channel between four cells."""
    next_row = min(row + 1, values.shape[0] - 1)
    next_column = min(column + 1, values.shape[1] - 1)
    upper, upper_right = _at(values, row, column, channel), _at(values, row, next_column, channel)
    lower = _at(values, next_row, column, channel)
    lower_right = _at(values, next_row, next_column, channel)
    upper += right * (upper_right - upper)
    lower += right * (lower_right - lower)
    return upper + below * (lower - upper)


@jit
def _place_between_cells(
    heatmap: np.ndarray,
    offsets: np.ndarray,
    stride: int,
    part: int,
    x: float,
    y: float,
    keypoints: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Refines a position with interpolated offsets, and reads its score likewise."""
    height, width, parts = heatmap.shape
    cells = 1.0 / stride
    row, below = _between_cells(y * cells, height)
    column, right = _between_cells(x * cells, width)
    for _ in range(INTERPOLATED_REFINE_STEPS):
        y = (row + below) * stride + _interpolated(offsets, row, column, below, right, part)
        x = (column + right) * stride
        x += _interpolated(offsets, row, column, below, right, part + parts)
        row, below = _between_cells(y * cells, height)
        column, right = _between_cells(x * cells, width)
    keypoints[part, 0], keypoints[part, 1] = x, y
    scores[part] = _interpolated(heatmap, row, column, below, right, part)


@jit
def _judge_pose(
    heatmap: np.ndarray,
    offsets: np.ndarray,
    stride: int,
    keypoints: np.ndarray,
    scores: np.ndarray,
    deviations: np.ndarray,
    expected: np.ndarray,
) -> None:
    """How sure a pose is: each keypoint's standard deviation, and its expected part of the OKS.

    With the variance v of the votes for a position and the tolerance t of OKS, the expected part is
    score * t / (t + 8 v): is it there, times, is it well placed.
    """
    parts = len(scores)
    area = area_of_person(keypoints)
    size = np.sqrt(area)
    variances = expected
    for part in range(parts):
        variances[part] = _variance_of_votes(
            heatmap, offsets, stride, part, keypoints[part, 0], keypoints[part, 1]
        )
    for part in range(parts):  # without branches, so that LLVM vectorises it
        spread = max(np.sqrt(0.5 * variances[part]), _LEAST_SPREAD)
        likely = max(scores[part], _LEAST_SCORE)
        deviations[part] = _DEVIATION_FACTORS[part] * np.sqrt(spread * size / likely)
        tolerance = area * TOLERANCES[part]
        expected[part] = scores[part] * tolerance / (tolerance + 8 * variances[part])


@jit
def _variance_of_votes(
    heatmap: np.ndarray, offsets: np.ndarray, stride: int, part: int, x: float, y: float
) -> float:
    """Variance, of both axes together, of where the cells around (x, y) place a keypoint.

    The nearest cell and its four neighbours vote, each with its score as weight. At the border of
    the map, the nearest cell also votes in the place of its missing neighbours.
    """
    height, width, parts = heatmap.shape
    cells = 1.0 / stride
    row, column = _cell(y * cells, height), _cell(x * cells, width)
    total = total_x = total_y = squares = 0.0
    for i, j in (
        (row, column),
        (max(row - 1, 0), column),
        (row, max(column - 1, 0)),
        (row, min(column + 1, width - 1)),
        (min(row + 1, height - 1), column),
    ):
        weight = _at(heatmap, i, j, part) + 1e-9  # never nothing
        vote_x = _at(offsets, i, j, part + parts) + (j * stride - x)
        vote_y = _at(offsets, i, j, part) + (i * stride - y)
        total += weight
        total_x += weight * vote_x
        total_y += weight * vote_y
        squares += weight * (vote_x * vote_x + vote_y * vote_y)
    share = 1.0 / total
    mean_x, mean_y = total_x * share, total_y * share
    return max(squares * share - mean_x * mean_x - mean_y * mean_y, 0.0)


@jit
def area_of_person(keypoints: np.ndarray) -> float:
    """The area that a person covers, in square pixels, from the box around the keypoints."""
    left = right = keypoints[0, 0]
    top = bottom = keypoints[0, 1]
    for part in range(1, len(keypoints)):
        left, right = min(left, keypoints[part, 0]), max(right, keypoints[part, 0])
        top, bottom = min(top, keypoints[part, 1]), max(bottom, keypoints[part, 1])
    width = max(right - left, _NARROWEST * (bottom - top))
    height = max(bottom - top, _NARROWEST * (right - left))
    return max(_COVERED * width * height, 1.0)
