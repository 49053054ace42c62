"""The Fast DDS profile that large images need between processes, for launch files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

FAST_DDS_2_DISTRIBUTIONS = ('humble', 'iron', 'jazzy')


def profile_environment(environment: Mapping[str, str], share: Path) -> dict[str, str]:
    """The variable that applies config/fastdds.xml, where the user has not chosen a profile.

    Args:
        environment: of the launch; ROS_DISTRO says which name Fast DDS reads.
        share: this package's share folder.
    """
    fast_dds_2 = environment.get('ROS_DISTRO') in FAST_DDS_2_DISTRIBUTIONS
    name = f'{"FASTRTPS" if fast_dds_2 else "FASTDDS"}_DEFAULT_PROFILES_FILE'
    return {} if name in environment else {name: str(share / 'config/fastdds.xml')}
