"""Compiled loops are kept, found again, and never trusted more than compiling anew."""

import pickle

import numba
import pytest

from posenet_ros.core import jit as module
from posenet_ros.core.jit import jit

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason='nothing is compiled')


def loop(count):
    total = 0
    for i in range(count):
        total += i
    return total


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('POSENET_HOME', str(tmp_path / 'home'))
    module._folder.cache_clear()
    yield tmp_path / 'home'
    module._folder.cache_clear()


def found_on_disk():
    """Whether a new process's loop is found; it gives the right result in any case."""
    compiled = jit(loop)
    assert compiled(5) == 10
    hits, misses = compiled.stats.cache_hits, compiled.stats.cache_misses
    assert sum(hits.values()) + sum(misses.values()) == 1
    return sum(hits.values()) == 1


def test_loop_is_compiled_once(home, caplog):
    assert [found_on_disk() for _ in range(3)] == [False, True, True]
    assert len(list((home / 'loops').iterdir())) == 1
    assert not caplog.records


def test_loop_of_other_sources_is_compiled_anew(home, monkeypatch):
    assert not found_on_disk()
    monkeypatch.setattr(module, '_versions', lambda: {'sources': 'others'})
    assert not found_on_disk()
    assert len(list((home / 'loops').iterdir())) == 2


def test_loop_that_this_numba_cannot_read_is_compiled_and_told(home, monkeypatch, caplog):
    assert not found_on_disk()

    def loads(data):
        raise AttributeError('no such class')

    monkeypatch.setattr(pickle, 'loads', loads)
    assert not found_on_disk()
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == f'compiling {__name__}.loop again: no such class'
    monkeypatch.undo()


def test_loops_run_where_they_cannot_be_kept_and_one_warning_says_why(home, caplog):
    home.touch()
    assert not found_on_disk()
    assert not found_on_disk()
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.endswith('loops are compiled anew at every start') and str(home) in told
