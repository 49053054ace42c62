"""Real-time 2D human poses with PoseNet: a plain Python library, and a ROS 2 node around it.

    from posenet_ros import ModelConfig, PoseNet

    with PoseNet.load(ModelConfig()) as net:
        poses = net.estimate_multiple_poses(image)  # uint8 RGB, (H, W, 3)

Rooms: core (what every frame goes through), space (people in metres), model (how a network is
made), backends (what runs it), io (photos, videos, bags, messages), evaluation, commands (the
command line), ros (the node). Only ros imports ROS; doc/architecture.md shows how they depend on
each other.

Names are imported when they are first used, so that `from posenet_ros.msg import PoseArray` and
`ros2 topic echo` need none of the library's dependencies.
"""

import os
from importlib import import_module
from pkgutil import extend_path
from typing import TYPE_CHECKING, Any

from posenet_ros.version import __version__

if TYPE_CHECKING:
    from posenet_ros.config import DecoderConfig, ModelConfig, TrackerConfig
    from posenet_ros.core.decode import Pose, decode_multiple_poses, decode_single_pose
    from posenet_ros.core.keypoints import KEYPOINT_NAMES, SKELETON
    from posenet_ros.core.smooth import PoseSmoother
    from posenet_ros.core.track import PoseTracker
    from posenet_ros.errors import (
        BackendError,
        CalibrationError,
        CheckpointError,
        ConfigError,
        GraphError,
        ImageError,
        PoseNetError,
    )
    from posenet_ros.estimator import PoseNet
    from posenet_ros.space.camera_model import CameraModel
    from posenet_ros.space.lift import Pose3D, PoseLifter
    from posenet_ros.stream import PoseStream

# Keeps ONNX Runtime from sending telemetry. It reads this when it is imported, later.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')

# The generated posenet_ros.msg may lie in another folder than this file.
__path__ = extend_path(__path__, __name__)

__all__ = [
    'KEYPOINT_NAMES',
    'SKELETON',
    'BackendError',
    'CalibrationError',
    'CameraModel',
    'CheckpointError',
    'ConfigError',
    'DecoderConfig',
    'GraphError',
    'ImageError',
    'ModelConfig',
    'Pose',
    'Pose3D',
    'PoseLifter',
    'PoseNet',
    'PoseNetError',
    'PoseSmoother',
    'PoseStream',
    'PoseTracker',
    'TrackerConfig',
    '__version__',
    'decode_multiple_poses',
    'decode_single_pose',
]

# The module of each name, below this package.
_MODULES = {
    'config': ('DecoderConfig', 'ModelConfig', 'TrackerConfig'),
    'core.decode': ('Pose', 'decode_multiple_poses', 'decode_single_pose'),
    'core.keypoints': ('KEYPOINT_NAMES', 'SKELETON'),
    'errors': (
        'BackendError',
        'CalibrationError',
        'CheckpointError',
        'ConfigError',
        'GraphError',
        'ImageError',
        'PoseNetError',
    ),
    'core.smooth': ('PoseSmoother',),
    'core.track': ('PoseTracker',),
    'estimator': ('PoseNet',),
    'space.camera_model': ('CameraModel',),
    'space.lift': ('Pose3D', 'PoseLifter'),
    'stream': ('PoseStream',),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imports one of the library's names, or modules, when it is first used (PEP 562)."""
    if name in _MODULES:
        return import_module(f'{__name__}.{name}')
    if name not in _MODULE_OF:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(import_module(f'{__name__}.{_MODULE_OF[name]}'), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
