"""Poses as messages."""

import numpy as np
import pytest
from posenet_ros.msg import Keypoint3D, PersonPose, PersonPose3D, PoseArray, PoseArray3D
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from posenet_ros import Pose
from posenet_ros.ros.messages import people_array, pose_array, pose_array_3d, transforms
from posenet_ros.space.lift import GUESSED, INFERRED, LEAN, MEASURED, UNKNOWN, Pose3D, unplaced


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


# In space.


def lifted(**values):
    points = np.add(np.random.default_rng(0).normal(0, 1, (17, 3)), (0, 0, 3))
    states = np.full(17, MEASURED, np.uint8)
    states[4], points[4] = UNKNOWN, np.nan
    fields = {
        'score': 0.9, 'track_id': 4, 'points': points, 'states': states,
        'deviations_along': np.full(17, 0.1), 'deviations_across': np.full(17, 0.02),
        'torso': np.array([1.0, 0.5, 3.0]), 'torso_state': MEASURED,
        'torso_deviation_along': 0.1, 'torso_deviation_across': 0.02,
        'heading': np.array([[0.0, 1, 0], [0, 0, -1], [-1, 0, 0]]), 'heading_deviation': 0.3,
    }  # fmt: skip
    return Pose3D(**{**fields, **values})


def rotated(quaternion, vector):
    """A vector turned by a quaternion."""
    w, axis = quaternion.w, np.array([quaternion.x, quaternion.y, quaternion.z])
    return vector + 2 * np.cross(axis, np.cross(axis, vector) + w * vector)


def test_people_in_space_have_every_number():
    header, person = Header(frame_id='camera'), lifted()
    sent = pose_array_3d(header, 12_000_000_034, [person, unplaced(two())])
    message = deserialize_message(serialize_message(sent), PoseArray3D)
    assert message.header == header
    assert (message.depth_stamp.sec, message.depth_stamp.nanosec) == (12, 34)
    first, second = message.poses
    assert (first.track_id, first.torso_state) == (4, PersonPose3D.MEASURED)
    points = [(k.x, k.y, k.z) for k in first.keypoints]
    assert np.array_equal(np.float32(points), person.points.astype(np.float32), equal_nan=True)
    assert [k.state for k in first.keypoints] == person.states.tolist()
    assert first.keypoints[0].deviation_along == np.float32(0.1)
    assert first.keypoints[0].deviation_across == np.float32(0.02)
    assert second.torso_state == PersonPose3D.UNKNOWN and not second.heading_known
    assert np.isnan(second.torso.pose.position.x) and np.isnan(second.torso.covariance).all()
    assert (UNKNOWN, MEASURED, INFERRED) == (
        Keypoint3D.UNKNOWN, Keypoint3D.MEASURED, Keypoint3D.INFERRED,
    )  # fmt: skip
    assert GUESSED == PersonPose3D.GUESSED


def two():
    return Pose(0.2, np.zeros((17, 2)), np.zeros(17), track_id=7)


def test_covariance_is_along_the_ray_and_around_the_bodys_axis():
    (message,) = pose_array_3d(Header(), 0, [lifted()]).poses
    covariance = np.reshape(message.torso.covariance, (6, 6))
    ray = np.array([1.0, 0.5, 3.0]) / np.linalg.norm([1.0, 0.5, 3.0])
    assert ray @ covariance[:3, :3] @ ray == pytest.approx(0.1**2)
    across = np.cross(ray, (0, 1, 0)) / np.linalg.norm(np.cross(ray, (0, 1, 0)))
    assert across @ covariance[:3, :3] @ across == pytest.approx(0.02**2)
    up = np.array([0.0, -1.0, 0.0])  # of the body, in the camera's frame
    assert up @ covariance[3:, 3:] @ up == pytest.approx(0.3**2)
    assert covariance[3, 3] == pytest.approx(LEAN**2)


def test_orientation_is_the_bodys_and_faces_the_camera_where_it_is_not_known():
    generator = np.random.default_rng(1)
    for _ in range(50):
        axes, _ = np.linalg.qr(generator.normal(size=(3, 3)))
        axes *= np.linalg.det(axes)
        (message,) = pose_array_3d(Header(), 0, [lifted(heading=axes)]).poses
        assert message.heading_known
        for unit in np.eye(3):
            turned = rotated(message.torso.pose.orientation, unit)
            assert np.allclose(turned, axes @ unit, atol=1e-9)
    unknown = lifted(heading=np.full((3, 3), np.nan), heading_deviation=float('nan'))
    (message,) = pose_array_3d(Header(), 0, [unknown]).poses
    assert not message.heading_known
    assert np.allclose(rotated(message.torso.pose.orientation, np.eye(3)[0]), (0, 0, -1))


def test_people_for_other_packages_are_those_whose_place_is_known():
    nowhere = lifted(torso=np.full(3, np.nan))
    unsure, untracked = lifted(score=0.05), lifted(track_id=-1)
    everybody = [lifted(), nowhere, unsure, untracked]
    people = people_array(Header(frame_id='camera'), everybody, 0.1, 'torso')
    assert people.header.frame_id == 'camera'
    assert [(p.position.x, p.position.y, p.position.z) for p in people.poses] == 2 * [(1, 0.5, 3)]
    (frame,) = transforms(Header(frame_id='camera'), everybody, 0.1, 'torso')
    assert (frame.header.frame_id, frame.child_frame_id) == ('camera', 'person_4')
    assert frame.transform.translation.z == 3.0
    assert frame.transform.rotation == people.poses[0].orientation


def test_feet_are_the_ankles_that_are_known():
    person = lifted()
    (feet,) = people_array(Header(), [person], 0.1, 'feet').poses
    assert feet.position.x == pytest.approx(person.points[15:, 0].mean())
    person.points[15] = np.nan
    (feet,) = people_array(Header(), [person], 0.1, 'feet').poses
    assert feet.position.x == pytest.approx(person.points[16, 0])
    person.points[16] = np.nan
    (feet,) = people_array(Header(), [person], 0.1, 'feet').poses
    assert feet.position.x == 1.0
