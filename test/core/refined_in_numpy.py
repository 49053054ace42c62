"""The decoder `refined` once more, as its definition reads, in plain numpy."""

import numpy as np

from posenet_ros.core.keypoints import COCO_SIGMAS, POSE_TREE

FACTORS = np.repeat(
    (0.25, 0.21, 0.21, 0.33, 0.38, 0.38, 0.41, 0.39, 0.41), (1, 2, 2, 2, 2, 2, 2, 2, 2)
)


def between_cells(values, position, stride):
    """Channels (c,) at a position (y, x) in pixels, bilinear, at most to the border of the map."""
    cells = np.clip(np.asarray(position, float) / stride, 0, np.array(values.shape[:2]) - 1)
    low = np.floor(cells).astype(int)
    high = np.minimum(low + 1, np.array(values.shape[:2]) - 1)
    below, right = cells - low
    upper = (1 - right) * values[low[0], low[1]] + right * values[low[0], high[1]]
    lower = (1 - right) * values[high[0], low[1]] + right * values[high[0], high[1]]
    return (1 - below) * upper + below * lower


def nearest_cell(position, stride, shape):
    cells = np.floor(np.asarray(position) / stride + 0.5).astype(int)
    return tuple(np.clip(cells, 0, np.array(shape[:2]) - 1))


def place(heatmap, offsets, position, part, stride):
    """A position (y, x) after three interpolated offsets, and the score there."""
    limit = stride * (np.array(heatmap.shape[:2]) - 1)
    for _ in range(3):
        offset = between_cells(offsets, position, stride)[[part, part + 17]]
        position = np.clip(position, 0, limit) + offset
    return position, between_cells(heatmap, position, stride)[part]


def variance_of_votes(heatmap, offsets, position, part, stride):
    row, column = nearest_cell(position, stride, heatmap.shape)
    neighbours = [(row, column), (row - 1, column), (row + 1, column)]
    neighbours += [(row, column - 1), (row, column + 1)]
    cells = [tuple(np.clip(cell, 0, np.array(heatmap.shape[:2]) - 1)) for cell in neighbours]
    votes = [stride * np.array(cell) + offsets[cell][[part, part + 17]] for cell in cells]
    weights = [float(heatmap[cell][part]) + 1e-9 for cell in cells]
    mean = np.average(votes, axis=0, weights=weights)
    return float(np.average(np.square(votes - mean).sum(axis=1), weights=weights))


def judged(heatmap, offsets, positions, scores, stride):
    """Deviations (17,) and the expected parts of the OKS (17,)."""
    height, width = np.ptp(positions, axis=0)
    area = max(0.6 * max(height, width / 4) * max(width, height / 4), 1)
    variances = np.array(
        [variance_of_votes(heatmap, offsets, positions[k], k, stride) for k in range(17)]
    )
    tolerances = area * np.square(2 * np.array(COCO_SIGMAS))
    spreads = np.maximum(np.sqrt(variances / 2), 0.25)
    deviations = FACTORS * np.sqrt(spreads * np.sqrt(area) / np.maximum(scores, 0.1))
    return deviations, scores * tolerances / (tolerances + 8 * variances)


def single_pose(heatmap, offsets, stride):
    """Positions (17, 2) as y, x; scores, deviations, and the pose's score."""
    positions, scores = np.zeros((17, 2)), np.zeros(17)
    for part in range(17):
        row, column = np.unravel_index(np.argmax(heatmap[..., part]), heatmap.shape[:2])
        start = stride * np.array([row, column]) + offsets[row, column, [part, part + 17]]
        positions[part], scores[part] = place(heatmap, offsets, start, part, stride)
    deviations, expected = judged(heatmap, offsets, positions, scores, stride)
    return positions, scores, deviations, expected.mean()


def multiple_poses(heads, stride, max_detections, score_threshold, nms_radius):
    """Likewise for everybody. Local maxima of equal scores are not in the reference's order."""
    heatmap, offsets, forward, backward = (np.asarray(head, float) for head in heads)
    height, width, _ = heatmap.shape
    padded = np.pad(heatmap, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3)]
    peaks = np.argwhere((heatmap >= np.max(windows, axis=0)) & (heatmap >= score_threshold))
    found = []
    for row, column, root in sorted(peaks.tolist(), key=lambda peak: -heatmap[tuple(peak)]):
        if len(found) >= max_detections:
            break
        start = stride * np.array([row, column]) + offsets[row, column, [root, root + 17]]
        if any(np.linalg.norm(start - other[0][root]) <= nms_radius for other in found):
            continue
        positions, scores = np.zeros((17, 2)), np.zeros(17)
        positions[root], scores[root] = start, heatmap[row, column, root]
        reached = {root}
        edges = [(child, parent, edge, backward) for edge, (parent, child) in enumerate(POSE_TREE)]
        edges.reverse()
        edges += [(parent, child, edge, forward) for edge, (parent, child) in enumerate(POSE_TREE)]
        for source, target, edge, displacements in edges:
            if source in reached and target not in reached:
                cell = nearest_cell(positions[source], stride, heatmap.shape)
                moved = positions[source] + displacements[cell][[edge, edge + 16]]
                positions[target], scores[target] = place(heatmap, offsets, moved, target, stride)
                reached.add(target)
        deviations, expected = judged(heatmap, offsets, positions, scores, stride)
        alone = [
            all(np.linalg.norm(positions[k] - other[0][k]) > nms_radius for other in found)
            for k in range(17)
        ]
        clear = scores >= 0.3
        own, shared = np.sum(clear & alone), np.sum(clear & ~np.array(alone))
        if not (own < 2 and shared > own):
            found.append((positions, scores, deviations, float((expected * alone).mean())))
    return found
