"""Runs the command as python -m posenet_ros.commands."""

import sys

from posenet_ros.commands import main

sys.exit(main())
