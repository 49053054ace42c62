"""The images that int8 is calibrated with."""

import os

import numpy as np
import pytest

from posenet_ros import ImageError
from posenet_ros.io import sampling
from posenet_ros.io.photos import write_image
from posenet_ros.model.calibration import NUM_IMAGES, CalibrationSet, generated_images


def test_fingerprint_changes_with_the_files_and_reads_no_image(grey_photos, monkeypatch):
    """Otherwise a long video would be decoded at every start."""
    monkeypatch.setattr(sampling, 'sampled_images', lambda *_: pytest.fail('read an image'))
    photos = CalibrationSet(str(grey_photos))
    fingerprints = [CalibrationSet().fingerprint(), photos.fingerprint()]
    assert photos.fingerprint() == fingerprints[1]
    write_image(grey_photos / '00.png', np.full((200, 30, 3), 255, np.uint8))
    fingerprints.append(photos.fingerprint())
    os.utime(grey_photos / '01.png', (1, 1))
    fingerprints.append(photos.fingerprint())
    (grey_photos / '02.png').unlink()
    fingerprints.append(photos.fingerprint())
    fingerprints.append(CalibrationSet(str(grey_photos / '03.png')).fingerprint())
    assert len(set(fingerprints)) == len(fingerprints)


def test_missing_source_is_refused(tmp_path):
    with pytest.raises(ImageError, match='missing'):
        CalibrationSet(str(tmp_path / 'missing')).fingerprint()


def test_inputs_are_network_inputs(grey_photos):
    inputs = CalibrationSet(str(grey_photos)).inputs(33, 49, 'MobileNetV1')
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


def test_few_images_are_warned_of(grey_photos, caplog):
    CalibrationSet(str(grey_photos / '00.png')).inputs(33, 33, 'MobileNetV1')
    assert 'calibrated with 1 image(s)' in caplog.text
    caplog.clear()
    CalibrationSet(str(grey_photos)).inputs(33, 33, 'MobileNetV1')
    assert caplog.text == ''
