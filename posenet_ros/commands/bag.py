"""posenet bag: poses for the images of a rosbag2."""

from __future__ import annotations

import argparse
from itertools import count
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
from posenet_ros.commands.outputs import Problems, check_outputs, kept, say
from posenet_ros.commands.progress_bar import with_progress
from posenet_ros.config import DecoderConfig
from posenet_ros.core.decode import Pose
from posenet_ros.errors import PoseNetError
from posenet_ros.io.sampling import look_at
from posenet_ros.io.source import expect, find_source
from posenet_ros.stream import PoseStream

EXAMPLES = """examples:
  posenet bag recorded/ with_poses/
  posenet bag recorded.mcap with_poses/ --node --topic /camera/image_raw --annotated
  posenet bag recorded/ in_space/ --node --topic /color/image_raw --depth /depth/image_rect"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        'bag',
        help='add poses to a recorded bag',
        description='Reads the Image and CompressedImage topics of a rosbag2 and writes a bag with '
        'a PoseArray on TOPIC/poses for every image on TOPIC, at the same time and with the same '
        'header. What cannot be read is told and passed over; the exit status is then 1. Needs '
        'the packages rosbags and mcap (pip install posenet_ros[bag]).',
    )
    parser.add_argument('input', metavar='IN', help='rosbag2 folder, MCAP or sqlite3')
    parser.add_argument('output', type=Path, metavar='OUT', help='folder of the new bag')
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
        '--depth',
        metavar='TOPIC',
        help='also write people in metres on TOPIC/poses_3d, with these depth images, which are '
        'registered to the images',
    )
    parser.add_argument(
        '--size', action='store_true', help='likewise, by the usual size of people alone'
    )
    add_estimation_options(parser)
    add_video_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    decoder = config_from(DecoderConfig, options)
    source = expect(find_source(options.input), ('bag',), 'posenet estimate reads it')
    check_outputs([source.path], [options.output])
    try:
        from posenet_ros.io.bag import add_poses
    except ModuleNotFoundError as error:
        if (error.name or '').split('.')[0] not in ('rosbags', 'mcap', 'zstandard'):
            raise
        raise PoseNetError(
            'bags need the Python packages rosbags, mcap and zstandard: pip install them'
        ) from error
    look_at(source, options.topic)
    if options.output.exists():
        raise PoseNetError(f'{options.output} exists already')
    problems = Problems()
    streams: dict[str, PoseStream] = {}
    ids = count(1)  # of people, on all topics

    def poses_of(image: np.ndarray, topic: str, seconds: float) -> list[Pose]:
        if topic not in streams:
            streams[topic] = stream_from(options, net.config, ids)
        return net.estimate_stream(image, seconds, streams[topic], decoder)

    with kept(options.output), load_model(options) as net:
        counts = add_poses(
            source.path,
            options.output,
            poses_of,
            topics=options.topic,
            annotated=options.annotated,
            flipped=decoder.flip_horizontal,
            storage=options.storage,
            lift=options.size or options.depth is not None,
            depth=options.depth,
            progress=with_progress,
            problem=problems.add,
            note=problems.warn,
        )
    broken = f', {counts["broken"]} images could not be read' if counts['broken'] else ''
    say(f'{options.output}: {counts["people"]} poses in {counts["images"]} images{broken}')
    problems.raise_if_incomplete(source)
