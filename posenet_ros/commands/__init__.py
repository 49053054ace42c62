"""The posenet command. One file for each subcommand: its arguments, and what it does."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence

from posenet_ros.commands import (
    bag,
    build_engine,
    compare,
    estimate,
    evaluate,
    export,
    fetch,
    selftest,
)
from posenet_ros.errors import PoseNetError
from posenet_ros.version import __version__

SUBCOMMANDS = (estimate, bag, evaluate, compare, build_engine, selftest, export, fetch)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status: 0, 1 after an error, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    if threading.current_thread() is threading.main_thread():
        # SystemExit instead of an immediate end, so that half-written files are removed.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        options.run(options)
    except PoseNetError as error:
        print(f'posenet: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (e.g. `head`) closed the pipe. Without this, Python prints an
        # error at exit.
        sys.stdout = None
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='posenet', description='2D human poses with PoseNet.')
    parser.add_argument('--version', action='version', version=f'posenet_ros {__version__}')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for subcommand in SUBCOMMANDS:
        subcommand.add_parser(commands)
    return parser
