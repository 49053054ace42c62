"""Measures and checks what this machine can run, for a report.

With a GPU, TensorRT runs in every precision and is compared with ONNX Runtime in float32. Without
one, the same is done for ONNX Runtime alone, and the report says why.
"""

from __future__ import annotations

import importlib
import platform
import re
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from posenet_ros.backends import Backend, find_runtime
from posenet_ros.backends.cuda_memory import Cuda
from posenet_ros.config import PRECISIONS, DecoderConfig, ModelConfig, RuntimeConfig
from posenet_ros.core.heads import HEADS
from posenet_ros.core.preprocess import preprocess
from posenet_ros.errors import NoDeviceError, PoseNetError
from posenet_ros.estimator import PoseNet
from posenet_ros.evaluation.compare import compare
from posenet_ros.model.calibration import generated_images
from posenet_ros.version import __version__

BATCHES = (1, 4)
MAX_FP32_ERROR = 0.05  # of any head: pixels, or score
MAX_SCORE_ERROR = 0.25  # of the heatmap in any precision; a wrong kernel makes it larger
# Their versions are in the report; not all of them are needed.
PACKAGES = (
    'numpy', 'onnx', 'onnxruntime', 'onnxruntime-gpu', 'numba', 'tensorrt', 'pycuda',
    'cuda-bindings',
)  # fmt: skip


def selftest(
    config: ModelConfig,
    runtime: RuntimeConfig,
    photo: np.ndarray | None = None,
    rounds: int = 100,
    tell: Callable[[str], None] = lambda what: None,
) -> dict[str, Any]:
    """Runs everything that can be run here.

    Args:
        config: which network.
        runtime: options of tensorrt (CUDA library, workspace, DLA), and the backend if forced.
        photo: of people, uint8 RGB (H, W, 3), for the shift of the keypoints.
        rounds: how often each run is timed.
        tell: called with a description of each step.

    Returns:
        The report, ready for JSON. `passed` is false where something that should work did not.
    """
    report: dict[str, Any] = {
        'posenet_ros': __version__,
        'python': sys.version.split()[0],
        'machine': platform.machine(),
        'system': platform.platform(),
        'cpu': _cpu_name(),
        'packages': {name: _version(name) for name in PACKAGES},
        'model': f'{config.architecture} {config.multiplier:g} stride {config.output_stride}',
        'input': list(config.input_sizes.typical),
        'passed': True,
        'runs': [],
    }
    backend = 'onnxruntime'
    report['device'] = None
    if runtime.backend == 'onnxruntime-cuda' or (
        runtime.backend == 'auto' and _runs_by_onnxruntime_cuda_alone(runtime)
    ):
        backend = 'onnxruntime-cuda'
    elif runtime.backend != 'onnxruntime':
        from posenet_ros.backends.tensorrt import open_tensorrt

        try:
            _, cuda = open_tensorrt(runtime.cuda_library)
        except NoDeviceError as error:
            report['not_checked'] = f'everything on a GPU: {error}'
            report['passed'] = runtime.backend != 'tensorrt'
        else:
            report['device'] = {
                'name': cuda.device_name,
                'compute_capability': list(cuda.compute_capability),
                'driver': cuda.driver_version,
                'library': cuda.library,
            }
            with cuda.current():
                report['device']['copies_ms'] = _copies(cuda, config, rounds)
            cuda.close()
            backend = 'tensorrt'
    height, width = config.input_sizes.typical
    images = np.stack(list(generated_images(max(BATCHES), height, width)))
    with PoseNet.load(config, 'onnxruntime', 'fp32') as reference:
        max_batch = runtime.largest_batch(max(BATCHES))
        for precision in PRECISIONS:
            if (backend, precision) == ('onnxruntime-cuda', 'int8'):
                continue  # which it does not have
            tell(f'{backend} {precision}')
            options = {
                'calibration': runtime.calibration,
                'cuda_library': runtime.cuda_library,
                'workspace_mib': runtime.workspace_mib,
                'dla_core': runtime.dla_core,
            }
            run: dict[str, Any] = {'backend': backend, 'precision': precision}
            report['runs'].append(run)
            started = time.perf_counter()
            try:
                with PoseNet.load(
                    config, backend, precision, max_batch=max_batch, **options
                ) as net:
                    run['load_seconds'] = time.perf_counter() - started
                    _measure(run, net, reference, images, photo, rounds)
                run.update(_judged(run))
                report['passed'] &= 'error' not in run
            except PoseNetError as error:
                run['error'] = str(error)
                report['passed'] = False
    return report


def _runs_by_onnxruntime_cuda_alone(runtime: RuntimeConfig) -> bool:
    """Whether there is a GPU without TensorRT."""
    try:
        found = find_runtime(replace(runtime, precision=None), 4)
    except PoseNetError:
        return False
    found.close()
    return found.name == 'onnxruntime-cuda'


def _judged(run: dict[str, Any]) -> dict[str, str]:
    """The error in the numbers of a run; empty if they are good."""
    worst = max(run['max_error'].values())
    if run['precision'] == 'fp32' and worst > MAX_FP32_ERROR:
        return {
            'error': f'fp32 differs from ONNX Runtime by {worst:.3g}, more than {MAX_FP32_ERROR}'
        }
    if not run['max_error']['heatmap'] <= MAX_SCORE_ERROR:  # NaN too
        return {
            'error': f'heatmap scores differ from ONNX Runtime by {run["max_error"]["heatmap"]:.3g}'
            f', more than {MAX_SCORE_ERROR}'
        }
    # Data left over from another run makes whole heads wrong; other tactics differ far less.
    if run['batch_error'] > max(MAX_FP32_ERROR, 2 * worst):
        return {'error': f'an image alone and in a batch differ by {run["batch_error"]:.3g}'}
    return {}


def _measure(
    run: dict[str, Any],
    net: PoseNet,
    reference: PoseNet,
    images: np.ndarray,
    photo: np.ndarray | None,
    rounds: int,
) -> None:
    run['device'] = net.backend.device
    inputs = np.zeros((len(images), 3, net.input_height, net.input_width), np.float32)
    for image, tensor in zip(images, inputs, strict=True):
        preprocess(image, net.config.architecture, tensor)
    wanted = _heads(reference.backend, inputs)
    together = _heads(net.backend, inputs)
    run['max_error'] = {
        name: float(np.abs(got - want).max())
        for name, got, want in zip(HEADS, together, wanted, strict=True)
    }
    # Each image alone, between batches: what is left over from one run must not reach another.
    alone = [[head.copy() for head in net.backend.run(inputs[i : i + 1])] for i in (2, 0, 2)]
    run['batch_error'] = max(
        float(np.abs(heads[h][0] - together[h][i]).max())
        for heads, i in zip(alone, (2, 0, 2), strict=True)
        for h in range(len(HEADS))
    )
    run['latency_ms'] = {
        str(count): _latencies(net.backend, inputs[:count], rounds)
        for count in BATCHES
        if count <= net.backend.max_batch
    }
    frames = list(images)
    seconds = _timed(lambda: net.estimate(frames[:1], DecoderConfig()), rounds)
    run['frames_per_second'] = 1 / float(np.median(seconds))
    if photo is None:
        run['photo'] = 'not checked: no photo was given'
    else:
        run['photo'] = vars(compare(reference, {'': net}, [photo])[''])


def _heads(backend: Backend, inputs: np.ndarray) -> list[np.ndarray]:
    """The heads of all inputs, run in batches as large as the backend takes."""
    step = backend.max_batch
    runs = [
        [head.copy() for head in backend.run(inputs[first : first + step])]
        for first in range(0, len(inputs), step)
    ]
    return [np.concatenate(heads) for heads in zip(*runs, strict=True)]


def _copies(cuda: Cuda, config: ModelConfig, rounds: int) -> dict[str, float]:
    """Median ms of one image to the device, and of its heads back."""
    height, width = config.input_sizes.typical
    rows, columns = ((size - 1) // config.output_stride + 1 for size in (height, width))
    image = cuda.allocate_pinned((1, 3, height, width))
    heads = cuda.allocate_pinned((1, rows, columns, sum(HEADS.values())))
    address = cuda.allocate(max(image.nbytes, heads.nbytes))

    def copied(copy: Callable[[], None]) -> float:
        def work() -> None:
            copy()
            cuda.synchronize()

        return 1000 * float(np.median(_timed(work, rounds)))

    milliseconds = {
        'image': copied(lambda: cuda.to_device(address, image)),
        'heads': copied(lambda: cuda.to_host(heads, address)),
    }
    cuda.free(address)
    cuda.free_pinned(image)
    cuda.free_pinned(heads)
    return milliseconds


def _latencies(backend: Backend, inputs: np.ndarray, rounds: int) -> dict[str, float]:
    """Percentiles of one run of the network with its copies, in ms."""
    batch = backend.input_buffer(len(inputs), *inputs.shape[2:])
    batch[:] = inputs
    milliseconds = 1000 * np.array(_timed(lambda: backend.run(batch), rounds))
    return {f'p{q}': float(np.percentile(milliseconds, q)) for q in (50, 95, 99)}


def _timed(work: Callable[[], Any], rounds: int) -> list[float]:
    for _ in range(3):
        work()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return seconds


def table(report: dict[str, Any]) -> str:
    """The report as a text table."""
    device = report['device']
    where = f'{device["name"]} through {device["library"]}' if device else report['cpu']
    lines = [f'{report["model"]}, input {report["input"]}, on {where}']
    if 'not_checked' in report:
        lines.append(f'not checked: {report["not_checked"]}')
    lines.append(
        f'{"":18}{"load":>8}{"b1 p50":>9}{"p95":>8}{"p99":>8}{"b4 p50":>9}{"fps":>8}'
        f'{"heat":>9}{"offset":>9}{"displ.":>9}{"OKS":>8}{"shift":>8}'
    )
    for run in report['runs']:
        name = f'{run["backend"]} {run["precision"]}'
        if 'error' in run:
            lines.append(f'{name:18} FAILED: {run["error"]}')
            continue
        one, four = run['latency_ms']['1'], run['latency_ms'].get('4')
        batch = f'{four["p50"]:.2f}' if four else '-'
        error = run['max_error']
        photo = run['photo']
        similarity, shift = '-', '-'
        if isinstance(photo, dict):
            similarity, shift = f'{photo["mean_oks"]:.3f}', f'{photo["mean_shift"]:.2f}'
        lines.append(
            f'{name:18}{run["load_seconds"]:7.1f}s{one["p50"]:9.2f}{one["p95"]:8.2f}'
            f'{one["p99"]:8.2f}{batch:>9}{run["frames_per_second"]:8.1f}'
            f'{error["heatmap"]:9.1e}{error["offset"]:9.1e}{error["displacement_fwd"]:9.1e}'
            f'{similarity:>8}{shift:>8}'
        )
    lines.append(
        'times in ms with copies; heat, offset, displ.: largest difference from ONNX Runtime fp32 '
        'over generated images, in scores and pixels'
    )
    lines.append('passed' if report['passed'] else 'FAILED')
    return '\n'.join(lines)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        pass
    try:  # Jetson's tensorrt comes from apt, without metadata
        return getattr(importlib.import_module(package), '__version__', None)
    except ImportError:
        return None


def _cpu_name() -> str:
    try:
        found = re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text())
    except OSError:
        found = None
    return found.group(1) if found else platform.processor() or platform.machine()
