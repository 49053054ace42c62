"""TensorRT's log, passed on to Python's, and its errors, kept for exceptions."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

from posenet_ros.errors import BackendError

logger = logging.getLogger('posenet_ros')


def make_log(trt: Any) -> Any:
    """A trt.ILogger. TensorRT logs why a call failed, and returns only False or None."""

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=5)

        def log(self, severity: Any, message: str) -> None:
            levels = trt.ILogger
            if severity in (levels.INTERNAL_ERROR, levels.ERROR):
                self.errors.append(' '.join(message.split()))
            elif severity == levels.WARNING:
                logger.warning('TensorRT: %s', message.strip())
            else:
                logger.debug('TensorRT: %s', message.strip())

        def reasons(self) -> str:
            """The errors that were logged since the last call."""
            reasons, self.errors = '; '.join(self.errors), deque(maxlen=5)
            return reasons

        def error(self, what: str) -> BackendError:
            """An exception with the errors that were logged since the last one."""
            reasons = self.reasons()
            return BackendError(f'{what}: {reasons}' if reasons else what)

    return Log()
