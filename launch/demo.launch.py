"""Launches a source of images, the PoseNet node and rviz2; each can be switched off.

ros2 launch posenet_ros demo.launch.py source:=photo.jpg
ros2 launch posenet_ros demo.launch.py camera:=usb_cam

All arguments of posenet.launch.py work here too.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from posenet_ros.ros.fastdds import profile_environment

ARGUMENTS = (
    ('camera', 'image_source', 'image_source, usb_cam (needs the package usb_cam) or none.'),
    ('source', '0', 'For image_source: photo, folder, video file or number of a camera.'),
    ('rate', '0.0', "For image_source: images per second; 0 is the video's own rate."),
    ('node', 'true', 'Start the PoseNet node.'),
    ('rviz', 'true', 'Start rviz2 with config/posenet.rviz.'),
    (
        'fastdds_profile',
        'true',
        'Apply config/fastdds.xml, and config/fastdds_node.xml to the node.',
    ),
)


def generate_launch_description() -> LaunchDescription:
    share = Path(get_package_share_directory('posenet_ros'))
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, default, text in ARGUMENTS
            ),
            OpaqueFunction(function=launch_camera_and_rviz),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(share / 'launch/posenet.launch.py')),
                condition=IfCondition(LaunchConfiguration('node')),
            ),
        ]
    )


def launch_camera_and_rviz(context: LaunchContext) -> list:
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    share = Path(get_package_share_directory('posenet_ros'))
    environment = {}
    if given('fastdds_profile').lower() in ('true', '1', 'yes'):
        environment = profile_environment(context.environment, share, 'fastdds.xml')

    cameras = {
        'image_source': {
            'package': 'posenet_ros',
            'executable': 'image_source',
            'parameters': [
                {
                    'source': ParameterValue(given('source'), value_type=str),
                    'rate': float(given('rate')),
                }
            ],
        },
        'usb_cam': {
            'package': 'usb_cam',
            'executable': 'usb_cam_node_exe',
            'parameters': [{'frame_id': 'camera_optical_frame'}],
        },
        'none': None,
    }
    if given('camera') not in cameras:
        raise ValueError(f'camera:={given("camera")} should be one of {", ".join(cameras)}')
    camera = cameras[given('camera')]
    nodes = [Node(**camera, additional_env=environment, output='both')] if camera else []
    if given('rviz').lower() in ('true', '1', 'yes'):
        nodes.append(
            Node(
                package='rviz2',
                executable='rviz2',
                arguments=['-d', str(share / 'config/posenet.rviz')],
                additional_env=environment,
                output='log',
            )
        )
    return nodes
