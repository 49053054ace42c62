"""Small bags of a person who moves: good ones, and as they are found."""

import shutil
import sqlite3
from pathlib import Path

import cv2
import numpy as np

START = 1_700_000_000_000_000_000
STEP = 33_000_000
TOPIC = '/camera/image_raw'


def make_bag(path, frames, photo, *, seed=0, storage='mcap', jpeg=True, topic=TOPIC):
    """A rosbag2 folder with images of 320 x 240 of somebody who moves sideways."""
    from rosbags.rosbag2 import Writer

    from posenet_ros.io import bag, bag_writer

    store = bag_writer.typestore()
    types = store.types
    rng = np.random.default_rng(seed)
    person = cv2.resize(photo, (240, 240))
    kind = bag.COMPRESSED_TYPE if jpeg else bag_writer.IMAGE_TYPE
    path.parent.mkdir(parents=True, exist_ok=True)
    left = int(rng.integers(0, 80))
    plugin = bag_writer.STORAGE_FORMATS[storage]
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        name = f'{topic}/compressed' if jpeg else topic
        connection = writer.add_connection(name, kind, typestore=store)
        for i in range(frames):
            left = int(np.clip(left + rng.integers(-4, 5), 0, 80))
            image = np.full((240, 320, 3), 90, np.uint8)
            image[:, left : left + 240] = person
            time = START + seed * 10**12 + i * STEP
            stamp = types['builtin_interfaces/msg/Time'](sec=time // 10**9, nanosec=time % 10**9)
            header = types['std_msgs/msg/Header'](stamp=stamp, frame_id='camera')
            if jpeg:
                data = cv2.imencode('.jpg', image[..., ::-1])[1].reshape(-1)
                message = types[kind](header=header, format='jpeg', data=data)
            else:
                message = types[kind](
                    header=header, height=240, width=320, encoding='rgb8', is_bigendian=0,
                    step=960, data=image.reshape(-1),
                )  # fmt: skip
            writer.write(connection, time, store.serialize_cdr(message, kind))
    return path


def many_bags(folder, number, photo, frames=5):
    """Bags in folders of days; every 25 of them has one of each kind that is found damaged.

    Returns:
        How many cannot be read at all, and how many only in part.
    """
    failed = incomplete = 0
    for i in range(number):
        path = folder / f'day_{i % 7}' / f'run_{i:03d}'
        storage = 'sqlite3' if i % 3 == 1 else 'mcap'
        kind = i % 25
        long = kind == 3  # enough for several chunks
        make_bag(
            path, 15 if long else frames, photo, seed=i, jpeg=i % 4 != 0 and not long,
            storage='mcap' if long else storage,
        )  # fmt: skip
        if kind == 3:
            cut(path)
            incomplete += 1
        elif kind == 7:
            break_index(path)
            incomplete += 1
        elif kind == 11:
            shutil.rmtree(path)
            make_bag(path, 0, photo, seed=i)
            failed += 1
        elif kind == 15:
            shutil.rmtree(path)
            json_bag(path.with_suffix('.mcap'))
            failed += 1
        elif kind == 19:
            file = next(path.glob('run*'))
            file.write_bytes(b'')
            failed += 1
    return failed, incomplete


def cut(path):
    """As after a power cut: the second half of the file is missing."""
    file = next(path.glob('run*'))
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])


def break_index(path):
    """The index of a database, or of an MCAP, is not what it was."""
    file = next(path.glob('run*'))
    if file.suffix == '.db3':
        with sqlite3.connect(file) as database:
            (page,) = database.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = 'timestamp_idx'"
            ).fetchone()
            (size,) = database.execute('PRAGMA page_size').fetchone()
        database.close()
        content = bytearray(file.read_bytes())
        content[(page - 1) * size : page * size] = b'\x55' * size
    else:
        content = bytearray(file.read_bytes())
        content[-300:-40] = b'\x55' * 260
    file.write_bytes(bytes(content))


def json_bag(path):
    """An MCAP of another encoding."""
    from mcap.writer import Writer

    with path.open('wb') as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema('sensor_msgs/msg/Image', 'jsonschema', b'{}')
        channel = writer.register_channel(TOPIC, 'json', schema)
        writer.add_message(channel, START, b'{}', START)
        writer.finish()


def files_of(folder):
    """Every file of a folder and its content."""
    folder = Path(folder)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }
