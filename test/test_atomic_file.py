"""Files are written whole or not at all, and to where the name leads."""

import contextlib
import fcntl
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from posenet_ros import atomic_file
from posenet_ros.atomic_file import (
    atomic_path,
    is_stream,
    locked,
    partial_name,
    partial_path,
    replaced,
    to_disk,
    unlocked,
)
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


@pytest.fixture
def synced(monkeypatch):
    """The content of each file when it went to the disk, by its name."""
    found = {}

    def fsync(descriptor):
        path = Path(f'/proc/self/fd/{descriptor}').readlink()
        found[path.name] = path.read_text()

    monkeypatch.setattr(os, 'fsync', fsync)
    return found


def test_whole_file_is_on_the_disk_before_it_takes_its_name(tmp_path, synced):
    path = tmp_path / 'out.json'
    write(path)
    with partial_path(path) as part:
        part.write_text('newer')
    with replaced(path, tmp_path / 'part', 0o600) as file:
        file.write(b'newest')
    first, *others = synced.items()
    assert first[0].startswith('.part-') and first[0].endswith('.json') and first[1] == 'new'
    assert others == [('out.partial.json', 'newer'), ('part', 'newest')]


def test_block_that_writes_nothing_leaves_what_was_there(tmp_path):
    (tmp_path / 'out.json').write_text('old')
    with atomic_path(tmp_path / 'out.json'):
        pass
    with atomic_path(tmp_path / 'other.json'):
        pass
    with atomic_path(Path('/dev/null')):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ['out.json']


@pytest.mark.parametrize('path', ['out\0.json', 'a\0/out.json'])
def test_name_with_a_null_byte_is_an_error_with_a_reason(tmp_path, path):
    with pytest.raises(PoseNetError, match=r'cannot write .*null'):
        write(tmp_path / path)


@pytest.mark.parametrize('error', [ValueError('not ours'), BrokenPipeError(32, 'Broken pipe')])
def test_errors_of_the_block_that_are_not_about_the_file_pass(tmp_path, error):
    with pytest.raises(type(error)) as caught, atomic_path(tmp_path / 'out.json'):
        raise error
    assert caught.value is error


def test_error_of_the_system_within_the_block_names_the_file(tmp_path):
    told = pytest.raises(PoseNetError, match=r'cannot write .*out\.json: No space left')
    with told, atomic_path(tmp_path / 'out.json'):
        raise OSError(28, 'No space left on device')


# Work that takes long.


def test_unfinished_work_lies_under_its_partial_name(tmp_path):
    path = tmp_path / 'out.tar.json'
    path.write_text('old')
    part = tmp_path / 'out.tar.partial.json'
    part.write_text('of an earlier run, and longer')
    with partial_path(path) as given:
        assert given == part == partial_name(path) and part.read_text() == ''
        part.write_text('new')
        assert path.read_text() == 'old'
    assert path.read_text() == 'new' and not part.exists()


def test_finished_file_has_the_permissions_of_any_other(tmp_path):
    with partial_path(tmp_path / 'out.json') as part:
        part.write_text('new')
    (tmp_path / 'other').touch()
    assert (tmp_path / 'out.json').stat().st_mode == (tmp_path / 'other').stat().st_mode


@pytest.mark.parametrize('written', ['half', ''])
def test_interrupted_work_is_kept_unless_it_is_nothing(tmp_path, written):
    path = tmp_path / 'out.json'
    path.write_text('old')
    with pytest.raises(KeyboardInterrupt), partial_path(path) as part:
        part.write_text(written)
        raise KeyboardInterrupt
    assert path.read_text() == 'old'
    assert part.exists() == bool(written)


def test_interrupted_work_that_removed_its_file_is_interrupted_all_the_same(tmp_path):
    with pytest.raises(KeyboardInterrupt), partial_path(tmp_path / 'out.json') as part:
        part.unlink()
        raise KeyboardInterrupt


def test_work_that_is_not_good_does_not_take_the_name(tmp_path):
    def check(part):
        assert part.read_text() == 'bad'
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), partial_path(tmp_path / 'out.json', check) as part:
        part.write_text('bad')
    assert [path.name for path in tmp_path.iterdir()] == ['out.partial.json']


def test_second_run_of_the_same_work_is_refused_and_harms_nothing(tmp_path):
    path = tmp_path / 'out.json'
    with partial_path(path) as part:
        part.write_text('first')
        told = pytest.raises(PoseNetError, match=r'another run is writing .*out\.partial\.json')
        with told, partial_path(path):
            raise AssertionError('never here')
        assert part.read_text() == 'first'
    assert path.read_text() == 'first'
    with partial_path(path) as part:
        part.write_text('next')
    assert path.read_text() == 'next'


def test_file_that_was_put_in_the_place_of_the_work_is_not_taken(tmp_path):
    path = tmp_path / 'out.json'
    with pytest.raises(PoseNetError, match='was replaced meanwhile'), partial_path(path) as part:
        (tmp_path / 'other').write_text('foreign')
        (tmp_path / 'other').replace(part)
    assert not path.exists()


def test_folder_in_the_place_of_the_work_is_told(tmp_path):
    (tmp_path / 'out.partial.json').mkdir()
    told = pytest.raises(PoseNetError, match=r'out\.partial\.json is in the way: it is a folder')
    with told, partial_path(tmp_path / 'out.json'):
        raise AssertionError('never here')


@pytest.mark.parametrize(
    ('name', 'reason'), [('missing/out.json', 'there is no folder'), ('folder', 'Is a directory')]
)
@pytest.mark.parametrize('writes', [atomic_path, partial_path])
def test_unwritable_path_is_told_before_the_work_begins(tmp_path, writes, name, reason):
    (tmp_path / 'folder').mkdir()
    told = pytest.raises(PoseNetError, match=f'cannot write .*{name}: {reason}')
    with told, writes(tmp_path / name):
        raise AssertionError('never here')


def test_no_descriptor_is_left_open(tmp_path):
    before = len(list(Path('/proc/self/fd').iterdir()))
    write(tmp_path / 'out')
    with partial_path(tmp_path / 'out') as part:
        part.touch()
        with contextlib.suppress(PoseNetError), partial_path(tmp_path / 'out'):
            pass
    with replaced(tmp_path / 'out', tmp_path / 'part', 0o600), locked(tmp_path / 'lock', print):
        pass
    (tmp_path / 'lock').touch()
    with unlocked(tmp_path / 'lock'):
        pass
    to_disk(tmp_path)
    assert len(list(Path('/proc/self/fd').iterdir())) == before


# Open files that take a name.


def test_replaced_file_has_its_mode_and_what_was_in_the_way_is_gone(tmp_path):
    path, part = tmp_path / 'out', tmp_path / 'part'
    (tmp_path / 'foreign').write_text('stays')
    part.symlink_to('foreign')
    with replaced(path, part, 0o640) as file:
        file.write(b'new')
        assert not path.exists() and not part.is_symlink()
    assert path.read_bytes() == b'new' and not part.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (tmp_path / 'foreign').read_text() == 'stays'


def test_failure_leaves_neither_part_nor_change(tmp_path):
    path, part = tmp_path / 'out', tmp_path / 'part'
    path.write_text('old')
    with pytest.raises(ZeroDivisionError), replaced(path, part, 0o600) as file:
        file.write(b'half')
        raise ZeroDivisionError
    assert path.read_text() == 'old' and not part.exists()
    part.mkdir()
    with pytest.raises(OSError, match='part'), replaced(path, part, 0o600):
        raise AssertionError('never here')
    assert part.is_dir()


def test_link_that_is_made_meanwhile_is_not_written_through(tmp_path, monkeypatch):
    (tmp_path / 'foreign').write_text('stays')
    part = tmp_path / 'part'
    monkeypatch.setattr(Path, 'unlink', lambda path, **_: path.symlink_to(tmp_path / 'foreign'))
    with pytest.raises(FileExistsError), replaced(tmp_path / 'out', part, 0o600):
        raise AssertionError('never here')
    assert (tmp_path / 'foreign').read_text() == 'stays'


def test_what_goes_to_the_disk_has_to_be_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        to_disk(tmp_path / 'missing')


# Locks.


def never(*_):
    raise AssertionError('nobody has the lock')


def test_lock_names_its_process_and_is_gone_afterwards(tmp_path):
    path = tmp_path / 'lock'
    path.write_text('a process with a long name was killed here')
    with locked(path, never):
        assert path.read_text() == str(os.getpid())
        with path.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not path.exists()
    with pytest.raises(ZeroDivisionError), locked(path, never):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        raise ZeroDivisionError
    assert not path.exists()


def test_lock_whose_file_was_removed_by_hand_ends_quietly(tmp_path):
    with locked(tmp_path / 'lock', never):
        (tmp_path / 'lock').unlink()


@pytest.mark.parametrize('kind', ['link', 'folder'])
def test_lock_is_no_link_and_no_folder(tmp_path, kind):
    path = tmp_path / 'lock'
    path.mkdir() if kind == 'folder' else path.symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(OSError, match='lock'), locked(path, never):
        raise AssertionError('never here')
    assert not (tmp_path / 'elsewhere').exists()


HOLD = """
import fcntl, sys
file = open(sys.argv[1], 'a+')
fcntl.flock(file, fcntl.LOCK_EX)
file.write(sys.argv[2])
file.flush()
print('held', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """Another process takes the lock, until the function that this returns is called."""
    with contextlib.ExitStack() as stack:

        def start(owner):
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, '-c', HOLD, tmp_path / 'lock', owner],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            assert process.stdout.readline() == b'held\n'
            return process.stdin.close

        yield start


@pytest.mark.parametrize(
    ('owner', 'named'),
    [('4711', 'process 4711'), ('x', 'another process'), ('', 'another process')],
)
def test_who_waits_is_told_for_whom_and_how_long(tmp_path, hold, monkeypatch, owner, named):
    monkeypatch.setattr(atomic_file, 'FIRST_WORD_SECONDS', 0.2)
    monkeypatch.setattr(atomic_file, 'NEXT_WORD_SECONDS', 0.3)
    release = hold(owner)
    told = []

    def waiting(seconds, who):
        told.append((seconds, who))
        if len(told) == 2:
            release()

    with locked(tmp_path / 'lock', waiting):
        assert (tmp_path / 'lock').read_text() == str(os.getpid())
    (first, who), (second, again) = told
    assert who == again == named
    assert 0.2 <= first < second < 30 and second - first >= 0.3


def test_first_word_comes_after_a_second_and_the_next_after_a_minute():
    assert (atomic_file.FIRST_WORD_SECONDS, atomic_file.NEXT_WORD_SECONDS) == (1, 60)


def test_lock_that_its_owner_removed_is_taken_anew(tmp_path):
    """The one who waits holds a file that is not there any more; another may make a new one."""
    path = tmp_path / 'lock'
    order = []

    def use(name):
        with locked(path, lambda *_: None):
            order.append(f'{name} has it')
            time.sleep(0.1)
            assert path.read_text() == str(os.getpid())
            order.append(f'{name} ends')

    threads = [threading.Thread(target=use, args=(name,)) for name in 'abc']
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(order) == 6 and not path.exists()
    assert all(order[i][0] == order[i + 1][0] for i in (0, 2, 4))


def test_lock_of_a_process_that_is_gone_is_removed_and_a_held_one_is_not(tmp_path, hold):
    path = tmp_path / 'lock'
    path.touch()
    with unlocked(path) as free:
        assert free and path.exists()
        with path.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not path.exists()
    hold('4711')
    with unlocked(path) as free:
        assert not free
    assert path.read_text() == '4711'
    with pytest.raises(FileNotFoundError), unlocked(tmp_path / 'missing'):
        raise AssertionError('never here')


def test_lock_that_another_has_removed_and_made_again_is_not_free(tmp_path, monkeypatch):
    path = tmp_path / 'lock'
    path.touch()
    flock = fcntl.flock

    def meanwhile(*arguments):
        flock(*arguments)
        path.unlink()
        path.write_text('of another')

    monkeypatch.setattr(fcntl, 'flock', meanwhile)
    with unlocked(path) as free:
        assert not free
    assert path.read_text() == 'of another'


# Streams.


@pytest.mark.parametrize(
    ('path', 'stream'),
    [
        ('/dev/stdout', True),
        ('/dev/stderr', True),
        ('/dev/fd/1', True),
        ('/dev/fd/77', True),  # not open: the system says so when it is written to
        ('/proc/self/fd/1', True),
        ('/proc/self/status', False),
        ('/dev/null', True),
        ('/dev/shm', False),
        ('/dev/missing', False),
        (__file__, False),
        ('fd/1', False),
        ('a\0b', False),
    ],
)
def test_pipes_devices_and_descriptors_are_streams(path, stream):
    assert is_stream(Path(path)) == stream
