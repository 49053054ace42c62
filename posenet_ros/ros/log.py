"""Forwards the library's log, which uses Python's logging, to the node's logger."""

from __future__ import annotations

import logging
from typing import Any

from posenet_ros.errors import printable


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
