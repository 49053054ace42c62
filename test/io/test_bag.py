"""posenet bag: a recorded bag in, a bag with poses out."""

import contextlib
import re
import shutil
import sqlite3

import cv2
import numpy as np
import pytest
from goldens import ROOT

mcap_writer = pytest.importorskip('mcap.writer', reason='the package mcap is not installed')
zstandard = pytest.importorskip('zstandard', reason='the package zstandard is not installed')
rosbags = pytest.importorskip('rosbags.rosbag2', reason='the package rosbags is not installed')

from rosbags.highlevel import AnyReader  # noqa: E402

from posenet_ros import ImageError, PoseNetError  # noqa: E402
from posenet_ros.commands import main  # noqa: E402
from posenet_ros.io import bag, bag_file, bag_writer  # noqa: E402
from posenet_ros.io.sampling import sampled_images  # noqa: E402

START = 1_700_000_000_000_000_000


@pytest.fixture(params=['mcap', 'sqlite3'])
def recorded(request, tmp_path, astronaut):
    """Three images, one of them broken, and two compressed ones, 0.1 s apart."""
    store = bag.typestore()
    types = store.types
    path = tmp_path / 'recorded'
    storage = bag_writer.STORAGE_FORMATS[request.param]
    with rosbags.Writer(path, version=9, storage_plugin=storage) as writer:
        raw = writer.add_connection('/camera/image_raw', bag.IMAGE_TYPE, typestore=store)
        compressed = writer.add_connection('/rear/compressed', bag.COMPRESSED_TYPE, typestore=store)
        for i, connection in enumerate((raw, compressed, raw, compressed, raw)):
            time = START + i * 100_000_000
            stamp = types['builtin_interfaces/msg/Time'](sec=1000 + i, nanosec=i)
            header = types['std_msgs/msg/Header'](stamp=stamp, frame_id=f'frame_{i}')
            if connection is raw:
                message = types[bag.IMAGE_TYPE](
                    header=header, height=512, width=512, step=1536, is_bigendian=0,
                    encoding='rgb8' if i != 2 else 'rgb9', data=astronaut.reshape(-1),
                )  # fmt: skip
            else:
                jpeg = cv2.imencode('.jpg', astronaut[..., ::-1])[1].reshape(-1)
                message = types[bag.COMPRESSED_TYPE](header=header, format='jpeg', data=jpeg)
            writer.write(connection, time, store.serialize_cdr(message, message.__msgtype__))
    return path


def nobody(image, topic, seconds):
    return []


def read(path):
    with AnyReader([path], default_typestore=bag.typestore()) as reader:
        return [
            (connection.topic, time, reader.deserialize(data, connection.msgtype))
            for connection, time, data in reader.messages()
        ]


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_poses_lie_at_the_images_times_with_the_images_headers(
    recorded, tmp_path, default_model_config, net, astronaut, capsys, storage
):
    target = tmp_path / 'out'
    arguments = ['bag', str(recorded), str(target), '--annotated', '--storage', storage]
    if default_model_config.model_url:
        arguments += ['--model-url', default_model_config.model_url, '--multiplier', '0.75']
    assert main(arguments) == 1  # one image has an unknown encoding
    said = capsys.readouterr()
    assert '1 images could not be read' in said.out
    assert "an image on /camera/image_raw cannot be used: unknown encoding 'rgb9'" in said.err
    messages = read(target)
    poses = [entry for entry in messages if entry[0].endswith('/poses')]
    assert [(topic, (time - START) // 100_000_000) for topic, time, _ in poses] == [
        ('/camera/image_raw/poses', 0),
        ('/rear/compressed/poses', 1),
        ('/rear/compressed/poses', 3),
        ('/camera/image_raw/poses', 4),
    ]
    (expected,) = net.estimate_multiple_poses(astronaut)
    for _, time, message in poses:
        i = (time - START) // 100_000_000
        assert (message.header.frame_id, message.header.stamp.sec) == (f'frame_{i}', 1000 + i)
        assert (message.image_width, message.image_height) == (512, 512)
        (person,) = message.poses
        assert [keypoint.id for keypoint in person.keypoints] == list(range(17))
        nose = person.keypoints[0]
        assert (nose.x, nose.y) == pytest.approx(tuple(expected.keypoints[0]), abs=2)
    drawn = [entry for entry in messages if entry[0] == '/camera/image_raw/annotated']
    assert len(drawn) == 2
    assert drawn[0][2].data.size == 512 * 512 * 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ['out', 'recorded']


def test_only_the_topics_asked_for_are_read(recorded, tmp_path):
    counts = bag.add_poses(recorded, tmp_path / 'out', nobody, topics=['/rear/compressed'])
    assert counts == {'images': 2, 'people': 0, 'broken': 0}


def test_mistakes_are_named_and_leave_nothing_behind(recorded, tmp_path):
    def run(source=recorded, target=tmp_path / 'out', **options):
        bag.add_poses(source, target, nobody, **options)

    with pytest.raises(PoseNetError, match='no bag /nowhere'):
        run(tmp_path.__class__('/nowhere'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(PoseNetError, match='empty is not a bag'):
        run(tmp_path / 'empty')
    with pytest.raises(PoseNetError, match='no images on /left; it has images on /camera'):
        run(topics=['/left'])
    with pytest.raises(PoseNetError, match='exists already'):
        run(target=recorded)
    with pytest.raises(PoseNetError, match='no folder'):
        run(target=tmp_path / 'no/out')

    def fail(image, topic, seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bag.add_poses(recorded, tmp_path / 'out', fail)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['empty', 'recorded']


@pytest.mark.parametrize('name', bag_writer.DEFINITIONS)
def test_definitions_are_those_of_the_package(name):
    text = (ROOT / f'msg/{name.rsplit("/", 1)[1]}.msg').read_text()
    lines = [re.sub(r'#.*', '', line).strip() for line in text.splitlines()]
    assert [line for line in lines if line] == bag_writer.DEFINITIONS[name].splitlines()


def test_images_of_a_bag_are_sampled(recorded, astronaut):
    """All but the broken one."""
    images = list(sampled_images(recorded, 100))
    assert len(images) == 4
    assert all(np.abs(image.astype(int) - astronaut).mean() < 5 for image in images)


# Bags as they are found: only what is read of them matters.


def image_data(index=0, encoding='rgb8'):
    types = bag.typestore().types
    stamp = types['builtin_interfaces/msg/Time'](sec=index, nanosec=0)
    message = types[bag.IMAGE_TYPE](
        header=types['std_msgs/msg/Header'](stamp=stamp, frame_id=f'frame_{index}'),
        height=2, width=3, encoding=encoding, is_bigendian=0, step=9, data=np.full(18, index, 'u1'),
    )  # fmt: skip
    return bytes(bag.typestore().serialize_cdr(message, bag.IMAGE_TYPE))


def mcap_file(path, messages, *, others=True, **options):
    """An MCAP with images on /image, and channels that are nobody's business."""
    with path.open('wb') as file:
        writer = mcap_writer.Writer(file, chunk_size=100, **options)
        writer.start(profile='ros2')
        schema = writer.register_schema(bag.IMAGE_TYPE, 'ros2msg', b'')
        images = writer.register_channel('/image', 'cdr', schema)
        if others:
            unknown = writer.register_schema('nobody_msgs/msg/Knows', 'ros2msg', b'')
            event = writer.register_schema('std_srvs/srv/Trigger_Event', '', b'')
            numbers = [
                writer.register_channel('/unknown', 'cdr', unknown),
                writer.register_channel('/service/_service_event', 'cdr', event),
                writer.register_channel('/json', 'json', 0),
                writer.register_channel('/image', 'json', 0),
            ]
            for number in numbers:
                writer.add_message(number, 1, b'{"not": "cdr"}', 1)
        for i, data in enumerate(messages):
            writer.add_message(images, 10 + i, data, 10 + i)
        writer.finish()
    return path


def sqlite_file(path, messages):
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(
            'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, '
            'serialization_format TEXT, offered_qos_profiles TEXT)'
        )
        database.execute(
            'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, '
            'timestamp INTEGER, data BLOB)'
        )
        database.executemany(
            'INSERT INTO topics VALUES(?, ?, ?, ?, "")',
            [
                (1, '/unknown', '', ''),
                (2, '/image', bag.IMAGE_TYPE, 'cdr'),
                (3, '/other', 'x/msg/Y', 'wrong_format'),
            ],
        )
        rows = [(2, 10 + i, data) for i, data in enumerate(messages)]
        database.executemany(
            'INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)',
            [(1, 1, b'unknown'), (3, 2, b'wrong'), *rows],
        )
    return path


def add(source, tmp_path, **options):
    """The colours of the images that were read, and what was told."""
    seen, told = [], []

    def poses_of(image, topic, seconds):
        seen.append(int(image[0, 0, 0]))
        return []

    bag.add_poses(source, tmp_path / 'out', poses_of, problem=told.append, **options)
    shutil.rmtree(tmp_path / 'out')
    return seen, told


@pytest.mark.parametrize('make', [mcap_file, sqlite_file])
def test_unrelated_topics_of_unknown_types_do_not_matter(tmp_path, make):
    suffix = '.mcap' if make is mcap_file else '.db3'
    path = make(tmp_path / f'bag{suffix}', [image_data(i) for i in range(5)])
    assert add(path, tmp_path) == ([0, 1, 2, 3, 4], [])


@pytest.mark.parametrize('make', [mcap_file, sqlite_file])
def test_one_message_that_cannot_be_read_does_not_end_the_rest(tmp_path, make):
    messages = [image_data(i) for i in range(5)]
    messages[2] = messages[2][:40]
    messages[3] = b''
    suffix = '.mcap' if make is mcap_file else '.db3'
    seen, told = add(make(tmp_path / f'bag{suffix}', messages), tmp_path)
    assert seen == [0, 1, 4]
    assert told[0].startswith('an image on /image cannot be used: its 40 bytes are no sensor_msgs')


def test_interrupted_recording_gives_what_can_be_read(tmp_path):
    whole = mcap_file(tmp_path / 'bag.mcap', [image_data(i) for i in range(40)]).read_bytes()
    folder = tmp_path / 'recorded'
    folder.mkdir()
    (folder / 'recorded_0.mcap').write_bytes(whole[: len(whole) // 3])
    seen, told = add(folder, tmp_path)
    assert seen == list(range(len(seen))) and 5 < len(seen) < 30
    assert any('ros2 bag reindex' in text and str(folder) in text for text in told)
    assert any('mcap recover recorded_0.mcap' in text for text in told)


def test_every_cut_of_a_bag_is_read_or_refused(tmp_path):
    for make, name in ((mcap_file, 'a.mcap'), (sqlite_file, 'a.db3')):
        whole = make(tmp_path / name, [image_data(i) for i in range(8)]).read_bytes()
        best = 0
        for length in range(8, len(whole), 97):
            (tmp_path / f'cut_{name}').write_bytes(whole[:length])
            try:
                seen, _ = add(tmp_path / f'cut_{name}', tmp_path)
                best = max(best, len(seen))
            except (PoseNetError, ImageError):
                shutil.rmtree(tmp_path / 'out', ignore_errors=True)
        assert best >= 6


def test_files_of_a_bag_without_metadata_are_read_in_their_order(tmp_path):
    folder = tmp_path / 'recorded'
    folder.mkdir()
    for number in (0, 2, 10):
        sqlite_file(folder / f'recorded_{number}.db3', [image_data(number)])
    assert add(folder, tmp_path)[0] == [0, 2, 10]


def test_compressed_files_and_messages_are_read(tmp_path):
    compress = zstandard.ZstdCompressor().compress
    plain = sqlite_file(tmp_path / 'a.db3', [image_data(i) for i in range(3)])
    (tmp_path / 'b.db3.zstd').write_bytes(compress(plain.read_bytes()))
    assert add(tmp_path / 'b.db3.zstd', tmp_path) == ([0, 1, 2], [])
    packed = sqlite_file(tmp_path / 'c.db3', [compress(image_data(i)) for i in range(3)])
    assert add(packed, tmp_path) == ([0, 1, 2], [])


def test_nothing_that_can_be_read_is_an_error_with_the_reason(tmp_path):
    depth = image_data(encoding='16UC1')
    path = mcap_file(tmp_path / 'depth.mcap', [depth] * 3)
    told = []
    with pytest.raises(PoseNetError, match=r'no image of .* could be read, of 3 on /image'):
        bag.add_poses(path, tmp_path / 'out', nobody, problem=told.append)
    assert "unknown encoding '16UC1'" in told[0]
    assert "3 images on /image cannot be used, as: unknown encoding '16UC1'" in told[1]
    path = mcap_file(tmp_path / 'none.mcap', [])
    with pytest.raises(ImageError, match=r'has no image on /image'):
        add(path, tmp_path)
    assert not (tmp_path / 'out').exists()


def test_fewer_messages_than_the_metadata_claim_are_told(recorded, tmp_path):
    metadata = recorded / 'metadata.yaml'
    text = metadata.read_text()
    metadata.write_text(re.sub(r'message_count: 3', 'message_count: 30', text))
    _, told = add(recorded, tmp_path)
    assert any('5 images can be read of the 32 that its metadata claim' in text for text in told)


def test_interrupted_run_keeps_what_is_finished(recorded, tmp_path):
    calls = []

    def interrupt(image, topic, seconds):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return []

    with pytest.raises(KeyboardInterrupt):
        bag.add_poses(recorded, tmp_path / 'out', interrupt)
    assert not (tmp_path / 'out').exists()
    assert len(read(tmp_path / 'out.partial/out')) == 2
    # The next run begins anew.
    assert bag.add_poses(recorded, tmp_path / 'out', nobody)['images'] == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ['out', 'recorded']


def test_a_bad_file_of_a_split_bag_does_not_end_the_others(tmp_path):
    folder = tmp_path / 'recorded'
    folder.mkdir()
    mcap_file(folder / 'recorded_0.mcap', [image_data(i) for i in range(3)])
    (folder / 'recorded_1.mcap').write_bytes(b'')
    (folder / 'recorded_2.mcap').write_bytes(bytes(4096))
    mcap_file(folder / 'recorded_3.mcap', [image_data(9)])
    seen, told = add(folder, tmp_path)
    assert seen == [0, 1, 2, 9]
    assert [text for text in told if 'recorded_1.mcap is left out: ' in text]
    assert [text for text in told if 'recorded_2.mcap is left out: ' in text]


def test_messages_that_are_only_in_the_write_ahead_log_are_read(tmp_path):
    """As an interrupted recording leaves them; nothing of it is changed."""
    path = sqlite_file(tmp_path / 'a.db3', [image_data(i) for i in range(3)])
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute('PRAGMA journal_mode=WAL')
        database.execute('PRAGMA wal_autocheckpoint=0')
        with database:
            database.execute(
                'INSERT INTO messages(topic_id, timestamp, data) VALUES(2, 99, ?)', [image_data(7)]
            )
        folder = tmp_path / 'copy'
        folder.mkdir()
        for file in tmp_path.glob('a.db3*'):
            shutil.copy(file, folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert add(folder / 'a.db3', tmp_path)[0] == [0, 1, 2, 7]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_rows_without_data_are_broken_images(tmp_path):
    path = sqlite_file(tmp_path / 'a.db3', [image_data(1), None, 'text', image_data(2)])
    seen, told = add(path, tmp_path)
    assert seen == [1, 2] and 'its 0 bytes are no sensor_msgs' in told[0]


def test_depth_beside_pictures_is_left_out_and_no_problem(tmp_path):
    rows = [image_data(1), image_data(2)]
    path = sqlite_file(tmp_path / 'a.db3', rows)
    depth = image_data(encoding='16UC1')
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute('INSERT INTO topics VALUES(4, "/depth", ?, "cdr", "")', [bag.IMAGE_TYPE])
        database.execute('INSERT INTO messages VALUES(99, 4, 5, ?)', [depth])
    noted = []
    assert add(path, tmp_path, note=noted.append) == ([1, 2], [])
    assert noted == ["/depth is left out: '16UC1' holds depth or other values, not a picture"]
    assert len(list(sampled_images(path, 9))) == 2


def test_what_is_in_the_way_is_not_deleted(recorded, tmp_path):
    thesis = tmp_path / 'out.partial/thesis.txt'
    thesis.parent.mkdir()
    thesis.write_text('thesis')
    with pytest.raises(PoseNetError, match=r'out\.partial is in the way'):
        add(recorded, tmp_path)
    assert thesis.read_text() == 'thesis'
    (tmp_path / 'link').symlink_to('nowhere')
    with pytest.raises(PoseNetError, match='link exists already'):
        bag.add_poses(recorded, tmp_path / 'link', nobody)


def test_two_runs_do_not_write_one_bag(recorded, tmp_path):
    def again(image, topic, seconds):
        with pytest.raises(PoseNetError, match='another run is writing'):
            bag.add_poses(recorded, tmp_path / 'out', nobody)
        return []

    assert bag.add_poses(recorded, tmp_path / 'out', again)['images'] == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ['out', 'recorded']


def test_bag_that_ends_before_its_first_image_says_that_it_is_cut(tmp_path):
    whole = mcap_file(tmp_path / 'a.mcap', [image_data(i) for i in range(9)]).read_bytes()
    (tmp_path / 'cut.mcap').write_bytes(whole[:60])
    with pytest.raises(PoseNetError, match=r'has no images .*cut\.mcap is cut .*mcap recover'):
        bag.check_bag(tmp_path / 'cut.mcap')


def test_message_that_becomes_gigabytes_is_not_decompressed(tmp_path, monkeypatch):
    monkeypatch.setattr(bag_file, 'MAX_MESSAGE_BYTES', 1 << 20)
    bomb = zstandard.ZstdCompressor().compress(bytes(100 << 20))
    path = sqlite_file(tmp_path / 'a.db3', [image_data(1), bomb, image_data(2)])
    good, problems = add(path, tmp_path)
    assert good == [1, 2] and len(problems) == 1


def test_table_that_computes_for_ever_is_not_read(tmp_path):
    path = sqlite_file(tmp_path / 'a.db3', [image_data(1)])
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute('DROP TABLE messages')
        database.execute(
            'CREATE VIEW messages AS '
            'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) '
            "SELECT i AS id, 1 AS topic_id, i AS timestamp, x'00' AS data FROM n"
        )
    with pytest.raises(PoseNetError, match='has no tables topics and messages'):
        add(path, tmp_path)


def test_chunk_that_becomes_gigabytes_is_refused(tmp_path, monkeypatch):
    path = mcap_file(tmp_path / 'a.mcap', [image_data(i) for i in range(3)])
    assert add(path, tmp_path) == ([0, 1, 2], [])
    monkeypatch.setattr(bag_file, 'MAX_CHUNK_BYTES', 100)
    with pytest.raises(PoseNetError, match=r'a\.mcap has a chunk of \d+ bytes'):
        add(path, tmp_path)


def test_compressed_file_that_fills_the_disk_is_refused(tmp_path, monkeypatch):
    path = sqlite_file(tmp_path / 'a.db3', [image_data(1)])
    packed = tmp_path / 'a.db3.zstd'
    packed.write_bytes(zstandard.ZstdCompressor().compress(path.read_bytes()))
    monkeypatch.setattr(bag_file, 'SHARE_OF_DISK', 1e-12)
    with pytest.raises(PoseNetError, match='more than the free space'):
        add(packed, tmp_path)


def test_topic_whose_name_is_no_text_is_left_out(tmp_path):
    path = sqlite_file(tmp_path / 'a.db3', [image_data(1)])
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "INSERT INTO topics VALUES(9, zeroblob(5), 'sensor_msgs/msg/Image', 'cdr', '')"
        )
    assert add(path, tmp_path) == ([1], [])
