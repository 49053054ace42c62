"""Serves the page, and a WebSocket for each viewer: pictures and states out, commands in.

Runs in a thread of its own. The page says when it has a picture, and until then gets no other: a
slow viewer gets fewer pictures, and none that is old.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import secrets
import socket
import threading
import urllib.parse
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from posenet_ros.errors import ConfigError, PoseNetError, in_words

PAGE = Path(__file__).with_name('page.html')
STATE_SECONDS = 0.5
START_SECONDS = 10.0
STOP_SECONDS = 3.0
HEARTBEAT_SECONDS = 20.0
MOST_TEXTS = 20  # that wait to be sent to a viewer
MAX_COMMAND_BYTES = 4096
SECURITY_HEADERS = {
    'Content-Security-Policy': "default-src 'self' 'unsafe-inline'; img-src blob:; "
    "frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cache-Control': 'no-store',
}


class Source(Protocol):
    """What is shown. Called by the server's thread."""

    def look(self, cameras: frozenset[str]) -> None:
        """Somebody looks at these cameras, and at no other."""

    def state(self, camera: str) -> dict[str, Any]:
        """What the page shows beside the picture, for JSON."""

    def cameras(self) -> list[str]:
        """Names of the cameras; one is empty where they have none."""

    def command(self, camera: str, command: dict[str, Any], answer: Callable[[str], None]) -> None:
        """Does what a viewer of a camera asks for.

        `answer` gets what went wrong, or an empty text; any thread may call it.

        Raises:
            PoseNetError: it cannot be done.
        """


class Viewer:
    """One open page."""

    def __init__(self, wish: str) -> None:
        self.wish = wish  # the camera that was asked for; it may not be known yet
        self.camera = ''  # that is looked at
        self.news = asyncio.Event()
        self.ready = True  # the page has the last picture
        self.picture: bytes | None = None  # the newest that was not sent yet
        self.texts: deque[str] = deque(maxlen=MOST_TEXTS)  # to send


class ViewServer:
    """The server and its thread.

    Args:
        source: of what is shown.
        host: to listen on.
        port: likewise; 0 takes any that is free.
        token: that viewers must know; empty makes one up where the host is not the machine itself.

    Raises:
        ConfigError: it cannot listen there.
    """

    def __init__(self, source: Source, host: str, port: int, token: str = '') -> None:
        self.token = token or ('' if is_loopback(host) else secrets.token_urlsafe(16))
        self.port = port
        self._host = host
        self._source = source
        self._viewers: set[Viewer] = set()
        self._loop = asyncio.new_event_loop()
        self._error: BaseException | None = None
        self._is_up, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name='posenet_view', daemon=True)
        self._thread.start()
        if not self._is_up.wait(START_SECONDS) or self._error is not None:
            why = 'it takes too long' if self._error is None else in_words(self._error)
            raise ConfigError(
                f'Invalid host {host} or port {port}: cannot listen there: {why}. Another: '
                '-p port:=8081'
            )

    @property
    def url(self) -> str:
        """The address of the page, for a browser on another machine if that can reach it."""
        everywhere = self._host in ('0.0.0.0', '::', '')
        host = socket.gethostname() if everywhere else self._host
        host = f'[{host}]' if ':' in host else host
        query = f'?token={urllib.parse.quote(self.token, safe="")}' if self.token else ''
        return f'http://{host}:{self.port}/{query}'

    def show(self, camera: str, jpeg: bytes) -> None:
        """Sends a picture to those who look at a camera. Called by another thread."""
        self._soon(lambda: self._show(camera, jpeg))

    def close(self) -> None:
        """Says goodbye to everybody, and ends the thread."""
        self._soon(self._stop.set)
        self._thread.join(2 * STOP_SECONDS)

    def _soon(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(work)

    # The server's thread.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # a host that is no name, a port that is taken
            self._error = error
        finally:
            self._is_up.set()
            self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(middlewares=[self._only_ours])
        app.router.add_get('/', self._page)
        app.router.add_get('/socket', self._socket)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host or None, self.port).start()
            self.port = runner.addresses[0][1]
            self._is_up.set()
            await self._stop.wait()
            for viewer in self._viewers:
                viewer.news.set()
        finally:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(runner.cleanup(), STOP_SECONDS)

    @property
    def _cookie(self) -> str:
        return f'posenet_view_{self.port}'  # a browser has one jar for all ports of a host

    @web.middleware
    async def _only_ours(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Keeps out who does not know the token, and other sites' pages in somebody's browser."""
        host = urllib.parse.urlsplit(f'//{request.host}').hostname or ''
        if is_loopback(self._host) and not is_loopback(host):
            raise web.HTTPForbidden(text=f'this page is only for http://{self._host}:{self.port}/')
        origin = request.headers.get('Origin')
        if origin is not None and origin.partition('://')[2] != request.host:
            raise web.HTTPForbidden(text='other pages cannot use this one')
        if self.token:
            given = request.query.get('token') or request.cookies.get(self._cookie, '')
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                raise web.HTTPForbidden(
                    text='add ?token=TOKEN to the address: posenet_view has logged it'
                )
        return await handler(request)  # type: ignore[no-any-return]

    async def _page(self, request: web.Request) -> web.Response:
        response = web.Response(
            text=PAGE.read_text(), content_type='text/html', headers=SECURITY_HEADERS
        )
        if self.token:
            response.set_cookie(self._cookie, self.token, httponly=True, samesite='Strict')
        return response

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        page = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, max_msg_size=MAX_COMMAND_BYTES)
        await page.prepare(request)
        viewer = Viewer(request.query.get('camera', ''))
        self._viewers.add(viewer)
        sending = asyncio.ensure_future(self._send(page, viewer))
        try:
            async for message in page:
                if message.type == WSMsgType.TEXT:
                    self._receive(viewer, message.data)
        finally:
            self._viewers.discard(viewer)
            self._tell_who_looks()
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending
        return page

    async def _send(self, page: web.WebSocketResponse, viewer: Viewer) -> None:
        told = -STATE_SECONDS
        while not self._stop.is_set():
            if self._loop.time() - told >= STATE_SECONDS:
                told = self._loop.time()
                self._choose_camera(viewer)
                await page.send_str(json.dumps(self._source.state(viewer.camera)))
            while viewer.texts:
                await page.send_str(viewer.texts.popleft())
            if viewer.picture is not None and viewer.ready:
                picture, viewer.picture, viewer.ready = viewer.picture, None, False
                await page.send_bytes(picture)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(viewer.news.wait(), STATE_SECONDS)
            viewer.news.clear()
        await page.close(code=1001)

    def _choose_camera(self, viewer: Viewer) -> None:
        cameras = self._source.cameras()
        viewer.camera = viewer.wish if viewer.wish in cameras else cameras[0]
        self._tell_who_looks()

    def _tell_who_looks(self) -> None:
        self._source.look(frozenset(viewer.camera for viewer in self._viewers))

    def _show(self, camera: str, jpeg: bytes) -> None:
        for viewer in self._viewers:
            if viewer.camera == camera:
                viewer.picture = jpeg
                viewer.news.set()

    def _receive(self, viewer: Viewer, text: str) -> None:
        def tell(problem: str) -> None:
            viewer.texts.append(json.dumps({'problem': problem}))
            viewer.news.set()

        def answer(problem: str) -> None:
            self._soon(lambda: tell(problem))

        try:
            command = json.loads(text)
            if not isinstance(command, dict):
                raise ValueError('no object')
            if 'got' in command:  # the page has the last picture
                viewer.ready = True
                viewer.news.set()
                return
            self._source.command(viewer.camera, command, answer)
        except (PoseNetError, ValueError) as error:
            tell(str(error))


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, and nobody else's."""
    if host == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
