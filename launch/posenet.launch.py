"""Launches the PoseNet node. `ros2 launch posenet_ros posenet.launch.py --show-args` lists all.

Every parameter of the node is an argument; what is not given keeps the value of params_file, or
the node's default. Meant to be included by a robot's own launch file, too.
"""

from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from posenet_ros.ros.fastdds import profile_environment
from posenet_ros.ros.parameters import PARAMETERS

OTHER_ARGUMENTS = (
    ('namespace', '', 'Namespace of the node and its topics.'),
    ('node_name', 'posenet_node', 'Name of the node.'),
    (
        'image_topic',
        'image_raw',
        'Images to find people in. With named cameras, {camera} stands for the name; without it '
        'the name goes in front.',
    ),
    ('camera_info_topic', 'camera_info', 'Calibration of the camera, likewise, for the markers.'),
    ('params_file', '', 'YAML file of parameters, such as config/posenet.yaml.'),
    ('use_sim_time', 'false', 'Take the time from /clock.'),
    ('respawn', 'false', 'Start the node again if its process dies.'),
    ('log_level', 'info', 'Lowest severity that is logged.'),
    (
        'fastdds_profile',
        'true',
        'Apply config/fastdds_node.xml to the node. With it, and with config/fastdds.xml for the '
        'camera, Fast DDS does not lose large images between processes of one machine. Ignored '
        'where FASTDDS_DEFAULT_PROFILES_FILE is set already.',
    ),
)


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, default, text in OTHER_ARGUMENTS
    ]
    for spec in PARAMETERS:
        allowed = f' Allowed: {spec.allowed}.' if spec.allowed else ''
        default = yaml.safe_dump(spec.default, default_flow_style=True).splitlines()[0]
        arguments.append(
            DeclareLaunchArgument(
                spec.name,
                default_value='',
                description=f"{spec.help}{allowed} The node's default: {default}",
            )
        )
    return LaunchDescription([*arguments, OpaqueFunction(function=launch_node)])


def launch_node(context: LaunchContext) -> list:
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    def flag(name: str) -> bool:
        return given(name).lower() in ('true', '1', 'yes')

    overrides = {'use_sim_time': flag('use_sim_time')}
    for spec in PARAMETERS:
        text = given(spec.name)
        if text:
            # A wrong value stops the launch here, with a message that names it.
            value = text if isinstance(spec.default, str) else yaml.safe_load(text)
            if isinstance(spec.default, list) and isinstance(value, str):
                value = value.split(',')
            overrides[spec.name] = spec.checked(value)
    params_file = [given('params_file')] if given('params_file') else []
    cameras = overrides.get('cameras') or cameras_in(params_file) or ['']
    remappings = [
        (f'{name}/{topic}' if name else topic, camera_topic(given(argument), name))
        for topic, argument in (
            ('image_raw', 'image_topic'),
            ('camera_info', 'camera_info_topic'),
        )
        for name in cameras
    ]
    environment = {}
    if flag('fastdds_profile'):
        share = Path(get_package_share_directory('posenet_ros'))
        environment = profile_environment(context.environment, share)
    return [
        LifecycleNode(
            package='posenet_ros',
            executable='posenet_node',
            name=given('node_name'),
            namespace=given('namespace'),
            parameters=[*params_file, typed(overrides)],
            remappings=remappings,
            arguments=['--ros-args', '--log-level', given('log_level')],
            additional_env=environment,
            respawn=flag('respawn'),
            respawn_delay=2.0,
            output='both',
        )
    ]


def typed(parameters: dict) -> dict:
    """Keeps strings strings: launch_ros would read '0' as a number."""
    return {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in parameters.items()
    }


def cameras_in(params_files: list[str]) -> list[str]:
    """The parameter cameras of the params file, of whichever node it is for."""
    for path in params_files:
        for node in (yaml.safe_load(Path(path).read_text()) or {}).values():
            cameras = (node or {}).get('ros__parameters', {}).get('cameras')
            if cameras:
                return cameras
    return []


def camera_topic(topic: str, camera: str) -> str:
    """The topic of one camera: its name in the place of {camera}, or in front."""
    if '{camera}' in topic:
        if not camera:
            raise ValueError(f'{topic} has a place for a name, but cameras names none')
        return topic.replace('{camera}', camera)
    return f'{camera}/{topic}' if camera else topic
