"""Commands with what goes wrong: bad items, interruptions, full disks, odd names, outputs."""

import io
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from media import encoded, matroska, picture
from tfjs_models import mobilenet_like

from posenet_ros.commands import SUBCOMMANDS, _parser, main
from posenet_ros.evaluation.compare import CLEAR_POSE_SCORES
from posenet_ros.io import photos, video


@pytest.fixture
def run(tmp_path, monkeypatch, fresh_home):
    """Runs a command in an empty folder, with a small model."""
    monkeypatch.chdir(tmp_path)
    model = tmp_path.parent / f'{tmp_path.name}-model'
    model.mkdir()
    url = str(mobilenet_like(output_stride=16).write(model / 'model-stride16.json'))
    monkeypatch.setenv('POSENET_HOME', fresh_home)

    def command(*arguments):
        return main([*map(str, arguments), '--model-url', url, '--input-resolution', '33'])

    command.model = ['--model-url', url, '--input-resolution', '33']
    return command


@pytest.fixture
def folder(tmp_path):
    """Two good photos among everything that can be wrong with one."""
    path = tmp_path / 'photos'
    path.mkdir()
    (path / 'a.png').write_bytes(encoded(picture(seed=1), 'PNG'))
    (path / 'b_empty.jpg').write_bytes(b'')
    (path / 'c_folder.jpg').mkdir()
    (path / 'd_text.jpg').write_text('no photo')
    (path / 'e_cut.jpg').write_bytes(encoded(picture())[:800])
    (path / 'f_nowhere.png').symlink_to('nowhere')
    # A PNG that claims to be 3,000,000 pixels wide.
    huge = bytearray(encoded(picture(), 'PNG'))
    huge[16:20] = (3_000_000).to_bytes(4, 'big')
    (path / 'g_huge.png').write_bytes(huge)
    (path / 'notes.txt').write_text('notes')
    (path / 'z.png').write_bytes(encoded(picture(seed=2), 'PNG'))
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


BAD = ['b_empty.jpg', 'c_folder.jpg', 'd_text.jpg', 'e_cut.jpg', 'f_nowhere.png', 'g_huge.png']


def test_bad_photos_are_told_and_the_rest_is_complete(run, folder, tmp_path, capsys):
    assert run('estimate', folder, '--json', 'out.json', '--draw', 'drawn') == 1
    said = capsys.readouterr().err
    for name in BAD:
        assert sum(name in line for line in said.splitlines()) == 1
    assert '1 entries are no photos: notes.txt' in said
    assert '6 of 8 photos could not be used (see above); the results of the others are' in said
    result = json.loads((tmp_path / 'out.json').read_text())
    assert [entry['image'] for entry in result] == ['a.png', 'z.png']
    assert names(tmp_path / 'drawn') == ['a.png', 'z.png']


@pytest.mark.slow
def test_compare_and_calibration_pass_over_bad_photos(run, folder, capsys, caplog):
    assert run('compare', folder, '--calibration', folder, '--json', 'out.json') == 1
    said = capsys.readouterr()
    assert 'fp16' in said.out
    for name in BAD:
        assert name in said.err and name in caplog.text


@pytest.mark.slow
def test_comparing_nobody_is_no_success(run, tmp_path, monkeypatch, capsys):
    (tmp_path / 'a.png').write_bytes(encoded(picture(), 'PNG'))
    monkeypatch.setitem(CLEAR_POSE_SCORES, 'reference', 1.1)
    assert run('compare', 'a.png') == 1
    assert 'nobody is clearly seen in the 1 images of a.png' in capsys.readouterr().err


def test_folder_without_a_good_photo_is_an_error(run, folder, tmp_path, capsys):
    for name in ('a.png', 'z.png'):
        (folder / name).unlink()
    assert run('estimate', folder) == 1
    said = capsys.readouterr()
    assert '6 of 6 photos could not be used (see above); there are no results' in said.err
    assert said.out == '[]\n'


@pytest.mark.parametrize('error', [KeyboardInterrupt, ZeroDivisionError])
def test_interrupted_run_keeps_what_is_finished(run, folder, tmp_path, monkeypatch, capsys, error):
    (tmp_path / 'out.json').write_text('old')
    read = photos.read_image

    def interrupted(path):
        if path.name == 'z.png':
            raise error
        return read(path)

    monkeypatch.setattr('posenet_ros.commands.estimate.read_image', interrupted)
    if error is KeyboardInterrupt:
        assert run('estimate', folder, '--json', 'out.json') == 130
    else:
        with pytest.raises(error):
            run('estimate', folder, '--json', 'out.json')
    assert 'what was finished is in out.partial.json' in capsys.readouterr().err
    assert (tmp_path / 'out.json').read_text() == 'old'
    (entry,) = json.loads((tmp_path / 'out.partial.json').read_text())
    assert entry['image'] == 'a.png'
    assert not [name for name in names(tmp_path) if name.startswith('.')]
    monkeypatch.setattr('posenet_ros.commands.estimate.read_image', read)
    assert run('estimate', folder, '--json', 'out.json') == 1
    assert len(json.loads((tmp_path / 'out.json').read_text())) == 2
    assert not (tmp_path / 'out.partial.json').exists()


def test_lines_are_there_as_soon_as_they_are_known(run, folder, tmp_path, capsys):
    assert run('estimate', folder, '--json', '-') == 1
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)['image'] for line in lines] == ['a.png', 'z.png']
    assert run('estimate', folder, '--json', 'out.jsonl') == 1
    assert (tmp_path / 'out.jsonl').read_text().splitlines() == lines
    assert run('estimate', folder / 'a.png', '--json', '-') == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (['a.png', '--json', 'a.png'], 'a.png is the input itself'),
        (['a.png', '--draw', 'a.png'], 'a.png is the input itself'),
        (['a.png', '--draw', 'link.png'], 'link.png is the input itself'),
        (['a.png', '--draw', 'x.png', '--json', 'x.png'], 'x.png is given for two outputs'),
        (['a.png', '--draw', 'x.png', '--json', './sub/../x.png'], 'is given for two outputs'),
        (['sub', '--json', 'sub/b.png'], 'sub/b.png is a file of the input sub'),
        (['sub', '--draw', 'sub'], 'sub is the input itself'),
        (['sub', '--draw', 'other'], 'would be drawn are in other already, such as b.png'),
        (['sub', '--draw', 'x.png'], 'is a folder, so --draw x.png should be one'),
        (['a.png', '--draw', 'x.pgm'], 'the name should end in .png, .jpg'),
        (['clip.mkv', '--draw', 'x.webm'], 'the name should end in .mp4'),
        (['a.png', '--draw', 'no/x.png'], 'there is no folder no'),
        (['clip.partial.mkv', '--draw', 'clip.mkv'], 'is, or holds, the input clip.partial.mkv'),
        (['twins', '--draw', 'new'], 'two photos of twins would be drawn to new/b.gif.png'),
        (['a.png', '--json', 'loop'], 'cannot write loop'),
        (['a.png', '--draw', 'loop.png'], 'cannot write loop.png'),
        (['clip.mkv', '--max-frames', '0'], 'Invalid --max-frames 0'),
        (['bag.mcap'], 'bag.mcap is a bag, where a photo or a folder'),
        (['empty'], 'empty holds no photo'),
        (['text.png'], 'text.png is not an image'),
        (['text.mp4'], 'text.mp4 is not a video'),
    ],
)
def test_mistakes_are_told_before_the_model_is_loaded(
    run, tmp_path, monkeypatch, capsys, arguments, named
):
    (tmp_path / 'a.png').write_bytes(encoded(picture(), 'PNG'))
    (tmp_path / 'link.png').symlink_to('a.png')
    for name in ('loop', 'loop.png'):
        (tmp_path / name).symlink_to(name)
    for name in ('sub', 'other', 'empty', 'twins'):
        (tmp_path / name).mkdir()
    for name in ('sub/b.png', 'other/b.png', 'twins/b.gif', 'twins/b.gif.png'):
        (tmp_path / name).write_bytes(encoded(picture(), 'PNG'))
    for name in ('clip.mkv', 'clip.partial.mkv'):
        matroska(tmp_path / name, [picture()] * 2, [0, 100])
    (tmp_path / 'bag.mcap').write_bytes(b'\x89MCAP0\r\n')
    (tmp_path / 'text.png').write_text('text')
    (tmp_path / 'text.mp4').write_text('text')

    def fail(options):
        raise AssertionError('the model was loaded')

    before = sorted(path for path in tmp_path.rglob('*'))
    monkeypatch.setattr('posenet_ros.commands.estimate.load_model', fail)
    assert run('estimate', *arguments) == 1
    said = capsys.readouterr().err
    assert named in said and said.count('\n') == 1
    assert sorted(path for path in tmp_path.rglob('*')) == before
    assert (tmp_path / 'a.png').read_bytes() == encoded(picture(), 'PNG')


@pytest.mark.parametrize('command', ['compare', 'selftest', 'export', 'bag'])
def test_no_command_writes_over_its_input(run, tmp_path, capsys, command):
    source = tmp_path / ('in.mcap' if command == 'bag' else 'in.png')
    content = b'\x89MCAP0\r\n' if command == 'bag' else encoded(picture(), 'PNG')
    source.write_bytes(content)
    arguments = {
        'compare': [source, '--json', source],
        'selftest': ['--image', source, '--json', source],
        'export': [source, '--calibration', source],
        'bag': [source, source],
    }
    assert run(command, *arguments[command]) == 1
    assert 'is the input itself' in capsys.readouterr().err
    assert source.read_bytes() == content


@pytest.mark.parametrize(
    ('arguments', 'named'),
    [
        (['compare', 'empty'], 'empty holds no photo'),
        (['compare', 'text.mp4'], 'text.mp4 is not a video'),
        (['compare', 'rtsp://nobody/'], 'is a stream, where a photo or a folder'),
        (['compare', 'a.png', '--calibration', 'empty'], 'empty holds no photo'),
        (['compare', ''], 'the input is empty'),
        (['bag', 'file:///nowhere', 'out'], 'no file or folder /nowhere'),
        (['estimate', 'a.png', '--calibration', 'nowhere'], 'there is no file or folder nowhere'),
        (['bag', 'empty', 'out'], 'there is no bag in empty'),
        (['bag', 'bag', 'out'], 'bag is not a bag'),
        (['bag', 'bag', 'empty'], 'empty exists already'),
    ],
)
def test_every_command_looks_at_its_input_first(
    run, tmp_path, monkeypatch, capsys, arguments, named
):
    def fail(*arguments, **options):
        raise AssertionError('the model was loaded')

    monkeypatch.setattr('posenet_ros.estimator.PoseNet.load', fail)
    (tmp_path / 'a.png').write_bytes(encoded(picture(), 'PNG'))
    (tmp_path / 'text.mp4').write_text('text')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'bag').mkdir()
    (tmp_path / 'bag/metadata.yaml').write_text('rosbag2_bagfile_information: {}')
    if named.endswith('already'):
        pytest.importorskip('mcap')
        monkeypatch.setattr('posenet_ros.commands.bag.look_at', lambda *_: None)
    assert run(*arguments) == 1
    assert named in capsys.readouterr().err


def test_video_of_uneven_times_keeps_them(run, tmp_path):
    times = [0, 100, 200, 1500, 1600, 3000]
    matroska(tmp_path / 'clip.mkv', [picture(seed=i) for i in range(6)], times)
    assert run('estimate', 'clip.mkv', '--json', 'out.json', '--draw', 'out.mp4') == 0
    result = json.loads((tmp_path / 'out.json').read_text())
    assert [round(1000 * entry['seconds']) for entry in result] == times
    with video.Video(tmp_path / 'out.mp4') as drawn:
        assert max(frame.seconds for frame in drawn) == pytest.approx(3.0, abs=0.1)


def test_cut_video_ends_with_status_1_and_both_numbers(run, tmp_path, capsys):
    with video.VideoWriter(tmp_path / 'clip.avi', 10) as writer:
        for i in range(40):
            writer.write(picture(seed=i), i / 10)
    data = (tmp_path / 'clip.avi').read_bytes()
    (tmp_path / 'clip.avi').write_bytes(data[: len(data) // 2])
    assert run('estimate', 'clip.avi', '--json', 'out.json') == 1
    count = len(json.loads((tmp_path / 'out.json').read_text()))
    assert f'{count} frames of the 40 that it claims' in capsys.readouterr().err
    assert run('estimate', 'clip.avi', '--max-frames', '3', '--json', 'out.json') == 0
    assert len(json.loads((tmp_path / 'out.json').read_text())) == 3


def test_names_that_are_no_text_end_nothing(run, tmp_path, capsysbinary):
    odd = tmp_path / os.fsdecode(b'photos \xff')
    odd.mkdir()
    for name in (b'a\xff.png', b'b:12.png', b'\xe4.png'):
        (odd / os.fsdecode(name)).write_bytes(encoded(picture(), 'PNG'))
    (odd / os.fsdecode(b'\xfe.jpg')).write_bytes(b'text')
    assert run('estimate', odd, '--json', 'out.json', '--draw', os.fsdecode(b'\xfd')) == 1
    entries = json.loads((tmp_path / 'out.json').read_text())
    assert {os.fsencode(entry['image']) for entry in entries} == {
        b'a\xff.png', b'b:12.png', b'\xe4.png',
    }  # fmt: skip
    assert len(names(tmp_path / os.fsdecode(b'\xfd'))) == 3
    matroska(tmp_path / os.fsdecode(b'2026-01-01T12:00:00 \xff.mkv'), [picture()] * 3, [0, 50, 100])
    assert run('estimate', os.fsdecode(b'2026-01-01T12:00:00 \xff.mkv'), '--json', '-') == 0


def test_mirrored_drawing_shows_the_coordinates_that_are_told(run, tmp_path, monkeypatch):
    (tmp_path / 'a.png').write_bytes(encoded(picture(), 'PNG'))
    monkeypatch.setattr('posenet_ros.commands.estimate.draw_poses', lambda image, *_, **__: image)
    assert run('estimate', 'a.png', '--draw', 'plain.png') == 0
    assert run('estimate', 'a.png', '--draw', 'flipped.png', '--flip-horizontal') == 0
    plain = photos.read_image(tmp_path / 'plain.png')
    assert np.array_equal(photos.read_image(tmp_path / 'flipped.png'), plain[:, ::-1])


# As processes.


def process(run, tmp_path, *arguments, **options):
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(p for p in sys.path if p)}
    options = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, **options}
    return subprocess.run(
        [sys.executable, '-m', 'posenet_ros', *map(str, arguments), *run.model],
        cwd=tmp_path, env=environment, timeout=120, text=True, **options,
    )  # fmt: skip


@pytest.mark.slow
def test_full_disk_leaves_the_old_video(run, tmp_path):
    with video.VideoWriter(tmp_path / 'clip.avi', 10) as writer:
        for i in range(40):
            writer.write(picture(240, 320, seed=i), i / 10)
    assert run('estimate', 'clip.avi', '--draw', 'out.mp4') == 0
    old = (tmp_path / 'out.mp4').read_bytes()

    def small_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(old) // 2, len(old) // 2))

    result = process(
        run, tmp_path, 'estimate', 'clip.avi', '--draw', 'out.mp4', preexec_fn=small_disk
    )
    assert result.returncode == 1
    assert 'cannot write out.mp4: File too large' in result.stderr.splitlines()[-1]
    assert (tmp_path / 'out.mp4').read_bytes() == old
    assert names(tmp_path) == ['clip.avi', 'out.mp4']


@pytest.mark.slow
@pytest.mark.parametrize('how', ['full', 'closed', 'without a working directory'])
def test_output_that_is_gone_is_an_error(run, tmp_path, how):
    (tmp_path / 'a.png').write_bytes(encoded(picture(), 'PNG'))
    gone = tmp_path / 'gone'
    gone.mkdir()
    if how == 'full':
        with Path('/dev/full').open('w') as full:
            result = process(run, tmp_path, 'estimate', 'a.png', stdout=full)
        assert 'cannot write to standard output: No space left' in result.stderr
    elif how == 'closed':
        result = process(
            run, tmp_path, 'estimate', 'a.png', stdout=None, preexec_fn=lambda: os.close(1)
        )
        assert 'standard output is closed' in result.stderr
    else:
        result = process(run, gone, 'estimate', 'a.png', '--json', 'x.json', preexec_fn=gone.rmdir)
        assert 'posenet: ' in result.stderr
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signal_keeps_what_is_finished(run, tmp_path, number):
    frames = [picture(seed=i) for i in range(8)]
    matroska(tmp_path / 'clip.mkv', frames * 400, list(range(0, 32000, 10)))
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(p for p in sys.path if p)}
    arguments = ['estimate', 'clip.mkv', '--json', 'out.json', '--draw', 'out.mp4', *run.model]
    command = [sys.executable, '-m', 'posenet_ros', *arguments]
    running = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    partial = tmp_path / 'out.partial.json'
    while running.poll() is None and (not partial.exists() or partial.stat().st_size < 20_000):
        pass
    running.send_signal(number)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == (130 if number == signal.SIGINT else 128 + number)
    assert 'what was finished is in out.partial.json' in said and 'Traceback' not in said
    assert 'what was finished is in out.partial.mp4' in said
    count = len(json.loads(partial.read_text()))
    assert count > 2
    with video.Video(tmp_path / 'out.partial.mp4') as drawn:
        assert abs(sum(1 for _ in drawn) - count) <= 1
    assert names(tmp_path) == ['clip.mkv', 'out.partial.json', 'out.partial.mp4']


@pytest.mark.parametrize('command', SUBCOMMANDS, ids=lambda command: command.__name__)
def test_every_help_has_examples_that_can_be_parsed(command, capsys):
    examples = [line.strip() for line in command.EXAMPLES.splitlines()[1:]]
    name = shlex.split(examples[0])[1]
    with pytest.raises(SystemExit) as end:
        main([name, '--help'])
    assert end.value.code == 0
    said = capsys.readouterr().out
    for example in examples:
        assert f'  {example}\n' in said
        words = shlex.split(re.split(r' \||   ', example)[0])
        assert words[0] == 'posenet'
        _parser().parse_args(words[1:])


def test_exit_statuses_are_told(capsys):
    with pytest.raises(SystemExit):
        main(['--help'])
    said = capsys.readouterr().out
    assert 'exit status:\n  0 ' in said


@pytest.mark.slow
def test_reader_that_goes_away_does_not_hide_an_unfinished_drawing(run, tmp_path):
    matroska(tmp_path / 'clip.mkv', [picture()] * 2000, list(range(0, 20000, 10)))
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, '-m', 'posenet_ros', 'estimate', 'clip.mkv', '--json', '-']
    for extra, status in (([], 0), (['--draw', 'out.mp4'], 1)):
        running = subprocess.Popen(
            [*command, *extra, *run.model],
            cwd=tmp_path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert json.loads(running.stdout.readline())['frame'] == 0
        running.stdout.close()
        said = running.stderr.read()
        running.stderr.close()
        assert running.wait(60) == status
        assert ('out.mp4 is not finished' in said) == bool(status)


def test_closed_standard_error_is_survived(run, tmp_path, monkeypatch):
    (tmp_path / 'a.png').write_bytes(encoded(picture(), 'PNG'))
    monkeypatch.setattr(sys, 'stderr', None)
    assert run('estimate', 'a.png', '--json', 'out.json') == 0
    monkeypatch.setattr(sys, 'stdout', io.StringIO())
    assert run('estimate', 'nothing.png') == 1
