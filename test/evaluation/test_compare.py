"""The measure of accuracy: what it calls equal, near, lost and found."""

import numpy as np
import pytest

from posenet_ros import ModelConfig, Pose
from posenet_ros.core.keypoints import COCO_SIGMAS, KEYPOINT_NAMES
from posenet_ros.evaluation.compare import Comparison, compare, keypoint_similarity, matched
from posenet_ros.io.photos import read_image


def pose(x=100.0, y=100.0, size=100.0, score=0.9, keypoint_scores=None):
    generator = np.random.default_rng(0)
    keypoints = generator.uniform(0, size, (17, 2)) + np.array([x, y])
    keypoints[0], keypoints[1] = (x, y), (x + size, y + size)  # so that the box is known
    scores = np.full(17, score) if keypoint_scores is None else keypoint_scores
    return Pose(score, keypoints, scores)


def test_sigmas_are_cocos():
    by_name = dict(zip(KEYPOINT_NAMES, COCO_SIGMAS, strict=True))
    assert by_name['nose'] == 0.026 and by_name['leftEye'] == by_name['rightEye'] == 0.025
    assert by_name['rightEar'] == 0.035 and by_name['leftShoulder'] == 0.079
    assert by_name['leftWrist'] == 0.062 and by_name['rightHip'] == 0.107
    assert by_name['leftKnee'] == 0.087 and by_name['rightAnkle'] == 0.089


def test_similarity_is_cocos_formula():
    reference = pose()
    assert keypoint_similarity(reference, reference) == 1
    moved = Pose(0.9, reference.keypoints + np.array([3.0, 4.0]), reference.keypoint_scores)
    expected = np.exp(-25 / (2 * 100 * 100 * (2 * np.array(COCO_SIGMAS)) ** 2)).mean()
    assert keypoint_similarity(moved, reference) == pytest.approx(expected)
    assert keypoint_similarity(pose(x=1000), reference) < 1e-6


def test_only_the_references_clear_keypoints_count():
    scores = np.full(17, 0.9)
    scores[5] = 0.1
    reference = pose(keypoint_scores=scores)
    moved = reference.keypoints.copy()
    moved[5] += 500
    assert keypoint_similarity(Pose(0.9, moved, scores), reference) == 1
    assert keypoint_similarity(reference, pose(keypoint_scores=np.zeros(17))) == 0


def test_poses_are_matched_whatever_their_order():
    first, second = pose(x=0), pose(x=400)
    pairs, lost, extra = matched([second, first], [first, second])
    assert [(a is b) for a, b, _ in pairs] == [True, True]
    assert lost == extra == []


def test_lost_and_found_people():
    here, there = pose(x=0), pose(x=400)
    assert matched([], [here])[1] == [here]
    pairs, lost, extra = matched([there], [here])
    assert (pairs, lost, extra) == ([], [here], [there])


def test_unclear_people_are_neither_lost_nor_found():
    unclear = pose(x=400, score=0.3)
    assert matched([unclear], []) == ([], [], [])
    assert matched([], [unclear]) == ([], [], [])
    clearer = pose(x=400, score=0.6)
    assert matched([clearer], [unclear])[2] == []  # the reference saw him too


def test_one_pose_is_not_matched_twice():
    twins = [pose(), pose()]
    pairs, lost, _ = matched([pose()], twins)
    assert len(pairs) == len(lost) == 1


class Fixed:
    """Finds the same people in every image."""

    config = ModelConfig()

    def __init__(self, *poses):
        self.poses = list(poses)

    def estimate(self, images, decoder):
        return [self.poses]


IMAGES = [np.zeros((514, 514, 3), np.uint8)] * 2


def test_equal_poses_are_equal():
    result = compare(Fixed(pose()), {'same': Fixed(pose())}, IMAGES)['same']
    assert result == Comparison(2, 2, 1.0, 1.0, 0.0, 0.0, 0, 0)


def test_shift_is_in_pixels_of_the_network_input():
    moved = Pose(0.9, pose().keypoints + np.array([2.0, 0.0]), pose().keypoint_scores)
    result = compare(Fixed(pose()), {'moved': Fixed(moved)}, IMAGES)['moved']
    assert result.mean_shift == pytest.approx(1) and result.worst_shift == pytest.approx(1)
    assert 0.5 < result.worst_oks <= result.mean_oks < 1


def test_lost_and_found_are_counted():
    result = compare(Fixed(pose()), {'other': Fixed(pose(x=900))}, IMAGES)['other']
    assert (result.people, result.lost, result.found) == (2, 2, 2)
    assert np.isnan(result.mean_oks)


def test_real_model_compared_with_itself_is_equal(net, shared):
    image = read_image(shared / 'images/couple640.png')
    result = compare(net, {'same': net}, [image])['same']
    assert result == Comparison(1, 2, 1.0, 1.0, 0.0, 0.0, 0, 0)
