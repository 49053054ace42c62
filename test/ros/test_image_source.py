"""The image source: what it publishes, how fast, and how it ends."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image as Picture
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_processes import wait_until
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from posenet_ros.io.depth_image import depth_of
from posenet_ros.io.image_message import compressed_to_rgb, image_to_rgb
from posenet_ros.io.photos import write_image

pytestmark = pytest.mark.slow

RELIABLE = ('-p', 'qos_overrides./image_raw.publisher.reliability:=reliable')
QOS = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture
def photo(tmp_path, astronaut):
    write_image(tmp_path / 'photo.png', astronaut)
    return tmp_path / 'photo.png'


@pytest.fixture
def source(start):
    def run(source, *arguments, **parameters):
        parameters.setdefault('wait_for_subscribers', 1)
        given = [part for name, v in parameters.items() for part in ('-p', f'{name}:={v}')]
        given += ['-p', f"source:='{source}'"]
        return start('image_source', '--ros-args', *RELIABLE, *given, *arguments)

    return run


def test_photo_comes_with_a_calibration_that_belongs_to_it(peer, source, photo, astronaut):
    images = peer.collect(Image, 'image_raw', QOS)
    infos = peer.collect(CameraInfo, 'camera_info', BEST_EFFORT)
    source(photo, rate=20.0, frame_id='eye', horizontal_fov=90.0)
    assert peer.spin_until(lambda: len(images) > 3 and len(infos) > 1)
    assert np.array_equal(image_to_rgb(images[0]), astronaut)
    assert images[0].header.frame_id == infos[0].header.frame_id == 'eye'
    assert images[0].header.stamp != images[1].header.stamp
    assert {(i.header.stamp.sec, i.header.stamp.nanosec) for i in infos} <= {
        (i.header.stamp.sec, i.header.stamp.nanosec) for i in images
    }
    assert (infos[0].width, infos[0].height) == (512, 512)
    assert infos[0].k[0] == infos[0].p[0] == pytest.approx(256)  # 90 degrees
    assert infos[0].k[2] == pytest.approx(255.5)


@pytest.mark.parametrize('encoding', ['bgr8', 'rgba8', 'bgra8', 'mono8'])
def test_encodings(peer, source, photo, astronaut, encoding):
    images = peer.collect(Image, 'image_raw', QOS)
    source(photo, encoding=encoding)
    assert peer.spin_until(lambda: images)
    assert images[0].encoding == encoding
    rgb = image_to_rgb(images[0])
    if encoding == 'mono8':
        astronaut = cv2.cvtColor(astronaut, cv2.COLOR_RGB2GRAY)[..., None]
    assert np.array_equal(rgb, np.broadcast_to(astronaut, rgb.shape))


def test_compressed_images_come_beside(peer, source, photo, astronaut):
    images = peer.collect(Image, 'image_raw', QOS)
    compressed = peer.collect(CompressedImage, 'image_raw/compressed', BEST_EFFORT)
    source(photo, compressed='true')
    assert peer.spin_until(lambda: images and compressed)
    assert np.abs(compressed_to_rgb(compressed[0]).astype(int) - astronaut).mean() < 4


def test_rate_is_the_one_asked_for(peer, source, photo):
    images = peer.collect(Image, 'image_raw', QOS)
    source(photo, rate=25.0)
    assert peer.spin_until(lambda: len(images) >= 50)
    stamps = [i.header.stamp.sec + i.header.stamp.nanosec / 1e9 for i in images]
    assert np.median(np.diff(stamps)) == pytest.approx(1 / 25, rel=0.1)


def test_folder_plays_in_order_and_ends(peer, source, tmp_path):
    for level in (30, 10, 20):
        write_image(tmp_path / f'{level}.png', np.full((8, 8, 3), level, np.uint8))
    images = peer.collect(Image, 'image_raw', QOS)
    process = source(tmp_path, loop='false', rate=20.0)
    assert wait_until(lambda: not peer.spin_for(0.05) and not process.running())
    assert process.stop() == 0
    assert [i.data[0] for i in images] == [10, 20, 30]


def test_bad_photo_of_a_folder_is_passed_over(peer, source, tmp_path):
    for name in ('1.png', '3.png'):
        write_image(tmp_path / name, np.full((8, 8, 3), int(name[0]), np.uint8))
    (tmp_path / '2.png').write_text('no image')
    images = peer.collect(Image, 'image_raw', QOS)
    process = source(tmp_path, rate=20.0)
    assert peer.spin_until(lambda: len(images) >= 4)
    assert [i.data[0] for i in images[:4]] == [1, 3, 1, 3]
    process.wait_for('2.png is not an image')


def test_depth_images_come_with_their_photos(peer, source, tmp_path):
    for part in ('colour', 'depth'):
        (tmp_path / part).mkdir()
    for level in (1, 2, 3):
        write_image(tmp_path / f'colour/{level}.png', np.full((8, 10, 3), level, np.uint8))
        depth = Picture.fromarray(np.full((4, 5), 1000 * level, np.uint16))
        depth.save(tmp_path / f'depth/{level}.png')
    images = peer.collect(Image, 'image_raw', QOS)
    depths = peer.collect(Image, 'depth/image_rect_raw', BEST_EFFORT)
    infos = peer.collect(CameraInfo, 'depth/camera_info', BEST_EFFORT)
    source(tmp_path / 'colour', depth_source=tmp_path / 'depth', rate=20.0, wait_for_subscribers=1)
    assert peer.spin_until(lambda: len(images) >= 7 and len(depths) >= 4 and infos)
    levels = {(i.header.stamp.sec, i.header.stamp.nanosec): i.data[0] for i in images}
    for message in depths[:4]:
        stamp = message.header.stamp.sec, message.header.stamp.nanosec
        values = depth_of(message).depth
        assert message.encoding == '16UC1' and values.shape == (4, 5)
        assert stamp not in levels or (values == 1000 * levels[stamp]).all()
    assert (infos[0].width, infos[0].height) == (5, 4)


def test_depth_images_that_are_too_few_are_refused(source, tmp_path, photo):
    (tmp_path / 'depth').mkdir()
    process = source(photo, depth_source=tmp_path / 'depth')
    assert wait_until(lambda: not process.running())
    assert process.stop() == 1
    assert 'It has 0 images, and source 1 photos' in process.output


def test_source_needs_no_numba():
    """The system's Python is enough for it."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('numba', 'onnxruntime', 'msgspec', 'av')));"
        'import posenet_ros.ros.image_source, posenet_ros.ros.process'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_video_loops(peer, source, tmp_path):
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 20, (64, 48))
    for level in (0, 100, 200):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    images = peer.collect(Image, 'image_raw', QOS)
    source(path)
    assert peer.spin_until(lambda: len(images) >= 7)
    levels = [round(np.frombuffer(i.data, np.uint8).mean(), -2) for i in images[:7]]
    assert levels == [0, 100, 200, 0, 100, 200, 0]


@pytest.mark.parametrize(
    ('name', 'named'), [('', 'Invalid source'), ('/nowhere.png', '/nowhere.png'),
                        ('/nowhere.mp4', '/nowhere.mp4'), ('99', 'camera 99')]
)  # fmt: skip
def test_unreadable_source_ends_the_process_with_one_line(source, name, named):
    process = source(name)
    assert wait_until(lambda: not process.running())
    assert process.stop() == 1
    assert named in process.output
    assert 'Traceback' not in process.output


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (('-p', 'source:=99'), 'camera 99'),  # a number needs no quotes
        (('-p', 'rate:=-1.0'), 'rate'),
        (('-p', 'encoding:=foo'), 'encoding'),
        (('--params-file', '/nowhere.yaml'), '/nowhere.yaml'),
    ],
)
def test_wrong_parameters_end_the_process_without_a_traceback(start, arguments, named):
    process = start('image_source', '--ros-args', *arguments)
    assert wait_until(lambda: not process.running())
    assert process.stop() == 1
    assert named in process.output
    assert 'Traceback' not in process.output
