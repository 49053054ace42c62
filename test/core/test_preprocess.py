"""Padding, resizing, normalising, and mapping keypoints back to the image."""

import numba
import numpy as np
import pytest
from goldens import SHARED, golden_paths, load_golden

from posenet_ros import ImageError
from posenet_ros.core.preprocess import (
    RESNET_MEAN,
    Letterbox,
    _memory,
    check_image,
    mirror,
    preprocess,
)
from posenet_ros.io.photos import read_image


def network_input(image, height, width, architecture='MobileNetV1'):
    out = np.full((3, height, width), np.nan, np.float32)
    assert preprocess(image, architecture, out) == Letterbox.fit(*image.shape[:2], height, width)
    return out.transpose(1, 2, 0)


def byte_bounds(array):
    """The addresses of the first byte, and behind the last."""
    steps = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    start = array.ctypes.data
    lowest = start + sum(step for step in steps if step < 0)
    return lowest, start + sum(step for step in steps if step > 0) + array.itemsize


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parity
def test_padding_and_its_inverse_equal_the_references(validation):
    for case in validation['pad']:
        letterbox = Letterbox.fit(*case['image'], *case['target'])
        padding = case['padding']
        assert (letterbox.pad_y, letterbox.pad_x) == (padding['top'], padding['left'])
        point = np.array([case['scaleAndFlip']['in']])
        for flip, name in ((False, 'noflip'), (True, 'flip')):
            placed = letterbox.to_image(point)[0]
            if flip:
                mirror(placed, letterbox.image_width)
            expected = case['scaleAndFlip'][name]
            assert placed.tolist() == pytest.approx([expected['x'], expected['y']], abs=1e-9)


@pytest.mark.parity
def test_input_equals_the_references_to_the_last_bit():
    if not SHARED.is_dir():
        pytest.skip('the resized photos of the reference (../shared) are not on this machine')
    compared = 0
    for golden in map(load_golden, golden_paths('e2e')):
        if 'resizedInput' not in golden.tensors:
            continue
        resized = golden.tensors['resizedInput']
        architecture = golden.expected['model']['architecture']
        if architecture == 'ResNet50':
            expected = resized + RESNET_MEAN
        else:
            expected = resized / np.float32(127.5) - np.float32(1)
        image = read_image(SHARED / 'images' / golden.expected['image'])
        actual = network_input(image, *resized.shape[:2], architecture)
        assert np.array_equal(actual, expected), golden.name
        compared += 1
    assert compared >= 4


def plain_resize(image, height, width):
    """The definition, one pixel at a time: pad with black, then bilinear without half pixels."""
    letterbox = Letterbox.fit(*image.shape[:2], height, width)
    pads = ((letterbox.pad_y,) * 2, (letterbox.pad_x,) * 2, (0, 0))
    padded = np.pad(image, pads).astype(np.float64)
    result = np.empty((height, width, 3), np.float32)
    for y in range(height):
        for x in range(width):
            sy, sx = y * padded.shape[0] / height, x * padded.shape[1] / width
            y0, x0 = int(sy), int(sx)
            y1 = min(padded.shape[0] - 1, int(np.ceil(sy)))
            x1 = min(padded.shape[1] - 1, int(np.ceil(sx)))
            top = padded[y0, x0] + (padded[y0, x1] - padded[y0, x0]) * (sx - x0)
            bottom = padded[y1, x0] + (padded[y1, x1] - padded[y1, x0]) * (sx - x0)
            result[y, x] = top + (bottom - top) * (sy - y0)
    return result


@pytest.mark.parametrize(
    ('image_size', 'input_size'),
    [
        ((1, 1), (33, 33)),  # a single pixel
        ((3, 100), (33, 33)),  # very wide: mostly padding
        ((100, 3), (33, 33)),  # very tall
        ((33, 33), (33, 33)),  # nothing to do
        ((48, 64), (33, 49)),
        ((20, 10), (65, 33)),  # enlarged
        ((31, 33), (33, 33)),  # one black row above, and one below
        ((20, 40), (33, 33)),  # an image's last row blends into black
        ((100, 1), (33, 1)),  # no column of the input shows the image
    ],
)
@pytest.mark.parametrize('architecture', ['MobileNetV1', 'ResNet50'])
def test_any_size_is_padded_resized_and_normalised_as_defined(image_size, input_size, architecture):
    image = photo(*image_size)
    resized = plain_resize(image, *input_size)
    if architecture == 'ResNet50':
        expected = resized + np.array([-123.15, -115.90, -103.06], np.float32)
    else:
        expected = resized / np.float32(127.5) - np.float32(1)
    found = network_input(image, *input_size, architecture)
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_strides_of_the_image_do_not_matter():
    image = photo(48, 64)
    expected = network_input(image, 33, 33)
    padded_rows = np.zeros((48, 70, 3), np.uint8)
    padded_rows[:, :64] = image
    with_alpha = np.dstack([image, np.full((48, 64), 9, np.uint8)])
    bgr = np.ascontiguousarray(image[..., ::-1])
    read_only = image.copy()
    read_only.flags.writeable = False
    upside_down, mirrored = image[::-1].copy(), image[:, ::-1].copy()
    every_second = np.repeat(image, 2, axis=1)
    for view in (
        padded_rows[:, :64],
        with_alpha[..., :3],
        bgr[..., ::-1],
        with_alpha[..., 2::-1][..., ::-1],
        read_only,
        np.asfortranarray(image),
        upside_down[::-1],
        mirrored[:, ::-1],
        every_second[:, ::2],
    ):
        assert np.array_equal(network_input(view, 33, 33), expected)


def test_images_that_share_memory_with_others_show_their_own_pixels():
    """Enlarged, and at the scale 1, where every column is one of the image, up to the last byte."""
    five_bytes = np.random.default_rng(1).integers(0, 256, (33, 33, 5), np.uint8)
    one_byte = five_bytes[..., 0].copy()
    row = five_bytes[0, :, :3].copy()
    for view in (
        five_bytes[..., :3],
        five_bytes[..., 2:],
        five_bytes[..., 4:1:-1],
        five_bytes[..., ::2],  # colours that do not lie side by side
        np.broadcast_to(one_byte[..., None], (33, 33, 3)),
        np.broadcast_to(row, (33, 33, 3)),  # the same row again and again
        np.broadcast_to(row[:, None], (33, 33, 3)),
    ):
        found = network_input(view, 33, 33)
        assert np.array_equal(found, view.astype(np.float32) / np.float32(127.5) - np.float32(1))
        assert np.array_equal(network_input(view, 65, 65), network_input(view.copy(), 65, 65))


def test_grey_image_is_one_of_three_equal_colours():
    grey = np.broadcast_to(photo(48, 64)[..., :1], (48, 64, 3))
    assert np.array_equal(network_input(grey, 33, 33), network_input(grey.copy(), 33, 33))


def test_scale_is_image_pixels_per_input_pixel():
    assert Letterbox.fit(480, 640, 257, 257).scale == 640 / 257
    assert Letterbox.fit(640, 480, 257, 257).scale == 640 / 257


def test_image_is_read_where_it_lies():
    image = photo(48, 64)
    with_alpha = np.dstack([image, image[..., :1]])
    five_bytes = np.dstack([image, image[..., :2]])
    mono = np.broadcast_to(image[..., :1].copy(), image.shape)
    for view in (
        image,
        image[..., ::-1],
        with_alpha[..., :3],
        with_alpha[..., 2::-1],
        five_bytes[..., :3],
        mono,
    ):
        assert np.shares_memory(_memory(view)[0], view)
        assert not _memory(view)[0].flags.writeable
        # No byte before the image, and none after it.
        assert byte_bounds(_memory(view)[0]) == byte_bounds(view)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason='nothing is compiled')
def test_every_layout_runs_the_same_compiled_form():
    """Nothing may be compiled while a live frame waits."""
    from posenet_ros.core.preprocess import _pad_resize_normalise

    image = photo(8, 8)
    network_input(image, 17, 17)
    compiled = len(_pad_resize_normalise.signatures)
    mono = np.broadcast_to(image[..., :1], image.shape)
    for view in (
        mono,
        image[..., ::-1],
        image[::2],
        np.frombuffer(image.tobytes(), np.uint8).reshape(8, 8, 3),
    ):
        network_input(view, 17, 17)
    assert len(_pad_resize_normalise.signatures) == compiled


@pytest.mark.parametrize(
    ('image', 'named'),
    [
        (np.zeros((4, 4, 3), np.float32), 'float32'),
        ([[0]], 'list'),
        (np.zeros((4, 4), np.uint8), r'\(4, 4\)'),
        (np.zeros((4, 4, 4), np.uint8), r'\(4, 4, 4\)'),
        (np.zeros((0, 4, 3), np.uint8), r'\(0, 4, 3\)'),
    ],
)
def test_array_that_is_no_rgb_image_is_refused_by_name(image, named):
    check_image(np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(ImageError, match=named):
        check_image(image)
