"""Settings against labelled photos over workers: a task is one setting and some of the photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import MIN_POSE_SCORE
from posenet_ros.evaluation.accuracy import accuracy
from posenet_ros.evaluation.labels import Photo
from posenet_ros.evaluation.settings import (
    Evaluation,
    Setting,
    estimate_timed,
    input_scale,
    read_photo,
    some_of,
)
from posenet_ros.recordings.workers import Worker, Workers

Progress = Callable[[Iterable['Future[_Run]'], int], Iterable['Future[_Run]']]
# Poses of photos, by their ids, and milliseconds of each.
_Run = tuple[dict[int, list[Pose]], list[float]]


def evaluate_over(
    workers: Workers,
    settings: Sequence[Setting],
    photos: Sequence[Photo],
    folder: Path,
    min_score: float = MIN_POSE_SCORE,
    progress: Progress = lambda items, total: items,
) -> list[Evaluation]:
    """Runs settings over photos and scores them; see settings.evaluate, which takes times fairly.

    Args:
        workers: that share settings, and photos where there are more workers than settings.
        settings: to be compared.
        photos: with their labels.
        folder: that their file names are in, where each worker sees it.
        min_score: of poses that count as false if they are nobody.
        progress: wraps the tasks, given their number.

    Raises:
        PoseNetError: whatever loading and running a setting raises.
    """
    shares = -(-workers.size // max(1, len(settings)))
    tasks = [
        workers.submit((run_setting, (setting, photos[i::shares], folder)))
        for setting in settings
        for i in range(min(shares, len(photos)))
    ]
    runs = [future.result() for future in progress(tasks, len(tasks))]
    of_each = len(runs) // max(1, len(settings))
    return [
        _scored(setting, photos, runs[i * of_each : (i + 1) * of_each], min_score)
        for i, setting in enumerate(settings)
    ]


def evaluate_fast_ones_over(
    workers: Workers,
    settings: Sequence[Setting],
    photos: Sequence[Photo],
    folder: Path,
    min_score: float,
    milliseconds: float,
    progress: Progress = lambda items, total: items,
) -> list[tuple[Setting, Evaluation]]:
    """As settings.evaluate_fast_ones, with a setting for each worker at a time."""
    some = some_of(photos)
    tasks = [
        workers.submit((run_fast_setting, (setting, some, photos, folder, milliseconds)))
        for setting in settings
    ]
    runs = [future.result() for future in progress(tasks, len(tasks))]
    return [
        (setting, _scored(setting, photos, [run], min_score))
        for setting, run in zip(settings, runs, strict=True)
        if run is not None
    ]


def run_setting(worker: Worker, setting: Setting, photos: Sequence[Photo], folder: Path) -> _Run:
    """The poses of photos, and how long each took; the first of an input size runs twice."""
    net = worker.net(setting.model, setting.runtime)
    poses: dict[int, list[Pose]] = {}
    times: list[float] = []
    known: set[tuple[int, int]] = set()
    for photo in photos:
        image = read_photo(photo, folder)
        poses[photo.id], milliseconds = estimate_timed(net, setting, image, known)
        times.append(milliseconds)
        worker.count(1)
    return poses, times


def run_fast_setting(
    worker: Worker,
    setting: Setting,
    some: Sequence[Photo],
    photos: Sequence[Photo],
    folder: Path,
    milliseconds: float,
) -> _Run | None:
    """As run_setting, if the median time over some photos is in a limit."""
    _, times = run_setting(worker, setting, some, folder)
    if np.median(times) > milliseconds:
        return None
    return run_setting(worker, setting, photos, folder)


def _scored(
    setting: Setting, photos: Sequence[Photo], runs: Sequence[_Run], min_score: float
) -> Evaluation:
    found = {number: poses for run, _ in runs for number, poses in run.items()}
    time_of = {
        number: milliseconds
        for run, times in runs
        for number, milliseconds in zip(run, times, strict=True)
    }
    in_order = {photo.id: found[photo.id] for photo in photos}
    result = accuracy(photos, in_order, input_scale(setting.model), min_score)
    return Evaluation(setting.name, result, in_order, tuple(time_of[photo.id] for photo in photos))
