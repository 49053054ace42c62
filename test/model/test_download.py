"""One file from a server: what the process that fetches it can say, and how it can end."""

import json
import re
import subprocess
import sys
import time

import pytest
import requests

from posenet_ros.errors import CheckpointError, DependencyError
from posenet_ros.model import download as module
from posenet_ros.model.download import UnreachableError, download

URL = 'http://127.0.0.1:9/model.json'


class Answer:
    """What requests gives for a response."""

    def __init__(self, url, history=(), **headers):
        self.url, self.headers, self.history = url, headers, history

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def raise_for_status(self):
        pass

    def iter_content(self, size):
        return iter([b'da', b'ta'])


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Takes the place of Python: what this script does instead of a download."""

    def write(script):
        path = tmp_path / 'python'
        path.write_text(f'#!/bin/sh\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setattr(sys, 'executable', str(path))

    return write


@pytest.mark.parametrize(
    ('script', 'error', 'message'),
    [
        ('kill -ALRM $$', UnreachableError, f'cannot fetch {URL}: it takes longer than 60 s'),
        ('kill -KILL $$', UnreachableError, f'cannot fetch {URL}: status -9'),
        ('exit 3', UnreachableError, f'cannot fetch {URL}: status 3'),
        ('echo nonsense', UnreachableError, f'cannot fetch {URL}: status 0'),
        ('echo \'["unreachable", "404"]\'', UnreachableError, f'cannot fetch {URL}: 404'),
        ('echo \'["refused", "too long"]\'', CheckpointError, f'cannot fetch {URL}: too long'),
        ('echo \'["missing", "no requests"]\'', DependencyError, 'no requests'),
    ],
)
def test_each_end_of_the_child_has_its_error(child, tmp_path, script, error, message):
    child(script)
    with pytest.raises(error) as caught:
        download(URL, tmp_path / 'file', 10)
    assert type(caught.value) is error and str(caught.value) == message


def test_child_is_told_how_many_bytes_and_seconds_there_are(child, tmp_path):
    child(f'head -n 1 >{tmp_path}/request; echo \'["", ""]\'')
    download(URL, tmp_path / 'file', 3_000_000)
    path, *told = json.loads((tmp_path / 'request').read_text())
    assert path == [folder for folder in sys.path if folder]
    assert told == [URL, str(tmp_path / 'file'), 3_000_000, 160.0]


def test_interrupted_download_ends_its_child(child, tmp_path):
    child('sleep 0.5; kill -INT $PPID; exec sleep 60')
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        download(URL, tmp_path / 'file', 10)
    assert time.monotonic() - started < 30


def test_file_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, 'get', lambda *_, **__: Answer(URL))
    with pytest.raises(FileNotFoundError):
        module._download(URL, tmp_path / 'missing/file', 10)


@pytest.mark.parametrize(
    ('asked', 'answered', 'refused'),
    [
        ('https://a/f', 'http://a/f', True),
        ('HTTPS://a/f', 'http://a/f', True),
        ('https://a/f', 'https://b/f', False),
        ('http://a/f', 'https://a/f', False),
        ('http://a/f', 'http://b/f', False),
    ],
)
def test_encrypted_address_leads_to_no_other(tmp_path, monkeypatch, asked, answered, refused):
    monkeypatch.setattr(requests, 'get', lambda *_, **__: Answer(answered))
    path = tmp_path / 'file'
    if refused:
        told = ('refused', f'it leads to {answered}, which is not encrypted')
        assert module._download(asked, path, 10) == told and not path.exists()
    else:
        assert module._download(asked, path, 10) == ('', '')
        assert path.read_bytes() == b'data'


@pytest.mark.parametrize(
    ('hops', 'refused'),
    [
        (['https://a/x', 'https://b/x'], False),
        (['http://a/x', 'http://b/x'], False),
        (['https://a/x', 'http://b/x'], True),
        (['https://a/x', 'http://b/x', 'https://a/x'], True),
    ],
)
def test_no_hop_leads_from_https_to_http(monkeypatch, tmp_path, hops, refused):
    answer = Answer(hops[-1], [Answer(url) for url in hops[:-1]])
    monkeypatch.setattr(requests, 'get', lambda *_, **__: answer)
    kind, text = module._download(hops[0], tmp_path / 'file', 10)
    assert (kind == 'refused') == refused == ('not encrypted' in text)


@pytest.mark.parametrize('length', ['', '4', 'four', '9' * 30, '-1'])
def test_file_may_have_as_many_bytes_as_it_should_whatever_its_header_says(
    tmp_path, monkeypatch, length
):
    def get(*_, **__):
        return Answer(URL, **{'Content-Length': length})

    monkeypatch.setattr(requests, 'get', get)
    assert module._download(URL, tmp_path / 'file', 4) == ('', '')
    told = ('refused', 'it has more than the 3 bytes that it should have')
    assert module._download(URL, tmp_path / 'file', 3) == told


@pytest.mark.parametrize(
    ('error', 'why'),
    [
        (requests.ConnectionError(OSError(111, 'refused')), '[Errno 111] refused'),
        (requests.ConnectionError(requests.Timeout('pool: timed out')), 'timed out'),
        (requests.ConnectionError(), 'ConnectionError'),
        (requests.TooManyRedirects('Exceeded 30 redirects.'), 'Exceeded 30 redirects.'),
    ],
)
def test_innermost_reason_is_told(error, why):
    assert module._innermost_reason(error) == why


@pytest.mark.parametrize(
    ('prepare', 'kind', 'text'),
    [
        ("sys.modules['requests'] = None", 'missing', 'fetching the weights needs requests'),
        ('', 'unreachable', 'Connection refused'),
        ("url = 'http://[::bad/'", 'unreachable|refused', 'bad'),
    ],
)
def test_child_says_what_kind_of_error_there_was(tmp_path, prepare, kind, text):
    program = f"""
import json, sys
from posenet_ros.model.download import _attempt
url = {URL!r}
{prepare}
print(json.dumps(_attempt(url, {str(tmp_path / 'file')!r}, 10, 30.0)))
"""
    with subprocess.Popen(
        [sys.executable, '-c', program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.wait(60) == 0  # before its stdin is closed, which ends it
        found = json.load(child.stdout)
    assert re.fullmatch(kind, found[0]) and re.search(text, found[1]), found
