"""Sampling takes the same images of a folder, a video or a photo every time."""

import os
import re

import cv2
import numpy as np
import pytest

from posenet_ros import ImageError
from posenet_ros.io.photos import write_image
from posenet_ros.io.sampling import fingerprint, sampled_images
from posenet_ros.io.video import Video, VideoWriter


def greys(images):
    return [int(np.median(image)) for image in images]


def test_folder_gives_the_same_photos_in_order(grey_photos):
    first = greys(sampled_images(grey_photos, 10))
    assert first == greys(sampled_images(grey_photos, 10)) == sorted(first)
    assert len(set(first)) == 10
    assert greys(sampled_images(grey_photos, 100)) == [6 * i for i in range(40)]


def test_video_gives_frames_of_all_of_it(tmp_path):
    with VideoWriter(tmp_path / 'clip.mp4', 10) as writer:
        for i in range(40):
            writer.write(np.full((64, 64, 3), 6 * i, np.uint8), i / 10)
    chosen = greys(sampled_images(tmp_path / 'clip.mp4', 10))
    assert len(chosen) == 10 and chosen[0] < 80 < 160 < chosen[-1]


def test_stream_of_unknown_length_is_sampled_over_all_of_it(tmp_path):
    with (tmp_path / 'clip.mjpeg').open('wb') as stream:
        for i in range(40):
            stream.write(cv2.imencode('.jpg', np.full((64, 64, 3), 6 * i, np.uint8))[1].tobytes())
    (tmp_path / 'clip.mjpeg').rename(tmp_path / 'clip.avi')
    with Video(tmp_path / 'clip.avi') as video:
        assert video.num_frames == 0
    chosen = greys(sampled_images(tmp_path / 'clip.avi', 10))
    assert len(chosen) == 10 and chosen[0] < 80 < 160 < chosen[-1]


@pytest.mark.parametrize('name', ['missing', 'text.txt', 'empty'])
def test_source_without_images_is_refused(tmp_path, name):
    (tmp_path / 'text.txt').write_text('no image')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ImageError, match=name):
        list(sampled_images(tmp_path / name, 10))


def test_fingerprint_of_photos_is_of_the_contents_that_are_sampled(grey_photos):
    before = fingerprint(grey_photos, 100)
    (grey_photos / '.DS_Store').write_text('left by a file manager')
    (grey_photos / '.#lock').symlink_to('nowhere')  # left by an editor
    os.utime(grey_photos / '01.png', (1, 1))  # a copy has another time
    assert fingerprint(grey_photos, 100) == before
    write_image(grey_photos / '00.png', np.full((20, 30, 3), 255, np.uint8))
    changed = fingerprint(grey_photos, 100)
    (grey_photos / '02.png').unlink()
    assert len({before, changed, fingerprint(grey_photos, 100), fingerprint(grey_photos, 9)}) == 4


def test_fingerprint_of_a_video_takes_no_decoding(tmp_path, monkeypatch):
    """A long video would be decoded at every start."""
    clip = tmp_path / 'clip.mp4'
    clip.write_bytes(b'no video at all')
    os.utime(clip, (1, 1))
    before = fingerprint(clip, 10)
    assert fingerprint(clip, 10) == before
    os.utime(clip, (2, 2))
    assert fingerprint(clip, 10) != before


def test_one_bad_photo_is_told_and_passed_over(grey_photos):
    expected = greys(sampled_images(grey_photos, 100))
    (grey_photos / 'a.png').symlink_to('nowhere')
    (grey_photos / 'b.jpg').mkdir()
    (grey_photos / 'c.jpg').write_bytes(b'')
    told = []
    assert greys(sampled_images(grey_photos, 100, told.append)) == expected
    assert [re.search(r'[abc]\.(png|jpg)', text)[0] for text in told] == ['a.png', 'b.jpg', 'c.jpg']
    assert fingerprint(grey_photos, 100)


def test_nothing_that_can_be_read_is_one_sentence(tmp_path):
    (tmp_path / 'a.png').symlink_to('nowhere')
    told = []
    with pytest.raises(ImageError, match='holds no image that can be read'):
        list(sampled_images(tmp_path, 10, told.append))
    assert 'a.png' in told[0]
