"""People as foxglove_msgs/ImageAnnotations on ~/annotations: Foxglove draws them over the image."""

from __future__ import annotations

from foxglove_msgs.msg import Color, ImageAnnotations, Point2, PointsAnnotation, TextAnnotation

from posenet_ros.ros.bridges.bridge import BONE_PIXELS, Frame, Person, TopicBridge

FONT_PIXELS = 1 / 40  # of the image's longer side
CENTRE = 0.5  # of the first pixel, whose corner is the origin there


class Annotations(TopicBridge[ImageAnnotations]):
    """One message an image, with its stamp, by which Foxglove puts them together."""

    topic = 'annotations'
    message_type = ImageAnnotations

    def messages(self, frame: Frame) -> list[ImageAnnotations]:
        stamp, side = frame.header.stamp, max(frame.width, frame.height)
        message = ImageAnnotations()
        if hasattr(message, 'timestamp'):  # not in older versions
            message.timestamp = stamp
        for person in frame.people:
            colour = _colour(person)
            for kind, points, width in (
                (PointsAnnotation.LINE_LIST, person.bones(), BONE_PIXELS * side),
                (PointsAnnotation.POINTS, person.joints(), 2 * BONE_PIXELS * side),
            ):
                if points:
                    annotation = PointsAnnotation(
                        timestamp=stamp, type=kind, outline_color=colour, thickness=width
                    )
                    annotation.points = [Point2(x=x + CENTRE, y=y + CENTRE) for x, y in points]
                    message.points.append(annotation)
            left, top, _, _ = person.box
            message.texts.append(
                TextAnnotation(
                    timestamp=stamp,
                    position=Point2(x=left + CENTRE, y=top + CENTRE),
                    text=f'{person.name}: {person.pose.score:.2f}',
                    font_size=FONT_PIXELS * side,
                    text_color=Color(a=1.0),
                    background_color=colour,
                )
            )
        return [message]


def _colour(person: Person) -> Color:
    red, green, blue = person.colour
    return Color(r=red, g=green, b=blue, a=1.0)


BRIDGE = Annotations
