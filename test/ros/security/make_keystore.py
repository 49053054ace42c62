"""Creates an SROS2 keystore, as `ros2 security create_keystore` and `generate_artifacts` do.

Usage: python make_keystore.py KEYSTORE POLICY

By sros2's own functions: the `ros2` command has no wheel. ROS_DOMAIN_ID is part of the permissions,
which hold in that domain alone.
"""

import sys
import warnings
from pathlib import Path

# sros2 0.15 reads the validity of certificates in a way that cryptography 42 deprecates.
warnings.filterwarnings('ignore', message='Properties that return a na')

from sros2.api._artifact_generation import generate_artifacts  # noqa: E402
from sros2.keystore import create_keystore  # noqa: E402

if __name__ == '__main__':
    keystore, policy = map(Path, sys.argv[1:])
    create_keystore(keystore)
    generate_artifacts(keystore, [], [policy])
