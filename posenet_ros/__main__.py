"""Runs the command as python -m posenet_ros."""

import sys

from posenet_ros.environment import run_here


def main() -> int:
    from posenet_ros.commands import main

    return main()


sys.exit(run_here('posenet', main))
