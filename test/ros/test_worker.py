import threading
from types import SimpleNamespace

import pytest
from ros_processes import wait_until

from posenet_ros import BackendError, CheckpointError
from posenet_ros.ros.mailbox import Mailbox
from posenet_ros.ros.worker import ModelWorker, Worker


class Net:
    """Stands for a model, to see which thread touches it."""

    backend = SimpleNamespace(max_batch=2)

    def __init__(self):
        self.loaded_in = threading.get_ident()
        self.closed_in = None

    def close(self):
        self.closed_in = threading.get_ident()


def test_model_is_loaded_run_and_closed_in_one_thread():
    used_in, done = [], threading.Event()

    def process(net, waiting):
        used_in.append(threading.get_ident())
        done.set()

    mailbox = Mailbox()
    worker = ModelWorker(Net, mailbox, process, report=pytest.fail)
    net = worker.start_and_load(cancelled=lambda: False)
    mailbox.put('a', 1)
    assert done.wait(5)
    assert worker.stop(5)
    assert {net.loaded_in, net.closed_in, *used_in} == {net.loaded_in}
    assert net.loaded_in != threading.get_ident()


def test_model_gets_no_more_at_once_than_it_runs_at_once():
    batches, done = [], threading.Event()

    def process(net, waiting):
        batches.append(dict(waiting))
        if len(batches) == 2:
            done.set()

    mailbox = Mailbox()
    for camera in 'abc':
        mailbox.put(camera, 1)
    worker = ModelWorker(Net, mailbox, process, report=pytest.fail)
    worker.start_and_load(cancelled=lambda: False)
    assert done.wait(5)
    assert worker.stop(5)
    assert batches == [{'a': 1, 'b': 1}, {'c': 1}]


def test_failed_load_is_raised_where_it_is_waited_for():
    def load():
        raise CheckpointError('no weights')

    worker = ModelWorker(load, Mailbox(), lambda *_: None, report=pytest.fail)
    with pytest.raises(CheckpointError, match='no weights'):
        worker.start_and_load(cancelled=lambda: False)
    assert worker.stop(5)


def test_waiting_for_a_load_can_be_cancelled():
    go_on = threading.Event()

    def load():
        go_on.wait()
        return Net()

    worker = ModelWorker(load, Mailbox(), lambda *_: None, report=pytest.fail)
    with pytest.raises(BackendError, match='stopped while'):
        worker.start_and_load(cancelled=lambda: True)
    assert not worker.stop(0.1)  # it hangs in load, and says so
    go_on.set()
    assert wait_until(worker.stop)


def test_thread_survives_an_exception():
    reported, processed, done = [], [], threading.Event()

    def process(waiting):
        if 'bad' in waiting:
            raise RuntimeError('one bad frame')
        processed.append(waiting)
        done.set()

    mailbox = Mailbox()
    worker = Worker('test', mailbox, process, reported.append)
    worker.start()
    mailbox.put('bad', 1)
    assert wait_until(lambda: reported)
    mailbox.put('good', 2)
    assert done.wait(5)
    assert worker.stop(5)
    assert [str(error) for error in reported] == ['one bad frame']
    assert processed == [{'good': 2}]
