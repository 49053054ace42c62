"""Images for int8: from wherever the user has them, the same ones every time."""

import cv2
import numpy as np
import pytest

from posenet_ros import ImageError
from posenet_ros.calibration import NUM_IMAGES, CalibrationSet, generated_images, sampled_images
from posenet_ros.media import Video, VideoWriter


@pytest.fixture
def folder(tmp_path):
    """Forty photos, each of its own grey."""
    photos = tmp_path / 'photos'
    photos.mkdir()
    for i in range(40):
        cv2.imwrite(str(photos / f'{i:02}.png'), np.full((20, 30, 3), 6 * i, np.uint8))
    return photos


def greys(images):
    return [int(np.median(image)) for image in images]


def test_folder_gives_the_same_photos_in_order(folder):
    first = greys(sampled_images(folder, 10))
    assert first == greys(sampled_images(folder, 10)) == sorted(first)
    assert len(set(first)) == 10
    assert greys(sampled_images(folder, 100)) == [6 * i for i in range(40)]


def test_video_gives_frames_of_all_of_it(tmp_path):
    with VideoWriter(tmp_path / 'clip.mp4', 10) as writer:
        for i in range(40):
            writer.write(np.full((64, 64, 3), 6 * i, np.uint8))
    chosen = greys(sampled_images(tmp_path / 'clip.mp4', 10))
    assert len(chosen) == 10 and chosen[0] < 80 < 160 < chosen[-1]


@pytest.mark.parametrize('name', ['missing', 'text.txt', 'empty'])
def test_what_holds_no_images_is_refused(tmp_path, name):
    (tmp_path / 'text.txt').write_text('no image')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ImageError, match=name):
        CalibrationSet.of(str(tmp_path / name))


def test_hash_tells_sets_apart(folder):
    generated, photos = CalibrationSet.of(None), CalibrationSet.of(str(folder))
    assert photos == CalibrationSet.of(str(folder)) and photos.sha256 != generated.sha256
    cv2.imwrite(str(folder / '00.png'), np.full((20, 30, 3), 255, np.uint8))
    for path in list(folder.iterdir())[:10]:
        path.unlink()
    assert CalibrationSet.of(str(folder)).sha256 != photos.sha256


def test_inputs_are_what_the_network_sees(folder):
    inputs = CalibrationSet.of(str(folder)).inputs(33, 49, 'MobileNetV1')
    assert inputs.shape == (NUM_IMAGES, 3, 33, 49) and inputs.dtype == np.float32
    assert inputs.min() >= -1 and inputs.max() <= 1


def test_generated_images_are_varied_and_always_the_same():
    images = list(generated_images(6, 64, 80))
    assert all(image.shape == (64, 80, 3) and image.dtype == np.uint8 for image in images)
    again = list(generated_images(6, 64, 80))
    assert all(np.array_equal(a, b) for a, b in zip(images, again, strict=True))
    means = [image.mean() for image in images]
    assert np.ptp(means) > 10
    assert min(image.std() for image in images) > 10


def test_stream_that_does_not_tell_its_length_gives_frames_of_all_of_it(tmp_path):
    with (tmp_path / 'clip.mjpeg').open('wb') as stream:
        for i in range(40):
            stream.write(cv2.imencode('.jpg', np.full((64, 64, 3), 6 * i, np.uint8))[1].tobytes())
    (tmp_path / 'clip.mjpeg').rename(tmp_path / 'clip.avi')
    with Video(tmp_path / 'clip.avi') as video:
        assert video.num_frames == 0
    chosen = greys(sampled_images(tmp_path / 'clip.avi', 10))
    assert len(chosen) == 10 and chosen[0] < 80 < 160 < chosen[-1]


def test_few_images_are_warned_of(folder, caplog):
    CalibrationSet.of(str(folder / '00.png'))
    assert 'calibrated with 1 image(s)' in caplog.text
    caplog.clear()
    CalibrationSet.of(str(folder))
    assert caplog.text == ''
