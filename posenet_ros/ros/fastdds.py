"""The Fast DDS profiles that large images need between processes, for launch files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FAST_DDS_2_DISTRIBUTIONS = ('humble', 'iron', 'jazzy')


def profile_environment(
    environment: Mapping[str, str], share: Path, profile: str = 'fastdds_node.xml'
) -> dict[str, str]:
    """The variable that applies a profile of ours, where the user has not chosen one.

    Args:
        environment: of the launch; ROS_DISTRO says which name Fast DDS reads.
        share: this package's share folder.
        profile: fastdds_node.xml for the node, fastdds.xml for what sends images.
    """
    fast_dds_2 = environment.get('ROS_DISTRO') in FAST_DDS_2_DISTRIBUTIONS
    name = f'{"FASTRTPS" if fast_dds_2 else "FASTDDS"}_DEFAULT_PROFILES_FILE'
    return {} if name in environment else {name: str(share / 'config' / profile)}
