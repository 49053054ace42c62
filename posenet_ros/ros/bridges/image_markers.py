"""People as visualization_msgs/ImageMarker on ~/image_markers, for viewers that draw those."""

from __future__ import annotations

from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import ImageMarker

from posenet_ros.ros.bridges.bridge import BONE_PIXELS, Frame, TopicBridge
from posenet_ros.ros.messages import duration


class ImageMarkers(TopicBridge[ImageMarker]):
    """Two messages an image: everybody's bones, and everybody's joints."""

    topic = 'image_markers'
    message_type = ImageMarker

    def messages(self, frame: Frame) -> list[ImageMarker]:
        bones = self._marker(frame, 'bones', ImageMarker.LINE_LIST)
        joints = self._marker(frame, 'joints', ImageMarker.POINTS)
        for person in frame.people:
            red, green, blue = person.colour
            colour = ColorRGBA(r=red, g=green, b=blue, a=1.0)
            # A colour for each line, which has two points, and for each joint.
            for marker, points, ends in ((bones, person.bones(), 2), (joints, person.joints(), 1)):
                marker.points += [Point(x=x, y=y) for x, y in points]
                marker.outline_colors += [colour] * (len(points) // ends)
        return [bones, joints]

    @staticmethod
    def _marker(frame: Frame, namespace: str, kind: int) -> ImageMarker:
        return ImageMarker(
            header=frame.header,
            ns=namespace,
            type=kind,
            action=ImageMarker.ADD if frame.people else ImageMarker.REMOVE,
            scale=BONE_PIXELS * max(frame.width, frame.height),
            lifetime=duration(frame.lifetime),
        )


BRIDGE = ImageMarkers
