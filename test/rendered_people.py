"""Colour and depth images of people whose joints are known in metres.

Bodies of capsules walk, turn and lift their arms on a floor in front of a wall, behind each other
and behind a table, seen by a pinhole or a fisheye camera. The depth is exact, or as noisy as a
RealSense D435's or a Kinect's: with holes where only one of the sensor's eyes sees, and flying
pixels at edges. Everything is drawn from a seed. In the camera's optical frame, in metres.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numba
import numpy as np

from posenet_ros.core.decode import Pose, area_of_person
from posenet_ros.core.keypoints import COCO_SIGMAS
from posenet_ros.space import body
from posenet_ros.space.camera_model import CameraModel
from posenet_ros.space.lift import MEASURED, PoseLifter

# Each capsule's ends, by the names in _skeleton, its radius as a share of the stature, its colour.
SKIN, SHIRT, TROUSERS, HAIR = (224, 172, 150), (60, 90, 160), (70, 70, 80), (60, 40, 30)
CAPSULES = (
    ('head_low', 'head_high', 0.052, SKIN),
    ('crown', 'crown', 0.05, HAIR),
    ('neck', 'head_low', 0.032, SKIN),
    (5, 6, 0.036, SHIRT),
    ('chest_left', 'belly_left', 0.062, SHIRT),
    ('chest_right', 'belly_right', 0.062, SHIRT),
    (11, 12, 0.058, TROUSERS),
    (5, 7, 0.027, SHIRT),
    (6, 8, 0.027, SHIRT),
    (7, 9, 0.021, SKIN),
    (8, 10, 0.021, SKIN),
    (9, 'left_hand', 0.018, SKIN),
    (10, 'right_hand', 0.018, SKIN),
    (11, 13, 0.045, TROUSERS),
    (12, 14, 0.045, TROUSERS),
    (13, 15, 0.031, TROUSERS),
    (14, 16, 0.031, TROUSERS),
    (15, 'left_toes', 0.02, HAIR),
    (16, 'right_toes', 0.02, HAIR),
)
BODY = len(CAPSULES)
JOINT_DEPTH = 0.16  # a joint farther behind what is seen there is hidden


@dataclass(frozen=True)
class Person:
    """How somebody stands, walks or reaches. Angles in radians."""

    x: float = 0.0
    z: float = 3.0
    yaw: float = 0.0  # 0 faces the camera
    stature: float = 1.70
    lean: float = 0.0
    thighs: tuple[float, float] = (0.0, 0.0)  # forwards, left and right
    knees: tuple[float, float] = (0.0, 0.0)
    arms: tuple[float, float] = (0.0, 0.0)  # forwards
    arms_aside: tuple[float, float] = (0.15, 0.15)
    elbows: tuple[float, float] = (0.2, 0.2)
    lengths: tuple[float, ...] = field(default=(1.0,) * 8)  # of the segments, against the usual


@dataclass(frozen=True)
class Stage:
    """A camera, what it sees, and its noise: '', 'd435' or 'kinect'."""

    camera: CameraModel
    people: tuple[Person, ...]
    wall: float = 6.0
    camera_height: float = 1.2
    table: tuple[float, ...] = ()  # a box: left, right, top, bottom, near, far
    noise: str = ''
    seed: int = 0


class Seen(NamedTuple):
    colour: np.ndarray  # uint8 (H, W, 3), RGB
    depth: np.ndarray  # uint16 (H, W), millimetres, 0 where the sensor sees nothing
    true_depth: np.ndarray  # float32 (H, W), metres
    owner: np.ndarray  # int16 (H, W): person, or -1
    joints: list[np.ndarray]  # (17, 3) of each person
    visible: list[np.ndarray]  # bool (17,): not hidden, in the image


PINHOLE = CameraModel(640, 480, 525.0, 525.0, 319.5, 239.5)
FISHEYE = CameraModel(
    640, 480, 285.0, 285.0, 319.5, 239.5, 'equidistant', (-0.007, 0.04, -0.04, 0.006)
)


def random_person(generator: np.random.Generator, z: float, stature: float | None = None) -> Person:
    """Somebody who walks, stands or reaches, at a distance."""

    def both(low: float, high: float) -> tuple[float, float]:
        return float(generator.uniform(low, high)), float(generator.uniform(low, high))

    stride = float(generator.uniform(-0.5, 0.5))
    reaching = generator.random() < 0.3
    return Person(
        x=float(generator.uniform(-0.25, 0.25) * z),
        z=z,
        yaw=float(generator.uniform(-np.pi, np.pi) if generator.random() < 0.5
                  else generator.normal(0, 0.5)),
        stature=float(generator.uniform(1.5, 1.95)) if stature is None else stature,
        lean=float(generator.uniform(-0.05, 0.2)),
        thighs=(stride, -stride),
        knees=both(0.0, 0.6),
        arms=both(0.5, 1.8) if reaching else (-stride, stride),
        arms_aside=both(0.05, 1.2 if reaching else 0.3),
        elbows=both(0.0, 1.6 if reaching else 0.6),
        lengths=tuple(np.clip(generator.normal(1.0, 0.05, 8), 0.85, 1.15).tolist()),
    )  # fmt: skip


def joints_of(person: Person, camera_height: float) -> dict[int | str, np.ndarray]:
    """The 17 joints, and the ends of the other capsules, in the camera's frame."""
    h = person.stature
    shoulders, hips, trunk, thigh, shank, upper, fore, head = (
        h * length * share
        for length, share in zip(
            (body.SHOULDERS, body.HIPS, body.TRUNK, body.THIGH, body.SHANK, body.UPPER_ARM,
             body.FOREARM, 1.0),
            person.lengths,
            strict=True,
        )
    )  # fmt: skip
    # x forwards, y to the left, z up, from the middle of the hips.
    forwards, left, up = np.eye(3)
    spine = np.cos(person.lean) * up + np.sin(person.lean) * forwards
    front = np.cos(person.lean) * forwards - np.sin(person.lean) * up
    chest = trunk * spine
    points: dict[int | str, np.ndarray] = {}
    for side, (shoulder, elbow, wrist, hip, knee, ankle, name) in enumerate(
        ((5, 7, 9, 11, 13, 15, 'left'), (6, 8, 10, 12, 14, 16, 'right'))
    ):
        sign = 1 - 2 * side
        points[shoulder] = chest + sign * shoulders / 2 * left
        points[hip] = sign * hips / 2 * left
        swing, aside = person.arms[side], person.arms_aside[side]
        down = -np.cos(swing) * spine + np.sin(swing) * front
        arm = np.cos(aside) * down + sign * np.sin(aside) * left
        bent = swing + person.elbows[side]
        down = -np.cos(bent) * spine + np.sin(bent) * front
        forearm = np.cos(aside) * down + sign * np.sin(aside) * left
        points[elbow] = points[shoulder] + upper * arm
        points[wrist] = points[elbow] + fore * forearm
        points[f'{name}_hand'] = points[wrist] + 0.08 * h / 1.7 * forearm
        step = person.thighs[side]
        leg = -np.cos(step) * up + np.sin(step) * forwards
        points[knee] = points[hip] + thigh * leg
        back = step - person.knees[side]
        lower = -np.cos(back) * up + np.sin(back) * forwards
        points[ankle] = points[knee] + shank * lower
        points[f'{name}_toes'] = points[ankle] + 0.09 * h * forwards - 0.02 * h * up
        points[f'chest_{name}'] = 0.82 * chest + sign * 0.045 * h * left
        points[f'belly_{name}'] = 0.15 * chest + sign * 0.035 * h * left
    middle = chest + head * 0.135 * h * spine
    points['neck'] = chest + 0.01 * h * spine
    points['head_low'] = middle - 0.025 * h * spine
    points['head_high'] = middle + 0.025 * h * spine
    points['crown'] = middle + 0.035 * h * spine - 0.012 * h * front
    points[0] = middle + 0.055 * h * front - 0.005 * h * spine
    for side, (eye, ear) in enumerate(((1, 3), (2, 4))):
        sign = 1 - 2 * side
        points[eye] = middle + 0.046 * h * front + sign * 0.019 * h * left + 0.014 * h * spine
        points[ear] = middle + sign * 0.046 * h * left
    lowest = min(points[15][2], points[16][2])
    # Into the camera's frame: x right, y down, z forward; facing the camera is looking along -z.
    cos, sin = np.cos(person.yaw), np.sin(person.yaw)
    turned: dict[int | str, np.ndarray] = {}
    for name, (x, y, z) in points.items():
        across, away = y * cos + x * sin, y * sin - x * cos
        height = z - lowest + 0.039 * h
        turned[name] = np.array([person.x + across, camera_height - height, person.z + away])
    return turned


@numba.njit(nogil=True)
def _capsule(ax, ay, az, bx, by, bz, r, dx, dy, dz):
    """Where a ray from the origin enters a capsule, as a multiple of the ray; -1 for nowhere."""
    bax, bay, baz = bx - ax, by - ay, bz - az
    baba = bax * bax + bay * bay + baz * baz
    bard = bax * dx + bay * dy + baz * dz
    baoa = -(bax * ax + bay * ay + baz * az)
    rdoa = -(dx * ax + dy * ay + dz * az)
    oaoa = ax * ax + ay * ay + az * az
    dd = dx * dx + dy * dy + dz * dz
    y = -1.0
    if baba > 1e-12:
        a = baba * dd - bard * bard
        b = baba * rdoa - baoa * bard
        c = baba * oaoa - baoa * baoa - r * r * baba
        h = b * b - a * c
        if h < 0:
            return -1.0
        if a > 1e-12:
            t = (-b - np.sqrt(h)) / a
            y = baoa + t * bard
            if 0 < y < baba:
                return t
    if y <= 0:
        ox, oy, oz = -ax, -ay, -az
    else:
        ox, oy, oz = -bx, -by, -bz
    b = dx * ox + dy * oy + dz * oz
    c = ox * ox + oy * oy + oz * oz - r * r
    h = b * b - dd * c
    return (-b - np.sqrt(h)) / dd if h > 0 else -1.0


@numba.njit(nogil=True)
def _trace(rays, ends, radii, firsts, floor, wall, table, depth, owner, light):
    height, width = depth.shape
    for row in range(height):
        for column in range(width):
            dx, dy = rays[row, column]
            if np.isnan(dx):
                continue
            best, which, nx, ny, nz = wall, -1, 0.0, 0.0, -1.0
            if dy > 1e-9 and floor / dy < best:
                best, nx, ny, nz = floor / dy, 0.0, -1.0, 0.0
            if len(table):
                near, far, axis = 0.0, 1e9, 0
                for k in range(3):
                    d = dx if k == 0 else dy if k == 1 else 1.0
                    if abs(d) < 1e-12:
                        d = 1e-12
                    a, b = table[2 * k] / d, table[2 * k + 1] / d
                    if a > b:
                        a, b = b, a
                    if a > near:
                        near, axis = a, k
                    far = min(far, b)
                if 0 < near < far and near < best:
                    best, which, nx, ny, nz = near, -2, 0.0, 0.0, -1.0
                    if axis == 1:
                        ny, nz = -1.0, 0.0
            for p in range(len(firsts) - 1):
                for i in range(firsts[p], firsts[p + 1]):
                    ax, ay, az, bx, by, bz = ends[i]
                    t = _capsule(ax, ay, az, bx, by, bz, radii[i], dx, dy, 1.0)
                    if 0.05 < t < best:
                        best, which = t, i
                        px, py, pz = t * dx, t * dy, t
                        ux, uy, uz = bx - ax, by - ay, bz - az
                        s = ux * ux + uy * uy + uz * uz
                        if s > 1e-12:
                            s = ((px - ax) * ux + (py - ay) * uy + (pz - az) * uz) / s
                            s = min(max(s, 0.0), 1.0)
                        nx, ny, nz = px - ax - s * ux, py - ay - s * uy, pz - az - s * uz
            depth[row, column] = best
            owner[row, column] = which
            length = np.sqrt(nx * nx + ny * ny + nz * nz) * np.sqrt(dx * dx + dy * dy + 1)
            facing = -(nx * dx + ny * dy + nz) / max(length, 1e-9)
            up = -ny / max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-9)
            light[row, column] = 0.35 + 0.5 * max(facing, 0.0) + 0.15 * up


def render(stage: Stage) -> Seen:
    """What the camera and the depth sensor see."""
    camera, generator = stage.camera, np.random.default_rng(stage.seed)
    pixels = np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), axis=-1)
    rays = np.ascontiguousarray(camera.rays(pixels.astype(np.float64)))
    bodies = [joints_of(person, stage.camera_height) for person in stage.people]
    ends = [np.concatenate([points[a], points[b]]) for points in bodies for a, b, _, _ in CAPSULES]
    radii = [person.stature * r for person in stage.people for _, _, r, _ in CAPSULES]
    shape = camera.height, camera.width
    depth, owner = np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int16)
    light = np.ones(shape)
    _trace(
        rays,
        np.array(ends).reshape(-1, 6),
        np.array(radii, np.float64),
        np.arange(len(bodies) + 1) * BODY,
        stage.camera_height,
        stage.wall,
        np.array(stage.table, np.float64),
        depth,
        owner,
        light,
    )
    colours = np.array(
        [(190, 150, 110), (170, 170, 165)] + [c for _, _, _, c in CAPSULES] * max(len(bodies), 1)
    )
    colour = colours[owner + 2] * light[..., None]
    plain = owner == -1
    colour[plain] *= 1 + 0.06 * generator.normal(size=(plain.sum(), 1))
    for points in bodies:
        _draw_face(colour, points, camera, owner, depth)
    colour = np.clip(cv2.GaussianBlur(colour, (0, 0), 0.7) + generator.normal(0, 3, (*shape, 1)),
                     0, 255).astype(np.uint8)  # fmt: skip
    joints = [np.array([points[part] for part in range(17)]) for points in bodies]
    people = np.where(owner >= 0, owner // BODY, -1)
    visible = [_in_view(points, i, camera, people, depth) for i, points in enumerate(joints)]
    noisy = _sensed(depth, camera.focal, stage.noise, generator)
    millimetres = np.nan_to_num(np.clip(np.rint(1000 * noisy), 0, 65535)).astype(np.uint16)
    return Seen(colour, millimetres, depth, people, joints, visible)


def _draw_face(colour, points, camera, owner, depth) -> None:
    """Eyes and a mouth, where the camera sees them."""
    size = 0.008 * camera.focal / max(points[0][2], 0.2)
    for part, tint in ((1, (40, 30, 30)), (2, (40, 30, 30)), (0, (200, 140, 120))):
        x, y = np.rint(camera.project(points[part])).tolist()
        inside = 0 <= x < camera.width and 0 <= y < camera.height
        if inside and depth[int(y), int(x)] > points[part][2] - 0.03:
            cv2.circle(colour, (int(x), int(y)), max(1, round(size)), tint, -1)


def _in_view(joints, number, camera, people, depth) -> np.ndarray:
    visible = np.zeros(17, bool)
    pixels = camera.project(joints)
    for part, (x, y) in enumerate(pixels):
        if not (0 <= x <= camera.width - 1 and 0 <= y <= camera.height - 1):
            continue
        row, column = round(y), round(x)
        behind = joints[part, 2] - depth[row, column]
        visible[part] = people[row, column] == number and behind < JOINT_DEPTH
        if part < 5:  # on the skin, or hidden by the head
            visible[part] &= behind < 0.04 + 0.06 * (part > 2)
    return visible


@numba.njit(nogil=True)
def _shadow(disparity, hidden):
    """What the second eye, to the right of the first, cannot see: left of what is nearer."""
    height, width = disparity.shape
    for row in range(height):
        nearest = -1e9
        for column in range(width - 1, -1, -1):
            nearest -= 1
            if nearest > disparity[row, column] + 0.5:
                hidden[row, column] = True
            if disparity[row, column] > nearest:
                nearest = disparity[row, column]


def _sensed(depth, focal, noise, generator) -> np.ndarray:
    """Depth as a sensor gives it.

    D435: an error of 0.08 pixels of disparity over a baseline of 50 mm, alike in neighbours (Intel,
    Best-known-methods for tuning D400, 2018). Kinect: Nguyen, Izadi, Lovell, 3DIMPVT 2012.
    """
    if not noise:
        return depth.astype(np.float64)
    z = depth.astype(np.float64)
    baseline = 0.05 if noise == 'd435' else 0.075
    disparity = focal * baseline / z
    hidden = np.zeros(z.shape, bool)
    _shadow(disparity, hidden)
    grain = generator.normal(size=z.shape)
    if noise == 'd435':
        grain = cv2.GaussianBlur(grain, (0, 0), 1.5)
        grain /= grain.std()
        found = focal * baseline / np.maximum(disparity + 0.08 * grain, 1e-3)
        found[z > 10] = np.nan
    else:
        found = z + (0.0012 + 0.0019 * np.square(z - 0.4)) * grain
        found[(z < 0.5) | (z > 8)] = np.nan
    # At edges a pixel sees both surfaces: somewhere in between, or nothing.
    small = np.where(np.isfinite(z), z, 0.0).astype(np.float32)
    near, far = cv2.erode(small, np.ones((3, 3))), cv2.dilate(small, np.ones((3, 3)))
    edge = far - near > 0.1
    chance = generator.random(z.shape)
    flying = edge & (chance < 0.3)
    between = near + generator.random(z.shape) * (far - near)
    found[flying] = between[flying]
    found[hidden | (edge & (chance > 0.8)) | (generator.random(z.shape) < 0.005)] = np.nan
    return found


def poses_of(seen: Seen, camera: CameraModel, noise: float = 0.0, seed: int = 0) -> list[Pose]:
    """The people as PoseNet would see them.

    Args:
        seen: their joints.
        camera: of the image.
        noise: of positions: multiples of COCO_SIGMAS, by which people's labels differ.
        seed: of the noise.
    """
    generator = np.random.default_rng(seed)
    poses = []
    for joints, visible in zip(seen.joints, seen.visible, strict=True):
        pixels = camera.project(joints)
        outside = ~np.isfinite(pixels).all(axis=1)
        pixels[outside] = camera.width / 2, camera.height / 2
        size = np.sqrt(area_of_person(pixels))
        deviations = np.maximum(noise * size * np.array(COCO_SIGMAS), 0.3)
        pixels += generator.normal(size=(17, 2)) * deviations[:, None] * (noise > 0)
        scores = np.where(visible, 0.9, 0.35)
        scores[outside] = 0.05
        poses.append(Pose(float(scores.mean()), pixels, scores, deviations))
    return poses


def people_at(
    distances: Sequence[float], seed: int, camera: CameraModel = PINHOLE, **options
) -> Stage:
    """A scene of people at some distances, none outside the image."""
    generator = np.random.default_rng(seed)
    people = tuple(random_person(generator, z) for z in distances)
    return Stage(camera, people, seed=seed, **options)


class LiftedJoints:
    """All joints of everybody in several scenes: errors, states and what is claimed.

    Args:
        stages: the scenes.
        labels: how far keypoints are off; see poses_of.
        poses: returns the people of a scene who are seen, the first first; by default all of them.
    """

    def __init__(
        self,
        stages: Iterable[Stage],
        labels: float = 0.0,
        poses: Callable[[Stage, Seen], list[Pose]] | None = None,
    ) -> None:
        rows = []
        for stage in stages:
            seen = render(stage)
            found = (
                poses_of(seen, stage.camera, labels, stage.seed)
                if poses is None
                else poses(stage, seen)
            )
            people = PoseLifter(stage.camera).lift(found, seen.depth)
            for person, joints, visible in zip(people, seen.joints, seen.visible, strict=False):
                error = person.points - joints
                ray = joints / np.linalg.norm(joints, axis=1, keepdims=True)
                along = (error * ray).sum(axis=1)
                across = np.linalg.norm(error - along[:, None] * ray, axis=1)
                rows.append(
                    (visible, person.states, along, across, person.deviations_along,
                     person.deviations_across, stage.wall - joints[:, 2])
                )  # fmt: skip
        columns = [np.array(column).reshape(-1) for column in zip(*rows, strict=True)]
        self.visible, self.states, self.along, self.across = columns[:4]
        self.claimed, self.claimed_across, self.wall = columns[4:]
        self.measured = self.states == MEASURED
        self.good = self.measured & self.visible
        self.error = np.hypot(self.along, self.across)

    def on_the_wall(self) -> int:
        """Measured joints that are nearer to the wall behind than to themselves."""
        wrong = (self.along > 0.6 * self.wall) & (self.along > 0.15)
        return int((self.measured & wrong).sum())

    def covered(self, deviations: float) -> float:
        """Share of the good joints whose error along the ray is less than it claims."""
        good = self.good
        return float((np.abs(self.along)[good] < deviations * self.claimed[good]).mean())
