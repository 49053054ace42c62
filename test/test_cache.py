"""Built files on disk: what is loaded is what was built, by this user, within bounds."""

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from posenet_ros import BackendError
from posenet_ros.cache import BuildCache

PLAN = bytes(range(256)) * 2
KEY = {'onnx': 'abc', 'gpu': 'a GPU', 'compute_capability': [8, 6]}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('POSENET_HOME', str(tmp_path))
    return BuildCache('engines')


class Build:
    """Builds PLAN, and remembers why it was asked to."""

    def __init__(self, plan=PLAN):
        self.plan = plan
        self.reasons = []

    def __call__(self, reason):
        self.reasons.append(reason)
        return self.plan


def test_engine_is_built_once(cache):
    build = Build()
    assert cache.get(KEY, build) == PLAN
    assert cache.get(KEY, build) == PLAN
    assert BuildCache('engines').get(dict(KEY), build) == PLAN
    assert build.reasons == ['there is none for this model and device yet']


def test_another_key_is_another_engine(cache):
    cache.get(KEY, Build())
    assert cache.get({**KEY, 'gpu': 'another'}, Build(b'other')) == b'other'
    assert cache.get(KEY, Build(b'never')) == PLAN


# Tampering.


@pytest.mark.parametrize('suffix', ['', '.json'], ids=['plan', 'manifest'])
def test_flipped_byte_anywhere_is_found(cache, suffix):
    cache.get(KEY, Build())
    path = Path(f'{cache.path(KEY)}{suffix}')
    original = path.read_bytes()
    for position in range(len(original)):
        changed = bytearray(original)
        changed[position] ^= 1
        path.write_bytes(changed)
        build = Build()
        assert cache.get(KEY, build) == PLAN
        assert len(build.reasons) == 1, f'byte {position} of {path.name}'
        assert 'is not what was built' in build.reasons[0]
        assert path.read_bytes() == original


@pytest.mark.parametrize('suffix', ['', '.json'], ids=['plan', 'manifest'])
@pytest.mark.parametrize(
    'damage',
    [lambda data: data[:-1], lambda data: data + b'\n', lambda data: b''],
    ids=['shorter', 'longer', 'empty'],
)
def test_file_of_another_length_is_found(cache, suffix, damage):
    cache.get(KEY, Build())
    path = Path(f'{cache.path(KEY)}{suffix}')
    path.write_bytes(damage(path.read_bytes()))
    build = Build()
    assert cache.get(KEY, build) == PLAN and len(build.reasons) == 1


def test_engine_of_another_key_under_this_name_is_found(cache):
    other = {**KEY, 'gpu': 'another'}
    cache.get(other, Build(b'other'))
    for suffix in ('', '.json'):
        source = Path(f'{cache.path(other)}{suffix}')
        source.rename(f'{cache.path(KEY)}{suffix}')
    build = Build()
    assert cache.get(KEY, build) == PLAN and len(build.reasons) == 1


def test_folder_is_its_owners_alone(cache):
    cache.get(KEY, Build())
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    files = [cache.path(KEY), cache.path(KEY).with_suffix('.json')]
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize('mode', [0o755, 0o770, 0o702, 0o710])
def test_folder_that_others_can_enter_is_refused(tmp_path, monkeypatch, mode):
    monkeypatch.setenv('POSENET_HOME', str(tmp_path))
    folder = tmp_path / 'engines'
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(BackendError, match=f'can be entered by others.*chmod 700 {folder}'):
        BuildCache('engines')


def test_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv('POSENET_HOME', str(tmp_path))
    (tmp_path / 'engines').mkdir(mode=0o700)
    monkeypatch.setattr(os, 'getuid', lambda: 12345)
    with pytest.raises(BackendError, match='belongs to another user'):
        BuildCache('engines')


def test_link_and_file_in_the_folders_place_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv('POSENET_HOME', str(tmp_path))
    (tmp_path / 'real').mkdir(mode=0o700)
    (tmp_path / 'link').symlink_to(tmp_path / 'real')
    (tmp_path / 'file').write_text('')
    for name in ('link', 'file'):
        with pytest.raises(BackendError, match='is not a folder'):
            BuildCache(name)


# Interruptions and other processes.


def test_build_that_fails_leaves_nothing(cache):
    def fails(reason):
        raise BackendError('no')

    with pytest.raises(BackendError, match=r'^no$'):
        cache.get(KEY, fails)
    assert [path.suffix for path in cache.folder.iterdir()] == ['.lock']
    assert cache.get(KEY, Build()) == PLAN


def test_rebuild_replaces_the_engine(cache):
    cache.get(KEY, Build())
    assert cache.get(KEY, Build(b'new'), rebuild=True) == b'new'
    assert cache.get(KEY, Build()) == b'new'


def test_engine_runs_even_if_it_cannot_be_kept(cache, monkeypatch, caplog):
    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    assert cache.get(KEY, Build()) == PLAN
    assert 'No space left on device' in caplog.text
    monkeypatch.undo()
    assert sorted(p.suffix for p in cache.folder.iterdir()) == ['.lock']


def build_slowly(home, built, results):
    os.environ['POSENET_HOME'] = str(home)

    def build(reason):
        built.put(os.getpid())
        import time

        time.sleep(0.3)
        return PLAN

    results.put(BuildCache('engines').get(KEY, build) == PLAN)


def test_processes_that_want_one_engine_build_it_once(tmp_path):
    context = multiprocessing.get_context('spawn')
    built, results = context.Queue(), context.Queue()
    processes = [
        context.Process(target=build_slowly, args=(tmp_path, built, results)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    assert all(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert built.get(timeout=1) and built.empty()


def test_data_of_put_is_checked_too(cache):
    assert cache.peek(KEY) is None
    cache.put(KEY, b'timings')
    assert cache.peek(KEY) == b'timings'
    assert cache.peek({**KEY, 'gpu': 'another'}) is None
    cache.path(KEY).write_bytes(b'changed')
    assert cache.peek(KEY) is None


# Bounds.


def test_least_recently_used_files_go_first(tmp_path, monkeypatch):
    monkeypatch.setenv('POSENET_HOME', str(tmp_path))
    cache = BuildCache('engines', max_bytes=3 * len(PLAN))
    keys = [{'onnx': str(i)} for i in range(5)]
    for i, key in enumerate(keys[:3]):
        cache.get(key, Build())
        os.utime(cache.path(key).with_suffix('.json'), (i, i))
    cache.get(keys[0], Build(b'never'))  # used again
    cache.get(keys[3], Build())
    assert [cache.peek(key) is not None for key in keys] == [True, False, True, True, False]
    cache.get(keys[4], Build(4 * PLAN))  # larger than all of the cache: it alone stays
    assert [cache.peek(key) is not None for key in keys] == [False] * 4 + [True]
    assert len(list(cache.folder.iterdir())) == 3  # the file, its manifest and its lock


def test_leftovers_of_killed_processes_are_removed_and_stop_no_pruning(tmp_path, monkeypatch):
    monkeypatch.setenv('POSENET_HOME', str(tmp_path))
    cache = BuildCache('engines', max_bytes=len(PLAN))
    old, fresh = cache.folder / '.a.part-1.json', cache.folder / '.b.part-2'
    orphan = cache.folder / 'c'  # a file whose manifest was never written
    for path in (old, fresh, orphan):
        path.write_bytes(PLAN)
    for path in (old, orphan):
        os.utime(path, (0, 0))
    cache.get(KEY, Build())
    cache.get({**KEY, 'gpu': 'another'}, Build())
    assert cache.peek(KEY) is None and cache.peek({**KEY, 'gpu': 'another'}) == PLAN
    assert not old.exists() and not orphan.exists() and fresh.exists()
