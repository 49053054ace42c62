"""Videos of people whose ids and joints are known: cut out of photos, and moved over a street.

The people are cut out of photos along their labelled joints; the background is the street of a
video without its people. Everything is drawn from a seed: who walks where and how fast, who is in
front, who leaves and comes back, who grows, which frames are missing, how the camera shakes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from posenet_ros.core.decode import TOLERANCES, Pose, area_of_person

SHARED = Path(__file__).parents[2] / 'shared'
NUM_KEYPOINTS = 17
LEAST_JOINTS = 13  # that a person has to have labelled
LEAST_HEIGHT = 150  # of the person's box in the photo, in pixels
FPS = 15.0
# Limbs to cut along, with half their widths relative to the square root of the person's area.
LIMBS = (
    (5, 7, 0.16), (7, 9, 0.14), (6, 8, 0.16), (8, 10, 0.14), (11, 13, 0.2), (13, 15, 0.16),
    (12, 14, 0.2), (14, 16, 0.16), (5, 6, 0.14), (11, 12, 0.2), (5, 11, 0.16), (6, 12, 0.16),
)  # fmt: skip
ENDS = ((9, 0.16), (10, 0.16), (15, 0.2), (16, 0.2))  # hands and feet


class Cutout(NamedTuple):
    """A person: pixels, how much of each is the person's, and the labelled joints."""

    pixels: np.ndarray  # uint8 (h, w, 3), RGB
    opacity: np.ndarray  # float32 (h, w)
    joints: np.ndarray  # float64 (17, 2), in the cutout's pixels
    labelled: np.ndarray  # bool (17,)


class Truth(NamedTuple):
    """A person in a frame."""

    id: int
    joints: np.ndarray  # float64 (17, 2), in pixels of the frame
    labelled: np.ndarray  # bool (17,): the joint is known, and in the frame
    visible: float  # share of the person that is in the frame and not behind others


def agreement(pose: Pose, joints: np.ndarray, known: np.ndarray) -> float:
    """OKS of a pose, over the joints that are known: (17, 2) in its pixels, and a mask (17,)."""
    if not known.any():
        return 0.0
    squares = np.square(pose.keypoints[known] - joints[known]).sum(axis=1)
    return float(np.exp(-squares / (2 * area_of_person(joints) * TOLERANCES[known])).mean())


class GeneratedFrame(NamedTuple):
    seconds: float
    image: np.ndarray  # uint8 (H, W, 3), RGB
    people: list[Truth]


@dataclass(frozen=True)
class Walker:
    """How a cutout moves: straight, at a constant speed, from a second to another."""

    cutout: int
    start: tuple[float, float]  # of the feet, in pixels
    velocity: tuple[float, float]  # pixels per second
    height: float  # of the person, in pixels
    growth: float = 0.0  # of the height, per second
    times: tuple[tuple[float, float], ...] = ((0.0, 1e9),)  # when the person is there


@dataclass(frozen=True)
class Scene:
    """A video to be made."""

    walkers: tuple[Walker, ...]
    seconds: float = 4.0
    size: tuple[int, int] = (480, 640)
    dropped: float = 0.0  # share of the frames that are missing
    shake: float = 0.0  # standard deviation of the camera's movement between frames, in pixels
    noise: float = 3.0  # of the pixels
    seed: int = 0


@functools.cache
def cutouts() -> tuple[Cutout, ...]:
    """The people of ../shared/labelled who are large and labelled well enough."""
    folder = SHARED / 'labelled'
    labels = json.loads((folder / 'annotations.json').read_text())
    names = {image['id']: image['file_name'] for image in labels['images']}
    found = []
    for person in labels['annotations']:
        points = np.array(person['keypoints'], np.float64).reshape(NUM_KEYPOINTS, 3)
        labelled = points[:, 2] > 0
        if labelled.sum() >= LEAST_JOINTS and person['bbox'][3] >= LEAST_HEIGHT:
            image = cv2.imread(str(folder / 'images' / names[person['image_id']]))
            found.append(_cut_out(image[..., ::-1], points[:, :2], labelled))
    return tuple(found)


def _cut_out(image: np.ndarray, joints: np.ndarray, labelled: np.ndarray) -> Cutout:
    spread = np.ptp(joints[labelled], axis=0)
    size = float(np.sqrt(0.6 * spread.prod()))
    mask = np.zeros(image.shape[:2], np.uint8)
    places = np.rint(joints).astype(int)

    def width(share: float) -> int:
        return max(2, round(2 * share * size))

    for a, b, share in LIMBS:
        if labelled[a] and labelled[b]:
            cv2.line(mask, places[a].tolist(), places[b].tolist(), 255, width(share))
    for end, share in ENDS:
        if labelled[end]:
            cv2.circle(mask, places[end].tolist(), width(share) // 2, 255, -1)
    torso = [part for part in (5, 6, 12, 11) if labelled[part]]
    cv2.fillConvexPoly(mask, cv2.convexHull(places[torso]), 255)
    head = joints[:5][labelled[:5]]
    if len(head):
        centre = head.mean(axis=0)
        radius = max(0.28 * size, 1.3 * float(np.linalg.norm(head - centre, axis=1).max()))
        cv2.circle(mask, np.rint(centre).astype(int).tolist(), round(radius), 255, -1)
        if labelled[5] and labelled[6]:
            neck = np.rint((joints[5] + joints[6]) / 2).astype(int)
            cv2.line(mask, np.rint(centre).astype(int).tolist(), neck.tolist(), 255, width(0.12))
    left, top, across, down = cv2.boundingRect(mask)
    box = slice(top, top + down), slice(left, left + across)
    soft = cv2.GaussianBlur(mask[box].astype(np.float32) / 255, (0, 0), 1.0)
    return Cutout(np.ascontiguousarray(image[box]), soft, joints - (left, top), labelled)


@functools.cache
def street() -> np.ndarray:
    """The street of ../shared/video/vtest.avi without its people: uint8 RGB."""
    video = cv2.VideoCapture(str(SHARED / 'video/vtest.avi'))
    frames = []
    for i in range(780):
        if not video.grab():
            break
        if i % 60 == 0:
            frames.append(video.retrieve()[1])
    return np.ascontiguousarray(np.median(frames, axis=0).astype(np.uint8)[..., ::-1])


def render(scene: Scene) -> Iterator[GeneratedFrame]:
    """The frames of a scene."""
    generator = np.random.default_rng(scene.seed)
    height, width = scene.size
    margin = 40  # for the camera's shaking
    background = cv2.resize(street(), (width + 2 * margin, height + 2 * margin))
    shake = np.zeros(2)
    for index in range(round(scene.seconds * FPS)):
        seconds = index / FPS
        shake = 0.9 * shake + generator.normal(0, scene.shake, 2) if scene.shake else shake
        dx, dy = np.clip(np.rint(shake), -margin, margin).astype(int)
        noise = generator.normal(0, scene.noise, (height, width, 1)).astype(np.float32)
        if generator.random() < scene.dropped:
            continue
        rows = slice(margin + dy, margin + dy + height)
        image = background[rows, margin + dx : margin + dx + width].astype(np.float32)
        owner = np.full((height, width), -1, np.int16)
        present = []
        # Those whose feet are lower in the image are in front.
        for number, walker in sorted(
            enumerate(scene.walkers), key=lambda item: _feet(item[1], seconds)[1]
        ):
            if any(start <= seconds < end for start, end in walker.times):
                present.append((number, *_paste(image, owner, number, walker, seconds, (dx, dy))))
        people = []
        for number, joints, labelled, pixels in sorted(present, key=lambda item: item[0]):
            inside = ((joints >= 0) & (joints < (width, height))).all(axis=1)
            visible = float((owner == number).sum()) / max(pixels, 1.0)
            people.append(Truth(number, joints, labelled & inside, min(visible, 1.0)))
        yield GeneratedFrame(seconds, np.clip(image + noise, 0, 255).astype(np.uint8), people)


def _feet(walker: Walker, seconds: float) -> tuple[float, float]:
    return (
        walker.start[0] + walker.velocity[0] * seconds,
        walker.start[1] + walker.velocity[1] * seconds,
    )


def _paste(
    image: np.ndarray,
    owner: np.ndarray,
    number: int,
    walker: Walker,
    seconds: float,
    shake: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray, float]:
    """Draws a person; returns the joints, which are labelled, and the person's pixels."""
    cutout = cutouts()[walker.cutout % len(cutouts())]
    height, width = image.shape[:2]
    scale = walker.height * (1 + walker.growth * seconds) / cutout.opacity.shape[0]
    x, y = _feet(walker, seconds)
    left = x - scale * cutout.opacity.shape[1] / 2 - shake[0]
    top = y - scale * cutout.opacity.shape[0] - shake[1]
    matrix = np.array([[scale, 0, left], [0, scale, top]])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    source, opacity = cutout.pixels, cutout.opacity
    if scale < 0.7:  # warpAffine does not average
        size = max(1, round(opacity.shape[1] * scale)), max(1, round(opacity.shape[0] * scale))
        source, opacity = cv2.resize(source, size, interpolation=way), cv2.resize(opacity, size)
        factor = size[0] / cutout.opacity.shape[1], size[1] / cutout.opacity.shape[0]
        matrix = np.array([[scale / factor[0], 0, left], [0, scale / factor[1], top]])
    pixels = cv2.warpAffine(source, matrix, (width, height))
    alpha = cv2.warpAffine(opacity, matrix, (width, height))
    image *= 1 - alpha[..., None]
    image += alpha[..., None] * pixels
    owner[alpha > 0.5] = number
    joints = cutout.joints * scale + (left, top)
    return joints, cutout.labelled, float((cutout.opacity > 0.5).sum()) * scale**2


def random_scene(seed: int, people: int | None = None, seconds: float = 4.0) -> Scene:
    """People who cross, occlude each other, leave, come back and grow; some look alike."""
    generator = np.random.default_rng(seed)
    count = int(generator.integers(2, 7)) if people is None else people
    height, width = 480, 640
    alike = generator.integers(0, 1000)
    walkers = []
    for i in range(count):
        tall = float(generator.uniform(90, 220))
        rightwards = generator.random() < 0.5
        x = float(
            generator.uniform(0, width / 2) if rightwards else generator.uniform(width / 2, width)
        )
        speed = float(generator.uniform(0, 1.0)) * tall * (1 if rightwards else -1)
        times: tuple[tuple[float, float], ...] = ((0.0, 1e9),)
        if generator.random() < 0.3:  # comes later
            times = ((float(generator.uniform(0.3, seconds / 2)), 1e9),)
        elif generator.random() < 0.2:  # leaves, and comes back
            gone = float(generator.uniform(seconds / 4, seconds / 2))
            times = ((0.0, gone), (gone + float(generator.uniform(0.2, 1.0)), 1e9))
        walkers.append(
            Walker(
                int(alike if i < 2 and generator.random() < 0.3 else generator.integers(0, 1000)),
                (x, float(generator.uniform(tall, height + 0.1 * tall))),
                (speed, float(generator.uniform(-0.05, 0.05)) * tall),
                tall,
                float(generator.uniform(-0.05, 0.1)),
                times,
            )
        )
    return Scene(
        tuple(walkers),
        seconds,
        dropped=float(generator.choice([0.0, 0.0, 0.1, 0.3])),
        shake=float(generator.choice([0.0, 0.0, 0.5, 1.5])),
        seed=seed,
    )
