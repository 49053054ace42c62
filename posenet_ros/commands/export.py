"""posenet export: the network as an ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from posenet_ros.atomic_file import atomic_path
from posenet_ros.commands.options import add_node_option, add_options, config_from
from posenet_ros.commands.outputs import check_outputs, say
from posenet_ros.commands.progress_bar import ProgressBar
from posenet_ros.config import PRECISIONS, ModelConfig
from posenet_ros.errors import ConfigError
from posenet_ros.model.network import make_network

EXAMPLES = """examples:
  posenet export model.onnx --precision fp16 --dynamic"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        'export',
        help='write the network as ONNX',
        description='Writes the network as ONNX, opset 17, for any batch: input image, float32 '
        '(batch, 3, height, width), RGB, normalised (MobileNetV1: value / 127.5 - 1); outputs '
        'heatmap (after the sigmoid), offset, displacement_fwd and displacement_bwd, float32, '
        'channels last.',
    )
    parser.add_argument('output', type=Path, metavar='OUT.onnx')
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default='fp32',
        help='precision of all layers but the heads, which stay in float32 (fp32)',
    )
    parser.add_argument(
        '--layout',
        choices=('tensorrt', 'onnxruntime'),
        default='tensorrt',
        help='runtime that int8 is made for; the other is slow with it or rejects it (tensorrt)',
    )
    parser.add_argument(
        '--calibration',
        metavar='PATH',
        help='photos for int8: a folder, a video or a bag (generated images)',
    )
    parser.add_argument(
        '--dynamic', action='store_true', help='for inputs of any valid size, not only this one'
    )
    add_node_option(parser)
    add_options(parser, ModelConfig)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    config = config_from(ModelConfig, options)
    if options.dynamic and options.precision == 'int8':
        raise ConfigError('int8 is made for one input size; --dynamic goes with fp32 and fp16')
    source = None if options.calibration is None else Path(options.calibration)
    check_outputs([source], [options.output])
    with ProgressBar() as bar:
        network = make_network(
            config, options.precision, options.layout, options.calibration, bar.show
        )
    model = network.onnx
    if options.dynamic and network.sizes.fixed:
        import onnx

        from posenet_ros.model.onnx_variants import to_dynamic

        model = to_dynamic(onnx.load_from_string(model)).SerializeToString()
    with atomic_path(options.output) as part:
        part.write_bytes(model)
    size = 'any size' if options.dynamic or not network.sizes.fixed else str(network.sizes)
    layout = f' for {options.layout}' if options.precision == 'int8' else ''
    say(f'{options.output}: {options.precision}{layout}, input {size}')
