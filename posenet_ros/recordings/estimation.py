"""Does one bag of many, in one piece or in parts: bag in, new bag and table out."""

from __future__ import annotations

import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from posenet_ros.atomic_file import is_written
from posenet_ros.core.decode import Pose
from posenet_ros.errors import ImageError, PoseNetError
from posenet_ros.estimator import follow_look
from posenet_ros.io.bag import LooksDiffer, add_poses, bag_looks, bag_parts
from posenet_ros.io.bag_file import Part
from posenet_ros.recordings.job import (
    NAME_OF_NOTES,
    BagJob,
    BagSettings,
    Cut,
    Outcome,
    check_target,
    failed,
    notes_about,
)
from posenet_ros.recordings.storage import is_remote, local_copy, written_to
from posenet_ros.recordings.workers import ModelFailed, Worker
from posenet_ros.stream import Look, PoseStream

FRAMES_OF_A_PART = 1000
SECONDS_BETWEEN_TRIES = 0.5  # to write what another run is writing


def estimate_bag(worker: Worker, job: BagJob, may_cut: bool) -> Outcome | Cut:
    """Does a bag; or says in which parts workers can look at it, if it is long.

    Raises:
        ModelFailed: the model cannot be loaded.
    """
    settings = job.settings
    if may_cut and settings.can_be_cut and not is_remote(job.source):
        try:
            parts, images = bag_parts(job.source, settings.topics, settings.depth, FRAMES_OF_A_PART)
        except PoseNetError as error:
            return failed(job, error)
        if len(parts) > 1 and images > FRAMES_OF_A_PART:
            worker.count(0, images)
            return Cut(parts)
    net = worker.net(settings.model, settings.runtime)
    streams = _streams(settings)

    def poses_of(image: np.ndarray, topic: str, seconds: float) -> list[Pose]:
        poses = net.estimate_stream(image, seconds, streams[topic], settings.decoder)
        worker.count(1)
        return poses

    return _written(worker, job, poses_of, None)


def look_at_part(worker: Worker, job: BagJob, part: Part) -> list[Look | ImageError] | None:
    """What is seen in a part of a bag; None if the part is damaged.

    Raises:
        PoseNetError: the bag cannot be read, or the model cannot be loaded or run.
    """
    settings = job.settings
    net = worker.net(settings.model, settings.runtime)

    def look(image: np.ndarray) -> Look:
        found = net.look(image, settings.decoder)
        worker.count(1)
        return found

    return bag_looks(job.source, settings.topics, settings.depth, part, look)


def finish_bag(
    worker: Worker, looks: Iterable[list[Look | ImageError] | None], job: BagJob
) -> Outcome | None:
    """Makes one bag of what was seen in its parts, as estimate_bag would have; None if it cannot.

    It cannot if a part is damaged, or the bag is not what it was: then it has to be done whole.
    """
    settings = job.settings
    streams = _streams(settings)

    def poses_of(look: Look, topic: str, seconds: float) -> list[Pose]:
        return follow_look(look, seconds, streams[topic], settings.decoder)

    try:
        return _written(worker, job, poses_of, _chained(looks))
    except LooksDiffer:
        return None


def _written(
    worker: Worker,
    job: BagJob,
    poses_of: Callable[[Any, str, float], list[Pose]],
    looks: Iterator[Look | ImageError] | None,
) -> Outcome:
    settings = job.settings
    problems: list[str] = []
    notes: list[str] = []
    names: dict[str, str] = {}  # of copies on this machine, and what they are copies of

    def named(text: str) -> str:
        for copy, name in names.items():
            text = text.replace(copy, name)
        return text

    def add_to(texts: list[str], text: str) -> None:
        texts.append(named(text))
        worker.tell(texts[-1])

    def all_notes(counts: Mapping[str, int]) -> dict[str, str]:
        kept = {**about, 'counts': counts, 'problems': problems, 'notes': notes}
        return {NAME_OF_NOTES: json.dumps(kept, sort_keys=True)}

    deadline = time.monotonic() + job.patience
    while time.monotonic() < deadline and is_written(job.target):
        time.sleep(SECONDS_BETWEEN_TRIES)
    try:
        with ExitStack() as stack:
            check_target(job)
            source = stack.enter_context(local_copy(job.source))
            names[str(source)] = str(job.source)
            about = notes_about(job)
            target = stack.enter_context(written_to(job.target, 'metadata.yaml'))
            names[str(target)] = str(job.target)
            table = None
            if job.table is not None:
                from posenet_ros.io.pose_table import pose_table  # needs an optional package

                path = stack.enter_context(written_to(job.table))
                table = pose_table(path, job.name)
            counts = add_poses(
                source,
                target,
                poses_of,
                looks=looks,
                expect=lambda images: worker.count(0, images),
                topics=settings.topics,
                annotated=settings.annotated,
                flipped=settings.decoder.flip_horizontal,
                storage=settings.storage,
                lift=settings.lift,
                depth=settings.depth,
                table=table,
                notes=all_notes,
                replace=job.replace,
                problem=partial(add_to, problems),
                note=partial(add_to, notes),
            )
    except (ModelFailed, LooksDiffer):
        raise
    except Exception as error:  # whatever it is, it does not end the other bags
        outcome = failed(job, error)
        return replace(outcome, error=named(outcome.error), problems=tuple(problems))
    numbers = counts['images'], counts['people'], counts['broken']
    return Outcome(job.name, *numbers, tuple(problems), tuple(notes))


def _streams(settings: BagSettings) -> defaultdict[str, PoseStream]:
    """What is remembered of each topic; ids are shared."""
    ids = itertools.count(1)
    return defaultdict(
        lambda: PoseStream(settings.model, settings.tracker, settings.smoothing, ids)
    )


def _chained(looks: Iterable[list[Look | ImageError] | None]) -> Iterator[Look | ImageError]:
    for part in looks:
        if part is None:
            raise LooksDiffer('a part is damaged')
        yield from part
