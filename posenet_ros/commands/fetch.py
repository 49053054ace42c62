"""posenet fetch: prepares a model ahead of time: its weights, and compiled code."""

from __future__ import annotations

import argparse
from typing import Any

from posenet_ros.commands.options import add_node_option, add_options, config_from
from posenet_ros.commands.outputs import say
from posenet_ros.config import ModelConfig
from posenet_ros.errors import printable
from posenet_ros.model.checkpoint import fetch_checkpoint
from posenet_ros.warm_up import compile_loops

EXAMPLES = """examples:
  posenet fetch --multiplier 0.5"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        'fetch',
        help='fetch the weights of a model into the cache',
        description='Fetches the weights of a model into $POSENET_HOME (~/.cache/posenet_ros) and '
        "prints where they are. Also compiles this package's loops, so that the first start of "
        'the node is as fast as later ones.',
    )
    parser.add_argument('--force', action='store_true', help='fetch even if it is cached')
    add_node_option(parser)
    add_options(parser, ModelConfig)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    checkpoint = fetch_checkpoint(config_from(ModelConfig, options), force=options.force)
    say(printable(str(checkpoint.graph_path)))
    say(f'sha256 {checkpoint.sha256}\nfrom {printable(checkpoint.source)}')
    compile_loops()
