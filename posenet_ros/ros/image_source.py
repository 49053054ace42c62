"""Publishes a photo, a folder of photos, a video or a camera: for demos, tests and dry runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from posenet_ros.environment import expanded
from posenet_ros.errors import ConfigError, ImageError
from posenet_ros.io.photos import photos_and_others, read_depth, read_image
from posenet_ros.io.source import WHAT_IS_KNOWN, Source, expect, find_source
from posenet_ros.io.video import Video
from posenet_ros.ros.declare_parameters import declare_parameters
from posenet_ros.ros.messages import image_message, jpeg_message
from posenet_ros.ros.parameters import ParameterSpec
from posenet_ros.ros.topics import camera_topics

# OpenCV conversion from RGB to each encoding that can be published.
ENCODINGS = {
    'rgb8': None,
    'bgr8': cv2.COLOR_RGB2BGR,
    'rgba8': cv2.COLOR_RGB2RGBA,
    'bgra8': cv2.COLOR_RGB2BGRA,
    'mono8': cv2.COLOR_RGB2GRAY,
}

PARAMETERS = (
    ParameterSpec(
        'source',
        '',
        'Photo, folder of photos, video file, number or device of a camera, or URL of a stream.',
        'input',
        dynamic=True,
    ),
    ParameterSpec(
        'depth_source',
        '',
        'Beside a folder of photos: a folder of depth images, PNG of 16 bits in millimetres, in '
        'the order of the photos and registered to them. Published on depth/image_rect_raw.',
        'input',
    ),
    ParameterSpec(
        'rate',
        0.0,
        'Images per second; 0 is the rate of the video, and 10 for photos.',
        'input',
        range=(0.0, 1000.0),
    ),
    ParameterSpec('loop', True, 'Begin again at the end; otherwise exit there.', 'input'),
    ParameterSpec(
        'encoding', 'rgb8', 'Encoding of the images.', 'input', choices=tuple(ENCODINGS)
    ),
    ParameterSpec('frame_id', 'camera_optical_frame', 'Frame of the headers.', 'input'),
    ParameterSpec(
        'compressed', False, 'Also publish JPEG on image_raw/compressed.', 'input'
    ),
    ParameterSpec(
        'horizontal_fov',
        60.0,
        'Horizontal field of view that camera_info claims, in degrees.',
        'input',
        range=(1.0, 179.0),
    ),
    ParameterSpec(
        'wait_for_subscribers',
        0,
        'Publish nothing until image_raw has this many subscribers.',
        'input',
        range=(0, 100),
    ),
)  # fmt: skip

PHOTO_RATE = 10.0


class ImageSource(Node):
    """Publishes image_raw and camera_info at a rate.

    Args:
        on_end: called when the source has ended and does not loop.

    Raises:
        ConfigError, ImageError: the source cannot be published.
    """

    def __init__(self, on_end: Callable[[], None], **kwargs: Any) -> None:
        super().__init__('image_source', **kwargs)
        self._on_end = on_end
        self._video: Video | None = None
        self._num_photos = 0
        values = self._values = declare_parameters(self, PARAMETERS)
        self._images, own_rate = self._open(values['source'])
        self._depths = self._open_depths(values['depth_source'])
        rate = values['rate'] or own_rate
        # Best effort, as camera drivers publish; reliable where a parameter says so.
        qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        options: dict[str, Any] = {
            'qos_overriding_options': QoSOverridingOptions.with_default_policies()
        }
        self._publisher = self.create_publisher(Image, 'image_raw', qos, **options)
        topics = camera_topics(self, '', 'image_raw', '', 'raw', alone=True)
        self._info_publisher = self.create_publisher(CameraInfo, topics.camera_info, qos, **options)
        self._compressed_publisher = None
        if values['compressed']:
            topic = f'{self.resolve_topic_name("image_raw")}/compressed'
            self._compressed_publisher = self.create_publisher(
                CompressedImage, topic, qos, **options
            )
        self._depth_publisher = self._depth_info_publisher = None
        if self._depths is not None:
            topic = 'depth/image_rect_raw'
            self._depth_publisher = self.create_publisher(Image, topic, qos, **options)
            topic = f'{self.resolve_topic_name(topic).rpartition("/")[0]}/camera_info'
            self._depth_info_publisher = self.create_publisher(CameraInfo, topic, qos, **options)
        self._started = False
        self._timer = self.create_timer(
            1.0 / rate, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self.get_logger().info(f'publishing {values["source"]} at {rate:g} Hz')

    def destroy_node(self) -> None:
        if self._video is not None:
            self._video.close()
        super().destroy_node()

    def _open(self, source: str) -> tuple[Iterator[np.ndarray | Path], float]:
        """The images, or the paths to read them from, and their own rate in Hz."""
        loop = self._values['loop']
        if not source:
            raise ConfigError(
                f'Invalid source. Should be {WHAT_IS_KNOWN}: -p source:=photo.jpg, -p source:=0'
            )
        found = expect(
            find_source(expanded(source) if source.startswith('~') else source),
            ('photo', 'folder', 'video', 'camera', 'stream'),
            'ros2 bag play publishes bags',
        )
        if found.kind not in ('photo', 'folder'):
            self._video = Video(found)
            return self._video_frames(found, loop), self._video.fps
        paths = [found.path]
        if found.kind == 'folder':
            paths, others = photos_and_others(found.path)
            if others:
                self.get_logger().warning(
                    f'{source}: {len(others)} entries are no photos, such as {others[0].name}'
                )
            if not paths:
                raise ImageError(f'{source} holds no photo')
        self._num_photos = len(paths)
        if len(paths) == 1:
            image = read_image(paths[0])
            return (itertools.repeat(image) if loop else iter([image])), PHOTO_RATE
        return (itertools.cycle(paths) if loop else iter(paths)), PHOTO_RATE

    def _open_depths(self, source: str) -> Iterator[Path] | None:
        """The depth images beside the photos; None for none."""
        if not source:
            return None
        paths, _ = photos_and_others(expanded(source))
        if len(paths) != self._num_photos:
            raise ConfigError(
                f'Invalid depth_source {source}. It has {len(paths)} images, and source '
                f'{self._num_photos} photos'
            )
        return itertools.cycle(paths)

    def _video_frames(self, source: Source, loop: bool) -> Iterator[np.ndarray]:
        while self._video is not None:
            count = 0
            for frame in self._video:
                count += 1
                yield frame.image
            if not loop or not count:
                return
            self._video.close()
            self._video = Video(source)

    def _publish(self) -> None:
        if not self._started:
            wanted = self._values['wait_for_subscribers']
            if self._publisher.get_subscription_count() < wanted:
                return
            self._started = True
        depth = None
        try:
            image = next(self._images, None)
            depth_path = next(self._depths) if self._depths is not None else None
            if isinstance(image, Path):
                image = read_image(image)
            if image is not None and depth_path is not None:
                depth = read_depth(depth_path)
        except ImageError as error:
            # A bad photo is skipped; a video that cannot be opened again has ended.
            self.get_logger().warning(str(error), throttle_duration_sec=5.0)
            if self._video is None:
                return
            image = None
        if image is None:
            self._timer.cancel()
            self._on_end()
            return
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._values['frame_id'])
        encoding = self._values['encoding']
        conversion = ENCODINGS[encoding]
        pixels = image if conversion is None else cv2.cvtColor(image, conversion)
        self._info_publisher.publish(self._camera_info(header, image))
        self._publisher.publish(image_message(header, pixels, encoding))
        if depth is not None and self._depth_publisher and self._depth_info_publisher:
            self._depth_info_publisher.publish(self._camera_info(header, depth))
            self._depth_publisher.publish(image_message(header, depth, '16UC1'))
        if self._compressed_publisher is not None:
            self._compressed_publisher.publish(jpeg_message(header, image))

    def _camera_info(self, header: Header, image: np.ndarray) -> CameraInfo:
        """A pinhole camera with its principal point in the middle of the image."""
        height, width = image.shape[:2]
        focal = width / 2 / math.tan(math.radians(self._values['horizontal_fov']) / 2)
        x, y = (width - 1) / 2, (height - 1) / 2
        return CameraInfo(
            header=header,
            height=height,
            width=width,
            distortion_model='plumb_bob',
            d=[0.0] * 5,
            k=[focal, 0.0, x, 0.0, focal, y, 0.0, 0.0, 1.0],
            r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            p=[focal, 0.0, x, 0.0, 0.0, focal, y, 0.0, 0.0, 0.0, 1.0, 0.0],
        )
