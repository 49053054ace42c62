"""Processes that share work, and what happens if they die."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

from posenet_ros.recordings.workers import Processes, ThisProcess, WorkerDied

pytestmark = pytest.mark.slow


# Tasks: functions of a module, which the processes import.


def double(worker, number):
    worker.count(1, 2)
    return 2 * number


def process_id(worker):
    time.sleep(0.2)
    return os.getpid()


def total(worker, results, more):
    return sum(results) + more


def die(worker, marker=None):
    """Dies; the second time only if there is no marker."""
    if marker is None or not marker.exists():
        if marker is not None:
            marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 'survived'


def refuse(worker):
    raise ValueError('never')


@pytest.mark.parametrize('make', [ThisProcess, lambda: Processes(2)])
def test_tasks_give_their_results_or_errors(make):
    workers = make()
    try:
        futures = [workers.submit((double, (i,))) for i in range(5)]
        assert [future.result() for future in futures] == [0, 2, 4, 6, 8]
        gathered = workers.gather([(double, (i,)) for i in range(5)], (total, (100,)))
        assert gathered.result() == 120
        assert workers.frames == (10, 20)
        with pytest.raises(ValueError, match='never'):
            workers.submit((refuse, ())).result()
    finally:
        workers.close()


def test_every_process_gets_work():
    workers = Processes(2)
    try:
        futures = [workers.submit((process_id, ())) for _ in range(6)]
        ids = {future.result() for future in futures}
        assert len(ids) == 2 and os.getpid() not in ids
    finally:
        workers.close()


def test_task_of_a_process_that_dies_is_tried_once_more(tmp_path):
    workers = Processes(2)
    try:
        again = workers.submit((die, (tmp_path / 'marker',)))
        never = workers.submit((die, ()))
        other = workers.submit((double, (4,)))
        assert again.result() == 'survived'
        with pytest.raises(WorkerDied, match='its process died 2 times'):
            never.result()
        assert other.result() == 8
        assert workers.submit((double, (5,))).result() == 10
    finally:
        workers.close()


def test_closing_ends_what_runs():
    workers = Processes(1)
    pid = workers.submit((process_id, ())).result()
    slow = workers.submit((time_out, ()))
    time.sleep(0.2)
    workers.close()
    wait([slow], 10)
    assert slow.exception() is not None
    assert_ends(pid)


def time_out(worker):
    time.sleep(600)


PARENT = """
import test_workers
from posenet_ros.recordings.workers import Processes
if __name__ == '__main__':
    workers = Processes(1)
    print(workers.submit((test_workers.process_id, ())).result(), flush=True)
    workers.submit((test_workers.time_out, ())).result()
"""


def test_processes_end_with_their_parent_however_it_ends(tmp_path):
    script = tmp_path / 'parent.py'
    script.write_text(PARENT)
    paths = os.pathsep.join([str(Path(__file__).parent), *(p for p in sys.path if p)])
    parent = subprocess.Popen(
        [sys.executable, script], env={**os.environ, 'PYTHONPATH': paths},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert_ends(pid)


def assert_ends(pid):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
        except OSError:
            return
        if state == 'Z':
            return
        time.sleep(0.05)
    raise AssertionError(f'process {pid} is still there')
