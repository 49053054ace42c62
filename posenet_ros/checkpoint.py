"""Where the weights come from: a given URL or file, our cache, the official bucket, or npm.

A checkpoint is a tfjs graph model: model-strideN.json and the weight shards beside it. Whatever is
fetched is fetched whole into a temporary folder, checked, and renamed into the cache in one step;
so a cache entry is complete or not there, whoever else is fetching and whatever breaks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pooch
import requests

from posenet_ros.config import ModelConfig
from posenet_ros.errors import CheckpointError, GraphError
from posenet_ros.tfjs_graph import check_shards, read_topology

BUCKET = 'https://storage.googleapis.com/tfjs-models/savedmodel/posenet'
TIMEOUT_SECONDS = 20.0
NPM_TIMEOUT_SECONDS = 300.0

# An npm package that ships the bucket's own files of the default model (Apache-2.0).
NPM_PACKAGE = '@kubohiroya/turbowarp-tmpose@1.12.0'
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

pooch.get_logger().setLevel('WARNING')


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, complete and checked."""

    graph_path: Path  # model-strideN.json; the shards lie beside it
    sha256: str  # of the graph and its shards, in the manifest's order
    source: str  # where it came from, for people


def posenet_home() -> Path:
    """Our cache folder: $POSENET_HOME, or ~/.cache/posenet_ros."""
    return Path(os.environ.get('POSENET_HOME') or '~/.cache/posenet_ros').expanduser()


def official_url(config: ModelConfig) -> str:
    """Where the reference loads a model from. Source: posenet 2.2.2, checkpoints.ts."""
    return f'{BUCKET}/{_official_folder(config)}/{_graph_name(config)}'


def fetch_checkpoint(config: ModelConfig, force: bool = False) -> Checkpoint:
    """Finds the weights of a model, and fetches them where that is needed.

    A model_url that is a file or a folder is used where it lies. Everything else goes through the
    cache; the default model also comes from npm where the bucket cannot be reached.

    Args:
        config: which model.
        force: fetch again what the cache has.

    Raises:
        CheckpointError: it is missing, unreachable, incomplete or not what it should be. The
            cache is then as it was.
    """
    local = _local_path(config)
    if local is not None:
        return _checkpoint(local, str(local))
    url = _graph_url(config)
    entry = posenet_home() / 'checkpoints' / _cache_name(config, url)
    graph_path = entry / _url_name(url)
    if force or not entry.exists():
        with _new_entry(entry, replace=force) as folder:
            _download(config, url, folder)
    _verify_entry(entry)
    return _checkpoint(graph_path, url)


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
    if url is None or url.startswith(('http://', 'https://')):
        return None
    if url.startswith('file://'):
        path = Path(unquote(urlsplit(url).path))
    elif '://' in url:
        raise CheckpointError(
            f'model_url {url} has the scheme {url.split("://")[0]}; it should be a path, or a '
            'file://, http:// or https:// URL'
        )
    else:
        path = Path(url).expanduser()
    if path.is_dir():
        path /= _graph_name(config)
    if not path.is_file():
        raise CheckpointError(f'model_url {url}: there is no file {path}')
    return path


def _graph_url(config: ModelConfig) -> str:
    if config.model_url is None:
        return official_url(config)
    if urlsplit(config.model_url).path.endswith('.json'):
        return config.model_url
    return f'{config.model_url.rstrip("/")}/{_graph_name(config)}'


def _url_name(url: str) -> str:
    return unquote(urlsplit(url).path).rsplit('/', 1)[-1]


def _cache_name(config: ModelConfig, url: str) -> str:
    if config.model_url is None:
        return f'{_official_folder(config)}/stride{config.output_stride}'.replace('/', '-')
    return f'url-{hashlib.sha256(url.encode()).hexdigest()[:16]}'


# Fetching.


@contextlib.contextmanager
def _new_entry(entry: Path, replace: bool) -> Iterator[Path]:
    """A temporary folder that becomes the cache entry when the block ends well."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix='.fetching-', dir=entry.parent))
    except OSError as error:
        raise CheckpointError(
            f'cannot write to the cache {entry.parent}: {error.strerror}; '
            'set POSENET_HOME to a folder that can be written'
        ) from error
    try:
        yield folder
        if replace and entry.exists():
            entry.rename(folder.with_name(folder.name + '-old'))
        try:
            folder.rename(entry)
        except OSError as error:
            # Where another process was faster, its entry is as good as ours.
            if not entry.is_dir():
                raise CheckpointError(f'cannot write {entry}: {error.strerror}') from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_name(folder.name + '-old'), ignore_errors=True)


def _download(config: ModelConfig, url: str, folder: Path) -> None:
    try:
        _download_http(config, url, folder)
    except CheckpointError as error:
        # Only the default model has a second source, and only a source that could not be reached
        # sends us there: a file that is not what it should be is reported, never papered over.
        unreachable = isinstance(error.__cause__, requests.RequestException)
        if not unreachable or url != official_url(ModelConfig()):
            raise
        try:
            _download_npm(folder)
        except CheckpointError as npm_error:
            raise CheckpointError(f'{error}; and from npm: {npm_error}') from error


def _download_http(config: ModelConfig, url: str, folder: Path) -> None:
    base = url[: len(url.split('?')[0].rsplit('/', 1)[0]) + 1]
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
            get(shard, base + shard)
        check_shards(topology, folder)
    except GraphError as error:
        raise CheckpointError(f'{url} cannot be used: {error}') from error
    _write_checksums(folder, sums)


def _download_npm(folder: Path) -> None:
    npm = shutil.which('npm')
    if npm is None:
        raise CheckpointError(f'there is no npm client to get {NPM_PACKAGE} with')
    with tempfile.TemporaryDirectory() as scratch:
        command = [npm, 'pack', '--silent', '--ignore-scripts', NPM_PACKAGE]
        try:
            subprocess.run(
                command,
                cwd=scratch,
                check=True,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=NPM_TIMEOUT_SECONDS,
            )
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip() or 'no message').splitlines()[-1]
            raise CheckpointError(f'npm cannot get {NPM_PACKAGE}: {last}') from error
        except subprocess.TimeoutExpired as error:
            raise CheckpointError(f'npm gave no {NPM_PACKAGE} within {error.timeout} s') from error
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
        except (KeyError, ValueError, OSError, tarfile.TarError) as error:
            raise CheckpointError(f'{NPM_PACKAGE} is not what it should be: {error}') from error
    for name, expected in sums.items():
        if _sha256(folder / name) != expected:
            raise CheckpointError(f'{name} of {NPM_PACKAGE} does not have SHA-256 {expected}')
    _write_checksums(folder, sums)


def _reason(error: requests.RequestException) -> str:
    """The innermost cause in words: requests wraps urllib3, which wraps the socket's error."""
    cause: BaseException = error
    while True:
        inner = getattr(cause, 'reason', None) or (cause.args[0] if cause.args else None)
        if not isinstance(inner, BaseException):
            return str(cause).split(': ', 1)[-1] or type(cause).__name__
        cause = inner


# Checking.


def _write_checksums(folder: Path, sums: dict[str, str]) -> None:
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=2) + '\n')


def _verify_entry(entry: Path) -> None:
    try:
        sums = json.loads((entry / CHECKSUMS).read_text())
        wrong = [name for name, digest in sums.items() if _sha256(entry / name) != digest]
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f'the cached checkpoint {entry} is damaged ({error}); `posenet fetch --force`, or '
            'deleting the folder, gets it anew'
        ) from error
    if wrong:
        raise CheckpointError(
            f'{", ".join(wrong)} in the cached checkpoint {entry} changed since it was fetched; '
            '`posenet fetch --force`, or deleting the folder, gets it anew'
        )


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
