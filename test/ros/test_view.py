"""posenet_view: the page, as viewers meet it."""

import asyncio
import json
import re
import shutil
import signal
import time

import numpy as np
import pytest
from ros_processes import NODE, as_image, wait_until

aiohttp = pytest.importorskip('aiohttp')

from posenet_ros import ConfigError  # noqa: E402
from posenet_ros.view.server import ViewServer, is_loopback  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def view(start):
    """Starts posenet_view; returns the process and its address."""

    def launch(**parameters):
        given = [part for name, v in parameters.items() for part in ('-p', f'{name}:={v}')]
        process = start('posenet_view', '--ros-args', '-p', 'port:=0', *given)
        process.wait_for('open http')
        return process, re.search(r'open (http://\S+)', process.output)[1]

    return launch


class Viewer:
    """What a browser does: the page's socket, in a thread's own loop."""

    def __init__(self, url, peer, camera=''):
        self.peer = peer
        self.state, self.pictures, self.problems = {}, [], []
        self.acknowledges = True
        self._url = f'{url}socket?camera={camera}'
        self._loop = asyncio.new_event_loop()

    def run(self, until, timeout=30, do=lambda socket: None, step=lambda: None):
        """Listens until a condition holds. `do` returns what to send first, if anything."""

        async def listen():
            async with aiohttp.ClientSession() as session, session.ws_connect(self._url) as socket:
                command = do(socket)
                if command is not None:
                    await socket.send_str(json.dumps(command))
                deadline = time.monotonic() + timeout
                while not until() and time.monotonic() < deadline:
                    step()
                    try:
                        message = await socket.receive(timeout=0.1)
                    except asyncio.TimeoutError:
                        continue
                    if message.type == aiohttp.WSMsgType.BINARY:
                        self.pictures.append(message.data)
                        if self.acknowledges:
                            await socket.send_str(json.dumps({'got': 1}))
                    elif message.type == aiohttp.WSMsgType.TEXT:
                        data = json.loads(message.data)
                        if 'problem' in data:
                            self.problems.append(data['problem'])
                        else:
                            self.state = data
                    else:
                        break
                assert until(), f'it never came true: {self.state} {self.problems}'

        self._loop.run_until_complete(listen())


def get(url, **headers):
    async def fetch():
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            return answer.status, await answer.text(), answer.headers

    return asyncio.run(fetch())


def test_page_shows_pictures_people_and_rates_and_changes_the_node(
    start_node, view, peer, camera, astronaut
):
    import cv2

    start_node()
    process, url = view()
    status, page, headers = get(url)
    assert status == 200
    assert '<title>posenet_view</title>' in page
    assert "frame-ancestors 'none'" in headers['Content-Security-Policy']
    peer.spin_for(0.5)
    assert camera.publisher.get_subscription_count() == 0  # nobody looks, nothing runs

    message = as_image(astronaut)

    def step():
        if camera.publisher.get_subscription_count():
            camera.send(message)
        peer.spin_for(0.03)

    viewer = Viewer(url, peer)
    viewer.run(
        lambda: (
            viewer.pictures
            and viewer.state.get('people')
            and viewer.state['parameters']
            and float(viewer.state['values'].get('rate out (Hz)', 0)) > 0
        ),
        step=step,
    )
    picture = cv2.imdecode(np.frombuffer(viewer.pictures[-1], np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == astronaut.shape
    state = viewer.state
    assert (state['node'], state['lost'], state['level']) == (NODE, False, 'ok')
    assert state['people'][0]['score'] > 0.2
    assert 'MobileNetV1' in state['model']
    assert 'score_threshold' in {each['name'] for each in state['parameters']}

    def value_of(name):
        return next((p['value'] for p in viewer.state['parameters'] if p['name'] == name), None)

    viewer.run(
        lambda: value_of('max_detections') == 3,
        do=lambda socket: {'parameter': 'max_detections', 'value': 3},
        step=step,
    )
    viewer.run(
        lambda: any('Invalid max_detections 0' in problem for problem in viewer.problems),
        do=lambda socket: {'parameter': 'max_detections', 'value': 0},
        step=step,
    )
    viewer.run(
        lambda: any('image_topic cannot be changed' in problem for problem in viewer.problems),
        do=lambda socket: {'parameter': 'image_topic', 'value': '/eye'},
        step=step,
    )
    viewer.run(lambda: viewer.state['paused'], do=lambda socket: {'enable': False}, step=step)
    viewer.run(lambda: not viewer.state['paused'], do=lambda socket: {'enable': True}, step=step)
    assert peer.spin_until(lambda: camera.publisher.get_subscription_count() == 0)
    assert process.stop() == 0


def test_a_lost_node_is_told_and_found_again(start_node, view, peer):
    node = start_node()
    _, url = view()
    viewer = Viewer(url, peer)
    viewer.run(lambda: viewer.state.get('values'))
    assert not viewer.state['lost']
    node.stop(signal.SIGKILL)
    viewer.run(lambda: viewer.state['lost'])
    start_node()
    viewer.run(lambda: not viewer.state['lost'])


def test_each_camera_has_a_picture(start_node, view, peer, astronaut):
    start_node(cameras=['front', 'rear'])
    _, url = view()
    viewer = Viewer(url, peer, 'rear')
    viewer.run(lambda: viewer.state.get('values'))
    assert viewer.state['cameras'] == ['front', 'rear']
    assert viewer.state['camera'] == 'rear'


def test_beyond_this_machine_a_token_is_needed(view):
    _, url = view(host='0.0.0.0')
    assert re.search(r'\?token=\S{16,}', url)
    url = url.replace('0.0.0.0', '127.0.0.1')
    assert get(url)[0] == 200
    for wrong in (url.split('?')[0], url[:-1], url.split('?')[0] + 'socket'):
        status, text, _ = get(wrong)
        assert status == 403
        assert 'token' in text


def test_other_sites_cannot_use_it(view):
    _, url = view()
    assert get(url)[0] == 200
    assert get(url, Host='evil.example')[0] == 403  # a name that was rebound to this machine
    assert get(f'{url}socket', Origin='http://evil.example')[0] == 403


def test_a_port_that_is_taken_is_named(start, view):
    _, url = view()
    port = url.rstrip('/').rsplit(':', 1)[1]
    process = start('posenet_view', '--ros-args', '-p', f'port:={port}')
    assert wait_until(lambda: not process.running())
    assert process.stop() == 1
    assert f'Invalid host 127.0.0.1 or port {port}: cannot listen there' in process.output


@pytest.mark.parametrize('host', ['127.0.0.1', '::1', 'localhost', '127.8.0.1'])
def test_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize('host', ['0.0.0.0', '::', '192.168.0.1', 'robot.local', ''])
def test_not_this_machine(host):
    assert not is_loopback(host)


class Nothing:
    """A source with two cameras that nobody has to look at."""

    def __init__(self):
        self.looked_at = frozenset()

    def look(self, cameras):
        self.looked_at = cameras

    def cameras(self):
        return ['a', 'b']

    def state(self, camera):
        return {'camera': camera}

    def command(self, camera, command, answer):
        answer(f'got {command} for {camera}')


@pytest.fixture
def served():
    source = Nothing()
    server = ViewServer(source, '127.0.0.1', 0)
    yield source, server
    server.close()


def test_viewers_get_their_camera_and_the_newest_picture_only(served):
    source, server = served
    viewer = Viewer(server.url, None, 'b')
    sent = []

    def step():
        sent.append(f'{len(sent)}'.encode())
        server.show('a', b'not for b')
        server.show('b', sent[-1])
        server.show('b', sent[-1] + b' newer')

    viewer.run(lambda: len(viewer.pictures) > 3, step=step)
    assert viewer.state == {'camera': 'b'}
    assert not any(picture == b'not for b' for picture in viewer.pictures)
    viewer.run(lambda: viewer.problems == ["got {'x': 1} for b"], do=lambda socket: {'x': 1})
    assert wait_until(lambda: not source.looked_at)


def test_a_viewer_that_is_slow_gets_no_old_pictures(served):
    """The next one is sent when the page has the last."""
    _, server = served
    viewer = Viewer(server.url, None, 'a')
    viewer.acknowledges = False
    start = time.monotonic()
    number = iter(range(10**6))

    def step():
        server.show('a', f'{next(number)}'.encode())

    viewer.run(lambda: time.monotonic() > start + 2, step=step)
    assert len(viewer.pictures) == 1
    viewer.acknowledges = True
    viewer.pictures.clear()
    viewer.run(lambda: len(viewer.pictures) > 2, step=step)


def test_a_host_that_cannot_be_is_named():
    with pytest.raises(
        ConfigError, match=r'Invalid host foo\.\.bar or port 0: cannot listen there'
    ):
        ViewServer(Nothing(), 'foo..bar', 0)


def test_tokens_with_any_letter_can_be_opened():
    server = ViewServer(Nothing(), '127.0.0.1', 0, 'a+b&c#d%')
    try:
        assert get(server.url)[0] == 200
        assert get(server.url.split('?')[0])[0] == 403
    finally:
        server.close()


def test_other_nodes_do_not_end_it(view, peer, start):
    """One without our parameters, and somebody's status that begins with our node's name."""
    process, url = view(node='/other')
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
    from rclpy.node import Node

    other = Node('other')
    peer.executor_.add_node(other)
    statuses = [DiagnosticStatus(name=name) for name in ('other', 'other: CPU load (1)')]
    diagnostics = peer.create_publisher(DiagnosticArray, '/diagnostics', 10)

    def step():
        diagnostics.publish(DiagnosticArray(status=statuses))
        peer.spin_for(0.05)

    viewer = Viewer(url, peer)
    viewer.run(lambda: viewer.state.get('level') == 'ok', step=step)
    start_time = time.monotonic()
    viewer.run(lambda: time.monotonic() > start_time + 3, step=step)
    assert process.running()
    assert viewer.state['cameras'] == ['']
    viewer.run(
        lambda: any('/other does not answer' in problem for problem in viewer.problems),
        do=lambda socket: {'enable': False},
        step=step,
    )
    other.destroy_node()
    assert process.stop() == 0
    assert 'Traceback' not in process.output


def test_page_in_a_browser(start_node, view, peer, camera, astronaut, tmp_path):
    """The picture, the numbers, and what is told of a lost node, as Chromium draws them."""
    playwright = pytest.importorskip('playwright.sync_api', reason='make test-view installs it')
    chromium = shutil.which('chromium') or shutil.which('chromium-browser')
    if chromium is None:
        pytest.skip('Chromium is not on this machine')
    node = start_node()
    view_process, url = view()
    message = as_image(astronaut)

    def step():
        camera.send(message)
        peer.spin_for(0.05)

    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        page = browser.new_page(viewport={'width': 1200, 'height': 800})
        errors = []
        page.on('pageerror', lambda error: errors.append(error))
        page.goto(url)

        def text():
            return page.inner_text('body')

        def see(condition):
            assert wait_until(lambda: step() or condition()), f'{errors} {text()}'

        see(lambda: page.evaluate("document.getElementById('picture').naturalWidth") == 512)
        see(lambda: '#1' in text() and 'score_threshold' in text() and 'poses a second' in text())
        page.screenshot(path=tmp_path / 'page.png')
        page.click('#pause')
        see(lambda: page.inner_text('#pause') == 'Go on')
        page.click('#pause')
        see(lambda: page.inner_text('#pause') == 'Pause')
        node.stop(signal.SIGKILL)
        see(lambda: 'is not there' in text())
        page.screenshot(path=tmp_path / 'lost.png')
        start_node()
        see(lambda: 'is not there' not in text())
        view_process.stop(signal.SIGKILL)
        see(lambda: 'connection to posenet_view is lost' in text())
        assert errors == []
        browser.close()
