"""The reference implementation as a process to race with: reference/reference.js in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from benchmarks.figures import ROOT

SOURCES = Path(__file__).parent / 'reference'
INSTALLED = ROOT / 'build/reference'


class ReferenceUnavailableError(Exception):
    """The reference cannot be run here; says why."""


class Reference:
    """@tensorflow-models/posenet on tfjs-backend-wasm; see reference.js for what it answers."""

    def __init__(self) -> None:
        _install()
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            ['node', str(INSTALLED / 'reference.js')],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about: dict[str, Any] = self._answer()
        if not self.about['simd'] or self.about['threads']:
            raise ReferenceUnavailableError(
                f'it should run with SIMD on one thread; it is {self.about}'
            )

    def load(self, graph_path: Path, resolution: int, multiplier: float, stride: int) -> int:
        config = {
            'architecture': 'MobileNetV1',
            'outputStride': stride,
            'multiplier': multiplier,
            'inputResolution': resolution,
        }
        return self._ask(do='load', model=str(graph_path), config=config)

    def image(self, rgb: np.ndarray) -> int:
        height, width = rgb.shape[:2]
        file = Path(self._folder.name) / 'image'
        np.dstack([rgb, np.full((height, width), 255, np.uint8)]).tofile(file)
        return self._ask(do='image', file=str(file), width=width, height=height)

    def maps(self, maps: list[np.ndarray]) -> int:
        for i, values in enumerate(maps):
            np.ascontiguousarray(values, np.float32).tofile(Path(self._folder.name) / f'{i}.f32')
        height, width = maps[0].shape[:2]
        return self._ask(do='maps', folder=self._folder.name, height=height, width=width)

    def estimate(self, net: int, image: int, count: int) -> dict[str, Any]:
        """Milliseconds of each of `count` runs, and the poses."""
        return self._ask(do='estimate', net=net, image=image, count=count)

    def decode(self, maps: int, stride: int, most: int, count: int) -> dict[str, Any]:
        """The same for the decoder alone."""
        return self._ask(
            do='decode', maps=maps, stride=stride, max=most, threshold=0.5, radius=20, count=count
        )

    def __enter__(self) -> Reference:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + '\n')
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ReferenceUnavailableError(f'node ended with status {self._process.wait()}')
        return json.loads(line)


def _install() -> None:
    if shutil.which('node') is None or shutil.which('npm') is None:
        raise ReferenceUnavailableError('Node.js and npm are not installed')
    INSTALLED.mkdir(parents=True, exist_ok=True)
    for name in ('package.json', 'reference.js'):
        shutil.copy(SOURCES / name, INSTALLED)
    if (INSTALLED / 'node_modules/.package-lock.json').exists():
        return
    command = ['npm', 'install', '--no-audit', '--no-fund', '--no-package-lock', '--silent']
    if subprocess.run(command, cwd=INSTALLED, check=False).returncode != 0:
        raise ReferenceUnavailableError('npm could not install it; its messages above say why')
