"""People in metres: errors of joints and of claims against rendered people, and the time it takes.

Joints are given where they are in the image, or off by half as much as people's labels differ, and
by the network itself, which sees the rendered image.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.figures import ROOT, Section
from posenet_ros.config import DecoderConfig, ModelConfig
from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import SKELETON
from posenet_ros.estimator import PoseNet
from posenet_ros.space.lift import GUESSED, PoseLifter

sys.path.insert(0, str(ROOT / 'test'))
from generated_video import agreement
from rendered_people import (
    FISHEYE,
    PINHOLE,
    LiftedJoints,
    Person,
    Seen,
    Stage,
    people_at,
    poses_of,
    random_person,
    render,
)

DISTANCES = (0.5, 0.8, 1.2, 2.0, 3.0, 4.0, 5.0, 6.5, 8.0)
SENSORS = {'': 'exact depth', 'kinect': 'Kinect', 'd435': 'D435'}
LABELS = 0.5  # of the positions in the image: multiples of COCO_SIGMAS
TABLE = (-3.0, 3.0, 0.4, 0.45, 1.2, 2.0)
PLOT = ROOT / 'doc/space.png'
PICTURE = ROOT / 'doc/space_people.png'


def scenes(distance: float, count: int, **options: object) -> Iterable[Stage]:
    for seed in range(count):
        behind = float(np.random.default_rng(seed).uniform(0.5, 3.0))
        yield people_at([distance], seed, wall=distance + behind, **options)


def joints_of(stages: Iterable[Stage], labels: float) -> dict[str, float]:
    return summary(LiftedJoints(stages, labels))


def by_the_network(stages: Iterable[Stage]) -> dict[str, float]:
    """Whoever the network sees of the rendered people, with an OKS of 0.5 or more."""
    config = ModelConfig(input_resolution=513, input_aspect='image')
    with PoseNet.load(config, 'onnxruntime') as net:

        def found(stage: Stage, seen: Seen) -> list[Pose]:
            pixels = stage.camera.project(seen.joints[0])
            poses = net.estimate([seen.colour], DecoderConfig(decoder='refined'))[0]
            best = max(poses, key=lambda p: agreement(p, pixels, seen.visible[0]), default=None)
            good = best is not None and agreement(best, pixels, seen.visible[0]) >= 0.5
            return [best] if good else []

        return summary(LiftedJoints(stages, poses=found))


def summary(found: LiftedJoints) -> dict[str, float]:
    """Figures of the joints in view that were measured, and of all that claim to be."""
    seen = max(found.visible.sum(), 1)
    return {
        'measured': float(found.good.sum() / seen),
        'median': float(np.median(found.error[found.good])),
        'p90': float(np.percentile(found.error[found.good], 90)),
        'within one': found.covered(1),
        'within two': found.covered(2),
        'on the wall': float(found.on_the_wall()),
        'joints': float(found.measured.sum()),
    }


def guesses(distance: float, count: int) -> tuple[float, float, float, float]:
    """Of people of 1.50 to 1.95 m: mean error, mean claim, shares within one and two claims."""
    generator = np.random.default_rng(round(10 * distance))
    errors, claimed = [], []
    for i in range(count):
        stage = Stage(PINHOLE, (random_person(generator, distance),), seed=i)
        seen = render(stage)
        (pose,) = poses_of(seen, PINHOLE, LABELS, i)
        inside = ((pose.keypoints >= 0) & (pose.keypoints < (640, 480))).all(axis=1)
        pose = replace(pose, keypoint_scores=np.where(inside, 0.9, 0.1))
        (person,) = PoseLifter(PINHOLE).lift([pose])
        if person.torso_state == GUESSED:
            true = seen.joints[0][[5, 6, 11, 12], 2].mean()
            errors.append(abs(person.torso[2] / true - 1))
            claimed.append(person.torso_deviation_along / np.linalg.norm(person.torso))
    error, claim = np.array(errors), np.array(claimed)
    shares = (error < claim).mean(), (error < 2 * claim).mean()
    return float(error.mean()), float(claim.mean()), float(shares[0]), float(shares[1])


def milliseconds(people: int, rounds: int) -> float:
    """PoseLifter.lift, for people at 640x480."""
    stage = people_at(np.linspace(1.5, 6.0, people).tolist(), 1, noise='d435')
    seen = render(stage)
    poses, lifter = poses_of(seen, PINHOLE, LABELS), PoseLifter(PINHOLE)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        lifter.lift(poses, seen.depth)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times))


def space(quick: bool) -> Section:
    section = Section('Space', remark='joints in view, in metres; labels: off as people are, half')
    count = 8 if quick else 40
    curves: dict[str, dict[float, dict[str, float]]] = {}
    for noise, sensor in SENSORS.items():
        for labels, words in ((0.0, 'exact keypoints'), (LABELS, 'keypoints off')):
            curve = curves[f'{sensor}, {words}'] = {}
            for distance in DISTANCES:
                found = joints_of(scenes(distance, count, noise=noise), labels)
                curve[distance] = found
                _add(
                    section,
                    f'{sensor}, {words}, {distance:g} m',
                    found,
                    distance,
                    noise,
                    labels == 0,
                )
    for name, stages in (
        ('behind a table, 2.5 m', scenes(2.5, count, noise='d435', table=TABLE)),
        ('fisheye, 2 m', scenes(2.0, count, noise='kinect', camera=FISHEYE)),
        (
            'five people in front of each other',
            (
                people_at([1.5, 2.2, 3.0, 4.0, 5.5], seed, noise='kinect', wall=6.5)
                for seed in range(count)
            ),
        ),
    ):
        _add(section, name, joints_of(stages, LABELS))
    _add(section, 'by the network, 3 m', by_the_network(scenes(3.0, count, noise='kinect')))
    for distance in (1.5, 3.0, 6.0):
        error, claim, one, two = guesses(distance, 3 * count)
        section.add(
            f'without depth, {distance:g} m: mean error of the distance',
            error,
            note=f'claims {claim:.3f}; within one {one:.2f}, within two {two:.2f}',
        )
    section.add('PoseLifter.lift, 5 people', milliseconds(5, 300), 'ms', 1.0)
    section.add('PoseLifter.lift, 1 person', milliseconds(1, 300), 'ms')
    draw(curves, PLOT)
    draw_people(PICTURE)
    return section


def _add(
    section: Section,
    name: str,
    found: dict[str, float],
    distance: float = 0.0,
    noise: str = '',
    exact: bool = False,
) -> None:
    target = [0.03 + SENSOR_NOISE[noise]] if distance == 3.0 and exact else []
    section.add(
        f'{name}: median error',
        found['median'],
        'm',
        *target,
        note=f'p90 {found["p90"]:.3f}, measured {found["measured"]:.2f}, claims '
        f'{found["within one"]:.2f} {found["within two"]:.2f}, on the wall '
        f'{found["on the wall"]:.0f} of {found["joints"]:.0f}',
    )


SENSOR_NOISE = {'': 0.0, 'kinect': 0.014, 'd435': 0.027}  # metres at 3 m


def draw(curves: dict[str, dict[float, dict[str, float]]], path: Path) -> None:
    """Errors and claims against distance."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, (errors, claims) = pyplot.subplots(1, 2, figsize=(11, 4))
    for name, curve in curves.items():
        style = '--' if 'exact keypoints' in name else '-'
        colour = dict(zip(SENSORS.values(), ('C0', 'C1', 'C2'), strict=True))[name.split(', ')[0]]
        distances = list(curve)
        errors.plot(
            distances,
            [100 * curve[d]['median'] for d in distances],
            style,
            color=colour,
            label=name,
        )
        for share, mark in (('within one', 'o'), ('within two', 's')):
            claims.plot(distances, [curve[d][share] for d in distances], style, color=colour,
                        marker=mark, markersize=4)  # fmt: skip
    errors.set_xlabel('distance (m)')
    errors.set_ylabel('median error of joints in view (cm)')
    errors.legend(fontsize=8)
    for share in (0.68, 0.95):
        claims.axhline(share, color='grey', linewidth=0.8)
    claims.set_xlabel('distance (m)')
    claims.set_ylabel('share within one (circles) and two deviations')
    claims.set_ylim(0.4, 1.02)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_people(path: Path) -> None:
    """Three people: in the image, from above, and from the side; crosses are the truth."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    people = (
        Person(x=-0.7, z=2.6, yaw=0.4, arms=(1.2, 0.2), arms_aside=(0.3, 0.5)),
        Person(
            x=0.55, z=3.4, yaw=-0.6, thighs=(0.4, -0.3), knees=(0.1, 0.4), arms_aside=(0.2, 1.2)
        ),
        Person(x=-0.05, z=4.4, yaw=2.8),
    )
    seen = render(Stage(PINHOLE, people, wall=5.5, noise='d435', seed=3))
    lifted = PoseLifter(PINHOLE).lift(poses_of(seen, PINHOLE, LABELS, 1), seen.depth)
    figure, (image, above, aside) = pyplot.subplots(1, 3, figsize=(13, 3.8))
    image.imshow(seen.colour)
    image.axis('off')
    for number, (person, joints) in enumerate(zip(lifted, seen.joints, strict=True)):
        points, colour = person.points, f'C{number}'
        unit = points / np.linalg.norm(points, axis=1, keepdims=True)
        sure = person.deviations_along[:, None] * unit
        pixels = PINHOLE.project(points)
        for axes, flat, ends in (
            (image, pixels, None),
            (above, points[:, [0, 2]], sure[:, [0, 2]]),
            (aside, points[:, [2, 1]] * (1, -1), sure[:, [2, 1]] * (1, -1)),
        ):
            for bone in SKELETON:
                axes.plot(*flat[list(bone)].T, color=colour)
            axes.plot(*flat.T, 'o', markersize=3, color=colour)
            for at, end in zip(flat, () if ends is None else ends, strict=False):
                axes.plot(*np.stack([at - end, at + end], axis=1), color=colour, linewidth=0.6)
        above.plot(*joints[:, [0, 2]].T, 'k+', markersize=5)
        aside.plot(*(joints[:, [2, 1]] * (1, -1)).T, 'k+', markersize=5)
    above.axhline(5.5, color='grey')
    aside.axvline(5.5, color='grey')
    for axes, x, y in ((above, 'x (m), from above', 'z'), (aside, 'z (m), from the side', '-y')):
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_aspect('equal')
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
