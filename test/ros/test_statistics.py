"""Counts of one camera."""

from posenet_ros.ros.statistics import CameraStatistics


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
