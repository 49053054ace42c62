"""The posenet command: poses of photos, folders, videos and bags, and the model cache."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from posenet_ros.checkpoint import fetch_checkpoint
from posenet_ros.config import DecoderConfig, ModelConfig, RuntimeConfig
from posenet_ros.decode import Pose
from posenet_ros.draw import draw_poses
from posenet_ros.errors import ImageError, PoseNetError
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
from posenet_ros.tfjs_graph import load_graph
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

    export = commands.add_parser(
        'export',
        help='write the network as ONNX',
        description='Writes the network as ONNX, opset 17: input image, float32 (batch, height, '
        'width, 3), normalised (MobileNetV1: value / 127.5 - 1); outputs heatmap (after the '
        'sigmoid), offset, displacement_fwd and displacement_bwd, float32, channels last.',
    )
    export.add_argument('output', type=Path, metavar='OUT.onnx')
    export.add_argument(
        '--precision',
        choices=('fp32', 'fp16'),
        default='fp32',
        help='fp16 computes all but the heads in half precision (fp32)',
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
        return float(text) if '.' in text else int(text)
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
    from posenet_ros.onnx_export import export_onnx
    from posenet_ros.onnx_precision import to_dynamic, to_fp16

    config: ModelConfig = _config(ModelConfig, options)
    graph = load_graph(fetch_checkpoint(config).graph_path)
    height, width = config.valid_resolution
    model = export_onnx(graph, height, width, config.output_stride, config.tfjs_dilations)
    if options.precision == 'fp16':
        model = to_fp16(model)
    if options.dynamic:
        model = to_dynamic(model)
    with atomic_path(options.output) as part:
        part.write_bytes(model.SerializeToString())
    size = 'any size' if options.dynamic else f'{width} x {height}'
    print(f'{options.output}: {options.precision}, input {size}')


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


def _photos(folder: Path) -> Iterator[Frame]:
    for path in images_in(folder):
        yield Frame(path.name, 0.0, read_image(path))


def _with_progress(frames: Any, total: int) -> Any:
    return tqdm(frames, total=total or None, unit='frame', disable=not sys.stderr.isatty())


if __name__ == '__main__':
    sys.exit(main())
