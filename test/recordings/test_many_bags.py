"""posenet bag over many bags: one process, workers and a Ray cluster give the same bytes.

MANY_BAGS=200 takes so many; make test-recordings does.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests
import yaml
from generated_bags import TOPIC, files_of, make_bag, many_bags

pytest.importorskip('rosbags', reason='the package rosbags is not installed')
pytest.importorskip('mcap', reason='the package mcap is not installed')

from posenet_ros.commands import main
from posenet_ros.recordings import estimation
from posenet_ros.recordings.job import notes_of
from posenet_ros.recordings.storage import local_copy

# One worker of pytest-xdist: the bags are made once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group('many_bags')]

NUMBER = int(os.environ.get('MANY_BAGS', '25'))


@pytest.fixture(scope='module')
def model(default_model_config, net):
    url = default_model_config.model_url
    return ['--model-url', url, '--multiplier', '0.75'] if url else []


@pytest.fixture
def bag(model, tmp_path, monkeypatch):
    """Runs the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: main(['bag', *map(str, arguments), *model])


@pytest.fixture
def start(model, tmp_path):
    """Starts the command as a process in that folder."""
    running = []

    def run(*arguments):
        paths = os.pathsep.join(p for p in sys.path if p)
        running.append(
            subprocess.Popen(
                [sys.executable, '-m', 'posenet_ros', 'bag', *map(str, arguments), *model],
                cwd=tmp_path, env={**os.environ, 'PYTHONPATH': paths}, stderr=subprocess.PIPE,
                text=True,
            )
        )  # fmt: skip
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture(scope='module')
def generated(tmp_path_factory, astronaut):
    """Bags as they are found, how many fail, how many are incomplete."""
    folder = tmp_path_factory.mktemp('bags')
    return folder, *many_bags(folder, NUMBER, astronaut, frames=max(5, 500 // NUMBER))


@pytest.fixture(scope='module')
def expected(generated, tmp_path_factory, model):
    """The results and tables of one process."""
    pytest.importorskip('pyarrow', reason='pip install posenet_ros[parquet]')
    out = tmp_path_factory.mktemp('one_process')
    arguments = [generated[0], out / 'bags', '--parquet', out / 'tables']
    assert main(['bag', *map(str, arguments), *model]) == 1
    return out


def test_each_bag_has_a_result_and_those_without_are_told(generated, expected, bag, capsys):
    _, failed, incomplete = generated
    results = [path.parent for path in expected.rglob('metadata.yaml')]
    assert len(results) == NUMBER - failed
    assert len(list(expected.rglob('*.parquet'))) == NUMBER - failed
    arguments = [generated[0], expected / 'bags', '--parquet', expected / 'tables']
    before = files_of(expected)
    assert bag(*arguments) == 1  # again: nothing is left to do but what failed
    said = capsys.readouterr()
    assert (
        f'{NUMBER - failed} of {NUMBER} bags, {NUMBER - failed} of them by an earlier' in said.out
    )
    assert f'{failed} bags failed, {incomplete} could not be read completely' in said.err
    assert 'day_4/run_011: ' in said.err and 'has no image on' in said.err
    assert files_of(expected) == before


def test_workers_give_the_same_bytes(generated, expected, bag, tmp_path, monkeypatch):
    monkeypatch.setattr(estimation, 'FRAMES_OF_A_PART', 1000)
    arguments = ['--parquet', tmp_path / 'out/tables', '--workers', '2']
    assert bag(generated[0], tmp_path / 'out/bags', *arguments) == 1
    assert files_of(tmp_path / 'out') == files_of(expected)


def test_cluster_that_loses_a_node_gives_the_same_bytes(
    generated, expected, start, tmp_path, cluster
):
    running = start(generated[0], 'out/bags', '--parquet', 'out/tables', f'--ray={cluster.address}')
    enough = len(list(expected.rglob('metadata.yaml'))) // 4
    while (
        running.poll() is None and len(list(tmp_path.glob('out/bags/*/*/metadata.yaml'))) < enough
    ):
        time.sleep(0.01)
    assert running.poll() is None
    cluster.remove_node(cluster.workers[0], allow_graceful=False)
    assert running.wait(timeout=600) == 1, running.stderr.read()
    assert files_of(tmp_path / 'out') == files_of(expected)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
@pytest.mark.parametrize('tracking', ['--tracking', '--no-tracking'])
def test_long_bag_in_parts_is_the_bag_in_one_piece(
    bag, tmp_path, astronaut, monkeypatch, storage, tracking
):
    make_bag(tmp_path / 'long', 60, astronaut, storage=storage, jpeg=storage == 'sqlite3')
    options = [tracking, '--flip-horizontal']
    assert bag('long', 'whole', *options) == 0
    monkeypatch.setattr('posenet_ros.commands.worker_options.Processes', InParts)
    monkeypatch.setattr(estimation, 'FRAMES_OF_A_PART', 7)
    InParts.parts = 0
    assert bag('long', 'parts', *options, '--workers', '2') == 0
    assert InParts.parts > 2
    whole, parts = files_of('whole'), files_of('parts')
    assert whole['whole.mcap'] == parts['parts.mcap'].replace(b'parts.mcap', b'whole.mcap')


class InParts:
    """Workers of this process, which cut bags."""

    parts = 0
    size = 2
    frames = 0, 0

    def __init__(self, size):
        from posenet_ros.recordings.workers import ThisProcess

        self._workers = ThisProcess()
        self.submit, self.close = self._workers.submit, self._workers.close

    def gather(self, parts, task):
        InParts.parts = len(parts)
        return self._workers.gather(parts, task)


def test_bag_that_is_damaged_in_one_part_is_read_from_its_beginning(
    bag, tmp_path, astronaut, monkeypatch, capsys
):
    path = make_bag(tmp_path / 'long', 60, astronaut, jpeg=False)
    file = path / 'long.mcap'
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = b'\x55' * 2000
    file.write_bytes(bytes(content))
    whole = bag('long', 'whole')
    said = capsys.readouterr()
    monkeypatch.setattr('posenet_ros.commands.worker_options.Processes', InParts)
    monkeypatch.setattr(estimation, 'FRAMES_OF_A_PART', 7)
    assert bag('long', 'parts', '--workers', '2') == whole
    counts = [notes_of(tmp_path / name)['counts'] for name in ('whole', 'parts')]
    assert counts[0] == counts[1]
    assert said.out.replace('whole', 'parts') == capsys.readouterr().out


# What is finished, what has changed.


@pytest.fixture
def few(tmp_path, astronaut):
    for i in range(3):
        make_bag(tmp_path / f'in/run_{i}', 2, astronaut, seed=i)
    return tmp_path / 'in'


def done_again(tmp_path, capsys):
    """How many bags the last run did, of three."""
    out = capsys.readouterr().out
    return 3 - int(out.partition(' of them by')[0].rpartition(' ')[2] if 'by an' in out else 0)


def test_only_what_is_new_changed_or_missing_is_done(bag, few, tmp_path, astronaut, capsys):
    assert bag('in', 'out') == 0
    assert done_again(tmp_path, capsys) == 3
    assert bag('in', 'out') == 0
    assert done_again(tmp_path, capsys) == 0
    # A copy of the same bag has another time, and is the same.
    os.utime(few / 'run_0/run_0.mcap', (1, 1))
    assert bag('in', 'out') == 0
    assert done_again(tmp_path, capsys) == 0
    shutil.rmtree(few / 'run_1')
    make_bag(few / 'run_1', 2, astronaut, seed=9)
    shutil.rmtree('out/run_2')
    assert bag('in', 'out') == 0
    assert done_again(tmp_path, capsys) == 2
    assert bag('in', 'out', '--score-threshold', '0.4') == 0
    assert done_again(tmp_path, capsys) == 3
    # What only changes the speed does not change a result.
    assert bag('in', 'out', '--score-threshold', '0.4', '--num-threads', '1') == 0
    assert done_again(tmp_path, capsys) == 0
    assert sorted(path.name for path in Path('out').iterdir()) == ['run_0', 'run_1', 'run_2']
    kept = notes_of(Path('out/run_0'))
    assert kept['settings']['decoder']['score_threshold'] == 0.4
    assert kept['counts'] == {'images': 2, 'people': 2, 'broken': 0}
    # A table that is missing is a reason too.
    pytest.importorskip('pyarrow', reason='pip install posenet_ros[parquet]')
    again = ['in', 'out', '--score-threshold', '0.4', '--parquet', 'tables']
    assert bag(*again) == 0
    assert done_again(tmp_path, capsys) == 3
    Path('tables/run_1.parquet').unlink()
    assert bag(*again) == 0
    assert done_again(tmp_path, capsys) == 1


def test_what_lies_in_the_way_is_told_and_kept(bag, few, tmp_path, capsys):
    Path('out').mkdir()
    Path('out/run_1').write_text('mine')
    assert bag('in', 'out') == 1
    assert 'run_1: ' in capsys.readouterr().err
    assert Path('out/run_1').read_text() == 'mine'
    shutil.rmtree('out/run_2')
    Path('out/run_2').mkdir()
    Path('out/run_2/diary.txt').write_text('mine')
    assert bag('in', 'out') == 1
    said = capsys.readouterr()
    assert '1 of 3 bags, 1 of them by an earlier run' in said.out
    assert 'out/run_2 exists already, and is no result of an earlier run' in said.err
    assert Path('out/run_2/diary.txt').read_text() == 'mine'
    assert bag('in', 'in/run_0') == 1
    assert 'in/run_0 is a bag, where the folder of many is needed' in capsys.readouterr().err


def test_results_may_lie_among_the_bags(bag, few, capsys):
    for _ in range(2):
        assert bag('in', 'in/poses') == 0
        assert '3 of 3 bags' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (['--workers', '0'], 'Invalid --workers 0. Should be from 1 to'),
        (['--workers', '2', '--ray'], 'choose one'),
        (['--ray-gpus', '-1'], 'Invalid --ray-gpus -1'),
        (['--model-url', 'nowhere/model.json', '--workers', '2'], 'there is no file nowhere'),
    ],
)
def test_mistakes_end_the_run_once(few, tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    assert main(['bag', 'in', 'out', *arguments]) == 1
    said = capsys.readouterr().err
    assert said.count(named) == 1 and said.startswith('posenet: ')


@pytest.mark.parametrize('workers', [[], ['--workers', '2']])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_end_in_the_middle_loses_the_bags_in_hand(
    start, bag, tmp_path, astronaut, capsys, number, workers
):
    for i in range(12):
        make_bag(tmp_path / f'in/run_{i:02d}', 20, astronaut, seed=i)
    running = start('in', 'out', *workers)
    while running.poll() is None and len(list(tmp_path.glob('out/*/metadata.yaml'))) < 3:
        time.sleep(0.02)
    running.send_signal(number)
    assert running.wait(30) in {2: (130,), 15: (143,), 9: (-9,)}[number]
    assert 'Traceback' not in running.stderr.read()
    finished = {path.parent.name for path in tmp_path.glob('out/run_*/metadata.yaml')}
    assert 3 <= len(finished) < 12
    for name in finished:
        whole = yaml.safe_load((tmp_path / 'out' / name / 'metadata.yaml').read_text())
        assert whole['rosbag2_bagfile_information']['message_count'] == 20
    assert bag('in', 'out') == 0
    said = capsys.readouterr().out
    # The run may have finished one more before it ended.
    before = int(said.partition(' of them by')[0].rpartition(' ')[2])
    assert len(finished) <= before < 12
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        f'run_{i:02d}' for i in range(12)
    ]


def test_run_that_ended_between_two_steps_loses_no_result(bag, few, capsys):
    assert bag('in', 'out') == 0
    before = files_of('out')
    Path('out/run_1.partial').mkdir()
    Path('out/run_1').rename('out/run_1.partial/.before')
    assert bag('in', 'out') == 0
    assert files_of('out') == before
    assert '2 of them by an earlier run' in capsys.readouterr().out
    # One step later: the new result has its name, and the old one is not yet removed.
    Path('out/run_1.partial').mkdir()
    shutil.copytree('out/run_1', 'out/run_1.partial/.before')
    assert bag('in', 'out') == 0
    assert files_of('out') == before and not Path('out/run_1.partial').exists()
    assert '3 of them by an earlier run' in capsys.readouterr().out
    Path('out/run_2/run_2.mcap').unlink()
    assert bag('in', 'out') == 0
    assert files_of('out') == before


def test_nothing_is_written_over_that_is_no_result(bag, few, capsys):
    pytest.importorskip('pyarrow', reason='pip install posenet_ros[parquet]')
    Path('tables').mkdir()
    Path('tables/run_0.parquet').write_text('mine')
    assert bag('in', 'out', '--parquet', 'tables') == 1
    assert 'run_0.parquet exists already, and is no table' in capsys.readouterr().err
    assert Path('tables/run_0.parquet').read_text() == 'mine'
    # A result of this name holds others, or would be one of them.
    assert bag('in', 'out/run_1') == 1
    assert 'out/run_1 is a bag, where the folder of many is needed' in capsys.readouterr().err
    assert bag('in', 'out/run_1/more') == 1
    assert 'would lie in the result' in capsys.readouterr().err
    Path('out/run_1/diary.txt').write_text('mine')
    assert bag('in', 'out', '--parquet', 'tables', '--score-threshold', '0.4') == 1
    assert 'run_1 exists already, and is no result' in capsys.readouterr().err
    assert Path('out/run_1/diary.txt').read_text() == 'mine'


# Object stores.


def test_bags_of_an_object_store_are_read_and_written(bag, few, astronaut, capsys):
    upath = pytest.importorskip('upath', reason='pip install posenet_ros[cloud]')
    store = upath.UPath('memory://robots')
    store.fs.put(str(few), '/robots/in', recursive=True)
    pytest.importorskip('pyarrow', reason='pip install posenet_ros[parquet]')
    urls = ['memory://robots/in', 'memory://robots/out', '--parquet', 'memory://robots/tables']
    assert bag(*urls) == 0
    assert bag('in', 'here', '--parquet', 'tables') == 0
    capsys.readouterr()
    assert bag(*urls) == 0
    assert '3 of 3 bags, 3 of them by an earlier run' in capsys.readouterr().out
    for i in range(3):
        assert messages_of(store / f'out/run_{i}') == messages_of(Path(f'here/run_{i}'))
        table = (store / f'tables/run_{i}.parquet').read_bytes()
        assert table == Path(f'tables/run_{i}.parquet').read_bytes()
    # One bag, and one that has changed.
    assert bag('memory://robots/in/run_1', 'memory://robots/one') == 0
    assert '2 poses in 2 images' in capsys.readouterr().out
    (store / 'in/run_2/run_2.mcap').write_bytes((store / 'in/run_1/run_1.mcap').read_bytes())
    assert bag(*urls) == 0
    assert '2 of them by an earlier run' in capsys.readouterr().out
    # Files of somebody else in the store, and bags of a disk.
    (store / 'mine/run_1/run_7/diary.txt').write_text('mine')
    assert bag('in', 'memory://robots/mine') == 1
    assert 'run_1 exists already' in capsys.readouterr().err
    assert (store / 'mine/run_1/run_7/diary.txt').read_text() == 'mine'
    assert (store / 'mine/run_2/metadata.yaml').exists()


def messages_of(path):
    """The messages of a bag, here or in an object store; its metadata name the files it is of."""
    from rosbags.rosbag2 import Reader

    with local_copy(path) as here, Reader(here) as reader:
        return [(connection.topic, time, data) for connection, time, data in reader.messages()]


@pytest.mark.parametrize('url', ['s4://robots/in', 's3://robots/in'])
def test_store_that_is_not_there_is_an_error(bag, capsys, url, monkeypatch):
    pytest.importorskip('upath', reason='pip install posenet_ros[cloud]')
    if url.startswith('s3'):
        pytest.importorskip('s3fs', reason='pip install s3fs')
        clear_instances()
    monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://127.0.0.1:9')
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'nobody')
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 'nobody')
    monkeypatch.setenv('AWS_MAX_ATTEMPTS', '1')
    assert bag(url, 'out') == 1
    said = capsys.readouterr().err
    assert url in said and 'Traceback' not in said


def test_package_that_a_protocol_needs_is_named(bag, capsys):
    pytest.importorskip('upath', reason='pip install posenet_ros[cloud]')
    if find_spec('gcsfs'):
        pytest.skip('gcsfs is installed')
    assert bag('gs://robots/in', 'out') == 1
    said = capsys.readouterr().err
    assert 'gs://robots/in: ' in said and 'gcsfs' in said and sys.executable in said


@pytest.fixture
def object_store(monkeypatch):
    """An S3 on loopback."""
    pytest.importorskip('s3fs', reason='pip install s3fs')
    server = pytest.importorskip('moto.server', reason='pip install moto[server]')
    running = server.ThreadedMotoServer('127.0.0.1', 0)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in {
        'AWS_ENDPOINT_URL': f'http://{host}:{port}', 'AWS_ACCESS_KEY_ID': 'testing',
        'AWS_SECRET_ACCESS_KEY': 'testing', 'AWS_DEFAULT_REGION': 'us-east-1',
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    clear_instances()
    yield
    requests.post(f'http://{host}:{port}/moto-api/reset', timeout=10)
    running.stop()


def clear_instances():
    """Forgets the connections that fsspec keeps, with the addresses that they were made for."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize('workers', ['--workers=2', '--ray'])
def test_workers_read_and_write_s3(bag, start, few, object_store, request, workers, tmp_path):
    from upath import UPath

    if workers == '--ray':
        workers = f'--ray={request.getfixturevalue("cluster").address}'
    store = UPath('s3://robots')
    store.fs.mkdir('robots')
    store.fs.put(str(few), 'robots/in', recursive=True)
    running = start('s3://robots/**/run_*', 's3://robots/out', workers)
    assert running.wait(300) == 0, running.stderr.read()
    assert bag('in', 'here') == 0
    for i in range(3):
        assert messages_of(store / f'out/in/run_{i}') == messages_of(Path(f'here/run_{i}'))
    running = start('s3://robots/in', 's3://robots/again', '--workers=2', '--topic', TOPIC)
    assert running.wait(300) == 1
    assert f'has no images on {TOPIC}' in running.stderr.read()
