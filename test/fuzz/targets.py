"""What reads bytes from outside, as functions of bytes: what each may raise, and good examples.

The tests try a few hundred changed examples of each. `make fuzz` tries many more, guided by the
code that they reach.
"""

from __future__ import annotations

import array
import contextlib
import functools
import io
import json
import math
import os
import sqlite3
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from PIL import Image as Picture
from tfjs_models import mobilenet_like

from posenet_ros import CameraModel, DecoderConfig, ModelConfig, Pose, PoseLifter
from posenet_ros.cache import BuildCache
from posenet_ros.config import RuntimeConfig
from posenet_ros.core.decode import as_poses, check_poses, multiple_pose_arrays, single_pose_arrays
from posenet_ros.core.heads import HEADS, Heads, check_heads
from posenet_ros.errors import (
    BackendError,
    CalibrationError,
    ConfigError,
    GraphError,
    ImageError,
    LabelError,
    PoseNetError,
    everything_as,
    printable,
)
from posenet_ros.evaluation.labels import read_labels, read_predictions
from posenet_ros.io.depth_image import compressed_depth_of, depth_of
from posenet_ros.io.image_message import ENCODINGS, compressed_to_rgb, image_to_rgb
from posenet_ros.io.photos import read_image
from posenet_ros.model.onnx_export import export_onnx
from posenet_ros.model.tfjs_graph import load_graph

MAX_PIXELS = 1 << 20


@dataclass(frozen=True)
class Target:
    """Something that reads bytes."""

    read: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]  # that it may raise; anything else is a fault
    examples: Callable[[], list[bytes]]

    def try_on(self, data: bytes) -> None:
        try:
            self.read(data)
        except self.errors as error:
            text = str(error)
            assert text.isprintable() and 0 < len(text) < 3000, text


TARGETS: dict[str, Target] = {}


def target(
    *errors: type[Exception], examples: Callable[[], list[bytes]]
) -> Callable[[Callable[[bytes], object]], Callable[[bytes], object]]:
    def register(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
        TARGETS[read.__name__] = Target(read, errors, examples)
        return read

    return register


@functools.cache
def folder() -> Path:
    """For files that are read by name; gone when the process ends."""
    made = tempfile.TemporaryDirectory(prefix='posenet-fuzz-')
    folder.made = made  # type: ignore[attr-defined]
    return Path(made.name)


def as_file(name: str, data: bytes) -> Path:
    path = folder() / name
    path.write_bytes(data)
    return path


# Models.


@functools.cache
def graph_file() -> Path:
    (folder() / 'model').mkdir(exist_ok=True)
    return mobilenet_like(output_stride=16).write(folder() / 'model/model-stride16.json')


@target(GraphError, examples=lambda: [graph_file().read_bytes()])
def graph_of_a_model(data: bytes) -> None:
    """The JSON of a checkpoint, with its weights beside it, to ONNX."""
    path = graph_file().with_name('changed.json')
    path.write_bytes(data)
    graph = load_graph(path)
    with everything_as(GraphError, str(path)):  # as make_network does
        export_onnx(graph, 33, 33, 16)


def cached(data: bytes = b'built') -> bytes:
    cache = BuildCache('fuzzed')
    cache.put({'a': 1}, data)
    return cache.path({'a': 1}).read_bytes()


@target(examples=lambda: [cached(), cached(b''), cached(bytes(1000))])
def file_of_a_cache(data: bytes) -> None:
    cache = BuildCache('fuzzed')
    path = cache.path({'a': 1})
    path.write_bytes(data)
    found = cache.peek({'a': 1})
    assert found is None or data.endswith(b'\0' + found)


# Images.


def raw(encoding: str, height: int, width: int, step: int, big: int, data: bytes) -> bytes:
    head = struct.pack('<BBHHIB', ENCODINGS.index(encoding), big, height, width, step, 0)
    return head + data


def raw_images() -> list[bytes]:
    return [raw(name, 4, 6, 64, big, bytes(range(256)) * 2) for name in ENCODINGS for big in (0, 1)]


@target(ImageError, examples=raw_images)
def raw_image(data: bytes) -> None:
    """sensor_msgs/Image by its fields."""
    if len(data) < 11:
        return
    name, big, height, width, step, _ = struct.unpack_from('<BBHHIB', data)
    encoding = ENCODINGS[name] if name < len(ENCODINGS) else data[11:40].decode('latin1')
    message = SimpleNamespace(
        height=height, width=width, encoding=encoding, is_bigendian=big, step=step, data=data[11:]
    )
    image = image_to_rgb(message)
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    assert int(image.sum(dtype=np.int64)) >= 0  # every pixel can be read


@functools.cache
def compressed_images() -> list[bytes]:
    pixels = np.random.default_rng(1).integers(0, 255, (40, 56, 3), np.uint8)
    smooth = cv2.GaussianBlur(pixels, (9, 9), 3)
    options: list[tuple[str, np.ndarray, list[int]]] = [
        ('.jpg', smooth, []),
        ('.jpg', smooth, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        ('.jpg', smooth[..., 0], []),
        ('.png', smooth, []),
        ('.png', smooth.astype(np.uint16) * 257, []),
        ('.png', np.dstack([smooth, smooth[..., :1]]), []),
        ('.png', smooth[..., 0], []),
    ]
    return [bytes([0]) + cv2.imencode(*option)[1].tobytes() for option in options]


FORMATS = ('jpeg', 'png', 'bayer_rggb8; jpeg compressed ', 'mono16; png compressed ', '')


@target(ImageError, examples=compressed_images)
def compressed_image(data: bytes) -> None:
    """sensor_msgs/CompressedImage: the format's number, then the data."""
    form = FORMATS[data[0] % len(FORMATS)] if data else ''
    message = SimpleNamespace(format=form, data=array.array('B', data[1:]))
    image = compressed_to_rgb(message, lambda what: None, MAX_PIXELS)
    assert image.dtype == np.uint8 and image.shape[2] == 3
    assert image.shape[0] * image.shape[1] <= MAX_PIXELS


@target(PoseNetError, examples=lambda: [image[1:] for image in compressed_images()])
def photo(data: bytes) -> None:
    read_image(as_file('photo', data))


# Labels.


def labels() -> list[bytes]:
    person = {
        'image_id': 1, 'keypoints': [1.5, 2, 2] * 17, 'bbox': [0, 0, 3, 4], 'area': 5,
        'iscrowd': 0, 'category_id': 1,
    }  # fmt: skip
    content = {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'height': 10, 'width': 20}],
        'annotations': [person],
        'categories': [{'id': 1, 'name': 'person', 'keypoints': ['nose', 'left_eye']}],
    }
    return [json.dumps(content).encode()]


def label_studio_export() -> list[bytes]:
    size = {'original_width': 20, 'original_height': 10}
    box = {'x': 1, 'y': 2, 'width': 30, 'height': 40}
    results = [
        {'id': 'a', 'type': 'rectanglelabels', **size, 'value': box},
        {'parentID': 'a', 'type': 'keypointlabels', **size,
         'value': {'x': 5, 'y': 6, 'keypointlabels': ['nose']}},
    ]  # fmt: skip
    annotation = {'was_cancelled': False, 'updated_at': '2026', 'result': results}
    task = {'id': 1, 'annotations': [annotation], 'data': {'image': '/data/local-files/?d=a.jpg'}}
    return [json.dumps([task]).encode()]


@target(LabelError, examples=lambda: labels() + label_studio_export())
def labels_of_people(data: bytes) -> None:
    read_labels(as_file('labels.json', data))


def results() -> list[bytes]:
    result = {'image_id': 1, 'category_id': 1, 'score': 0.5, 'keypoints': [1.0, 2.0, 0.5] * 17}
    return [json.dumps([result]).encode()]


@target(LabelError, examples=results)
def predictions(data: bytes) -> None:
    photos = read_labels(as_file('good.json', labels()[0]))
    read_predictions(as_file('results.json', data), photos)


# Options.


@target(ConfigError, examples=lambda: [b'{"multiplier": 0.5, "output_stride": 8}'])
def options(data: bytes) -> None:
    """Values of any type for the fields of the configurations."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(values, dict):
        for kind in (ModelConfig, DecoderConfig, RuntimeConfig):
            own = {k: v for k, v in values.items() if k in kind.__dataclass_fields__}
            kind(**own)


@target(examples=lambda: ['é\ud800\n\x1b[2J'.encode('utf-8', 'surrogatepass')])
def text(data: bytes) -> None:
    shown = printable(data.decode('utf-8', 'surrogateescape'), 200)
    assert shown.isprintable() and len(shown) < 400


# What a network gives.


def heads() -> list[bytes]:
    return [struct.pack('<ff', 0.9, 3.0), struct.pack('<ffff', 0.1, -1e30, math.nan, 1e38)]


@target(BackendError, examples=heads)
def heads_of_a_network(data: bytes) -> None:
    """Any bytes as float32, over and over."""
    values = np.resize(np.frombuffer(data[: len(data) // 4 * 4] or bytes(4), '<f4'), 3 * 4 * 117)
    parts = np.split(values.astype(np.float32), np.cumsum([12 * n for n in HEADS.values()])[:-1])
    given = Heads(*(p.reshape(1, 3, 4, -1) for p in parts))
    check_heads(given, (1, 3, 4))
    one = given.of_image(0)
    for refined in (False, True):
        for poses in (
            single_pose_arrays(one.heatmap_scores, one.offsets, 16, refined),
            multiple_pose_arrays(one, 16, 5, 0.1, 20.0, refined),
        ):
            check_poses(poses, 33, 49)
            for pose in as_poses(poses):
                assert np.isfinite([*pose.keypoints.ravel(), *pose.keypoint_deviations]).all()


# Bags.


@functools.cache
def bags() -> list[bytes]:
    from mcap.writer import Writer

    message = bytes.fromhex('00010000') + bytes(60)
    buffer = io.BytesIO()
    writer = Writer(buffer)
    writer.start()
    schema = writer.register_schema('sensor_msgs/msg/Image', 'ros2msg', b'uint32 height')
    channel = writer.register_channel('/image', 'cdr', schema)
    for i in range(3):
        writer.add_message(channel, i, message, i)
    writer.finish()

    path = folder() / 'good.db3'
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(
            'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, '
            'serialization_format TEXT, offered_qos_profiles TEXT)'
        )
        database.execute(
            'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, '
            'data BLOB)'
        )
        database.execute("INSERT INTO topics VALUES(1, '/a', 'sensor_msgs/msg/Image', 'cdr', '')")
        database.execute('INSERT INTO messages VALUES(1, 1, 5, ?)', [message])
    return [buffer.getvalue(), path.read_bytes()]


@target(PoseNetError, examples=bags)
def bag(data: bytes) -> None:
    from posenet_ros.io.bag_file import Bag

    path = as_file('bag' + ('.mcap' if data[:5] == b'\x89MCAP' else '.db3'), data)
    with Bag(path, lambda problem: None) as opened:
        for record in opened.records(opened.topics):
            bytes(record.data)


# Messages of ROS, where it is there.


def depth_images() -> list[bytes]:
    return [bytes([4, 6, 12, 0, 0]) + bytes(range(48)), bytes([4, 4, 16, 1, 1]) + bytes(64)]


def compressed_depths() -> list[bytes]:
    header = struct.pack('<iff', 0, 0.0, 0.0)
    rvl = struct.pack('<IIII', 4, 2, 0x08122222, 0x22200000)
    picture = io.BytesIO()
    Picture.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8)).save(picture, 'png')
    return [bytes([1]) + header + rvl, bytes([0]) + header + picture.getvalue()]


@target(ImageError, examples=depth_images)
def depth_image(data: bytes) -> None:
    """Any depth image: people are finite or unknown."""
    data = data.ljust(5, b'\0')
    image = SimpleNamespace(
        height=data[0] % 8, width=data[1] % 8, step=data[2] % 64, is_bigendian=data[3] % 2,
        encoding=('16UC1', '32FC1', 'mono16', '8UC1')[data[4] % 4], data=data[5:],
    )  # fmt: skip
    depth, metres = depth_of(image)
    pose = Pose(0.9, np.linspace(0, 60, 34).reshape(17, 2), np.full(17, 0.9))
    (person,) = PoseLifter(CameraModel(64, 48, 50, 50, 32, 24)).lift([pose], depth, metres)
    known = person.states > 0
    assert np.isfinite(person.points[known]).all() and np.isnan(person.points[~known]).all()


@target(ImageError, examples=compressed_depths)
def compressed_depth(data: bytes) -> None:
    forms = ('16UC1; compressedDepth png', '16UC1; compressedDepth rvl',
             '32FC1; compressedDepth', '16UC1; compressedDepth')  # fmt: skip
    message = SimpleNamespace(format=forms[data[0] % 4] if data else '', data=data[1:])
    compressed_depth_of(message, 10_000)


with contextlib.suppress(ImportError):
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import CameraInfo, Image

    from posenet_ros.ros import serialized_image as views

    LENSES = ('plumb_bob', 'equidistant', 'rational_polynomial', 'barrel')

    def serialized_images() -> list[bytes]:
        pixels = array.array('B', range(24))
        fields = {'height': 2, 'width': 4, 'encoding': 'rgb8', 'step': 12, 'data': pixels}
        return [bytes(serialize_message(Image(**fields)))]

    @target(ImageError, examples=serialized_images)
    def serialized_image(data: bytes) -> None:
        try:
            image_to_rgb(views.read_image(data))
        finally:
            views.read_compressed_image(data)

    @target(CalibrationError, examples=lambda: [struct.pack('<35d', *range(35)) + bytes(28)])
    def calibration(data: bytes) -> None:
        """Any K, P, R, D and region: rays are finite or NaN, and points with them."""
        data = data.ljust(35 * 8 + 28, b'\0')
        values = struct.unpack_from('<35d', data)
        info = CameraInfo(k=values[:9], p=values[9:21], r=values[21:30], d=values[30:])
        info.width, info.height, info.roi.width, info.roi.x_offset, info.roi.height = (
            struct.unpack_from('<5I', data, 280)
        )
        info.distortion_model = LENSES[data[300] % len(LENSES)]
        info.d = values[30 : 30 + (0, 4, 5, 3)[data[301] % 4]]
        camera = CameraModel.of_info(info, 640, 480, bool(data[302] % 2))
        if camera is not None:
            pixels = np.array([[0.0, 0.0], [640.0, 480.0], [-6e3, 9e3]])
            assert not np.isinf(camera.points(pixels, 2.0)).any()
            assert not np.isinf(camera.project(camera.points(pixels, 2.0))).any()


def changed(example: bytes, dice: Any) -> bytes:
    """An example with a few changes: bytes, cuts, copies, numbers at their limits."""
    data = bytearray(example)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at = dice.randrange(len(data) + 1)
        kind = dice.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = dice.randrange(256)
        elif kind == 2:
            del data[at : at + dice.randrange(1, 64)]
        elif kind == 3:
            data[at:at] = data[: dice.randrange(64)]
        elif kind == 4:
            limit = dice.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
            data[at : at + 4] = limit.to_bytes(4, dice.choice(('little', 'big')))
        else:
            del data[at:]
    return bytes(data)


def crc_mended(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksums, so that their content is read."""
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from('>I', data, at)
        content = data[at + 4 : at + 8 + min(length, len(data) - at - 12)]
        out += struct.pack('>I', len(content) - 4) + content
        out += struct.pack('>I', zlib.crc32(content))
        at += 12 + max(len(content) - 4, 0)
    return bytes(out)


assert 'POSENET_HOME' in os.environ, "the tests' own cache is used, and not the user's"
