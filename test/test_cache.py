"""Built files on disk: what is loaded is what was built, by this user, within bounds."""

import hashlib
import json
import multiprocessing
import os
import random
import stat
import threading
import time
from pathlib import Path

import pytest

from posenet_ros import BackendError
from posenet_ros.cache import MAX_BYTES, BuildCache, CacheError, posenet_home

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
    assert build.reasons == ['there is none yet']


def test_another_key_is_another_engine(cache):
    cache.get(KEY, Build())
    assert cache.get({**KEY, 'gpu': 'another'}, Build(b'other')) == b'other'
    assert cache.get(KEY, Build(b'never')) == PLAN


# Tampering.


@pytest.fixture
def without_fsync(monkeypatch):
    """For a thousand files: it takes ten milliseconds."""
    monkeypatch.setattr(os, 'fsync', lambda descriptor: None)


def rebuilt(cache, content):
    """Whether a file of this content is found to be wrong, and replaced."""
    path = cache.path(KEY)
    original = path.read_bytes()
    path.write_bytes(content)
    build = Build()
    assert cache.get(KEY, build) == PLAN
    assert path.read_bytes() == original
    assert all('is not what was built' in why for why in build.reasons)
    return len(build.reasons) == 1


def test_flipped_byte_anywhere_is_found(cache, without_fsync):
    cache.get(KEY, Build())
    original = cache.path(KEY).read_bytes()
    for position in range(len(original)):
        changed = bytearray(original)
        changed[position] ^= 1
        assert rebuilt(cache, changed), f'byte {position}'


def test_every_other_length_is_found(cache, without_fsync):
    cache.get(KEY, Build())
    original = cache.path(KEY).read_bytes()
    for length in range(len(original)):
        assert rebuilt(cache, original[:length]), f'length {length}'
    for longer in (original + b'\n', 2 * original, bytes(len(original))):
        assert rebuilt(cache, longer)


def test_engine_of_another_key_under_this_name_is_found(cache):
    other = {**KEY, 'gpu': 'another'}
    cache.get(other, Build(b'other'))
    cache.path(other).rename(cache.path(KEY))
    build = Build()
    assert cache.get(KEY, build) == PLAN and len(build.reasons) == 1


def test_file_of_somebody_else_is_not_used(cache, monkeypatch):
    """The folder may be replaced after it was checked."""
    cache.get(KEY, Build())
    cache.path(KEY).chmod(0o622)
    build = Build()
    assert cache.get(KEY, build) == PLAN and 'is not ours alone' in build.reasons[0]
    monkeypatch.setattr(os, 'getuid', lambda: 12345)
    assert cache.peek(KEY) is None


def test_folder_in_the_place_of_a_file_leaves_no_descriptor_open(cache):
    cache.path(KEY).mkdir()
    before = len(list(Path('/proc/self/fd').iterdir()))
    assert cache.peek(KEY) is None
    assert len(list(Path('/proc/self/fd').iterdir())) == before


@pytest.mark.parametrize('mode', [0o602, 0o620, 0o666])
def test_file_that_others_can_write_is_built_anew(cache, mode):
    cache.get(KEY, Build())
    cache.path(KEY).chmod(0o755)  # they may read it
    assert cache.get(KEY, Build(b'never')) == PLAN
    cache.path(KEY).chmod(mode)
    build = Build()
    assert cache.get(KEY, build) == PLAN
    assert build.reasons == [f'{cache.path(KEY)} is not ours alone']
    assert stat.S_IMODE(cache.path(KEY).stat().st_mode) == 0o600


def test_link_to_a_good_file_is_not_followed(cache, tmp_path):
    cache.get(KEY, Build())
    cache.path(KEY).rename(tmp_path / 'elsewhere')
    cache.path(KEY).symlink_to(tmp_path / 'elsewhere')
    build = Build()
    assert cache.get(KEY, build) == PLAN and len(build.reasons) == 1
    assert not cache.path(KEY).is_symlink()


def test_what_is_there_is_read_without_a_lock_and_used_is_what_was_read(cache, monkeypatch):
    cache.get(KEY, Build())
    os.utime(cache.path(KEY), (1, 1))
    monkeypatch.setattr(cache, '_locked', None)
    assert cache.get(KEY, Build(b'never')) == PLAN
    assert cache.path(KEY).stat().st_mtime > 1


def test_file_of_a_terabyte_is_not_read(cache):
    cache.get(KEY, Build())
    os.truncate(cache.path(KEY), 1 << 40)
    build = Build()
    assert cache.get(KEY, build) == PLAN and len(build.reasons) == 1


@pytest.mark.parametrize('kind', ['folder', 'link', 'dangling link', 'pipe', 'device'])
@pytest.mark.parametrize('place', ['file', 'lock', 'part'])
def test_what_is_no_file_is_told_or_replaced(cache, caplog, kind, place):
    path = cache.path(KEY)
    if place != 'file':
        path = path.with_name(f'.{path.name}.{place}')
    if kind == 'folder':
        path.mkdir()
        (path / 'full').touch()
    elif kind == 'pipe':
        os.mkfifo(path)
    else:
        links = {'link': __file__, 'dangling link': '/nowhere', 'device': '/dev/zero'}
        path.symlink_to(links[kind])
    build = Build()
    assert cache.get(KEY, build) == PLAN and len(build.reasons) == 1
    told = [record.getMessage() for record in caplog.records]
    assert all(str(cache.folder) in text for text in told) and len(told) <= 1
    assert told or cache.get(KEY, Build(b'never')) == PLAN
    if kind == 'folder':
        assert told
    if place == 'file' and kind in ('folder', 'pipe'):
        assert build.reasons == [f'{path} is not a file']
    elif place == 'file':
        assert build.reasons == [
            'the one in the cache cannot be read: Too many levels of symbolic links'
        ]


def test_folder_is_its_owners_alone(cache):
    cache.get(KEY, Build())
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(cache.path(KEY).stat().st_mode) == 0o600


@pytest.mark.parametrize('mode', [0o755, 0o770, 0o701, 0o702, 0o704, 0o710, 0o720, 0o740])
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


@pytest.mark.parametrize('home', ['file', 'file/deeper', '~nobody-of-this-name/home'])
def test_home_that_cannot_be_is_told(tmp_path, monkeypatch, home):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('POSENET_HOME', home if home[0] == '~' else str(tmp_path / home))
    with pytest.raises(CacheError, match='cannot use the cache engines: '):
        BuildCache('engines')


def test_home_is_made_with_all_that_leads_there(tmp_path, monkeypatch):
    monkeypatch.setenv('POSENET_HOME', str(tmp_path / 'a/b'))
    BuildCache('engines')
    assert BuildCache('networks').folder == tmp_path / 'a/b/networks'
    assert {path.name for path in (tmp_path / 'a/b').iterdir()} == {'engines', 'networks'}
    monkeypatch.setenv('POSENET_HOME', '')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert posenet_home() == tmp_path / '.cache/posenet_ros'


# Interruptions and other processes.


def test_build_that_fails_leaves_nothing(cache):
    def fails(reason):
        raise BackendError('no')

    with pytest.raises(BackendError, match=r'^no$'):
        cache.get(KEY, fails)
    assert list(cache.folder.iterdir()) == []
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
    assert list(cache.folder.iterdir()) == []


def build_slowly(home, built, results):
    os.environ['POSENET_HOME'] = str(home)

    def build(reason):
        built.put(os.getpid())
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


def use_and_be_killed(home, seed, errors):
    os.environ['POSENET_HOME'] = str(home)
    try:
        dice = random.Random(seed)
        while True:
            cache = BuildCache('engines', max_bytes=4 * 4096)
            number = dice.randrange(6)
            build = Build(bytes([number]) * 4096)
            assert cache.get({'onnx': number}, build, dice.random() < 0.3) == build.plan
    except BaseException as error:
        errors.put(repr(error))


@pytest.mark.slow
def test_eight_processes_half_of_them_killed_at_random(tmp_path, fuzz):
    """No error, nothing half, nothing left over."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['posenet_ros.cache'])
    errors = context.SimpleQueue()
    dice = fuzz.dice
    for _ in range(fuzz.cases(3, 500)):
        users = [
            context.Process(target=use_and_be_killed, args=(tmp_path, dice.random(), errors))
            for _ in range(8)
        ]
        for user in users:
            user.start()
        time.sleep(dice.uniform(0.05, 0.4))
        for user in users:
            user.kill()
        for user in users:
            user.join()
        assert errors.empty(), errors.get()
        found = BuildCache('engines', max_bytes=4 * 4096)
        for number in range(6):
            data = found.peek({'onnx': number})
            assert data in (None, bytes([number]) * 4096)
        assert all(len(path.name) == 32 for path in found.folder.iterdir())


def test_waiting_for_another_process_is_told(cache, caplog):
    held = threading.Event()

    def build(reason):
        held.set()
        time.sleep(1.5)
        return PLAN

    other = threading.Thread(target=cache.get, args=(KEY, build))
    other.start()
    held.wait(10)
    assert cache.get(KEY, Build(b'never')) == PLAN
    other.join()
    (told,) = [r.getMessage() for r in caplog.records]
    assert told.startswith(f'waiting for process {os.getpid()}, which builds the same')


@pytest.mark.skipif(os.getuid() == 0, reason='root may write everywhere')
def test_read_only_cache_is_read_and_what_it_lacks_is_built(cache, caplog):
    cache.get(KEY, Build())
    cache.folder.chmod(0o500)
    assert cache.get(KEY, Build(b'never')) == PLAN
    assert not caplog.records
    assert cache.get({**KEY, 'gpu': 'another'}, Build(b'other')) == b'other'
    assert 'Permission denied' in caplog.text


# Bounds.


def test_least_recently_used_files_go_first(tmp_path, monkeypatch):
    monkeypatch.setenv('POSENET_HOME', str(tmp_path))
    cache = BuildCache('engines', max_bytes=3 * len(PLAN) + 1000)  # and three manifests
    keys = [{'onnx': str(i)} for i in range(5)]
    for i, key in enumerate(keys[:3]):
        cache.get(key, Build())
        os.utime(cache.path(key), (i, i))
    cache.get(keys[0], Build(b'never'))  # used again
    cache.get(keys[3], Build())
    assert [cache.peek(key) is not None for key in keys] == [True, False, True, True, False]
    cache.get(keys[4], Build(4 * PLAN))  # larger than all of the cache: it alone stays
    assert [cache.peek(key) is not None for key in keys] == [False] * 4 + [True]
    assert len(list(cache.folder.iterdir())) == 1


def test_a_cache_holds_a_gigabyte_whichever_way_it_is_filled(cache, tmp_path):
    assert MAX_BYTES == cache._max_bytes == 1024**3
    small = BuildCache('engines', max_bytes=3 * len(PLAN))
    for number in range(9):
        small.put({'onnx': str(number)}, PLAN)
    sizes = [path.stat().st_size for path in small.folder.iterdir()]
    assert 0 < sum(sizes) <= 3 * len(PLAN)


def test_as_many_bytes_as_the_limit_are_kept_whatever_the_clock_says(cache):
    for number in range(3):
        cache.put({'onnx': number}, PLAN)
        future = 4_000_000_000 + number  # these were used before the clock was set back
        os.utime(cache.path({'onnx': number}), (future, future))
    size = cache.path({'onnx': 0}).stat().st_size
    small = BuildCache('engines', max_bytes=2 * size)
    small.put({'onnx': 3}, PLAN)
    assert [small.peek({'onnx': i}) is not None for i in range(4)] == [False, False, True, True]


def test_every_lock_that_was_left_is_removed(cache):
    for number in range(3):
        path = cache.path({'onnx': number})
        path.with_name(f'.{path.name}.lock').touch()
    BuildCache('engines')
    assert list(cache.folder.iterdir()) == []


def test_other_files_in_the_folder_are_neither_counted_nor_deleted(cache):
    small = BuildCache('engines', max_bytes=1)
    others = ['notes.txt', 'f' * 31, 'g' * 32, '.hidden', 'notes.json', '.notes.lock']
    for name in others:
        (small.folder / name).write_bytes(PLAN)
        os.utime(small.folder / name, (1, 1))
    small.put(KEY, PLAN)
    BuildCache('engines')
    assert {path.name for path in small.folder.iterdir()} == {*others, small.path(KEY).name}


def test_name_and_content_of_a_file_stay_as_they_are(cache):
    """Other names would leave every user's cache unused; the content is for people, too."""
    cache.put({'b': 1, 'a': [1, 2]}, b'data')
    (path,) = cache.folder.iterdir()
    key = b'{\n "a": [\n  1,\n  2\n ],\n "b": 1\n}\n'
    assert path.name == hashlib.sha256(key).hexdigest()[:32]
    manifest, data = path.read_bytes().split(b'\0')
    assert json.loads(manifest) == {
        'bytes': 4,
        'key': {'a': [1, 2], 'b': 1},
        'sha256': hashlib.sha256(b'data').hexdigest(),
    }
    assert data == b'data'


def test_leftovers_are_removed_and_locks_that_are_held_are_not(cache):
    path = cache.path(KEY)
    lock, part = (path.with_name(f'.{path.name}.{kind}') for kind in ('lock', 'part'))
    earlier = [path.with_suffix('.json'), path.with_suffix('.lock')]  # of version 0.1
    for leftover in (lock, part, *earlier):
        leftover.touch()
    BuildCache('engines')
    assert list(cache.folder.iterdir()) == []

    def build(reason):
        part.touch()
        BuildCache('engines')
        assert part.exists() and lock.exists()
        part.unlink()
        return PLAN

    assert cache.get(KEY, build) == PLAN
    assert [found.name for found in cache.folder.iterdir()] == [path.name]
