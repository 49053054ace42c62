"""One place says what an input is: by its content, then by its name."""

import os

import pytest
from media import encoded, picture

from posenet_ros import ImageError
from posenet_ros.io.source import expect, find_source

JPEG = encoded(picture())


@pytest.mark.parametrize(
    ('name', 'content', 'kind'),
    [
        ('a.jpg', JPEG, 'photo'),
        ('a.txt', JPEG, 'photo'),
        ('a.mjpeg', JPEG, 'video'),
        ('a.jpg', b'text', 'photo'),  # whose reader says what is wrong with it
        ('a', encoded(picture(), 'WEBP'), 'photo'),
        ('a', encoded(picture(), 'PNG'), 'photo'),
        ('a', b'P5\n1 1\n255\n0', 'photo'),
        ('a.jpg', b'RIFF\0\0\0\0AVI LIST', 'video'),
        ('a', b'\x1aE\xdf\xa3' + bytes(50), 'video'),
        ('a.jpg', b'\0\0\0\x18ftypmp42' + bytes(50), 'video'),
        ('a.mp4', b'\0\0\0\x18ftypheic' + bytes(50), 'photo'),
        ('a', b'\0\0\0\x18ftypavif' + bytes(50), 'photo'),
        ('a', (b'G' + bytes(187)) * 2, 'video'),
        ('a.3gp', b'unknown', 'video'),
        ('a.flv', b'FLV\1\5', 'video'),
        ('a', b'\x89MCAP0\r\n', 'bag'),
        ('a', b'SQLite format 3\0', 'bag'),
        ('a.bag', b'#ROSBAG V2.0\n', 'bag'),
        ('a.mcap.zstd', b'(\xb5/\xfd....', 'bag'),
        ('2026-01-01T12:00:00.mp4', b'\0\0\0\x18ftypisom', 'video'),
    ],
)
def test_files_are_what_their_content_says(tmp_path, monkeypatch, name, content, kind):
    (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert find_source(tmp_path / name).kind == kind
    assert find_source(name).kind == kind


@pytest.mark.parametrize(
    ('names', 'kind'),
    [
        (['a.jpg', 'b.txt'], 'folder'),
        ([], 'folder'),
        (['metadata.yaml'], 'bag'),
        (['x_0.db3', 'x_1.db3'], 'bag'),
        (['x_0.mcap.zstd'], 'bag'),
        (['x_0.mcap', 'a.jpg'], 'folder'),
        (['metadata.yaml', 'a.jpg'], 'folder'),
        (['a.bag'], 'folder'),
    ],
)
def test_folders_are_of_photos_or_a_bag(tmp_path, names, kind):
    for name in names:
        (tmp_path / name).write_bytes(b'x')
    assert find_source(tmp_path).kind == kind


@pytest.mark.parametrize(
    ('text', 'kind'),
    [
        ('0', 'camera'),
        ('12', 'camera'),
        ('/dev/null', 'camera'),  # a device
        ('rtsp://user:secret@10.0.0.1/stream', 'stream'),
        ('HTTP://10.0.0.1:8080/video', 'stream'),
    ],
)
def test_cameras_and_streams(text, kind):
    assert find_source(text).kind == kind


def test_number_that_is_a_file_is_a_file(tmp_path, monkeypatch):
    (tmp_path / '0').write_bytes(JPEG)
    monkeypatch.chdir(tmp_path)
    assert find_source('0').kind == 'photo'
    assert find_source(f'file://{tmp_path}/0').kind == 'photo'


@pytest.mark.parametrize(
    ('name', 'content', 'reason'),
    [
        ('empty.jpg', b'', r'empty\.jpg is empty'),
        ('a.txt', b'notes', r'a\.txt is nothing that can be read: it should be a photo'),
        ('missing', None, 'there is no file or folder .*missing'),
        ('ftp://host/a.jpg', None, 'ftp is no protocol of rtsp'),
        ('null\0byte', None, 'cannot read'),
        ('', None, 'the input is empty: it should be a photo'),
        ('file://', None, 'names no file'),
    ],
)
def test_nothing_that_can_be_read_is_one_sentence(tmp_path, monkeypatch, name, content, reason):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        find_source(name)


def test_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(ImageError, match='is a pipe'):
        find_source(tmp_path / 'pipe')


def test_other_kinds_are_refused_with_what_to_use(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(JPEG)
    with pytest.raises(ImageError, match=r'is a photo, where a bag is needed; use another'):
        expect(find_source(tmp_path / 'a.jpg'), ('bag',), 'use another')
