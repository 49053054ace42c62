"""Launches the PoseNet node and an example of what to do with poses.

ros2 launch posenet_ros example.launch.py example:=raised_hand image_topic:=/camera/image_raw

All other arguments are those of posenet.launch.py. follow_nearest needs people in metres: lift is
size unless it is given.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    PopLaunchConfigurations,
    PushLaunchConfigurations,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from posenet_ros.ros.launch_arguments import flag

# What each reads.
EXAMPLES = {'follow_nearest': 'poses_3d', 'raised_hand': 'poses', 'count_in_zones': 'poses'}


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            PushLaunchConfigurations(),
            DeclareLaunchArgument(
                'example', choices=list(EXAMPLES), description='What to do with the poses.'
            ),
            DeclareLaunchArgument(
                'node_name', default_value='posenet_node', description='Name of the PoseNet node.'
            ),
            DeclareLaunchArgument(
                'namespace', default_value='', description='Namespace of both nodes.'
            ),
            DeclareLaunchArgument(
                'use_sim_time', default_value='', description='As of posenet.launch.py.'
            ),
            DeclareLaunchArgument('lift', default_value='', description='As of posenet.launch.py.'),
            OpaqueFunction(function=launch_example),
            PopLaunchConfigurations(),
        ]
    )


def launch_example(context: LaunchContext) -> list:
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    example = given('example')
    topic = EXAMPLES[example]
    lift = given('lift') or ('size' if topic == 'poses_3d' else 'off')
    share = Path(get_package_share_directory('posenet_ros'))
    return [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(str(share / 'launch/posenet.launch.py')),
            launch_arguments={'lift': lift}.items(),
        ),
        Node(
            package='posenet_ros',
            executable=example,
            namespace=given('namespace'),
            parameters=[{'use_sim_time': flag('use_sim_time', given('use_sim_time') or 'false')}],
            remappings=[(topic, f'{given("node_name")}/{topic}')],
            output='both',
        ),
    ]
