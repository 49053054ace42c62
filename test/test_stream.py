"""Frames of a camera or a video become poses with ids: on people whose joints are known."""

import math

import numpy as np
import pytest
from generated_video import FPS, Scene, Walker, agreement, random_scene, render
from goldens import SHARED
from tfjs_models import mobilenet_like

from posenet_ros import (
    BackendError,
    DecoderConfig,
    ImageError,
    ModelConfig,
    PoseNet,
    PoseStream,
    TrackerConfig,
)
from posenet_ros.core.heads import Heads

NODE_DECODER = DecoderConfig(decoder='refined', max_detections=20)

needs_shared = pytest.mark.skipif(
    not (SHARED / 'labelled').is_dir(), reason='labelled photos (../shared) are not here'
)


@pytest.fixture(scope='module')
def nets():
    """Models with the same input: one that follows people, and one that does not."""
    size = {'input_resolution': 385, 'input_aspect': 'image'}
    loaded = {
        attention: PoseNet.load(ModelConfig(**size, attention=attention))
        for attention in ('off', 'people')
    }
    yield loaded
    for net in loaded.values():
        net.close()


def spent(net, stream, image):
    """Pixels of the network's input for the last frame of a stream."""
    whole = math.prod(net.config.input_size(*image.shape[:2])) if stream.whole else 0
    return whole + sum(closeup.pixels for closeup in stream.closeups)


def follow(net, frames, **options):
    """The poses of each frame, and the pixels that each took."""
    stream = PoseStream(net.config, TrackerConfig(), **options)
    poses, pixels = [], []
    for frame in frames:
        poses.append(net.estimate_stream(frame.image, frame.seconds, stream, NODE_DECODER))
        pixels.append(spent(net, stream, frame.image))
    return poses, pixels


def test_with_everything_off_poses_are_those_of_estimate(nets, astronaut):
    net = nets['off']
    images = [astronaut, astronaut[:, ::-1], astronaut[:300]]
    stream = PoseStream(net.config)
    for i, image in enumerate(images):
        for config in (NODE_DECODER, DecoderConfig(flip_horizontal=True)):
            expected = net.estimate([image], config)[0]
            got = net.estimate_stream(image, i / 30, stream, config)
            assert [pose.keypoints.tolist() for pose in got] == [
                pose.keypoints.tolist() for pose in expected
            ]
            assert [pose.score for pose in got] == [pose.score for pose in expected]
            assert all(pose.track_id == -1 for pose in got)


def test_tracking_changes_nothing_but_ids(nets, astronaut):
    net = nets['off']
    stream = PoseStream(net.config, TrackerConfig())
    expected = net.estimate([astronaut], NODE_DECODER)[0]
    for i in range(3):
        got = net.estimate_stream(astronaut, i / 30, stream, NODE_DECODER)
        assert [p.keypoints.tolist() for p in got] == [p.keypoints.tolist() for p in expected]
    assert got[0].track_id == 1
    assert len({pose.track_id for pose in got if pose.track_id >= 0}) == stream.counts[0]


@needs_shared
def test_people_are_seen_better_for_the_same_pixels(nets):
    people = Scene(
        tuple(Walker(3 * i, (90 + 150 * i, 300 + 40 * i), (25, 0), 110.0) for i in range(4)), 1.5
    )
    frames = list(render(people))
    found = {}
    for attention, net in nets.items():
        poses, pixels = follow(net, frames)
        found[attention] = (
            np.mean(
                [
                    max(
                        (agreement(pose, truth.joints, truth.labelled) for pose in seen),
                        default=0.0,
                    )
                    for frame, seen in zip(frames, poses, strict=True)
                    for truth in frame.people
                ]
            ),
            np.mean(pixels),
        )
    (plain, plain_pixels), (closely, pixels) = found['off'], found['people']
    assert closely > plain + 0.02
    assert pixels < 1.1 * plain_pixels


@needs_shared
def test_a_newcomer_is_found_within_the_period(nets):
    walkers = (
        Walker(0, (150, 400), (0, 0), 200.0),
        Walker(8, (450, 400), (0, 0), 200.0, times=((1.0, 9.0),)),
    )
    frames = list(render(Scene(walkers, 2.0)))
    poses, _ = follow(nets['people'], frames)
    first = next(
        frame.seconds
        for frame, seen in zip(frames, poses, strict=True)
        if len(frame.people) > 1
        and any(
            agreement(pose, frame.people[1].joints, frame.people[1].labelled) > 0.5 for pose in seen
        )
    )
    assert first <= 1.0 + nets['people'].config.whole_image_period + 1.5 / FPS


@needs_shared
def test_random_videos_give_no_id_twice_and_nobody_twice(nets, fuzz):
    """Frames that are missing, a shaking camera, people in front of people."""
    net = nets['people']
    for seed in range(fuzz.cases(4, 100)):
        scene = random_scene(fuzz.seed + seed, seconds=1.5)
        stream = PoseStream(net.config, TrackerConfig())
        alive: dict[int, float] = {}
        for frame in render(scene):
            poses = net.estimate_stream(frame.image, frame.seconds, stream, NODE_DECODER)
            ids = [pose.track_id for pose in poses if pose.track_id >= 0]
            assert len(ids) == len(set(ids))
            for track_id in ids:
                gap = frame.seconds - alive.get(track_id, frame.seconds)
                assert gap <= stream.tracker.config.max_age + 1e-9
                alive[track_id] = frame.seconds
            for i, pose in enumerate(poses):
                assert np.isfinite(pose.keypoints).all()
                for other in poses[:i]:
                    size = np.sqrt(max(np.ptp(other.keypoints, axis=0).prod(), 1.0))
                    apart = np.linalg.norm(pose.keypoints - other.keypoints, axis=1)
                    assert (apart > 0.1 * size).sum() >= 3
            budget = net.config.max_closeups * net.config.closeup_resolution**2
            whole = math.prod(net.config.input_size(*frame.image.shape[:2]))
            assert spent(net, stream, frame.image) <= budget + whole
        assert sorted(alive) == list(range(1, stream.tracker.births + 1))


def test_a_cut_to_another_scene_starts_anew(nets, astronaut):
    generator = np.random.default_rng(0)
    other = np.kron(generator.integers(0, 256, (8, 8, 3)), np.ones((64, 64, 1))).astype(np.uint8)
    for net in nets.values():
        stream = PoseStream(net.config, TrackerConfig())
        ids = []
        brighter = np.clip(astronaut * 1.4 + 20, 0, 255).astype(np.uint8)
        damaged = astronaut.copy()
        damaged[100:] = 128
        images = [astronaut] * 3 + [brighter, damaged, astronaut] + [other] * 2 + [astronaut] * 4
        for i, image in enumerate(images):
            poses = net.estimate_stream(image, i / 30, stream, NODE_DECODER)
            ids.append(max(poses, key=lambda pose: pose.score).track_id if poses else None)
        # Light that is switched on is no cut, and neither is one damaged image.
        assert ids[1:4] == [1, 1, 1]
        assert ids[4] in (None, -1)
        assert ids[5] == 1
        assert ids[-1] > 1
        assert ids[-4:] == [-1, -1, ids[-1], ids[-1]]


def test_an_image_of_another_size_starts_anew(nets, astronaut):
    for net in nets.values():
        stream = PoseStream(net.config, TrackerConfig())
        larger = np.repeat(np.repeat(astronaut, 2, axis=0), 2, axis=1)
        images = [astronaut] * 3 + [larger] * 3
        found = [
            net.estimate_stream(image, i / 30, stream, NODE_DECODER)
            for i, image in enumerate(images)
        ]
        assert [poses[0].track_id for poses in found] == [-1, 1, 1, -1, 2, 2]


def test_people_and_persons_are_as_many_as_asked_for(nets, astronaut):
    net = nets['people']
    three = np.concatenate([astronaut[::2, ::2]] * 3, axis=1)
    for most in (1, 2):
        stream = PoseStream(net.config, TrackerConfig())
        config = DecoderConfig(decoder='refined', max_detections=most)
        for i in range(8):
            assert len(net.estimate_stream(three, i / 10, stream, config)) <= most
    stream = PoseStream(net.config, TrackerConfig())
    single = DecoderConfig(decoding_method='single-person')
    for i, image in enumerate([astronaut] * 3 + [np.zeros_like(astronaut)] * 4):
        assert len(net.estimate_stream(image, i / 10, stream, single)) == 1


def test_streams_that_do_not_fit_are_refused(nets, astronaut):
    net = nets['off']
    stream = PoseStream(net.config)
    with pytest.raises(ValueError, match='given for two images'):
        net.estimate_streams([astronaut] * 2, [0.0, 0.0], [stream] * 2, NODE_DECODER)
    with pytest.raises(ValueError, match='another model'):
        net.estimate_stream(astronaut, 0.0, PoseStream(nets['people'].config), NODE_DECODER)


def test_several_streams_run_together_and_apart(nets, astronaut):
    net = nets['people']
    left, right = astronaut, np.ascontiguousarray(astronaut[:, ::-1])
    alone = [PoseStream(net.config, TrackerConfig()) for _ in range(2)]
    together = [PoseStream(net.config, TrackerConfig()) for _ in range(2)]
    for i in range(8):
        expected = [
            net.estimate_stream(image, i / 10, stream, NODE_DECODER)
            for image, stream in zip((left, right), alone, strict=True)
        ]
        got = net.estimate_streams([left, right], [i / 10] * 2, together, NODE_DECODER)
        for a, b in zip(got, expected, strict=True):
            assert [p.keypoints.tolist() for p in a] == [p.keypoints.tolist() for p in b]
            assert [p.track_id for p in a] == [p.track_id for p in b]


def test_mirrored_poses_are_those_of_the_mirrored_image(nets, astronaut):
    net = nets['people']
    plain, mirrored = PoseStream(net.config), PoseStream(net.config)
    flip = DecoderConfig(flip_horizontal=True)
    for i in range(4):
        poses = net.estimate_stream(astronaut, i / 30, plain, DecoderConfig())
        flipped = net.estimate_stream(astronaut, i / 30, mirrored, flip)
        for pose, other in zip(poses, flipped, strict=True):
            np.testing.assert_allclose(511 - pose.keypoints[:, 0], other.keypoints[:, 0])
            assert pose.track_id == other.track_id


def test_options_change_while_it_runs_and_ids_stay(nets, astronaut):
    net = nets['off']
    stream = PoseStream(net.config)
    image = [net.estimate_stream(astronaut, i / 30, stream, NODE_DECODER) for i in range(2)]
    assert image[-1][0].track_id == -1
    assert stream.counts is None
    stream.configure(TrackerConfig(min_hits=1), smoothing=True)
    assert net.estimate_stream(astronaut, 0.1, stream, NODE_DECODER)[0].track_id == 1
    stream.configure(TrackerConfig(max_age=5.0), smoothing=False)
    assert net.estimate_stream(astronaut, 0.2, stream, NODE_DECODER)[0].track_id == 1
    stream.reset()
    assert net.estimate_stream(astronaut, 0.3, stream, NODE_DECODER)[0].track_id == -1
    assert net.estimate_stream(astronaut, 0.4, stream, NODE_DECODER)[0].track_id == 3 - 1
    counts = stream.counts
    stream.configure(None, smoothing=False)
    stream.configure(TrackerConfig(), smoothing=False)
    assert stream.counts == (0, counts[1], counts[1])
    stream.configure(None, smoothing=False)
    assert net.estimate_stream(astronaut, 0.5, stream, NODE_DECODER)[0].track_id == -1


def test_a_frame_that_fails_leaves_the_stream_usable(tmp_path):
    url = str(mobilenet_like(output_stride=16).write(tmp_path / 'model-stride16.json'))
    config = ModelConfig(input_resolution=65, model_url=url, attention='people')
    image = np.zeros((100, 120, 3), np.uint8)
    with PoseNet.load(config) as net:
        stream = PoseStream(config, TrackerConfig())
        run = net.backend.run
        net.backend.run = lambda images: Heads(*(head * np.float32(np.nan) for head in run(images)))
        with pytest.raises(BackendError):
            net.estimate_stream(image, 0.0, stream, NODE_DECODER)
        net.backend.run = run
        with pytest.raises(ImageError):
            net.estimate_stream(image[..., 0], 0.0, stream, NODE_DECODER)
        with pytest.raises(ValueError, match='not finite'):
            net.estimate_stream(image, float('nan'), stream, NODE_DECODER)
        net.estimate_stream(image, 0.1, stream, NODE_DECODER)
        assert stream.whole
