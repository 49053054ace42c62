"""Files are written whole or not at all, and to where the name leads."""

import os
import threading
from pathlib import Path

import pytest

from posenet_ros.atomic_file import atomic_path
from posenet_ros.errors import PoseNetError


def write(path, text='new'):
    with atomic_path(path) as part:
        part.write_text(text)


def test_file_appears_with_its_contents_and_nothing_else_is_left(tmp_path):
    (tmp_path / 'out.json').write_text('old')
    write(tmp_path / 'out.json')
    assert (tmp_path / 'out.json').read_text() == 'new'
    assert [path.name for path in tmp_path.iterdir()] == ['out.json']


def test_failure_leaves_the_old_file(tmp_path):
    (tmp_path / 'out.json').write_text('old')
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / 'out.json') as part:
        part.write_text('half')
        raise ZeroDivisionError
    assert (tmp_path / 'out.json').read_text() == 'old'
    assert [path.name for path in tmp_path.iterdir()] == ['out.json']


def test_file_of_the_user_with_a_like_name_stays(tmp_path):
    own = tmp_path / '.out.part.json'
    own.write_text('mine')
    write(tmp_path / 'out.json')
    assert own.read_text() == 'mine'


def test_link_stays_a_link(tmp_path):
    (tmp_path / 'there').mkdir()
    (tmp_path / 'link.json').symlink_to('there/out.json')
    write(tmp_path / 'link.json')
    assert (tmp_path / 'link.json').is_symlink()
    assert (tmp_path / 'there/out.json').read_text() == 'new'


def test_pipe_and_device_are_written_to(tmp_path):
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write(pipe)
    reader.join(10)
    assert read == ['new']
    assert pipe.is_fifo()
    write(Path('/dev/null'))
    assert Path('/dev/null').is_char_device()


def test_open_file_is_written_through_its_descriptor(tmp_path):
    with (tmp_path / 'redirected').open('w') as file:
        write(Path(f'/dev/fd/{file.fileno()}'))
    assert (tmp_path / 'redirected').read_text() == 'new'


@pytest.mark.parametrize(
    ('name', 'reason'),
    [('missing/out.json', 'there is no folder'), ('folder', 'Is a directory')],
)
def test_unwritable_path_is_an_error_with_a_reason(tmp_path, name, reason):
    (tmp_path / 'folder').mkdir()
    with pytest.raises(PoseNetError, match=f'cannot write .*{name}: .*{reason}'):
        write(tmp_path / name)
