"""One camera of the node: its topics, its newest camera_info, its statistics."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseArray as PositionArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from posenet_ros.core.closeups import Closeup
from posenet_ros.core.decode import Pose
from posenet_ros.errors import in_words, printable
from posenet_ros.io.draw import draw_closeups, draw_poses
from posenet_ros.io.image_message import (
    FOR_CV_BRIDGE,
    CvBridge,
    compressed_to_rgb,
    copy_rgb,
    image_to_rgb,
)
from posenet_ros.io.placing import Placer, is_rectified
from posenet_ros.msg import PoseArray, PoseArray3D
from posenet_ros.ros.bridges.bridge import Bridge, frame_of
from posenet_ros.ros.log import WARN_PERIOD_SECONDS, LimitedWarnings
from posenet_ros.ros.markers import Placed, no_markers, on_plane, pose_markers
from posenet_ros.ros.messages import image_message, jpeg_message, pixels_of, pose_array
from posenet_ros.ros.publishing import POSES_QOS
from posenet_ros.ros.selection import RateLimit
from posenet_ros.ros.serialized_image import ImageView, read_compressed_image, read_image
from posenet_ros.ros.statistics import CameraStatistics, Gaps
from posenet_ros.ros.topics import COMPRESSED_TYPE, CameraTopics, DepthTopics
from posenet_ros.space.camera_model import CameraModel

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

HAS_MESSAGE_INFO = hasattr(Subscription, 'CallbackType')  # not in Humble

Received: TypeAlias = bytes  # a serialised Image or CompressedImage

# A publisher is discovered before its node's name: the warning waits for the name.
QOS_WARNING_DELAY_SECONDS = 1.0

IMAGE_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)
DEPTH_QOS = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.BEST_EFFORT
)


class Camera:
    """Topics of one camera.

    Args:
        node: that owns the topics.
        name: prefix of the published topics; empty for none.
        topics: to subscribe to.
        depth: the topics of its depth images; None for none.
        bridges: that publish its poses too; the node owns them.
        lazy: subscribe only while somebody subscribes to a published topic.
        values: of the node's parameters; those that cannot change while the topics exist are used.
    """

    def __init__(
        self,
        node: LifecycleNode,
        name: str,
        topics: CameraTopics,
        depth: DepthTopics | None,
        bridges: Sequence[Bridge],
        lazy: bool,
        values: Mapping[str, Any],
    ) -> None:
        self.name = name
        self.topics = topics
        self.statistics = CameraStatistics()
        self.rate_limit = RateLimit()  # of max_rate; the executor's thread
        self._node = node
        self._warnings = LimitedWarnings(node)
        self._lazy = lazy
        self._max_pixels: int = values['max_image_pixels']
        self._bridges = bridges
        self.lift: bool = values['lift'] != 'off'
        self.depth_is_compressed = depth is not None and depth.compressed
        self._depth_topics = depth
        self._on_depth: Callable[[Camera, Received], None] | None = None
        self._depth_subscriptions: list[Subscription[Any]] = []
        self._depth_info_subscriptions: list[Subscription[Any]] = []
        self._depth_topic = self._depth_info_topic = ''
        self.placer = Placer(
            self._are_rectified(values['lens'], topics.image),
            depth is not None and self._are_rectified(values['depth_lens'], depth.depth),
            self._warn_of_calibration,
            self._max_pixels,
        )
        self._compressed = topics.image_type == COMPRESSED_TYPE
        if self._compressed:
            for module in ('cv2', 'PIL.PngImagePlugin'):  # now, not while the first image waits
                importlib.import_module(module)
        self._prefix = f'{name}/' if name else ''
        self._on_image: Callable[[Camera, Received], None] | None = None
        self._subscriptions: list[Subscription[Any]] = []
        self._image_topic, self._camera_info_topic = topics.image, topics.camera_info
        # Reused for the next drawing: page faults of new memory cost more than the drawing.
        self._drawing: Image | None = None
        self._frame_id = ''
        self._publishers: list[Publisher[Any]] = []
        overlay_qos = QoSProfile(depth=2, reliability=ReliabilityPolicy.RELIABLE)
        try:
            self._poses = self._publisher(PoseArray, 'poses', POSES_QOS)
            self._markers = self._publisher(MarkerArray, 'markers', POSES_QOS)
            self._annotated = self._publisher(Image, 'image_annotated', overlay_qos)
            self._annotated_jpeg = self._publisher(
                CompressedImage, 'image_annotated/compressed', overlay_qos
            )
            if self.lift:
                self._poses_3d = self._publisher(PoseArray3D, 'poses_3d', POSES_QOS)
                self._people = self._publisher(PositionArray, 'people', POSES_QOS)
        except BaseException:
            self.destroy()
            raise

    # Input.

    def subscribe(
        self,
        on_image: Callable[[Camera, Received], None],
        on_depth: Callable[[Camera, Received], None] | None = None,
    ) -> None:
        """Starts to receive images and camera_info.

        Args:
            on_image: gets what `read` takes.
            on_depth: gets a serialised depth image, if the camera has any.
        """
        self._on_image = on_image
        self._on_depth = on_depth if self._depth_topics is not None else None
        if not self._subscriptions:
            # Even if nobody needs it yet, so that an invalid QoS override fails here.
            self._open(on_image)
        if self._on_depth is not None and not self._depth_subscriptions:
            self._open_depth(self._on_depth)
        self.follow_demand()

    def unsubscribe(self) -> None:
        """Stops receiving."""
        self._on_image = self._on_depth = None
        self.follow_demand()

    def follow_demand(self) -> None:
        """Subscribes if somebody subscribes to a published topic (or always); else unsubscribes."""
        if self._on_image is None or (self._lazy and not self.wanted()):
            self._close(self._subscriptions)
        elif not self._subscriptions:
            self._open(self._on_image)
        if self._on_depth is None or not (self.space_wanted() or not self._lazy):
            self._close(self._depth_subscriptions)
            self._close(self._depth_info_subscriptions)
        elif not self._depth_subscriptions:
            self._open_depth(self._on_depth)

    @property
    def subscribed(self) -> bool:
        return bool(self._subscriptions)

    @property
    def image_topic(self) -> str:
        """The topic of the images, as rclpy resolved it."""
        return self._image_topic

    def wanted(self) -> bool:
        """Whether anybody subscribes to a published topic."""
        return any(publisher.get_subscription_count() > 0 for publisher in self._publishers) or any(
            bridge.wanted(self.name) for bridge in self._bridges
        )

    def space_wanted(self) -> bool:
        """Whether anybody subscribes to people in space."""
        return self.lift and (
            self._poses_3d.get_subscription_count() > 0
            or self._people.get_subscription_count() > 0
            or self._markers.get_subscription_count() > 0
        )

    @property
    def depth_topic(self) -> str:
        """The topic of the depth images, as rclpy resolved it."""
        return self._depth_topic

    @property
    def info_topic(self) -> str:
        """The topic of the camera_info, as rclpy resolved it."""
        return self._camera_info_topic

    def endpoints(self) -> list[str]:
        """Topics whose QoS can be overridden, as in the names of the parameters."""
        return [
            f'{self._image_topic}.subscription',
            f'{self._camera_info_topic}.subscription',
            *(
                f'{topic}.subscription'
                for topic in (self._depth_topic, self._depth_info_topic)
                if topic
            ),
            *(f'{publisher.topic_name}.publisher' for publisher in self._publishers),
        ]

    def _open(self, on_image: Callable[[Camera, Received], None]) -> None:
        gaps = Gaps()

        def receive(message: Received) -> None:
            self.statistics.image_received()
            on_image(self, message)

        def receive_numbered(message: Received, info: Any) -> None:
            number, publisher = info['publication_sequence_number'], info.get('publisher_gid', {})
            if number is not None:
                self.statistics.images_lost(gaps.before(publisher.get('data', b''), number))
            receive(message)

        self.statistics.listening()
        receives: Callable[..., None] = receive_numbered if HAS_MESSAGE_INFO else receive
        kind = CompressedImage if self._compressed else Image
        # raw: an image that is replaced by a newer one is never deserialised
        into = self._subscriptions
        self._image_topic = self._subscribe(into, kind, self.topics.image, receives, raw=True)
        self._camera_info_topic = self._subscribe(
            into, CameraInfo, self.topics.camera_info, self._on_camera_info
        )

    def _open_depth(self, on_depth: Callable[[Camera, Received], None]) -> None:
        topics = self._depth_topics
        assert topics is not None

        def receive(message: Received) -> None:
            self._follow_need_of_depth_info()
            on_depth(self, message)

        self._depth_topic = self._subscribe(
            self._depth_subscriptions,
            CompressedImage if topics.compressed else Image,
            topics.depth,
            receive,
            raw=True,
            qos=DEPTH_QOS,
        )
        self._follow_need_of_depth_info()

    def _follow_need_of_depth_info(self) -> None:
        """Each message costs the executor a wake, in which images wait."""
        topics, subscriptions = self._depth_topics, self._depth_info_subscriptions
        assert topics is not None

        def receive(info: CameraInfo) -> None:
            self.placer.depth_info = info

        if not self.placer.depth_info_needed:
            self._close(subscriptions)
        elif not subscriptions:
            self._depth_info_topic = self._subscribe(
                subscriptions, CameraInfo, topics.camera_info, receive
            )

    def _close(self, subscriptions: list[Subscription[Any]]) -> None:
        while subscriptions:
            self._node.destroy_subscription(subscriptions.pop())

    def read(self, received: Received) -> tuple[Header, np.ndarray]:
        """Header and pixels of an image: uint8 RGB (H, W, 3).

        Raises:
            ImageError: it is broken.
        """
        if self._compressed:
            picture = read_compressed_image(received)
            return picture.header, compressed_to_rgb(picture, self._damaged, self._max_pixels)
        message = read_image(received)
        return message.header, rgb_of(message)

    def _damaged(self, what: str) -> None:
        what = printable(what)
        self.statistics.image_damaged(what)
        self._node.get_logger().warning(
            f'{self._image_topic}: an image is damaged, and used all the same: {what}',
            throttle_duration_sec=WARN_PERIOD_SECONDS,
        )

    # Output.

    def publish_poses(self, header: Header, image: np.ndarray, poses: Sequence[Pose]) -> None:
        self._poses.publish(pose_array(header, image.shape[1], image.shape[0], poses))

    def publish_bridges(
        self,
        header: Header,
        image: np.ndarray,
        poses: Sequence[Pose],
        flipped: bool,
        values: Mapping[str, Any],
    ) -> None:
        """Publishes the poses as other packages' messages, each only if it has subscribers.

        Args:
            header: of the image.
            image: (H, W, 3).
            poses: in pixels of the image.
            flipped: the poses are mirrored.
            values: of the node's parameters.
        """
        wanted = [bridge for bridge in self._bridges if bridge.wanted(self.name)]
        if wanted:
            frame = frame_of(header, image.shape[1], image.shape[0], poses, flipped, values)
            for bridge in wanted:
                try:
                    bridge.publish(self.name, frame)
                except Exception as error:  # of the middleware; must not cost the others
                    topic = type(bridge).__name__
                    self._warnings.add(topic, str(error), f'bridge {topic}: {in_words(error)}')

    def overlays_wanted(self) -> bool:
        """Whether anybody subscribes to the annotated image, or to markers on a plane."""
        return (
            (not self.lift and self._markers.get_subscription_count() > 0)
            or self._annotated.get_subscription_count() > 0
            or self._annotated_jpeg.get_subscription_count() > 0
        )

    def publish_overlays(
        self,
        header: Header,
        image: np.ndarray,
        poses: Sequence[Pose],
        closeups: Sequence[Closeup],
        flipped: bool,
        values: Mapping[str, Any],
    ) -> None:
        """Publishes the markers and the annotated image, each only if it has subscribers.

        Args:
            header: of the image.
            image: uint8 RGB (H, W, 3).
            poses: in pixels of the image.
            closeups: of the image.
            flipped: the poses are mirrored; then the annotated image is mirrored, too.
            values: of the node's parameters; those of the group output are used.
        """
        height, width = image.shape[:2]
        deviations = values['show_deviations']
        if not self.lift:
            distance = values['marker_distance']

            def placed() -> list[Placed]:
                camera = self.placer.model(width, height) or CameraModel.uncalibrated(
                    width, height, values['marker_plane_width'] / distance
                )
                return on_plane(camera, poses, distance, flipped, deviations)

            self.publish_markers(header, poses, placed, values)
        raw_wanted = self._annotated.get_subscription_count() > 0
        jpeg_wanted = self._annotated_jpeg.get_subscription_count() > 0
        if raw_wanted or jpeg_wanted:
            message = self._drawing
            if message is None or (message.height, message.width) != (height, width):
                message = image_message(header, np.empty(image.shape, np.uint8), 'rgb8')
                self._drawing = message
            message.header = header
            canvas = pixels_of(message)
            copy_rgb(image[:, ::-1] if flipped else image, canvas)
            if values['show_closeups']:
                draw_closeups(canvas, closeups, flipped)
            scores = values['min_keypoint_score'], values['min_pose_score']
            draw_poses(canvas, poses, *scores, deviations)
            if raw_wanted:
                self._annotated.publish(message)
            if jpeg_wanted:
                self._annotated_jpeg.publish(jpeg_message(header, canvas))

    def publish_markers(
        self,
        header: Header,
        poses: Sequence[Pose],
        placed: Callable[[], Sequence[Placed]],
        values: Mapping[str, Any],
    ) -> None:
        """Publishes the markers, if they have subscribers.

        Args:
            header: of the image.
            poses: in pixels of the image.
            placed: returns where they are.
            values: of the node's parameters.
        """
        self._frame_id = header.frame_id
        if self._markers.get_subscription_count() > 0:
            scores = values['min_keypoint_score'], values['min_pose_score']
            self._markers.publish(
                pose_markers(header, poses, placed(), *scores, values['marker_lifetime'])
            )

    def publish_space(
        self, poses: Callable[[], PoseArray3D], people: Callable[[], PositionArray]
    ) -> None:
        """Publishes people in space, each message only if it has subscribers."""
        if self._poses_3d.get_subscription_count() > 0:
            self._poses_3d.publish(poses())
        if self._people.get_subscription_count() > 0:
            self._people.publish(people())

    def clear(self) -> None:
        """Removes the markers that rviz still shows, and the people that others still know of."""
        for bridge in self._bridges:
            bridge.clear(self.name)
        with contextlib.suppress(Exception):  # the context may be shutting down
            if self._markers.get_subscription_count() > 0:
                self._markers.publish(no_markers(Header(frame_id=self._frame_id, stamp=Time())))

    def destroy(self) -> None:
        """Destroys all topics."""
        self.unsubscribe()
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        self._publishers = []

    # Helpers.

    # Only the event callbacks that we use, without rclpy's default ones: see publishing.no_events.

    def _publisher(self, kind: type, name: str, qos: QoSProfile) -> Publisher[Any]:
        qos = _copy(qos)  # rclpy writes the overrides into it
        topic = f'~/{self._prefix}{name}'
        resolved = self._node.resolve_topic_name(topic)

        def warn(_: object) -> None:
            self._node.get_logger().warning(
                f'{resolved}: a subscriber asks for a QoS that we do not offer, and gets nothing; '
                f'we offer {_describe(qos)}'
            )

        publisher: Publisher[Any] = self._node.create_publisher(
            kind,
            topic,
            qos,
            event_callbacks=PublisherEventCallbacks(
                incompatible_qos=warn, use_default_callbacks=False
            ),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self._publishers.append(publisher)
        return publisher

    def _subscribe(
        self,
        into: list[Subscription[Any]],
        kind: type,
        topic: str,
        callback: Callable[..., None],
        raw: bool = False,
        qos: QoSProfile = IMAGE_QOS,
    ) -> str:
        """Adds a subscription to a list. Returns the topic as rclpy has resolved it."""
        qos = _copy(qos)
        resolved = self._node.resolve_topic_name(topic)
        subscription = self._node.create_subscription(
            kind,
            topic,
            callback,
            qos,
            raw=raw,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=lambda event: self._warn_of_qos(resolved, qos),
                use_default_callbacks=False,
            ),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        into.append(subscription)
        return subscription.topic_name

    def _on_camera_info(self, info: CameraInfo) -> None:
        self.placer.info = info

    def _warn_of_calibration(self, problem: str) -> None:
        effect = 'nobody is placed' if self.lift else 'markers are drawn as without a calibration'
        self._warnings.add(self.name, problem, f'{self._camera_info_topic}: {problem}; {effect}')

    def _are_rectified(self, lens: str, topic: str) -> bool:
        if lens == 'auto':
            return is_rectified(topic) or is_rectified(self._node.resolve_topic_name(topic))
        return lens == 'rectified'

    def _warn_of_qos(self, topic: str, ours: QoSProfile) -> None:
        """Logs what the publishers offer, and what we request."""
        node = self._node

        def warn() -> None:
            node.destroy_timer(timer)
            offers = ', '.join(
                f'{info.node_namespace.rstrip("/")}/{info.node_name} offers '
                f'{_describe(info.qos_profile)}'
                for info in node.get_publishers_info_by_topic(topic)
            )
            node.get_logger().warning(
                f'{topic}: a publisher has a QoS that we cannot receive with; '
                f'{offers or "it has left again"}; we ask for {_describe(ours)}. The parameter '
                f'qos_overrides.{topic}.subscription.reliability changes it'
            )

        steady = Clock(clock_type=ClockType.STEADY_TIME)
        timer = node.create_timer(QOS_WARNING_DELAY_SECONDS, warn, clock=steady)


def rgb_of(message: Image | ImageView) -> np.ndarray:
    """The pixels of an image: uint8 RGB (H, W, 3).

    Raises:
        ImageError: it is broken.
    """
    return image_to_rgb(message, cv_bridge() if message.encoding in FOR_CV_BRIDGE else None)


@functools.cache
def cv_bridge() -> CvBridge | None:
    """The distribution's cv_bridge; None if it is missing or cannot be imported."""
    try:
        import cv_bridge as package

        bridge: CvBridge = package.CvBridge()
        return bridge
    except Exception:  # a cv_bridge built for another numpy or OpenCV fails in many ways
        return None


def _copy(qos: QoSProfile) -> QoSProfile:
    # rclpy writes the overrides into the profile that it is given.
    return QoSProfile(history=qos.history, depth=qos.depth, reliability=qos.reliability)


def _describe(qos: QoSProfile) -> str:
    return f'{qos.reliability.name.lower()}, {qos.durability.name.lower()}'
