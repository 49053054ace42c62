"""Poses as messages."""

import numpy as np
from posenet_ros.msg import PersonPose, PoseArray
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from posenet_ros import Pose
from posenet_ros.ros.messages import pose_array


def test_pose_array_has_every_number_of_every_pose():
    generator = np.random.default_rng(0)
    poses = [
        Pose(
            generator.random(),
            generator.normal(0, 1e4, (17, 2)),
            generator.random(17),
            generator.uniform(0, 100, 17),
        )
        for _ in range(3)
    ]
    header = Header(frame_id='camera')
    message = deserialize_message(serialize_message(pose_array(header, 640, 480, poses)), PoseArray)
    assert (message.header, message.image_width, message.image_height) == (header, 640, 480)
    assert len(message.poses) == 3
    for person, pose in zip(message.poses, poses, strict=True):
        assert (person.track_id, person.score) == (PersonPose.UNTRACKED, np.float32(pose.score))
        assert [keypoint.id for keypoint in person.keypoints] == list(range(17))
        places = [(keypoint.x, keypoint.y) for keypoint in person.keypoints]
        assert np.array_equal(np.float32(places), pose.keypoints.astype(np.float32))
        scores = [keypoint.score for keypoint in person.keypoints]
        assert np.array_equal(np.float32(scores), pose.keypoint_scores.astype(np.float32))
        deviations = [keypoint.deviation for keypoint in person.keypoints]
        assert np.array_equal(np.float32(deviations), pose.keypoint_deviations.astype(np.float32))


def test_no_people_give_an_empty_array():
    assert pose_array(Header(), 640, 480, []).poses == []
