"""The examples, as they are started, on what the node publishes of a video and of an image."""

import re
import sys

import pytest
from geometry_msgs.msg import Twist
from goldens import ROOT, SHARED
from posenet_ros.msg import Keypoint, PersonPose, PersonPose3D, PoseArray, PoseArray3D
from ros_processes import NODE, Process
from std_msgs.msg import Int32

pytestmark = pytest.mark.slow

EXAMPLES = sorted((ROOT / 'examples').iterdir())


@pytest.mark.parametrize('path', EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) < 80


@pytest.fixture
def example(start):
    def launch(name, topic, *arguments):
        return start(name, '--ros-args', '-r', f'{topic}:={NODE}/{topic}', *arguments)

    return launch


def person(track_id=1, **places):
    """A pose whose keypoints are clear where a place is given: left_wrist=(x, y)."""
    pose = PersonPose(track_id=track_id, score=0.8)
    for name, (x, y) in places.items():
        index = getattr(Keypoint, name.upper())
        pose.keypoints[index] = Keypoint(id=index, x=float(x), y=float(y), score=0.9, deviation=3.0)
    return pose


def test_a_raised_hand_is_told_once(example, peer):
    raised = peer.collect(Int32, '/raised_hand/raised')
    process = example('raised_hand', 'poses')
    poses = peer.create_publisher(PoseArray, f'{NODE}/poses', 10)
    assert peer.spin_until(lambda: poses.get_subscription_count() > 0)
    frame = 0

    def show(wrist_y, frames):
        nonlocal frame
        for _ in range(frames):
            message = PoseArray()
            message.header.stamp.sec, tenths = divmod(frame, 10)
            message.header.stamp.nanosec = tenths * 100_000_000
            up = person(7, left_shoulder=(100, 200), left_wrist=(100, wrist_y))
            message.poses = [person(3, left_shoulder=(300, 200), left_wrist=(300, 300)), up]
            poses.publish(message)
            frame += 1
            peer.spin_for(0.02)

    show(300, 10)
    assert raised == []
    show(100, 3)  # 0.2 s: not long enough
    show(300, 3)
    assert raised == []
    show(100, 20)
    assert peer.spin_until(lambda: [m.data for m in raised] == [7])
    show(300, 3)
    show(100, 20)
    assert peer.spin_until(lambda: [m.data for m in raised] == [7, 7])
    process.wait_for('person 7 raises a hand')


def test_people_are_counted_where_they_stand(example, peer):
    left, right = (peer.collect(Int32, f'/count_in_zones/{name}') for name in ('left', 'right'))
    example(
        'count_in_zones', 'poses', '-p', 'zones:=[left, right]',
        '-p', 'zone.left:=[0, 0, 320, 480]', '-p', 'zone.right:=[320.0, 0.0, 640.0, 480.0]',
    )  # fmt: skip
    poses = peer.create_publisher(PoseArray, f'{NODE}/poses', 10)
    assert peer.spin_until(lambda: poses.get_subscription_count() > 0)
    message = PoseArray()
    message.poses = [
        person(1, left_ankle=(100, 400), right_ankle=(120, 400), nose=(500, 50)),
        person(2, left_hip=(400, 300)),
        person(3, right_ankle=(500, 400)),
        person(4, nose=(50, 50)),  # nobody knows where
    ]

    def counted():
        poses.publish(message)
        peer.spin_for(0.05)
        return len(left) > 5 and len(right) > 5

    assert peer.spin_until(counted)
    assert (left[-1].data, right[-1].data) == (1, 2)


def test_the_nearest_person_is_followed_and_nobody_is_not(example, peer):
    commands = peer.collect(Twist, '/cmd_vel')
    process = example('follow_nearest', 'poses_3d', '-p', 'distance:=1.5')
    poses = peer.create_publisher(PoseArray3D, f'{NODE}/poses_3d', 10)
    assert peer.spin_until(lambda: poses.get_subscription_count() > 0)

    def somebody(x, z, state=PersonPose3D.MEASURED):
        pose = PersonPose3D(track_id=1, score=0.8, torso_state=state)
        pose.torso.pose.position.x, pose.torso.pose.position.z = x, z
        pose.torso.covariance[14] = 0.01
        return pose

    def command_for(*people, late=0):
        commands.clear()

        def came():
            message = PoseArray3D(poses=list(people))
            message.header.stamp = peer.get_clock().now().to_msg()
            message.header.stamp.sec -= late
            poses.publish(message)
            peer.spin_for(0.03)
            return len(commands) > 3

        assert peer.spin_until(came)
        return commands[-1]

    ahead = command_for(somebody(0.0, 3.0), somebody(2.0, 6.0))
    assert ahead.linear.x > 0 and ahead.angular.z == pytest.approx(0.0)
    right = command_for(somebody(1.0, 3.0))
    assert right.angular.z < 0  # to the right
    close = command_for(somebody(0.0, 0.7))
    assert close.linear.x < 0
    there = command_for(somebody(0.0, 1.55))
    assert there.linear.x == 0  # within what is known of the distance
    aside = command_for(somebody(3.0, 3.0))
    assert aside.linear.x == 0 and aside.angular.z < 0  # turns first
    nan = float('nan')
    unknown = command_for(somebody(nan, nan, PersonPose3D.UNKNOWN))
    assert (unknown.linear.x, unknown.angular.z) == (0, 0)
    old = command_for(somebody(0.0, 3.0), late=2)
    assert (old.linear.x, old.angular.z) == (0, 0)
    assert command_for(somebody(0.0, 3.0)).linear.x > 0
    commands.clear()
    assert process.stop() == 0
    assert peer.spin_until(lambda: commands)
    assert commands[-1].linear.x == 0  # it does not leave the robot driving


@pytest.mark.parametrize('name', ['follow_nearest', 'count_in_zones', 'raised_hand'])
def test_examples_run_on_a_video_and_end_on_ctrl_c(start, start_node, example, peer, name):
    """The dancer of the shared videos, through image_source and the node."""
    if not SHARED.is_dir():
        pytest.skip('the videos of ../shared are not on this machine')
    topic = 'poses_3d' if name == 'follow_nearest' else 'poses'
    kind, out = {
        'follow_nearest': (Twist, '/cmd_vel'),
        'count_in_zones': (Int32, '/count_in_zones/all'),
        'raised_hand': (Int32, '/raised_hand/raised'),
    }[name]
    received = peer.collect(kind, out)
    start_node(lift='size' if topic == 'poses_3d' else 'off')
    process = example(name, topic)
    video = SHARED / 'video/pose_1.mp4'
    start('image_source', '--ros-args', '-p', f'source:={video}', '-p', 'rate:=15.0')

    def seen():
        if name == 'follow_nearest':
            return any(command.angular.z or command.linear.x for command in received)
        return any(message.data > 0 for message in received)

    assert peer.spin_until(seen, 60), process.output
    assert process.stop() == 0
    assert 'Traceback' not in process.output


def test_the_condition_of_the_page_on_behaviour_trees(peer, tmp_path):
    pytest.importorskip('py_trees', reason='the package py_trees is not installed')
    page = (ROOT / 'doc/behaviour_trees.md').read_text()
    program = '\n'.join(re.findall(r'```python\n(.*?)```', page, re.DOTALL))
    shown = 'lambda tree: print(tree.root.status.name, py_trees.blackboard.Blackboard.storage)'
    started, spin = program.split('rclpy.spin(node)')
    started += f'tree.add_post_tick_handler({shown})\n'
    (tmp_path / 'tree').write_text(f'{started}rclpy.spin(node){spin}')
    poses = peer.create_publisher(PoseArray, f'{NODE}/poses', 10)
    process = Process(sys.executable, str(tmp_path / 'tree'))
    try:
        process.wait_for('FAILURE')  # nothing is known
        assert peer.spin_until(lambda: poses.get_subscription_count() > 0)

        def ticks(wrist_y):
            before = len(process.output)
            for _ in range(10):
                message = PoseArray()
                message.header.stamp = peer.get_clock().now().to_msg()
                message.poses = [person(7, right_shoulder=(100, 200), right_wrist=(100, wrist_y))]
                poses.publish(message)
                peer.spin_for(0.1)
            return process.output[before:]

        assert 'SUCCESS' not in ticks(300)
        assert "SUCCESS {'/person': 7}" in ticks(100)
        assert ticks(300).splitlines()[-1].startswith('FAILURE')
        ticks(100)
        peer.spin_for(1.5)  # the camera is unplugged
        assert process.output.splitlines()[-1].startswith('FAILURE')
    finally:
        process.stop()
