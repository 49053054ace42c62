"""Writes config/depth_demo: somebody who walks about, in colour and depth, for demo.launch.py.

Usage: PYTHONPATH=test python tools/make_depth_demo.py. Rendered by test/rendered_people.py, with
the noise of a Kinect; colours as JPEG, depths in millimetres as PNG of 16 bits.
"""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image
from rendered_people import Person, Stage, render

from posenet_ros import CameraModel

FOLDER = Path(__file__).resolve().parent.parent / 'config/depth_demo'
FRAMES = 14
STEP = 16  # millimetres
WIDTH, HEIGHT = 320, 240
FOCAL = WIDTH / 2 / math.tan(math.radians(30))  # image_source's default field of view


def person(i: int) -> Person:
    """Towards the camera and aside, with an arm that waves."""
    phase = 2 * math.pi * i / FRAMES
    stride = 0.35 * math.sin(2 * phase)
    return Person(
        x=0.4 * math.sin(phase),
        z=3.15 + 0.3 * math.cos(phase),
        yaw=0.25 * math.cos(phase),
        thighs=(stride, -stride),
        knees=(max(-stride, 0.0), max(stride, 0.0)),
        arms_aside=(0.5, 1.1 + 0.4 * math.sin(2 * phase)),
        elbows=(0.2, 0.3),
    )


def main() -> None:
    camera = CameraModel(WIDTH, HEIGHT, FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    for part in ('colour', 'depth'):
        (FOLDER / part).mkdir(parents=True, exist_ok=True)
    for i in range(FRAMES):
        seen = render(Stage(camera, (person(i),), wall=4.5, noise='kinect', seed=i))
        Image.fromarray(seen.colour).save(FOLDER / f'colour/{i:02}.jpg', quality=88)
        coarse = seen.depth // STEP * STEP  # or the noise of the wall would be most of the file
        Image.fromarray(coarse).save(FOLDER / f'depth/{i:02}.png', optimize=True)


if __name__ == '__main__':
    main()
