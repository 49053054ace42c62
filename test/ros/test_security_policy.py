"""The policy for SROS2 allows what the nodes use and no more; this needs no keys.

What it does with keys is tested in security/, with a Fast DDS that has security.
"""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from goldens import ROOT
from posenet_ros.msg import PoseArray3D
from ros_processes import wait_until
from sensor_msgs.msg import Image

pytestmark = pytest.mark.slow

POLICY = ROOT / 'config/security.policy.xml'
# What a rule allows: the elements that have it, and its attribute.
RULES = {
    'subscriber': ('topic', 'subscribe'),
    'publisher': ('topic', 'publish'),
    'service': ('service', 'reply'),
    'client': ('service', 'request'),
}

Names = dict[str, set[str]]


def allowed(enclave: str) -> Names:
    """What the policy allows an enclave's node, with full names."""
    profile = ElementTree.parse(POLICY).find(f'.//enclave[@path="{enclave}"]/profiles/profile')
    assert profile is not None
    namespace = profile.get('ns', '').rstrip('/')
    own = f'{namespace}/{profile.get("node")}'

    def resolved(name: str) -> str:
        if name.startswith('~'):
            return own + name[1:]
        return name if name.startswith('/') else f'{namespace}/{name}'

    return {
        what: {
            resolved(element.text or '')
            for group in profile.findall(f'{kind}s[@{attribute}="ALLOW"]')
            for element in group.findall(kind)
        }
        for what, (kind, attribute) in RULES.items()
    }


def graph_of(peer, node: str, until: str) -> Names:
    """What a node's graph shows once a topic is in it and nothing has been added for 2 s."""

    def used() -> Names:
        if node not in peer.get_node_names():
            return {}
        return {
            what: {
                name for name, _ in getattr(peer, f'get_{what}_names_and_types_by_node')(node, '/')
            }
            for what in RULES
        }

    assert peer.spin_until(lambda: until in set().union(*used().values())), used()
    found: Names = {}
    while (now := used()) != found:
        found = now
        peer.spin_for(2)
    return found


def test_policy_allows_the_node_what_it_uses_and_no_more(start_node, peer):
    peer.collect(PoseArray3D, '/posenet_node/poses_3d')  # a lazy node reads for a listener
    found = []
    for transport, depth, topic in (
        ('raw', 'raw', '/depth/image_rect_raw'),
        ('compressed', 'compressedDepth', '/depth/image_rect_raw/compressedDepth'),
    ):
        node = start_node(
            image_transport=transport, lift='depth', depth_transport=depth, use_sim_time=True
        )
        found.append(graph_of(peer, 'posenet_node', until=topic))
        node.stop()
    assert {what: found[0][what] | found[1][what] for what in RULES} == allowed('/posenet_node')


def test_policy_allows_the_camera_what_it_uses_and_no_more(start, peer):
    folder = ROOT / 'config/depth_demo'
    parameters = (
        f'source:={folder}/colour', f'depth_source:={folder}/depth', 'compressed:=true',
        'use_sim_time:=true',
    )  # fmt: skip
    start('image_source', '--ros-args', *(part for p in parameters for part in ('-p', p)))
    found = graph_of(peer, 'image_source', until='/image_raw/compressed')
    assert found == allowed('/camera')


def test_policy_lets_others_reach_what_the_node_has_and_not_its_images():
    node, viewer, operator = map(allowed, ('/posenet_node', '/viewer', '/operator'))
    assert {name for name in node['publisher'] if '/posenet_node/' in name} == {
        name for who in (viewer, operator) for name in who['subscriber'] if '/posenet_node/' in name
    }
    assert operator['client'] <= node['service'] and not viewer['client']
    assert not (viewer['publisher'] | operator['publisher']) & node['subscriber']


@pytest.mark.parametrize('executable', ['posenet_node', 'image_source'])
@pytest.mark.parametrize(
    ('keystore', 'said'),
    [
        ('', 'ROS_SECURITY_ENABLE is true, but ROS_SECURITY_KEYSTORE names no keystore'),
        ('{}', "directory '{}/enclaves/nobody' does not exist"),
    ],
)
def test_without_keys_nothing_starts_and_one_sentence_says_why(
    start, tmp_path, executable, keystore, said
):
    environment = {
        'ROS_SECURITY_ENABLE': 'true',
        'ROS_SECURITY_STRATEGY': 'Enforce',
        'ROS_SECURITY_KEYSTORE': keystore.format(tmp_path),
    }
    process = start(executable, '--ros-args', '--enclave', '/nobody', environment=environment)
    assert wait_until(lambda: not process.running())
    assert process.stop() == 1
    assert said.format(tmp_path) in process.output
    assert len(process.output.splitlines()) == 1


def test_missing_images_may_be_for_want_of_keys(start_node, peer, tmp_path):
    peer.create_publisher(Image, '/image_raw', 1)
    # Without Enforce, a process that has no keys runs openly.
    environment = {'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_KEYSTORE': str(tmp_path)}
    node = start_node(image_timeout=1.0, lazy=False, environment=environment)
    node.wait_for(f'but no image comes; SROS2 is on: do the keys of --enclave in {tmp_path} allow')
