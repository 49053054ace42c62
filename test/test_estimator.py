"""The whole chain: a photo goes in, the reference's poses come out."""

import numpy as np
import pytest
from goldens import DATA, SHARED, check_poses, golden_config, golden_paths, load_golden
from tfjs_models import mobilenet_like

from posenet_ros import (
    BackendError,
    CheckpointError,
    ConfigError,
    DecoderConfig,
    ImageError,
    ModelConfig,
    PoseNet,
)
from posenet_ros.media import read_image

E2E = [pytest.param(path, id=path.stem) for path in golden_paths('e2e')]


@pytest.mark.parity
@pytest.mark.skipif(not E2E, reason='models and photos (../shared) are not on this machine')
@pytest.mark.parametrize('path', E2E)
def test_poses_of_real_photos_are_the_references(path):
    golden = load_golden(path)
    image = read_image(SHARED / 'images' / golden.expected['image'])
    with PoseNet.load(golden_config(golden), precision='fp32') as net:
        assert check_poses(net, image, golden.expected) < 0.01


@pytest.mark.parity
def test_poses_of_the_astronaut_are_the_references(net, astronaut):
    import json

    expected = json.loads((DATA / 'e23_astronaut.json').read_text())
    assert expected['multi'] and expected['single']
    assert check_poses(net, astronaut, expected) < 0.01


@pytest.mark.parity
def test_repaired_dilation_is_the_default(shared):
    """The stock file, repaired, gives what the reference gives with a corrected file."""
    golden = load_golden(shared / 'golden/e2e/e20_075_s8fix_257_couple.cpu.json')
    assert 'fixeddil' in golden.expected['modelFile']
    stock = str(shared / golden.expected['modelFile']).replace('-fixeddil', '')
    image = read_image(shared / 'images' / golden.expected['image'])
    config = ModelConfig(output_stride=8, multiplier=0.75, model_url=stock)
    with PoseNet.load(config) as net:
        assert check_poses(net, image, golden.expected) < 0.01


def test_default_arguments_are_the_references(net, astronaut):
    plain = [pose.to_dict() for pose in net.estimate_multiple_poses(astronaut)]
    spelt_out = net.estimate_multiple_poses(astronaut, False, 5, 0.5, 20)
    assert plain == [pose.to_dict() for pose in spelt_out]


def test_pose_is_what_the_documentation_says(net, astronaut):
    pose = net.estimate_single_pose(astronaut)
    assert isinstance(pose.score, float)
    assert (pose.keypoints.dtype, pose.keypoints.shape) == (np.float64, (17, 2))
    assert pose.keypoint_scores.shape == (17,)
    as_json = pose.to_dict()
    assert as_json['keypoints'][0]['part'] == 'nose'
    assert as_json['keypoints'][0]['position'] == {
        'x': pose.keypoints[0, 0],
        'y': pose.keypoints[0, 1],
    }


def test_batch_gives_each_image_its_own_poses(net, astronaut):
    images = [astronaut, astronaut[::2, ::2], np.zeros((100, 50, 3), np.uint8)]
    decoder = DecoderConfig()
    together = net.estimate(images, decoder)
    assert together[2] == []
    for image, poses in zip(images, together, strict=True):
        alone = net.estimate([image], decoder)[0]
        assert len(poses) == len(alone)
        for a, b in zip(poses, alone, strict=True):
            assert np.abs(a.keypoints - b.keypoints).max() < 0.01


def test_poses_of_one_image_do_not_change_with_the_next(net, astronaut):
    pose = net.estimate_single_pose(astronaut)
    before = pose.keypoints.copy()
    net.estimate_single_pose(np.zeros_like(astronaut))
    assert np.array_equal(pose.keypoints, before)


def test_image_is_not_written_to(net, astronaut):
    image = astronaut.copy()
    net.estimate_multiple_poses(image)
    assert np.array_equal(image, astronaut)
    assert image.flags.writeable


def test_wrong_image_and_wrong_options_are_refused(net, astronaut):
    with pytest.raises(ImageError, match='float64'):
        net.estimate_single_pose(astronaut / 255)
    with pytest.raises(ConfigError, match='scoreThreshold 2'):
        net.estimate_multiple_poses(astronaut, score_threshold=2)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'backend': 'cuda'}, 'backend cuda.*onnxruntime'),
        ({'precision': 'fp8'}, 'precision fp8.*fp32'),
        ({'num_threads': -1}, 'num_threads -1'),
    ],
)
def test_wrong_ways_to_run_are_refused_by_name(default_model_config, options, named):
    with pytest.raises(ConfigError, match=named):
        PoseNet.load(default_model_config, **options)


def test_input_without_pixels_is_refused():
    with pytest.raises(ConfigError, match='-15 x -15'):
        PoseNet.load(ModelConfig(input_resolution=-5))


def test_wrong_weights_are_refused():
    with pytest.raises(CheckpointError, match='/nowhere'):
        PoseNet.load(ModelConfig(model_url='/nowhere'))


def test_network_that_gives_no_numbers_is_reported(tmp_path):
    graph = mobilenet_like()
    graph.weights['net/offset_2/BiasAdd/bias'][:] = np.nan
    path = graph.write(tmp_path / 'model-stride16.json')
    # Stride 4 passes for 8 nowhere: the heads' sizes are checked. So run it as what it is.
    from posenet_ros.backends.onnxruntime import OnnxRuntimeBackend
    from posenet_ros.onnx_export import export_onnx
    from posenet_ros.tfjs_graph import load_graph

    model = export_onnx(load_graph(path), 257, 257, 4).SerializeToString()
    config = ModelConfig(input_resolution=257)
    net = PoseNet(config, OnnxRuntimeBackend(model), 'test')
    with pytest.raises(BackendError, match='not finite'):
        net.estimate_single_pose(np.zeros((10, 10, 3), np.uint8))


def test_closed_model_says_so(default_model_config):
    net = PoseNet.load(default_model_config)
    net.close()
    net.close()
    with pytest.raises(BackendError, match='closed'):
        net.estimate_single_pose(np.zeros((10, 10, 3), np.uint8))
