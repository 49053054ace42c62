"""Fixtures: the reference's goldens, a real model, real photos."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from goldens import DATA, SHARED

from posenet_ros import CheckpointError, ModelConfig, PoseNet
from posenet_ros.cache import posenet_home
from posenet_ros.io.photos import write_image

# As posenet_ros does, for the tests that import ONNX Runtime before it.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')

NO_SHARED = 'the full set of goldens, models and photos (../shared) is not on this machine'


def pytest_configure(config: pytest.Config) -> None:
    """Uses a cache of the tests' own, which is kept between runs, and not the user's."""
    os.environ['POSENET_HOME'] = str(config.rootpath / '.pytest_cache/posenet_home')
    from posenet_ros.warm_up import compile_loops

    compile_loops()  # into this cache, and not into that of the first test which has one


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--fuzz', type=float, default=0.0, help='part of the long run: 0 to 1')
    parser.addoption('--seed', type=int, default=1, help='of random tests')


@dataclass(frozen=True)
class Fuzz:
    """How many random cases a test tries, and which: a short run, or a part of a long one."""

    share: float  # of the long run; 0 is the short one
    seed: int

    @property
    def dice(self) -> random.Random:
        return random.Random(self.seed)

    def cases(self, short: int, long: int) -> int:
        return max(short, round(self.share * long))


@pytest.fixture(scope='session')
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    return Fuzz(request.config.getoption('--fuzz'), request.config.getoption('--seed'))


@pytest.fixture
def fresh_home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A POSENET_HOME that is empty but for the compiled loops, which take ten seconds."""
    home = tmp_path_factory.mktemp('posenet') / 'home'
    shutil.copytree(posenet_home() / 'loops', home / 'loops')
    return str(home)


@pytest.fixture(scope='session')
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(NO_SHARED)
    return SHARED


@pytest.fixture(scope='session')
def validation() -> dict[str, Any]:
    return json.loads((DATA / 'validation.json').read_text())


@pytest.fixture(scope='session')
def astronaut() -> np.ndarray:
    """One person, uint8 RGB (512, 512, 3)."""
    data = pytest.importorskip('skimage.data', reason='scikit-image has the photo')
    return data.astronaut()


@pytest.fixture
def photo(tmp_path: Path, astronaut: np.ndarray) -> Path:
    """The same as a file."""
    write_image(tmp_path / 'photo.png', astronaut)
    return tmp_path / 'photo.png'


@pytest.fixture
def grey_photos(tmp_path: Path) -> Path:
    """A folder of forty photos, each of its own grey."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    for i in range(40):
        write_image(folder / f'{i:02}.png', np.full((20, 30, 3), 6 * i, np.uint8))
    return folder


@pytest.fixture(scope='session')
def default_model_config() -> ModelConfig:
    """The default model, from ../shared or fetched as a user's would be."""
    local = SHARED / 'models/mobilenet/float/075/model-stride16.json'
    return ModelConfig(model_url=str(local)) if local.exists() else ModelConfig()


@pytest.fixture(scope='session')
def net(default_model_config: ModelConfig) -> Iterator[PoseNet]:
    try:
        loaded = PoseNet.load(default_model_config)
    except CheckpointError as error:
        # Skips only if this machine is offline; any other error fails.
        if default_model_config.model_url or 'npm' not in str(error):
            raise
        if not any(reason in str(error) for reason in ('npm cannot get', 'no npm client')):
            raise
        pytest.skip(f'the default model is not available here: {error}')
    with loaded:
        yield loaded
