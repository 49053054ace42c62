"""Poses and depth images find each other by their stamps."""

import threading
import time

import pytest

from posenet_ros.space.pairing import MOST_DEPTHS, MOST_WAITING, Pairing

MS = 1_000_000


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def pairing(clock):
    return Pairing(0.05, 0.1, clock)


def taken(pairing):
    """What is ready now, by camera: the item, and the depth image's message."""
    return {
        camera: (pair.item, pair.depth and pair.depth.message)
        for camera, pair in (pairing.take() or {}).items()
    }


def test_equal_stamps_are_paired_at_once(pairing):
    pairing.put_depth('', 5000 * MS, b'depth')
    pairing.put('', 5000 * MS, 'poses')
    assert taken(pairing) == {'': ('poses', b'depth')}


def test_nearest_depth_within_the_slop_is_taken(pairing):
    for at in (4940, 4980, 5030):
        pairing.put_depth('', at * MS, str(at).encode())
    pairing.put('', 5000 * MS, 'poses')
    assert taken(pairing) == {'': ('poses', b'4980')}
    pairing.put_depth('', 5200 * MS, b'5200')
    pairing.put('', 5100 * MS, 'later')
    assert taken(pairing) == {'': ('later', None)}  # 70 and 100 ms away


def test_depth_that_comes_later_is_waited_for_and_not_for_long(pairing, clock):
    pairing.put_depth('', 4990 * MS, b'before')
    pairing.put('', 5000 * MS, 'poses')
    assert not pairing._ready('', pairing._waiting[''][0], clock.now + 0.09)
    pairing.put_depth('', 5003 * MS, b'after')
    assert taken(pairing) == {'': ('poses', b'after')}
    pairing.put('', 5010 * MS, 'lonely')
    clock.now += 0.1
    assert taken(pairing) == {'': ('lonely', b'after')}  # the best there is
    pairing.put('', 6000 * MS, 'without')
    clock.now += 0.1
    assert taken(pairing) == {'': ('without', None)}


def test_depth_that_is_a_little_older_is_taken_at_once(pairing):
    """Nothing nearer is to be expected: the next depth image is 61 ms away."""
    for at in (4930, 4995):
        pairing.put_depth('', at * MS, str(at).encode())
    pairing.put('', 5000 * MS, 'poses')
    assert taken(pairing) == {'': ('poses', b'4995')}
    pairing.put('', 5055 * MS, 'next')  # 5060 is expected
    assert not list(pairing.ready())
    pairing.put_depth('', 5060 * MS, b'5060')
    assert taken(pairing) == {'': ('next', b'5060')}


def test_order_is_kept_and_cameras_do_not_wait_for_each_other(pairing, clock):
    pairing.put('left', 5000 * MS, 'first')
    pairing.put('left', 5033 * MS, 'second')
    pairing.put('right', 5000 * MS, 'other')
    pairing.put_depth('right', 5000 * MS, b'r')
    assert taken(pairing) == {'right': ('other', b'r')}
    pairing.put_depth('left', 5033 * MS, b'l')
    assert taken(pairing) == {'left': ('first', b'l')}  # 33 ms away
    assert taken(pairing) == {'left': ('second', b'l')}


def test_stamps_that_begin_again_forget_the_earlier_ones(pairing, clock):
    pairing.put_depth('', 9000 * MS, b'old')
    pairing.put_depth('', 1000 * MS, b'new')
    pairing.put('', 1001 * MS, 'poses')
    clock.now += 0.1
    assert taken(pairing) == {'': ('poses', b'new')}


def test_slow_poses_still_find_their_depth_image(pairing):
    for i in range(60):
        pairing.put_depth('', i * 33 * MS, str(i).encode())
    pairing.put('', 30 * 33 * MS, 'a second later')
    assert taken(pairing) == {'': ('a second later', b'30')}


def test_images_without_stamps_have_the_newest_depth_image(pairing):
    for i in range(3):
        pairing.put_depth('', 0, str(i).encode())
    pairing.put('', 0, 'poses')
    assert taken(pairing) == {'': ('poses', b'2')}


def test_memory_is_bounded_and_nothing_is_lost(pairing):
    items = range(MOST_WAITING + 5)
    for i in items:
        pairing.put('', i * MS, i)
    early = [pair.item for _, pair in pairing.ready()]
    assert early == [0, 1, 2, 3, 4]  # they wait no longer
    assert [*early, *(pair.item for _, pair in pairing.ready(everything=True))] == list(items)
    for i in range(200):
        pairing.put_depth('', i * MS, b'')
    assert len(pairing._depths['']) == MOST_DEPTHS
    pairing.put_depth('', 60_000 * MS, b'')
    assert len(pairing._depths['']) == 1  # the others are too old
    pairing.clear()
    assert not pairing._waiting and not pairing._depths


def test_take_wakes_up_for_a_depth_image_a_deadline_and_the_end():
    pairing = Pairing(0.05, 0.05)
    results = []

    def run():
        while (ready := pairing.take()) is not None:
            results.append((ready[''].item, ready[''].depth is not None, time.monotonic()))

    thread = threading.Thread(target=run)
    thread.start()
    pairing.put('', 5000 * MS, 'with')
    pairing.put_depth('', 5000 * MS, b'depth')
    started = time.monotonic()
    pairing.put('', 6000 * MS, 'without')
    while len(results) < 2 and time.monotonic() < started + 5:
        time.sleep(0.005)
    assert [(item, depth) for item, depth, _ in results] == [('with', True), ('without', False)]
    assert results[1][2] - started >= 0.045
    pairing.close()
    thread.join(5)
    assert not thread.is_alive()
