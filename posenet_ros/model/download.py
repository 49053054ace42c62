"""One file over HTTP, within bounds of bytes and of time, whatever the server does.

A server that sends a byte every ten seconds passes every time limit of a single read. So a
download is a process of its own, which the operating system ends when its time is over.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from posenet_ros.environment import dependencies_for
from posenet_ros.errors import CheckpointError, DependencyError, reason

SECONDS_TO_ANSWER = 20.0  # for connecting, and between two reads
CHUNK_BYTES = 1 << 16
# The longest that a download takes: this long, and as long as this line takes for its bytes.
START_SECONDS = 60.0
SLOWEST_BYTES_PER_SECOND = 30_000


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
    seconds = START_SECONDS + most_bytes / SLOWEST_BYTES_PER_SECOND
    with subprocess.Popen(
        [sys.executable, '-m', __name__, url, str(path), str(most_bytes), str(seconds)],
        # The package may have been imported from anywhere.
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,  # closes when this process ends, and then the child ends too
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us
    ) as child:
        assert child.stdout is not None
        try:
            output = child.stdout.read()
        except BaseException:
            child.kill()
            raise
    if child.returncode == -signal.SIGALRM:
        raise UnreachableError(f'cannot fetch {url}: it takes longer than {seconds:.0f} s')
    try:
        kind, text = json.loads(output)
    except ValueError as error:
        raise UnreachableError(f'cannot fetch {url}: status {child.returncode}') from error
    if kind == 'missing':
        raise DependencyError(text)
    if kind:
        error_type = UnreachableError if kind == 'unreachable' else CheckpointError
        raise error_type(f'cannot fetch {url}: {text}')


# In the child.


def _main(url: str, path: str, most_bytes: int, seconds: float) -> tuple[str, str]:
    """What kind of error there was, and its text; both empty if none."""
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
        if secure and not response.url.startswith('https:'):
            return 'refused', f'it leads to {response.url}, which is not encrypted'
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


if __name__ == '__main__':
    print(json.dumps(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
