"""Real-time 2D human poses with PoseNet: a plain Python library, and a ROS 2 node around it.

    from posenet_ros import ModelConfig, PoseNet

    with PoseNet.load(ModelConfig()) as net:
        poses = net.estimate_multiple_poses(image)  # uint8 RGB, (H, W, 3)

Nothing outside posenet_ros.ros imports ROS.
"""

from pkgutil import extend_path

from posenet_ros.config import DecoderConfig, ModelConfig
from posenet_ros.decode import Pose
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
from posenet_ros.version import __version__

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
]
