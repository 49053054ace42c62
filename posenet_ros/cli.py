"""The posenet command: poses of photos, folders, videos and bags, and the model cache."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from posenet_ros.checkpoint import fetch_checkpoint
from posenet_ros.config import PRECISIONS, DecoderConfig, ModelConfig, RuntimeConfig
from posenet_ros.decode import Pose
from posenet_ros.draw import draw_poses
from posenet_ros.errors import ConfigError, ImageError, PoseNetError
from posenet_ros.estimator import PoseNet
from posenet_ros.media import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Frame,
    Video,
    VideoWriter,
    atomic_path,
    images_in,
    read_image,
    write_image,
)
from posenet_ros.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status: 0, 1 after an error, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    if threading.current_thread() is threading.main_thread():
        # As Ctrl-C does: what is half written is taken away.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        options.run(options)
    except PoseNetError as error:
        print(f'posenet: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain again at exit.
        sys.stdout = None
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='posenet', description='2D human poses with PoseNet.')
    parser.add_argument('--version', action='version', version=f'posenet_ros {__version__}')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    estimate = commands.add_parser(
        'estimate',
        help='find people in a photo, a folder of photos or a video',
        description='Finds people. Prints JSON in the shape of the reference implementation '
        '(an array of poses for a photo; an array with one entry a photo or frame otherwise), '
        'or draws them.',
    )
    estimate.add_argument('input', type=Path, metavar='IMAGE|VIDEO|FOLDER')
    estimate.add_argument('--json', type=Path, metavar='FILE', help='write the JSON to a file')
    estimate.add_argument(
        '--draw',
        type=Path,
        metavar='OUT',
        help='draw the skeletons: a photo to an image file, a video to an .mp4, a folder of '
        'photos to a folder; prints no JSON unless --json is given too',
    )
    _add_estimation_options(estimate)
    estimate.set_defaults(run=_estimate)

    bag = commands.add_parser(
        'bag',
        help='add poses to a recorded bag',
        description='Reads the Image and CompressedImage topics of a rosbag2 and writes a bag with '
        'a PoseArray on TOPIC/poses for every image on TOPIC, at the same time and with the same '
        'header. Needs the package rosbags (pip install posenet_ros[bag]).',
    )
    bag.add_argument('input', type=Path, metavar='IN', help='rosbag2 folder, MCAP or sqlite3')
    bag.add_argument('output', type=Path, metavar='OUT', help='folder of the new bag')
    bag.add_argument(
        '--topic', action='append', default=[], help='read this topic; may be given again (all)'
    )
    bag.add_argument(
        '--annotated', action='store_true', help='also write drawn images on TOPIC/annotated'
    )
    bag.add_argument(
        '--storage', choices=('mcap', 'sqlite3'), default='mcap', help='of the new bag (mcap)'
    )
    _add_estimation_options(bag)
    bag.set_defaults(run=_bag)

    compare = commands.add_parser(
        'compare',
        help='measure what lower precisions cost on your own photos',
        description='Runs the network in float32 and in lower precisions over photos, and prints '
        "how far the poses are apart: COCO's object keypoint similarity (1 is equal), the shift "
        'of clear keypoints in pixels of the network input, people lost and found.',
    )
    compare.add_argument('input', type=Path, metavar='IMAGE|VIDEO|FOLDER|BAG')
    compare.add_argument(
        '--max-images', type=int, default=200, metavar='N', help='most images to take (200)'
    )
    compare.add_argument('--json', type=Path, metavar='FILE', help='write the numbers to a file')
    _add_options(compare, ModelConfig)
    _add_options(compare, DecoderConfig)
    _add_options(compare, RuntimeConfig, without=('allow_spinning', 'precision'))
    compare.set_defaults(run=_compare)

    engine = commands.add_parser(
        'build-engine',
        help='build the TensorRT engine of a model ahead of time',
        description='Builds the TensorRT engine of a model for this machine and keeps it in '
        '$POSENET_HOME (~/.cache/posenet_ros), where the node finds it. Takes seconds on a '
        'desktop and minutes on a small Jetson.',
    )
    engine.add_argument(
        '--max-batch',
        type=int,
        default=1,
        metavar='N',
        help='most images of one run; for the node, its number of cameras (1)',
    )
    engine.add_argument('--rebuild', action='store_true', help='build it whatever the cache has')
    _add_options(engine, ModelConfig)
    _add_options(engine, RuntimeConfig, without=('allow_spinning', 'num_threads', 'backend'))
    engine.set_defaults(run=_build_engine)

    test = commands.add_parser(
        'selftest',
        help='check and measure everything on this machine, for a report',
        description='Runs the network in every precision and compares it with ONNX Runtime in '
        'float32: errors, latencies, copies, frames per second. With a GPU on TensorRT; without '
        'one it says what it could not check.',
    )
    test.add_argument('--json', type=Path, metavar='FILE', help='write the report to a file')
    test.add_argument(
        '--image', type=Path, help='a photo of people, for the shift of their keypoints'
    )
    test.add_argument(
        '--rounds', type=int, default=100, metavar='N', help='how often each is timed (100)'
    )
    _add_options(test, ModelConfig)
    _add_options(test, RuntimeConfig, without=('allow_spinning', 'precision', 'num_threads'))
    test.set_defaults(run=_selftest)

    export = commands.add_parser(
        'export',
        help='write the network as ONNX',
        description='Writes the network as ONNX, opset 17, for any batch: input image, float32 '
        '(batch, 3, height, width), RGB, normalised (MobileNetV1: value / 127.5 - 1); outputs '
        'heatmap (after the sigmoid), offset, displacement_fwd and displacement_bwd, float32, '
        'channels last.',
    )
    export.add_argument('output', type=Path, metavar='OUT.onnx')
    export.add_argument(
        '--precision',
        choices=PRECISIONS,
        default='fp32',
        help='of all but the heads, which stay in float32 (fp32)',
    )
    export.add_argument(
        '--layout',
        choices=('tensorrt', 'onnxruntime'),
        default='tensorrt',
        help='what int8 is for: each is slow or refused elsewhere (tensorrt)',
    )
    export.add_argument(
        '--calibration',
        metavar='PATH',
        help='photos for int8: a folder, a video or a bag (generated images)',
    )
    export.add_argument(
        '--dynamic', action='store_true', help='for inputs of any valid size, not only this one'
    )
    _add_options(export, ModelConfig)
    export.set_defaults(run=_export)

    fetch = commands.add_parser(
        'fetch',
        help='fetch the weights of a model into the cache',
        description='Fetches the weights of a model into $POSENET_HOME (~/.cache/posenet_ros) and '
        'prints where they are.',
    )
    fetch.add_argument('--force', action='store_true', help='fetch again what the cache has')
    _add_options(fetch, ModelConfig)
    fetch.set_defaults(run=_fetch)
    return parser


def _add_options(
    parser: argparse.ArgumentParser, config: type, without: Sequence[str] = ()
) -> None:
    """An option for each field of a config, described by the field itself."""
    for field in fields(config):
        if field.name in without:
            continue
        flag = '--' + field.name.replace('_', '-')
        shown = '' if field.default is None else f' ({field.default})'
        help_text = field.metadata['help'].rstrip('.').replace('%', '%%') + shown
        kind: Any = str if isinstance(field.default, (str, type(None))) else _number
        if field.name == 'input_resolution':
            kind = _size
        if isinstance(field.default, bool):
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS,
                help=help_text,
            )  # fmt: skip
        else:
            parser.add_argument(
                flag,
                type=kind,
                default=argparse.SUPPRESS,
                metavar=field.name.rsplit('_', 1)[-1].upper(),
                help=help_text,
            )


def _add_estimation_options(parser: argparse.ArgumentParser) -> None:
    """The model, the decoder, and what runs them."""
    _add_options(parser, ModelConfig)
    _add_options(parser, DecoderConfig)
    _add_options(parser, RuntimeConfig, without=('allow_spinning',))


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text} is not a number') from None


def _size(text: str) -> float | tuple[float, float]:
    """257, 640x480 or 640,480."""
    numbers = tuple(_number(part) for part in text.replace('x', ',').split(','))
    if len(numbers) > 2 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f'{text} should be a number of 1 or more, or WIDTHxHEIGHT')
    return numbers[0] if len(numbers) == 1 else numbers  # type: ignore[return-value]


def _config(config: type, options: argparse.Namespace) -> Any:
    names = [field.name for field in fields(config)]
    return config(**{name: getattr(options, name) for name in names if name in options})


def _fetch(options: argparse.Namespace) -> None:
    checkpoint = fetch_checkpoint(_config(ModelConfig, options), force=options.force)
    print(f'{checkpoint.graph_path}\nsha256 {checkpoint.sha256}\nfrom {checkpoint.source}')


def _export(options: argparse.Namespace) -> None:
    import onnx

    from posenet_ros.loading import network, weights_for
    from posenet_ros.onnx_precision import to_dynamic

    config: ModelConfig = _config(ModelConfig, options)
    if options.dynamic and options.precision == 'int8':
        raise ConfigError('int8 is made for one input size; --dynamic goes with fp32 and fp16')
    checkpoint = weights_for(config, options.precision)
    with _Bar() as bar:
        model = network(
            config, checkpoint, options.precision, options.layout, options.calibration, bar.show
        )
    if options.dynamic:
        model = to_dynamic(onnx.load_from_string(model)).SerializeToString()
    with atomic_path(options.output) as part:
        part.write_bytes(model)
    height, width = config.valid_resolution
    size = 'any size' if options.dynamic else f'{width} x {height}'
    layout = f' for {options.layout}' if options.precision == 'int8' else ''
    print(f'{options.output}: {options.precision}{layout}, input {size}')


def _build_engine(options: argparse.Namespace) -> None:
    from posenet_ros.backends.engine_cache import cached_engine
    from posenet_ros.backends.tensorrt import open_tensorrt
    from posenet_ros.loading import engine_inputs

    config: ModelConfig = _config(ModelConfig, options)
    runtime: RuntimeConfig = _config(RuntimeConfig, options)
    trt, cuda = open_tensorrt(runtime.cuda_library)
    try:
        with _Bar() as bar:
            model, engine_options, _ = engine_inputs(
                config, runtime, options.max_batch, trt, bar.show
            )
            started = time.monotonic()
            plan = cached_engine(
                trt,
                cuda,
                model,
                engine_options,
                rebuild=options.rebuild,
                progress=lambda phase, done: bar.show(phase, round(100 * done), 100),
            )
        seconds = time.monotonic() - started
    finally:
        cuda.close()
    height, width = config.valid_resolution
    print(
        f'{engine_options.precision} engine for {width} x {height}, batches of 1 to '
        f'{options.max_batch}, on {cuda.device_name} with TensorRT {trt.__version__}: '
        f'{len(plan) / 1e6:.1f} MB, ready in {seconds:.1f} s'
    )


def _compare(options: argparse.Namespace) -> None:
    from posenet_ros.backends.onnxruntime import OnnxRuntimeBackend
    from posenet_ros.calibration import sampled_images
    from posenet_ros.compare import compare
    from posenet_ros.loading import network, weights_for

    model: ModelConfig = _config(ModelConfig, options)
    runtime: RuntimeConfig = replace(_config(RuntimeConfig, options), allow_spinning=True)
    decoder: DecoderConfig = _config(DecoderConfig, options)
    if options.max_images < 1:
        raise ConfigError(f'Invalid --max-images {options.max_images}. Should be 1 or more')
    if not options.input.exists():
        raise ImageError(f'there is no file or folder {options.input}')
    with contextlib.ExitStack() as stack:

        def loaded(**changes: Any) -> PoseNet:
            return stack.enter_context(
                PoseNet.load(model, **{**asdict(runtime), 'precision': 'fp32', **changes})
            )

        candidates = {name: loaded(precision=name) for name in ('fp16', 'int8')}
        where = candidates['fp16'].backend
        reference = loaded(backend='onnxruntime', dla_core=-1)
        if where.name == 'tensorrt':
            candidates = {'fp32': loaded(), **candidates}
        else:
            # What a GPU would compute, as far as a CPU can tell.
            weights = weights_for(model, 'int8')
            with _Bar() as bar:
                graph = network(model, weights, 'int8', 'tensorrt', runtime.calibration, bar.show)
            backend = OnnxRuntimeBackend(graph, 'int8', runtime.num_threads, True)
            candidates['int8 for tensorrt'] = PoseNet(model, backend, weights.sha256)
        images = _with_progress(sampled_images(options.input, options.max_images), 0)
        results = compare(reference, candidates, images, decoder)
    print(f'{where.name} on {where.device}, against onnxruntime fp32')
    print(
        f'{"":20}{"images":>7}{"people":>7}{"OKS mean":>10}{"worst":>7}{"shift mean":>12}'
        f'{"worst":>8}{"lost":>6}{"found":>6}'
    )
    for name, c in results.items():
        print(
            f'{name:20}{c.images:7}{c.people:7}{c.mean_oks:10.4f}{c.worst_oks:7.3f}'
            f'{c.mean_shift:9.2f} px{c.worst_shift:5.1f} px{c.lost:6}{c.found:6}'
        )
    if options.json is not None:
        with atomic_path(options.json) as part:
            part.write_text(json.dumps(_without_nan({n: asdict(c) for n, c in results.items()})))


def _without_nan(value: Any) -> Any:
    """For JSON, which has no NaN: null where nothing could be measured."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _selftest(options: argparse.Namespace) -> None:
    from posenet_ros.selftest import selftest, table

    if options.rounds < 1:
        raise ConfigError(f'Invalid --rounds {options.rounds}. Should be 1 or more')
    photo = None if options.image is None else read_image(options.image)
    report = selftest(
        _config(ModelConfig, options),
        _config(RuntimeConfig, options),
        photo,
        options.rounds,
        lambda what: print(f'{what} ...', file=sys.stderr, flush=True),
    )
    print(table(report))
    if options.json is not None:
        with atomic_path(options.json) as part:
            part.write_text(json.dumps(_without_nan(report), indent=1) + '\n')
    if not report['passed']:
        raise PoseNetError('the self-test failed; see above')


def _estimate(options: argparse.Namespace) -> None:
    decoder: DecoderConfig = _config(DecoderConfig, options)
    model: ModelConfig = _config(ModelConfig, options)
    kind = _kind(options.input)
    for output in (options.draw, options.json):
        if output is not None:
            _check_output(options.input, kind, output, drawn=output is options.draw)
    if kind == 'folder' and options.draw is not None:
        options.draw.mkdir(parents=True, exist_ok=True)
    with _load(options, model) as net:

        def poses_of(image: np.ndarray) -> list[Pose]:
            return net.estimate([image], decoder)[0]

        if kind == 'image':
            image = read_image(options.input)
            poses = poses_of(image)
            if options.draw is not None:
                write_image(options.draw, draw_poses(image, poses))
            single = decoder.decoding_method == 'single-person'
            result: Any = poses[0].to_dict() if single else [pose.to_dict() for pose in poses]
        elif kind == 'folder':
            result = []
            for frame in _with_progress(_photos(options.input), len(images_in(options.input))):
                poses = poses_of(frame.image)
                result.append({'image': frame.name, 'poses': [pose.to_dict() for pose in poses]})
                if options.draw is not None:
                    write_image(options.draw / frame.name, draw_poses(frame.image, poses))
        else:
            result = _estimate_video(options, poses_of)
    if options.json is not None:
        with atomic_path(options.json) as part:
            part.write_text(json.dumps(result) + '\n')
    elif options.draw is None:
        print(json.dumps(result), flush=True)


def _load(options: argparse.Namespace, model: ModelConfig) -> PoseNet:
    # Frame follows frame here, so that threads which spin have work to do.
    runtime = replace(_config(RuntimeConfig, options), allow_spinning=True)
    return PoseNet.load(model, **asdict(runtime))


def _bag(options: argparse.Namespace) -> None:
    decoder: DecoderConfig = _config(DecoderConfig, options)
    model: ModelConfig = _config(ModelConfig, options)
    try:
        from posenet_ros.bag import add_poses
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] != 'rosbags':
            raise
        raise PoseNetError('bags need the Python package rosbags: pip install rosbags') from error
    with _load(options, model) as net:
        counts = add_poses(
            options.input,
            options.output,
            lambda image: net.estimate([image], decoder)[0],
            topics=options.topic,
            annotated=options.annotated,
            storage=options.storage,
            progress=_with_progress,
        )
    broken = f', {counts["broken"]} images could not be read' if counts['broken'] else ''
    print(f'{options.output}: {counts["people"]} poses in {counts["images"]} images{broken}')


def _estimate_video(options: argparse.Namespace, poses_of: Any) -> list[dict[str, Any]]:
    result = []
    with Video(options.input) as video:
        writer = None if options.draw is None else VideoWriter(options.draw, video.fps)
        frames = _with_progress(video, video.num_frames)
        if writer is None:
            for frame in frames:
                result.append(_frame_dict(frame, poses_of(frame.image)))
        else:
            with writer:
                for frame in frames:
                    poses = poses_of(frame.image)
                    result.append(_frame_dict(frame, poses))
                    writer.write(draw_poses(frame.image, poses))
    if not result:
        raise ImageError(f'{options.input} holds no frame that can be read')
    return result


def _frame_dict(frame: Frame, poses: list[Pose]) -> dict[str, Any]:
    return {
        'frame': int(frame.name),
        'seconds': frame.seconds,
        'poses': [pose.to_dict() for pose in poses],
    }


def _kind(path: Path) -> str:
    if path.is_dir():
        return 'folder'
    if not path.is_file():
        raise ImageError(f'there is no file or folder {path}')
    return 'video' if path.suffix.lower() in VIDEO_SUFFIXES else 'image'


def _check_output(source: Path, kind: str, output: Path, drawn: bool) -> None:
    """Refuses an output that would replace the input, or that is of another kind."""
    if output.resolve() == source.resolve():
        raise ImageError(f'{output} is the input itself; choose another name for the output')
    if not output.parent.is_dir():
        raise ImageError(f'cannot write {output}: there is no folder {output.parent}')
    suffix = output.suffix.lower()
    if drawn and kind == 'folder' and suffix in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
        raise ImageError(f'{source} is a folder, so --draw {output} should be one')
    allowed = {'image': IMAGE_SUFFIXES, 'video': VIDEO_SUFFIXES}.get(kind, ())
    if drawn and allowed and suffix not in allowed:
        raise ImageError(
            f'cannot draw the {kind} {source} to {output}; the name should end in '
            f'{", ".join(allowed)}'
        )


class _Bar:
    """A progress bar for work in phases, on a terminal."""

    def __enter__(self) -> _Bar:
        self._bar = tqdm(disable=not sys.stderr.isatty(), leave=False)
        self._phase = ''
        return self

    def show(self, phase: str, done: int, total: int) -> None:
        if self._bar.disable:
            return
        if phase != self._phase:
            self._phase = phase
            self._bar.reset(total)
            self._bar.set_description(phase)
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _photos(folder: Path) -> Iterator[Frame]:
    for path in images_in(folder):
        yield Frame(path.name, 0.0, read_image(path))


def _with_progress(frames: Any, total: int) -> Any:
    return tqdm(frames, total=total or None, unit='frame', disable=not sys.stderr.isatty())


if __name__ == '__main__':
    sys.exit(main())
