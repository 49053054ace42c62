"""Close-ups: whom to look at again, where, and what to believe afterwards."""

import numpy as np
import pytest

from posenet_ros.core.closeups import Closeup, choose_closeups, merge_closeups
from posenet_ros.core.decode import PoseArrays
from posenet_ros.core.preprocess import Letterbox

LETTERBOX = Letterbox.fit(480, 640, 225, 289)  # an image of 640 x 480, at less than half its size
SIZES = ((273, 129), (193, 193), (129, 273))


def people(*boxes, scores=None, keypoint_scores=0.9):
    """Somebody in each box (left, top, right, bottom): 17 keypoints on its diagonals."""
    steps = np.linspace(0, 1, 17)
    keypoints = np.array(
        [
            np.stack([left + (right - left) * steps, top + (bottom - top) * steps[::-1]], axis=1)
            for left, top, right, bottom in boxes
        ]
    ).reshape(-1, 17, 2)
    count = len(boxes)
    return PoseArrays(
        keypoints,
        np.full((count, 17), keypoint_scores),
        np.full((count, 17), 2.0),
        np.array([0.5] * count if scores is None else scores),
    )


def test_nobody_gets_no_closeup():
    assert choose_closeups(people(), LETTERBOX, SIZES, 4) == []
    assert merge_closeups(people(), []).scores.shape == (0,)


def test_a_small_person_is_shown_in_the_shape_of_their_box():
    for box, size in (
        ((300, 100, 330, 200), (273, 129)),
        ((300, 100, 350, 150), (193, 193)),
        ((300, 100, 400, 130), (129, 273)),
    ):
        (closeup,) = choose_closeups(people(box), LETTERBOX, SIZES, 4)
        assert closeup.input_size == size
        assert closeup.left < box[0] and closeup.right > box[2]
        assert closeup.top < box[1] and closeup.bottom > box[3]
        height, width = closeup.bottom - closeup.top, closeup.right - closeup.left
        assert width / height == pytest.approx(size[1] / size[0], rel=0.05)
        longer = max((box[2] - box[0]) / width, (box[3] - box[1]) / height)
        assert longer == pytest.approx(1 / 1.3, rel=0.05)


def test_somebody_who_is_large_already_gets_none():
    assert choose_closeups(people((100, 20, 300, 460)), LETTERBOX, SIZES, 4) == []


def test_a_crowd_gets_no_more_than_allowed_the_smallest_of_the_likely_first():
    boxes = [(100 * i, 100, 100 * i + 20 + 5 * i, 140 + 10 * i) for i in range(5)]
    poses = people(*boxes, scores=[0.03, 0.5, 0.5, 0.5, 0.01])
    chosen = [closeup.person for closeup in choose_closeups(poses, LETTERBOX, SIZES, 4)]
    assert chosen == [1, 2, 3, 0]  # 4 is hardly anybody
    assert [c.person for c in choose_closeups(poses, LETTERBOX, SIZES, 2)] == [1, 2]


@pytest.mark.parametrize(
    'box', [(-20, -30, 5, 40), (620, 440, 660, 500), (-50, 200, -10, 260), (900, 900, 950, 990)]
)
def test_closeups_lie_inside_the_image(box):
    closeups = choose_closeups(people(box), LETTERBOX, SIZES, 4)
    assert len(closeups) == 1
    for closeup in closeups:
        assert 0 <= closeup.left < closeup.right <= 640
        assert 0 <= closeup.top < closeup.bottom <= 480


def test_only_clear_keypoints_say_where_somebody_is():
    poses = people((300, 100, 340, 200))
    poses.keypoint_scores[0, 12:] = 0.1
    poses.keypoints[0, 12:] += 200
    (closeup,) = choose_closeups(poses, LETTERBOX, SIZES, 4)
    assert closeup.right - closeup.left < 100


def test_images_and_people_of_a_few_pixels_are_passed_over():
    tiny = Letterbox.fit(4, 5, 225, 289)
    assert choose_closeups(people((1, 1, 3, 3)), tiny, SIZES, 4) == []
    assert choose_closeups(people((1, 1, 3, 3)), LETTERBOX, SIZES, 4) == []


def closeup_of(person, left=200, top=100):
    return Closeup(person, left, top, left + 64, top + 136, (273, 129))


def test_the_pose_of_the_closeup_replaces_the_first_and_scores_are_averaged():
    first = people((210, 110, 250, 220), scores=[0.2])
    seen = people((212, 111, 252, 221), scores=[0.6], keypoint_scores=0.95)
    merged = merge_closeups(first, [(closeup_of(0), seen)])
    np.testing.assert_allclose(merged.keypoints, seen.keypoints)
    assert merged.keypoint_scores.tolist() == seen.keypoint_scores.tolist()
    assert merged.keypoint_deviations.tolist() == seen.keypoint_deviations.tolist()
    assert merged.scores.tolist() == pytest.approx([0.4])
    assert first.scores.tolist() == [0.2]  # not changed


def test_of_several_poses_in_a_closeup_the_one_that_agrees_is_taken():
    first = people((210, 110, 250, 220))
    seen = people((230, 90, 290, 160), (211, 110, 251, 220))
    merged = merge_closeups(first, [(closeup_of(0), seen)])
    np.testing.assert_allclose(merged.keypoints[0, :, 0], first.keypoints[0, :, 0] + 1)


def test_without_a_pose_that_agrees_the_first_look_stays():
    first = people((210, 110, 250, 220))
    elsewhere = people((400, 300, 440, 410))
    for seen in (people(), elsewhere):
        merged = merge_closeups(first, [(closeup_of(0), seen)])
        assert merged.keypoints.tolist() == first.keypoints.tolist()
        assert merged.scores.tolist() == first.scores.tolist()


def test_somebody_of_whom_nothing_is_clear_is_compared_as_a_whole():
    first = people((210, 110, 250, 220), scores=[0.2], keypoint_scores=0.05)
    near = people((211, 110, 251, 220), scores=[0.6])
    far = people((400, 300, 440, 410), scores=[0.6])
    assert merge_closeups(first, [(closeup_of(0), near)]).scores.tolist() == pytest.approx([0.4])
    assert merge_closeups(first, [(closeup_of(0), far)]).scores.tolist() == [0.2]


def test_two_closeups_that_see_one_person_give_one_pose():
    first = people((210, 110, 250, 220), (225, 112, 262, 222), (500, 100, 540, 200))
    found = people((212, 110, 252, 220), scores=[0.6])
    looks = [
        (closeup_of(0), found),
        (closeup_of(1, 210, 105), found),
    ]
    merged = merge_closeups(first, looks)
    assert merged.scores.tolist() == pytest.approx([0.55, 0.5])  # and the third, who was not shown
    assert len(merged.keypoints) == len(merged.keypoint_deviations) == 2
    assert merged.keypoints[1].tolist() == first.keypoints[2].tolist()


def test_two_people_in_one_anothers_closeup_stay_two():
    first = people((210, 110, 250, 220), (240, 110, 280, 220))
    seen = first
    merged = merge_closeups(first, [(closeup_of(0), seen), (closeup_of(1), seen)])
    np.testing.assert_allclose(merged.keypoints, first.keypoints)
