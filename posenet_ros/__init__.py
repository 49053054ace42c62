"""Real-time 2D human poses with PoseNet: a plain Python library, and a ROS 2 node around it.

    from posenet_ros import ModelConfig, PoseNet

    with PoseNet.load(ModelConfig()) as net:
        poses = net.estimate_multiple_poses(image)  # uint8 RGB, (H, W, 3)

Nothing outside posenet_ros.ros imports ROS. The library's names are imported when they are first
used: whoever wants the messages alone (`ros2 topic echo`, rqt, a launch file, another node's
`from posenet_ros.msg import PoseArray`) needs none of the library's dependencies.
"""

import os
from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

from posenet_ros.version import __version__

if TYPE_CHECKING:
    from posenet_ros.config import DecoderConfig, ModelConfig
    from posenet_ros.decode import Pose, decode_multiple_poses, decode_single_pose
    from posenet_ros.errors import (
        BackendError,
        CheckpointError,
        ConfigError,
        GraphError,
        ImageError,
        PoseNetError,
    )
    from posenet_ros.estimator import PoseNet
    from posenet_ros.keypoints import KEYPOINT_NAMES, SKELETON

# ONNX Runtime would write a device id into the user's cache and look for its maker's host. It reads
# this when it is imported, which comes after this.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')

# The generated posenet_ros.msg may lie in another folder than these sources.
__path__ = extend_path(__path__, __name__)

__all__ = [
    'KEYPOINT_NAMES',
    'SKELETON',
    'BackendError',
    'CheckpointError',
    'ConfigError',
    'DecoderConfig',
    'GraphError',
    'ImageError',
    'ModelConfig',
    'Pose',
    'PoseNet',
    'PoseNetError',
    '__version__',
    'decode_multiple_poses',
    'decode_single_pose',
]

_MODULES = {
    'config': ('DecoderConfig', 'ModelConfig'),
    'decode': ('Pose', 'decode_multiple_poses', 'decode_single_pose'),
    'errors': (
        'BackendError',
        'CheckpointError',
        'ConfigError',
        'GraphError',
        'ImageError',
        'PoseNetError',
    ),
    'estimator': ('PoseNet',),
    'keypoints': ('KEYPOINT_NAMES', 'SKELETON'),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imports one of the library's names, or modules, that are here without an import (PEP 562)."""
    if name in _MODULES:
        return import_module(f'{__name__}.{name}')
    if name not in _MODULE_OF:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(f'{__name__}.{_MODULE_OF[name]}'), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
