"""What the benchmarks run on: a photo, and decoder maps with any number of people."""

from __future__ import annotations

import cv2
import numpy as np

from benchmarks.figures import ROOT
from posenet_ros import ModelConfig, PoseNet
from posenet_ros.core.keypoints import POSE_TREE
from posenet_ros.core.preprocess import preprocess
from posenet_ros.io.photos import read_image

COUPLE = ROOT.parent / 'shared/images/couple640.png'

# One standing person, x and y of the 17 keypoints, one unit tall.
STANDING = np.array(
    [
        (0, -0.5), (0.02, -0.52), (-0.02, -0.52), (0.05, -0.5), (-0.05, -0.5), (0.12, -0.34),
        (-0.12, -0.34), (0.16, -0.16), (-0.16, -0.16), (0.16, 0), (-0.16, 0), (0.08, 0),
        (-0.08, 0), (0.09, 0.25), (-0.09, 0.25), (0.1, 0.5), (-0.1, 0.5),
    ]
)  # fmt: skip


def photo(width: int = 0, height: int = 0) -> np.ndarray:
    """uint8 RGB: two people where the project's own photos are there, otherwise an astronaut."""
    if COUPLE.exists():
        image = read_image(COUPLE)
    else:
        from skimage import data

        image = data.astronaut()
    return cv2.resize(image, (width, height)) if width else image


def photo_name() -> str:
    return 'two people, 640 x 426' if COUPLE.exists() else 'an astronaut, 512 x 512'


def heads_of(net: PoseNet, image: np.ndarray) -> list[np.ndarray]:
    """The four maps that the network gives for an image."""
    size = net.config.input_size(*image.shape[:2])
    batch = net.backend.input_buffer(1, *size)
    preprocess(image, net.config.architecture, batch[0])
    return [head[0].copy() for head in net.backend.run(batch)]


def couple_maps(resolution: int) -> list[np.ndarray]:
    with PoseNet.load(ModelConfig(input_resolution=resolution), 'onnxruntime') as net:
        return heads_of(net, photo())


def crowd_maps(people: int, size: int = 65, stride: int = 8, seed: int = 0) -> list[np.ndarray]:
    """Maps of a network that is certain of everybody: people in rows, a little jittered."""
    generator = np.random.default_rng(seed)
    per_row = int(np.ceil(np.sqrt(2 * people)))
    pitch = size * stride / (per_row + 1)
    places = [(x + 1, 2 * y + 1.5) for y in range(per_row) for x in range(per_row)][:people]
    centres = pitch * np.array(places) + generator.uniform(-0.1, 0.1, (people, 2)) * pitch
    keypoints = centres[:, None] + 1.5 * pitch * STANDING  # people, 17, 2
    rows, columns = np.mgrid[:size, :size] * stride
    cells = np.stack([columns, rows], axis=-1).astype(np.float64)
    heat = np.zeros((size, size, 17), np.float32)
    offsets = np.zeros((size, size, 34), np.float32)
    forward = np.zeros((size, size, 32), np.float32)
    backward = np.zeros((size, size, 32), np.float32)
    nearest = {}
    for part in range(17):
        to_people = keypoints[:, part, None, None] - cells  # people, y, x, 2
        distances = np.linalg.norm(to_people, axis=-1)
        nearest[part] = distances.argmin(axis=0)
        closest = distances.min(axis=0)
        heat[..., part] = 0.98 * np.exp(-((closest / (1.2 * stride)) ** 2))
        way = np.take_along_axis(to_people, nearest[part][None, ..., None], axis=0)[0]
        offsets[..., part], offsets[..., part + 17] = way[..., 1], way[..., 0]
    for edge, (parent, child) in enumerate(POSE_TREE):
        for field, source, target in ((forward, parent, child), (backward, child, parent)):
            way = keypoints[nearest[source], target] - cells
            field[..., edge], field[..., edge + 16] = way[..., 1], way[..., 0]
    return [heat, offsets, forward, backward]


def noise_maps(size: int = 65, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [
        generator.random((size, size, 17), np.float32),
        *(
            generator.normal(0, 30, (size, size, depth)).astype(np.float32)
            for depth in (34, 32, 32)
        ),
    ]
