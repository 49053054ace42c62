"""The Fast DDS profiles that large images need between processes, for launch files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FAST_DDS_2_DISTRIBUTIONS = ('humble', 'iron', 'jazzy')
PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE')
# If one of these is set, the user has chosen the transports: our profile would override that.
TRANSPORT_VARIABLES = ('FASTDDS_BUILTIN_TRANSPORTS', 'ROS_DISCOVERY_SERVER')


def profile_environment(
    environment: Mapping[str, str], share: Path, profile: str = 'fastdds_node.xml'
) -> tuple[dict[str, str], str]:
    """The environment variable that applies our profile, unless the user has chosen otherwise.

    Args:
        environment: of the launch; ROS_DISTRO says which name Fast DDS reads.
        share: this package's share folder.
        profile: fastdds_node.xml for the node, fastdds.xml for processes that send images.

    Returns:
        The variable to set; or none, and the reason.
    """
    for name in (*PROFILE_VARIABLES, *TRANSPORT_VARIABLES):
        if environment.get(name):
            return {}, f'{name}={environment[name]} is set'
    middleware = environment.get('RMW_IMPLEMENTATION') or 'rmw_fastrtps_cpp'
    if 'fastrtps' not in middleware:
        return {}, f'RMW_IMPLEMENTATION={middleware} is not Fast DDS'
    if stays_on_this_machine(environment):
        # A profile's transports are added to the local ones, so they must be local as well.
        profile = profile.replace('.xml', '_localhost.xml')
    fast_dds_2 = environment.get('ROS_DISTRO') in FAST_DDS_2_DISTRIBUTIONS
    name = PROFILE_VARIABLES[fast_dds_2]
    return {name: str(share / 'config' / profile)}, ''


def this_machine_alone(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variable that keeps ROS on this machine: for demos, tests, benchmarks."""
    if environment.get('ROS_DISTRO') == 'humble':
        return {'ROS_LOCALHOST_ONLY': '1'}
    return {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}


def stays_on_this_machine(environment: Mapping[str, str]) -> bool:
    """Whether the user keeps ROS to this machine, in Humble's way or in the newer one."""
    return (
        environment.get('ROS_LOCALHOST_ONLY') == '1'
        or environment.get('ROS_AUTOMATIC_DISCOVERY_RANGE', '').upper() == 'LOCALHOST'
    )
