"""Which images are looked at, and which part of them."""

import numpy as np
import pytest

from posenet_ros import ConfigError, ImageError, Pose
from posenet_ros.core.closeups import Closeup
from posenet_ros.ros.selection import RateLimit, Region


def times_taken(stamps, max_rate):
    limit = RateLimit()
    return [now for now in stamps if limit.allows(now, max_rate)]


def camera(rate, seconds=10.0, jitter=0.0, seed=1):
    stamps = 1000 + np.arange(0, seconds, 1 / rate)
    return stamps + np.random.default_rng(seed).uniform(-jitter, jitter, len(stamps))


@pytest.mark.parametrize('max_rate', [1.0, 7.0, 10.0, 12.0, 15.0, 29.0])
@pytest.mark.parametrize('jitter', [0.0, 0.01])
def test_so_many_images_are_taken_evenly(max_rate, jitter):
    taken = times_taken(camera(30, jitter=jitter), max_rate)
    assert len(taken) == pytest.approx(10 * max_rate, abs=1 if jitter == 0 else 10)
    gaps = np.diff(taken)
    assert gaps.min() >= 0.75 / max_rate - 1 / 30 - 2 * jitter
    assert gaps.max() <= 1.25 / max_rate + 1 / 30 + 2 * jitter


@pytest.mark.parametrize('max_rate', [0.0, 30.0, 31.0, 100.0])
def test_a_camera_that_is_not_faster_loses_no_image(max_rate):
    stamps = camera(30, jitter=0.005)
    assert len(times_taken(stamps, max_rate)) >= len(stamps) - 1


def test_after_a_pause_images_do_not_come_in_a_rush():
    before, after = camera(30, 1.0), camera(30, 1.0) + 60
    taken = times_taken([*before, *after], 5.0)
    assert sum(now > 1030 for now in taken) == pytest.approx(5, abs=1)


def test_another_rate_holds_at_once():
    limit, taken = RateLimit(), []
    for index, now in enumerate(camera(30, 4.0)):
        if limit.allows(now, 0.1 if index < 60 else 10.0):
            taken.append(now)
    assert sum(now >= 1002 for now in taken) == pytest.approx(20, abs=1)


def test_region_is_a_view_and_its_poses_are_the_images():
    image = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
    region = Region.of([10, 5, 20, 15])
    view = region.view(image)
    assert view.shape == (15, 20, 3)
    assert np.shares_memory(view, image)
    pose = Pose(0.5, np.tile([3.0, 4.0], (17, 1)), np.ones(17))
    (placed,) = region.poses_in_image([pose], 60, flipped=False)
    assert placed.keypoints[0].tolist() == [13, 9]
    (mirrored,) = region.poses_in_image([pose], 60, flipped=True)
    # Pixel 3 of the mirrored view is pixel 16 of the view, and 26 of the image.
    assert mirrored.keypoints[0].tolist() == [60 - 1 - 26, 9]
    (closeup,) = region.closeups_in_image([Closeup(0, 1, 2, 11, 12, (33, 33))])
    assert closeup[1:5] == (11, 7, 21, 17)


def test_region_ends_where_the_image_does():
    image = np.zeros((40, 60, 3), np.uint8)
    region = Region.of([50, 0, 100, 100])
    assert region.view(image).shape == (40, 10, 3)
    pose = Pose(0.5, np.zeros((17, 2)), np.ones(17))
    (mirrored,) = region.poses_in_image([pose], 60, flipped=True)
    assert mirrored.keypoints[0].tolist() == [0, 0]  # the last pixel of the image
    with pytest.raises(ImageError, match='region 60, 0, 10, 10 lies outside'):
        Region.of([60, 0, 10, 10]).view(image)


@pytest.mark.parametrize('numbers', [[1, 2, 3], [0, 0, 0, 5], [0, 0, 5, 0], [-1, 0, 5, 5]])
def test_no_region(numbers):
    with pytest.raises(ConfigError, match='Invalid region'):
        Region.of(numbers)


def test_the_whole_image_is_no_region():
    assert Region.of([0, 0, 0, 0]) is None
