"""Where to look in the next frame: the whole image at times, and close-ups within a budget."""

import numpy as np
import pytest
from test_track import SHAPE, person

from posenet_ros import ModelConfig
from posenet_ros.core.attention import Attention
from posenet_ros.core.attention import merge_looks as merge_at_most
from posenet_ros.core.closeups import Closeup
from posenet_ros.core.decode import PoseArrays
from posenet_ros.core.track import NOBODY, Prediction, as_prediction

IMAGE = (480, 640)


def config(**options):
    defaults = {'input_resolution': 385, 'input_aspect': 'image', 'attention': 'people'}
    return ModelConfig(**{**defaults, **options})


def arrays(*people):
    return PoseArrays(
        np.array([pose.keypoints for pose in people]).reshape(-1, 17, 2),
        np.array([pose.keypoint_scores for pose in people]).reshape(-1, 17),
        np.array([pose.keypoint_deviations for pose in people]).reshape(-1, 17),
        np.array([pose.score for pose in people]),
    )


def predicted(*people, keys=None, drift=0.0):
    prediction = as_prediction(arrays(*people))
    keys = np.arange(len(people)) if keys is None else np.array(keys)
    return prediction._replace(keys=keys, drifts=np.full(len(people), drift))


def run(attention, people, stamps):
    """The plans of frames in which the same people are seen."""
    plans = []
    for stamp in stamps:
        plan = attention.plan(people, IMAGE, stamp)
        seen = range(len(people.keys)) if plan.whole else (c.person for c in plan.closeups)
        attention.looked(people, plan, set(seen), stamp)
        plans.append(plan)
    return plans


def pixels(plan):
    return sum(closeup.pixels for closeup in plan.closeups)


def test_where_nobody_is_known_every_frame_is_whole():
    plans = run(Attention(config()), predicted(), [0.0, 0.1, 0.2])
    assert all(plan == (True, []) for plan in plans)


def test_the_whole_image_is_looked_at_again_after_the_period():
    attention = Attention(config(whole_image_period=0.5))
    plans = run(attention, predicted(person(300)), np.arange(0, 2, 0.1).tolist())
    assert [i for i, plan in enumerate(plans) if plan.whole] == [0, 5, 10, 15]
    assert all(len(plan.closeups) == 1 for plan in plans)
    assert run(attention, predicted(person(300)), [1.0])[0].whole  # a stamp before the last


@pytest.mark.parametrize('tall', [30, 60, 100, 200, 250])
def test_a_closeup_suits_the_person(tall):
    """The person with room around, no larger than asked for, and never blown up."""
    size = tall / 103
    (_, plan) = run(Attention(config()), predicted(person(320, 240, size=size)), [0.0, 0.1])
    (closeup,) = plan.closeups
    assert closeup.pixels <= 1.25 * 193**2
    assert all(side % 32 == 1 and side >= 65 for side in closeup.input_size)
    scale = closeup.input_size[0] / (closeup.bottom - closeup.top)
    if closeup.bottom - closeup.top < 480:
        assert scale == pytest.approx(
            closeup.input_size[1] / (closeup.right - closeup.left), rel=0.05
        )
    assert scale <= 1.7
    shown = SHAPE * size + (320, 240)
    assert (shown >= (closeup.left, closeup.top)).all()
    assert (shown <= (closeup.right, closeup.bottom)).all()


def test_closeups_are_views_inside_the_image():
    image = np.zeros((480, 640, 3), np.uint8)
    for x, y in ((0, 0), (640, 480), (-10, 240), (320, 500)):
        plans = run(Attention(config()), predicted(person(x, y)), [0.0, 0.1])
        for closeup in plans[1].closeups:
            view = closeup.of(image)
            assert view.size > 0
            assert view.base is image
            assert view.shape[:2] == (closeup.bottom - closeup.top, closeup.right - closeup.left)
    # Nobody is looked for who is outside: the frame is whole.
    (_, plan) = run(Attention(config()), predicted(person(2000)), [0.0, 0.1])
    assert plan == (True, [])


@pytest.mark.parametrize('period', [0.0, 0.35, 100.0])
@pytest.mark.parametrize('count', [1, 4, 12, 40])
def test_the_budget_is_kept_and_whoever_waits_comes_next(count, period):
    generator = np.random.default_rng(count)
    people = predicted(
        *(person(*generator.uniform(60, 420, 2)) for _ in range(count)), keys=range(count)
    )
    attention = Attention(config(max_closeups=2, whole_image_period=period, input_resolution=193))
    plans = run(attention, people, np.arange(0, 3, 0.1).tolist())
    assert all(pixels(plan) <= 2 * 193**2 for plan in plans)
    looks = np.zeros(count, int)
    for plan in plans:
        for closeup in plan.closeups:
            looks[closeup.person] += 1
    assert looks.min() >= looks.max() - 1


def test_closeups_become_smaller_before_anybody_waits():
    people = [person(60 + 100 * i) for i in range(6)]
    sizes = {}
    for most in (4, 8):
        plans = run(Attention(config(max_closeups=most)), predicted(*people), [0.0, 0.1])
        assert len(plans[1].closeups) == 6
        sizes[most] = pixels(plans[1])
    assert sizes[4] < sizes[8]


def test_people_who_are_large_are_seen_in_the_whole_image_if_that_is_cheaper():
    large = [person(100 + 140 * i, 240, size=4) for i in range(4)]
    plans = run(Attention(config(max_closeups=8)), predicted(*large), [0.0, 0.1])
    assert plans[1] == (True, [])


def test_somebody_who_is_not_found_is_looked_for_less_often():
    attention = Attention(config(whole_image_period=100.0))
    people = predicted(person(100), person(400))
    run(attention, people, [0.0])
    looks = [0, 0]
    for stamp in np.arange(0.05, 2, 0.05).tolist():
        plan = attention.plan(people, IMAGE, stamp)
        for closeup in plan.closeups:
            looks[closeup.person] += 1
        attention.looked(people, plan, {0}, stamp)
    assert looks[0] == 39
    assert 4 <= looks[1] <= 10


def merge_looks(*looks, most=100):
    return merge_at_most(*looks, most)


def closeup_at(row, left=0, top=0):
    return Closeup(row, left, top, left + 200, top + 250, (257, 193))


def places(poses):
    return sorted(round(x) for x in poses.keypoints[:, :, 0].mean(axis=1).tolist())


def test_of_the_poses_in_a_closeup_the_one_of_the_person_is_taken():
    prediction = predicted(person(100), person(160))
    both = arrays(person(102), person(161))
    merged, found = merge_looks(
        prediction, None, [(closeup_at(0), both), (closeup_at(1, 60), both)], []
    )
    assert places(merged) == [102, 161]
    assert found == {0, 1}


def test_two_closeups_that_see_one_person_give_one_pose():
    prediction = predicted(person(100), person(130))
    one = [(closeup_at(0), arrays(person(103))), (closeup_at(1), arrays(person(104, score=0.4)))]
    merged, found = merge_looks(prediction, None, one, [])
    assert places(merged) == [103]
    assert found == {0}


def test_somebody_who_is_not_in_their_closeup_has_no_pose():
    merged, found = merge_looks(predicted(person(100)), None, [(closeup_at(0), NOBODY)], [])
    assert (len(merged.scores), found) == (0, set())
    far = [(closeup_at(0), arrays(person(500, score=0.05)))]
    assert merge_looks(predicted(person(100)), None, far, [])[1] == set()


def test_newcomers_of_the_whole_image_join_and_known_people_are_not_doubled():
    whole = arrays(person(101, score=0.2), person(400, score=0.3))
    looks = [(closeup_at(0), arrays(person(103, score=0.6)))]
    merged, found = merge_looks(predicted(person(100)), whole, looks, [])
    assert places(merged) == [103, 400]
    assert found == {0}
    closer = [(closeup_at(1, 350), arrays(person(404, score=0.7), person(350, score=0.1)))]
    assert places(merge_looks(predicted(person(100)), whole, looks, closer)[0]) == [103, 404]


def test_somebody_beside_a_person_in_a_closeup_is_a_newcomer():
    looks = [(closeup_at(0), arrays(person(100), person(180)))]
    merged, found = merge_looks(predicted(person(100)), None, looks, [])
    assert (places(merged), found) == ([100, 180], {0})


def test_at_most_so_many_people_and_known_ones_first():
    whole = arrays(person(400, score=0.9), person(101, score=0.2), person(250, score=0.8))
    for most, expected in ((1, [101]), (2, [101, 400]), (2.5, [101, 250, 400])):
        merged, found = merge_looks(predicted(person(100)), whole, [], [], most=most)
        assert (places(merged), found) == (expected, {0})


def test_nothing_at_all_is_nobody():
    nobody = Prediction(*(np.zeros((0, *shape)) for shape in ((), (17, 2), (17,), (17,), ())))
    merged, found = merge_looks(nobody, NOBODY, [], [])
    assert (len(merged.scores), found) == (0, set())
