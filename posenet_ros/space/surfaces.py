"""Which of the surfaces that a depth image shows around each keypoint is the person's.

Samples that lie together are one surface: the limb, or what is in front of it or behind. One, or
none, is chosen for each keypoint so that all bones together are the most likely: dynamic
programming over the tree of bones, which is exact.
"""

from __future__ import annotations

import math

import numpy as np

from posenet_ros.core.jit import jit
from posenet_ros.core.keypoints import MIN_KEYPOINT_SCORE
from posenet_ros.space.body import LENGTHS, LIMBS, PATHS, RADII, TREE

# Samples around a keypoint: its pixel, and three rings of 6, 12 and 18, up to a radius of 1.
AROUND = np.array(
    [(0.0, 0.0)]
    + [
        (ring / 3 * math.cos(angle), ring / 3 * math.sin(angle))
        for ring in (1, 2, 3)
        for angle in (2 * math.pi * (i + ring / 2) / (6 * ring) for i in range(6 * ring))
    ]
)
WEIGHTS = np.exp(-np.square(AROUND).sum(axis=1))
WEIGHTS /= WEIGHTS.sum()
# Their radius in metres at the person's distance: most of half the limb's width.
REACH = np.array(
    5 * [0.03] + 2 * [0.05] + 2 * [0.035] + 2 * [0.025] + 2 * [0.08] + 2 * [0.045] + 2 * [0.035]
)
LEAST_PIXELS = 1.5
# Samples along a limb, each at three places across it, in radii of the samples around the joint.
ALONG = np.array([0.25, 0.375, 0.5, 0.625, 0.75])
ACROSS = np.array([0.0, -0.6, 0.6])

# Two samples are on different surfaces if they are farther apart along z, in metres, beside the
# sensor's noise.
GAP = 0.05
# From the surface to the joint, in metres: the samples around it lie a little deeper than the skin
# in front of the joint.
BEHIND = 0.9 * RADII
MOST_SURFACES = 3  # of a keypoint
LEAST_SHARE = 0.1  # of the samples' weight, to be a surface
MOST_INDEPENDENT = 10.0  # samples; what they have in common is the surface's shape

# Costs: negative logarithms of likelihoods.
UNKNOWN_COST = 3.0  # of a keypoint without a surface
BROKEN_COST = 2.0  # of a keypoint with a surface, behind one without
LENGTH_SPREAD = 0.22  # of a bone, relative: people, labels, bones that are foreshortened
MOST_LENGTH_COST = 4.0
JUMP_COST = 10.0  # of a limb along which the depth jumps, as it does where one end is on the wall
LONGEST = 1.35  # times the usual length; with the noise of both ends no bone is longer
IMPOSSIBLE = 1e6
DISTANCE_SPREAD = 0.35  # of depths around the guess from the usual size, in logarithms
MOST_DISTANCE_COST = 6.0

# A keypoint may be hidden by another part of the body, this far in front: metres. A quarter of
# those whose score is just enough are, and few of those with a score of 0.9 (labelled photos).
HIDDEN_DEPTHS = np.array(5 * [0.15] + 2 * [0.2] + 4 * [0.3] + 2 * [0.2] + 4 * [0.3])
MOST_HIDDEN, CLEAR_SCORE = 0.25, 0.9


@jit
def joints_behind_surfaces(
    rays: np.ndarray,
    scores: np.ndarray,
    spreads: np.ndarray,
    around: np.ndarray,
    along: np.ndarray,
    guess: float,
    guess_deviation: float,
    noise: float,
    independent: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the joints of a person are along their rays.

    Args:
        rays: (17, 2), x and y at a depth of 1 metre.
        scores: (17,).
        spreads: (17,), standard deviations of the rays.
        around: (17, samples), depths around the keypoints; NaN for holes.
        along: (limbs, samples along, samples across), depths along the limbs.
        guess: distance from the usual size of people; 0 for none.
        guess_deviation: its standard deviation.
        noise: standard deviation of 1 / depth.
        independent: how much of it differs between neighbours, 0 to 1.

    Returns:
        (17,) each: the depth, NaN where no surface is the person's; the standard deviation of its
        surface; and how far the joint may be from it because another part of the body hides it.
    """
    parts = len(rays)
    guess_spread = math.hypot(DISTANCE_SPREAD, guess_deviation / max(guess, 1e-9))
    depths = np.full((parts, MOST_SURFACES + 1), np.nan)  # of each joint's surfaces; last: none
    noises = np.zeros((parts, MOST_SURFACES + 1))
    costs = np.full((parts, MOST_SURFACES + 1), IMPOSSIBLE)
    for part in range(parts):
        costs[part, MOST_SURFACES] = UNKNOWN_COST
        if scores[part] >= MIN_KEYPOINT_SCORE and not math.isnan(rays[part, 0]):
            _find_surfaces(
                part, around[part], guess, guess_spread, noise, independent,
                depths[part], noises[part], costs[part],
            )  # fmt: skip
    chosen = _choose_surfaces(rays, spreads, along, depths, noises, costs)
    doubts = _doubts(rays, scores, depths, chosen)
    _leave_out_strays(rays, depths, chosen)
    joints, deviations = np.empty(parts), np.empty(parts)
    for part in range(parts):
        joints[part] = depths[part, chosen[part]]
        deviations[part] = noises[part, chosen[part]]
    return joints, deviations, doubts


@jit
def _find_surfaces(
    part: int,
    samples: np.ndarray,
    guess: float,
    guess_spread: float,
    noise: float,
    independent: float,
    depths: np.ndarray,
    noises: np.ndarray,
    costs: np.ndarray,
) -> None:
    """The surfaces around a keypoint, at most MOST_SURFACES: depth of the joint, noise, cost."""
    order = np.argsort(samples)  # NaN last
    count = len(samples) - np.isnan(samples).sum()
    found = 0
    first = 0
    while first < count and found < MOST_SURFACES:
        end = first + 1
        weight = WEIGHTS[order[first]]
        while end < count:
            z = samples[order[end]]
            if z - samples[order[end - 1]] > GAP + 3 * noise * z * z:
                break
            weight += WEIGHTS[order[end]]
            end += 1
        if weight >= LEAST_SHARE:
            surface = order[first:end]
            median = _quantile(samples, surface, 0.5 * weight)
            middle_half = _quantile(samples, surface, 0.75 * weight) - _quantile(
                samples, surface, 0.25 * weight
            )
            scatter = middle_half / 1.35  # the standard deviation of a bell curve
            depths[found] = median + BEHIND[part]
            independent_samples = min(1 + (end - first - 1) * independent, MOST_INDEPENDENT)
            sensor = noise * median * median
            noises[found] = math.sqrt(
                scatter * scatter / MOST_INDEPENDENT + sensor * sensor / independent_samples
            )
            costs[found] = -math.log(weight)
            if guess > 0:
                off = math.log(depths[found] / guess) / guess_spread
                costs[found] += min(off * off / 2, MOST_DISTANCE_COST)
            found += 1
        first = end


@jit
def _quantile(samples: np.ndarray, order: np.ndarray, weight: float) -> float:
    """The first sample, in an order, up to which they have this weight together."""
    total = 0.0
    for i in order:
        total += WEIGHTS[i]
        if total >= weight:
            return samples[i]
    return samples[order[-1]]


@jit
def _choose_surfaces(
    rays: np.ndarray,
    spreads: np.ndarray,
    along_bones: np.ndarray,
    depths: np.ndarray,
    noises: np.ndarray,
    costs: np.ndarray,
) -> np.ndarray:
    """The surface of each joint, so that the sum of all costs is least."""
    options = costs.shape[1]
    totals = costs.copy()
    best = np.zeros((len(TREE), options), np.int64)  # of a bone's second joint, for the first's
    for bone in range(len(TREE) - 1, -1, -1):
        a, b = TREE[bone]
        for i in range(options):
            least = np.inf
            for j in range(options):
                cost = totals[b, j]
                if i == options - 1 and j < options - 1:
                    cost += BROKEN_COST
                if i < options - 1 and j < options - 1 and cost < IMPOSSIBLE:
                    cost += _cost_of_length(
                        rays[a],
                        depths[a, i],
                        noises[a, i],
                        spreads[a],
                        rays[b],
                        depths[b, j],
                        noises[b, j],
                        spreads[b],
                        LENGTHS[bone],
                    )
                    if bone < LIMBS:
                        cost += _cost_of_jumps(
                            along_bones[bone],
                            depths[a, i] - BEHIND[a],
                            noises[a, i],
                            depths[b, j] - BEHIND[b],
                            noises[b, j],
                        )
                if cost < least:
                    least, best[bone, i] = cost, j
            totals[a, i] += least
    chosen = np.zeros(len(rays), np.int64)
    chosen[TREE[0, 0]] = np.argmin(totals[TREE[0, 0]])
    for bone in range(len(TREE)):
        chosen[TREE[bone, 1]] = best[bone, chosen[TREE[bone, 0]]]
    return chosen


@jit
def _cost_of_length(
    ray: np.ndarray,
    z: float,
    noise: float,
    spread: float,
    other_ray: np.ndarray,
    other_z: float,
    other_noise: float,
    other_spread: float,
    usual: float,
) -> float:
    if math.isnan(z + other_z):
        return IMPOSSIBLE
    length = _distance(ray, z, other_ray, other_z)
    unsure = math.sqrt(
        noise**2 + other_noise**2 + (spread * z) ** 2 + (other_spread * other_z) ** 2 + 0.03**2
    )
    if length > LONGEST * usual + 2 * unsure:
        return IMPOSSIBLE
    width = math.hypot(LENGTH_SPREAD * usual, unsure)
    return min(((length - usual) / width) ** 2 / 2, MOST_LENGTH_COST)


@jit
def _cost_of_jumps(
    samples: np.ndarray, z: float, noise: float, other_z: float, other_noise: float
) -> float:
    """How little the depth along a bone is that of a bone between two surfaces."""
    away = abs(z - other_z)
    allowed = max(GAP + 2 * math.hypot(noise, other_noise), 0.25 * away)
    if away < 2 * allowed:
        return 0.0
    seen = jumps = 0
    for i in range(len(samples)):
        even = z + ALONG[i] * (other_z - z)
        least = np.inf
        for j in range(samples.shape[1]):
            if not math.isnan(samples[i, j]):
                least = min(least, abs(samples[i, j] - even))
        if least < np.inf:
            seen += 1
            jumps += least > allowed
    return JUMP_COST * jumps / seen if seen else 0.0


@jit
def _doubts(
    rays: np.ndarray, scores: np.ndarray, depths: np.ndarray, chosen: np.ndarray
) -> np.ndarray:
    """How far the bones of each joint are from their usual lengths, beyond what people differ.

    So it is where a joint is hidden, and what is seen there is another part of the body.
    """
    doubts = np.zeros(len(rays))
    for bone in range(LIMBS):
        a, b = TREE[bone]
        z, other_z = depths[a, chosen[a]], depths[b, chosen[b]]
        if math.isnan(z + other_z):
            continue
        length = _distance(rays[a], z, rays[b], other_z)
        doubt = max(abs(length - LENGTHS[bone]) - LENGTH_SPREAD * LENGTHS[bone], 0.0)
        doubts[a], doubts[b] = max(doubts[a], doubt), max(doubts[b], doubt)
    for part in range(len(rays)):
        unclear = (CLEAR_SCORE - scores[part]) / (CLEAR_SCORE - MIN_KEYPOINT_SCORE)
        hidden = HIDDEN_DEPTHS[part] * math.sqrt(MOST_HIDDEN * max(unclear, 0.0))
        doubts[part] = math.hypot(doubts[part], hidden)
    return doubts


@jit
def _leave_out_strays(rays: np.ndarray, depths: np.ndarray, chosen: np.ndarray) -> None:
    """Leaves out joints that are farther from others than the bones between them are long.

    Neighbours are not; but where one has no surface, what lies beyond it may be anywhere.
    """
    none = depths.shape[1] - 1
    while True:
        worst, most = -1, 0
        for i in range(len(rays)):
            if chosen[i] == none:
                continue
            strays = 0
            for j in range(len(rays)):
                if chosen[j] != none and j != i:
                    apart = _distance(rays[i], depths[i, chosen[i]], rays[j], depths[j, chosen[j]])
                    strays += apart > LONGEST * PATHS[i, j] + 0.1
            if strays > most:
                worst, most = i, strays
        if worst < 0:
            return
        chosen[worst] = none


@jit
def _distance(ray: np.ndarray, z: float, other_ray: np.ndarray, other_z: float) -> float:
    dx, dy = ray[0] * z - other_ray[0] * other_z, ray[1] * z - other_ray[1] * other_z
    return float(math.sqrt(dx * dx + dy * dy + (z - other_z) ** 2))
