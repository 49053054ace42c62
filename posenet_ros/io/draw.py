"""Draws poses on an image: bones, joints, and each person's number and score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from posenet_ros.core.closeups import Closeup
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

TRAIL_SECONDS = 2.0


def person_colour(index: int) -> tuple[int, int, int]:
    """The RGB colour of person number `index`."""
    return PERSON_COLOURS[index % len(PERSON_COLOURS)]


def person_number(pose: Pose, index: int) -> tuple[int, str]:
    """The number that a person's colour is of, and how it is shown: #7 for a track_id."""
    if pose.track_id < 0:
        return index, f'{index + 1}'
    return pose.track_id, f'#{pose.track_id}'


class Trails:
    """Where tracked people have been in the last seconds of a video."""

    def __init__(self) -> None:
        self._places: dict[int, list[tuple[float, tuple[float, float]]]] = {}

    def draw(self, image: np.ndarray, poses: Sequence[Pose], seconds: float) -> None:
        """Adds the people of a frame, and draws all trails on its image, as draw_poses does."""
        import cv2

        for pose in poses:
            seen = pose.keypoint_scores >= MIN_KEYPOINT_SCORE
            if pose.track_id >= 0 and seen.any():
                x, y = pose.keypoints[seen].mean(axis=0).tolist()
                self._places.setdefault(pose.track_id, []).append((seconds, (x, y)))
        unit = _unit(image)
        for track_id, places in list(self._places.items()):
            places[:] = [place for place in places if 0 <= seconds - place[0] <= TRAIL_SECONDS]
            if not places:
                del self._places[track_id]
            line = np.clip(np.rint([place for _, place in places]), -30000, 30000).astype(np.int32)
            if len(line) > 1:
                colour = person_colour(track_id)
                cv2.polylines(image, [line[:, None]], False, colour, unit, cv2.LINE_AA)


def draw_closeups(image: np.ndarray, closeups: Sequence[Closeup], flipped: bool = False) -> None:
    """Draws what close-ups showed as thin boxes, on the image itself, which may be mirrored."""
    import cv2

    width = image.shape[1]
    for closeup in closeups:
        left, right = closeup.left, closeup.right
        if flipped:
            left, right = width - right, width - left
        top_left, bottom_right = (left, closeup.top), (right - 1, closeup.bottom - 1)
        cv2.rectangle(image, top_left, bottom_right, (255, 255, 255), 1, cv2.LINE_AA)


def draw_poses(
    image: np.ndarray,
    poses: Sequence[Pose],
    min_keypoint_score: float = MIN_KEYPOINT_SCORE,
    min_pose_score: float = MIN_POSE_SCORE,
    deviations: bool = False,
) -> np.ndarray:
    """Draws on the image itself. People with an id keep its colour.

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

    unit = _unit(image)
    for index, pose in enumerate(poses):
        if pose.score < min_pose_score:
            continue
        number, name = person_number(pose, index)
        colour = person_colour(number)
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
            _draw_label(image, f'{name}: {pose.score:.2f}', points, seen, colour, unit)
    return image


def _unit(image: np.ndarray) -> int:
    """The width of a line for the image's size, in pixels."""
    height, width = image.shape[:2]
    return int(max(1, round(max(height, width) / 400)))


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
