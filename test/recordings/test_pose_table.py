"""The table of poses: what is in it, and how others read it."""

import re

import numpy as np
import pytest

pytest.importorskip('pyarrow', reason='pip install posenet_ros[parquet]')

import pyarrow.parquet as pq
from generated_bags import START, STEP, TOPIC, make_bag
from goldens import ROOT

from posenet_ros import PoseNetError
from posenet_ros.core.decode import Pose
from posenet_ros.core.keypoints import SNAKE_CASE_NAMES
from posenet_ros.io import bag, pose_table


def pose(i, track_id=-1):
    return Pose(
        0.5 + i / 1000, np.arange(34.0).reshape(17, 2) + i, np.full(17, 0.25), np.full(17, 2.0),
        track_id,
    )  # fmt: skip


@pytest.fixture
def table(tmp_path, astronaut):
    """Of three images, with nobody, one and two people."""
    pytest.importorskip('rosbags', reason='the package rosbags is not installed')
    make_bag(tmp_path / 'run', 3, astronaut, jpeg=False)
    number = iter(range(3))

    def poses_of(image, topic, seconds):
        i = next(number)
        return [pose(10 * i + j, j if j else -1) for j in range(i)]

    table = pose_table.pose_table(tmp_path / 'run.parquet', 'day/run')
    bag.add_poses(tmp_path / 'run', tmp_path / 'out', poses_of, table=table)
    return tmp_path / 'run.parquet'


def test_each_person_of_each_image_is_a_row(table):
    read = pq.read_table(table)
    assert read.schema.metadata[b'posenet_ros.table_version'] == b'1'
    rows = read.to_pylist()
    assert [row['score'] for row in rows] == pytest.approx([0.51, 0.52, 0.521])
    assert [row['track_id'] for row in rows] == [None, None, 1]
    first = rows[0]
    assert (first['bag'], first['topic'], first['frame_id']) == ('day/run', TOPIC, 'camera')
    assert (first['image_width'], first['image_height']) == (320, 240)
    times = [value.value for value in read['stamp']]
    assert times == [START + STEP, START + 2 * STEP, START + 2 * STEP]
    assert [value.value for value in read['bag_time']] == times
    for i, name in enumerate(SNAKE_CASE_NAMES):
        assert (first[f'{name}_x'], first[f'{name}_y']) == (2 * i + 10, 2 * i + 11)
        assert (first[f'{name}_score'], first[f'{name}_deviation']) == (0.25, 2.0)
        assert first[f'{name}_z_m'] is None
    assert first['torso_x_m'] is None


def test_duckdb_reads_it(table):
    duckdb = pytest.importorskip('duckdb', reason='pip install duckdb')
    answer = duckdb.sql(
        f"SELECT count(*), avg(left_eye_x), max(track_id), min(stamp) FROM '{table}'"
    ).fetchall()[0]
    assert answer[:3] == (3, pytest.approx((12 + 22 + 23) / 3), 1)
    assert answer[3].year == 2023


def test_rows_beyond_one_group_are_all_there(tmp_path, monkeypatch):
    monkeypatch.setattr(pose_table, 'ROWS_IN_MEMORY', 4)

    class Header:
        frame_id = 'camera'

        class stamp:
            sec, nanosec = 0, 0

    with pose_table.pose_table(tmp_path / 'a.parquet', 'run') as table:
        for i in range(5):
            table.add('/image', i, Header, (4, 5), [pose(2 * i), pose(2 * i + 1)])
    read = pq.read_table(tmp_path / 'a.parquet')
    assert read['nose_x'].to_pylist() == list(range(10))
    assert [value.value for value in read['stamp']] == [i // 2 for i in range(10)]


def test_table_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), pose_table.pose_table(tmp_path / 'a.parquet', 'run'):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with (
        pytest.raises(PoseNetError, match='no folder'),
        pose_table.pose_table(tmp_path / 'no/a.parquet', 'run'),
    ):
        pass


SQL = re.findall(r'(?ms)^```sql\n(.*?)^```$', (ROOT / 'doc/tables.md').read_text())


@pytest.mark.parametrize('question', SQL)
def test_questions_of_the_documents_have_answers(table, monkeypatch, question):
    duckdb = pytest.importorskip('duckdb', reason='pip install duckdb')
    monkeypatch.chdir(table.parent)
    folder = table.parent / 'tables/day'
    folder.mkdir(parents=True)
    table.rename(folder / 'run.parquet')
    answer = duckdb.sql(question.rstrip().rstrip(';')).fetchall()
    # Of three rows, one has an id; nobody is placed in metres, and nobody is between 0.2 and 0.4.
    if 'AS most' in question:
        assert [row[:2] for row in answer] == [('day/run', 2)]
    elif 'AS stayed' in question:
        assert [(row[0], row[1], row[3]) for row in answer] == [('day/run', 1, 1)]
    else:
        assert answer == []


def test_documents_name_every_column():
    page = (ROOT / 'doc/tables.md').read_text()
    for name in pose_table.SCHEMA.names:
        general = re.sub('^(' + '|'.join(SNAKE_CASE_NAMES) + ')_', 'nose_', name)
        assert f'`{general}`' in page
    assert len(SQL) == 5
