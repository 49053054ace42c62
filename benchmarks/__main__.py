"""make bench: what the stages cost, and what the node adds, on this machine, in one run.

Prints medians, and writes them with the machine's description to benchmarks.json.
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posenet_ros import DecoderConfig, ModelConfig, PoseNet

ROUNDS = 60
SIZES = ((640, 480), (1920, 1080))


def photo(width: int, height: int) -> np.ndarray:
    from skimage import data

    return cv2.resize(data.astronaut(), (width, height))


def machine() -> dict[str, Any]:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    model = next((line.split(': ')[1] for line in lines if line.startswith('model name')), '')
    return {'cpu': model or platform.processor(), 'cores': os.cpu_count()}


def stages() -> list[dict[str, Any]]:
    """Milliseconds of each stage on one thread, the cases interleaved."""
    cases = []
    for resolution in (257, 513):
        net = PoseNet.load(ModelConfig(input_resolution=resolution), num_threads=1)
        for size in SIZES:
            cases.append((resolution, size, net, photo(*size), []))
    decoder = DecoderConfig()
    for _ in range(ROUNDS):
        for _, _, net, image, samples in cases:
            net.estimate([image[..., ::-1]], decoder)
            times = net.stage_times
            samples.append((times.preprocess, times.inference, times.decode))
    results = []
    for resolution, size, _, _, samples in cases:
        preprocess, inference, decode = (
            1000 * statistics.median(column) for column in zip(*samples, strict=True)
        )
        results.append(
            {
                'input': resolution,
                'image': list(size),
                'preprocess_ms': preprocess,
                'inference_ms': inference,
                'decode_ms': decode,
                'inference_share': inference / (preprocess + inference + decode),
            }
        )
    return results


def node(profile: bool) -> list[dict[str, Any]]:
    """Two processes: this one's child is the camera and the subscriber, the node is the other."""
    environment = {
        **os.environ,
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'ROS_DOMAIN_ID': str(random.randint(1, 100)),
    }
    for variable in ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE'):
        # `make env` sets the one that this distribution reads.
        if not profile:
            environment.pop(variable, None)
    results = []
    for width, height in SIZES:
        process = subprocess.Popen(
            ['posenet_node'], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            command = [sys.executable, '-m', 'benchmarks.camera', str(width), str(height)]
            output = subprocess.run(command, env=environment, check=True, capture_output=True)
            results.append({'profile': profile, **json.loads(output.stdout)})
        finally:
            process.terminate()
            process.wait()
    return results


def main() -> None:
    started = time.monotonic()
    report: dict[str, Any] = {'machine': machine(), 'stages': stages(), 'node': []}
    print(f'{report["machine"]["cpu"]}, {report["machine"]["cores"]} cores\n')
    print('One thread, median ms            preprocess  inference  decode  inference share')
    for row in report['stages']:
        width, height = row['image']
        print(
            f'  {width} x {height} to {row["input"]:<14}{row["preprocess_ms"]:10.2f} '
            f'{row["inference_ms"]:10.2f} {row["decode_ms"]:7.2f} {row["inference_share"]:12.0%}'
        )
    print('\nCamera process to node process to poses, 30 Hz, best effort')
    for profile in (True, False):
        for row in node(profile):
            report['node'].append(row)
            width, height = row['image']
            latency = row['latency_ms']
            print(
                f'  {width} x {height}, Fast DDS {"profile" if profile else "default"}: '
                f'{row["received"]} of {row["sent"]} frames, '
                f'{"-" if latency is None else f"{latency:.1f} ms"} median'
            )
    Path('benchmarks.json').write_text(json.dumps(report, indent=2) + '\n')
    print(f'\nWritten: benchmarks.json ({time.monotonic() - started:.0f} s)')


if __name__ == '__main__':
    main()
