"""posenet estimate: the poses of a photo, a folder of photos or a video."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from posenet_ros.commands.options import (
    add_estimation_options,
    config_from,
    load_model,
    write_json,
)
from posenet_ros.commands.progress_bar import with_progress
from posenet_ros.config import DecoderConfig
from posenet_ros.core.decode import Pose
from posenet_ros.errors import ImageError
from posenet_ros.io.draw import draw_poses
from posenet_ros.io.photos import IMAGE_SUFFIXES, images_in, read_image, write_image
from posenet_ros.io.video import VIDEO_SUFFIXES, Video, VideoWriter

Estimate = Callable[[np.ndarray], list[Pose]]


@dataclass(frozen=True)
class Output:
    """What becomes of the poses."""

    draw: Path | None
    deviations: bool

    def drawn(self, image: np.ndarray, poses: list[Pose]) -> np.ndarray:
        return draw_poses(image, poses, deviations=self.deviations)

    def to_json(self, poses: list[Pose]) -> list[dict[str, Any]]:
        return [pose.to_dict(self.deviations) for pose in poses]


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        'estimate',
        help='find people in a photo, a folder of photos or a video',
        description='Finds people. Prints JSON in the shape of the reference implementation '
        '(an array of poses for a photo; an array with one entry per photo or frame otherwise), '
        'or draws them.',
    )
    parser.add_argument('input', type=Path, metavar='IMAGE|VIDEO|FOLDER')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the JSON to a file')
    parser.add_argument(
        '--draw',
        type=Path,
        metavar='OUT',
        help='draw the skeletons: a photo to an image file, a video to an .mp4, a folder of '
        'photos to a folder; prints no JSON unless --json is given too',
    )
    parser.add_argument(
        '--deviations',
        action='store_true',
        help="add each keypoint's standard deviation along one axis, in pixels, to the JSON and as "
        'a circle to the drawing',
    )
    add_estimation_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    decoder = config_from(DecoderConfig, options)
    kind = _kind(options.input)
    for output in (options.draw, options.json):
        if output is not None:
            _check_output(options.input, kind, output, drawn=output is options.draw)
    of_kind = {'image': _of_photo, 'folder': _of_folder, 'video': _of_video}[kind]
    output = Output(options.draw, options.deviations)
    with load_model(options) as net:
        entries = of_kind(options.input, output, lambda image: net.estimate([image], decoder)[0])
    single = kind == 'image' and decoder.decoding_method == 'single-person'
    result = entries[0] if single else entries
    if options.json is not None:
        write_json(options.json, result)
    elif options.draw is None:
        print(json.dumps(result), flush=True)


def _of_photo(path: Path, output: Output, estimate: Estimate) -> list[dict[str, Any]]:
    image = read_image(path)
    poses = estimate(image)
    if output.draw is not None:
        write_image(output.draw, output.drawn(image, poses))
    return output.to_json(poses)


def _of_folder(folder: Path, output: Output, estimate: Estimate) -> list[dict[str, Any]]:
    if output.draw is not None:
        output.draw.mkdir(parents=True, exist_ok=True)
    result = []
    paths = images_in(folder)
    for path in with_progress(paths, len(paths)):
        draw = None if output.draw is None else output.draw / path.name
        poses = _of_photo(path, replace(output, draw=draw), estimate)
        result.append({'image': path.name, 'poses': poses})
    return result


def _of_video(path: Path, output: Output, estimate: Estimate) -> list[dict[str, Any]]:
    result = []
    with contextlib.ExitStack() as stack:
        video = stack.enter_context(Video(path))
        writer = None
        if output.draw is not None:
            writer = stack.enter_context(VideoWriter(output.draw, video.fps))
        for frame in with_progress(video, video.num_frames):
            poses = estimate(frame.image)
            result.append(
                {'frame': frame.index, 'seconds': frame.seconds, 'poses': output.to_json(poses)}
            )
            if writer is not None:
                writer.write(output.drawn(frame.image, poses))
    if not result:
        raise ImageError(f'{path} holds no frame that can be read')
    return result


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
