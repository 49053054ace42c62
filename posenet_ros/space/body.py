"""Usual proportions of the human body, between the keypoints as people label them.

Lengths are shares of the stature. Sources: Winter, Biomechanics and Motor Control of Human Movement
(4th edition, 2009), figure 4.1, after Drillis and Contini (1966), for trunk and limbs. Shoulders,
hips and head are those of labelled keypoints, which lie inside: measured against the trunk in
COCO's photos. Statures: NCD-RisC (eLife 2016), adults of both sexes, and a spread that takes in
1.50 to 1.95 m.
"""

from __future__ import annotations

import numpy as np

STATURE = 1.70  # metres
STATURE_SPREAD = 0.075  # standard deviation, relative
SEGMENT_SPREAD = 0.06  # of a segment, relative to the person's stature

SHOULDERS = 0.23
HIPS = 0.14
TRUNK = 0.288
THIGH = 0.245
SHANK = 0.246
UPPER_ARM = 0.186
FOREARM = 0.146
NECK = 0.14  # from the nose to the middle of the shoulders
EARS = 0.088

# (keypoint, keypoint, length): the first keypoint of each was named before, so that these are a
# tree. Shoulders and hips of one side are as far apart as the trunk is long.
SEGMENTS = (
    (5, 6, SHOULDERS),
    (5, 11, TRUNK),
    (6, 12, TRUNK),
    (5, 7, UPPER_ARM),
    (7, 9, FOREARM),
    (6, 8, UPPER_ARM),
    (8, 10, FOREARM),
    (11, 13, THIGH),
    (13, 15, SHANK),
    (12, 14, THIGH),
    (14, 16, SHANK),
    (5, 0, 0.2),
    (0, 1, 0.028),
    (0, 2, 0.028),
    (1, 3, 0.06),
    (2, 4, 0.06),
)

TREE = np.array([(a, b) for a, b, _ in SEGMENTS], np.int64)
LENGTHS = np.array([length * STATURE for _, _, length in SEGMENTS])  # metres
# Metres from each keypoint to each other along the bones, at most.
PATHS = np.full((17, 17), np.inf)
for _first, _second, _length in (*SEGMENTS, (6, 0, SEGMENTS[11][2]), (11, 12, HIPS)):
    PATHS[_first, _second] = PATHS[_second, _first] = _length * STATURE
np.fill_diagonal(PATHS, 0.0)
for _part in range(17):  # by way of each
    PATHS = np.minimum(PATHS, PATHS[:, [_part]] + PATHS[[_part]])
LIMBS = 11  # the first of them; the rest are of the head

# How far each keypoint lies behind the skin that a camera sees, in metres: half the thickness of
# the limb. And the standard deviation of that, seen from all sides.
RADII = np.array(
    [0.0, 0.0, 0.0, 0.015, 0.015]
    + 2 * [0.06] + 2 * [0.045] + 2 * [0.03] + 2 * [0.10] + 2 * [0.06] + 2 * [0.045]
)  # fmt: skip
RADII_SPREAD = np.array(
    [0.015, 0.02, 0.02, 0.035, 0.035]
    + 2 * [0.02] + 2 * [0.018] + 2 * [0.015] + 2 * [0.03] + 2 * [0.022] + 2 * [0.03]
)  # fmt: skip
