"""The posenet command as a user runs it: a process, its output, its files, its exit status."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from goldens import ROOT

from posenet_ros import ConfigError, DecoderConfig, ModelConfig, __version__
from posenet_ros.commands.options import add_estimation_options, config_from
from posenet_ros.io.photos import write_image
from posenet_ros.io.video import Video

pytestmark = pytest.mark.slow


@pytest.fixture
def posenet(tmp_path, default_model_config, net):
    """Runs the command in an empty folder with the default model."""

    def run(*arguments, model=True, environment=None):
        if model and default_model_config.model_url:
            arguments = (*arguments, '--model-url', default_model_config.model_url)
            arguments += ('--multiplier', '0.75')
        return subprocess.run(
            [sys.executable, '-m', 'posenet_ros', *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(p for p in sys.path if p)}
            | (environment or {}),
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def posenet_process(tmp_path, default_model_config, net):
    """Starts the command and does not wait for it."""
    running = []

    def start(*arguments):
        if default_model_config.model_url:
            arguments += ('--model-url', default_model_config.model_url, '--multiplier', '0.75')
        running.append(
            subprocess.Popen(
                [sys.executable, '-m', 'posenet_ros', *map(str, arguments)],
                cwd=tmp_path,
                env={**os.environ, 'PYTHONPATH': os.pathsep.join(p for p in sys.path if p)},
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture
def video(tmp_path, astronaut):
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 10, (256, 256))
    for shift in range(3):
        writer.write(np.roll(astronaut[::2, ::2, ::-1], shift, 0))
    writer.release()
    return path


def test_photo_gives_the_references_json(posenet, photo, net, astronaut):
    result = posenet('estimate', photo)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ''  # no progress bar outside a terminal
    expected = [pose.to_dict() for pose in net.estimate_multiple_poses(astronaut)]
    assert json.loads(result.stdout) == expected


def test_deviations_are_an_addition_to_the_references_json(posenet, photo, tmp_path):
    plain = json.loads(posenet('estimate', photo).stdout)
    result = posenet('estimate', photo, '--deviations', '--json', 'all.json', '--draw', 'out.png')
    assert result.returncode == 0, result.stderr
    poses = json.loads((tmp_path / 'all.json').read_text())
    deviations = [[point.pop('deviation') for point in pose['keypoints']] for pose in poses]
    assert poses == plain
    assert all(0 < deviation < 200 for pose in deviations for deviation in pose)
    posenet('estimate', photo, '--draw', 'plain.png')
    drawn = [cv2.imread(str(tmp_path / name)) for name in ('out.png', 'plain.png')]
    assert (drawn[0] != drawn[1]).any()  # the circles


def test_the_refined_decoder_scores_lower_and_keeps_the_shape_of_the_json(posenet, photo):
    reference = json.loads(posenet('estimate', photo).stdout)
    refined = json.loads(posenet('estimate', photo, '--decoder', 'refined').stdout)
    assert [list(pose) for pose in refined] == [list(pose) for pose in reference]
    assert 0.1 < refined[0]['score'] < reference[0]['score']


def test_the_nodes_options_are_its_defaults_a_preset_and_what_is_given(tmp_path):
    def configs(*arguments):
        parser = argparse.ArgumentParser()
        add_estimation_options(parser)
        options = parser.parse_args(arguments)
        return config_from(ModelConfig, options), config_from(DecoderConfig, options)

    assert configs() == (ModelConfig(), DecoderConfig())
    refined = DecoderConfig(decoder='refined', max_detections=20)
    assert configs('--node') == (
        ModelConfig(input_resolution=385, input_aspect='image'),
        refined,
    )
    model, decoder = configs('--node', str(ROOT / 'config/balanced.yaml'), '--max-closeups', '2')
    assert (model.attention, model.max_closeups, decoder) == ('closeups', 2, refined)
    assert configs('--node', str(ROOT / 'config/reference.yaml')) == (
        ModelConfig(),
        DecoderConfig(),
    )
    assert configs('--node', str(ROOT / 'config/posenet.yaml')) == configs('--node')
    path = tmp_path / 'robot.yaml'
    lines = ['/eyes:', '  ros__parameters:', '    attention: off']
    path.write_text('\n'.join([*lines, '    input_resolution: [321, 193]']))
    model, _ = configs('--node', str(path))
    assert (model.attention, model.input_resolution) == ('off', (321, 193))
    path.write_text('nothing')
    with pytest.raises(ConfigError, match='is not a params file'):
        configs('--node', str(path))
    with pytest.raises(ConfigError, match='cannot read'):
        configs('--node', str(tmp_path / 'missing.yaml'))


def test_single_person_gives_one_pose(posenet, photo):
    result = posenet('estimate', photo, '--decoding-method', 'single-person')
    assert len(json.loads(result.stdout)['keypoints']) == 17


def test_drawing_changes_pixels_on_the_person_only(posenet, photo, astronaut, tmp_path):
    result = posenet('estimate', photo, '--draw', 'out.png', '--json', 'out.json')
    assert (result.returncode, result.stdout) == (0, '')
    drawn = cv2.imread(str(tmp_path / 'out.png'))[..., ::-1]
    changed = (drawn != astronaut).any(axis=2)
    nose = json.loads((tmp_path / 'out.json').read_text())[0]['keypoints'][0]['position']
    assert changed[int(nose['y']), int(nose['x'])]
    assert not changed[:50, :100].any()  # the top left corner is empty wall
    assert sorted(p.name for p in tmp_path.iterdir()) == ['out.json', 'out.png', 'photo.png']


def test_folder_gives_an_entry_per_photo(posenet, tmp_path, astronaut):
    (tmp_path / 'in').mkdir()
    for name in ('b.png', 'a.jpg'):
        write_image(tmp_path / 'in' / name, astronaut)
    (tmp_path / 'in/notes.txt').write_text('not a photo')
    result = posenet('estimate', 'in', '--draw', 'out', '--json', 'out.json')
    assert result.returncode == 0, result.stderr
    entries = json.loads((tmp_path / 'out.json').read_text())
    assert [entry['image'] for entry in entries] == ['a.jpg', 'b.png']
    assert all(len(entry['poses']) == 1 for entry in entries)
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['a.jpg', 'b.png']


def test_video_gives_an_entry_per_frame_and_a_drawn_video(posenet, video, tmp_path):
    result = posenet('estimate', video, '--draw', 'out.mp4', '--json', 'out.json')
    assert result.returncode == 0, result.stderr
    entries = json.loads((tmp_path / 'out.json').read_text())
    assert [(entry['frame'], entry['seconds']) for entry in entries] == [(0, 0), (1, 0.1), (2, 0.2)]
    with Video(tmp_path / 'out.mp4') as drawn:
        assert [frame.image.shape for frame in drawn] == [(256, 256, 3)] * 3


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (['nothing.png'], 'no file or folder nothing.png'),
        (['photo.png', '--multiplier', '1.01'], 'README still names 1.01'),
        (['photo.png', '--score-threshold', '2'], 'scoreThreshold 2'),
        (['photo.png', '--draw', 'no/folder/out.png'], 'no folder no/folder'),
        (['photo.png', '--draw', 'out.xyz'], 'out.xyz'),
        (['photo.png', '--draw', 'out.mp4'], 'out.mp4'),
        (['photo.png', '--draw', './photo.png'], 'is the input itself'),
        (['photo.png', '--json', 'photo.png'], 'is the input itself'),
        (['clip.mp4', '--draw', 'out.png'], 'out.png'),
        (['folder', '--draw', 'folder'], 'is the input itself'),
        (['photo.png', '--input-resolution', '100000'], 'inputResolution 100000'),
        (['text.png'], 'text.png is not an image'),
        (['clip.mp4'], 'clip.mp4 is not a video that can be opened'),
        (['empty'], 'empty holds no photo'),
    ],
)
def test_mistakes_end_in_one_line_that_names_them(posenet, photo, tmp_path, arguments, named):
    (tmp_path / 'text.png').write_text('this is no image')
    (tmp_path / 'clip.mp4').write_text('this is no video')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'folder').mkdir()
    before = photo.read_bytes()
    result = posenet('estimate', *arguments, model='--multiplier' not in arguments)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith('posenet: ')
    assert named in last
    assert 'Traceback' not in result.stderr
    assert not list(tmp_path.glob('.*part*'))
    assert photo.read_bytes() == before


@pytest.mark.parametrize('size', ['abc', '0', '1x2x3', '640x'])
def test_wrong_size_is_refused_with_what_is_allowed(posenet, photo, size):
    result = posenet('estimate', photo, '--input-resolution', size)
    assert result.returncode == 2
    assert '--input-resolution' in result.stderr.splitlines()[-1]
    assert '_' not in result.stderr.splitlines()[-1].replace('input_resolution', '')


def test_terminated_command_keeps_only_what_says_it_is_partial(posenet_process, tmp_path, video):
    process = posenet_process('estimate', video, '--draw', 'out.mp4', '--input-resolution', 1025)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob('out.partial.mp4')) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    # What was finished stays, under a name that says so.
    assert {path.name for path in tmp_path.iterdir()} <= {'clip.avi', 'out.partial.mp4'}


def test_fetch_prints_where_the_model_is(posenet, default_model_config):
    if not default_model_config.model_url:
        pytest.skip('needs a model on this machine')
    result = posenet('fetch')
    assert result.returncode == 0
    assert default_model_config.model_url in result.stdout


def test_export_writes_a_model_that_runs(posenet, tmp_path):
    import onnxruntime as ort

    result = posenet('export', 'out.onnx', '--precision', 'fp16', '--dynamic')
    assert result.returncode == 0, result.stderr
    session = ort.InferenceSession(str(tmp_path / 'out.onnx'), providers=['CPUExecutionProvider'])
    heatmap = session.run(['heatmap'], {'image': np.zeros((2, 3, 193, 257), np.float32)})[0]
    assert heatmap.shape == (2, 13, 17, 17)
    assert [path.name for path in tmp_path.iterdir()] == ['out.onnx']


def test_version(posenet):
    assert posenet('--version', model=False).stdout.split() == ['posenet_ros', __version__]


def test_selftest_without_a_gpu_says_what_it_could_not_check(posenet, tmp_path, fresh_home):
    result = posenet(
        'selftest', '--input-resolution', '129', '--rounds', '2', '--json', 'report.json',
        environment={'POSENET_HOME': fresh_home},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert 'not checked: everything on a GPU' in result.stdout
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['passed'] and report['device'] is None
    assert {run['backend'] for run in report['runs']} == {'onnxruntime'}
    assert max(report['runs'][0]['max_error'].values()) == 0
    assert report['packages']['onnxruntime'] and report['cpu']
    forced = posenet(
        'selftest', '--backend', 'tensorrt', '--input-resolution', '129', '--rounds', '2',
        environment={'POSENET_HOME': fresh_home},
    )  # fmt: skip
    assert forced.returncode == 1 and 'FAILED' in forced.stdout


def test_build_engine_without_a_gpu_says_what_is_missing(posenet):
    result = posenet('build-engine')
    assert result.returncode == 1
    assert result.stderr.startswith('posenet: ') and len(result.stderr.splitlines()) == 1


def test_compare_measures_each_precision(posenet, tmp_path, shared, fresh_home):
    result = posenet(
        'compare', shared / 'images', '--input-resolution', '129', '--json', 'result.json',
        environment={'POSENET_HOME': fresh_home},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    numbers = json.loads((tmp_path / 'result.json').read_text())
    assert list(numbers) == ['fp16', 'int8', 'int8 for tensorrt']
    assert all(n['images'] == 8 and n['people'] >= 3 for n in numbers.values())
    assert numbers['fp16']['mean_oks'] > 0.97
    for name in numbers:
        assert name in result.stdout
    missing = posenet('compare', 'nowhere')
    assert missing.returncode == 1 and 'nowhere' in missing.stderr


@pytest.mark.parametrize('layout', ['tensorrt', 'onnxruntime'])
def test_export_writes_int8(posenet, tmp_path, layout):
    import onnx

    result = posenet(
        'export', 'out.onnx', '--precision', 'int8', '--layout', layout,
        '--input-resolution', '65', environment={'POSENET_HOME': str(tmp_path)},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert f'int8 for {layout}' in result.stdout
    types = {constant.data_type for constant in onnx.load(tmp_path / 'out.onnx').graph.initializer}
    assert onnx.TensorProto.INT8 in types


def test_numbers_may_have_exponents(posenet, photo):
    result = posenet('estimate', photo, '--score-threshold', '5e-1')
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)) == 1


def test_json_goes_to_a_redirected_descriptor(posenet, photo):
    result = posenet('estimate', photo, '--json', '/dev/fd/1')
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)) == 1


def test_comparison_without_people_is_valid_json(posenet, tmp_path):
    write_image(tmp_path / 'black.png', np.zeros((64, 64, 3), np.uint8))
    result = posenet('compare', 'black.png', '--json', 'out.json', '--input-resolution', 33)
    assert result.returncode == 1
    assert 'there is nothing to compare' in result.stderr

    def refuse(constant):
        raise AssertionError(constant)

    numbers = json.loads((tmp_path / 'out.json').read_text(), parse_constant=refuse)
    assert numbers['int8']['mean_oks'] is None


def test_hidden_files_of_a_folder_are_no_photos(posenet, photo, tmp_path):
    folder = tmp_path / 'folder'
    folder.mkdir()
    (folder / 'a.png').write_bytes(photo.read_bytes())
    (folder / '._a.png').write_bytes(bytes(10))
    result = posenet('estimate', folder)
    assert result.returncode == 0, result.stderr
    assert [one['image'] for one in json.loads(result.stdout)] == ['a.png']


def test_int8_of_any_size_is_refused(posenet):
    result = posenet('export', 'out.onnx', '--precision', 'int8', '--dynamic')
    assert result.returncode == 1
    assert 'int8 is made for one input size' in result.stderr


def test_unknown_home_is_one_sentence(posenet, photo):
    result = posenet('estimate', photo, '--model-url', '~nobody-of-that-name/m', model=False)
    assert result.returncode == 1
    assert result.stderr.strip().endswith('the home directory is unknown')
    assert 'Traceback' not in result.stderr
