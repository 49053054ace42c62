"""Compressed images are bounded by what their headers say, before anything decodes them."""

import struct
import zlib

import pytest
from media import encoded, picture

from posenet_ros import ImageError
from posenet_ros.config import MAX_IMAGE_PIXELS
from posenet_ros.io import picture_header
from posenet_ros.io.picture_header import (
    MAX_CHUNKS,
    MAX_SEGMENTS,
    PNG_MAGIC,
    USUAL_SCANS,
    check_header,
    is_jpeg,
)


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


# The parts of a file.

START = b'\xff\xd8'


def segment(kind, content):
    return struct.pack('>BBH', 0xFF, kind, len(content) + 2) + content


def frame(kind=0xC0, width=40, height=30):
    return segment(kind, struct.pack('>BHHBBBB', 8, height, width, 1, 1, 0x11, 0))


def size_of_jpeg(data):
    return picture_header._size_of_jpeg(memoryview(data))


FRAMES = [*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)]


@pytest.mark.parametrize('kind', FRAMES)
def test_every_kind_of_frame_has_the_size(kind):
    assert size_of_jpeg(START + frame(kind)) == (40, 30)


OTHERS = [0x02, 0xBF, 0xC4, 0xC8, 0xCC, 0xDB, 0xDD, 0xE0, 0xEF, 0xFE]


@pytest.mark.parametrize(
    'before',
    [
        *(frame(kind, width=7, height=7) for kind in OTHERS),  # looks like one, and is not
        b'\xff',
        b'\xff\xff\xff',
        b'\xff\x01',
        b'\xff\xd0',
        b'\xff\xd7\xff\xff\xd1',
    ],
)
def test_what_comes_before_the_frame_is_passed_over(before):
    assert size_of_jpeg(START + before + frame()) == (40, 30)
    assert size_of_jpeg(START + 2 * before + frame(width=50)) == (50, 30)


@pytest.mark.parametrize(
    'before',
    [
        segment(0xDA, b'scan'),
        segment(0xD9, b'end'),
        START,
        b'\0',
        b'\xff\xe0\xff\xff',  # longer than the file
    ],
)
def test_frame_behind_a_scan_the_end_or_garbage_does_not_count(before):
    assert size_of_jpeg(START + before + frame()) is None


@pytest.mark.parametrize('before', [b'', segment(0xE0, b'ab')])
def test_header_may_end_behind_the_size_and_no_earlier(before):
    data = START + before + frame()
    enough = len(START + before) + 9
    for length in range(2, len(data) + 1):
        assert size_of_jpeg(data[:length]) == ((40, 30) if length >= enough else None)


def test_segments_before_the_frame_are_bounded():
    """Libraries read each of them, and some keep it."""
    assert MAX_SEGMENTS == 1000
    for part in (b'\xff', segment(0xFE, b'')):
        assert size_of_jpeg(START + 999 * part + frame()) == (40, 30)
        assert size_of_jpeg(START + 1000 * part + frame()) is None


def chunk(kind, content=b''):
    crc = struct.pack('>I', zlib.crc32(kind + content))
    return struct.pack('>I', len(content)) + kind + content + crc


def size_of_png(data):
    return picture_header._size_of_png(memoryview(data))


HEAD = PNG_MAGIC + chunk(b'IHDR', struct.pack('>IIBBBBB', 40, 30, 8, 2, 0, 0, 0))


def test_png_has_its_size_in_the_first_chunk():
    assert size_of_png(HEAD) == size_of_png(HEAD + chunk(b'IEND')) == (40, 30)
    for length in range(8, len(HEAD)):
        assert size_of_png(HEAD[:length]) is None
    assert size_of_png(PNG_MAGIC + chunk(b'teXt') + HEAD[8:]) is None
    for length in range(12):
        assert size_of_png(HEAD + chunk(b'IEND')[:length]) == (40, 30)


def test_chunks_are_bounded():
    assert MAX_CHUNKS == 20_000
    assert size_of_png(HEAD + 19_998 * chunk(b'teXt')) == (40, 30)
    assert size_of_png(HEAD + 19_999 * chunk(b'teXt')) is None


def test_marker_at_the_very_end_is_no_scan():
    assert picture_header._num_scans(memoryview(b'\xff\xda\xff')) == 1
    assert picture_header._num_scans(memoryview(b'\xff\xff\xda\xda\xd8\xff\xda')) == 2


def test_jpeg_is_known_by_its_first_three_bytes():
    assert is_jpeg(memoryview(encoded(picture())))
    assert not is_jpeg(memoryview(b'\xff\xd8\xfe\xff'))
    assert not is_jpeg(memoryview(encoded(picture(30, 40), 'PNG')))
