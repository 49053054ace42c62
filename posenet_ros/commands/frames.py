"""posenet frames: frames of bags as pictures, for people to label."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from posenet_ros.commands.outputs import Problems, say
from posenet_ros.commands.progress_bar import with_progress
from posenet_ros.environment import dependencies_for
from posenet_ros.errors import ConfigError, PoseNetError, reason
from posenet_ros.recordings.find import find_bags
from posenet_ros.recordings.frames import by_name_in_pictures, save_frames

EXAMPLES = """examples:
  posenet frames recorded.mcap to_label/
  posenet frames recordings/ to_label/ --count 100 --topic /camera/image_raw"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        'frames',
        help='save frames of bags as pictures, to be labelled',
        description='Writes frames at random, the same ones every time, as pictures whose names '
        'say which they are: posenet evaluate finds them in the bags again. Needs the packages '
        'rosbags and mcap (pip install posenet_ros[bag]).',
    )
    parser.add_argument('input', nargs='+', metavar='IN', help='bags, as for posenet bag')
    parser.add_argument('output', type=Path, metavar='FOLDER', help='folder of the pictures')
    parser.add_argument(
        '--count', type=int, default=100, metavar='N', help='how many, of all bags (100)'
    )
    parser.add_argument(
        '--topic', action='append', default=[], help='take this topic; may be given again (all)'
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    if options.count < 1:
        raise ConfigError(f'Invalid --count {options.count}. Should be 1 or more')
    with dependencies_for('posenet frames'):
        import mcap  # noqa: F401
        import rosbags  # noqa: F401
    bags = [*by_name_in_pictures(find_bags(options.input)).values()]
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PoseNetError(f'cannot make the folder {options.output}: {reason(error)}') from error
    problems = Problems()
    saved = used = 0
    for i, bag in enumerate(with_progress(bags, len(bags))):
        # Of each bag its share, so that the sum is right.
        share = options.count * (i + 1) // len(bags) - options.count * i // len(bags)
        if share:
            try:
                saved += save_frames(bag, options.output, share, options.topic, problems.warn)
                used += 1
            except PoseNetError as error:
                problems.add(f'{bag.name}: {error}')
    say(f'{options.output}: {saved} pictures')
    problems.raise_if_any('bags', used)
