"""SROS2: what follows the sentence of an error, if missing keys may be its reason."""

from __future__ import annotations

import os
from collections.abc import Mapping


def keystore_advice(environment: Mapping[str, str] = os.environ) -> str:
    """Whether SROS2 is on and has no keystore, of which rcl says `error not set`."""
    if _enabled(environment) and not environment.get('ROS_SECURITY_KEYSTORE'):
        return '; ROS_SECURITY_ENABLE is true, but ROS_SECURITY_KEYSTORE names no keystore'
    return ''


def keys_advice(environment: Mapping[str, str] = os.environ) -> str:
    """Where to look if SROS2 is on and something fails that needs keys."""
    keystore = environment.get('ROS_SECURITY_KEYSTORE')
    if _enabled(environment) and keystore:
        return f'; SROS2 is on: do the keys of --enclave in {keystore} allow it (doc/security.md)?'
    return ''


def _enabled(environment: Mapping[str, str]) -> bool:
    return environment.get('ROS_SECURITY_ENABLE') == 'true'  # as rcl has it: not 1, not True
