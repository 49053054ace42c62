"""Decoding, pre-processing and the whole chain in memory, on one thread; against the reference."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.figures import Section, interleaved, medians, times_faster
from benchmarks.inputs import couple_maps, crowd_maps, noise_maps, photo, photo_name
from benchmarks.limit import PRODUCT_OPERATIONS, matrix_product, operations
from benchmarks.reference import Reference
from posenet_ros import DecoderConfig, ModelConfig, Pose, PoseNet
from posenet_ros.core.decode import _build_queue, decode_multiple_poses
from posenet_ros.core.preprocess import preprocess
from posenet_ros.io.image_message import image_to_rgb
from posenet_ros.model.network import make_network, weights_for

MESSAGE_SIZES = ((640, 480), (1920, 1080))


def largest_difference(ours: list[Pose], theirs: list[dict[str, Any]]) -> float:
    """Largest difference of any score or coordinate; infinite if the numbers of people differ."""
    if len(ours) != len(theirs):
        return float('inf')

    def flat(pose: dict[str, Any]) -> list[float]:
        points = [
            value
            for point in pose['keypoints']
            for value in (point['score'], point['position']['x'], point['position']['y'])
        ]
        return [pose['score'], *points]

    pairs = zip((flat(pose.to_dict()) for pose in ours), map(flat, theirs), strict=True)
    return max((float(np.abs(np.subtract(one, other)).max()) for one, other in pairs), default=0.0)


def decoding(reference: Reference, quick: bool) -> Section:
    section = Section("1. Decoding, against the reference's decoder in JavaScript")
    cases = {
        'the photo at 257': (couple_maps(257), 16, 5),
        'the photo at 513': (couple_maps(513), 16, 5),
        '30 people at stride 8': (crowd_maps(30), 8, 30),
        'noise at stride 8': (noise_maps(), 8, 5),
    }
    runs: dict[str, Callable[[], list[float] | None]] = {}
    for name, (maps, stride, most) in cases.items():
        known = reference.maps(maps)
        theirs = reference.decode(known, stride, most, 100)['poses']
        difference = largest_difference(decode_multiple_poses(*maps, stride, most), theirs)
        section.add(f'{name}: largest difference', difference, '', 0.0)

        def ours(maps=maps, stride=stride, most=most) -> list[float]:
            return timed(lambda: decode_multiple_poses(*maps, stride, most), 20)

        def js(known=known, stride=stride, most=most) -> list[float]:
            return reference.decode(known, stride, most, 5)['ms']

        runs[name], runs[f'{name}, reference'] = ours, js
    rounds = interleaved(runs, 5 if quick else 30)
    times = medians(rounds)
    for name in cases:
        ours_ms, theirs_ms = times[name], times[f'{name}, reference']
        faster = times_faster(rounds[f'{name}, reference'], rounds[name])
        note = f'{1000 * ours_ms:.0f} us against {1000 * theirs_ms:.0f}'
        section.add(f'{name}: times faster', faster, 'x', 30, True, note)
    _growth(section, quick)
    return section


def _growth(section: Section, quick: bool) -> None:
    """The cost of one more person, and of one more local maximum that starts no person."""
    counts = [0, 1, 2, 5, 10, 20, 30]
    crowds = {n: crowd_maps(max(n, 1)) for n in counts}
    crowds[0][0][:] = 0
    runs = {
        str(n): (lambda maps=maps: timed(lambda: decode_multiple_poses(*maps, 8, 100), 20))
        for n, maps in crowds.items()
    }
    # All peaks near the first person's: found, and rejected one by one.
    rejected = crowd_maps(1)
    floor = np.random.default_rng(0).uniform(0.5, 0.9, rejected[0].shape).astype(np.float32)
    rejected[0][:] = np.maximum(rejected[0], floor)
    runs['rejected'] = lambda: timed(lambda: decode_multiple_poses(*rejected, 8, 100, 0.5, 1e4), 20)
    times = {name: 1000 * ms for name, ms in medians(interleaved(runs, 5 if quick else 20)).items()}
    section.series = {'people': counts, 'us': [times[str(n)] for n in counts]}
    section.add('one more person', (times['30'] - times['0']) / 30, 'us')
    peaks = _build_queue(rejected[0], 0.5)[2] - 17
    section.add(
        'one more peak that is rejected', 1000 * (times['rejected'] - times['1']) / peaks, 'ns',
        note=f'{peaks} of them',
    )  # fmt: skip


def timed(work: Callable[[], Any], count: int) -> list[float]:
    """Milliseconds of each of `count` runs."""
    milliseconds = []
    for _ in range(count):
        started = time.perf_counter()
        work()
        milliseconds.append(1000 * (time.perf_counter() - started))
    return milliseconds


class _Message:
    """The fields of a bgr8 sensor_msgs/Image that are read."""

    def __init__(self, rgb: np.ndarray) -> None:
        self.height, self.width = rgb.shape[:2]
        self.encoding, self.is_bigendian, self.step = 'bgr8', 0, 3 * self.width
        self.data = memoryview(rgb[..., ::-1].tobytes())


def preprocessing(quick: bool) -> Section:
    section = Section('2. Pre-processing: bgr8 message to network input')
    runs: dict[str, Callable[[], None]] = {}
    for width, height in MESSAGE_SIZES:
        for resolution in (257, 513):
            message = _Message(photo(width, height))
            out = np.empty((3, resolution, resolution), np.float32)

            def prepare(message=message, out=out) -> None:
                image = image_to_rgb(message)
                preprocess(image, 'MobileNetV1', out)

            runs[f'{width} x {height} to {resolution}'] = prepare
    times = medians(interleaved(runs, 40 if quick else 300))
    targets = {'640 x 480 to 257': 0.35, '1920 x 1080 to 257': 0.4}
    for name, milliseconds in times.items():
        section.add(name, milliseconds, 'ms', targets.get(name))
    return section


def end_to_end(reference: Reference, quick: bool) -> Section:
    section = Section('3. Photo in memory to poses, against the reference on WebAssembly')
    section.remark = photo_name()
    image = np.ascontiguousarray(photo())
    shown = reference.image(image)
    decoder = DecoderConfig()
    resolutions = (257, 353, 513)
    for resolution in resolutions:
        config = ModelConfig(input_resolution=resolution)
        weights = weights_for(config, 'fp32')
        net = reference.load(
            weights.graph_path, resolution, config.multiplier, config.output_stride
        )
        theirs = reference.estimate(net, shown, 10)['poses']
        nets = {
            precision: PoseNet.load(config, 'onnxruntime', precision, num_threads=1)
            for precision in ('fp32', 'int8')
        }
        difference = largest_difference(nets['fp32'].estimate([image], decoder)[0], theirs)
        section.add(f'{resolution}: largest difference, fp32', difference, 'px', 0.001)
        shares = []

        def js(net=net) -> list[float]:
            return reference.estimate(net, shown, 3)['ms']

        def ours(net: PoseNet) -> Callable[[], list[float]]:
            return lambda: timed(lambda: net.estimate([image], decoder), 4)

        def fp32(net=nets['fp32'], shares=shares) -> list[float]:
            milliseconds = []
            for _ in range(4):
                milliseconds += timed(lambda: net.estimate([image], decoder), 1)
                shares.append(1000 * net.stage_times.inference / milliseconds[-1])
            return milliseconds

        product = matrix_product()
        cases = {
            'reference': js,
            'fp32': fp32,
            'int8': ours(nets['int8']),
            'product': lambda product=product: timed(product, 5),
        }
        rounds = interleaved(cases, 5 if quick else 25)
        times = medians(rounds)
        for name in ('reference', 'fp32', 'int8'):
            section.series.setdefault(name, []).append(times[name])
        for precision, target in (('fp32', 3.6), ('int8', 7.5)):
            note = f'{times[precision]:.1f} ms against {times["reference"]:.1f}'
            wanted = target if resolution in (257, 513) else None
            section.add(
                f'{resolution}: {precision}, times faster',
                times_faster(rounds['reference'], rounds[precision]), 'x', wanted, True, note,
            )  # fmt: skip
        section.add(
            f'{resolution}: share of fp32 inside ONNX Runtime', 100 * float(np.median(shares)),
            '%', 94, True,
        )  # fmt: skip
        graph = make_network(config, 'fp32').onnx
        limit = operations(graph) / PRODUCT_OPERATIONS * times['product']
        section.add(
            f'{resolution}: fp32, by the speed of one matrix product', 100 * limit / times['fp32'],
            '%', note=f'which would take {limit:.1f} ms for as many operations',
        )  # fmt: skip
        for each in nets.values():
            each.close()
    section.series['resolution'] = list(resolutions)
    return section


def threads(quick: bool) -> Section:
    section = Section('9. Threads of ONNX Runtime, beside nothing and beside one busy process')
    image = np.ascontiguousarray(photo())
    decoder = DecoderConfig()
    for busy in (False, True):
        others = [subprocess.Popen([sys.executable, '-c', 'while True: pass'])] if busy else []
        try:
            for resolution in (257, 513):
                nets = {
                    name: PoseNet.load(
                        ModelConfig(input_resolution=resolution), 'onnxruntime',
                        num_threads=count, allow_spinning=spinning,
                    )
                    for name, count, spinning in (
                        ('1 thread', 1, False),
                        ('one per core', 0, False),
                        ('one per core, spinning', 0, True),
                    )
                }  # fmt: skip
                cpu = dict.fromkeys(nets, 0.0)
                wall = dict.fromkeys(nets, 0.0)

                def at_15_hz(net: PoseNet, name: str, cpu=cpu, wall=wall) -> list[float]:
                    milliseconds = []
                    started, used = time.perf_counter(), time.process_time()
                    for _ in range(6):
                        milliseconds += timed(lambda: net.estimate([image], decoder), 1)
                        time.sleep(max(0.0, 1 / 15 - milliseconds[-1] / 1000))
                    cpu[name] += time.process_time() - used
                    wall[name] += time.perf_counter() - started
                    return milliseconds

                runs = {
                    name: (lambda net=net, name=name: at_15_hz(net, name))
                    for name, net in nets.items()
                }
                times = medians(interleaved(runs, 2 if quick else 8))
                for name, net in nets.items():
                    section.add(
                        f'{resolution}, {name}{", beside a busy process" if busy else ""}',
                        times[name], 'ms', note=f'{100 * cpu[name] / wall[name]:.0f}% of a core',
                    )  # fmt: skip
                    net.close()
        finally:
            for process in others:
                process.kill()
                process.wait()
    section.remark = '15 Hz, fp32; default: one per core, not spinning'
    return section
