import pytest


@pytest.fixture
def cluster():
    """A Ray cluster with two nodes of a CPU each, beside one that works on nothing."""
    pytest.importorskip('ray', reason='pip install posenet_ros[ray]')
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 0})
    cluster.workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
    yield cluster
    cluster.shutdown()
