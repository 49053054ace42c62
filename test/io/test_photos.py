"""Photos as people have them: upright whatever the format, and refused in one sentence."""

import contextlib
import io
import os
import struct

import numpy as np
import pytest
from media import encoded, picture
from PIL import Image, ImageOps

from posenet_ros import ImageError
from posenet_ros.io.jpeg import decode_jpeg
from posenet_ros.io.photos import decode_photo, read_image, write_image

FORMATS = ['JPEG', 'PNG', 'TIFF', 'WEBP']


def lossless(kind):
    return {'lossless': True} if kind == 'WEBP' else {}


@pytest.mark.parametrize('kind', FORMATS)
@pytest.mark.parametrize('orientation', range(10))
def test_every_format_is_turned_upright(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(5, 7), kind, exif=exif, **lossless(kind))
    with Image.open(io.BytesIO(data)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert('RGB'))
    found = decode_photo(data, 'photo')
    assert np.array_equal(found, expected)
    assert found.flags.c_contiguous and found.flags.writeable


def test_jpeg_has_pillows_pixels():
    data = encoded(picture(301, 217), quality=80)
    with Image.open(io.BytesIO(data)) as stored:
        assert np.array_equal(decode_photo(data, 'photo'), np.asarray(stored))


def test_transparent_pixels_lie_on_black():
    pixels = np.dstack([picture(), np.full((60, 80), 255, np.uint8)])
    pixels[:30, :, 3] = 0
    found = decode_photo(encoded(pixels, 'PNG'), 'photo')
    assert not found[:30].any()
    assert np.array_equal(found[30:], pixels[30:, :, :3])


def test_sixteen_bits_become_eight():
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    found = decode_photo(encoded(values, 'PNG'), 'photo')
    assert np.array_equal(found[..., 0].ravel(), np.arange(256))
    assert (found == found[..., :1]).all()


def test_first_picture_of_an_animation_counts():
    frames = [Image.fromarray(picture(seed=seed)).quantize() for seed in range(3)]
    data = io.BytesIO()
    frames[0].save(data, 'GIF', save_all=True, append_images=frames[1:])
    expected = np.asarray(frames[0].convert('RGB')).astype(int)
    assert np.abs(decode_photo(data.getvalue(), 'photo') - expected).max() < 8


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (b'', 'is empty'),
        (b'this is text', 'is not an image'),
        (encoded(picture())[:500], 'is not an image that can be read: .*(cut|[Tt]runcated)'),
        (encoded(picture(), 'PNG')[:500], 'is not an image that can be read: .*truncated'),
        (encoded(np.zeros((3, 3), np.float32), 'TIFF'), 'floating-point'),
        (b'\0\0\0\x18ftypheic' + bytes(50), 'pillow-heif'),
        (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'is not an image'),  # not run
    ],
)
def test_unreadable_photos_say_why(tmp_path, data, reason):
    path = tmp_path / 'photo.jpg'
    path.write_bytes(data)
    with pytest.raises(ImageError, match=rf'photo\.jpg {reason}|{reason}'):
        read_image(path)


def test_every_cut_of_a_photo_is_an_error_of_ours():
    for kind in FORMATS:
        data = encoded(picture(20, 30), kind)
        for length in range(0, len(data) - 2, 7):
            with contextlib.suppress(ImageError):
                assert decode_photo(data[:length], 'photo').shape == (20, 30, 3)


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'a.jpg')
    (tmp_path / 'b.jpg').symlink_to('/dev/zero')
    for name in ('a.jpg', 'b.jpg'):
        with pytest.raises(ImageError, match='is a pipe or a device'):
            read_image(tmp_path / name)


def test_header_that_claims_too_much_is_refused():
    data = bytearray(encoded(picture(64, 64)))
    place = data.index(b'\xff\xc0') + 5
    data[place : place + 4] = struct.pack('>HH', 65500, 65500)
    with pytest.raises(ImageError, match='not an image that can be read'):
        decode_photo(bytes(data), 'photo')
    assert decode_jpeg(bytes(data))[0] is None


def test_a_folder_and_a_missing_file_are_named(tmp_path):
    (tmp_path / 'x.jpg').mkdir()
    with pytest.raises(ImageError, match=r'x\.jpg is a folder'):
        read_image(tmp_path / 'x.jpg')
    with pytest.raises(ImageError, match=r'no image file .*y\.jpg'):
        read_image(tmp_path / 'y.jpg')


@pytest.mark.parametrize('suffix', ['.png', '.bmp', '.webp', '.jpg', '.tiff', '.ppm'])
def test_what_is_written_is_read_again(tmp_path, suffix):
    write_image(tmp_path / f'out{suffix}', picture())
    found = read_image(tmp_path / f'out{suffix}').astype(int)
    assert np.abs(found - picture()).mean() < (3 if suffix in ('.jpg', '.webp') else 1e-9)
    assert [path.name for path in tmp_path.iterdir()] == [f'out{suffix}']
