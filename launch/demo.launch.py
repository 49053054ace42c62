"""Launches a source of images, the PoseNet node and rviz2; each can be switched off.

ros2 launch posenet_ros demo.launch.py source:=photo.jpg
ros2 launch posenet_ros demo.launch.py camera:=usb_cam namespace:=robot1
ros2 launch posenet_ros demo.launch.py depth:=true

All arguments of posenet.launch.py work here too.
"""

from pathlib import Path

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    PopLaunchConfigurations,
    PushLaunchConfigurations,
    SetLaunchConfiguration,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from posenet_ros.ros.fastdds import profile_environment
from posenet_ros.ros.launch_arguments import flag

DEPTH_RATE = 5.0  # images per second of the recording with depth
ARGUMENTS = (
    ('camera', 'image_source', 'image_source, usb_cam (needs the package usb_cam) or none.'),
    ('source', '0', 'For image_source: photo, folder, video file or number of a camera.'),
    (
        'depth',
        'false',
        'Show somebody in metres: a short recording with depth images, and lift:=depth.',
    ),
    ('rate', '0.0', "For image_source: images per second; 0 is the video's own rate."),
    ('frame_id', 'camera_optical_frame', "The camera's frame, and rviz2's fixed frame."),
    ('node', 'true', 'Start the PoseNet node.'),
    ('rviz', 'true', 'Start rviz2 with config/posenet.rviz.'),
    ('namespace', '', 'Namespace of the camera, the node and their topics.'),
    ('node_name', 'posenet_node', 'Name of the node.'),
    ('image_topic', 'image_raw', 'Images to find people in; the camera publishes them there.'),
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
            PushLaunchConfigurations(),
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, default, text in ARGUMENTS
            ),
            OpaqueFunction(function=launch_camera_and_rviz),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(share / 'launch/posenet.launch.py')),
                condition=IfCondition(LaunchConfiguration('node')),
            ),
            PopLaunchConfigurations(),
        ]
    )


def need(package: str, instead: str) -> None:
    """Raises a RuntimeError that says what to do where a package is not installed."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError as error:
        raise RuntimeError(f'{package} is not installed. Without it: {instead}') from error


def launch_camera_and_rviz(context: LaunchContext) -> list:
    defaults = {name: default for name, default, _ in ARGUMENTS}

    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context) or defaults[name]

    share = Path(get_package_share_directory('posenet_ros'))
    environment: dict[str, str] = {}
    if flag('fastdds_profile', given('fastdds_profile')):
        environment, _ = profile_environment(context.environment, share, 'fastdds.xml')
    depth = flag('depth', given('depth'))
    if depth and given('camera') != 'image_source':
        raise ValueError(f'depth:=true shows a recording; camera:={given("camera")} does not')
    recording = share / 'config/depth_demo'
    cameras = {
        'image_source': {
            'package': 'posenet_ros',
            'executable': 'image_source',
            'parameters': [
                {
                    'source': ParameterValue(
                        str(recording / 'colour') if depth else given('source'), value_type=str
                    ),
                    'depth_source': ParameterValue(
                        str(recording / 'depth') if depth else '', value_type=str
                    ),
                    'rate': float(given('rate')) or (DEPTH_RATE if depth else 0.0),
                    'frame_id': ParameterValue(given('frame_id'), value_type=str),
                }
            ],
        },
        'usb_cam': {
            'package': 'usb_cam',
            'executable': 'usb_cam_node_exe',
            'parameters': [{'frame_id': ParameterValue(given('frame_id'), value_type=str)}],
        },
        'none': None,
    }
    if given('camera') not in cameras:
        raise ValueError(f'camera:={given("camera")} should be one of {", ".join(cameras)}')
    camera = cameras[given('camera')]
    rviz = flag('rviz', given('rviz'))
    # Before anything starts: it would go on when the launch ends with an error.
    if given('camera') == 'usb_cam':
        need('usb_cam', 'camera:=image_source source:=0')
    if rviz:
        need('rviz2', 'rviz:=false, and to look: ros2 run posenet_ros posenet_view')
    image_topic = given('image_topic')
    # IfCondition understands fewer words for true and false than flag().
    actions: list = [SetLaunchConfiguration('node', str(flag('node', given('node'))).lower())]
    if depth:
        actions.append(SetLaunchConfiguration('lift', 'depth'))
    if camera:
        actions.append(
            Node(
                **camera,
                namespace=given('namespace'),
                remappings=[('image_raw', image_topic)] if image_topic != 'image_raw' else [],
                additional_env=environment,
                output='both',
                on_exit=Shutdown(reason=f'{camera["executable"]} ended'),
            )
        )
    if rviz:
        namespace = f'/{given("namespace").strip("/")}'.rstrip('/')
        poses = f'{namespace}/{given("node_name")}'
        images = image_topic if image_topic.startswith('/') else f'{namespace}/{image_topic}'
        actions.append(
            Node(
                package='rviz2',
                executable='rviz2',
                arguments=[
                    *('-d', str(share / 'config/posenet.rviz')),
                    *('-f', given('frame_id')),
                ],
                # From the topic names in config/posenet.rviz to the names in this launch.
                remappings=[
                    ('/image_raw', images),
                    ('/camera_info', f'{images.rpartition("/")[0]}/camera_info'),
                    ('/posenet_node/markers', f'{poses}/markers'),
                    ('/posenet_node/image_annotated', f'{poses}/image_annotated'),
                ],
                additional_env=environment,
                output='log',
            )
        )
    return actions
