"""Videos: ids, steadiness, and what close-ups of people see for which cost.

On generated videos people's ids and joints are known. On a street and a dancer the same network on
a large input stands for the truth: agreement, not truth. HOTA, IDF1 and id switches are computed by
the library trackers, which also tracks the same poses with ByteTrack and OC-SORT.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.figures import ROOT, Section
from posenet_ros.config import DecoderConfig, ModelConfig, TrackerConfig
from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import MIN_KEYPOINT_SCORE, MIN_POSE_SCORE
from posenet_ros.core.smooth import PoseSmoother
from posenet_ros.core.track import PoseTracker
from posenet_ros.estimator import PoseNet
from posenet_ros.io.source import find_source
from posenet_ros.io.video import Video
from posenet_ros.stream import PoseStream

sys.path.insert(0, str(ROOT / 'test'))
from generated_video import (
    GeneratedFrame,
    Scene,
    Truth,
    Walker,
    agreement,
    random_scene,
    render,
)

SHARED = ROOT.parent / 'shared'
DECODER = DecoderConfig(decoder='refined', max_detections=40, score_threshold=0.3)
SAME_PERSON = 0.5  # OKS
LEAST_VISIBLE = 0.5  # of a person who counts as there
LEAST_LABELLED = 8
LIBRARY = 'trackers==2.6.1'


@dataclass(frozen=True)
class Setting:
    """A model, and how it is called in the tables."""

    name: str
    config: ModelConfig


def whole(side: int) -> Setting:
    return Setting(f'whole {side}', ModelConfig(input_resolution=side, input_aspect='image'))


def people(side: int, closeup: int, most: int = 4, period: float = 0.5) -> Setting:
    config = ModelConfig(
        input_resolution=side,
        input_aspect='image',
        attention='people',
        closeup_resolution=closeup,
        max_closeups=most,
        whole_image_period=period,
    )
    name = f'people: whole {side} every {period:g} s, {most} close-ups of {closeup}'
    return Setting(name, config)


@dataclass
class Run:
    """What a setting gave on some videos, and what it cost."""

    poses: list[list[list[Pose]]] = field(default_factory=list)  # video, frame
    pixels: float = 0.0  # of the network's input, a frame
    milliseconds: float = 0.0  # a frame


Frames = Sequence[tuple[float, np.ndarray]]


def run(setting: Setting, videos: Sequence[Frames]) -> Run:
    """All videos, one after the other, in one thread."""
    result, frames = Run(), 0
    with PoseNet.load(setting.config, 'onnxruntime', num_threads=1) as net:
        for video in videos:
            stream = PoseStream(setting.config, TrackerConfig())
            result.poses.append([])
            for seconds, image in video:
                started = time.perf_counter()
                poses = net.estimate_stream(image, seconds, stream, DECODER)
                result.milliseconds += 1000 * (time.perf_counter() - started)
                result.poses[-1].append(poses)
                result.pixels += sum(closeup.pixels for closeup in stream.closeups)
                if stream.whole:
                    result.pixels += math.prod(setting.config.input_size(*image.shape[:2]))
                frames += 1
    result.pixels /= frames
    result.milliseconds /= frames
    return result


# Against the same network on a large input.


def read(name: str, first: int, end: int) -> Frames:
    with Video(find_source(str(SHARED / 'video' / name))) as video:
        return [
            (frame.seconds, np.ascontiguousarray(frame.image))
            for frame in video
            if first <= frame.index < end
        ]


def on_a_large_input(frames: Frames, side: int, most: int) -> list[list[Pose]]:
    """The clear people that a large whole image shows, at most `most` of each frame."""
    with PoseNet.load(whole(side).config, 'onnxruntime') as net:
        found = [net.estimate([image], DECODER)[0] for _, image in frames]
    clear = [
        [
            pose
            for pose in poses
            if pose.score >= MIN_POSE_SCORE
            and (pose.keypoint_scores >= MIN_KEYPOINT_SCORE).sum() >= 3
        ]
        for poses in found
    ]
    return [sorted(poses, key=lambda pose: -pose.score)[:most] for poses in clear]


def found_and_oks(poses: list[list[Pose]], wanted: list[list[Pose]]) -> tuple[float, float]:
    """The share of the wanted people who were found, and the mean OKS of those."""
    matched: list[float] = []
    for seen, there in zip(poses, wanted, strict=True):
        similar = np.array(
            [
                [agreement(p, t.keypoints, t.keypoint_scores >= MIN_KEYPOINT_SCORE) for t in there]
                for p in seen
            ]
        ).reshape(len(seen), len(there))
        while similar.size and similar.max() >= SAME_PERSON:
            i, j = np.unravel_index(similar.argmax(), similar.shape)
            matched.append(float(similar[i, j]))
            similar[i], similar[:, j] = -1, -1
    total = sum(len(there) for there in wanted)
    return len(matched) / total, float(np.mean(matched)) if matched else 0.0


# On generated videos.


def similarities(poses: list[Pose], there: list[Truth]) -> tuple[list[Truth], list[Pose], Any]:
    """The people who count, the poses that count, and their OKS.

    People who are mostly hidden, and poses of them, count neither way.
    """
    similar = np.array([[agreement(p, t.joints, t.labelled) for p in poses] for t in there])
    similar = similar.reshape(len(there), len(poses))
    counts = np.array(
        [t.visible >= LEAST_VISIBLE and t.labelled.sum() >= LEAST_LABELLED for t in there], bool
    )
    at_hidden = similar[~counts].max(axis=0, initial=0.0) >= SAME_PERSON
    keep = ~at_hidden | (similar[counts].max(axis=0, initial=0.0) >= SAME_PERSON)
    return (
        [t for t, counted in zip(there, counts, strict=True) if counted],
        [pose for pose, kept in zip(poses, keep, strict=True) if kept],
        similar[counts][:, keep],
    )


def for_the_library(
    videos: list[list[GeneratedFrame]], poses: list[list[list[Pose]]]
) -> list[list[dict[str, Any]]]:
    """What benchmarks/published_tracker.py reads."""
    result = []
    for video, seen in zip(videos, poses, strict=True):
        frames = []
        for frame, all_poses in zip(video, seen, strict=True):
            sure = [pose for pose in all_poses if pose.score >= MIN_POSE_SCORE]
            there, counted, similar = similarities(all_poses, frame.people)
            rows = {id(pose): i for i, pose in enumerate(counted)}
            frames.append(
                {
                    'seconds': frame.seconds,
                    'truth': [t.id for t in there],
                    'ids': [pose.track_id for pose in counted],
                    'similar': similar.tolist(),
                    # For the other trackers: all sure poses, and which column of `similar` each is.
                    'boxes': [list(_box(pose)) for pose in sure],
                    'scores': [float(_clear(pose)[1].mean()) for pose in sure],
                    'columns': [rows.get(id(pose), -1) for pose in sure],
                }
            )
        result.append(frames)
    return result


def _clear(pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    clear = pose.keypoint_scores >= MIN_KEYPOINT_SCORE
    clear = clear if clear.sum() > 1 else np.ones(17, bool)
    return pose.keypoints[clear], pose.keypoint_scores[clear]


def _box(pose: Pose) -> Iterator[float]:
    points, _ = _clear(pose)
    return map(float, (*points.min(axis=0), *points.max(axis=0)))


def ask_the_library(runs: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Metrics of our ids and of other trackers', by run and tracker."""
    folder = ROOT / 'build/trackers'
    python = folder / 'bin/python'
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run(
            [python, '-m', 'pip', '--disable-pip-version-check', 'install', '-q', LIBRARY],
            check=True,
        )
    script = ROOT / 'benchmarks/published_tracker.py'
    answer = subprocess.run(
        [python, script], input=json.dumps(runs), capture_output=True, text=True, check=True
    )
    metrics: dict[str, dict[str, dict[str, float]]] = json.loads(answer.stdout)
    return metrics


def mean_oks(videos: list[list[GeneratedFrame]], poses: list[list[list[Pose]]]) -> float:
    """Of everybody who is there; 0 for whom nobody found."""
    best = [
        row.max(initial=0.0)
        for video, seen in zip(videos, poses, strict=True)
        for frame, all_poses in zip(video, seen, strict=True)
        for row in similarities(all_poses, frame.people)[2]
    ]
    return float(np.mean(best))


def jitter(setting: Setting, videos: list[list[GeneratedFrame]]) -> tuple[float, float, float]:
    """How much the clear joints of one person shake.

    Returns:
        Their mean acceleration in pixels per frame squared, before and after smoothing, and how far
        they lag behind along x then, in pixels.
    """
    raw, smooth, lags = [], [], []
    poses = run(setting, [[(f.seconds, f.image) for f in video] for video in videos]).poses
    for video, seen in zip(videos, poses, strict=True):
        smoother, pairs = PoseSmoother(), []
        for frame, found in zip(video, seen, strict=True):
            smoothed = smoother.update(found, frame.seconds)
            both = [
                (agreement(p, frame.people[0].joints, frame.people[0].labelled), p, s)
                for p, s in zip(found, smoothed, strict=True)
                if p.track_id >= 0
            ]
            if both:
                pairs.append(max(both, key=lambda pair: pair[0])[1:])
        clear = np.array([p.keypoint_scores >= MIN_KEYPOINT_SCORE for p, _ in pairs])
        steady = clear[2:] & clear[1:-1] & clear[:-2]
        before = np.array([p.keypoints for p, _ in pairs])
        after = np.array([s.keypoints for _, s in pairs])
        for points, means in ((before, raw), (after, smooth)):
            means.append(np.linalg.norm(np.diff(points, 2, axis=0), axis=-1)[steady].mean())
        lags.append(np.median((before - after)[len(before) // 2 :, :, 0]))
    return float(np.mean(raw)), float(np.mean(smooth)), float(np.mean(lags))


def milliseconds_of_tracking(count: int) -> float:
    """PoseTracker.update, for people who walk about."""
    generator = np.random.default_rng(0)
    shapes = generator.uniform(-40, 40, (count, 17, 2)) * (1, 2)
    places = generator.uniform(0, 320 * math.sqrt(count), (count, 2))
    speeds = generator.normal(0, 40, (count, 2))
    tracker, times = PoseTracker(), []
    scores, deviations = np.full(17, 0.7), np.full(17, 3.0)
    for i in range(100):
        poses = [
            Pose(
                0.5,
                shape + place + speed * i / 30 + generator.normal(0, 2, (17, 2)),
                scores,
                deviations,
            )
            for shape, place, speed in zip(shapes, places, speeds, strict=True)
        ]
        started = time.perf_counter()
        tracker.update(poses, i / 30)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times))


def video(quick: bool) -> Section:
    section = Section(
        'Video', remark='one thread; cost is network pixels, those of a whole 257 are 1'
    )
    unit = math.prod(whole(257).config.input_sizes.typical)

    # The street from above, where people are 30 pixels tall in a whole 257.
    frames = read('vtest.avi', 100, 140)
    wanted = on_a_large_input(frames, 1025, 40)
    base = run(whole(257), [frames])
    for setting in (whole(257), whole(513), people(513, 193, 6, 1.0)):
        result = run(setting, [frames])
        found, oks = found_and_oks(result.poses[0], wanted)
        follows = setting.config.attention == 'people'
        cost = result.pixels / unit
        slower = result.milliseconds / base.milliseconds
        name = f'street, {setting.name}'
        section.add(f'{name}: found', found, '', *([0.75, True] if follows else []))
        section.add(f'{name}: OKS of the found', oks, '', *([0.83, True] if follows else []))
        section.add(
            f'{name}: cost',
            cost,
            '',
            *([2.7] if follows else []),
            note=f'{slower:.2f} times the time',
        )

    # One dancer who fills the frame.
    frames = read('pose_1.mp4', 0, 30 if quick else 120)
    wanted = on_a_large_input(frames, 577, 1)
    base = run(whole(257), [frames])
    for setting in (whole(257), people(257, 225, 4, 1.0)):
        result = run(setting, [frames])
        _, oks = found_and_oks(result.poses[0], wanted)
        follows = setting.config.attention == 'people'
        name = f'dancer, {setting.name}'
        section.add(f'{name}: OKS', oks, '', *([0.93, True] if follows else []))
        section.add(
            f'{name}: cost',
            result.pixels / unit,
            '',
            *([1.05] if follows else []),
            note=f'{result.milliseconds / base.milliseconds:.2f} times the time',
        )

    # People whose ids and joints are known.
    scenes = [list(render(random_scene(seed))) for seed in range(4 if quick else 24)]
    plain = [[(frame.seconds, frame.image) for frame in scene] for scene in scenes]
    settings = [
        whole(257),
        people(257, 129),
        whole(321),
        people(257, 161),
        whole(385),
        people(385, 193),
        whole(513),
        people(385, 257, 6),
    ]
    results = {setting.name: run(setting, plain) for setting in settings}
    metrics = ask_the_library(
        {name: for_the_library(scenes, result.poses) for name, result in results.items()}
    )
    for name, result in results.items():
        ours = metrics[name]['ours']
        label = f'generated, {name}'
        section.add(
            f'{label}: OKS',
            mean_oks(scenes, result.poses),
            note=f'cost {result.pixels / unit:.2f}, {result.milliseconds:.1f} ms',
        )
        others = ', '.join(
            f'{tracker} {values["IDF1"]:.3f} ({values["IDSW"]:.0f})'
            for tracker, values in metrics[name].items()
            if tracker != 'ours'
        )
        best = max(v['IDF1'] for tracker, v in metrics[name].items() if tracker != 'ours')
        section.add(
            f'{label}: IDF1',
            ours['IDF1'],
            '',
            best,
            True,
            note=f'HOTA {ours["HOTA"]:.3f}, {ours["IDSW"]:.0f} switches; {others}',
        )

    # Somebody who stands, and somebody who walks.
    standing = [
        list(render(Scene((Walker(i, (320, 400), (0, 0), 250.0),), 4.0, noise=4, seed=i)))
        for i in range(2 if quick else 8)
    ]
    raw, smooth, _ = jitter(people(385, 193), standing)
    section.add(
        'smoothing: acceleration of a standing person',
        smooth / raw,
        '',
        1 / 3,
        note=f'{smooth:.2f} of {raw:.2f} px per frame squared',
    )
    for speed in (60.0, 150.0):
        walking = [
            list(render(Scene((Walker(i, (120, 400), (speed, 0), 250.0),), 3.0, seed=i)))
            for i in range(1 if quick else 4)
        ]
        lag = jitter(people(385, 193), walking)[2]
        section.add(
            f'smoothing: lag at {speed:g} px/s', 1000 * lag / speed, 'ms', note=f'{lag:.1f} px'
        )
    for count, target in ((10, 0.1), (100, 1.0)):
        section.add(f'tracker, {count} people', milliseconds_of_tracking(count), 'ms', target)
    return section
