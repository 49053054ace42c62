"""How far away a person is, from the usual lengths of bones: for a camera alone."""

from __future__ import annotations

import math

import numpy as np

from posenet_ros.core.jit import jit
from posenet_ros.core.keypoints import MIN_KEYPOINT_SCORE
from posenet_ros.space import body

# Bones whose length, as seen, tells the distance: ends, usual length, how much of it is missing
# where it does not lie across the ray, as a standard deviation, and how far it may be in front of
# the torso or behind, in metres.
_GUESSING: tuple[tuple[tuple[int, ...], tuple[int, ...], float, float, float], ...] = (
    ((5, 6), (11, 12), body.TRUNK, 0.03, 0.03),
    ((11,), (13,), body.THIGH, 0.07, 0.1),
    ((12,), (14,), body.THIGH, 0.07, 0.1),
    ((13,), (15,), body.SHANK, 0.12, 0.15),
    ((14,), (16,), body.SHANK, 0.12, 0.15),
    ((5,), (7,), body.UPPER_ARM, 0.15, 0.15),
    ((6,), (8,), body.UPPER_ARM, 0.15, 0.15),
    ((7,), (9,), body.FOREARM, 0.25, 0.25),
    ((8,), (10,), body.FOREARM, 0.25, 0.25),
    ((5,), (6,), body.SHOULDERS, 0.5, 0.03),
    ((11,), (12,), body.HIPS, 0.5, 0.03),
    ((0,), (5, 6), body.NECK, 0.1, 0.05),
    ((3,), (4,), body.EARS, 0.5, 0.05),
)
_FIRST = np.array([(a[0], a[-1]) for a, *_ in _GUESSING], np.int64)
_SECOND = np.array([(b[0], b[-1]) for _, b, *_ in _GUESSING], np.int64)
_USUAL = np.array([length * body.STATURE for _, _, length, _, _ in _GUESSING])
_MISSING = np.array([missing for *_, missing, _ in _GUESSING])
_OFF = np.array([off for *_, off in _GUESSING])
_LOGARITHMS = np.linspace(math.log(0.25), math.log(40.0), 80)
_DISTANCES = np.exp(_LOGARITHMS)
BENT = 0.1  # metres, from the middle of the bones to the torso
ANY_SHARE = 0.02  # likelihood of a bone that is mistaken


@jit
def guess_distance(
    rays: np.ndarray, scores: np.ndarray, spreads: np.ndarray
) -> tuple[float, float]:
    """Distance of the torso along z from the usual lengths, and its standard deviation.

    (0, 0) where no bone is seen. The likelihood of each distance is that of all bones that are
    seen. Of a bone a share is seen: 1, less what is missing, times the person's own proportion:
    half a bell, blurred, which is a skew normal distribution.
    """
    costs = np.zeros(len(_DISTANCES))
    seen = 0
    for i in range(len(_USUAL)):
        a, b, c, d = _FIRST[i, 0], _FIRST[i, 1], _SECOND[i, 0], _SECOND[i, 1]
        least = min(min(scores[a], scores[b]), min(scores[c], scores[d]))
        x = (rays[a, 0] + rays[b, 0] - rays[c, 0] - rays[d, 0]) / 2
        y = (rays[a, 1] + rays[b, 1] - rays[c, 1] - rays[d, 1]) / 2
        if least < MIN_KEYPOINT_SCORE or math.isnan(x + y):
            continue
        seen += 1
        # Of the mean of two ends, which are one in most bones.
        first = spreads[a] if a == b else math.hypot(spreads[a], spreads[b]) / 2
        second = spreads[c] if c == d else math.hypot(spreads[c], spreads[d]) / 2
        unsure = math.hypot(first, second)
        length = math.sqrt(max(x * x + y * y - unsure * unsure, 0.0))
        missing = _MISSING[i]
        for j in range(len(_DISTANCES)):
            scale = _DISTANCES[j] / _USUAL[i]
            share = length * scale
            excess = share - 1
            blur = math.sqrt(
                body.SEGMENT_SPREAD**2 + (unsure * scale) ** 2 + (_OFF[i] / _DISTANCES[j]) ** 2
            )
            square = blur * blur + missing * missing
            exponent = excess * excess / (2 * square)
            likelihood = 0.0
            if exponent < 20:
                skew = missing / blur * excess / math.sqrt(2 * square)
                # Of the logarithm of the length, hence times the share.
                likelihood = share * math.exp(-exponent) * math.erfc(skew) / math.sqrt(square)
            costs[j] -= math.log(likelihood + ANY_SHARE)
    if seen == 0:
        return 0.0, 0.0
    best = costs.min()
    total = mean = square = 0.0
    for j in range(len(_DISTANCES)):
        weight = math.exp(best - costs[j])
        total += weight
        mean += weight * _LOGARITHMS[j]
        square += weight * _LOGARITHMS[j] ** 2
    mean /= total
    distance = math.exp(mean)
    spread = math.sqrt(
        max(square / total - mean * mean, 0.0) + body.STATURE_SPREAD**2 + (BENT / distance) ** 2
    )
    return distance, distance * spread
