"""Whether a GPU computes what a network's ONNX does.

TensorRT chooses among kernels of its own, and one that is wrong on a GPU gives wrong people without
an error: 8.5.3 made such an int8 engine on an H100 (doc/gpu.md). So an engine runs one picture
before it is kept, and ONNX Runtime says what should come out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from posenet_ros.backends.cuda_memory import Cuda
from posenet_ros.backends.engine import TensorRTBackend
from posenet_ros.core.heads import INPUT_NAME
from posenet_ros.core.preprocess import preprocess
from posenet_ros.errors import BackendError
from posenet_ros.model.calibration import generated_images
from posenet_ros.model.network import Network

# Largest difference of a heatmap score (0 to 1) that rounding explains. Seen: 4e-6, 0.011, 0.07.
LARGEST_ERROR = {'fp32': 0.01, 'fp16': 0.1, 'int8': 0.25}


def check_engine(trt: Any, cuda: Cuda, plan: bytes, precision: str, network: Network) -> None:
    """Runs a generated picture through an engine and through ONNX Runtime.

    Args:
        trt: the module tensorrt.
        cuda: the device, which stays open.
        plan: the serialised engine.
        precision: that it was built for.
        network: that it was built from.

    Raises:
        BackendError: the scores are too far apart, or the engine cannot be run.
    """
    image = generated_input(network)
    engine = TensorRTBackend(plan, precision, trt, cuda)
    try:
        found = engine.run(image).heatmap_scores.copy()
    finally:
        engine.free()
    what = f'the {precision} engine that TensorRT {trt.__version__} built for {cuda.device_name}'
    check_scores(found, precision, network, image, what)


def generated_input(network: Network) -> np.ndarray:
    """A picture as a network's input, float32 (1, 3, h, w)."""
    (picture,) = generated_images(1, *network.sizes.typical)
    image = np.empty((1, 3, *network.sizes.typical), np.float32)
    preprocess(picture, network.architecture, image[0])
    return image


def check_scores(
    found: np.ndarray, precision: str, network: Network, image: np.ndarray, what: str
) -> None:
    """Compares heatmap scores with those of ONNX Runtime on the CPU.

    Args:
        found: for the image.
        precision: that they were computed in.
        network: of which.
        image: the input.
        what: computed them, for the error.

    Raises:
        BackendError: they are too far apart.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(network.onnx, providers=['CPUExecutionProvider'])
    (expected,) = session.run(['heatmap'], {INPUT_NAME: image})
    error = float(np.abs(found - expected).max())
    if not error <= LARGEST_ERROR[precision]:  # NaN too
        raise BackendError(
            f'{what} is wrong: heatmap scores differ by {error:.2g} from ONNX Runtime on the CPU, '
            f'where {LARGEST_ERROR[precision]} is the most that rounding explains. Choose another '
            'precision'
        )
