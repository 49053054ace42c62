"""Compressed images are bounded by what their headers say, before anything decodes them."""

import struct
import zlib

import pytest
from media import encoded, picture

from posenet_ros import ImageError
from posenet_ros.config import MAX_IMAGE_PIXELS
from posenet_ros.io import picture_header
from posenet_ros.io.picture_header import USUAL_SCANS, check_header, is_jpeg


def refused(data, *limit):
    with pytest.raises(ImageError) as caught:
        check_header(memoryview(data), *limit)
    return str(caught.value)


def with_more_scans(jpeg, scans):
    """The last scan of a JPEG, again and again: each is another pass over all pixels."""
    start = jpeg.rindex(b'\xff\xda')
    return jpeg[:start] + (scans - jpeg.count(b'\xff\xda') + 1) * jpeg[start:-2] + jpeg[-2:]


@pytest.mark.parametrize('form', ['JPEG', 'PNG'])
def test_picture_may_have_as_many_pixels_as_the_limit_and_no_more(form):
    data = encoded(picture(30, 40), form)
    check_header(memoryview(data))
    check_header(memoryview(data), 40 * 30)
    assert refused(data, 40 * 30 - 1) == (
        f'{len(data)} bytes of {form} claim 40 x 30 pixels; at most 1199 are decoded '
        '(max_image_pixels)'
    )


def test_png_that_claims_more_than_any_camera_has_is_refused():
    data = bytearray(encoded(picture(30, 40), 'PNG'))
    data[16:24] = struct.pack('>II', 100_000, 100_000)
    data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    assert f'claim 100000 x 100000 pixels; at most {MAX_IMAGE_PIXELS}' in refused(bytes(data))


def test_usual_scans_cost_nothing_and_each_further_one_costs_pixels():
    jpeg = encoded(picture(30, 40), progressive=True)
    usual = with_more_scans(jpeg, USUAL_SCANS)
    check_header(memoryview(usual), 1200)
    more = with_more_scans(jpeg, USUAL_SCANS + 1)
    check_header(memoryview(more), 1320)
    assert 'claim 40 x 30 pixels in 11 scans; at most 1319' in refused(more, 1319)
    assert 'pixels;' in refused(usual, 1199)


def test_scans_are_not_counted_in_a_png():
    data = encoded(picture(30, 40), 'PNG')
    data = data[:8] + struct.pack('>I', 200) + b'teXt' + 100 * b'\xff\xda' + bytes(4) + data[8:]
    assert 'header is damaged' in refused(data)  # a chunk before the first
    data = encoded(picture(30, 40), 'PNG') + 100 * b'\xff\xda'
    check_header(memoryview(data), 1200)


@pytest.mark.parametrize('data', [b'', b'\xff\xd8', b'GIF89a', b'\x89PNG\r\n\x1a', bytes(100)])
def test_what_is_neither_is_told_with_its_length(data):
    assert refused(data) == f'{len(data)} bytes that are neither JPEG nor PNG'


@pytest.mark.parametrize('form', ['JPEG', 'PNG'])
def test_damaged_header_is_told(form):
    data = encoded(picture(30, 40), form)[:20]
    assert refused(data) == f'20 bytes of {form} whose header is damaged'


def test_marker_at_the_very_end_is_no_scan():
    assert picture_header._num_scans(memoryview(b'\xff\xda\xff')) == 1
    assert picture_header._num_scans(memoryview(b'\xff\xff\xda\xda\xd8\xff\xda')) == 2


def test_jpeg_is_known_by_its_first_three_bytes():
    assert is_jpeg(memoryview(encoded(picture())))
    assert not is_jpeg(memoryview(b'\xff\xd8\xfe\xff'))
    assert not is_jpeg(memoryview(encoded(picture(30, 40), 'PNG')))
