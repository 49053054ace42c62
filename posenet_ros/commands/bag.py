"""posenet bag: poses for the images of a bag, or of many."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from posenet_ros.commands.options import (
    add_estimation_options,
    add_video_options,
    config_from,
    tracking_from,
)
from posenet_ros.commands.outputs import Problems, check_outputs, kept, say, tell
from posenet_ros.commands.progress_bar import BagProgress
from posenet_ros.commands.worker_options import (
    add_worker_options,
    in_this_process,
    opened_workers,
    runtime_of_workers,
)
from posenet_ros.config import DecoderConfig, ModelConfig
from posenet_ros.environment import dependencies_for
from posenet_ros.errors import PoseNetError
from posenet_ros.io.sampling import look_at
from posenet_ros.io.source import expect, find_source
from posenet_ros.recordings.find import find_bags, is_bag, is_one_bag
from posenet_ros.recordings.job import BagJob, BagSettings, Outcome, finished_before, size_of
from posenet_ros.recordings.storage import anywhere, errors_of, is_remote, path_of

REQUESTS_AT_ONCE = 16  # to where the bags are
# Until what an earlier run or a lost node was writing is let go.
ENDED_RUN_SECONDS = 2.0
LOST_NODE_SECONDS = 30.0

EXAMPLES = """examples:
  posenet bag recorded/ with_poses/
  posenet bag recorded.mcap with_poses/ --node --topic /camera/image_raw --annotated
  posenet bag recorded/ in_space/ --node --topic /color/image_raw --depth /depth/image_rect
  posenet bag recordings/ results/ --node --workers 4 --parquet tables/
  posenet bag 's3://robots/2026-11/**/*.mcap' s3://robots/poses --node --ray"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        'bag',
        help='add poses to recorded bags',
        description='Reads the Image and CompressedImage topics of a rosbag2 and writes a bag with '
        'a PoseArray on TOPIC/poses for every image on TOPIC, at the same time and with the same '
        'header. What cannot be read is told and passed over; the exit status is then 1. Of many '
        'bags (several, a folder of them, a pattern, a list) OUT is a folder with a bag for each; '
        'run it again, and it does what is new, changed or failed. Needs the packages rosbags and '
        'mcap (pip install posenet_ros[bag]).',
    )
    parser.add_argument(
        'input',
        nargs='+',
        metavar='IN',
        help='rosbag2 folder, MCAP or sqlite3; a folder of bags; a pattern in quotes; a list '
        'NAME.txt; or the URL of one of these, such as s3://bucket/folder',
    )
    parser.add_argument(
        'output', metavar='OUT', help='folder of the new bag; of many, folder of the new bags'
    )
    parser.add_argument(
        '--topic', action='append', default=[], help='read this topic; may be given again (all)'
    )
    parser.add_argument(
        '--annotated', action='store_true', help='also write drawn images on TOPIC/annotated'
    )
    parser.add_argument(
        '--storage', choices=('mcap', 'sqlite3'), default='mcap', help='its format (mcap)'
    )
    parser.add_argument(
        '--parquet',
        metavar='DIR',
        help='also write a table for each bag, with a row for each person and frame; needs pyarrow '
        '(pip install posenet_ros[parquet])',
    )
    parser.add_argument(
        '--depth',
        metavar='TOPIC',
        help='also write people in metres on TOPIC/poses_3d, with these depth images, which are '
        'registered to the images',
    )
    parser.add_argument(
        '--size', action='store_true', help='likewise, by the usual size of people alone'
    )
    add_worker_options(parser)
    add_estimation_options(parser)
    add_video_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    with dependencies_for('posenet bag'):
        from posenet_ros.io.bag_writer import remove_leftovers
        from posenet_ros.recordings.run import run_bags
    settings = _settings(options)
    one = is_one_bag(options.input)
    output = path_of(options.output)
    tables = None if options.parquet is None else path_of(options.parquet)
    if tables is not None:
        with dependencies_for('--parquet'):
            import pyarrow  # noqa: F401
    if one:
        jobs = [_the_job(options, output, tables, settings)]
    else:
        jobs = _jobs(options, output, tables, settings)
    problems = Problems()
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        known = [None] if one else list(pool.map(finished_before, jobs))
        left = [job for job, outcome in zip(jobs, known, strict=True) if outcome is None]
        done = [job.target for job, outcome in zip(jobs, known, strict=True) if outcome is not None]
        list(pool.map(remove_leftovers, [path for path in done if not is_remote(path)]))
        sizes = pool.map(size_of, [job.source for job in left])
        bar = BagProgress({job.name: size for job, size in zip(left, sizes, strict=True)})
    # The problems of one bag are told at once; those of many beside the bag's name.
    told = problems.warn if one and in_this_process(options) else None
    outcomes = [outcome for outcome in known if outcome is not None]
    with kept(output if one and not is_remote(output) else None), bar:
        if left:
            with opened_workers(options, settings.runtime, bar.tick, told) as workers:
                bar.watch(workers)
                for outcome in run_bags(left, workers, bar.tick):
                    bar.finished(outcome)
                    outcomes.append(outcome)
                    for text in () if told else (*outcome.problems, *outcome.notes):
                        problems.warn(text if one else f'{outcome.name}: {text}')
                    if outcome.error and not one:
                        problems.warn(f'{outcome.name}: {outcome.error}')
    if one:
        if outcomes[0].error:
            raise PoseNetError(outcomes[0].error)
        say(f'{output}: {_counts(outcomes[0])}')
        problems.items = len(outcomes[0].problems)
        problems.raise_if_incomplete(jobs[0].source)
    else:
        _report_many(outcomes, output)


def _settings(options: argparse.Namespace) -> BagSettings:
    model = config_from(ModelConfig, options)
    tracker, smoothing = tracking_from(options, model)
    return BagSettings(
        model,
        config_from(DecoderConfig, options),
        tracker,
        smoothing,
        runtime_of_workers(options),
        tuple(options.topic),
        options.annotated,
        options.storage,
        options.size or options.depth is not None,
        options.depth,
    )


def _the_job(
    options: argparse.Namespace, output: Path, tables: Path | None, settings: BagSettings
) -> BagJob:
    """The job of one bag, after all that can be wrong with it."""
    path = path_of(options.input[0])
    if is_remote(path):
        find_bags(options.input)
    else:
        source = expect(find_source(options.input[0]), ('bag',), 'posenet estimate reads it')
        path = source.path
    if not is_remote(output):
        check_outputs([path], [output])
    if not is_remote(path):
        look_at(source, options.topic)
    with errors_of(output):
        exists = output.exists()
    if exists:
        raise PoseNetError(f'{output} exists already')
    table = None if tables is None else anywhere(tables / f'{output.name}.parquet')
    if options.ray is not None:
        path, output = anywhere(path), anywhere(output)
    return BagJob(output.name, path, output, table, settings)


def _jobs(
    options: argparse.Namespace, output: Path, tables: Path | None, settings: BagSettings
) -> list[BagJob]:
    """The jobs of many bags. What lies where a result should be, and is none, is an error."""
    seconds = ENDED_RUN_SECONDS if options.ray is None else LOST_NODE_SECONDS
    jobs = [
        BagJob(
            found.name,
            anywhere(found.path),
            anywhere(output / found.name),
            None if tables is None else anywhere(tables / f'{found.name}.parquet'),
            settings,
            replace=True,
            patience=0.0 if is_remote(output) else seconds,
        )
        for found in find_bags(options.input, [output])
    ]
    with errors_of(output):
        in_the_way = output.is_dir() and is_bag(output)
    if in_the_way:
        raise PoseNetError(f'{output} is a bag, where the folder of many is needed')
    return jobs


def _report_many(outcomes: Sequence[Outcome], output: Path) -> None:
    """What became of all bags; the exit status is that of all, whichever run did them."""
    failed = [outcome for outcome in outcomes if outcome.error]
    incomplete = [outcome for outcome in outcomes if outcome.problems and not outcome.error]
    skipped = sum(outcome.skipped for outcome in outcomes)
    done = len(outcomes) - len(failed)
    total = Outcome(
        '',
        sum(outcome.images for outcome in outcomes),
        sum(outcome.people for outcome in outcomes),
        sum(outcome.broken for outcome in outcomes),
    )
    before = f', {skipped} of them by an earlier run' if skipped else ''
    say(f'{output}: {done} of {len(outcomes)} bags{before}: {_counts(total)}')
    if incomplete:
        tell(f'Of {len(incomplete)} bags, a part could not be read:')
        for outcome in incomplete:
            more = f' (and {len(outcome.problems) - 1} more)' * (len(outcome.problems) > 1)
            tell(f'  {outcome.name}: {outcome.problems[0]}{more}')
    if failed:
        tell(f'{len(failed)} bags have no result:')
        for outcome in failed:
            tell(f'  {outcome.name}: {outcome.error}')
    if failed or incomplete:
        raise PoseNetError(
            f'{len(failed)} bags failed, {len(incomplete)} could not be read completely (see '
            'above); the others are complete'
        )


def _counts(outcome: Outcome) -> str:
    broken = f', {outcome.broken} images could not be read' if outcome.broken else ''
    return f'{outcome.people} poses in {outcome.images} images{broken}'
