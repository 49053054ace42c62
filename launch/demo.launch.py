"""Launches a source of images, the PoseNet node and rviz2; each can be switched off.

ros2 launch posenet_ros demo.launch.py source:=photo.jpg
ros2 launch posenet_ros demo.launch.py camera:=usb_cam

All arguments of posenet.launch.py work here too.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory('posenet_ros'))
    profile = 'FASTDDS_DEFAULT_PROFILES_FILE'
    arguments = [
        ('camera', 'image_source', 'image_source, usb_cam (needs the package usb_cam) or none.'),
        ('source', '0', 'For image_source: photo, folder, video file or number of a camera.'),
        ('rate', '0.0', "For image_source: images per second; 0 is the video's own rate."),
        ('node', 'true', 'Start the PoseNet node.'),
        ('rviz', 'true', 'Start rviz2 with config/posenet.rviz.'),
    ]
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, default, text in arguments
            ),
            # All processes need it: the camera and rviz exchange the large images.
            SetEnvironmentVariable(
                profile,
                EnvironmentVariable(profile, default_value=str(share / 'config/fastdds.xml')),
            ),
            OpaqueFunction(function=launch_camera),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(share / 'launch/posenet.launch.py')),
                condition=IfCondition(LaunchConfiguration('node')),
            ),
            Node(
                package='rviz2',
                executable='rviz2',
                arguments=['-d', str(share / 'config/posenet.rviz')],
                condition=IfCondition(LaunchConfiguration('rviz')),
                output='log',
            ),
        ]
    )


def launch_camera(context: LaunchContext) -> list:
    camera = LaunchConfiguration('camera').perform(context)
    if camera == 'none':
        return []
    if camera == 'usb_cam':
        parameters = [{'frame_id': 'camera_optical_frame'}]
        return [
            Node(
                package='usb_cam',
                executable='usb_cam_node_exe',
                parameters=parameters,
                output='both',
            )
        ]
    if camera == 'image_source':
        source = {
            'source': ParameterValue(LaunchConfiguration('source'), value_type=str),
            'rate': ParameterValue(LaunchConfiguration('rate'), value_type=float),
        }
        return [
            Node(
                package='posenet_ros',
                executable='image_source',
                parameters=[source],
                output='both',
            )
        ]
    raise ValueError(f'camera:={camera} should be one of image_source, usb_cam, none')
