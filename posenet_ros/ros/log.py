"""The node's log: what the library logs, too, and warnings at a limited rate."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

from rclpy.node import Node

from posenet_ros.errors import printable

WARN_PERIOD_SECONDS = 5.0  # between two warnings of the same kind
# Warnings that differ in more than numbers and quotations, per period.
MAX_WARNINGS = 5
VARYING = re.compile(r"'[^']*'|[0-9.]+")


class _ToRos(logging.Handler):
    def __init__(self, logger: Any) -> None:
        super().__init__(logging.INFO)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        message = printable(record.getMessage())
        # rclpy allows one severity per line of code.
        if record.levelno >= logging.ERROR:
            self._logger.error(message)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(message)
        else:
            self._logger.info(message)


def forward_log(logger: Any) -> logging.Handler:
    """Forwards the library's log to a node's logger until stop_forwarding."""
    library = logging.getLogger('posenet_ros')
    library.setLevel(logging.INFO)
    library.propagate = False
    handler = _ToRos(logger)
    library.addHandler(handler)
    return handler


def stop_forwarding(handler: logging.Handler) -> None:
    logging.getLogger('posenet_ros').removeHandler(handler)


class LimitedWarnings:
    """Warnings of frames, of which a few are logged in each period.

    Args:
        node: that logs.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._at: dict[tuple[str, str], float] = {}  # (camera, problem) -> time.monotonic()

    def add(self, camera: str, problem: str, text: str) -> None:
        """Logs a text, unless the same problem was logged just now.

        Args:
            camera: its name, empty for none.
            problem: which it is; numbers and quotations in it do not count.
            text: to log.
        """
        now = time.monotonic()
        recent = {key: at for key, at in self._at.items() if now - at < WARN_PERIOD_SECONDS}
        key = camera, VARYING.sub('', problem)
        if key not in recent and len(recent) < MAX_WARNINGS:
            recent[key] = now
            self._node.get_logger().warning(f'{camera}: {text}' if camera else text)
        self._at = recent
