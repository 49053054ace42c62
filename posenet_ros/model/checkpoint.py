"""Finds the weights: a given file or URL, our cache, the official bucket, or npm.

A checkpoint is a tfjs graph model: model-strideN.json and the weight shards beside it. It is
downloaded into a hidden folder, checked, written to the disk, and renamed into the cache in one
step. So a cache entry is always complete, even if a download fails, the power is cut, or another
process wants the same files.
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
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import msgspec

from posenet_ros.atomic_file import locked, to_disk, unlocked
from posenet_ros.cache import posenet_home
from posenet_ros.config import ModelConfig
from posenet_ros.environment import expanded
from posenet_ros.errors import CheckpointError, GraphError, everything_as, quoted, reason
from posenet_ros.model.download import UnreachableError, download, shown
from posenet_ros.model.tfjs_graph import MAX_GRAPH_BYTES, check_shards, read_topology

BUCKET = 'https://storage.googleapis.com/tfjs-models/savedmodel/posenet'
NPM_TIMEOUT_SECONDS = 300.0

# An npm package that ships the bucket's own files of the default model (Apache-2.0).
NPM_PACKAGE = '@kubohiroya/turbowarp-tmpose@1.12.0'
# The node blocks SIGINT and SIGTERM in all its threads; children inherit that, and npm must not.
RUN_UNBLOCKED = (
    'import os, signal, sys; signal.pthread_sigmask(signal.SIG_SETMASK, ()); '
    'os.execv(sys.argv[1], sys.argv[1:])'
)
MAX_NPM_FILE_BYTES = 1 << 23
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
MAX_RECORD_BYTES = 1 << 20

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
    what = f'model_url {quoted(shown(config.model_url))}' if config.model_url else 'the weights'
    with everything_as(CheckpointError, f'{what} cannot be used'):
        try:
            found = _found(config, force)
        except OSError as error:  # e.g. a full disk or an unreadable folder
            name = f' {error.filename}' if error.filename else ''
            raise CheckpointError(f'cannot read or write{name}: {reason(error)}') from error
    if config.model_sha256 not in (None, found.sha256):
        raise CheckpointError(
            f'{found.graph_path} has SHA-256 {found.sha256}; model_sha256 asks for '
            f'{config.model_sha256}'
        )
    return found


def _found(config: ModelConfig, force: bool) -> Checkpoint:
    local = _local_path(config)
    if local is not None:
        return _checkpoint(local, str(local))
    url = _graph_url(config)
    entry = posenet_home() / 'checkpoints' / _cache_name(config, url)
    if force or not entry.is_dir():
        with _new_entry(entry, force) as folder:
            if folder is not None:
                _download(config, url, folder)
    _verify_entry(config, entry)
    origin = entry / ORIGIN
    source = _read_record(origin).strip() if origin.is_file() else shown(url)
    return _checkpoint(entry / _url_name(url), source)


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
def _new_entry(entry: Path, force: bool) -> Iterator[Path | None]:
    """A hidden folder that becomes the cache entry when the block succeeds.

    None if there is nothing to do any more: another process has fetched the same, and this one has
    waited for it.
    """
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        lock = contextlib.ExitStack()
        lock.enter_context(locked(_beside(entry, 'lock'), _tell_of_waiting))
    except OSError as error:
        raise CheckpointError(
            f'cannot write to the cache {entry.parent}: {reason(error)}; '
            'set POSENET_HOME to a folder that can be written'
        ) from error
    # Only who holds the lock touches these.
    folder, old = _beside(entry, 'part'), _beside(entry, 'old')
    with lock:
        _settle(entry)
        _settle_others(entry.parent)
        if entry.is_dir() and not force:
            yield None
            return
        try:
            folder.mkdir()
            yield folder
            if _same_contents(folder, entry):
                return  # unchanged, and another process may be reading it
            for path in folder.iterdir():
                to_disk(path)
            to_disk(folder)
            if entry.is_dir():
                entry.rename(old)
            folder.rename(entry)
            to_disk(entry.parent)
        finally:
            _settle(entry)


def _beside(entry: Path, kind: str) -> Path:
    """What belongs to an entry while it is written: lock, part or old."""
    return entry.with_name(f'.{entry.name}.{kind}')


def _tell_of_waiting(seconds: float, owner: str) -> None:
    _logger.warning('waiting for %s, which fetches the same (%.0f s so far)', owner, seconds)


def _settle(entry: Path) -> None:
    """Removes what is left of a download; puts an entry back that was about to be replaced."""
    folder, old = _beside(entry, 'part'), _beside(entry, 'old')
    if old.is_dir() and not entry.exists():
        old.rename(entry)
    for leftover in (folder, old):
        shutil.rmtree(leftover, ignore_errors=True)


def _settle_others(parent: Path) -> None:
    """The same for entries that killed processes left; and what version 0.1 left."""
    for lock in parent.glob('.*.lock'):
        with contextlib.suppress(OSError), unlocked(lock) as free:
            if free:
                _settle(lock.with_name(lock.stem[1:]))
    for folder in parent.glob('.fetching-*'):
        shutil.rmtree(folder, ignore_errors=True)


def _same_contents(folder: Path, entry: Path) -> bool:
    try:
        return all(_sha256(path) == _sha256(entry / path.name) for path in folder.iterdir())
    except OSError:
        return False


def _download(config: ModelConfig, url: str, folder: Path) -> None:
    if urlsplit(url).scheme == 'http':
        _logger.warning(
            '%s is not encrypted: who is between can change it. model_sha256 would find that out',
            quoted(shown(url)),
        )
    try:
        _download_http(config, url, folder)
    except UnreachableError as error:
        # Only the default model has a second source. It is used only if the first is unreachable: a
        # wrong checksum is an error.
        if url != official_url(ModelConfig()):
            raise
        _logger.warning('%s; getting the same files from npm, %s', error, NPM_PACKAGE)
        try:
            _download_npm(folder)
        except CheckpointError as npm_error:
            raise CheckpointError(f'{error}; and from npm: {npm_error}') from error


def _download_http(config: ModelConfig, url: str, folder: Path) -> None:
    address, _, query = url.partition('?')
    base, query = address.rsplit('/', 1)[0], f'?{query}' if query else ''
    known = KNOWN_SHA256 if config.model_url is None else {}
    name = _url_name(url)
    sums = {}

    def get(name: str, address: str, most_bytes: int) -> int:
        """Fetches a file; returns how many bytes it has."""
        path = folder / name
        download(address, path, most_bytes)
        sums[name] = _sha256(path)
        expected = known.get(f'{_official_folder(config)}/{name}', sums[name])
        if sums[name] != expected:
            raise CheckpointError(
                f'{shown(address)} is not the file that it should be: its SHA-256 is not {expected}'
            )
        return path.stat().st_size

    get(name, url, MAX_GRAPH_BYTES)
    try:
        topology = read_topology(folder / name)
        for group in topology.weight_groups:
            missing = group.num_bytes  # no shard has more
            for shard in group.shards:
                if shard in (name, CHECKSUMS, ORIGIN):
                    raise GraphError(f'a weight shard has the name {shard}')
                missing -= get(shard, f'{base}/{quote(shard)}{query}', missing)
        check_shards(topology, folder)
    except GraphError as error:
        raise CheckpointError(f'{shown(url)} cannot be used: {error}') from error
    _write_record(folder, sums, shown(url))


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
                    (folder / name).write_bytes(member.read(MAX_NPM_FILE_BYTES))
        except (KeyError, ValueError, EOFError, OSError, zlib.error, tarfile.TarError) as error:
            raise CheckpointError(f'{NPM_PACKAGE} is not what it should be: {error}') from error
    for name, expected in sums.items():
        if _sha256(folder / name) != expected:
            raise CheckpointError(f'{name} of {NPM_PACKAGE} does not have SHA-256 {expected}')
    _write_record(folder, sums, f'npm {NPM_PACKAGE}')


# Checking.


def _write_record(folder: Path, sums: dict[str, str], origin: str) -> None:
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2) + '\n')
    (folder / ORIGIN).write_text(origin + '\n')


def _verify_entry(config: ModelConfig, entry: Path) -> None:
    advice = 'to fetch it again, run `posenet fetch --force` or delete the folder'
    try:
        sums = msgspec.json.decode(_read_record(entry / CHECKSUMS), type=dict[str, str])
        if config.model_url is None:
            # The checksums known here take precedence over those stored beside the files.
            official = f'{_official_folder(config)}/'
            pins = {name: KNOWN_SHA256.get(official + name) for name in sums}
            sums.update({name: digest for name, digest in pins.items() if digest})
        topology = read_topology(entry / _graph_name_in(sums))
        missing = set(topology.shards) - set(sums)
        wrong = [name for name, digest in sums.items() if _sha256(entry / name) != digest]
    except (OSError, ValueError, RecursionError, GraphError) as error:
        raise CheckpointError(
            f'the cached checkpoint {entry} is damaged ({error}); {advice}'
        ) from error
    if missing or wrong:
        raise CheckpointError(
            f'{", ".join([*wrong, *missing])} in the cached checkpoint {entry} changed since it '
            f'was fetched; {advice}'
        )


def _read_record(path: Path) -> str:
    with path.open(encoding='utf-8') as file:
        return file.read(MAX_RECORD_BYTES)


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
