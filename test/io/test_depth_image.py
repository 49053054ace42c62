"""Depth images as cameras publish and as bags hold them."""

import io
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Picture

from posenet_ros import ImageError
from posenet_ros.io.depth_image import compressed_depth_of, depth_of


def message(depth, encoding, big=False, padding=0):
    kind = {'16UC1': 'u2', 'mono16': 'u2', '32FC1': 'f4'}[encoding]
    rows = depth.astype(('>' if big else '<') + kind)
    step = rows.strides[0] + padding
    data = np.zeros((len(rows), step), np.uint8)
    data[:, : rows.strides[0]] = rows.view(np.uint8)
    return SimpleNamespace(
        height=depth.shape[0], width=depth.shape[1], encoding=encoding, is_bigendian=int(big),
        step=step, data=data.tobytes(),
    )  # fmt: skip


def some_depth(kind=np.uint16, shape=(30, 41)):
    return (np.random.default_rng(0).integers(0, 6000, shape) // 7 * 7).astype(kind)


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize(
    ('encoding', 'kind', 'metres'),
    [('16UC1', np.uint16, 0.001), ('mono16', np.uint16, 0.001), ('32FC1', np.float32, 1.0)],
)
def test_depth_is_read_in_place(encoding, kind, metres, big, padding):
    depth = some_depth(kind)
    given = message(depth, encoding, big, padding)
    found, unit = depth_of(given)
    assert unit == metres
    assert np.array_equal(found, depth)
    assert np.shares_memory(found, np.frombuffer(given.data, np.uint8))


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'encoding': 'rgb8'}, "'rgb8'.*16UC1"),
        ({'encoding': '8UC1'}, "'8UC1'"),
        ({'height': 0}, '41 x 0'),
        ({'step': 81}, 'step 81'),
        ({'height': 31}, '2460 bytes of data where 41 x 31'),
        ({'data': b''}, '0 bytes of data'),
    ],
)
def test_broken_depth_is_refused_by_its_values(change, named):
    given = message(some_depth(), '16UC1')
    vars(given).update(change)
    with pytest.raises(ImageError, match=named):
        depth_of(given)


def test_last_row_may_lack_its_padding():
    given = message(some_depth(), '16UC1', padding=6)
    given.data = given.data[:-6]
    assert np.array_equal(depth_of(given).depth, some_depth())


# Compressed.


def png(depth):
    file = io.BytesIO()
    Picture.fromarray(depth).save(file, 'png')
    return file.getvalue()


def rvl(depth):
    """Wilson's encoder, in the plainest way."""
    nibbles = []

    def put(number):
        while True:
            low, number = number & 7, number >> 3
            nibbles.append(low | (8 if number else 0))
            if not number:
                return

    values, at, previous = depth.reshape(-1).tolist(), 0, 0
    while at < len(values):
        zeros = next((i for i, v in enumerate(values[at:]) if v), len(values) - at)
        at += zeros
        others = next((i for i, v in enumerate(values[at:]) if not v), len(values) - at)
        put(zeros)
        put(others)
        for value in values[at : at + others]:
            delta = value - previous
            put(2 * delta if delta >= 0 else -2 * delta - 1)
            previous = value
        at += others
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        sum(nibble << (28 - 4 * i) for i, nibble in enumerate(nibbles[start : start + 8]))
        for start in range(0, len(nibbles), 8)
    ]
    return struct.pack(f'<II{len(words)}I', depth.shape[1], depth.shape[0], *words)


def compressed(body, form='16UC1; compressedDepth png', a=0.0, b=0.0):
    return SimpleNamespace(format=form, data=struct.pack('<iff', 0, a, b) + body)


@pytest.mark.parametrize('form', ['16UC1; compressedDepth png', '16UC1; compressedDepth'])
def test_png_is_the_depth_in_millimetres(form):
    depth = some_depth()
    found, metres = compressed_depth_of(compressed(png(depth), form))
    assert metres == 0.001 and np.array_equal(found, depth)


@pytest.mark.parametrize('kind', ['some', 'holes', 'full', 'steps'])
def test_rvl_is_the_depth_in_millimetres(kind):
    depth = some_depth()
    depth[:10] = 0
    if kind == 'holes':
        depth[:] = 0
    elif kind == 'full':
        depth[:] = 65535
    elif kind == 'steps':
        depth[::2, ::3] = 0
        depth[1::4] = 65535
    found, metres = compressed_depth_of(compressed(rvl(depth), '16UC1; compressedDepth rvl'))
    assert metres == 0.001 and np.array_equal(found, depth)


def test_metres_are_the_inverse_of_what_was_quantised():
    """As compressed_depth_image_transport does, with its quantisation of 100 and 10 m at most."""
    depth = np.linspace(0.5, 9.0, 1200, dtype=np.float32).reshape(30, 40)
    a = 100.0 * (100.0 + 1.0)
    b = 1.0 - a / 10.0
    quantised = np.rint(a / depth + b).astype(np.uint16)
    quantised[3, 4] = 0
    found, metres = compressed_depth_of(
        compressed(png(quantised), '32FC1; compressedDepth png', a, b)
    )
    assert metres == 1.0 and np.isnan(found[3, 4])
    good = np.isfinite(found)
    assert good.sum() == 1199
    assert np.abs(found[good] - depth[good]).max() < 0.01


@pytest.mark.parametrize(
    ('given', 'named'),
    [
        (compressed(b'', 'jpeg'), "'jpeg'"),
        (compressed(b'', '16UC1; jpeg compressed bgr8'), '16UC1'),
        (compressed(png(some_depth()), '16UC1; compressedDepth zstd'), 'zstd'),
        (SimpleNamespace(format='16UC1; compressedDepth png', data=b'123'), '3 bytes'),
        (compressed(b'\xff\xd8\xff'), 'JPEG'),
        (compressed(png(some_depth(np.uint8))), '16 bits and one channel'),
        (compressed(png(some_depth())[:60]), 'PNG'),
        (compressed(png(some_depth(shape=(400, 500)))), '500 x 400'),
        (compressed(b'1234', '16UC1; compressedDepth rvl'), '4 bytes'),
        (compressed(struct.pack('<II', 1 << 20, 1 << 20), '16UC1; compressedDepth rvl'), '1048576'),
        (compressed(rvl(some_depth())[:50], '16UC1; compressedDepth rvl'), 'cut or damaged'),
        (compressed(struct.pack('<IIII', 4, 4, 0, 0), '16UC1; compressedDepth rvl'), 'damaged'),
    ],
)
def test_broken_compressed_depth_is_refused_by_its_values(given, named):
    with pytest.raises(ImageError, match=named):
        compressed_depth_of(given, 100_000)
