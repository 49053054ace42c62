"""Serves the page, and a WebSocket for each viewer: pictures and states out, commands in.

Runs in a thread of its own. A slow viewer gets fewer pictures, and delays nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import json
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from posenet_ros.errors import ConfigError, PoseNetError

PAGE = Path(__file__).with_name('page.html')
STATE_SECONDS = 0.5
START_SECONDS = 10.0
COOKIE = 'posenet_view_token'
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

    def look(self, camera: str) -> None:
        """Somebody looks at a camera from now on."""

    def leave(self, camera: str) -> None:
        """Somebody looks at it no more."""

    def state(self, camera: str) -> dict[str, Any]:
        """What the page shows beside the picture, for JSON."""

    def cameras(self) -> list[str]:
        """Names of the cameras; one is empty where they have none."""

    def command(self, command: dict[str, Any], answer: Callable[[str], None]) -> None:
        """Does what a viewer asks for; `answer` gets what went wrong, or an empty text.

        Raises:
            PoseNetError: it cannot be done.
        """


class Viewer:
    """One open page."""

    def __init__(self, wish: str) -> None:
        self.wish = wish  # the camera that was asked for; it may not be known yet
        self.camera: str | None = None  # that is looked at
        self.news = asyncio.Event()
        self.picture: bytes | None = None  # the newest that was not sent yet
        self.texts: list[str] = []  # to send


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
        self._error: OSError | None = None
        self._is_up, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name='posenet_view', daemon=True)
        self._thread.start()
        if not self._is_up.wait(START_SECONDS) or self._error is not None:
            raise ConfigError(
                f'Invalid host {host} or port {port}: cannot listen there: {self._error}'
            )

    @property
    def url(self) -> str:
        """The address of the page."""
        host = f'[{self._host}]' if ':' in self._host else self._host
        return f'http://{host}:{self.port}/' + (f'?token={self.token}' if self.token else '')

    def show(self, camera: str, jpeg: bytes) -> None:
        """Sends a picture to those who look at a camera. Called by another thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._show, camera, jpeg)

    def close(self) -> None:
        """Says goodbye to everybody, and ends the thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_SECONDS)

    # The server's thread.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._is_up.set()
            self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(middlewares=[self._only_ours])
        app.router.add_get('/', self._page)
        app.router.add_get('/socket', self._socket)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self.port)
            await site.start()
        except OSError as error:
            self._error = error
            await runner.cleanup()
            return
        self.port = runner.addresses[0][1]
        self._is_up.set()
        await self._stop.wait()
        for viewer in self._viewers:
            viewer.news.set()
        await runner.cleanup()

    @web.middleware
    async def _only_ours(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Keeps out who does not know the token, and other sites' pages in somebody's browser."""
        host = request.host.rpartition(':')[0].strip('[]') if ':' in request.host else request.host
        if is_loopback(self._host) and not is_loopback(host):
            raise web.HTTPForbidden(text=f'this page is only for http://{self._host}:{self.port}/')
        origin = request.headers.get('Origin')
        if origin is not None and origin.partition('://')[2] != request.host:
            raise web.HTTPForbidden(text='other pages cannot use this one')
        if self.token:
            given = request.query.get('token') or request.cookies.get(COOKIE, '')
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
            response.set_cookie(COOKIE, self.token, httponly=True, samesite='Strict')
        return response

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=5.0, max_msg_size=MAX_COMMAND_BYTES)
        await socket.prepare(request)
        viewer = Viewer(request.query.get('camera', ''))
        self._viewers.add(viewer)
        self._choose_camera(viewer)
        sending = asyncio.ensure_future(self._send(socket, viewer))
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    self._command(viewer, message.data)
        finally:
            self._viewers.discard(viewer)
            if viewer.camera is not None:
                self._source.leave(viewer.camera)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await sending
        return socket

    def _choose_camera(self, viewer: Viewer) -> str:
        cameras, old = self._source.cameras(), viewer.camera
        viewer.camera = viewer.wish if viewer.wish in cameras else cameras[0]
        if viewer.camera != old:
            self._source.look(viewer.camera)
            if old is not None:
                self._source.leave(old)
        return viewer.camera

    async def _send(self, socket: web.WebSocketResponse, viewer: Viewer) -> None:
        told = -STATE_SECONDS
        while not self._stop.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(viewer.news.wait(), STATE_SECONDS)
            viewer.news.clear()
            if viewer.picture is not None:
                picture, viewer.picture = viewer.picture, None
                await socket.send_bytes(picture)
            while viewer.texts:
                await socket.send_str(viewer.texts.pop(0))
            if self._loop.time() - told >= STATE_SECONDS:
                told = self._loop.time()
                state = self._source.state(self._choose_camera(viewer))
                await socket.send_str(json.dumps(state))
        await socket.close(code=1001)

    def _show(self, camera: str, jpeg: bytes) -> None:
        for viewer in self._viewers:
            if viewer.camera == camera:
                viewer.picture = jpeg
                viewer.news.set()

    def _command(self, viewer: Viewer, text: str) -> None:
        def answer(problem: str) -> None:  # from any thread
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(tell, problem)

        def tell(problem: str) -> None:
            viewer.texts.append(json.dumps({'problem': problem}))
            viewer.news.set()

        try:
            command = json.loads(text)
            if not isinstance(command, dict):
                raise ValueError('no object')
            self._source.command(command, answer)
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
