"""posenet compare: what lower precisions cost on the user's own photos."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posenet_ros.commands.options import (
    add_node_option,
    add_options,
    config_from,
    runtime_from,
)
from posenet_ros.commands.outputs import Problems, check_outputs, say, write_json
from posenet_ros.commands.progress_bar import ProgressBar, with_progress
from posenet_ros.config import DecoderConfig, ModelConfig, RuntimeConfig
from posenet_ros.errors import ConfigError, PoseNetError
from posenet_ros.estimator import PoseNet
from posenet_ros.evaluation.compare import Comparison, compare
from posenet_ros.io.sampling import KINDS, look_at, sampled_images
from posenet_ros.io.source import expect, find_source
from posenet_ros.model.network import make_network

EXAMPLES = """examples:
  posenet compare photos/
  posenet compare recorded/ --node --max-images 100 --json cost.json"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        'compare',
        help='measure what lower precisions cost on your own photos',
        description='Runs the network in float32 and in lower precisions over photos, and prints '
        "how far the poses are apart: COCO's object keypoint similarity (1 is equal), the shift "
        'of clear keypoints in pixels of the network input, people lost and found.',
    )
    parser.add_argument('input', metavar='IMAGE|VIDEO|FOLDER|BAG')
    parser.add_argument(
        '--max-images', type=int, default=200, metavar='N', help='most images to take (200)'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the numbers to a file')
    add_node_option(parser)
    add_options(parser, ModelConfig)
    add_options(parser, DecoderConfig)
    add_options(parser, RuntimeConfig, without=('allow_spinning', 'precision'))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    model = config_from(ModelConfig, options)
    runtime = runtime_from(options)
    decoder = config_from(DecoderConfig, options)
    if options.max_images < 1:
        raise ConfigError(f'Invalid --max-images {options.max_images}. Should be 1 or more')
    source = expect(find_source(options.input), KINDS)
    check_outputs([source.path], [options.json])
    look_at(source)
    problems = Problems()
    with contextlib.ExitStack() as stack:

        def load(**changes: Any) -> PoseNet:
            net = PoseNet.load(model, **{**asdict(runtime), 'precision': 'fp32', **changes})
            return stack.enter_context(net)

        candidates = {name: load(precision=name) for name in ('fp16', 'int8')}
        where = candidates['fp16'].backend
        reference = load(backend='onnxruntime', dla_core=-1)
        if where.name == 'tensorrt':
            candidates = {'fp32': load(), **candidates}
        else:
            candidates['int8 for tensorrt'] = stack.enter_context(_simulated_gpu(model, runtime))
        images = sampled_images(source.path, options.max_images, problems.add)
        results = compare(reference, candidates, with_progress(images), decoder)
    say(f'{where.name} on {where.device}, against onnxruntime fp32')
    say(_table(results))
    if options.json is not None:
        write_json(options.json, {name: asdict(result) for name, result in results.items()})
    problems.raise_if_incomplete(source)
    seen = next(iter(results.values()))
    if seen.people == 0:
        raise PoseNetError(
            f'nobody is clearly seen in the {seen.images} images of {source}, so there is nothing '
            'to compare'
        )


def _simulated_gpu(model: ModelConfig, runtime: RuntimeConfig) -> PoseNet:
    """TensorRT's int8 network on the CPU: what a GPU would compute, as far as a CPU can tell."""
    from posenet_ros.backends.onnxruntime import OnnxRuntimeBackend

    with ProgressBar() as bar:
        network = make_network(model, 'int8', 'tensorrt', runtime.calibration, bar.show)
    backend = OnnxRuntimeBackend(network.onnx, 'int8', runtime.num_threads, True)
    return PoseNet(model, backend, network.weights_sha256)


def _table(results: dict[str, Comparison]) -> str:
    header = (
        f'{"":20}{"images":>7}{"people":>7}{"OKS mean":>10}{"worst":>7}{"shift mean":>12}'
        f'{"worst":>8}{"lost":>6}{"found":>6}'
    )
    rows = [
        f'{name:20}{c.images:7}{c.people:7}{c.mean_oks:10.4f}{c.worst_oks:7.3f}'
        f'{c.mean_shift:9.2f} px{c.worst_shift:5.1f} px{c.lost:6}{c.found:6}'
        for name, c in results.items()
    ]
    return '\n'.join([header, *rows])
