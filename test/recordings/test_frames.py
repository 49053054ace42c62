"""Frames of bags as pictures to label, and settings scored on bags with labels beside them."""

import json
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
from generated_bags import START, STEP, make_bag

pytest.importorskip('rosbags', reason='the package rosbags is not installed')

from posenet_ros import ImageError, PoseNetError
from posenet_ros.commands import main
from posenet_ros.recordings import frames


@pytest.fixture
def recordings(tmp_path, astronaut, monkeypatch):
    """Two bags of six images."""
    for i, jpeg in enumerate((True, False)):
        make_bag(tmp_path / f'in/day/run_{i}', 6, astronaut, seed=i, jpeg=jpeg)
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'in'


def test_pictures_are_the_frames_that_their_names_say(recordings, tmp_path, capsys):
    assert main(['frames', 'in', 'out', '--count', '5']) == 0
    assert 'out: 5 pictures' in capsys.readouterr().out
    pictures = sorted((tmp_path / 'out').iterdir())
    assert len(pictures) == 5
    assert {path.name.partition('--')[0] for path in pictures} == {'day-run_0', 'day-run_1'}
    for path in pictures:
        saved = cv2.imread(str(path))[..., ::-1]
        # As labelling tools write names.
        for name in (path.name, f'images/{path.name}', f'3f2a-{path.name}'):
            assert np.array_equal(frames.read_frame(recordings, name), saved)
    before = {path.name: path.read_bytes() for path in pictures}
    assert main(['frames', 'in', 'again', '--count', '5']) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / 'again').iterdir()} == before


def test_frame_of_a_cut_bag_is_found_too(tmp_path, astronaut):
    path = make_bag(tmp_path / 'run', 20, astronaut, jpeg=False)
    name = frames.frame_name('run', '/camera/image_raw', START + 2 * STEP)
    whole = frames.read_frame(path, name)
    file = next(path.glob('run.*'))
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 7 // 10])
    assert np.array_equal(frames.read_frame(path, name), whole)


def test_what_is_no_frame_is_named(recordings):
    with pytest.raises(ImageError, match=r'neither the picture photo\.png nor a bag'):
        frames.read_frame(recordings, 'photo.png')
    nowhere = frames.frame_name('day/run_1', '/camera/image_raw', 7)
    with pytest.raises(ImageError, match='has no image on /camera/image_raw at 7 ns'):
        frames.read_frame(recordings, nowhere)


def test_bags_whose_pictures_would_have_the_same_names_are_refused(recordings, capsys):
    (recordings / 'day/run_1').rename(recordings / 'day-run_0')
    assert main(['frames', 'in', 'out']) == 1
    said = capsys.readouterr().err
    assert 'day/run_0' in said and 'day-run_0' in said and 'the same names: rename one' in said
    name = frames.frame_name('day/run_0', '/camera/image_raw', START)
    with pytest.raises(PoseNetError, match='the same names'):
        frames.read_frame(recordings, name)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['in', 'out', '--count', '0'], 'Invalid --count 0'),
        (['nowhere', 'out'], 'no file or folder nowhere'),
        (['in', 'out', '--topic', '/rear'], 'has no images on /rear'),
    ],
)
def test_mistakes_of_frames_are_named(recordings, capsys, arguments, message):
    assert main(['frames', *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_bags_with_labels_beside_them_are_scored_alike_over_workers(
    recordings, tmp_path, net, capsys, request
):
    pytest.importorskip('pycocotools', reason='pip install posenet_ros[evaluate]')
    assert main(['frames', 'in', 'out', '--count', '6']) == 0
    images, annotations = [], []
    for i, path in enumerate(sorted((tmp_path / 'out').iterdir())):
        images.append({'id': i, 'file_name': f'x-{path.name}', 'height': 240, 'width': 320})
        (pose,) = net.estimate_multiple_poses(cv2.imread(str(path))[..., ::-1])
        points = np.column_stack([pose.keypoints, 2 * (pose.keypoint_scores > 0.5)])
        annotations.append(
            {
                'id': i + 1, 'image_id': i, 'category_id': 1, 'iscrowd': 0, 'area': 20000.0,
                'keypoints': points.ravel().tolist(), 'bbox': [60.0, 10.0, 200.0, 220.0],
            }
        )  # fmt: skip
    labels = {
        'images': images,
        'annotations': annotations,
        'categories': [{'id': 1, 'name': 'person'}],
    }
    (tmp_path / 'in.json').write_text(json.dumps(labels))
    model = net.config.model_url
    settings = ['--setting', 'same:', '--setting', 'small: --input-resolution 161']
    options = [*settings, *(['--model-url', model] if model else [])]
    results = []
    over = [[], ['--workers', '2'], ['--workers', '5']]
    if find_spec('ray'):
        over.append([f'--ray={request.getfixturevalue("cluster").address}'])
    for workers in over:
        assert main(['evaluate', 'in', *options, *workers, '--json', 'scores.json']) == 0
        scores = json.loads((tmp_path / 'scores.json').read_text())
        assert scores[0]['ap'] > 0.9 and scores[0]['photos'] == 6
        results.append(
            [{k: v for k, v in score.items() if isinstance(v, float)} for score in scores]
        )
        assert [score['name'] for score in scores] == ['same', 'small']
    timed = {name for name in results[0][0] if 'milliseconds' in name or 'times' in name}
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            for name in one.keys() - timed:
                assert one[name] == other[name], name
    (tmp_path / 'in.json').unlink()
    assert main(['evaluate', 'in', *options]) == 1
    assert 'there are no labels for in' in capsys.readouterr().err
