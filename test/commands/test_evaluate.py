"""posenet evaluate, as a user runs it."""

import argparse
import json
import shlex

import cv2
import numpy as np
import pytest
import yaml

from posenet_ros import DecoderConfig, ModelConfig
from posenet_ros.commands import main
from posenet_ros.commands.options import add_estimation_options, config_from
from posenet_ros.ros.parameters import PARAMETERS, checked_values, decoder_config, model_config

pytest.importorskip('pycocotools', reason='pip install posenet_ros[evaluate]')


@pytest.fixture
def labelled(tmp_path, astronaut, net):
    """Two photos: the astronaut, labelled with her own pose, and an empty one."""
    (pose,) = net.estimate_multiple_poses(astronaut)
    clear = pose.keypoint_scores > 0.5
    points = np.column_stack([pose.keypoints * clear[:, None], 2.0 * clear])
    left, top = pose.keypoints[clear].min(axis=0).tolist()
    right, bottom = pose.keypoints[clear].max(axis=0).tolist()
    box = [left, top, right - left, bottom - top]
    labels = {
        'images': [
            {'id': 1, 'file_name': 'one.png', 'height': 512, 'width': 512},
            {'id': 2, 'file_name': 'empty.png', 'height': 300, 'width': 400},
        ],
        'annotations': [
            {
                'image_id': 1, 'category_id': 1, 'keypoints': points.ravel().tolist(),
                'bbox': box, 'area': 0.5 * box[2] * box[3], 'iscrowd': 0,
            }
        ],
        'categories': [{'id': 1, 'name': 'person'}],
    }  # fmt: skip
    folder = tmp_path / 'photos'
    folder.mkdir()
    cv2.imwrite(str(folder / 'one.png'), astronaut[..., ::-1])
    cv2.imwrite(str(folder / 'empty.png'), np.full((300, 400, 3), 90, np.uint8))
    path = tmp_path / 'labels.json'
    path.write_text(json.dumps(labels))
    return folder, path


def run(labelled, *options):
    return main(['evaluate', *map(str, labelled), '--num-threads', '1', *map(str, options)])


def test_settings_are_compared_as_a_table_json_and_a_plot(labelled, tmp_path, capsys):
    settings = ('plain: --decoder reference', 'shaped: --input-aspect image --decoder refined')
    outputs = ['--json', tmp_path / 'all.json', '--plot', tmp_path / 'plot.png']
    outputs += ['--plot-deviations', tmp_path / 'deviations.png']
    assert run(labelled, '--setting', settings[0], '--setting', settings[1], *outputs) == 0
    printed = capsys.readouterr().out
    assert '2 photos, 1 labelled people' in printed
    assert 'plain' in printed and 'shaped' in printed
    plain, shaped = json.loads((tmp_path / 'all.json').read_text())
    assert plain['found'] == 1
    assert plain['ap'] == pytest.approx(1) and plain['oks'] == pytest.approx(1, abs=1e-3)
    assert plain['options']['decoder'] == 'reference'
    assert shaped['options']['input_aspect'] == 'image' and shaped['oks'] > 0.9
    assert len(plain['milliseconds']['photos']) == 2
    assert shaped['deviations']['coordinates'] > 0
    assert (tmp_path / 'plot.png').stat().st_size > 1000
    assert (tmp_path / 'deviations.png').stat().st_size > 1000


def test_predictions_that_were_saved_score_the_same(labelled, tmp_path, capsys):
    saved = tmp_path / 'saved'
    assert run(labelled, '--save-predictions', saved, '--json', tmp_path / 'a.json') == 0
    for photo in labelled[0].iterdir():
        photo.unlink()  # predictions need no photos
    assert run(labelled, '--predictions', saved / '0.json', '--json', tmp_path / 'b.json') == 0
    ran, (read,) = (json.loads((tmp_path / name).read_text()) for name in ('a.json', 'b.json'))
    for figure in ('ap', 'ar', 'oks', 'found', 'false_people'):
        assert read[figure] == ran[0][figure]
    assert 'milliseconds' not in read and 'options' not in read


def test_photos_of_another_size_than_their_labels_are_refused(labelled, capsys, astronaut):
    cv2.imwrite(str(labelled[0] / 'one.png'), astronaut[::2, ::2])
    assert run(labelled) == 1
    said = capsys.readouterr()
    assert 'one.png is 256 x 256 pixels, and its labels are for 512 x 512' in said.err
    assert '1 of 2 photos could not be used' in said.err
    assert '1 photos' in said.out


def test_missing_photos_are_said_and_left_out(labelled, capsys):
    folder = labelled[0]
    (folder / 'empty.png').unlink()
    assert run(labelled) == 0
    captured = capsys.readouterr()
    assert '1 of 2 photos are not in' in captured.err and 'such as empty.png' in captured.err
    assert '1 photos' in captured.out
    (folder / 'one.png').unlink()
    assert run(labelled) == 1
    assert 'has none of the 2 photos' in capsys.readouterr().err


@pytest.mark.slow
def test_tune_proposes_options_that_hold_the_time(labelled, capsys, monkeypatch):
    from posenet_ros.evaluation import settings

    monkeypatch.setattr(settings, 'RESOLUTIONS', (129, 193))
    monkeypatch.setattr(settings, 'CLOSEUPS', (0, 129))
    monkeypatch.setattr(settings, 'PRECISIONS', {'onnxruntime': ('fp32',)})
    assert run(labelled, '--tune', 1000) == 0
    printed = capsys.readouterr().out
    assert 'Within 1000 ms:' in printed and 'posenet estimate --input-resolution' in printed
    # What is proposed can be used as it is, as options and as a params file.
    proposal = printed[printed.index('    posenet estimate ') :]
    options, *lines = proposal.splitlines()[:-1]
    parser = argparse.ArgumentParser()
    add_estimation_options(parser)
    given = parser.parse_args(shlex.split(options)[2:])
    values = checked_values(yaml.safe_load('\n'.join(lines))['/**']['ros__parameters'])
    defaults = {spec.name: spec.default for spec in PARAMETERS}
    assert model_config({**defaults, **values}) == config_from(ModelConfig, given)
    assert decoder_config({**defaults, **values}) == config_from(DecoderConfig, given)
    assert run(labelled, '--tune', 0.01) == 1
    assert 'no setting that was tried takes at most 0.01 ms' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--tune', '-3'), 'Invalid --tune -3'),
        (('--where', 'split'), 'Invalid --where split. Should be KEY=VALUE'),
        (('--setting', 'a: --decoder best'), 'Invalid decoder best'),
        (('--setting', 'a:', '--setting', 'a:'), 'two settings have the same name'),
        (('--setting', "a: 'open"), 'No closing quotation'),
        (('--setting', 'a:', '--tune', '9'), '--tune tries its own settings'),
        (('--min-score', 'nan'), 'Invalid --min-score nan'),
        (('--plot', 'plot.xyz'), 'its name should end in .png'),
        (('--json', 'nowhere/out.json'), 'there is no folder nowhere'),
    ],
)
def test_wrong_options_are_refused(labelled, capsys, options, message):
    assert run(labelled, *options) == 1
    assert message in capsys.readouterr().err


def test_saved_predictions_do_not_replace_what_is_read(labelled, tmp_path, capsys):
    folder, annotations = labelled[0], labelled[1]
    saved = tmp_path / 'saved'
    saved.mkdir()
    labels = saved / '0.json'
    labels.write_bytes(annotations.read_bytes())
    before = labels.read_bytes()
    assert run((folder, labels), '--save-predictions', saved) == 1
    assert 'is the input itself' in capsys.readouterr().err
    assert labels.read_bytes() == before


def test_interrupted_evaluation_keeps_the_figures_of_what_is_finished(
    labelled, tmp_path, capsys, monkeypatch
):
    from posenet_ros.evaluation import settings

    read = settings.read_photo
    calls = []

    def interrupted(photo, folder):
        calls.append(photo)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return read(photo, folder)

    monkeypatch.setattr(settings, 'read_photo', interrupted)
    target = tmp_path / 'out.json'
    assert run(labelled, '--json', target) == 130
    said = capsys.readouterr()
    assert 'interrupted: these are 1 of 2 photos' in said.err
    assert 'AP' in said.out
    (entry,) = json.loads((tmp_path / 'out.partial.json').read_text())
    assert entry['name']
    assert not target.exists()
