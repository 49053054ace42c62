"""The images that int8 is calibrated with."""

import numpy as np
import pytest

from posenet_ros import ImageError
from posenet_ros.model.calibration import NUM_IMAGES, CalibrationSet, generated_images


def test_sets_have_different_fingerprints(grey_photos):
    fingerprints = [
        CalibrationSet().fingerprint(),
        CalibrationSet(str(grey_photos)).fingerprint(),
        CalibrationSet(str(grey_photos / '00.png')).fingerprint(),
    ]
    assert len(set(fingerprints)) == 3


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
