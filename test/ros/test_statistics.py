"""Counts of one camera."""

import time

from posenet_ros.ros.statistics import MAX_PUBLISHERS, CameraStatistics, Gaps


def test_windows_count_since_the_last_one_and_drops_since_the_start():
    statistics = CameraStatistics()
    for people in (1, 2):
        statistics.image_received()
        statistics.image_processed(people, {'latency': 0.1 * people})
    assert [statistics.image_dropped('broken image') for _ in range(3)] == [1, 2, 3]
    first = statistics.start_window()
    assert (first.received, first.processed, first.people, first.dropped_now) == (2, 2, 2, 3)
    assert first.samples == {'latency': [0.1, 0.2]}
    second = statistics.start_window()
    assert (second.received, second.processed, second.dropped_now, second.samples) == (0, 0, 0, {})
    assert second.dropped == {'broken image': 3}
    assert second.last_image_age < 10


def test_every_image_waits_or_was_processed_or_dropped():
    statistics = CameraStatistics()
    for _ in range(4):
        statistics.image_received()
    statistics.image_processed(1, {})
    statistics.image_dropped('broken image', 'step 0')
    statistics.image_dropped('newer image came')
    window = statistics.start_window()
    assert window.frames_waiting == 1
    assert window.last_problem == 'step 0'  # of the last that had one
    assert statistics.start_window().frames_waiting == 1


def test_damaged_and_lost_images_are_counted_since_the_start():
    statistics = CameraStatistics()
    assert statistics.start_window().lost is None  # nobody has told
    statistics.images_lost(0)
    assert statistics.start_window().lost == 0
    statistics.images_lost(2)
    statistics.image_damaged('Premature end')
    window = statistics.start_window()
    assert (window.lost, window.damaged, window.last_problem) == (2, 1, 'Premature end')
    assert (window.received, window.dropped_now) == (0, 0)


def test_waiting_begins_with_the_subscription_and_again_with_each_image():
    statistics = CameraStatistics()
    time.sleep(0.05)
    window = statistics.start_window()
    assert window.waiting >= 0.05 and window.last_image_age is None
    statistics.image_received()
    window = statistics.start_window()
    assert window.waiting == window.last_image_age < 0.05
    time.sleep(0.05)
    statistics.listening()
    window = statistics.start_window()
    assert window.waiting < 0.05 and window.last_image_age is None


def test_another_clock_is_told_until_the_stamps_are_good_again():
    statistics = CameraStatistics()
    for offset in (None, 3600.0, None):
        statistics.stamped_by_another_clock(offset)
        assert statistics.start_window().clock_offset == offset


def test_gaps_are_the_messages_between_two_of_one_publisher():
    gaps = Gaps()
    numbers = [(b'a', 5), (b'a', 6), (b'b', 1), (b'a', 9), (b'b', 3), (b'a', 2), (b'a', 3)]
    assert [gaps.before(*message) for message in numbers] == [0, 0, 0, 2, 1, 0, 0]


def test_publishers_that_come_and_go_do_not_fill_the_memory():
    gaps = Gaps()
    for number in range(MAX_PUBLISHERS + 1):
        assert gaps.before(bytes([number]), 1) == 0
    assert gaps.before(b'new', 1) == 0  # all others are forgotten
    assert gaps.before(bytes([0]), 4) == 0
    assert gaps.before(b'new', 4) == 2
