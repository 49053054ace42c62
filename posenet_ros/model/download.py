"""One file over HTTP, within bounds of bytes and of time, whatever the server does.

A server that sends a byte every ten seconds passes every time limit of a single read. So a
download is a process of its own, which the operating system ends when its time is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from posenet_ros.environment import dependencies_for
from posenet_ros.errors import CheckpointError, DependencyError, quoted, reason

SECONDS_TO_ANSWER = 20.0  # for connecting, and between two reads
CHUNK_BYTES = 1 << 16
# The longest that a download takes: this long, and as long as this line takes for its bytes.
START_SECONDS = 60.0
SLOWEST_BYTES_PER_SECOND = 30_000
# Starts without the working directory and the user's variables, and reads where to import from.
CHILD = """
import json, sys
sys.path[:], *request = json.loads(sys.stdin.readline())
from posenet_ros.model.download import main
main(*request)
"""


class UnreachableError(CheckpointError):
    """The server does not answer, breaks off, is too slow, or does not give the file."""


def download(url: str, path: Path, most_bytes: int) -> None:
    """Downloads a file.

    Args:
        url: http or https. From https no redirection leads to http.
        path: to write to.
        most_bytes: that it may have, after decompression.

    Raises:
        UnreachableError: see there.
        CheckpointError: the file is too long, or cannot be written.
        DependencyError: a package is missing.
    """
    with dependencies_for('fetching the weights'):  # looked for, and imported only in the child
        if find_spec('requests') is None:
            raise ModuleNotFoundError("No module named 'requests'", name='requests')
    seconds = START_SECONDS + most_bytes / SLOWEST_BYTES_PER_SECOND
    # Where this package and others were imported from, and not the working directory.
    request = [list(filter(None, sys.path)), url, str(path), most_bytes, seconds]
    with subprocess.Popen(
        [sys.executable, '-I', '-c', CHILD],
        stdin=subprocess.PIPE,  # closes when this process ends, and then the child ends too
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,  # Ctrl-C is for us
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended already: see below
                child.stdin.write(json.dumps(request).encode() + b'\n')
            output = child.stdout.read()
        except BaseException:
            child.kill()
            raise
    if child.returncode == -signal.SIGALRM:
        raise UnreachableError(f'cannot fetch {shown(url)}: it takes longer than {seconds:.0f} s')
    try:
        kind, text = json.loads(output)
    except ValueError as error:
        status = child.returncode
        raise UnreachableError(f'cannot fetch {shown(url)}: status {status}') from error
    if kind == 'missing':
        raise DependencyError(text)
    if kind:
        error_type = UnreachableError if kind == 'unreachable' else CheckpointError
        raise error_type(f'cannot fetch {shown(url)}: {text}')


def shown(url: str) -> str:
    """A URL for messages and records: without the password and the query, which may be secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return quoted(url)
    secret = parts._replace(query='...' if parts.query else '', fragment='')
    return secret._replace(netloc=parts.netloc.rpartition('@')[2]).geturl()


# In the child.


def main(url: str, path: str, most_bytes: int, seconds: float) -> None:
    """Downloads, and prints what kind of error there was and its text; both are empty if none."""
    print(json.dumps(_attempt(url, path, most_bytes, seconds)))


def _attempt(url: str, path: str, most_bytes: int, seconds: float) -> tuple[str, str]:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the node blocks signals, and children inherit
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with dependencies_for('fetching the weights'):
            import requests
    except DependencyError as error:
        return 'missing', str(error)
    try:
        return _download(url, Path(path), most_bytes)
    except requests.HTTPError as error:
        refusal: Any = error.response  # requests' types have it optional
        return 'unreachable', f'{refusal.status_code} {refusal.reason}'
    except requests.RequestException as error:
        return 'unreachable', _innermost_reason(error)
    except Exception as error:  # an address that only urllib3 refuses, a full disk
        return 'refused', f'{type(error).__name__}: {reason(error)}'


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _download(url: str, path: Path, most_bytes: int) -> tuple[str, str]:
    import requests
    from tqdm import tqdm

    secure = url.lower().startswith('https:')
    with requests.get(url, stream=True, timeout=SECONDS_TO_ANSWER) as response:
        response.raise_for_status()
        for hop in (*response.history, response):
            if secure and not hop.url.lower().startswith('https:'):
                return 'refused', f'it leads to {shown(hop.url)}, which is not encrypted'
        # Wrong, missing, or of the compressed file: only for the progress bar.
        length = response.headers.get('Content-Length', '')
        total = int(length) if length.isdecimal() and len(length) < 12 else None
        received = 0
        with (
            path.open('wb') as file,
            tqdm(total=total, unit='B', unit_scale=True, disable=None, desc=path.name) as bar,
        ):
            for chunk in response.iter_content(CHUNK_BYTES):
                received += len(chunk)
                if received > most_bytes:
                    return 'refused', f'it has more than the {most_bytes} bytes that it should have'
                file.write(chunk)
                bar.update(len(chunk))
    return '', ''


def _innermost_reason(error: BaseException) -> str:
    """The innermost cause in words: requests wraps urllib3, which wraps the socket's error."""
    while True:
        inner = getattr(error, 'reason', None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            return str(error).split(': ', 1)[-1] or type(error).__name__
        error = inner
