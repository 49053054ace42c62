"""Our Fast DDS profiles: for large images, and never overriding the user's choice."""

import os
import socket
import time
from xml.etree import ElementTree

import pytest
from goldens import ROOT

from posenet_ros.ros.fastdds import profile_environment, this_machine_alone

pytestmark = pytest.mark.slow

CONFIG = ROOT / 'config'


def test_profile_is_chosen_by_the_distribution():
    for distro, name in (('humble', 'FASTRTPS'), ('jazzy', 'FASTRTPS'), ('kilted', 'FASTDDS')):
        chosen, left_out = profile_environment({'ROS_DISTRO': distro}, ROOT)
        assert chosen == {f'{name}_DEFAULT_PROFILES_FILE': str(CONFIG / 'fastdds_node.xml')}
        assert left_out == ''


@pytest.mark.parametrize(
    'variable',
    [
        'FASTDDS_DEFAULT_PROFILES_FILE=/mine.xml',
        'FASTRTPS_DEFAULT_PROFILES_FILE=/mine.xml',
        'FASTDDS_BUILTIN_TRANSPORTS=UDPv4',
        'ROS_DISCOVERY_SERVER=127.0.0.1:11811',
        'RMW_IMPLEMENTATION=rmw_cyclonedds_cpp',
    ],
)
def test_users_choice_is_kept_and_named(variable):
    name, value = variable.split('=')
    chosen, left_out = profile_environment({'ROS_DISTRO': 'kilted', name: value}, ROOT)
    assert chosen == {}
    assert variable in left_out


@pytest.mark.parametrize('distro', ['humble', 'kilted'])
def test_ros_that_stays_on_this_machine_gets_a_profile_that_does(distro):
    environment = {'ROS_DISTRO': distro}
    environment |= this_machine_alone(environment)
    for profile in ('fastdds.xml', 'fastdds_node.xml'):
        ((_, path),) = profile_environment(environment, ROOT, profile)[0].items()
        assert path == str(CONFIG / profile.replace('.xml', '_localhost.xml'))


@pytest.mark.parametrize('profile', ['fastdds', 'fastdds_node'])
def test_the_profiles_for_one_machine_differ_in_that_alone(profile):
    def described(name):
        text = (CONFIG / f'{name}.xml').read_text()
        root = ElementTree.fromstring(text)
        return [
            (element.tag.split('}')[-1], (element.text or '').strip()) for element in root.iter()
        ]

    everywhere, here = described(profile), described(f'{profile}_localhost')
    for extra in (('interfaceWhiteList', ''), ('address', '127.0.0.1')):
        assert extra not in everywhere
        here.remove(extra)
    assert everywhere == here


def announcements(seconds):
    """DDS packets of these tests' domain that leave this machine."""
    first_port = 7400 + 250 * int(os.environ['ROS_DOMAIN_ID'])
    try:
        listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
    except PermissionError:
        pytest.skip('to listen to what leaves the machine takes root')
    with listener:
        listener.settimeout(0.2)
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                packet, (interface, _, kind, *_) = listener.recvfrom(65535)
            except TimeoutError:
                continue
            udp = packet[12:14] == b'\x08\x00' and packet[23] == socket.IPPROTO_UDP
            if not udp or kind != socket.PACKET_OUTGOING or interface == 'lo':
                continue
            header = 14 + (packet[14] & 15) * 4
            port = int.from_bytes(packet[header + 2 : header + 4], 'big')
            ours = first_port <= port < first_port + 250
            count += ours and packet[header + 8 : header + 12] == b'RTPS'
        return count


@pytest.mark.parametrize(('localhost', 'leaves'), [('_localhost', False), ('', True)])
def test_localhost_profiles_send_nothing_to_other_machines(start_node, localhost, leaves):
    interfaces = [name for _, name in socket.if_nameindex()]
    if not any(name.startswith(('eth', 'en', 'wl')) for name in interfaces):
        pytest.skip('this machine has no network to send to')
    start_node(
        environment={
            'ROS_LOCALHOST_ONLY': '1',
            'ROS_AUTOMATIC_DISCOVERY_RANGE': '',
            'FASTDDS_DEFAULT_PROFILES_FILE': str(CONFIG / f'fastdds_node{localhost}.xml'),
            'FASTRTPS_DEFAULT_PROFILES_FILE': str(CONFIG / f'fastdds_node{localhost}.xml'),
        }
    )
    assert (announcements(4) > 0) == leaves
