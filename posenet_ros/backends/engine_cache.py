"""The TensorRT engine of a network: what it depends on, and the one that is kept for it."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posenet_ros.backends.cuda_memory import Cuda
from posenet_ros.backends.engine_builder import (
    BUILDER_VERSION,
    EngineOptions,
    Progress,
    build_engine,
    is_strongly_typed,
)
from posenet_ros.build_cache import BuildCache, Key

logger = logging.getLogger('posenet_ros')


def device_key(trt: Any, cuda: Cuda) -> Key:
    """What ties an engine to this machine, as far as it can be read."""
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
    """All that decides which engine comes out of a build."""
    return {
        **device_key(trt, cuda),
        'onnx': hashlib.sha256(model).hexdigest(),
        'strongly_typed': is_strongly_typed(trt),
        **json.loads(json.dumps(asdict(options))),  # tuples as JSON has them
    }


def cached_engine(
    trt: Any,
    cuda: Cuda,
    model: bytes,
    options: EngineOptions,
    *,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> bytes:
    """The engine for a model: from the cache, or built, which can take minutes.

    Args:
        trt: the module tensorrt.
        cuda: the device.
        model: serialised ONNX.
        options: how it is built.
        rebuild: build it whatever the cache has.
        progress: told how far a build is; by default the log is.

    Raises:
        ConfigError, BackendError: it cannot be built, or the cache cannot be trusted.
    """
    cache = BuildCache('engines')
    device = {'timing cache of': device_key(trt, cuda)}

    def build(reason: str) -> bytes:
        logger.info(
            'building the TensorRT engine (%s): seconds on a desktop, minutes on a small Jetson',
            reason,
        )
        started = time.monotonic()
        with cuda.current():
            plan, timing_cache = build_engine(
                trt, model, options, cache.peek(device) or b'', progress or _logged()
            )
        if timing_cache:
            cache.put(device, timing_cache)
        logger.info('built the TensorRT engine in %.1f s', time.monotonic() - started)
        return plan

    return cache.get(engine_key(trt, cuda, model, options), build, rebuild)


def _logged() -> Progress:
    """Progress for a log: a line at every quarter."""
    told: dict[str, int] = {}

    def progress(phase: str, done: float) -> None:
        if int(done * 4) > told.get(phase, 0):
            told[phase] = int(done * 4)
            logger.info('building the TensorRT engine: %s, %d%%', phase, 25 * told[phase])

    return progress


def _read_match(path: str, pattern: str) -> str:
    """What a pattern finds in a file of the system; empty where there is none."""
    try:
        found = re.search(pattern, Path(path).read_text(errors='replace'))
    except OSError:
        return ''
    return found.group(1) if found else ''
