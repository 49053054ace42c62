"""README.md's way onto a robot: the system's Python has ROS, and nothing of ours."""

import re

import pytest
from posenet_ros.msg import PoseArray
from robot import page_block, readme_block
from ros_processes import as_image
from sensor_msgs.msg import Image

pytestmark = pytest.mark.slow

NOT_THE_SYSTEMS = ('numba', 'onnx', 'onnxruntime', 'msgspec')
POSES = '/posenet_node/poses'


@pytest.fixture
def fetched(robot):
    """The default model's weights, as a user gets them."""
    result = robot.run('install/posenet_ros/lib/posenet_ros/posenet fetch')
    if result.returncode and 'npm' in result.stdout:
        pytest.skip(f'the default model is not available here: {result.stdout}')
    assert result.returncode == 0, result.stdout
    return robot


def test_the_systems_python_has_none_of_our_dependencies_and_reads_the_messages(robot):
    for module in NOT_THE_SYSTEMS:
        assert robot.run(f'python3 -c "import {module}"').returncode != 0
    result = robot.run(
        'python3 -c "from posenet_ros.msg import PoseArray; import sys; print(sorted(sys.modules))"'
    )
    assert result.returncode == 0, result.stdout
    for module in (*NOT_THE_SYSTEMS, 'numpy', 'cv2', 'yaml'):
        assert f"'{module}'" not in result.stdout


def test_launch_files_are_made_by_the_systems_python(robot):
    """Our modules that they import need no numba, numpy, OpenCV or rclpy. launch is not here."""
    result = robot.run(
        'python3 -c "import posenet_ros.ros.launch_arguments, posenet_ros.ros.fastdds, sys; '
        "print(*[m for m in ('numba', 'numpy', 'cv2', 'rclpy') if m in sys.modules])\""
    )
    assert result.stdout.strip() == ''


def test_the_system_keeps_its_packages(robot):
    """cv_bridge and OpenCV were built for the system's numpy: the environment has the same one."""
    system = robot.run('python3 -c "import numpy; print(numpy.__version__, numpy.__file__)"')
    python = '~/.local/share/posenet_ros/venv/bin/python'
    ours = robot.run(f'{python} -c "import numpy; print(numpy.__version__, numpy.__file__)"')
    assert ours.stdout == system.stdout
    assert str(robot.distribution) in system.stdout
    packages = robot.run(f'{python} -m pip list --local --format freeze').stdout
    assert 'onnxruntime' in packages
    assert 'numpy' not in packages and 'opencv' not in packages


def test_images_become_poses_after_the_readmes_last_line(fetched, peer, astronaut):
    robot = fetched
    command = readme_block('## On a robot').splitlines()[-1]
    assert 'image_topic:=/camera/image_raw' in command
    if not robot.has_ros2:
        node = 'install/posenet_ros/lib/posenet_ros/posenet_node'
        command = f'{node} --ros-args -p image_topic:=/camera/image_raw'
    poses = peer.collect(PoseArray, POSES)
    camera = peer.create_publisher(Image, '/camera/image_raw', 10)
    node = robot.launch(command)
    node.wait_for('ready in')
    message = as_image(astronaut)

    def came():
        camera.publish(message)
        peer.spin_for(0.1)
        return bool(poses)

    assert peer.spin_until(came), node.output
    assert len(poses[0].poses) == 1
    assert peer.spin_until(lambda: peer.count_subscribers('/camera/camera_info') == 1)


def test_without_its_environment_the_node_says_what_to_install_and_where(robot):
    # A terminal command: the node itself would log it and wait for a better configuration.
    result = robot.run(
        'install/posenet_ros/lib/posenet_ros/posenet export nothing.onnx', HOME='/nonexistent'
    )
    assert result.returncode == 1
    line = result.stdout.strip().splitlines()[-1]
    assert re.search('posenet: .* needs (numba|onnx|msgspec|requests) ', line)
    assert str(robot.distribution / 'usr/bin/python3') in line
    assert 'setup_robot' in line and 'POSENET_PYTHON' in line


def test_another_python_can_be_named(robot):
    named = robot.run(
        'install/posenet_ros/lib/posenet_ros/posenet --version',
        HOME='/nonexistent',
        POSENET_PYTHON=str(robot.home / '.local/share/posenet_ros/venv/bin/python'),
    )
    assert named.returncode == 0 and 'posenet_ros 0.' in named.stdout
    wrong = robot.run(
        'install/posenet_ros/lib/posenet_ros/posenet --version', POSENET_PYTHON='/no/python'
    )
    assert wrong.returncode == 1
    assert wrong.stdout.startswith('posenet: POSENET_PYTHON=/no/python is no program')


def test_setup_robot_again_changes_nothing(robot):
    result = robot.run('install/posenet_ros/lib/posenet_ros/setup_robot')
    assert result.returncode == 0, result.stdout
    assert 'Collecting' not in result.stdout
    assert 'Ready: ' in result.stdout


def test_setup_robot_repairs_an_environment_whose_python_has_gone(robot, tmp_path):
    folder = tmp_path / 'an environment'
    setup = f"install/posenet_ros/lib/posenet_ros/setup_robot '{folder}'"
    (folder / 'bin').mkdir(parents=True)
    (folder / 'bin/python').symlink_to('/nowhere/python')
    (folder / 'pyvenv.cfg').touch()
    result = robot.run(setup, PIP_NO_INDEX='1', PIP_FIND_LINKS='')
    assert result.returncode == 1
    assert result.stdout.strip().endswith('setup_robot: pip failed; its messages above say why')
    assert robot.run(f"'{folder}/bin/python' -c 'import numpy'").returncode == 0
    (tmp_path / 'file').touch()
    result = robot.run(f'install/posenet_ros/lib/posenet_ros/setup_robot {tmp_path}/file')
    assert f'setup_robot: {tmp_path}/file is not a folder' in result.stdout


def test_messages_alone(robot, tmp_path):
    """For a laptop that looks at a bag: the page's block, without the node's dependencies."""
    commands = page_block('topics.md', '### The messages alone')
    assert 'MESSAGES_ONLY=ON' in commands
    source = robot.workspace / 'src/posenet_ros'
    (tmp_path / 'src').mkdir()
    (tmp_path / 'src/posenet_ros').symlink_to(source)
    result = robot.run(f'cd {tmp_path}\n{commands}', built=False, timeout=200)
    assert result.returncode == 0, result.stdout
    installed = tmp_path / 'install/posenet_ros'
    assert not (installed / 'lib/posenet_ros').exists()
    assert not list(installed.glob('share/posenet_ros/launch'))
    python = (
        'from rclpy.serialization import deserialize_message, serialize_message\n'
        'from posenet_ros.msg import PersonPose, PoseArray\n'
        'sent = PoseArray(image_width=640, poses=[PersonPose(score=0.5)])\n'
        'print(deserialize_message(serialize_message(sent), PoseArray).poses[0].score)'
    )
    result = robot.run(
        f"cd {tmp_path}; source install/setup.bash; python3 -c '{python}'", built=False
    )
    assert result.stdout.strip().endswith('0.5'), result.stdout


def test_colcon_test_needs_only_the_dependencies_of_package_xml(robot):
    """On the system's numpy and OpenCV: some of the package's own test files, to be quick."""
    result = robot.run(
        'colcon test --packages-select posenet_ros --return-code-on-test-failure && '
        'colcon test-result --all',
        timeout=200,
        PYTEST_ADDOPTS='-k "test_config or test_decode or test_preprocess or test_estimator"',
    )
    assert result.returncode == 0, result.stdout
    tests = map(int, re.findall(r'(\d+) tests?, 0 errors, 0 failures', result.stdout))
    assert max(tests) > 60
