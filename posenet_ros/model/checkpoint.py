"""Finds the weights: a given file or URL, our cache, the official bucket, or npm.

A checkpoint is a tfjs graph model: model-strideN.json and the weight shards beside it. It is
downloaded into a temporary folder, checked, and renamed into the cache in one step. So a cache
entry is always complete, even if a download fails or another process downloads the same files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from posenet_ros.cache import posenet_home
from posenet_ros.config import ModelConfig
from posenet_ros.environment import dependencies_for, expanded
from posenet_ros.errors import CheckpointError, GraphError
from posenet_ros.model.tfjs_graph import check_shards, read_topology

# pooch and requests take 70 ms and 15 MB: imported only where something is fetched.
if TYPE_CHECKING:
    import requests

BUCKET = 'https://storage.googleapis.com/tfjs-models/savedmodel/posenet'
TIMEOUT_SECONDS = 20.0
NPM_TIMEOUT_SECONDS = 300.0

# An npm package that ships the bucket's own files of the default model (Apache-2.0).
NPM_PACKAGE = '@kubohiroya/turbowarp-tmpose@1.12.0'
# The node blocks SIGINT and SIGTERM in all its threads; children inherit that, and npm must not.
RUN_UNBLOCKED = (
    'import os, signal, sys; signal.pthread_sigmask(signal.SIG_SETMASK, ()); '
    'os.execv(sys.argv[1], sys.argv[1:])'
)
NPM_FOLDER = 'package/dist/posenet/mobilenet-v1-075-stride16'

# SHA-256 of the official files that we know, by folder and name below the bucket's address.
KNOWN_SHA256 = {
    'mobilenet/float/075/model-stride16.json': (
        'dd63bf2d3b983e8c80020749f135164beda00a33374c8a7be230b9598f24f798'
    ),
    'mobilenet/float/075/group1-shard1of2.bin': (
        'ce6afc62f89782d43139fab76c641b281a82dee2cd2759aa036c4b28aea16439'
    ),
    'mobilenet/float/075/group1-shard2of2.bin': (
        '2a35b8cfb86eb50928931e03dc30c0972fdd375f148b177ee40676b81a17692d'
    ),
    'mobilenet/quant2/050/model-stride16.json': (
        '5c20d9a02bef5d735e6ae5c631da294701197312412154f532d2b81fe506af5b'
    ),
    'mobilenet/quant2/050/group1-shard1of1.bin': (
        'ad074e69cd58ec5a5efb209b2ee7061689ab4e1e07c39b13671fe59a6edfb9d3'
    ),
}

CHECKSUMS = 'SHA256SUMS.json'
ORIGIN = 'ORIGIN.txt'
TEMPORARY = '.fetching-'
ABANDONED_SECONDS = 3600.0

_logger = logging.getLogger('posenet_ros')


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, complete and checked."""

    graph_path: Path  # model-strideN.json; the shards lie beside it
    sha256: str  # of the graph and its shards, in the manifest's order
    source: str  # where it came from, to be shown


def official_url(config: ModelConfig) -> str:
    """Where the reference loads a model from. Source: posenet 2.2.2, checkpoints.ts."""
    return f'{BUCKET}/{_official_folder(config)}/{_graph_name(config)}'


def fetch_checkpoint(config: ModelConfig, force: bool = False) -> Checkpoint:
    """Finds the weights of a model, downloading them if they are not in the cache.

    A model_url that is a file or a folder is read in place. If the official bucket cannot be
    reached, the default model is downloaded from npm.

    Args:
        config: which model.
        force: download again what the cache has.

    Raises:
        CheckpointError: the files are missing, unreachable, incomplete or have the wrong SHA-256.
            The cache is unchanged then.
    """
    try:
        local = _local_path(config)
        if local is not None:
            return _checkpoint(local, str(local))
        url = _graph_url(config)
        entry = posenet_home() / 'checkpoints' / _cache_name(config, url)
        if force or not entry.exists():
            with _new_entry(entry) as folder, dependencies_for('fetching the weights'):
                _download(config, url, folder)
        _verify_entry(config, entry)
        origin = entry / ORIGIN
        source = origin.read_text().strip() if origin.is_file() else url
        return _checkpoint(entry / _url_name(url), source)
    except OSError as error:  # e.g. a full disk or an unreadable folder
        name = f' {error.filename}' if error.filename else ''
        raise CheckpointError(f'cannot read or write{name}: {error.strerror or error}') from error


# Names and places.


def _official_folder(config: ModelConfig) -> str:
    weights = 'float' if config.quant_bytes == 4 else f'quant{config.quant_bytes}'
    if config.architecture == 'ResNet50':
        return f'resnet50/{weights}'
    return f'mobilenet/{weights}/{round(100 * config.multiplier):03d}'


def _graph_name(config: ModelConfig) -> str:
    return f'model-stride{config.output_stride}.json'


def _local_path(config: ModelConfig) -> Path | None:
    url = config.model_url
    if url is None or urlsplit(url).scheme in ('http', 'https'):  # urlsplit gives it in lower case
        return None
    if urlsplit(url).scheme == 'file':
        path = Path(unquote(urlsplit(url).path))
    elif '://' in url:
        raise CheckpointError(
            f'model_url {url} has the scheme {url.split("://")[0]}; it should be a path, or a '
            'file://, http:// or https:// URL'
        )
    else:
        path = expanded(url)
    if path.is_dir():
        path /= _graph_name(config)
    if not path.is_file():
        raise CheckpointError(f'model_url {url}: there is no file {path}')
    return path


def _graph_url(config: ModelConfig) -> str:
    if config.model_url is None:
        return official_url(config)
    url = urlsplit(config.model_url)
    if url.path.endswith('.json'):
        return config.model_url
    return url._replace(path=f'{url.path.rstrip("/")}/{_graph_name(config)}').geturl()


def _url_name(url: str) -> str:
    return unquote(urlsplit(url).path).rsplit('/', 1)[-1]


def _cache_name(config: ModelConfig, url: str) -> str:
    if config.model_url is None:
        return f'{_official_folder(config)}/stride{config.output_stride}'.replace('/', '-')
    return f'url-{hashlib.sha256(url.encode()).hexdigest()[:16]}'


# Fetching.


@contextlib.contextmanager
def _new_entry(entry: Path) -> Iterator[Path]:
    """A temporary folder that becomes the cache entry when the block succeeds."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=entry.parent))
    except OSError as error:
        raise CheckpointError(
            f'cannot write to the cache {entry.parent}: {error.strerror}; '
            'set POSENET_HOME to a folder that can be written'
        ) from error
    try:
        _remove_abandoned(entry.parent)
        yield folder
        if _same_contents(folder, entry):
            return  # unchanged, and another process may be reading it
        # Another process may do the same at the same time; its entry is as good as ours.
        with contextlib.suppress(OSError):
            entry.rename(folder.with_name(folder.name + '-old'))
        with contextlib.suppress(OSError):
            folder.rename(entry)
        if not entry.is_dir():
            raise CheckpointError(f'cannot write {entry}')
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_name(folder.name + '-old'), ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Removes temporary folders of processes that were killed during a download."""
    for folder in parent.glob(f'{TEMPORARY}*'):
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _same_contents(folder: Path, entry: Path) -> bool:
    try:
        return all(_sha256(path) == _sha256(entry / path.name) for path in folder.iterdir())
    except OSError:
        return False


def _download(config: ModelConfig, url: str, folder: Path) -> None:
    import requests

    try:
        _download_http(config, url, folder)
    except CheckpointError as error:
        # Only the default model has a second source. It is used only if the first is unreachable: a
        # wrong checksum is an error.
        unreachable = isinstance(error.__cause__, requests.RequestException)
        if not unreachable or url != official_url(ModelConfig()):
            raise
        _logger.warning('%s; getting the same files from npm, %s', error, NPM_PACKAGE)
        try:
            _download_npm(folder)
        except CheckpointError as npm_error:
            raise CheckpointError(f'{error}; and from npm: {npm_error}') from error


def _download_http(config: ModelConfig, url: str, folder: Path) -> None:
    import pooch
    import requests

    pooch.get_logger().setLevel('WARNING')
    address, _, query = url.partition('?')
    base, query = address.rsplit('/', 1)[0], f'?{query}' if query else ''
    known = KNOWN_SHA256 if config.model_url is None else {}
    name = _url_name(url)
    sums = {}
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), chunk_size=1 << 16, timeout=TIMEOUT_SECONDS
    )

    def get(name: str, address: str) -> None:
        expected = known.get(f'{_official_folder(config)}/{name}')
        try:
            pooch.retrieve(address, expected, name, folder, downloader=downloader)
        except requests.HTTPError as error:
            raise CheckpointError(f'cannot fetch {address}: {error}') from error
        except requests.RequestException as error:
            raise CheckpointError(f'cannot fetch {address}: {_reason(error)}') from error
        except ValueError as error:
            raise CheckpointError(
                f'{address} is not the file that it should be: its SHA-256 is not {expected}'
            ) from error
        sums[name] = _sha256(folder / name)

    get(name, url)
    try:
        topology = read_topology(folder / name)
        for shard in topology.shards:
            get(shard, f'{base}/{shard}{query}')
        check_shards(topology, folder)
    except GraphError as error:
        raise CheckpointError(f'{url} cannot be used: {error}') from error
    _write_record(folder, sums, url)


def _download_npm(folder: Path) -> None:
    npm = shutil.which('npm')
    if npm is None:
        raise CheckpointError(f'there is no npm client to get {NPM_PACKAGE} with')
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, 'pack', '--loglevel=error', '--ignore-scripts', NPM_PACKAGE]
        try:
            subprocess.run(
                [sys.executable, '-c', RUN_UNBLOCKED, *command],
                cwd=scratch,
                check=True,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=NPM_TIMEOUT_SECONDS,
            )
        except subprocess.CalledProcessError as error:
            lines = [line for line in error.stderr.splitlines() if 'log of this run' not in line]
            reason = next((line for line in lines if line.strip()), f'status {error.returncode}')
            raise CheckpointError(f'npm cannot get {NPM_PACKAGE}: {reason}') from error
        except subprocess.TimeoutExpired as error:
            raise CheckpointError(f'npm took over {error.timeout} s for {NPM_PACKAGE}') from error
        official = _official_folder(ModelConfig())
        sums = {
            path.rsplit('/', 1)[1]: digest
            for path, digest in KNOWN_SHA256.items()
            if path.startswith(official)
        }
        try:
            (archive,) = Path(scratch).glob('*.tgz')
            with tarfile.open(archive) as tar:
                for name in sums:
                    member = tar.extractfile(f'{NPM_FOLDER}/{name}')
                    if member is None:
                        raise KeyError(f'{NPM_FOLDER}/{name} is not a file')
                    (folder / name).write_bytes(member.read())
        except (KeyError, ValueError, EOFError, OSError, zlib.error, tarfile.TarError) as error:
            raise CheckpointError(f'{NPM_PACKAGE} is not what it should be: {error}') from error
    for name, expected in sums.items():
        if _sha256(folder / name) != expected:
            raise CheckpointError(f'{name} of {NPM_PACKAGE} does not have SHA-256 {expected}')
    _write_record(folder, sums, f'npm {NPM_PACKAGE}')


def _reason(error: requests.RequestException) -> str:
    """The innermost cause in words: requests wraps urllib3, which wraps the socket's error."""
    cause: BaseException = error
    while True:
        inner = getattr(cause, 'reason', None) or (cause.args[0] if cause.args else None)
        if not isinstance(inner, BaseException):
            return str(cause).split(': ', 1)[-1] or type(cause).__name__
        cause = inner


# Checking.


def _write_record(folder: Path, sums: dict[str, str], origin: str) -> None:
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2) + '\n')
    (folder / ORIGIN).write_text(origin + '\n')


def _verify_entry(config: ModelConfig, entry: Path) -> None:
    advice = 'to fetch it again, run `posenet fetch --force` or delete the folder'
    try:
        sums = json.loads((entry / CHECKSUMS).read_text())
        if config.model_url is None:
            # The checksums known here take precedence over those stored beside the files.
            official = f'{_official_folder(config)}/'
            pins = {name: KNOWN_SHA256.get(official + name) for name in sums}
            sums.update({name: digest for name, digest in pins.items() if digest})
        topology = read_topology(entry / _graph_name_in(sums))
        missing = set(topology.shards) - set(sums)
        wrong = [name for name, digest in sums.items() if _sha256(entry / name) != digest]
    except (OSError, ValueError, AttributeError, GraphError) as error:
        raise CheckpointError(
            f'the cached checkpoint {entry} is damaged ({error}); {advice}'
        ) from error
    if missing or wrong:
        raise CheckpointError(
            f'{", ".join([*wrong, *missing])} in the cached checkpoint {entry} changed since it '
            f'was fetched; {advice}'
        )


def _graph_name_in(sums: dict[str, str]) -> str:
    (name,) = (name for name in sums if name.endswith('.json'))
    return name


def _checkpoint(graph_path: Path, source: str) -> Checkpoint:
    try:
        topology = read_topology(graph_path)
        check_shards(topology, graph_path.parent)
    except GraphError as error:
        raise CheckpointError(str(error)) from error
    paths = [graph_path, *(graph_path.parent / shard for shard in topology.shards)]
    return Checkpoint(graph_path, _sha256(*paths), source)


def _sha256(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open('rb') as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
