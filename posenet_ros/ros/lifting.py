"""People into space, in a thread of its own: poses and depth images in, ~/poses_3d and more out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rclpy.node import Node
from std_msgs.msg import Header

from posenet_ros.core.decode import Pose
from posenet_ros.errors import ConfigError, ImageError
from posenet_ros.io.depth_image import DepthImage, compressed_depth_of, depth_of
from posenet_ros.ros.camera import Camera
from posenet_ros.ros.log import LimitedWarnings
from posenet_ros.ros.markers import in_space, upright
from posenet_ros.ros.messages import people_array, pose_array_3d, transforms
from posenet_ros.ros.pairing import NANOSECONDS, Depth, Paired, Pairing
from posenet_ros.ros.serialized_image import read_compressed_image, read_image
from posenet_ros.ros.worker import Worker
from posenet_ros.space.camera_model import CameraModel
from posenet_ros.space.lift import Pose3D, PoseLifter, unplaced
from posenet_ros.warm_up import compile_lifting

if TYPE_CHECKING:
    from tf2_ros import TransformBroadcaster

REGISTER = (
    "Launch depth_image_proc's register node, or the driver's own (realsense2_camera: "
    'align_depth.enable:=true), and set depth_topic'
)


@dataclass(frozen=True)
class Found:
    """The poses of one image."""

    header: Header
    width: int
    height: int
    poses: list[Pose]  # as published


def nanoseconds(header: Header) -> int:
    """The stamp of a header."""
    return int(header.stamp.sec) * NANOSECONDS + int(header.stamp.nanosec)


class Lifting:
    """The thread, and what it publishes.

    Args:
        node: for its log.
        cameras: by name.
        values: of the node's parameters; those of the group space are used, and what the markers
            need.
        report: takes unexpected exceptions.
    """

    def __init__(
        self,
        node: Node,
        cameras: dict[str, Camera],
        values: Callable[[], dict[str, Any]],
        report: Callable[[BaseException], None],
    ) -> None:
        self._warnings = LimitedWarnings(node)
        self._cameras = cameras
        self._values = values
        compile_lifting()  # now, not while the first people wait
        now = values()
        self._with_depth = now['lift'] == 'depth'
        self.broadcaster: TransformBroadcaster | None = None  # of frames; the node owns it
        wait = now['depth_wait'] if self._with_depth else 0.0
        self._pairing: Pairing[Found] = Pairing(now['depth_slop'], wait)
        self._worker: Worker[Paired[Found]] = Worker(
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
        if self._pairing.put(camera.name, nanoseconds(found.header), found):
            camera.statistics.people_without_depth('too many waited')

    def put_depth(self, camera: Camera, message: bytes) -> None:
        """Adds a depth image, of which only the stamp is read."""
        try:
            read = read_compressed_image if camera.depth_is_compressed else read_image
            stamp = nanoseconds(read(message).header)
        except ImageError as error:
            self._warn(camera, f'a depth image is broken: {error}')
            return
        self._pairing.put_depth(camera.name, stamp, message)

    # Out: the own thread.

    def _lift_all(self, ready: dict[str, Paired[Found]]) -> None:
        for name, paired in ready.items():
            self._lift(self._cameras[name], paired.item, paired.depth)

    def _lift(self, camera: Camera, found: Found, depth: Depth | None) -> None:
        values = self._values()
        model = camera.model(found.width, found.height)
        flipped = values['flip_horizontal']
        people = self._people(camera, model, found, depth, flipped)
        depth_stamp = depth.stamp if depth is not None and people is not None else 0
        if people is None:
            people = self._people(camera, model, found, None, flipped)
        assert people is not None
        camera.publish_space(
            lambda: pose_array_3d(found.header, depth_stamp, people),
            lambda: people_array(
                found.header, people, values['min_pose_score'], values['people_point']
            ),
        )
        camera.publish_markers(
            found.header,
            found.poses,
            lambda: in_space(model, found.poses, people, flipped, values['show_deviations']),
            values,
        )
        broadcaster = self.broadcaster
        if broadcaster is not None:
            frames = transforms(
                found.header, people, values['min_pose_score'], values['people_point']
            )
            if frames:
                broadcaster.sendTransform(frames)

    def _people(
        self,
        camera: Camera,
        model: CameraModel | None,
        found: Found,
        depth: Depth | None,
        flipped: bool,
    ) -> list[Pose3D] | None:
        """The people of an image in space; None if the depth image cannot be used."""
        if model is None:
            self._warn(
                camera, f'people cannot be placed without a calibration on {camera.info_topic}'
            )
            return [unplaced(pose) for pose in found.poses]
        poses: Sequence[Pose] = found.poses
        if flipped:
            poses = [
                replace(pose, keypoints=upright(pose.keypoints, model, flipped)) for pose in poses
            ]
        if depth is None:
            if self._with_depth:
                camera.statistics.people_without_depth('no depth image in time')
            return PoseLifter(model).lift(poses)
        try:
            image, depth_model = self._read(camera, model, found, depth.message)
            people = PoseLifter(model, depth_model).lift(poses, *image)
        except ImageError as error:
            camera.statistics.people_without_depth(str(error))
            self._warn(camera, f'a depth image cannot be used: {error}')
            return None
        camera.statistics.people_with_depth()
        return people

    def _read(
        self, camera: Camera, model: CameraModel, found: Found, message: bytes
    ) -> tuple[DepthImage, CameraModel | None]:
        """A depth image, and its camera where it is another.

        Raises:
            ImageError: it is broken, or not registered to the colour.
        """
        if camera.depth_is_compressed:
            compressed = read_compressed_image(message)
            header = compressed.header
            image = compressed_depth_of(compressed, camera.max_pixels)
        else:
            plain = read_image(message)
            header, image = plain.header, depth_of(plain)
        if header.frame_id != found.header.frame_id:
            raise ImageError(
                f'it is in the frame {header.frame_id!r}, and the images are in '
                f'{found.header.frame_id!r}: it is not registered to them. {REGISTER}'
            )
        height, width = image.depth.shape
        if (width, height) == (model.width, model.height):
            return image, None
        return image, camera.depth_model(width, height)

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
    return TransformBroadcaster
