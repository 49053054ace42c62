"""Serialised images read in place, against rclpy's own serialiser."""

import struct

import numpy as np
import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from posenet_ros import ImageError
from posenet_ros.ros.messages import image_message
from posenet_ros.ros.serialized_image import ImageView, read_compressed_image, read_image

FIELDS = ('header', 'height', 'width', 'encoding', 'is_bigendian', 'step')


def image(frame_id='camera', encoding='rgb8', width=5):
    header = Header(frame_id=frame_id)
    header.stamp.sec, header.stamp.nanosec = -3, 999_999_999
    pixels = np.random.default_rng(0).integers(0, 256, (4, width, 3), np.uint8)
    return image_message(header, pixels, encoding)


# Names of every length: the numbers behind them are aligned.
@pytest.mark.parametrize('frame_id', ['', 'a', 'ab', 'abc', 'abcd', 'kamera/größe'])
@pytest.mark.parametrize('encoding', ['', 'rgb8', 'mono8', 'mono16', 'bayer_rggb16'])
def test_view_has_the_messages_fields_and_bytes(frame_id, encoding):
    message = image(frame_id, encoding)
    message.is_bigendian = 1
    serialized = serialize_message(message)
    view = read_image(serialized)
    assert isinstance(view, ImageView)
    assert all(getattr(view, name) == getattr(message, name) for name in FIELDS)
    assert bytes(view.data) == message.data.tobytes()
    assert np.shares_memory(np.frombuffer(view.data, 'u1'), np.frombuffer(serialized, 'u1'))


def test_empty_image():
    view = read_image(serialize_message(Image()))
    assert (view.height, view.width, len(view.data)) == (0, 0, 0)


def test_every_truncation_is_refused():
    serialized = serialize_message(image())
    end = len(read_image(serialized).data) + serialized.index(bytes(read_image(serialized).data))
    for length in range(end):
        with pytest.raises(ImageError, match=f'{length} bytes'):
            read_image(serialized[:length])


def test_lengths_beyond_the_message_are_refused():
    serialized = serialize_message(image())
    for at in (12, 32, 48):
        broken = serialized[:at] + struct.pack('<I', 2**32 - 1) + serialized[at + 4 :]
        with pytest.raises(ImageError, match='bytes'):
            read_image(broken)


@pytest.mark.parametrize('encapsulation', [b'\0\0\0\0', b'\0\6\0\0'])
def test_other_byte_order(encapsulation):
    """CDR of an image of one pixel."""
    fields = struct.pack('>iI', 7, 8) + struct.pack('>I', 2) + b'c\0\0\0'
    fields += struct.pack('>II', 1, 1) + struct.pack('>I', 6) + b'mono8\0' + b'\0\0'
    fields += struct.pack('>II', 1, 1) + b'\x2a'
    view = read_image(encapsulation + fields)
    assert (view.header.stamp.sec, view.header.frame_id, view.encoding) == (7, 'c', 'mono8')
    assert list(view.data) == [42]


@pytest.mark.parametrize('frame_id', ['', 'a', 'ab', 'abc', 'kamera/größe'])
@pytest.mark.parametrize('form', ['', 'jpeg', 'rgb8; jpeg compressed bgr8'])
def test_view_of_a_compressed_image(frame_id, form):
    message = CompressedImage(header=Header(frame_id=frame_id), format=form, data=[1, 2, 3])
    serialized = serialize_message(message)
    view = read_compressed_image(serialized)
    assert (view.header, view.format, bytes(view.data)) == (message.header, form, b'\1\2\3')
    for length in range(len(serialized) - 4):
        with pytest.raises(ImageError, match=f'{length} bytes are no sensor_msgs/CompressedImage'):
            read_compressed_image(serialized[:length])
