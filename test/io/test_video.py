"""Videos as people have them: with times of their own, odd names, cut; and disks that are full."""

import os
import struct

import numpy as np
import pytest
from media import matroska, picture

from posenet_ros import ImageError, PoseNetError
from posenet_ros.io.sampling import sampled_images
from posenet_ros.io.video import Video, VideoWriter

TIMES = [0, 100, 200, 1500, 1600, 3000, 3100, 3200]


@pytest.fixture
def variable(tmp_path):
    """Eight frames that are not evenly spaced, as phones and screen recorders make."""
    path = tmp_path / 'variable.mkv'
    matroska(path, [picture(seed=seed) for seed in range(len(TIMES))], TIMES)
    return path


def clip(path, count=20, fps=10.0):
    with VideoWriter(path, fps) as writer:
        for i in range(count):
            writer.write(picture(seed=i), i / fps)
    return path


def test_times_are_the_containers_own(variable):
    with Video(variable) as video:
        frames = list(video)
    assert [round(1000 * frame.seconds) for frame in frames] == TIMES
    for i, frame in enumerate(frames):
        assert frame.index == i
        assert np.abs(frame.image.astype(int) - picture(seed=i)).mean() < 8


def test_drawn_video_lasts_as_long_as_its_source(variable, tmp_path):
    with Video(variable) as video, VideoWriter(tmp_path / 'drawn.mp4', video.fps) as writer:
        for frame in video:
            writer.write(frame.image, frame.seconds)
    with Video(tmp_path / 'drawn.mp4') as drawn:
        frames = list(drawn)
    assert [round(1000 * frame.seconds) for frame in frames] == TIMES
    for i, frame in enumerate(frames):
        assert np.abs(frame.image.astype(int) - picture(seed=i)).mean() < 12


def test_even_frames_keep_their_rate(tmp_path):
    path = clip(tmp_path / 'clip.mp4')
    with Video(path) as video:
        assert video.fps == 10 and video.num_frames == 20
        assert [round(frame.seconds, 3) for frame in video] == [i / 10 for i in range(20)]
        assert video.shortfall() == ''


def test_number_that_a_container_claims_is_not_relied_on(variable):
    """Its rate and its length give 33 frames, and there are 8."""
    assert len(list(sampled_images(variable, 100))) == 8
    with Video(variable) as video:
        assert len(list(video)) == 8
        assert video.shortfall() == ''  # to its end


def test_cut_video_says_so_with_both_numbers(tmp_path):
    path = clip(tmp_path / 'clip.avi', 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Video(path) as video:
        frames = sum(1 for _ in video)
        assert 10 < frames < 30
        assert f'{frames} frames of the 40 that it claims' in video.shortfall()
    told = []
    assert len(list(sampled_images(path, 100, told.append))) == frames
    assert len(told) == 1 and 'is cut or damaged' in told[0]


@pytest.mark.parametrize('name', [b'\xff\xfe clip.avi', b'2026-01-01T12:00:00.avi', b'a b%02d.avi'])
def test_any_name_is_read_and_written(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = clip(type(tmp_path)(os.fsdecode(name)), 5)
    with Video(path) as video:
        assert len(list(video)) == 5


def test_frames_of_another_size_are_fitted(tmp_path):
    with VideoWriter(tmp_path / 'out.mp4', 10) as writer:
        writer.write(picture(60, 80), 0.0)
        writer.write(picture(30, 80), 0.1)
        writer.write(picture(90, 60), 0.2)
        assert writer.resized == 2
    with Video(tmp_path / 'out.mp4') as video:
        assert [frame.image.shape for frame in video] == [(60, 80, 3)] * 3


def test_video_that_did_not_arrive_does_not_take_the_name(tmp_path, monkeypatch):
    path = clip(tmp_path / 'out.mp4')
    old = path.read_bytes()
    check = VideoWriter._check

    def cut(self, part):
        os.truncate(part, part.stat().st_size // 2)
        check(self, part)

    monkeypatch.setattr(VideoWriter, '_check', cut)
    with pytest.raises(PoseNetError, match=r'\d of 20 frames are in the file \(\d+ MB are free'):
        clip(path)
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ['out.mp4']


def test_interrupted_video_is_kept_as_partial(tmp_path):
    path = clip(tmp_path / 'out.mp4')
    old = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 10) as writer:
        for i in range(7):
            writer.write(picture(seed=i), i / 10)
        raise KeyboardInterrupt
    assert path.read_bytes() == old
    with Video(tmp_path / 'out.partial.mp4') as video:
        assert len(list(video)) == 7


def test_what_is_no_video_is_one_sentence(tmp_path):
    (tmp_path / 'clip.mp4').write_text('no video')
    with pytest.raises(ImageError, match=r'clip\.mp4 is not a video that can be opened'):
        Video(tmp_path / 'clip.mp4')


@pytest.mark.parametrize('turn', [0, 90, 180, 270])
def test_frames_are_turned_as_the_container_says(tmp_path, turn):
    """A phone's: the display matrix in an MP4's track header."""
    path = clip(tmp_path / 'clip.mp4', 3)
    with Video(path) as video:
        upright = [frame.image for frame in video]
    data = bytearray(path.read_bytes())
    cosine, sine = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[turn]
    matrix = [65536 * value for value in (cosine, sine, 0, -sine, cosine, 0, 0, 0)] + [1 << 30]
    place = data.index(b'tkhd') + 4 + 40  # version 0
    data[place : place + 36] = struct.pack('>9i', *matrix)
    path.write_bytes(data)
    with Video(path) as video:
        for frame, plain in zip(video, upright, strict=True):
            assert np.array_equal(frame.image, np.rot90(plain, -turn // 90))


def test_odd_sizes_are_written(tmp_path):
    for suffix in ('.mp4', '.mkv', '.avi', '.mov'):
        with VideoWriter(tmp_path / f'out{suffix}', 10) as writer:
            writer.write(picture(61, 83), 0.0)
        with Video(tmp_path / f'out{suffix}') as video:
            (frame,) = video
        assert frame.image.shape == (62, 84, 3)
        assert np.abs(frame.image[:61, :83].astype(int) - picture(61, 83)).mean() < 12


def test_times_never_go_back(tmp_path):
    """A frame that is repeated keeps its time; a stream that begins anew goes on."""
    times = [0, 200, 400, 400, 600, 5000, 0, 200]
    matroska(tmp_path / 'a.mkv', [picture(seed=i) for i in range(8)], times)
    with Video(tmp_path / 'a.mkv') as video:
        found = [round(1000 * frame.seconds) for frame in video]
    assert found[:6] == times[:6]
    assert found == sorted(found)
    assert found[7] - found[6] == 200


def test_one_frame_an_hour_is_written(tmp_path):
    for suffix in ('.avi', '.mkv'):
        with VideoWriter(tmp_path / f'out{suffix}', 1 / 3600) as writer:
            writer.write(picture(), 0.0)
            writer.write(picture(), 3600.0)
        with Video(tmp_path / f'out{suffix}') as video:
            assert len(list(video)) == 2


def test_two_runs_do_not_write_one_video(tmp_path):
    with VideoWriter(tmp_path / 'out.mp4', 10) as writer:
        writer.write(picture(), 0.0)
        with (
            pytest.raises(PoseNetError, match=r'another run is writing .*out\.partial\.mp4'),
            VideoWriter(tmp_path / 'out.mp4', 10),
        ):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ['out.mp4']
