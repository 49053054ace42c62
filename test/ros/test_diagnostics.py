"""The status of one camera."""

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from posenet_ros.ros.diagnostics import camera_status
from posenet_ros.ros.parameters import PARAMETERS
from posenet_ros.ros.statistics import Window

THRESHOLDS = {spec.name: spec.default for spec in PARAMETERS if spec.group == 'diagnostics'}


def report(active=True, **window):
    processed = 10 - window.get('dropped_now', 0)
    window = {'seconds': 1.0, 'processed': processed, 'last_image_age': 0.05, **window}
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
        ({'received': 10, 'lost_now': 9}, DiagnosticStatus.OK, 'running'),
        ({'received': 10, 'lost_now': 20}, DiagnosticStatus.WARN, '20 of 30 images lost before'),
    ],
)
def test_level_follows_the_thresholds(window, level, told):
    status = report(**window)
    assert status.level == level
    assert told in status.message


def test_worst_problem_sets_the_level_and_all_are_named():
    status = report(dropped_now=9, samples={'latency': [5.0]})
    assert status.level == DiagnosticStatus.ERROR
    assert 'latency' in status.message and 'dropped' in status.message


def test_paused_camera_has_no_problem():
    status = report(active=False, last_image_age=99.0)
    assert (status.level, status.message) == (DiagnosticStatus.OK, 'paused')
