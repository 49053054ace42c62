"""The posenet command. One file for each subcommand: its arguments, and what it does."""

from __future__ import annotations

import argparse
import contextlib
import io
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
    frames,
    selftest,
)
from posenet_ros.commands.outputs import tell
from posenet_ros.errors import PoseNetError
from posenet_ros.version import __version__

EXIT_STATUSES = """exit status:
  0    everything was done
  1    an error, or something could not be used: stderr says what; the rest is complete
  2    the command line is wrong
  129, 130, 143  ended by SIGHUP, Ctrl-C, SIGTERM; what was finished is in NAME.partial.*

each command has its own help and examples: posenet estimate --help"""
SUBCOMMANDS = (estimate, bag, frames, evaluate, compare, build_engine, selftest, export, fetch)


class HelpFormatter(argparse.HelpFormatter):
    """Wraps descriptions, and leaves the lines of examples and tables as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if '\n' in text:
            return '\n'.join(indent + line for line in text.splitlines())
        return super()._fill_text(text, width, indent)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit status, as EXIT_STATUSES has them."""
    parser = _parser()
    with contextlib.suppress(ImportError):  # optional: completion in the shell
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # names of files may be no text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    if threading.current_thread() is threading.main_thread():
        # SystemExit instead of an immediate end, so that half-written files are dealt with.
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        options.run(options)
    except PoseNetError as error:
        tell(f'posenet: {error}')
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (e.g. `head`) closed the pipe. Without this, Python prints an
        # error at exit.
        sys.stdout = None
        if getattr(options, 'draw', None) is not None:
            tell(f'posenet: standard output was closed, and {options.draw} is not finished')
            return 1
        return 0
    except OSError as error:
        # A file or a folder of the system: the working directory was removed, a disk is gone.
        name = f'{error.filename}: ' if error.filename else ''
        tell(f'posenet: {name}{error.strerror or error}')
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='posenet',
        description='2D human poses with PoseNet.',
        epilog=EXIT_STATUSES,
        formatter_class=HelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'posenet_ros {__version__}')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for subcommand in SUBCOMMANDS:
        subcommand.add_parser(commands)
    for subcommand, own in zip(SUBCOMMANDS, commands.choices.values(), strict=True):
        own.epilog, own.formatter_class = subcommand.EXAMPLES, HelpFormatter
    return parser
