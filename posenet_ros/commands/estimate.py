"""posenet estimate: the poses of a photo, a folder of photos, a video, a camera or a stream."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posenet_ros.commands.options import (
    add_estimation_options,
    add_video_options,
    config_from,
    load_model,
    stream_from,
)
from posenet_ros.commands.outputs import JsonOutput, Problems, check_outputs, kept
from posenet_ros.commands.progress_bar import with_progress
from posenet_ros.config import DecoderConfig
from posenet_ros.core.decode import Pose
from posenet_ros.errors import ImageError, PoseNetError
from posenet_ros.estimator import PoseNet
from posenet_ros.io import photos, video
from posenet_ros.io.draw import Trails, draw_closeups, draw_poses
from posenet_ros.io.photos import images_in, photos_and_others, read_image, write_image
from posenet_ros.io.sampling import look_at
from posenet_ros.io.source import Source, expect, find_source
from posenet_ros.io.video import Frame, Video, VideoWriter
from posenet_ros.stream import PoseStream

KINDS = ('photo', 'folder', 'video', 'camera', 'stream')
EXAMPLES = """examples:
  posenet estimate photo.jpg --draw seen.png
  posenet estimate photos/ --json poses.json --draw drawn/
  posenet estimate clip.mp4 --node --json - | head       one line of JSON for each frame"""


@dataclass(frozen=True)
class Output:
    """What becomes of the poses."""

    json: JsonOutput | None
    draw: Path | None
    deviations: bool
    decoder: DecoderConfig
    problems: Problems
    show_closeups: bool = False

    def drawn(self, image: np.ndarray, poses: list[Pose]) -> np.ndarray:
        # Mirrored x coordinates are those of the mirrored image.
        canvas = np.ascontiguousarray(image[:, ::-1]) if self.decoder.flip_horizontal else image
        return draw_poses(canvas, poses, deviations=self.deviations)

    def to_json(self, poses: list[Pose], tracked: bool = False) -> list[dict[str, Any]]:
        return [pose.to_dict(self.deviations, tracked) for pose in poses]

    def write(self, entry: Any) -> None:
        if self.json is not None:
            self.json.write(entry)


Estimate = Callable[[np.ndarray], list[Pose]]


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        'estimate',
        help='find people in a photo, a folder of photos, a video, a camera or a stream',
        description='Finds people. Prints JSON in the shape of the reference implementation '
        '(an array of poses for a photo; an array with one entry per photo or frame otherwise), '
        'or draws them. What cannot be read is told and passed over; the exit status is then 1.',
    )
    parser.add_argument('input', metavar='IMAGE|FOLDER|VIDEO|CAMERA|URL')
    parser.add_argument(
        '--json',
        type=Path,
        metavar='FILE',
        help='write the JSON to a file, which is FILE.partial.json until it is complete; a .jsonl '
        'file, and "-" (standard output), get a line for each entry',
    )
    parser.add_argument(
        '--draw',
        type=Path,
        metavar='OUT',
        help='draw the skeletons: a photo to an image file, a video to an .mp4, a folder of '
        'photos to a folder; prints no JSON unless --json is given too. With --flip-horizontal '
        'the drawing is mirrored, as its coordinates are',
    )
    parser.add_argument(
        '--deviations',
        action='store_true',
        help="add each keypoint's standard deviation along one axis, in pixels, to the JSON and as "
        'a circle to the drawing',
    )
    parser.add_argument(
        '--show-closeups',
        action='store_true',
        help='draw what the close-ups of --attention people showed as boxes, in a video',
    )
    parser.add_argument(
        '--max-frames', type=int, metavar='N', help='end a video, a camera or a stream after these'
    )
    add_estimation_options(parser)
    add_video_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    decoder = config_from(DecoderConfig, options)
    source = expect(find_source(options.input), KINDS, 'posenet bag reads bags')
    if options.max_frames is not None and options.max_frames < 1:
        raise PoseNetError(f'Invalid --max-frames {options.max_frames}. Should be 1 or more')
    files = source.kind in ('photo', 'folder', 'video')
    check_outputs([source.path] if files else [], [options.json, options.draw])
    if options.draw is not None:
        _check_drawing(source, options.draw)
    # What cannot be read is told before the model is loaded.
    photo = read_image(source.path) if source.kind == 'photo' else None
    if photo is None:
        look_at(source)
    problems = Problems()
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(load_model(options))
        json = None
        if options.json is not None or options.draw is None:
            json = stack.enter_context(JsonOutput(options.json, source.kind == 'photo'))
        output = Output(
            json, options.draw, options.deviations, decoder, problems, options.show_closeups
        )
        if photo is not None:
            done = _of_photo(photo, output, lambda image: net.estimate([image], decoder)[0])
        elif source.kind == 'folder':
            done = _of_folder(source.path, output, lambda image: net.estimate([image], decoder)[0])
        else:
            stream = stream_from(options, net.config)
            done = _of_video(source, options.max_frames, output, net, stream)
    if source.kind == 'folder':
        problems.raise_if_any('photos', done)
    problems.raise_if_incomplete(source)


def _of_photo(image: np.ndarray, output: Output, estimate: Estimate) -> int:
    poses = estimate(image)
    entries = output.to_json(poses)
    output.write(entries[0] if output.decoder.decoding_method == 'single-person' else entries)
    if output.draw is not None:
        write_image(output.draw, output.drawn(image, poses))
    return 1


def _of_folder(folder: Path, output: Output, estimate: Estimate) -> int:
    paths, left_out = photos_and_others(folder)
    if left_out:
        names = ', '.join(path.name for path in left_out[:3])
        more = ', ...' if len(left_out) > 3 else ''
        output.problems.warn(f'{folder}: {len(left_out)} entries are no photos: {names}{more}')
    if output.draw is not None:
        try:
            output.draw.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PoseNetError(f'cannot make the folder {output.draw}: {error.strerror}') from error
    done = 0
    for path in with_progress(paths, len(paths)):
        try:
            image = read_image(path)
        except ImageError as error:
            output.problems.add(error)
            continue
        poses = estimate(image)
        output.write({'image': path.name, 'poses': output.to_json(poses)})
        if output.draw is not None:
            write_image(output.draw / _drawn_name(path), output.drawn(image, poses))
        done += 1
    return done


def _of_video(
    source: Source, most: int | None, output: Output, net: PoseNet, stream: PoseStream
) -> int:
    done = 0
    trails = Trails()
    tracked = stream.tracking
    with Video(source) as frames:
        writer = None
        total = min(frames.num_frames, most or frames.num_frames)
        with kept(output.draw), contextlib.ExitStack() as stack:
            if output.draw is not None:
                writer = stack.enter_context(VideoWriter(output.draw, frames.fps))
            some: Iterable[Frame] = itertools.islice(frames, most)
            for frame in with_progress(some, total):
                poses = net.estimate_stream(frame.image, frame.seconds, stream, output.decoder)
                output.write(
                    {
                        'frame': frame.index,
                        'seconds': frame.seconds,
                        'poses': output.to_json(poses, tracked),
                    }
                )
                if writer is not None:
                    canvas = output.drawn(frame.image, poses)
                    if output.show_closeups:
                        draw_closeups(canvas, stream.closeups, output.decoder.flip_horizontal)
                    trails.draw(canvas, poses, frame.seconds)
                    writer.write(canvas, frame.seconds)
                done += 1
            if done == 0:
                raise ImageError(f'{source} holds no frame that can be read')
        if writer is not None and writer.resized:
            output.problems.warn(
                f'{source}: {writer.resized} frames have another size than the first; they were '
                'scaled in the drawing'
            )
        if most is None and (shortfall := frames.shortfall()):
            output.problems.add(shortfall)
    return done


def _check_drawing(source: Source, draw: Path) -> None:
    """Refuses a drawing of another kind than its source, before any work."""
    suffix = draw.suffix.lower()
    if source.kind == 'folder':
        if suffix in photos.WRITABLE_SUFFIXES + video.WRITABLE_SUFFIXES and not draw.is_dir():
            raise ImageError(f'{source} is a folder, so --draw {draw} should be one')
        names = [_drawn_name(path) for path in images_in(source.path)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ImageError(f'two photos of {source} would be drawn to {draw / twice[0]}')
        there = [path for name in names if (path := draw / name).exists()]
        if there:
            raise ImageError(
                f'{len(there)} files that would be drawn are in {draw} already, such as '
                f'{there[0].name}; choose another folder'
            )
        return
    kind = 'image' if source.kind == 'photo' else 'video'
    allowed = (photos if kind == 'image' else video).WRITABLE_SUFFIXES
    if suffix not in allowed:
        raise ImageError(
            f'cannot draw the {source.kind} {source} to {draw}; the name should end in '
            f'{", ".join(allowed)}'
        )


def _drawn_name(path: Path) -> str:
    """The name of a drawn photo: its own, or with .png behind it where that cannot be written."""
    return path.name if path.suffix.lower() in photos.WRITABLE_SUFFIXES else f'{path.name}.png'
