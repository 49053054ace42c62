"""Poses in pixels -> people in metres, from a depth image or from the usual size of people.

With depth: the surface of each limb (surfaces.py); the joint lies behind it by half the limb's
thickness. Without: the distance at which bones have usual lengths (distance.py).

Points are in the camera's optical frame (REP 103: x right, y down, z forward), in metres.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from posenet_ros.core.decode import Pose, area_of_person
from posenet_ros.core.jit import jit
from posenet_ros.core.keypoints import NUM_KEYPOINTS
from posenet_ros.space.body import LENGTHS, LIMBS, RADII_SPREAD, TREE
from posenet_ros.space.camera_model import CameraModel
from posenet_ros.space.depth import NEAREST, DepthSampler
from posenet_ros.space.distance import guess_distance
from posenet_ros.space.surfaces import (
    ACROSS,
    ALONG,
    AROUND,
    LEAST_PIXELS,
    REACH,
    joints_behind_surfaces,
)

TORSO = 5, 6, 11, 12  # shoulders and hips
USUAL_DEVIATION = 0.06  # sizes of the person, of keypoints that come without one
LEAN = 0.15  # radians: standard deviation of a body's own axis
FACING_THE_CAMERA = np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]])
# Of the standard deviation along the ray.
SLANT = 0.5  # of the surface: metres deeper for each metre beside the keypoint
LEAST_ACROSS = 0.004  # metres
MOST_MEASURED = 0.2  # metres; less sure than that is not called measured
OFF_THE_TORSO = 0.2  # metres: standard deviation of how far in front of it another joint is
MOST_INFERRED = 0.5  # metres; less sure than that is unknown

# How a position is known. INFERRED: from the neighbours and the length of the bones. GUESSED: from
# the usual size of people.
UNKNOWN, MEASURED, INFERRED, GUESSED = range(4)


@dataclass(frozen=True, eq=False)
class Pose3D:
    """A person in space. Points are NaN where nothing is known.

    Attributes:
        score: of the pose in the image.
        track_id: likewise.
        points: float64 (17, 3), of the keypoints.
        states: uint8 (17,), UNKNOWN, MEASURED or INFERRED.
        deviations_along: float64 (17,), standard deviations along the ray from the camera.
        deviations_across: float64 (17,), across it, along one axis.
        torso: float64 (3,), the middle of shoulders and hips.
        torso_state: UNKNOWN, MEASURED, INFERRED or GUESSED.
        torso_deviation_along: likewise.
        torso_deviation_across: likewise.
        heading: float64 (3, 3), the directions forwards, left and up of the person as columns.
        heading_deviation: of the angle around the person's own axis, in radians.
    """

    score: float
    track_id: int
    points: np.ndarray
    states: np.ndarray
    deviations_along: np.ndarray
    deviations_across: np.ndarray
    torso: np.ndarray
    torso_state: int
    torso_deviation_along: float
    torso_deviation_across: float
    heading: np.ndarray
    heading_deviation: float

    def rows(self) -> Iterator[tuple[int, tuple[float, float, float], float, float]]:
        """State, point, and deviations along and across of each keypoint, as Python's numbers."""
        return zip(
            self.states.tolist(),
            self.points.tolist(),
            self.deviations_along.tolist(),
            self.deviations_across.tolist(),
            strict=True,
        )

    @property
    def heading_known(self) -> bool:
        """Whether the heading is."""
        return not math.isnan(self.heading_deviation)

    def point(self, name: str) -> np.ndarray:
        """Where the person is: the torso, or the feet where an ankle is known. NaN for nowhere."""
        ankles = self.points[15:]
        known = ankles[np.isfinite(ankles).all(axis=1)]
        return known.mean(axis=0) if name == 'feet' and len(known) else self.torso

    def orientation(self) -> tuple[float, float, float, float]:
        """The heading as a quaternion x, y, z, w; that of somebody who faces the camera if unknown.

        It turns x into the person's forwards, y into the left, z into up.
        """
        return quaternion(self.heading if self.heading_known else FACING_THE_CAMERA)

    def covariance(self) -> np.ndarray:
        """Of torso and heading, (6, 6), as in geometry_msgs/PoseWithCovariance.

        NaN for a place that is not known, and pi squared for a heading that is not.
        """
        covariance = np.full((6, 6), np.nan)
        if not np.isfinite(self.torso).all():
            return covariance
        covariance[:] = 0.0
        ray = self.torso / np.linalg.norm(self.torso)
        along, across = self.torso_deviation_along**2, self.torso_deviation_across**2
        covariance[:3, :3] = across * np.eye(3) + (along - across) * np.outer(ray, ray)
        covariance[3:, 3:] = math.pi**2 * np.eye(3)
        if self.heading_known:
            # Around its own axis it is less sure than that axis is.
            up, turn = self.heading[:, 2], self.heading_deviation**2
            covariance[3:, 3:] = min(turn, LEAN**2) * np.eye(3)
            covariance[3:, 3:] += max(turn - LEAN**2, 0.0) * np.outer(up, up)
        return covariance


def quaternion(axes: np.ndarray) -> tuple[float, float, float, float]:
    """A rotation matrix as a quaternion x, y, z, w."""
    (a, b, c), (d, e, f), (g, h, i) = axes.tolist()
    # Each row is the quaternion times four times one of its parts: of the largest, nothing small
    # is divided by.
    rows = [
        (1 + a - e - i, b + d, c + g, h - f),
        (b + d, 1 - a + e - i, f + h, c - g),
        (c + g, f + h, 1 - a - e + i, d - b),
        (h - f, c - g, d - b, 1 + a + e + i),
    ]
    row = max(rows, key=lambda row: math.hypot(*row))
    x, y, z, w = (part / math.hypot(*row) for part in row)
    return x, y, z, w


class PoseLifter:
    """Places people in space.

    For example::

        lifter = PoseLifter(camera)
        for person in lifter.lift(poses, depth):
            print(person.torso, person.points[9], person.states[9])

    Args:
        camera: of the images that the poses are from.
        depth_camera: of the depth images; None if they show the same pixels, perhaps in another
            resolution. It has to be in the same place: depth images are registered to the colour.
    """

    def __init__(self, camera: CameraModel, depth_camera: CameraModel | None = None) -> None:
        self.camera = camera
        self.depth_camera = depth_camera

    def lift(
        self, poses: Sequence[Pose], depth: np.ndarray | None = None, metres: float | None = None
    ) -> list[Pose3D]:
        """People in space, in the order of the poses.

        Args:
            poses: in pixels of the image.
            depth: (H, W), of the same moment: integers in millimetres, or floating point in metres;
                0, NaN and infinity are holes. Of any strides and byte order; it is not copied.
                None: the distance is guessed from the usual size of people.
            metres: of a unit of depth, where it is another.

        Raises:
            ImageError: depth is no such array.
        """
        sampler = None if depth is None else DepthSampler(depth, metres)
        if not len(poses):
            return []
        keypoints = np.array([pose.keypoints for pose in poses], np.float64)
        scores = np.array([pose.keypoint_scores for pose in poses], np.float64)
        deviations = np.array([pose.keypoint_deviations for pose in poses], np.float64)
        for i in range(len(poses)):
            unknown = ~np.isfinite(deviations[i])
            if unknown.any():
                deviations[i, unknown] = USUAL_DEVIATION * math.sqrt(area_of_person(keypoints[i]))
        rays = self.camera.rays(keypoints)
        scales = self.camera.scales(keypoints)
        spreads = deviations * scales
        guesses = np.array(
            [guess_distance(rays[i], scores[i], spreads[i]) for i in range(len(poses))]
        )
        around = np.full((len(poses), NUM_KEYPOINTS, len(AROUND)), np.nan)
        along = np.full((len(poses), LIMBS, len(ALONG), len(ACROSS)), np.nan)
        noise = 0.0, 0.0
        if sampler is not None:
            noise = sampler.noise()
            self._sample(sampler, keypoints, rays, scales, guesses[:, 0], around, along)
        offset = np.array([self.camera.offset_x, self.camera.offset_y])
        return [
            _lifted(
                pose,
                offset,
                *_lift(rays[i], scores[i], spreads[i], around[i], along[i], *guesses[i], *noise),
            )
            for i, pose in enumerate(poses)
        ]

    def _sample(
        self,
        sampler: DepthSampler,
        keypoints: np.ndarray,
        rays: np.ndarray,
        scales: np.ndarray,
        distances: np.ndarray,
        around: np.ndarray,
        along: np.ndarray,
    ) -> None:
        """Fills in the depths around the keypoints and along the bones."""
        known = np.where(distances > 0, distances, 3.0)[:, None]
        height, width = sampler.depth.shape
        scale_x, scale_y = width / self.camera.width, height / self.camera.height
        if self.depth_camera is None:
            # A pixel's centre has whole coordinates.
            centres = (keypoints + 0.5) * (scale_x, scale_y) - 0.5
            focals = math.sqrt(scale_x * scale_y) / scales
        else:
            centres = self.depth_camera.of_rays(rays)
            focals = 1 / self.depth_camera.scales(centres)
        radii = np.maximum(np.nan_to_num(REACH * focals / known), LEAST_PIXELS)
        around[:] = sampler.at(centres[:, :, None] + radii[:, :, None, None] * AROUND)
        first, second = TREE[:LIMBS].T
        start, whole = centres[:, first], centres[:, second] - centres[:, first]
        length = np.maximum(np.linalg.norm(whole, axis=-1, keepdims=True), 1e-6)
        normal = whole[..., ::-1] * (-1, 1) / length * radii[:, second, None]
        middle = start[:, :, None] + ALONG[:, None] * whole[:, :, None]
        along[:] = sampler.at(middle[:, :, :, None] + ACROSS[:, None] * normal[:, :, None, None])


def unplaced(pose: Pose) -> Pose3D:
    """A person of whom nothing is known in space."""
    nothing, nowhere = np.full(NUM_KEYPOINTS, np.nan), np.full(3, np.nan)
    return Pose3D(
        pose.score, pose.track_id, np.full((NUM_KEYPOINTS, 3), np.nan),
        np.zeros(NUM_KEYPOINTS, np.uint8), nothing, nothing,
        nowhere, UNKNOWN, math.nan, math.nan, np.full((3, 3), np.nan), math.nan,
    )  # fmt: skip


def _lifted(
    pose: Pose,
    offset: np.ndarray,
    points: np.ndarray,
    states: np.ndarray,
    along: np.ndarray,
    across: np.ndarray,
    torso: np.ndarray,
    torso_state: int,
    torso_along: float,
    torso_across: float,
) -> Pose3D:
    points[:, :2] += offset
    torso[:2] += offset
    heading, deviation = _heading(points, along)
    return Pose3D(
        pose.score, pose.track_id, points, states, along, across,
        torso, int(torso_state), torso_along, torso_across, heading, deviation,
    )  # fmt: skip


@jit
def _heading(points: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, float]:
    """The directions of a body as columns, from its shoulders and hips, and the angle's deviation.

    NaN where they are not known.
    """
    axes = np.full((3, 3), np.nan)
    left, up = points[5] - points[6], np.array([0.0, -1.0, 0.0])
    variance = along[5] ** 2 + along[6] ** 2
    if math.isnan(left[0]):
        return axes, math.nan
    if not math.isnan(points[11, 0] + points[12, 0]):
        left = left + points[11] - points[12]
        up = points[5] + points[6] - points[11] - points[12]
        variance += along[11] ** 2 + along[12] ** 2
    width = math.sqrt((left * left).sum())
    forwards = np.cross(left, up)
    length = math.sqrt((forwards * forwards).sum())
    if width < 0.05 or length < 0.01:
        return axes, math.nan
    axes[:, 0], axes[:, 1] = forwards / length, left / width
    axes[:, 2] = np.cross(axes[:, 0], axes[:, 1])
    return axes, math.sqrt(variance) / width


@jit
def _lift(
    rays: np.ndarray,
    scores: np.ndarray,
    spreads: np.ndarray,
    around: np.ndarray,
    along_limbs: np.ndarray,
    guess: float,
    guess_deviation: float,
    noise: float,
    independent: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, float, float]:
    """One person: points, states, deviations along and across; then the torso's.

    For the arguments see joints_behind_surfaces.
    """
    parts = len(rays)
    depths, noises, doubts = joints_behind_surfaces(
        rays, scores, spreads, around, along_limbs, guess, guess_deviation, noise, independent
    )
    points = np.full((parts, 3), np.nan)
    states = np.zeros(parts, np.uint8)
    along = np.full(parts, np.nan)
    across = np.full(parts, np.nan)
    for part in range(parts):
        if math.isnan(depths[part]):
            continue
        beside = spreads[part] * depths[part]
        deviation = math.sqrt(
            noises[part] ** 2 + doubts[part] ** 2 + RADII_SPREAD[part] ** 2 + (SLANT * beside) ** 2
        )
        _place(part, depths[part], rays, points)
        along[part] = deviation * _length(rays[part])
        across[part] = math.hypot(beside, LEAST_ACROSS)
        states[part] = MEASURED if deviation <= MOST_MEASURED else INFERRED
    for _ in range(2):
        _infer(rays, spreads, points, states, along, across)
    torso, state, torso_along, torso_across = _torso(
        rays, spreads, scores, points, states, along, across, guess, guess_deviation
    )
    return points, states, along, across, torso, state, torso_along, torso_across


@jit
def _infer(
    rays: np.ndarray,
    spreads: np.ndarray,
    points: np.ndarray,
    states: np.ndarray,
    along: np.ndarray,
    across: np.ndarray,
) -> None:
    """Joints beside known ones: on their own ray, where it is a bone's length away."""
    depths, weights = np.zeros(len(rays)), np.zeros(len(rays))
    for bone in range(len(TREE)):
        for end in range(2):
            known, joint = TREE[bone, end], TREE[bone, 1 - end]
            if states[joint] != UNKNOWN or states[known] == UNKNOWN or math.isnan(rays[joint, 0]):
                continue
            x, y = rays[joint]
            square = _length(rays[joint]) ** 2
            z = (points[known, 0] * x + points[known, 1] * y + points[known, 2]) / square
            dx, dy = points[known, 0] - x * z, points[known, 1] - y * z
            dz = points[known, 2] - z
            free = LENGTHS[bone] ** 2 - (dx * dx + dy * dy + dz * dz)
            # At either of both places that are a bone's length away: which of them is not known.
            reach = max(free, (0.3 * LENGTHS[bone]) ** 2)
            weight = 1 / (reach / square + along[known] ** 2)
            depths[joint] += weight * z
            weights[joint] += weight
    for joint in range(len(rays)):
        if weights[joint] == 0:
            continue
        z = depths[joint] / weights[joint]
        deviation = math.sqrt(1 / weights[joint])
        if z < NEAREST or deviation > MOST_INFERRED:
            continue
        _place(joint, z, rays, points)
        along[joint] = deviation * _length(rays[joint])
        across[joint] = math.hypot(spreads[joint] * z, LEAST_ACROSS)
        states[joint] = INFERRED


@jit
def _torso(
    rays: np.ndarray,
    spreads: np.ndarray,
    scores: np.ndarray,
    points: np.ndarray,
    states: np.ndarray,
    along: np.ndarray,
    across: np.ndarray,
    guess: float,
    guess_deviation: float,
) -> tuple[np.ndarray, int, float, float]:
    """The middle of shoulders and hips: point, state, deviations along and across."""
    torso = np.zeros(3)
    known = measured = 0
    variance = beside = 0.0
    for part in TORSO:
        if states[part] != UNKNOWN:
            known += 1
            measured += states[part] == MEASURED
            torso += points[part]
            variance += along[part] ** 2
            beside += across[part] ** 2
    if measured >= 1 and known >= 2:
        # Their errors are partly the same.
        return (
            torso / known,
            MEASURED if measured >= 2 else INFERRED,
            math.sqrt(variance / known / 2),
            math.sqrt(beside / known / 2),
        )
    # The direction of the torso, from keypoints that may be unsure; its distance from any joint
    # that is measured, or from the usual size.
    x = y = total = unsure = 0.0
    for part in range(len(rays)):
        if not math.isnan(rays[part, 0]):
            weight = max(scores[part], 1e-3) * (1.0 if part in TORSO else 0.02)
            x, y = x + weight * rays[part, 0], y + weight * rays[part, 1]
            unsure += weight * spreads[part]
            total += weight
    depth = inverse = 0.0
    for part in range(len(rays)):
        if states[part] == MEASURED:
            weight = 1 / (along[part] ** 2 + OFF_THE_TORSO**2)
            depth += weight * points[part, 2]
            inverse += weight
    if total == 0 or (inverse == 0 and guess == 0):
        return np.full(3, np.nan), UNKNOWN, math.nan, math.nan
    x, y = x / total, y / total
    if inverse > 0:
        depth, state = depth / inverse, INFERRED
        deviation = math.hypot(1 / math.sqrt(inverse), OFF_THE_TORSO)
    else:
        depth, state, deviation = guess, GUESSED, guess_deviation
    torso[0], torso[1], torso[2] = x * depth, y * depth, depth
    deviation *= math.sqrt(1 + x * x + y * y)
    return torso, state, deviation, math.hypot(unsure / total * depth, 0.05)


@jit
def _place(part: int, depth: float, rays: np.ndarray, points: np.ndarray) -> None:
    points[part, 0], points[part, 1] = rays[part, 0] * depth, rays[part, 1] * depth
    points[part, 2] = depth


@jit
def _length(ray: np.ndarray) -> float:
    """Metres along a ray for each metre of depth."""
    return math.sqrt(1 + ray[0] ** 2 + ray[1] ** 2)
