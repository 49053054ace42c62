"""Caches TensorRT engines, by everything that an engine depends on."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posenet_ros.backends.cuda_memory import Cuda
from posenet_ros.backends.engine_builder import (
    BUILDER_VERSION,
    EngineOptions,
    build_engine,
    is_strongly_typed,
)
from posenet_ros.cache import Key, open_cache
from posenet_ros.progress import Progress

logger = logging.getLogger('posenet_ros')


def device_key(trt: Any, cuda: Cuda) -> Key:
    """What ties an engine to this machine: versions, driver and GPU."""
    return {
        'builder': BUILDER_VERSION,
        'tensorrt': trt.__version__,
        'cuda': cuda.driver_version // 1000,
        'driver': _read_match('/proc/driver/nvidia/version', r'\s(\d+)\.\d+'),
        'gpu': cuda.device_name,
        'compute_capability': list(cuda.compute_capability),
        'l4t': _read_match('/etc/nv_tegra_release', r'# R(\d+ \(release\), REVISION: [\d.]+)'),
    }


def engine_key(trt: Any, cuda: Cuda, model: bytes, options: EngineOptions) -> Key:
    """Everything that an engine depends on."""
    return {
        **device_key(trt, cuda),
        'onnx': hashlib.sha256(model).hexdigest(),
        'strongly_typed': is_strongly_typed(trt),
        **json.loads(json.dumps(asdict(options))),  # tuples become lists
    }


def cached_engine(
    trt: Any,
    cuda: Cuda,
    model: bytes,
    options: EngineOptions,
    *,
    check: Callable[[bytes], None],
    rebuild: bool = False,
    progress: Progress | None = None,
) -> bytes:
    """The engine for a model: from the cache, or built, which can take minutes.

    Args:
        trt: the module tensorrt.
        cuda: the device.
        model: serialised ONNX.
        options: how it is built.
        check: raises an error for a new engine that is not to be kept.
        rebuild: build it even if the cache has it.
        progress: called during a build; None logs every quarter.

    Raises:
        ConfigError, BackendError: it cannot be built.
    """
    cache = open_cache('engines', 'the engine is built')
    device = {'timing cache of': device_key(trt, cuda)}

    def build(reason: str) -> bytes:
        logger.info(
            'building the TensorRT engine (%s): seconds on a desktop, minutes on a small Jetson',
            reason,
        )
        started = time.monotonic()
        timings = cache.peek(device) if cache else None
        with cuda.current():
            plan, timings = build_engine(trt, model, options, timings or b'', progress or _logged())
        if timings and cache:
            cache.put(device, timings)
        logger.info('built the TensorRT engine in %.1f s', time.monotonic() - started)
        check(plan)
        return plan

    if cache is None:
        return build('there is no cache')
    return cache.get(engine_key(trt, cuda, model, options), build, rebuild)


def _logged() -> Progress:
    """Logs a line at every quarter of a phase."""
    logged: dict[str, int] = {}

    def progress(phase: str, done: int, total: int) -> None:
        quarter = 4 * done // total
        if quarter > logged.get(phase, 0):
            logged[phase] = quarter
            logger.info('building the TensorRT engine: %s, %d%%', phase, 25 * quarter)

    return progress


def _read_match(path: str, pattern: str) -> str:
    """The first group of a pattern in a system file; empty where there is none."""
    try:
        found = re.search(pattern, Path(path).read_text(errors='replace'))
    except OSError:
        return ''
    return found.group(1) if found else ''
