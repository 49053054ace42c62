import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from posenet_ros.ros.diagnostics import CameraStatistics, Window, camera_status
from posenet_ros.ros.parameters import PARAMETERS

THRESHOLDS = {spec.name: spec.default for spec in PARAMETERS if spec.group == 'diagnostics'}


def report(active=True, **window):
    window = {'seconds': 1.0, 'received': 10, 'processed': 10, 'last_image_age': 0.05, **window}
    return camera_status('camera', 'CPU', Window(**window), active, THRESHOLDS, {})


@pytest.mark.parametrize(
    ('window', 'level', 'told'),
    [
        ({}, DiagnosticStatus.OK, 'running'),
        ({'last_image_age': None, 'waiting': 1.9}, DiagnosticStatus.OK, 'waiting for the first'),
        ({'last_image_age': None, 'waiting': 2.1}, DiagnosticStatus.WARN, 'no image has come yet'),
        ({'clock_offset': -37.0}, DiagnosticStatus.WARN, 'stamps 37.0 s ahead of'),
        ({'clock_offset': 3600.0}, DiagnosticStatus.WARN, 'stamps 3600.0 s behind'),
        ({'last_image_age': 3.0}, DiagnosticStatus.WARN, 'no image for 3.0 s'),
        ({'samples': {'latency': [0.1] * 20}}, DiagnosticStatus.OK, 'running'),
        ({'samples': {'latency': [0.3] * 20}}, DiagnosticStatus.WARN, 'latency 0.300 s'),
        ({'samples': {'latency': [0.1] * 10 + [2.0] * 10}}, DiagnosticStatus.ERROR, 'latency 2.0'),
        ({'dropped_now': 5}, DiagnosticStatus.OK, 'running'),
        ({'dropped_now': 6}, DiagnosticStatus.WARN, '6 of 10 images dropped'),
    ],
)
def test_level_follows_the_thresholds(window, level, told):
    status = report(**window)
    assert status.level == level
    assert told in status.message


def test_worst_problem_gives_the_level_and_all_are_told():
    status = report(dropped_now=9, samples={'latency': [5.0]})
    assert status.level == DiagnosticStatus.ERROR
    assert 'latency' in status.message and 'dropped' in status.message


def test_paused_camera_has_no_problem():
    status = report(active=False, last_image_age=99.0)
    assert (status.level, status.message) == (DiagnosticStatus.OK, 'paused')


def test_windows_count_what_came_since_the_last_and_drops_since_the_start():
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
