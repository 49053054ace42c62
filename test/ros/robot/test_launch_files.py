"""The launch files as a robot uses them, with the real `ros2 launch`."""

import re

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from goldens import ROOT
from lifecycle_msgs.srv import GetState
from posenet_ros.msg import PoseArray, PoseArray3D
from rcl_interfaces.srv import GetParameters
from robot import page_block
from ros_processes import as_image
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

pytestmark = pytest.mark.slow


@pytest.fixture
def parameters_of(peer):
    def get(node, *names):
        request = GetParameters.Request(names=names)
        return peer.call(GetParameters, f'{node}/get_parameters', request).values

    return get


@pytest.fixture
def poses_come(peer, astronaut):
    """Publishes images on a topic until poses with one person come on another."""

    def check(image_topic, poses_topic):
        poses = peer.collect(PoseArray, poses_topic)
        camera = peer.create_publisher(Image, image_topic, 10)
        message = as_image(astronaut)

        def came():
            message.header.stamp = peer.get_clock().now().to_msg()
            camera.publish(message)
            peer.spin_for(0.1)
            return any(len(one.poses) == 1 for one in poses)

        assert peer.spin_until(came, 40)
        peer.destroy_publisher(camera)

    return check


# Arguments.


def test_namespace_topic_and_parameters(peer, launch, parameters_of, poses_come):
    node = launch(
        'posenet.launch.py', 'namespace:=robot', 'image_topic:=/eye/image', 'nms_radius:=25',
        'input_resolution:=[321, 257]', 'min_keypoint_score:=1e-1',
    )  # fmt: skip
    node.wait_for('ready in')
    radius, size, sim_time = parameters_of(
        '/robot/posenet_node', 'nms_radius', 'input_resolution', 'use_sim_time'
    )
    (score,) = parameters_of('/robot/posenet_node', 'min_keypoint_score')
    assert score.double_value == 0.1
    assert radius.double_value == 25.0
    assert list(size.integer_array_value) == [321, 257]
    assert not sim_time.bool_value
    poses_come('/eye/image', '/robot/posenet_node/poses')
    assert peer.count_subscribers('/eye/camera_info') == 1
    state = peer.call(GetState, '/robot/posenet_node/get_state', GetState.Request())
    assert state.current_state.label == 'active'


@pytest.mark.parametrize(
    ('argument', 'named'),
    [
        ('nms_radius:=-3', 'Invalid nms_radius -3'),
        ('lazy:=maybe', "Invalid lazy 'maybe'"),
        ('nms_radius:=wide', "Invalid nms_radius 'wide'"),
        ('respawn:=si', "Invalid respawn 'si'. Should be one of true, yes, on, 1"),
        ('use_sim_time:=2', "Invalid use_sim_time '2'"),
        ('params_file:=/nowhere.yaml', 'params_file:=/nowhere.yaml: there is no such file'),
    ],
)
def test_wrong_argument_stops_the_launch_and_is_named(launch, argument, named):
    node = launch('posenet.launch.py', argument)
    assert node.ended() != 0
    assert named in node.output


def test_flags_are_read_as_ros_reads_them(launch, parameters_of):
    node = launch('posenet.launch.py', 'use_sim_time:=on', 'lazy:=0', 'flip_horizontal:=YES')
    node.wait_for('ready in')
    values = parameters_of('/posenet_node', 'use_sim_time', 'lazy', 'flip_horizontal')
    assert [value.bool_value for value in values] == [True, False, True]


# Params files.


def test_use_sim_time_of_a_params_file_counts(peer, launch, parameters_of, robot, poses_come):
    """It is only passed when given: false here would make latencies of 56 years."""
    path = robot.home / 'sim.yaml'
    path.write_text('/**:\n  ros__parameters:\n    use_sim_time: true\n')
    clock = peer.create_publisher(Clock, '/clock', 10)
    found = []
    peer.create_subscription(DiagnosticArray, '/diagnostics', lambda m: found.extend(m.status), 10)
    timer = peer.create_timer(0.05, lambda: clock.publish(Clock(clock=Time(sec=100))))
    node = launch('posenet.launch.py', 'params_file:=~/sim.yaml', 'image_topic:=/eye/image')
    node.wait_for('ready in')
    (value,) = parameters_of('/posenet_node', 'use_sim_time')
    assert value.bool_value
    peer.collect(PoseArray, '/posenet_node/poses')
    camera = peer.create_publisher(Image, '/eye/image', 10)
    image = as_image(np.zeros((48, 64, 3), np.uint8))
    image.header.stamp.sec = 99

    def latency():
        camera.publish(image)
        peer.spin_for(0.05)
        return [p.value for s in found for p in s.values if p.key.startswith('latency')]

    assert peer.spin_until(lambda: latency())
    assert latency()[-1].startswith('1000.0 / 1000.0')
    peer.destroy_timer(timer)


SHARED_YAML = """
/other_node:
  ros__parameters:
    cameras: [left, right]
/robot:
  posenet_node:
    ros__parameters:
      nms_radius: 31.0
      image_topic: /eye/image
/**/posenet_node:
  ros__parameters:
    max_detections: 7
"""


def test_yaml_that_is_shared_with_other_nodes_is_read_as_ros_reads_it(
    launch, robot, parameters_of, poses_come
):
    (robot.home / 'robot.yaml').write_text(SHARED_YAML)
    node = launch('posenet.launch.py', 'namespace:=robot', 'params_file:=~/robot.yaml')
    node.wait_for('ready in')
    radius, most, cameras = parameters_of(
        '/robot/posenet_node', 'nms_radius', 'max_detections', 'cameras'
    )
    assert radius.double_value == 31.0
    assert most.integer_value == 7
    assert list(cameras.string_array_value) == ['']
    poses_come('/eye/image', '/robot/posenet_node/poses')
    assert 'nothing in' not in node.output


# Cameras.


def test_multi_camera_launch_listens_to_each_camera(peer, launch, poses_come):
    node = launch('multi_camera.launch.py', 'cameras:=front,rear')
    node.wait_for('ready in')
    for name in ('front', 'rear'):
        poses_come(f'/{name}/image_raw', f'/posenet_node/{name}/poses')
        assert peer.count_subscribers(f'/{name}/camera_info') == 1


def test_absolute_topic_of_one_named_camera_is_not_changed(launch, poses_come):
    node = launch('posenet.launch.py', 'cameras:=front', 'image_topic:=/cam/image_raw')
    node.wait_for('ready in')
    poses_come('/cam/image_raw', '/posenet_node/front/poses')


def test_one_topic_for_several_cameras_is_refused(launch):
    node = launch('posenet.launch.py', 'cameras:=front,rear', 'image_topic:=/cam/image_raw')
    node.wait_for('Invalid image_topic /cam/image_raw. Should have {camera} in it')


# The demo.


@pytest.mark.parametrize('namespace', ['', '/robot1'])
def test_demo_finds_the_person(peer, launch, photo, namespace):
    poses = peer.collect(PoseArray, f'{namespace}/posenet_node/poses')
    arguments = [f'namespace:={namespace}'] if namespace else []
    node = launch('demo.launch.py', f'source:={photo}', 'rviz:=off', *arguments)
    assert peer.spin_until(lambda: poses, 60), node.output
    assert len(poses[0].poses) == 1
    assert poses[0].header.frame_id == 'camera_optical_frame'


def test_demo_shows_somebody_in_metres(peer, launch):
    people = peer.collect(PoseArray3D, '/posenet_node/poses_3d')
    node = launch('demo.launch.py', 'depth:=true', 'rviz:=false')
    assert peer.spin_until(
        lambda: any(p.torso_state == 1 for message in people for p in message.poses), 60
    ), node.output


@pytest.mark.parametrize(
    ('argument', 'instead'),
    [('rviz:=true', 'rviz2 is not installed. Without it: rviz:=false'),
     ('camera:=usb_cam', 'usb_cam is not installed. Without it: camera:=image_source')],
)  # fmt: skip
def test_demo_starts_nothing_where_a_package_is_missing(launch, photo, argument, instead):
    demo = launch('demo.launch.py', f'source:={photo}', argument)
    demo.wait_for(instead)
    assert demo.ended() != 0
    assert 'process started' not in demo.output


def test_demo_ends_with_its_source(launch):
    demo = launch('demo.launch.py', 'source:=/nowhere.jpg', 'rviz:=false')
    demo.wait_for('no file or folder /nowhere.jpg')
    demo.wait_for('image_source ended')
    demo.ended()


def test_ros2_topic_echo_and_param_set_under_the_systems_python(peer, launch, photo, robot):
    node = launch('demo.launch.py', f'source:={photo}', 'rviz:=false', 'frame_id:=eye')
    node.wait_for('ready in')
    echo = robot.run('timeout 60 ros2 topic echo --no-daemon --once /posenet_node/poses '
                     'posenet_ros/msg/PoseArray')  # fmt: skip
    assert 'frame_id: eye' in echo.stdout and '- id: 16' in echo.stdout
    given = robot.run('ros2 param set --no-daemon /posenet_node nms_radius 30')
    assert 'Set parameter successful' in given.stdout
    kept = robot.run('ros2 param get --no-daemon /posenet_node nms_radius')
    assert 'Double value is: 30.0' in kept.stdout


# Included by another launch file.


def documented_include():
    """The example of doc/launch.md."""
    return page_block('launch.md', '# Launch files and presets')


PARENT = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
{imports}

def generate_launch_description():
    return LaunchDescription([
        DeclareLaunchArgument('backend', default_value='gazebo'),
        SetEnvironmentVariable('FASTDDS_BUILTIN_TRANSPORTS', 'UDPv4'),
        {first},
        {second},
        DeclareLaunchArgument('namespace', default_value='mine'),
        LogInfo(msg=['backend is still ', LaunchConfiguration('backend'),
                     ', namespace ', LaunchConfiguration('namespace')]),
    ])
"""


def test_included_twice_nothing_collides_and_nothing_leaks(
    launch, robot, parameters_of, poses_come
):
    imports, action = re.split(r'\n\n', documented_include().rstrip(), maxsplit=1)
    assert "'nms_radius': '25'" in action and "'namespace': 'robot1'" in action
    first = action.replace("'namespace'", "'backend': '', 'log_level': '', 'namespace'")
    second = first.replace('robot1', 'robot2').replace("'nms_radius': '25'", '')
    path = robot.home / 'parent.launch.py'
    path.write_text(PARENT.format(imports=imports, first=first, second=second))
    node = launch(str(path), 'backend:=gazebo')
    node.wait_for('backend is still gazebo, namespace mine')
    # What the user has set around the inclusion reaches it.
    assert node.output.count('FASTDDS_BUILTIN_TRANSPORTS=UDPv4 is set') == 2
    for namespace, radius in (('robot1', 25.0), ('robot2', 20.0)):
        (value,) = parameters_of(f'/{namespace}/posenet_node', 'nms_radius')
        assert value.double_value == radius
        poses_come(f'/{namespace}/image_raw', f'/{namespace}/posenet_node/poses')


def test_plain_inclusion_keeps_its_defaults_to_itself_and_names_collisions(launch, robot):
    plain = (
        "IncludeLaunchDescription(PythonLaunchDescriptionSource([FindPackageShare('posenet_ros'), "
        "'/launch/posenet.launch.py']))"
    )
    imports = documented_include().split('\n\n')[0]
    path = robot.home / 'plain.launch.py'
    path.write_text(
        PARENT.format(imports=imports, first=plain, second="LogInfo(msg='after')").replace(
            "DeclareLaunchArgument('backend', default_value='gazebo')", "LogInfo(msg='')"
        ).replace("LaunchConfiguration('backend')", "''")
    )  # fmt: skip
    node = launch(str(path))
    node.wait_for('namespace mine')
    path.write_text(PARENT.format(imports=imports, first=plain, second="LogInfo(msg='after')"))
    node = launch(str(path))
    assert node.ended() != 0
    assert 'Invalid backend' in node.output
    assert 'backend is an argument of another launch file' in node.output


# What the user has chosen.


@pytest.mark.parametrize(
    ('variables', 'said'),
    [
        ({'FASTDDS_BUILTIN_TRANSPORTS': 'UDPv4'}, 'FASTDDS_BUILTIN_TRANSPORTS=UDPv4 is set'),
        ({'FASTDDS_DEFAULT_PROFILES_FILE': '/opt/mine.xml'}, '=/opt/mine.xml is set'),
        ({}, ''),
    ],
)
def test_no_profile_of_ours_is_laid_over_the_users_choice(
    launch, poses_come, tmp_path, variables, said
):
    if 'FASTDDS_DEFAULT_PROFILES_FILE' in variables:
        (tmp_path / 'mine.xml').write_text((ROOT / 'config/fastdds_node.xml').read_text())
        variables = {'FASTDDS_DEFAULT_PROFILES_FILE': str(tmp_path / 'mine.xml')}
        said = f'={tmp_path}/mine.xml is set'
    node = launch('posenet.launch.py', **variables)
    node.wait_for('ready in')
    assert ('Fast DDS profile not applied' in node.output) == bool(said)
    assert said in node.output
    poses_come('/image_raw', '/posenet_node/poses')


# Examples.


@pytest.mark.parametrize(
    ('example', 'topic'),
    [('follow_nearest', 'poses_3d'), ('raised_hand', 'poses'), ('count_in_zones', 'poses')],
)
def test_examples_read_what_the_node_publishes(peer, launch, example, topic):
    process = launch(
        'example.launch.py', f'example:={example}', 'namespace:=robot', 'image_topic:=/eye/image'
    )
    process.wait_for('ready in')
    assert peer.spin_until(lambda: peer.count_subscribers(f'/robot/posenet_node/{topic}') == 1)
    assert peer.spin_until(lambda: peer.count_publishers(f'/robot/posenet_node/{topic}') == 1)


def test_an_example_that_is_not_there_is_named(launch):
    process = launch('example.launch.py', 'example:=dance')
    assert process.ended() != 0
    assert 'raised_hand' in process.output
