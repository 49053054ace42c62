"""What the workers of a Ray cluster say; that they give the same bytes: test_many_bags.py."""

import logging

import pytest

from posenet_ros import ModelConfig, PoseNetError
from posenet_ros.recordings.estimation import look_at_part
from posenet_ros.recordings.job import BagJob, BagSettings
from posenet_ros.recordings.workers import ModelFailed

pytest.importorskip('ray', reason='pip install posenet_ros[ray]')
pytest.importorskip('rosbags', reason='the package rosbags is not installed')

from posenet_ros.io.bag_file import Part
from posenet_ros.recordings.ray_cluster import RayWorkers

pytestmark = pytest.mark.slow


@pytest.fixture
def connect(cluster):
    """Workers on the cluster, which are closed after the test."""
    connected = []

    def workers(*needs):
        connected.append(RayWorkers(cluster.address, *needs))
        return connected[-1]

    yield workers
    for one in connected:
        one.close()


def part_of(path, model):
    job = BagJob('run', path, path.with_name('out'), None, BagSettings(model))
    return look_at_part, (job, Part(0, 0, 1))


def test_errors_are_those_of_the_task(connect, tmp_path, default_model_config):
    workers = connect(1, None, False)
    assert workers.size == 2
    missing = workers.submit(part_of(tmp_path / 'run', default_model_config)).exception(60)
    assert type(missing) is PoseNetError and 'Traceback' not in str(missing)
    assert str(tmp_path / 'run') in str(missing)
    nowhere = ModelConfig(model_url='/nowhere/model.json')
    failed = workers.submit(part_of(tmp_path / 'run', nowhere)).exception(60)
    assert type(failed) is ModelFailed and '/nowhere/model.json' in str(failed)


def test_needs_that_no_node_meets_are_told(connect, caplog):
    with caplog.at_level(logging.WARNING, 'posenet_ros'):
        connect(2, 0.5, False)
    assert 'no node of the cluster has 2 CPUs and 0.5 GPUs, which each worker needs' in caplog.text


def test_cluster_that_is_not_there_is_named():
    with pytest.raises(PoseNetError, match='cannot reach the Ray cluster nowhere') as raised:
        RayWorkers('nowhere', 1, None, False)
    assert 'Traceback' not in str(raised.value)
