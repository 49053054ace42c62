"""Launches one PoseNet node for several cameras that share its model.

ros2 launch posenet_ros multi_camera.launch.py cameras:=front,rear

Camera NAME's images are read from /NAME/image_raw unless image_topic says otherwise; all other
arguments are those of posenet.launch.py.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    PopLaunchConfigurations,
    PushLaunchConfigurations,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory('posenet_ros'))
    return LaunchDescription(
        [
            PushLaunchConfigurations(),
            DeclareLaunchArgument('cameras', description='Names of the cameras: front,rear.'),
            DeclareLaunchArgument(
                'image_topic',
                default_value='/{camera}/image_raw',
                description='Images of a camera; {camera} stands for its name.',
            ),
            # Included launch files see the arguments that are set here, and those of the user.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(share / 'launch/posenet.launch.py'))
            ),
            PopLaunchConfigurations(),
        ]
    )
