"""posenet build-engine: the TensorRT engine of a model, ahead of time."""

from __future__ import annotations

import argparse
import time
from typing import Any

from posenet_ros.commands.options import add_node_option, add_options, config_from
from posenet_ros.commands.outputs import say
from posenet_ros.commands.progress_bar import ProgressBar
from posenet_ros.config import ModelConfig, RuntimeConfig, check_max_batch, largest_batch
from posenet_ros.model.network import make_network

EXAMPLES = """examples:
  posenet build-engine --node --precision fp16"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        'build-engine',
        help='build the TensorRT engine of a model ahead of time',
        description='Builds the TensorRT engine of a model for this machine and keeps it in '
        '$POSENET_HOME (~/.cache/posenet_ros), where the node finds it. Takes seconds on a '
        'desktop and minutes on a small Jetson.',
    )
    parser.add_argument(
        '--max-batch',
        type=int,
        default=1,
        metavar='N',
        help='largest batch; for the node, its number of cameras (1)',
    )
    parser.add_argument('--rebuild', action='store_true', help='build it even if it is cached')
    add_node_option(parser)
    add_options(parser, ModelConfig)
    add_options(parser, RuntimeConfig, without=('allow_spinning', 'num_threads', 'backend'))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from posenet_ros.backends.tensorrt import TensorRT

    config = config_from(ModelConfig, options)
    runtime_options = config_from(RuntimeConfig, options)
    check_max_batch(options.max_batch)
    max_batch = largest_batch(config, runtime_options, options.max_batch)
    runtime = TensorRT(runtime_options, config.quant_bytes)
    try:
        with ProgressBar() as bar:
            network = make_network(
                config,
                runtime.network_precision,
                runtime.int8_layout,
                runtime_options.calibration,
                bar.show,
            )
            started = time.monotonic()
            plan = runtime.engine(network, max_batch, rebuild=options.rebuild, progress=bar.show)
            seconds = time.monotonic() - started
    finally:
        runtime.close()
    say(
        f'{runtime.precision} engine for {network.sizes}, batches of 1 to '
        f'{max_batch}, on {runtime.cuda.device_name} with TensorRT '
        f'{runtime.trt.__version__}: {len(plan) / 1e6:.1f} MB, ready in {seconds:.1f} s'
    )
