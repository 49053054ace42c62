"""Launches the PoseNet node. `ros2 launch posenet_ros posenet.launch.py --show-args` lists all.

Every parameter of the node is an argument; what is not given keeps the value of params_file, or
the node's default. doc/launch.md says how a robot's own launch file includes this one.
"""

from pathlib import Path

import yaml
from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    LogInfo,
    OpaqueFunction,
    PopLaunchConfigurations,
    PushLaunchConfigurations,
)
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from posenet_ros.ros.fastdds import profile_environment
from posenet_ros.ros.launch_arguments import flag, given_parameters
from posenet_ros.ros.parameters import PARAMETERS

OTHER_ARGUMENTS = (
    ('namespace', '', 'Namespace of the node and its topics.'),
    ('node_name', 'posenet_node', 'Name of the node.'),
    ('params_file', '', 'YAML file of parameters, such as config/posenet.yaml.'),
    ('use_sim_time', '', 'Take the time from /clock. Empty keeps the value of params_file.'),
    ('respawn', 'false', 'Start the node again if its process dies.'),
    ('log_level', 'info', 'Lowest severity that is logged.'),
    (
        'fastdds_profile',
        'true',
        'Apply config/fastdds_node.xml to the node. With it, and with config/fastdds.xml for the '
        'camera, Fast DDS does not lose large images between processes of one machine. Ignored '
        'where the environment chooses a profile, transports or another middleware already.',
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
    # Push and pop keep the defaults of these arguments inside this file: a launch file that
    # includes it keeps its own values.
    return LaunchDescription(
        [
            PushLaunchConfigurations(),
            *arguments,
            OpaqueFunction(function=launch_node),
            PopLaunchConfigurations(),
        ]
    )


def launch_node(context: LaunchContext) -> list:
    defaults = {name: default for name, default, _ in OTHER_ARGUMENTS}

    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context) or defaults.get(name, '')

    # A wrong value stops the launch here, with a message that names it.
    parameters = given_parameters(given)
    if given('use_sim_time'):
        parameters['use_sim_time'] = flag('use_sim_time', given('use_sim_time'))
    actions: list = []
    environment: dict[str, str] = {}
    if flag('fastdds_profile', given('fastdds_profile')):
        share = Path(get_package_share_directory('posenet_ros'))
        environment, left_out = profile_environment(context.environment, share)
        if left_out:
            actions.append(LogInfo(msg=f'posenet_node: Fast DDS profile not applied: {left_out}'))
    actions.append(
        LifecycleNode(
            package='posenet_ros',
            executable='posenet_node',
            name=given('node_name'),
            namespace=given('namespace'),
            parameters=[*params_files(given('params_file')), typed(parameters)],
            arguments=['--ros-args', '--log-level', given('log_level')],
            additional_env=environment,
            respawn=flag('respawn', given('respawn')),
            respawn_delay=2.0,
            output='both',
        )
    )
    return actions


def params_files(given: str) -> list[str]:
    """The params file, if one was given."""
    if not given:
        return []
    path = Path(given).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'params_file:={given}: there is no such file')
    return [str(path)]


def typed(parameters: dict) -> dict:
    """Keeps strings strings: launch_ros would read '0' as a number."""
    return {
        name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
        for name, value in parameters.items()
    }
