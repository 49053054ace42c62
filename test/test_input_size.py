"""Input sizes: the reference's rounding (test_config.py), and the shape of an image."""

import math

import pytest

from posenet_ros.input_size import MAX_ASPECT, InputSizes, fitted_input_size


@pytest.mark.parametrize('stride', [8, 16, 32])
@pytest.mark.parametrize('resolution', [129, 257, 385, 513, 1025])
@pytest.mark.parametrize(
    ('height', 'width'), [(480, 640), (640, 480), (1080, 1920), (426, 640), (500, 500), (9, 21)]
)
def test_an_image_fills_an_input_of_about_as_many_pixels(height, width, resolution, stride):
    size = fitted_input_size(resolution**2, height, width, stride)
    assert all((side - 1) % stride == 0 for side in size)
    pixels = math.prod(size)
    assert pixels <= 1.02 * resolution**2
    scale = min(size[0] / height, size[1] / width)
    square = min(resolution / height, resolution / width)
    shown = height * width * scale**2  # pixels of the input that show the image
    if resolution >= 12 * stride:
        assert pixels > 0.85 * resolution**2
        assert shown > 0.9 * pixels
    assert scale >= 0.999 * square or height == width


@pytest.mark.parametrize('stride', [8, 16, 32])
@pytest.mark.parametrize('pixels', [1, 20, 1056, 33**2, 50_000, 257**2])
@pytest.mark.parametrize(
    ('height', 'width'), [(2, 2), (4, 3), (9, 16), (5, 2), (2, 5), (7, 2), (1000, 1001)]
)
def test_no_other_input_shows_the_image_larger(height, width, pixels, stride):
    """All inputs are tried; of those that show it equally large, the smallest is taken."""
    aspect = min(max(width / height, 1 / MAX_ASPECT), MAX_ASPECT)
    most = 1.02 * pixels
    best = max(
        (
            (h, w)
            for h in range(1, int(most) + 1, stride)
            for w in range(1, int(most / h) + 1, stride)
        ),
        key=lambda size: (min(size[0], size[1] / aspect), -size[0], -size[1]),
    )
    assert fitted_input_size(pixels, height, width, stride) == best


def test_a_square_image_gets_the_square():
    assert fitted_input_size(257**2, 600, 600, 16) == (257, 257)


def test_a_portrait_is_a_landscape_on_its_side():
    for resolution in (257, 385, 513):
        tall = fitted_input_size(resolution**2, 640, 480, 16)
        assert tall == fitted_input_size(resolution**2, 480, 640, 16)[::-1]


def test_very_long_images_get_borders():
    wide = fitted_input_size(257**2, 10, 4000, 16)
    assert wide == fitted_input_size(257**2, 1000, round(1000 * MAX_ASPECT), 16)
    assert wide[1] / wide[0] == pytest.approx(MAX_ASPECT, rel=0.15)


@pytest.mark.parametrize('pixels', [1, 2, 16, 300])
def test_the_smallest_inputs_have_at_least_one_cell(pixels):
    assert min(fitted_input_size(pixels, 3, 4, 16)) >= 1
    assert fitted_input_size(0.1, 3, 4, 16) == (1, 1)


def test_a_range_of_sizes_is_said_in_width_by_height():
    assert str(InputSizes.of([(225, 289)])) == '289 x 225'
    sizes = InputSizes.of([(225, 289), (161, 417), (417, 161)])
    assert str(sizes) == '161 x 161 to 417 x 417' and not sizes.fixed
