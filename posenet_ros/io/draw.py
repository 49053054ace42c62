"""Draws poses on an image: bones, joints, and each person's number and score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import MIN_KEYPOINT_SCORE, MIN_POSE_SCORE, SKELETON

# RGB, distinguishable for the colour-blind too (Okabe and Ito).
PERSON_COLOURS = (
    (0, 158, 115),
    (230, 159, 0),
    (86, 180, 233),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)


def person_colour(index: int) -> tuple[int, int, int]:
    """The RGB colour of person number `index`."""
    return PERSON_COLOURS[index % len(PERSON_COLOURS)]


def draw_poses(
    image: np.ndarray,
    poses: Sequence[Pose],
    min_keypoint_score: float = MIN_KEYPOINT_SCORE,
    min_pose_score: float = MIN_POSE_SCORE,
    deviations: bool = False,
) -> np.ndarray:
    """Draws on the image itself.

    Args:
        image: uint8 RGB, (H, W, 3), C-contiguous and writable.
        poses: in pixels of the image.
        min_keypoint_score: joints below it, and their bones, are left out.
        min_pose_score: people below it are left out.
        deviations: draw a circle of one standard deviation around each joint.

    Returns:
        The same image.
    """
    import cv2  # 40 MB, only if something is drawn

    unit = max(1, round(max(image.shape[:2]) / 400))  # line width for the image's size
    for index, pose in enumerate(poses):
        if pose.score < min_pose_score:
            continue
        colour = person_colour(index)
        seen = pose.keypoint_scores >= min_keypoint_score
        points = np.clip(np.rint(pose.keypoints), -30000, 30000).astype(int).tolist()
        # Coloured on black: visible on bright and on dark clothes.
        for shade, extra in (((0, 0, 0), 2 * unit), (colour, 0)):
            for a, b in SKELETON:
                if seen[a] and seen[b]:
                    cv2.line(image, points[a], points[b], shade, 2 * unit + extra, cv2.LINE_AA)
            for point, visible in zip(points, seen, strict=True):
                if visible:
                    cv2.circle(image, point, 2 * unit + extra // 2, shade, -1, cv2.LINE_AA)
        if deviations:
            for point, visible, deviation in zip(
                points, seen, pose.keypoint_deviations.tolist(), strict=True
            ):
                if visible and math.isfinite(deviation):
                    radius = min(round(deviation), 30000)
                    cv2.circle(image, point, radius, colour, unit, cv2.LINE_AA)
        for point, visible in zip(points, seen, strict=True):
            if visible:
                cv2.circle(image, point, unit, (255, 255, 255), -1, cv2.LINE_AA)
        if seen.any():
            _draw_label(image, f'{index + 1}: {pose.score:.2f}', points, seen, colour, unit)
    return image


def _draw_label(
    image: np.ndarray,
    text: str,
    points: list[list[int]],
    seen: np.ndarray,
    colour: tuple[int, int, int],
    unit: int,
) -> None:
    """Number and score in a box above the highest joint, inside the image."""
    import cv2

    scale, thickness = 0.4 * unit, unit
    (width, height), baseline = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    x, y = min((p for p, visible in zip(points, seen, strict=True) if visible), key=lambda p: p[1])
    margin = 2 * unit
    left = int(np.clip(x - width // 2, margin, max(margin, image.shape[1] - width - margin)))
    bottom = int(np.clip(y - 16 * unit, height + margin, max(height, image.shape[0] - margin)))
    cv2.rectangle(
        image,
        (left - margin, bottom - height - margin),
        (left + width + margin, bottom + baseline),
        colour,
        -1,
    )
    cv2.putText(
        image,
        text,
        (left, bottom),
        cv2.FONT_HERSHEY_SIMPLEX,
        scale,
        (0, 0, 0),
        thickness,
        cv2.LINE_AA,
    )
