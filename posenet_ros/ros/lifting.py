"""People into space, in a thread of its own: poses and depth images in, ~/poses_3d and more out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rclpy.node import Node
from std_msgs.msg import Header

from posenet_ros.core.decode import Pose
from posenet_ros.errors import ConfigError, ImageError
from posenet_ros.io.image_message import stamp_nanoseconds
from posenet_ros.ros.camera import Camera
from posenet_ros.ros.log import LimitedWarnings
from posenet_ros.ros.markers import in_space
from posenet_ros.ros.messages import people_array, pose_array_3d, transforms
from posenet_ros.ros.serialized_image import read_compressed_image, read_image
from posenet_ros.ros.worker import Worker
from posenet_ros.space.camera_model import has_values
from posenet_ros.space.lift import Pose3D
from posenet_ros.space.pairing import Depth, Paired, Pairing
from posenet_ros.warm_up import compile_lifting

if TYPE_CHECKING:
    from tf2_ros import TransformBroadcaster


SILENT_SECONDS = 3.0  # without a depth image, until the log says so


@dataclass(frozen=True)
class Found:
    """The poses of one image."""

    header: Header
    width: int
    height: int
    poses: list[Pose]  # as published
    flipped: bool  # x of the poses is mirrored

    @property
    def image(self) -> tuple[str, int, int]:
        """Of what: frame, width and height."""
        return self.header.frame_id, self.width, self.height


class Lifting:
    """The thread, and what it publishes.

    Args:
        node: for its log.
        cameras: by name.
        values: of the node's parameters; those of the group space are used, and what the markers
            need.
        report: takes unexpected exceptions.
        resting: whether nothing is published now.
    """

    def __init__(
        self,
        node: Node,
        cameras: dict[str, Camera],
        values: Callable[[], dict[str, Any]],
        report: Callable[[BaseException], None],
        resting: Callable[[], bool],
    ) -> None:
        self._node = node
        self._warnings = LimitedWarnings(node)
        self._started = time.monotonic()
        self._last_depth: dict[str, float] = {}  # by camera, time.monotonic()
        self._cameras = cameras
        self._report = report
        self._resting = resting
        self._values = values
        compile_lifting()  # now, not while the first people wait
        now = values()
        self._depth_wanted = now['lift'] == 'depth'
        self.broadcaster: TransformBroadcaster | None = None  # of frames; the node owns it
        wait = now['depth_wait'] if self._depth_wanted else 0.0
        self._pairing: Pairing[Found] = Pairing(now['depth_slop'], wait)
        self._worker: Worker[Paired] = Worker(
            'posenet_space', self._pairing, self._lift_all, report
        )
        self._worker.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._worker.stop()

    def clear(self) -> None:
        """Forgets the poses and the depth images that wait."""
        self._pairing.clear()

    def wanted(self, camera: Camera) -> bool:
        """Whether anybody listens."""
        return self.broadcaster is not None or camera.space_wanted()

    # In: the model's thread, and the executor's.

    def put(self, camera: Camera, found: Found) -> None:
        """Adds the poses of an image."""
        self._pairing.put(camera.name, stamp_nanoseconds(found.header), found)

    def put_depth(self, camera: Camera, message: bytes) -> None:
        """Adds a depth image, of which only the stamp is read."""
        try:
            stamp = stamp_nanoseconds(self._read(camera, message).header)
        except ImageError as error:
            self._warn(camera, f'a depth image is broken: {error}')
            return
        self._last_depth[camera.name] = time.monotonic()
        self._pairing.put_depth(camera.name, stamp, message)

    # Out: the own thread.

    def _lift_all(self, ready: dict[str, Paired]) -> None:
        for name, paired in ready.items():
            try:
                self._lift(self._cameras[name], paired.item, paired.depth)
            except BaseException as error:  # must not cost the other cameras their people
                self._report(error)

    def _lift(self, camera: Camera, found: Found, depth: Depth | None) -> None:
        if self._resting():
            return
        message, depth_stamp = None, 0
        if camera.placer.info is None or not has_values(camera.placer.info):
            self._warn(
                camera, f'people cannot be placed without a calibration on {camera.info_topic}'
            )
        elif camera.placer.model(found.width, found.height) is None:
            pass  # the camera has said why
        elif depth is not None:
            message, depth_stamp = self._read(camera, depth.message), depth.stamp
        elif self._depth_wanted:
            camera.statistics.people_without_depth('no depth image in time')
            self._warn_of_silence(camera)
        people, why = camera.placer.place_or_guess(
            *found.image, found.poses, message, found.flipped
        )
        if why:
            camera.statistics.people_without_depth(why)
            self._warn(camera, f'a depth image cannot be used: {why}')
            depth_stamp = 0
        elif message is not None:
            camera.statistics.people_with_depth()
        self._publish(camera, found, people, depth_stamp)

    def _warn_of_silence(self, camera: Camera) -> None:
        if time.monotonic() > self._last_depth.get(camera.name, self._started) + SILENT_SECONDS:
            self._warn(
                camera,
                f'no depth image comes on {camera.depth_topic}, which '
                f'{self._node.count_publishers(camera.depth_topic)} nodes publish; people are '
                'placed by their usual size',
            )

    def _publish(
        self, camera: Camera, found: Found, people: list[Pose3D], depth_stamp: int
    ) -> None:
        if self._resting():
            return
        values = self._values()
        header, flipped = found.header, found.flipped
        chosen = values['min_pose_score'], values['people_point']
        camera.publish_space(
            lambda: pose_array_3d(header, depth_stamp, people),
            lambda: people_array(header, people, *chosen),
        )
        model = camera.placer.model(found.width, found.height)
        camera.publish_markers(
            header,
            found.poses,
            lambda: in_space(model, found.poses, people, flipped, values['show_deviations']),
            values,
        )
        broadcaster = self.broadcaster
        if broadcaster is not None:
            frames = transforms(header, people, *chosen)
            if frames:
                broadcaster.sendTransform(frames)

    def _read(self, camera: Camera, message: bytes) -> Any:
        """A depth image, of which the pixels stay where they are."""
        read = read_compressed_image if camera.depth_is_compressed else read_image
        return read(message)

    def _warn(self, camera: Camera, text: str) -> None:
        self._warnings.add(camera.name, text, text)


def broadcaster_class() -> type[TransformBroadcaster]:
    """What publishes frames.

    Raises:
        ConfigError: tf2_ros is not installed.
    """
    try:
        from tf2_ros import TransformBroadcaster
    except ImportError as error:
        raise ConfigError(
            'Invalid publish_tf True. It needs the package tf2_ros, which is not installed: '
            'apt install ros-$ROS_DISTRO-tf2-ros-py'
        ) from error
    return TransformBroadcaster  # type: ignore[no-any-return]
