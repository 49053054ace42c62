"""posenet selftest: checks and measures everything that can run on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from posenet_ros.commands.options import add_node_option, add_options, config_from
from posenet_ros.commands.outputs import check_outputs, say, tell, write_json
from posenet_ros.config import ModelConfig, RuntimeConfig
from posenet_ros.errors import ConfigError, PoseNetError
from posenet_ros.io.photos import read_image

EXAMPLES = """examples:
  posenet selftest --node --image people.jpg --json report.json"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        'selftest',
        help='check and measure everything on this machine, for a report',
        description='Runs the network in every precision and compares it with ONNX Runtime in '
        'float32: errors, latencies, copies, frames per second. With a GPU on TensorRT; without '
        'one it says what it could not check.',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the report to a file')
    parser.add_argument(
        '--image', type=Path, help='a photo of people, to measure the shift of their keypoints'
    )
    parser.add_argument(
        '--rounds', type=int, default=100, metavar='N', help='how often each run is timed (100)'
    )
    add_node_option(parser)
    add_options(parser, ModelConfig)
    add_options(parser, RuntimeConfig, without=('allow_spinning', 'precision', 'num_threads'))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from posenet_ros.evaluation.selftest import selftest, table

    if options.rounds < 1:
        raise ConfigError(f'Invalid --rounds {options.rounds}. Should be 1 or more')
    check_outputs([options.image], [options.json])
    report = selftest(
        config_from(ModelConfig, options),
        config_from(RuntimeConfig, options),
        None if options.image is None else read_image(options.image),
        options.rounds,
        lambda what: tell(f'{what} ...'),
    )
    say(table(report))
    if options.json is not None:
        write_json(options.json, report, indent=1)
    if not report['passed']:
        raise PoseNetError('the self-test failed; see above')
