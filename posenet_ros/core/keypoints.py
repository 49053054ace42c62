"""The 17 keypoints, the pose tree that links them, and the skeleton to draw.

Source: tfjs-models/posenet 2.2.2, keypoints.ts. Left and right are the person's own.
"""

from __future__ import annotations

import re

KEYPOINT_NAMES = (
    'nose',
    'leftEye',
    'rightEye',
    'leftEar',
    'rightEar',
    'leftShoulder',
    'rightShoulder',
    'leftElbow',
    'rightElbow',
    'leftWrist',
    'rightWrist',
    'leftHip',
    'rightHip',
    'leftKnee',
    'rightKnee',
    'leftAnkle',
    'rightAnkle',
)
NUM_KEYPOINTS = len(KEYPOINT_NAMES)
# As COCO writes them, left_shoulder for leftShoulder.
SNAKE_CASE_NAMES = tuple(
    ''.join(f'_{letter.lower()}' if letter.isupper() else letter for letter in name)
    for name in KEYPOINT_NAMES
)

# (parent, child) of the pose tree, in the order of the displacement channels.
POSE_TREE = (
    (0, 1),
    (1, 3),
    (0, 2),
    (2, 4),
    (0, 5),
    (5, 7),
    (7, 9),
    (5, 11),
    (11, 13),
    (13, 15),
    (0, 6),
    (6, 8),
    (8, 10),
    (6, 12),
    (12, 14),
    (14, 16),
)
NUM_EDGES = len(POSE_TREE)

# Bones worth drawing: the reference's connectedPartIndices.
SKELETON = (
    (11, 5),
    (7, 5),
    (7, 9),
    (11, 13),
    (13, 15),
    (12, 6),
    (8, 6),
    (8, 10),
    (12, 14),
    (14, 16),
    (5, 6),
    (11, 12),
)

# COCO's standard deviation of each keypoint as people label it, relative to the size of the person,
# the square root of the area. Source: https://cocodataset.org/#keypoints-eval
COCO_SIGMAS = (
    0.026,  # nose
    *2 * (0.025,),  # eyes
    *2 * (0.035,),  # ears
    *2 * (0.079,),  # shoulders
    *2 * (0.072,),  # elbows
    *2 * (0.062,),  # wrists
    *2 * (0.107,),  # hips
    *2 * (0.087,),  # knees
    *2 * (0.089,),  # ankles
)

# Below these scores keypoints and people are guesses; they are not drawn. For people, 0.1 is where
# the decoder `refined` finds most of those who are there and few who are not. The reference's demo
# takes 0.15 for its own scores, which are higher; these leave out hardly more people at 0.15.
MIN_KEYPOINT_SCORE = 0.3
MIN_POSE_SCORE = 0.1


def keypoint_of(name: object) -> int | None:
    """Which keypoint a name means, however it is written: left_eye, Left eye, leftEye."""
    return _NUMBERS.get(_letters(name)) if isinstance(name, str) else None


def _letters(name: str) -> str:
    return re.sub('[^a-z]', '', name.lower())


_NUMBERS = {_letters(name): number for number, name in enumerate(KEYPOINT_NAMES)}
