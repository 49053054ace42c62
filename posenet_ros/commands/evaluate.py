"""posenet evaluate: how good settings are, held against people's own labels, and what they cost."""

from __future__ import annotations

import argparse
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from posenet_ros.atomic_file import atomic_path, partial_name
from posenet_ros.commands.options import (
    add_estimation_options,
    config_from,
)
from posenet_ros.commands.outputs import Problems, check_outputs, say, warn, write_json
from posenet_ros.commands.progress_bar import with_progress
from posenet_ros.commands.worker_options import (
    add_worker_options,
    in_this_process,
    opened_workers,
    runtime_of_workers,
)
from posenet_ros.config import DecoderConfig, ModelConfig, RuntimeConfig
from posenet_ros.core.keypoints import MIN_POSE_SCORE
from posenet_ros.errors import ConfigError, LabelError, PoseNetError
from posenet_ros.evaluation.accuracy import Accuracy, accuracy
from posenet_ros.evaluation.labels import Photo, read_labels, read_predictions, to_results
from posenet_ros.evaluation.settings import (
    Evaluation,
    EvaluationInterrupted,
    Setting,
    candidates,
    evaluate,
    evaluate_fast_ones,
    frontier,
    is_there,
    read_photo,
)
from posenet_ros.evaluation.spread import evaluate_fast_ones_over, evaluate_over

PLOT_SUFFIXES = ('.png', '.svg', '.pdf', '.jpg')
MOST_NAMES = 20  # settings whose names are all drawn; of more, only those on the frontier


EXAMPLES = """examples:
  posenet evaluate photos/ labels.json
  posenet evaluate recordings/ labels.json --node --tune 50 --workers 4
  posenet evaluate photos/ labels.json --setting 'node: --node' --json scores.json"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        'evaluate',
        help="score settings, or anybody's predictions, against people's own labels",
        description="Runs settings over labelled photos and prints COCO's average precision, the "
        'mean agreement (OKS) over all labelled people, how many of them are found, false people '
        'and milliseconds. Needs pycocotools (pip install posenet_ros[evaluate]).',
    )
    parser.add_argument(
        'images',
        type=Path,
        metavar='IMAGES',
        help='folder of the photos; or a bag or a folder of bags, whose frames posenet frames took',
    )
    parser.add_argument(
        'annotations',
        type=Path,
        nargs='?',
        metavar='ANNOTATIONS.json',
        help="in COCO's keypoint format (IMAGES.json, or labels.json in IMAGES)",
    )
    parser.add_argument(
        '--setting',
        action='append',
        default=[],
        metavar="'NAME: OPTIONS'",
        help='score these options of posenet estimate, on top of those given beside it; may be '
        'given again',
    )
    parser.add_argument(
        '--predictions',
        action='append',
        default=[],
        type=Path,
        metavar='FILE',
        help="score a COCO results file of anybody's; may be given again",
    )
    parser.add_argument(
        '--tune',
        type=float,
        metavar='MILLISECONDS',
        help='try many settings, which takes minutes, and propose the best one that takes at most '
        'this long here for 95 of 100 photos',
    )
    parser.add_argument(
        '--where',
        action='append',
        default=[],
        metavar='KEY=VALUE',
        help='take only photos whose entry has this value, such as split=val',
    )
    parser.add_argument(
        '--min-score',
        type=float,
        default=MIN_POSE_SCORE,
        metavar='SCORE',
        help=f'score from which a pose that is nobody counts as false ({MIN_POSE_SCORE})',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all figures to a file')
    parser.add_argument('--plot', type=Path, metavar='FILE', help='draw accuracy against time')
    parser.add_argument(
        '--plot-deviations',
        type=Path,
        metavar='FILE',
        help='draw how many errors are within how many deviations',
    )
    parser.add_argument(
        '--save-predictions',
        type=Path,
        metavar='FOLDER',
        help='write the poses of each setting as a COCO results file',
    )
    add_worker_options(parser)
    add_estimation_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    _check(options)
    problems = Problems()
    settings = [] if options.tune is not None else _settings(options)
    photos = _photos(options, bool(settings) or options.tune is not None, problems)
    evaluations = []
    for path in options.predictions:
        poses = read_predictions(path, photos)
        result = accuracy(photos, poses, min_score=options.min_score)
        evaluations.append(Evaluation(path.stem, result, poses, ()))
    if options.tune is not None:
        if 'node' not in options:
            options.node = Path()  # what is proposed is for the node
        tried = _tried(options, photos)
        settings = [setting for setting, _ in tried]
        evaluations += [evaluation for _, evaluation in tried]
    elif not in_this_process(options):
        with opened_workers(options, runtime_of_workers(options)) as workers:
            evaluations += evaluate_over(
                workers, settings, photos, options.images, options.min_score, with_progress
            )
    else:
        try:
            evaluations += evaluate(
                settings, photos, options.images, options.min_score, with_progress
            )
        except EvaluationInterrupted as stop:
            _tell_unfinished(stop, len(photos), settings, options)
            raise stop.interruption from stop
    say(_table(evaluations))
    say('')
    say(_table_of_heights(evaluations))
    if options.tune is not None:
        say('')
        say(_proposal(evaluations, settings, options.tune))
    if options.json is not None:
        _write(options.json, evaluations, settings)
    if options.plot is not None:
        _plot(evaluations, options.plot)
    if options.plot_deviations is not None:
        _plot_deviations(evaluations, options.plot_deviations)
    if options.save_predictions is not None:
        for i, evaluation in enumerate(evaluations):
            path = options.save_predictions / f'{i}.json'
            write_json(path, to_results(evaluation.poses))
            say(f'{path}: {evaluation.name}')
    problems.raise_if_any('photos', len(photos))


def _tried(
    options: argparse.Namespace, photos: Sequence[Photo]
) -> list[tuple[Setting, Evaluation]]:
    """The settings of --tune that are fast enough, and what became of them."""
    tried = list(candidates(_setting('as given', options)))
    if in_this_process(options):
        return evaluate_fast_ones(
            with_progress(tried), photos, options.images, options.min_score, options.tune
        )
    with opened_workers(options, runtime_of_workers(options)) as workers:
        return evaluate_fast_ones_over(
            workers,
            tried,
            photos,
            options.images,
            options.min_score,
            options.tune,
            with_progress,
        )


def _tell_unfinished(
    stop: EvaluationInterrupted,
    num_photos: int,
    settings: Sequence[Setting],
    options: argparse.Namespace,
) -> None:
    """The figures of the photos that were finished."""
    say(_table(stop.evaluations))
    warn(f'interrupted: these are {stop.num_photos} of {num_photos} photos')
    if options.json is not None:
        partial = partial_name(options.json)
        _write(partial, stop.evaluations, settings)
        warn(f'what was finished is in {partial}')


def _write(path: Path, evaluations: Sequence[Evaluation], settings: Sequence[Setting]) -> None:
    described = {setting.name: setting for setting in settings}
    write_json(path, [_to_json(e, described.get(e.name)) for e in evaluations], 1)


def _predictions(options: argparse.Namespace) -> list[Path]:
    """The files that --save-predictions may replace."""
    folder = options.save_predictions
    return [] if folder is None else sorted(folder.glob('[0-9]*.json'))


def _labels_beside(images: Path) -> Path:
    """Where the labels of photos or bags are, if it is not said.

    Raises:
        LabelError: there are none.
    """
    places = [images.with_suffix('.json'), Path(f'{images}.json'), images / 'labels.json']
    for path in places:
        if path.is_file():
            return path
    raise LabelError(f'there are no labels for {images}: neither {places[1]} nor {places[2]}')


def _check(options: argparse.Namespace) -> None:
    """Refuses what would fail only after minutes of work."""
    runtime_of_workers(options)
    if options.annotations is None:
        options.annotations = _labels_beside(options.images)
    options.images = options.images.absolute()  # as workers see it
    if not 0 <= options.min_score <= 1:
        raise ConfigError(f'Invalid --min-score {options.min_score}. Should be from 0 to 1')
    if options.tune is not None and not (options.tune > 0 and math.isfinite(options.tune)):
        raise ConfigError(f'Invalid --tune {options.tune}. Should be milliseconds above 0')
    if options.tune is not None and options.setting:
        raise ConfigError('--tune tries its own settings; leave out --setting')
    check_outputs(
        [options.images, options.annotations, *options.predictions],
        [options.json, options.plot, options.plot_deviations, *_predictions(options)],
    )
    for plot in (options.plot, options.plot_deviations):
        if plot is not None and plot.suffix not in PLOT_SUFFIXES:
            raise PoseNetError(
                f'cannot draw {plot}: its name should end in {", ".join(PLOT_SUFFIXES)}'
            )
    if options.plot is not None or options.plot_deviations is not None:
        _pyplot()
    if options.save_predictions is not None:
        try:
            options.save_predictions.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PoseNetError(
                f'cannot make the folder {options.save_predictions}: {error.strerror}'
            ) from error
    accuracy([], {})  # raises if pycocotools is missing


def _photos(options: argparse.Namespace, read: bool, problems: Problems) -> list[Photo]:
    """The labelled photos: all of them, or those that are there if they are going to be read."""
    where = {}
    for text in options.where:
        key, equals, value = text.partition('=')
        if not equals:
            raise ConfigError(f'Invalid --where {text}. Should be KEY=VALUE')
        where[key] = value
    photos = read_labels(options.annotations, where)
    if not read:
        return photos
    there = [photo for photo in photos if is_there(photo, options.images)]
    known = {photo.id for photo in there}
    missing = [photo.file_name for photo in photos if photo.id not in known]
    if not there:
        raise LabelError(
            f'{options.images} has none of the {len(photos)} photos of {options.annotations}, such '
            f'as {photos[0].file_name}'
        )
    if missing:
        problems.warn(
            f'{len(missing)} of {len(photos)} photos are not in {options.images} and left out, '
            f'such as {missing[0]}'
        )
    good = []
    for photo in there:  # before minutes of work
        try:
            read_photo(photo, options.images)
        except PoseNetError as error:
            problems.add(error)
        else:
            good.append(photo)
    if not good:
        raise LabelError(f'none of the {len(there)} photos in {options.images} can be used')
    return good


def _settings(options: argparse.Namespace) -> list[Setting]:
    base = _setting('as given', options)
    if not options.setting:
        nothing_given = (base.model, base.decoder) == (ModelConfig(), DecoderConfig())
        return [] if options.predictions and nothing_given else [base]
    parser = argparse.ArgumentParser(prog='posenet evaluate --setting', add_help=False)
    add_estimation_options(parser)
    settings = []
    for text in options.setting:
        name, colon, rest = text.partition(':')
        if not colon or name.lstrip().startswith('-'):
            name, rest = text, text
        try:
            words = shlex.split(rest)
        except ValueError as error:
            raise ConfigError(f'Invalid --setting {text}: {error}') from error
        own = parser.parse_args(words)
        settings.append(
            _setting(name.strip(), argparse.Namespace(**{**vars(options), **vars(own)}))
        )
    if len({setting.name for setting in settings}) < len(settings):
        raise ConfigError('two settings have the same name')
    return settings


def _setting(name: str, options: argparse.Namespace) -> Setting:
    if in_this_process(options):
        # Threads that spin would slow down the other settings; and the node's do not.
        runtime = config_from(RuntimeConfig, options)
    else:
        runtime = runtime_of_workers(options)
    model, decoder = config_from(ModelConfig, options), config_from(DecoderConfig, options)
    return Setting(name, model, decoder, runtime)


def _table(evaluations: Sequence[Evaluation]) -> str:
    if not evaluations:
        return 'nothing was fast enough'
    first = evaluations[0].accuracy
    timed = [e for e in evaluations if e.milliseconds]
    on_frontier = frontier(evaluations)
    width = max(len(e.name) for e in evaluations) + 2
    lines = [
        f'{first.photos} photos, {first.people} labelled people',
        f'{"":{width}}{"AP":>6}{"AP50":>7}{"AP75":>7}{"AR":>7}{"OKS":>7}{"found":>7}{"false":>7}'
        f'{"<1 dev":>8}{"<2 dev":>8}{"ms":>8}{"p95":>8}{"times":>7}',
    ]
    for e in evaluations:
        a = e.accuracy
        figures = f'{a.ap:6.3f}{a.ap50:7.3f}{a.ap75:7.3f}{a.ar:7.3f}{a.oks:7.3f}{a.found:7.3f}'
        figures += f'{a.false_people:7.2f}{_share(a.deviations.within_one)}'
        figures += _share(a.deviations.within_two)
        if e.milliseconds:
            figures += f'{e.mean_milliseconds:8.1f}{e.p95_milliseconds:8.1f}'
            figures += f'{e.times_as_long_as(timed[0]):7.2f}{" *" * (e in on_frontier)}'
        lines.append(f'{e.name:{width}}{figures}')
    lines += [
        'OKS and found: over all labelled people; false: poses a photo that are nobody; <1 dev, '
        "<2 dev: share of found people's",
        'coordinates within one and two deviations; times: as long as the first; *: nothing faster '
        'is as good',
    ]
    return '\n'.join(lines)


def _share(value: float) -> str:
    return f'{"-":>8}' if math.isnan(value) else f'{100 * value:7.0f}%'


def _table_of_heights(evaluations: Sequence[Evaluation]) -> str:
    """OKS and found by the height of a person's box in the network's input."""
    if not evaluations:
        return ''
    width = max(len(e.name) for e in evaluations) + 2
    names = [group.name for group in evaluations[0].accuracy.by_height]
    lines = [
        "By the height of a person's box, in pixels of the network's input (of the photo, for "
        'predictions): people, OKS, found',
        ' ' * width + ''.join(f'{name:>19}' for name in names),
    ]
    for e in evaluations:
        cells = [
            f'{g.people:7}{g.oks:6.2f}{g.found:6.2f}' if g.people else f'{"-":>19}'
            for g in e.accuracy.by_height
        ]
        lines.append(f'{e.name:{width}}' + ''.join(cells))
    return '\n'.join(lines)


def _proposal(
    evaluations: Sequence[Evaluation], settings: Sequence[Setting], milliseconds: float
) -> str:
    """The best setting within the time, as options and as parameters of the node."""
    by_name = {setting.name: setting for setting in settings}
    allowed = [e for e in evaluations if e.name in by_name and e.p95_milliseconds <= milliseconds]
    if not allowed:
        raise PoseNetError(f'no setting that was tried takes at most {milliseconds:g} ms here')
    best = max(allowed, key=lambda e: (round(e.accuracy.ap, 3), -e.mean_milliseconds))
    setting = by_name[best.name]
    changed = _changed(setting)
    flags = ' '.join(_flag(name, value) for name, value in changed.items())
    # JSON is YAML too, with quotes around what YAML would read as something else, such as off.
    parameters = ['/**:', '  ros__parameters:']
    parameters += [f'    {name}: {json.dumps(value)}' for name, value in changed.items()]
    lines = [
        f'Within {milliseconds:g} ms: {best.name}: AP {best.accuracy.ap:.3f}, '
        f'{100 * best.accuracy.found:.0f}% of people found, {best.mean_milliseconds:.1f} ms '
        f'(p95 {best.p95_milliseconds:.1f})',
        f'    posenet estimate {flags}',
        *(f'    {line}' for line in parameters),
    ]
    if best.accuracy.people < 200:
        lines.append(
            f'{best.accuracy.people} people are few: differences of AP below 0.05 may be chance'
        )
    return '\n'.join(lines)


def _changed(setting: Setting) -> dict[str, Any]:
    """The options that are not the library's defaults, or that the node has other defaults for."""
    always = ('input_aspect', 'input_resolution', 'decoder', 'attention', 'max_detections')
    values: dict[str, Any] = {}
    for config in (setting.model, setting.decoder, setting.runtime):
        default = type(config)()
        for option in fields(config):
            value = getattr(config, option.name)
            if option.name == 'allow_spinning':
                continue
            if option.name in always or value != getattr(default, option.name):
                values[option.name] = value
    return values


def _flag(name: str, value: Any) -> str:
    flag = name.replace('_', '-')
    if isinstance(value, bool):
        return f'--{flag}' if value else f'--no-{flag}'
    text = 'x'.join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f'--{flag} {shlex.quote(text)}'


def _to_json(evaluation: Evaluation, setting: Setting | None) -> dict[str, Any]:
    figures: dict[str, Any] = asdict(evaluation.accuracy)
    del figures['errors_in_deviations']
    for name in ('by_height', 'deviations_by_part', 'deviations_by_height'):
        figures[name] = list(figures[name])  # JSON has no tuples
    result: dict[str, Any] = {'name': evaluation.name, **figures}
    if evaluation.milliseconds:
        result['milliseconds'] = {
            'mean': evaluation.mean_milliseconds,
            'p95': evaluation.p95_milliseconds,
            'photos': list(evaluation.milliseconds),
        }
    if setting is not None:
        result['options'] = {
            **asdict(setting.model),
            **asdict(setting.decoder),
            **asdict(setting.runtime),
        }
    return result


def _plot(evaluations: Sequence[Evaluation], path: Path) -> None:
    """AP against mean milliseconds, with the frontier as a line."""
    pyplot = _pyplot()
    timed = [e for e in evaluations if e.milliseconds]
    if not timed:
        raise PoseNetError('nothing to plot: predictions have no times')
    best = frontier(evaluations)
    figure, axes = pyplot.subplots(figsize=(9, 6))
    axes.step(
        [e.mean_milliseconds for e in best], [e.accuracy.ap for e in best], where='post',
        color='C0', alpha=0.5, label='nothing faster is as good',
    )  # fmt: skip
    for e in timed:
        colour = 'C0' if e in best else '0.6'
        axes.plot(e.mean_milliseconds, e.accuracy.ap, 'o', color=colour)
        if e in best or len(timed) <= MOST_NAMES:
            axes.annotate(
                e.name, (e.mean_milliseconds, e.accuracy.ap), xytext=(6, -9),
                textcoords='offset points', fontsize=7, color=colour,
            )  # fmt: skip
    for e in evaluations:
        if not e.milliseconds:
            axes.axhline(e.accuracy.ap, linestyle=':', color='C1')
            axes.annotate(e.name, (0, e.accuracy.ap), fontsize=7, color='C1')
    a: Accuracy = timed[0].accuracy
    axes.set(
        xlabel='milliseconds a photo',
        ylabel='average precision (COCO keypoints)',
        title=f'{a.photos} photos, {a.people} labelled people',
    )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc='lower right')
    figure.tight_layout()
    with atomic_path(path) as part:
        figure.savefig(part, dpi=110)
    pyplot.close(figure)


def _plot_deviations(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Shares of errors within so many deviations, beside a normal distribution's."""
    pyplot = _pyplot()
    steps = np.linspace(0, 4, 161)
    figure, (together, parts) = pyplot.subplots(1, 2, figsize=(12, 5))
    for e in evaluations:
        errors = e.accuracy.errors_in_deviations
        if len(errors):
            together.plot(steps, [float((errors <= step).mean()) for step in steps], label=e.name)
    normal = [math.erf(step / math.sqrt(2)) for step in steps]
    together.plot(steps, normal, 'k:', label='normal distribution')
    together.set(xlabel='deviations', ylabel="share of found people's coordinates", ylim=(0, 1))
    groups = evaluations[0].accuracy.deviations_by_part
    names = [group.name for group in groups]
    parts.barh(names, [group.within_two for group in groups], color='0.8', label='within two')
    parts.barh(names, [group.within_one for group in groups], color='C0', label='within one')
    parts.invert_yaxis()
    for share in (0.683, 0.954):
        parts.axvline(share, color='k', linestyle=':')
    parts.set(title=evaluations[0].name, xlim=(0, 1))
    for axes in (together, parts):
        axes.grid(alpha=0.3)
        axes.legend(loc='lower right', fontsize=8)
    figure.tight_layout()
    with atomic_path(path) as part:
        figure.savefig(part, dpi=90)
    pyplot.close(figure)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise PoseNetError(
            'a plot needs the Python package matplotlib: pip install matplotlib'
        ) from error
    matplotlib.use('Agg')
    from matplotlib import pyplot

    return pyplot
