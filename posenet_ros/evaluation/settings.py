"""Settings against labelled photos: how good each is, how long it takes, and which to choose."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from posenet_ros.config import DecoderConfig, ModelConfig, RuntimeConfig
from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import MIN_POSE_SCORE
from posenet_ros.core.preprocess import Letterbox
from posenet_ros.errors import LabelError
from posenet_ros.estimator import PoseNet
from posenet_ros.evaluation.accuracy import Accuracy, accuracy
from posenet_ros.evaluation.labels import Photo
from posenet_ros.io.photos import read_image
from posenet_ros.recordings.frames import is_frame_name, read_frame

# What `tune` tries: input sizes, precisions of CPUs and of GPUs, and close-ups.
RESOLUTIONS = (193, 257, 321, 385, 449, 513, 641)
PRECISIONS = {
    'onnxruntime': ('int8', 'fp32'),
    'onnxruntime-cuda': ('fp16', 'fp32'),
    'tensorrt': ('int8', 'fp16'),
}
CLOSEUPS = (0, 161, 193, 257)
PHOTOS_TO_TIME = 8


@dataclass(frozen=True)
class Setting:
    """What `posenet estimate` can be told."""

    name: str
    model: ModelConfig = field(default_factory=ModelConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def load(self) -> PoseNet:
        return PoseNet.load(self.model, **asdict(self.runtime))


@dataclass(frozen=True)
class Evaluation:
    """What became of a setting, or of somebody else's predictions (without times)."""

    name: str
    accuracy: Accuracy
    poses: Mapping[int, list[Pose]]  # by the photo's id
    milliseconds: tuple[float, ...]  # of each photo, in order; empty if not known

    @property
    def mean_milliseconds(self) -> float:
        return float(np.mean(self.milliseconds)) if self.milliseconds else math.nan

    @property
    def p95_milliseconds(self) -> float:
        return float(np.percentile(self.milliseconds, 95)) if self.milliseconds else math.nan

    def times_as_long_as(self, other: Evaluation) -> float:
        """Ratio of the total times: photo by photo, both ran one after the other."""
        return self.mean_milliseconds / other.mean_milliseconds


class EvaluationInterrupted(Exception):
    """Ctrl-C or a signal ended an evaluation; what was finished is in it.

    Args:
        evaluations: over the photos that all settings had run on.
        num_photos: how many these are.
        interruption: what ended it.
    """

    def __init__(
        self, evaluations: list[Evaluation], num_photos: int, interruption: BaseException
    ) -> None:
        super().__init__(f'interrupted after {num_photos} photos')
        self.evaluations = evaluations
        self.num_photos = num_photos
        self.interruption = interruption


def evaluate(
    settings: Sequence[Setting],
    photos: Sequence[Photo],
    folder: Path,
    min_score: float = MIN_POSE_SCORE,
    progress: Callable[[Iterable[Photo], int], Iterable[Photo]] = lambda items, total: items,
) -> list[Evaluation]:
    """Runs settings over photos and scores them.

    All settings run on a photo before the next photo, so that what else the machine does falls on
    all of them alike. The first run of an input size is not timed.

    Args:
        settings: to be compared.
        photos: with their labels.
        folder: that their file names are in.
        min_score: of poses that count as false if they are nobody.
        progress: wraps the photos, given their number.

    Raises:
        ImageError: a photo cannot be read.
        PoseNetError: whatever loading and running a setting raises.
        EvaluationInterrupted: by Ctrl-C or a signal, after one photo or more.
    """
    if not settings:
        return []
    poses: list[dict[int, list[Pose]]] = [{} for _ in settings]
    times: list[list[float]] = [[] for _ in settings]
    done: list[Photo] = []
    interruption: BaseException | None = None
    with contextlib.ExitStack() as stack:
        nets = [stack.enter_context(setting.load()) for setting in settings]
        known: list[set[tuple[int, int]]] = [set() for _ in settings]
        try:
            for photo in progress(photos, len(photos)):
                image = read_photo(photo, folder)
                for i, (setting, net) in enumerate(zip(settings, nets, strict=True)):
                    poses[i][photo.id], milliseconds = estimate_timed(net, setting, image, known[i])
                    times[i].append(milliseconds)
                done.append(photo)
        except (KeyboardInterrupt, SystemExit) as error:
            if not done:
                raise
            interruption = error
    evaluations = []
    for setting, found, taken in zip(settings, poses, times, strict=True):
        of_done = {photo.id: found[photo.id] for photo in done}
        result = accuracy(done, of_done, input_scale(setting.model), min_score)
        evaluations.append(Evaluation(setting.name, result, of_done, tuple(taken[: len(done)])))
    if interruption is not None:
        raise EvaluationInterrupted(evaluations, len(done), interruption)
    return evaluations


def estimate_timed(
    net: PoseNet, setting: Setting, image: np.ndarray, known: set[tuple[int, int]]
) -> tuple[list[Pose], float]:
    """The poses of an image, and how many milliseconds they took.

    Args:
        net: of the setting.
        setting: of the decoder.
        image: uint8 RGB (H, W, 3).
        known: input sizes that have run before; another one runs twice, and is added.
    """
    size = setting.model.input_size(*image.shape[:2])
    if size not in known:
        known.add(size)
        net.estimate([image], setting.decoder)
    started = time.perf_counter()
    poses = net.estimate([image], setting.decoder)[0]
    return poses, 1000 * (time.perf_counter() - started)


def is_there(photo: Photo, folder: Path) -> bool:
    """Whether a photo is a file of a folder, or by its name a frame of a bag."""
    return _file_of(photo, folder) is not None or is_frame_name(folder, photo.file_name)


def _file_of(photo: Photo, folder: Path) -> Path | None:
    """The file of a photo. Labelling tools put folders, or a few characters and -, before names."""
    parts = Path(photo.file_name).name.split('-')
    ends = ('-'.join(parts[i:]) for i in range(len(parts)))
    files = (folder / name for name in (photo.file_name, *ends) if name)
    return next((file for file in files if file.is_file()), None)


def read_photo(photo: Photo, folder: Path) -> np.ndarray:
    """The pixels of a labelled photo, as uint8 RGB (H, W, 3).

    Args:
        photo: of the labels.
        folder: of photos; or a bag, or a folder of bags, whose frames they are.

    Raises:
        ImageError: it cannot be read.
        PoseNetError: a bag cannot be read.
        LabelError: its labels are for another size.
    """
    file = _file_of(photo, folder)
    image = read_frame(folder, photo.file_name) if file is None else read_image(file)
    if photo.height and image.shape[:2] != (photo.height, photo.width):
        raise LabelError(
            f'{folder / photo.file_name} is {image.shape[1]} x {image.shape[0]} pixels, and its '
            f'labels are for {photo.width} x {photo.height}'
        )
    return image


def input_scale(model: ModelConfig) -> Callable[[Photo], float]:
    """Pixels of the network's input per pixel of a photo."""

    def scale(photo: Photo) -> float:
        size = model.input_size(photo.height, photo.width)
        return 1 / Letterbox.fit(photo.height, photo.width, *size).scale

    return scale


def frontier(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Those that nothing faster is as good as, the fastest first."""
    best: list[Evaluation] = []
    timed = [e for e in evaluations if e.milliseconds]
    for evaluation in sorted(timed, key=lambda e: (e.mean_milliseconds, -e.accuracy.ap)):
        if not best or evaluation.accuracy.ap > best[-1].accuracy.ap:
            best.append(evaluation)
    return best


def candidates(base: Setting) -> Iterator[Setting]:
    """Settings worth trying on this machine; what they do not set is the base's."""
    with base.load() as net:
        precisions = PRECISIONS[net.backend.name]
    for precision in precisions:
        for resolution in RESOLUTIONS:
            for closeup in CLOSEUPS:
                model = replace(
                    base.model,
                    input_aspect='image',
                    input_resolution=resolution,
                    attention='closeups' if closeup else 'off',
                    closeup_resolution=closeup or base.model.closeup_resolution,
                )
                name = f'{resolution} {precision}' + f', close-ups of {closeup}' * bool(closeup)
                yield Setting(
                    name,
                    model,
                    replace(base.decoder, decoder='refined'),
                    replace(base.runtime, precision=precision),
                )


def some_of(photos: Sequence[Photo]) -> Sequence[Photo]:
    """A few photos, to find out how fast a setting is."""
    return photos[:: max(1, len(photos) // PHOTOS_TO_TIME)]


def evaluate_fast_ones(
    settings: Iterable[Setting],
    photos: Sequence[Photo],
    folder: Path,
    min_score: float,
    milliseconds: float,
) -> list[tuple[Setting, Evaluation]]:
    """Runs those settings, one after the other, whose median time over a few photos is in a limit.

    Only one is loaded at a time.
    """
    some = some_of(photos)
    results = []
    for setting in settings:
        (tried,) = evaluate([setting], some, folder)
        if np.median(tried.milliseconds) <= milliseconds:
            results += [(setting, e) for e in evaluate([setting], photos, folder, min_score)]
    return results
