"""The people of one camera's images in space: from messages of its lens and of its depth images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from posenet_ros.config import MAX_IMAGE_PIXELS
from posenet_ros.core.decode import Pose
from posenet_ros.core.preprocess import mirror
from posenet_ros.errors import CalibrationError, ImageError, quoted
from posenet_ros.io.depth_image import compressed_depth_of, depth_of
from posenet_ros.space.camera_model import CameraModel
from posenet_ros.space.lift import Pose3D, PoseLifter, unplaced

REGISTER = (
    "Launch depth_image_proc's register node, or the driver's own (realsense2_camera: "
    'align_depth.enable:=true), and choose the topic of that'
)
SAME_ASPECT = 0.02  # relative difference
# The fields of a camera_info that say something of the lens.
LENS = ('width', 'height', 'k', 'p', 'r', 'd', 'distortion_model', 'binning_x', 'binning_y', 'roi',
        'K', 'P', 'R', 'D')  # fmt: skip


class Placer:
    """What is known of a camera.

    Attributes:
        info: its newest sensor_msgs/CameraInfo; None before the first.
        depth_info: that of its depth images.
        depth_info_needed: whether it says something that the images' own does not: depth images of
            the same size and lens need none.

    Args:
        rectified: whether its images are; see CameraModel.of_info.
        depth_rectified: whether the depth images are: those of depth_image_proc are.
        problem: called with what is wrong with a calibration, once for each.
        max_pixels: of a compressed depth image.
    """

    def __init__(
        self,
        rectified: bool,
        depth_rectified: bool,
        problem: Callable[[str], None],
        max_pixels: int = MAX_IMAGE_PIXELS,
    ) -> None:
        self.info: Any = None
        self.depth_info: Any = None
        self.depth_info_needed = True  # until a depth image has come
        self._rectified, self._depth_rectified = rectified, depth_rectified
        self._problem = problem
        self._max_pixels = max_pixels
        self._known: tuple[Any, int, int, CameraModel | None] | None = None

    def model(self, width: int, height: int) -> CameraModel | None:
        """The lens, for images of this size; None without a calibration that can be used."""
        info = self.info
        if info is None:
            return None
        known = self._known
        if known is None or known[1:3] != (width, height) or not _same_lens(known[0], info):
            model = None
            try:
                model = CameraModel.of_info(info, width, height, self._rectified)
            except CalibrationError as error:
                self._problem(str(error))
            known = self._known = info, width, height, model
        return known[3]

    def place(
        self,
        frame_id: str,
        width: int,
        height: int,
        poses: Sequence[Pose],
        depth: Any = None,
        flipped: bool = False,
    ) -> list[Pose3D]:
        """People in space, in the order of the poses; unplaced without a calibration.

        Args:
            frame_id: of the image.
            width: of the image, in pixels.
            height: of the image, in pixels.
            poses: in pixels of the image.
            depth: a sensor_msgs/Image, or a CompressedImage, of the same moment; None: by the usual
                size of people.
            flipped: x of the poses is mirrored.

        Raises:
            ImageError, CalibrationError: the depth image cannot be used.
        """
        model = self.model(width, height)
        if model is None:
            return [unplaced(pose) for pose in poses]
        if flipped:
            poses = [replace(pose, keypoints=upright(pose.keypoints, width)) for pose in poses]
        if depth is None:
            return PoseLifter(model).lift(poses)
        if depth.header.frame_id != frame_id:
            raise ImageError(
                f'it is in the frame {quoted(depth.header.frame_id)}, and the images are in '
                f'{quoted(frame_id)}: it is not registered to them. {REGISTER}'
            )
        if hasattr(depth, 'format'):
            image = compressed_depth_of(depth, self._max_pixels)
        else:
            image = depth_of(depth)
        depth_model = self._depth_model(model, *image.depth.shape)
        return PoseLifter(model, depth_model).lift(poses, image.depth, image.metres)

    def place_or_guess(
        self,
        frame_id: str,
        width: int,
        height: int,
        poses: Sequence[Pose],
        depth: Any = None,
        flipped: bool = False,
    ) -> tuple[list[Pose3D], str]:
        """As place; by their usual size where the depth image cannot be used, and why it cannot."""
        image = frame_id, width, height
        try:
            return self.place(*image, poses, depth, flipped), ''
        except (ImageError, CalibrationError) as error:
            return self.place(*image, poses, flipped=flipped), str(error)

    def _depth_model(self, model: CameraModel, height: int, width: int) -> CameraModel | None:
        """The lens of depth images of a size; None if they show the same pixels, scaled."""
        same_size = (width, height) == (model.width, model.height)
        lens = bool(model.distortion or model.rotation)
        same_lens = not lens or self._depth_rectified == self._rectified
        self.depth_info_needed = not (same_size and same_lens)
        if not self.depth_info_needed:
            return None
        info = self.depth_info or (self.info if same_size else None)
        if info is not None:
            return CameraModel.of_info(info, width, height, self._depth_rectified)
        if abs(width * model.height / (height * model.width) - 1) > SAME_ASPECT:
            raise ImageError(
                f'it has {width} x {height} pixels, the images have {model.width} x '
                f'{model.height}, and no camera_info of the depth images has come, which would '
                'say how they belong together'
            )
        return None


def upright(pixels: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a mirrored image as the camera took it."""
    pixels = pixels.copy()
    mirror(pixels, width)
    return pixels


def is_rectified(topic: str) -> bool:
    """Whether a topic's name says that its images are rectified: image_rect, rect/image."""
    parts = topic.removesuffix('/compressed').split('/')[-2:]
    return bool({'rect', 'rectified'} & {word for part in parts for word in part.split('_')})


def _same_lens(info: Any, other: Any) -> bool:
    """Whether two camera_infos say the same."""
    return info is other or all(
        _bytes_of(getattr(info, name, None)) == _bytes_of(getattr(other, name, None))
        for name in LENS
    )


def _bytes_of(value: Any) -> Any:
    """Arrays as bytes, so that NaN equals itself."""
    return value.tobytes() if hasattr(value, 'tobytes') else value
