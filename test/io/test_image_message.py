"""Every encoding of a camera driver, against definitions in plain numpy and against cv_bridge."""

import array
import struct
import sys
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from posenet_ros import ImageError
from posenet_ros.io import image_message
from posenet_ros.io.image_message import ENCODINGS, compressed_to_rgb, copy_rgb, image_to_rgb
from posenet_ros.io.jpeg import decode_jpeg
from posenet_ros.io.picture_header import check_header

HEIGHT, WIDTH = 12, 16
GENERATOR = np.random.default_rng(0)

# Which colour each Bayer pattern has at the even and odd rows and columns.
BAYER = {
    'bayer_rggb': ('RG', 'GB'),
    'bayer_bggr': ('BG', 'GR'),
    'bayer_gbrg': ('GB', 'RG'),
    'bayer_grbg': ('GR', 'BG'),
}


def message(encoding, rows, width=WIDTH, padding=0, big_endian=False, height=None):
    """A message of (rows, anything) pixel data; each row is followed by `padding` noise bytes."""
    rows = np.ascontiguousarray(rows)
    if big_endian:
        rows = rows.astype(rows.dtype.newbyteorder('>'))
    flat = rows.reshape(len(rows), -1).view(np.uint8)
    noise = GENERATOR.integers(0, 256, (len(rows), padding), np.uint8)
    data = np.hstack([flat, noise])
    return SimpleNamespace(
        height=len(rows) if height is None else height,
        width=width,
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=data.shape[1],
        data=array.array('B', data.tobytes()),
    )


def random_pixels(dtype, *shape):
    return GENERATOR.integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def to_8_bits(values):
    return values if values.dtype == np.uint8 else np.rint(values / 257).astype(np.uint8)


def yuv_to_rgb(y, u, v):
    """BT.601 with a limited range, in OpenCV's fixed point."""
    y = np.maximum(y.astype(np.int64) - 16, 0) * 1220542 + (1 << 19)
    u, v = u.astype(np.int64) - 128, v.astype(np.int64) - 128
    r, g, b = y + 1673527 * v, y - 852492 * v - 409993 * u, y + 2116026 * u
    return np.clip(np.stack([r, g, b], -1) >> 20, 0, 255).astype(np.uint8)


def packed(encoding):
    """Random data of a packed encoding, and the RGB that it means."""
    dtype = np.uint16 if encoding.endswith('16') else np.uint8
    layout = {'8UC1': 'mono', '8UC3': 'bgr', '8UC4': 'bgra'}.get(encoding, encoding.rstrip('1680'))
    if layout == 'mono':
        data = random_pixels(dtype, HEIGHT, WIDTH)
        return data, to_8_bits(np.dstack([data] * 3))
    data = random_pixels(dtype, HEIGHT, WIDTH, len(layout))
    return data, to_8_bits(data[..., [layout.index(colour) for colour in 'rgb']])


def yuv422(encoding):
    data = random_pixels(np.uint8, HEIGHT, WIDTH // 2, 4)
    order = 'UYVZ' if encoding in ('yuv422', 'uyvy') else 'YUZV'
    y0, u, y1, v = (data[..., order.index(letter)] for letter in 'YUZV')
    y = np.stack([y0, y1], -1).reshape(HEIGHT, WIDTH)
    return data, yuv_to_rgb(y, u.repeat(2, 1), v.repeat(2, 1))


def yuv420(encoding):
    data = random_pixels(np.uint8, HEIGHT * 3 // 2, WIDTH)
    chroma = data[HEIGHT:].reshape(HEIGHT // 2, WIDTH // 2, 2).repeat(2, 0).repeat(2, 1)
    u, v = (chroma[..., 0], chroma[..., 1])[:: 1 if encoding == 'nv12' else -1]
    return data, yuv_to_rgb(data[:HEIGHT], u, v)


def bayer(encoding):
    """A mosaic of one flat colour, which every interpolation gives back."""
    dtype = np.uint16 if encoding.endswith('16') else np.uint8
    colour = dict(zip('RGB', (random_pixels(dtype, 3)), strict=True))
    pattern = BAYER[encoding[:10]]
    data = np.array(
        [[colour[pattern[y % 2][x % 2]] for x in range(WIDTH)] for y in range(HEIGHT)], dtype
    )
    return data, to_8_bits(np.broadcast_to(np.array(list(colour.values())), (HEIGHT, WIDTH, 3)))


def case(encoding):
    if encoding.startswith('bayer'):
        return bayer(encoding)
    if encoding in ('nv12', 'nv21'):
        return yuv420(encoding)
    if 'yu' in encoding or encoding == 'uyvy':
        return yuv422(encoding)
    return packed(encoding)


@pytest.mark.parametrize('padding', [0, 8, 3], ids=lambda padding: f'padding {padding}')
@pytest.mark.parametrize('encoding', ENCODINGS)
def test_pixels_are_what_the_encoding_means(encoding, padding):
    data, expected = case(encoding)
    height = HEIGHT if encoding in ('nv12', 'nv21') else None
    actual = image_to_rgb(message(encoding, data, padding=padding, height=height))
    assert actual.dtype == np.uint8
    assert np.array_equal(actual, expected)


@pytest.mark.parametrize('encoding', [e for e in ENCODINGS if e.endswith('16')])
def test_big_endian_is_honoured(encoding):
    data, expected = case(encoding)
    assert np.array_equal(image_to_rgb(message(encoding, data, big_endian=True)), expected)


def test_bayer_patterns_put_each_colour_in_its_place():
    """A red square on black: each pattern must show it red, and where it is."""
    for pattern, layout in BAYER.items():
        data = np.zeros((HEIGHT, WIDTH), np.uint8)
        for y in range(4, 8):
            for x in range(4, 8):
                data[y, x] = 200 if layout[y % 2][x % 2] == 'R' else 0
        rgb = image_to_rgb(message(f'{pattern}8', data))
        assert rgb[..., 0].max() == 200
        assert not rgb[..., 1:].any()
        assert not rgb[:3].any() and not rgb[:, :3].any()


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize('width', [1, 7, WIDTH])
@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', 'rgb16'])
def test_copies_have_the_same_pixels(encoding, width, padding):
    channels = {'m': 1, 'r': 3, 'b': 3}[encoding[0]] + ('a' in encoding)
    dtype = np.uint16 if encoding.endswith('16') else np.uint8
    sent = message(encoding, random_pixels(dtype, HEIGHT, width, channels), width, padding)
    sent.data = bytes(sent.data)  # nobody may write to what was received
    image = image_to_rgb(sent)
    copy = np.empty(image.shape, np.uint8)
    copy_rgb(image, copy)
    assert np.array_equal(copy, image)


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8'])
def test_8_bit_images_are_views_without_a_copy(encoding):
    data, _ = case(encoding)
    sent = message(encoding, data, padding=5)
    rgb = image_to_rgb(sent)
    sent.data[0] ^= 255
    sent.data[1] ^= 255
    sent.data[2] ^= 255
    assert not np.array_equal(rgb, image_to_rgb(message(encoding, data)))
    assert np.array_equal(rgb, image_to_rgb(sent))


def test_last_row_need_not_be_padded():
    data, expected = case('rgb8')
    sent = message('rgb8', data, padding=8)
    sent.data = sent.data[:-8]
    assert np.array_equal(image_to_rgb(sent), expected)


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'encoding': 'rgb9'}, "unknown encoding 'rgb9'"),
        ({'encoding': ''}, "unknown encoding ''"),
        ({'height': 0}, f'no pixels: it is {WIDTH} x 0'),
        ({'width': 0}, f'no pixels: it is 0 x {HEIGHT}'),
        ({'step': 47}, 'step 47 is less than the 48 bytes'),
        ({'height': HEIGHT + 1}, f'{HEIGHT * 48} bytes of data where'),
        ({'data': array.array('B')}, '0 bytes of data where'),
        ({'encoding': 'yuyv', 'width': 15}, 'width 15 is odd'),
        ({'encoding': 'nv12', 'height': 5}, 'size 16 x 5 is odd'),
        ({'height': 2**31, 'step': 2**31}, 'bytes of data where'),
    ],
)
def test_broken_images_are_refused_with_a_reason(change, named):
    data, _ = case('rgb8')
    sent = message('rgb8', data)
    for name, value in change.items():
        setattr(sent, name, value)
    with pytest.raises(ImageError) as caught:
        image_to_rgb(sent)
    assert named in str(caught.value)


class Bridge:
    """Counts its calls and returns wrong pixels, to show whether cv_bridge was used."""

    asked = 0

    def imgmsg_to_cv2(self, sent, desired_encoding):
        Bridge.asked += 1
        raise RuntimeError('broken cv_bridge')


def test_broken_cv_bridge_is_made_up_for():
    data, expected = case('mono16')
    before = Bridge.asked
    assert np.array_equal(image_to_rgb(message('mono16', data), Bridge()), expected)
    assert Bridge.asked == before + 1


def test_cv_bridge_is_not_used_where_it_is_wrong():
    for options in ({'padding': 3}, {'big_endian': True}):
        data, expected = case('mono16')
        before = Bridge.asked
        assert np.array_equal(image_to_rgb(message('mono16', data, **options), Bridge()), expected)
        assert Bridge.asked == before


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_compressed_images_are_decoded(suffix, astronaut):
    _, data = cv2.imencode(suffix, astronaut[..., ::-1])
    sent = SimpleNamespace(format='rgb8; jpeg compressed bgr8', data=array.array('B', data))
    rgb = compressed_to_rgb(sent)
    assert rgb.shape == astronaut.shape
    assert np.abs(rgb.astype(int) - astronaut).mean() < (4 if suffix == '.jpg' else 1e-9)


def test_undecodable_compressed_image_is_refused():
    with pytest.raises(ImageError, match='3 bytes that are neither JPEG nor PNG'):
        compressed_to_rgb(SimpleNamespace(format='jpeg', data=array.array('B', [1, 2, 3])))
    claims_100000_pixels = bytes.fromhex(
        '89504e470d0a1a0a0000000d49484452000186a0000186a008020000005a9db9f4'
    )
    with pytest.raises(ImageError, match='33 bytes'):
        compressed_to_rgb(SimpleNamespace(format='png', data=claims_100000_pixels))
    with pytest.raises(ImageError, match='0 bytes'):
        compressed_to_rgb(SimpleNamespace(format='', data=array.array('B')))


@pytest.mark.parametrize('encoding', image_message.FOR_CV_BRIDGE)
def test_cv_bridge_gives_the_same_pixels(encoding):
    cv_bridge = pytest.importorskip('cv_bridge', reason='cv_bridge is not on this machine')
    sensor_msgs = pytest.importorskip('sensor_msgs.msg')
    dtype = np.uint16 if encoding.endswith('16') else np.uint8
    depth = {'m': 1, 'b': 1, 'y': 2}.get(encoding[0], len(encoding.rstrip('16')))
    depth = 3 if encoding == 'bgr16' else 4 if encoding == 'bgra16' else depth
    data = random_pixels(dtype, HEIGHT, WIDTH, depth)
    # Whole pixels: cv_bridge shears an image whose rows are padded by anything else.
    sent = message(encoding, data, padding=2 * depth * data.itemsize)
    theirs = cv_bridge.CvBridge().imgmsg_to_cv2(
        sensor_msgs.Image(**vars(sent)), desired_encoding='rgb8'
    )
    assert np.array_equal(image_to_rgb(sent), theirs)


def compressed(pixels, form, suffix='.png'):
    data = cv2.imencode(suffix, pixels)[1].tobytes()
    return SimpleNamespace(format=form, data=data)


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('bits', [8, 16])
def test_compressed_mosaics_are_what_their_format_says(pattern, bits):
    mosaic = np.random.default_rng(0).integers(0, 2**bits, (24, 32)).astype(f'uint{bits}')
    encoding = f'bayer_{pattern}{bits}'
    raw = SimpleNamespace(
        height=24, width=32, encoding=encoding, step=32 * bits // 8, is_bigendian=0,
        data=mosaic.tobytes(),
    )  # fmt: skip
    for form in (f'{encoding}; png compressed ', f'{encoding}; png compressed'):
        assert np.array_equal(compressed_to_rgb(compressed(mosaic, form)), image_to_rgb(raw))


@pytest.mark.parametrize('encoding', ['yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv'])
def test_compressed_samples_of_a_yuv_camera_are_colours(encoding):
    """Half as wide as the grey picture in which they came."""
    samples = np.random.default_rng(0).integers(0, 256, (24, 64), np.uint8)
    raw = SimpleNamespace(
        height=24, width=32, encoding=encoding, step=64, is_bigendian=0, data=samples.tobytes()
    )
    found = compressed_to_rgb(compressed(samples, f'{encoding}; png compressed '))
    assert found.shape == (24, 32, 3)
    assert np.array_equal(found, image_to_rgb(raw))


@pytest.mark.parametrize(
    'form',
    [
        'jpeg', 'png', '', 'rgb8; jpeg compressed bgr8', 'bgr8; png compressed bgr8',
        'bayer_rggb8; jpeg compressed bgr8', 'yuv422_yuy2; jpeg compressed bgr8',
        'mono8; jpeg compressed mono8', 'bayer_rggb8; jpeg compressed ',
    ],
)  # fmt: skip
def test_compressed_pictures_stay_pictures(form, astronaut):
    """A mosaic that was turned into colours before it was compressed, too."""
    found = compressed_to_rgb(compressed(astronaut[..., ::-1], form, '.jpg'))
    assert np.abs(found.astype(int) - astronaut).mean() < 5


@pytest.mark.parametrize(
    ('form', 'named'),
    [
        ('16UC1; png compressed ', "unknown encoding '16UC1'"),
        ('32FC1; compressedDepth png', 'holds depth'),
        ('16UC1; compressedDepth', 'holds depth'),
        ('32FC1; jpeg compressed', "unknown encoding '32FC1'"),
    ],
)
def test_compressed_depth_is_refused_as_raw_depth_is(form, named):
    with pytest.raises(ImageError, match=named):
        compressed_to_rgb(compressed(np.zeros((4, 4), np.uint16), form))


def test_sixteen_bit_grey_is_brightness():
    grey = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    found = compressed_to_rgb(compressed(grey, 'mono16; png compressed '))
    assert np.array_equal(found[..., 0].ravel(), np.arange(256))
    assert compressed_to_rgb(compressed(grey, 'png')).dtype == np.uint8


def test_damaged_jpeg_is_used_and_told(astronaut):
    pytest.importorskip('simplejpeg')
    jpeg = cv2.imencode('.jpg', astronaut)[1].tobytes()
    plain = compressed_to_rgb(SimpleNamespace(format='jpeg', data=jpeg))
    told = []
    damaged = SimpleNamespace(format='jpeg', data=jpeg[:-2] + bytes(200) + jpeg[-2:])
    assert np.array_equal(compressed_to_rgb(damaged, told.append), plain)
    assert len(told) == 1 and 'extraneous bytes' in told[0]
    with pytest.raises(ImageError, match='Premature end'):
        compressed_to_rgb(SimpleNamespace(format='jpeg', data=jpeg[:-500]))


def test_jpeg_has_the_same_pixels_with_and_without_simplejpeg(astronaut, monkeypatch):
    pytest.importorskip('simplejpeg')
    for quality in (30, 75, 100):
        for image in (astronaut, astronaut[:301, :203], astronaut[..., 0]):
            options = [cv2.IMWRITE_JPEG_QUALITY, quality]
            data = cv2.imencode('.jpg', image, options)[1].tobytes()
            found = decode_jpeg(data)[0]
            with monkeypatch.context() as patch:
                patch.setitem(sys.modules, 'simplejpeg', None)
                assert np.array_equal(decode_jpeg(data)[0], found)


def test_parts_that_say_nothing_are_bounded(astronaut):
    """They took Pillow a minute of quadratic time."""
    jpeg = cv2.imencode('.jpg', astronaut)[1].tobytes()
    exif = b'\xff\xe1' + struct.pack('>H', 18) + b'Exif\0\0' + bytes(10)
    filled = jpeg[:2] + 50 * (b'\xff' + exif) + jpeg[2:]
    assert compressed_to_rgb(SimpleNamespace(format='jpeg', data=filled)).shape == astronaut.shape
    png = cv2.imencode('.png', astronaut)[1].tobytes()
    chunk = bytes(4) + b'aaAa' + struct.pack('>I', zlib.crc32(b'aaAa'))
    for data in (jpeg[:2] + 200_000 * exif + jpeg[2:], png[:33] + 200_000 * chunk + png[33:]):
        with pytest.raises(ImageError, match='whose header is damaged'):
            compressed_to_rgb(SimpleNamespace(format='', data=data))


def test_header_of_every_kind_of_jpeg_and_png_is_read(astronaut):
    small = astronaut[:40, :56]
    for suffix, options in (
        ('.jpg', []), ('.jpg', [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        ('.jpg', [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]), ('.png', []),
    ):  # fmt: skip
        data = memoryview(cv2.imencode(suffix, small, options)[1].tobytes())
        check_header(data, 40 * 56)
        with pytest.raises(ImageError, match='claim 56 x 40 pixels; at most 2239'):
            check_header(data, 40 * 56 - 1)


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_mosaic_in_a_jpeg_has_the_samples_of_the_jpeg(pattern):
    samples = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[:, None], 32, axis=1)
    sent = compressed(samples, f'bayer_{pattern}8; jpeg compressed ', '.jpg')
    decoded = cv2.imdecode(np.frombuffer(sent.data, np.uint8), cv2.IMREAD_GRAYSCALE)
    raw = SimpleNamespace(
        height=24, width=32, encoding=f'bayer_{pattern}8', step=32, is_bigendian=0,
        data=decoded.tobytes(),
    )  # fmt: skip
    assert np.array_equal(compressed_to_rgb(sent), image_to_rgb(raw))


@pytest.mark.parametrize(
    ('dtype', 'encoding', 'means'),
    [
        ('uint8', 'bayer_rggb16', 'bayer_rggb8'),
        ('uint16', 'bayer_rggb8', 'bayer_rggb16'),
        ('uint8', 'mono16', 'mono8'),
    ],
)
def test_file_of_other_bits_than_the_camera_had_is_what_the_file_is(dtype, encoding, means):
    samples = np.random.default_rng(0).integers(0, 256, (24, 32)).astype(dtype)
    raw = SimpleNamespace(
        height=24, width=32, encoding=means, step=samples.strides[0], is_bigendian=0,
        data=samples.tobytes(),
    )  # fmt: skip
    found = compressed_to_rgb(compressed(samples, f'{encoding}; png compressed '))
    assert np.array_equal(found, image_to_rgb(raw))


def test_png_that_is_cut_behind_its_header_is_told_with_its_length(astronaut):
    sent = compressed(astronaut, 'png')
    sent.data = sent.data[:1000]
    with pytest.raises(ImageError, match='1000 bytes of PNG cannot be decoded'):
        compressed_to_rgb(sent)


def test_mosaic_in_a_jpeg_that_cannot_be_decoded_is_told_with_its_length():
    sent = compressed(np.zeros((24, 32), np.uint8), 'bayer_rggb8; jpeg compressed ', '.jpg')
    jpeg, frame = sent.data, sent.data.index(b'\xff\xc0')
    without_its_table = jpeg[: frame + 12] + b'\3' + jpeg[frame + 13 :]
    for sent.data in (without_its_table, claiming(jpeg, 65_500, 65_500)):
        with pytest.raises(ImageError, match=f'{len(jpeg)} bytes of JPEG cannot be decoded'):
            compressed_to_rgb(sent, max_pixels=1 << 40)


@pytest.mark.parametrize(
    ('fields', 'why'),
    [
        ({'encoding': 'rgb8'}, ''),
        ({'encoding': 'mono16'}, ''),
        ({'encoding': '8UC3'}, ''),
        ({'encoding': '16UC1'}, "'16UC1' holds depth or other values, not a picture"),
        ({'encoding': '32FC1'}, "'32FC1' holds depth or other values, not a picture"),
        ({'encoding': 'something'}, ''),  # nobody knows
        ({'format': 'jpeg'}, ''),
        ({'format': '16UC1; compressedDepth'}, "'16UC1; compressedDepth' holds depth"),
        ({'format': '32FC1; png compressed '}, "unknown encoding '32FC1'"),
    ],
)
def test_what_is_no_picture_is_known_before_it_is_decoded(fields, why):
    found = image_message.no_picture(SimpleNamespace(**fields))
    assert why in found and bool(found) == bool(why)


def claiming(jpeg, height, width):
    """A JPEG whose header says another size."""
    at = jpeg.index(b'\xff\xc0') + 5
    return jpeg[:at] + struct.pack('>HH', height, width) + jpeg[at + 4 :]


@pytest.mark.parametrize('library', ['simplejpeg', 'OpenCV'])
def test_jpeg_that_claims_too_much_is_not_decoded(library, astronaut, monkeypatch):
    pytest.importorskip('simplejpeg')
    jpeg = claiming(cv2.imencode('.jpg', astronaut)[1].tobytes(), 65_500, 65_500)
    if library == 'OpenCV':
        monkeypatch.setitem(sys.modules, 'simplejpeg', None)
        assert decode_jpeg(jpeg) == (None, '')
    else:
        assert decode_jpeg(jpeg) == (None, 'its header claims 65500 x 65500 pixels')


def test_jpeg_that_does_not_fit_the_memory_is_told(astronaut, monkeypatch):
    simplejpeg = pytest.importorskip('simplejpeg')

    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(simplejpeg, 'decode_jpeg', full)
    jpeg = cv2.imencode('.jpg', astronaut)[1].tobytes()
    assert decode_jpeg(jpeg) == (None, 'it is too large for the memory')


@pytest.mark.parametrize('error', [ValueError('Unsupported\n colours'), KeyError('YCCK')])
def test_jpeg_that_simplejpeg_does_not_take_is_decoded_by_opencv(astronaut, monkeypatch, error):
    simplejpeg = pytest.importorskip('simplejpeg')

    def refuses(*_, **__):
        raise error

    monkeypatch.setattr(simplejpeg, 'decode_jpeg', refuses)
    jpeg = cv2.imencode('.jpg', astronaut)[1].tobytes()
    found, damage = decode_jpeg(jpeg)
    assert np.array_equal(found, cv2.imdecode(np.frombuffer(jpeg, 'u1'), 1)[..., ::-1])
    assert damage in ('Unsupported colours', "'YCCK'")
