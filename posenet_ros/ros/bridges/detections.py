"""People as vision_msgs/Detection2DArray on ~/detections: boxes of their clear keypoints."""

from __future__ import annotations

from vision_msgs.msg import (
    BoundingBox2D,
    Detection2D,
    Detection2DArray,
    ObjectHypothesis,
    ObjectHypothesisWithPose,
    Point2D,
    Pose2D,
)

from posenet_ros.ros.bridges.bridge import Frame, TopicBridge

CLASS_ID = 'person'


class Detections(TopicBridge[Detection2DArray]):
    """One message an image; `id` is the track_id, and empty without one."""

    topic = 'detections'
    message_type = Detection2DArray

    def messages(self, frame: Frame) -> list[Detection2DArray]:
        detections = []
        for person in frame.people:
            left, top, right, bottom = person.box
            centre = Point2D(x=(left + right) / 2, y=(top + bottom) / 2)
            hypothesis = ObjectHypothesis(class_id=CLASS_ID, score=person.pose.score)
            track_id = person.pose.track_id
            detections.append(
                Detection2D(
                    header=frame.header,
                    results=[ObjectHypothesisWithPose(hypothesis=hypothesis)],
                    bbox=BoundingBox2D(
                        center=Pose2D(position=centre), size_x=right - left, size_y=bottom - top
                    ),
                    id=str(track_id) if track_id >= 0 else '',
                )
            )
        return [Detection2DArray(header=frame.header, detections=detections)]


BRIDGE = Detections
