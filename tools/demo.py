"""make demo: sends a photo or a video over real ROS topics to the node and draws its poses.

Three processes: the image source, the node, and this one, which subscribes to what both publish.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import rclpy
from posenet_ros.msg import PoseArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from posenet_ros import KEYPOINT_NAMES, Pose
from posenet_ros.core.keypoints import MIN_POSE_SCORE
from posenet_ros.errors import ImageError, PoseNetError
from posenet_ros.io.draw import draw_poses
from posenet_ros.io.image_message import image_to_rgb
from posenet_ros.io.photos import read_image, write_image
from posenet_ros.io.video import Video, VideoWriter
from posenet_ros.ros.fastdds import this_machine_alone

TIMEOUT_SECONDS = 180.0  # the first run fetches the model and compiles the decoder
QUIET_SECONDS = 2.0  # after the source has ended
VIDEO_RATE = 15.0  # so that a slow machine keeps up with every frame


class DemoSubscriber(Node):
    """Pairs images with the poses of the same stamp."""

    def __init__(self) -> None:
        super().__init__('demo')
        self.images: dict[tuple[int, int], Image] = {}
        self.poses: dict[tuple[int, int], PoseArray] = {}
        self.last_message = time.monotonic()
        qos = QoSProfile(depth=10)
        self.create_subscription(Image, 'image_raw', self._on_image, qos)
        self.create_subscription(PoseArray, 'posenet_node/poses', self._on_poses, qos)

    def _on_image(self, message: Image) -> None:
        self.last_message = time.monotonic()
        self.images[_stamp(message)] = message

    def _on_poses(self, message: PoseArray) -> None:
        self.last_message = time.monotonic()
        self.poses[_stamp(message)] = message

    def pairs(self) -> Iterator[tuple[np.ndarray, PoseArray | None]]:
        """Images up to the newest that has poses, in order; None for older ones without poses."""
        both = sorted(self.images.keys() & self.poses.keys())
        if not both:
            return
        for stamp in sorted(stamp for stamp in self.images if stamp <= both[-1]):
            yield image_to_rgb(self.images.pop(stamp)).copy(), self.poses.pop(stamp, None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--image', type=Path)
    parser.add_argument('--video', type=Path)
    options = parser.parse_args()
    # A network of its own: the demo must not talk to a robot nearby.
    for name, value in this_machine_alone(os.environ).items():
        os.environ.setdefault(name, value)
    os.environ.setdefault('ROS_DOMAIN_ID', str(random.randint(1, 100)))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            if options.video is not None:
                return _video(options.video, Path('demo.mp4'))
            photo = options.image or _astronaut(Path(scratch))
            read_image(photo)  # a wrong file is reported before anything starts
            return _photo(photo, Path('demo.png'))
    except PoseNetError as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1


def _astronaut(folder: Path) -> Path:
    """The photo that scikit-image ships: Eileen Collins, by NASA, in the public domain."""
    from skimage import data

    write_image(folder / 'astronaut.png', data.astronaut())
    return folder / 'astronaut.png'


def _photo(photo: Path, output: Path) -> int:
    with _running(photo, loop=True, rate=10.0) as (subscriber, _, check):
        deadline = time.monotonic() + TIMEOUT_SECONDS
        found: list[tuple[np.ndarray, PoseArray | None]] = []
        while not found:
            check(deadline)
            rclpy.spin_once(subscriber, timeout_sec=0.1)
            found = [pair for pair in subscriber.pairs() if pair[1] is not None]
    image, message = found[-1]
    assert message is not None
    poses = [_pose(person) for person in message.poses]
    print(
        f'\nReceived on /posenet_node/poses: {len(poses)} '
        f'{"person" if len(poses) == 1 else "people"} in {message.image_width} x '
        f'{message.image_height} pixels, frame {message.header.frame_id}'
    )
    for number, pose in enumerate(poses, 1):
        print(f'\nPerson {number}: score {pose.score:.3f}')
        for name, ((x, y), score, deviation) in zip(KEYPOINT_NAMES, pose.rows(), strict=True):
            print(
                f'  {name:14s} x {x:8.1f}   y {y:8.1f}   score {score:.3f}   '
                f'deviation {deviation:6.1f}'
            )
    write_image(output, draw_poses(image, poses))
    print(f'\nDrawn: {output}')
    return 0


def _video(video: Path, output: Path) -> int:
    if not video.is_file():
        raise ImageError(f'there is no video {video}')
    with Video(video) as opened:
        fps, total = opened.fps, opened.num_frames
    rate = min(fps, VIDEO_RATE)
    print(f'Playing {total} frames at {rate:g} Hz: about {total / rate:.0f} s.')
    frames = with_poses = people = 0
    with (
        VideoWriter(output, fps) as writer,
        _running(video, loop=False, rate=rate) as (subscriber, source, check),
    ):
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while source.poll() is None or time.monotonic() < subscriber.last_message + QUIET_SECONDS:
            if source.poll() is None:
                check(deadline)
            rclpy.spin_once(subscriber, timeout_sec=0.1)
            for image, message in subscriber.pairs():
                deadline = time.monotonic() + TIMEOUT_SECONDS
                poses = [] if message is None else [_pose(person) for person in message.poses]
                writer.write(draw_poses(image, poses), frames / fps)
                frames += 1
                with_poses += message is not None
                people += sum(pose.score >= MIN_POSE_SCORE for pose in poses)
    if not frames:
        raise ImageError(f'no frame of {video} came back')
    print(
        f'\nReceived on /posenet_node/poses: {with_poses} messages for {total} frames, '
        f'{people / max(1, with_poses):.2f} people a frame with a score of {MIN_POSE_SCORE} or more'
        f'\n\nDrawn: {output} ({frames} frames)'
    )
    return 0


@contextlib.contextmanager
def _running(source: Path, loop: bool, rate: float):
    """Runs node, source and subscriber, and ends them also after an error."""
    reliable = 'qos_overrides./image_raw.{}.reliability:=reliable'
    settings = {'source': str(source.resolve()), 'loop': loop, 'rate': rate}
    settings['wait_for_subscribers'] = 2
    arguments = [part for k, v in settings.items() for part in ('-p', f'{k}:={_yaml(v)}')]
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(
            _process(['posenet_node', '--ros-args', '-p', reliable.format('subscription')])
        )
        images = stack.enter_context(
            _process(['image_source', '--ros-args', '-p', reliable.format('publisher'), *arguments])
        )
        rclpy.init()
        stack.callback(rclpy.try_shutdown)
        subscriber = DemoSubscriber()
        stack.callback(subscriber.destroy_node)

        def check(deadline: float) -> None:
            for name, process in (('posenet_node', node), ('image_source', images)):
                if process.poll():
                    raise PoseNetError(f'{name} ended with status {process.returncode}')
            if time.monotonic() > deadline:
                raise PoseNetError(f'no poses came within {TIMEOUT_SECONDS:.0f} s')

        yield subscriber, images, check


@contextlib.contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _yaml(value: object) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower()


def _pose(person) -> Pose:
    return Pose(
        person.score,
        np.array([(keypoint.x, keypoint.y) for keypoint in person.keypoints], np.float64),
        np.array([keypoint.score for keypoint in person.keypoints], np.float64),
        np.array([keypoint.deviation for keypoint in person.keypoints], np.float64),
    )


def _stamp(message: Image | PoseArray) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec


if __name__ == '__main__':
    cv2.setNumThreads(1)
    sys.exit(main())
