"""The reference's options, defaults, checks and messages; validation.json is what it said."""

import dataclasses
import math

import numpy as np
import pytest

from posenet_ros import ConfigError, DecoderConfig, ModelConfig
from posenet_ros.config import (
    MAX_IMAGE_PIXELS,
    MAX_INPUT_PIXELS,
    NOT_GIVEN,
    OUTPUT_STRIDES,
    RuntimeConfig,
    check_input_size,
    check_max_batch,
    default_of,
    largest_batch,
)
from posenet_ros.input_size import valid_input_size

SNAKE_CASE = {
    'architecture': 'architecture',
    'outputStride': 'output_stride',
    'multiplier': 'multiplier',
    'inputResolution': 'input_resolution',
    'quantBytes': 'quant_bytes',
    'maxDetections': 'max_detections',
    'scoreThreshold': 'score_threshold',
    'nmsRadius': 'nms_radius',
}


def model_options(config):
    """Our arguments for a config object of the reference; None for options that it lacks."""
    options = dict.fromkeys(('architecture', 'output_stride', 'multiplier'))
    for name, value in config.items():
        if isinstance(value, dict):
            value = (value.get('width'), value.get('height'))
        options[SNAKE_CASE[name]] = value
    return options


@pytest.mark.parity
def test_model_configs_are_accepted_and_resolved_as_the_reference_does(validation):
    for case in validation['load']:
        if not case['ok']:
            continue
        config = ModelConfig(**model_options(case['config']))
        assert list(config.valid_resolution) == case['inputResolution'], case
        resolved = case['resolvedConfig']
        assert (config.architecture, config.output_stride) == (
            resolved['architecture'],
            resolved['outputStride'],
        )
        assert (config.multiplier, config.quant_bytes) == (
            resolved['multiplier'],
            resolved['quantBytes'],
        )


@pytest.mark.parity
def test_model_configs_are_refused_in_the_references_words(validation):
    refused = [case for case in validation['load'] if not case['ok']]
    assert refused
    for case in refused:
        with pytest.raises(ConfigError) as caught:
            ModelConfig(**model_options(case['config']))
        assert case['error'] in str(caught.value)


@pytest.mark.parity
def test_decoder_configs_are_refused_in_the_references_words(validation):
    for case in validation['infer']:
        options = {SNAKE_CASE[name]: value for name, value in case['config'].items()}
        if case['ok']:
            DecoderConfig(**options)
        else:
            with pytest.raises(ConfigError) as caught:
                DecoderConfig(**options)
            assert case['error'].rstrip('.') in str(caught.value)


@pytest.mark.parity
def test_resolutions_are_rounded_as_the_reference_rounds(validation):
    for size, stride, expected in validation['resolution']:
        assert valid_input_size(size, stride) == expected, (size, stride)


def test_no_arguments_mean_the_references_default_model():
    config = ModelConfig()
    assert dataclasses.asdict(config) == {
        'architecture': 'MobileNetV1',
        'output_stride': 16,
        'multiplier': 0.75,
        'input_resolution': 257,
        'input_aspect': 'model',
        'attention': 'off',
        'closeup_resolution': 193,
        'max_closeups': 4,
        'whole_image_period': 0.5,
        'quant_bytes': 4,
        'model_url': None,
        'model_sha256': None,
        'tfjs_dilations': False,
    }
    assert config == ModelConfig(multiplier=0.75)


def test_resnet_needs_no_multiplier_but_refuses_a_wrong_one():
    assert ModelConfig('ResNet50').multiplier == 1.0
    resnet = dataclasses.replace(ModelConfig(), architecture='ResNet50', multiplier=None)
    assert resnet.multiplier == 1.0
    with pytest.raises(ConfigError, match=r'Invalid multiplier 0.75. Should be one of 1 '):
        ModelConfig('ResNet50', multiplier=0.75)


def test_stride_32_takes_the_one_multiplier_it_has():
    assert ModelConfig(output_stride=32).multiplier == 1.0
    with pytest.raises(ConfigError, match='you must select 1'):
        ModelConfig(output_stride=32, multiplier=0.75)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'input_aspect': 'camera'}, 'Invalid input_aspect camera. Should be one of model,image'),
        ({'attention': True}, 'Invalid attention True. Should be one of off,closeups'),
        ({'closeup_resolution': 193.0}, r'Invalid closeup_resolution 193.0. .* from 33 to 1025'),
        ({'max_closeups': 0}, 'Invalid max_closeups 0. Should be an integer from 1 to 64'),
        (
            {'whole_image_period': -1.0},
            'Invalid whole_image_period -1.0. Should be a number from 0',
        ),
        (
            {'closeup_resolution': 96, 'attention': 'people'},
            'Invalid closeup_resolution 96. Should be 97 or more with attention people',
        ),
    ],
)
def test_our_own_options_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**options)


def test_inputs_have_one_size_unless_they_follow_the_image_or_look_closer():
    assert ModelConfig().input_sizes.fixed
    assert ModelConfig().input_size(1080, 1920) == (257, 257)
    following = ModelConfig(input_aspect='image')
    assert following.input_size(480, 640) == following.input_sizes.typical == (225, 289)
    assert following.input_sizes == ((161, 161), (225, 289), (417, 417))
    closer = ModelConfig(attention='closeups')
    assert closer.closeup_sizes == ((273, 129), (193, 193), (129, 273))
    assert closer.input_sizes == ((129, 129), (257, 257), (273, 273))
    for shape in ((480, 640), (640, 480), (1000, 9), (9, 1000), (1, 1)):
        low, _, high = following.input_sizes
        size = following.input_size(*shape)
        assert low[0] <= size[0] <= high[0] and low[1] <= size[1] <= high[1]


def test_multiplier_1_01_is_refused_with_its_history():
    with pytest.raises(ConfigError, match=r'README still names 1\.01'):
        ModelConfig(multiplier=1.01)
    with pytest.raises(ConfigError, match=r'\(multiplier=2\)$'):
        ModelConfig(multiplier=2)


def test_numbers_may_be_numpys():
    config = ModelConfig(
        output_stride=np.int64(16), multiplier=np.float64(0.5), input_resolution=np.int32(353)
    )
    assert config.valid_resolution == (353, 353)
    assert [type(config.output_stride), type(config.multiplier)] == [int, float]
    assert type(ModelConfig(quant_bytes=np.int64(2)).quant_bytes) is int


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'output_stride': '16'}, 'Invalid outputStride 16'),
        ({'output_stride': True}, 'Invalid outputStride True'),
        ({'input_resolution': math.nan}, 'inputResolution'),
        ({'input_resolution': math.inf}, 'inputResolution'),
        ({'input_resolution': (257,)}, 'inputResolution'),
        ({'input_resolution': (257, math.inf)}, 'inputResolution.height'),
        ({'model_url': 7}, 'model_url 7'),
        ({'tfjs_dilations': 'yes'}, 'tfjs_dilations'),
    ],
)
def test_values_that_javascript_would_let_pass_are_refused_by_name(options, named):
    with pytest.raises(ConfigError, match=named):
        ModelConfig(**options)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        ({'max_detections': math.nan}, 'maxDetections'),
        ({'max_detections': '5'}, 'maxDetections 5'),
        ({'score_threshold': math.nan}, 'scoreThreshold'),
        ({'nms_radius': math.nan}, 'nmsRadius'),
        ({'flip_horizontal': 1}, 'flipHorizontal 1'),
        ({'decoding_method': 'many'}, 'decoding_method many'),
        ({'decoder': 'best'}, 'decoder best. Should be one of reference,refined'),
    ],
)
def test_decoder_values_of_the_wrong_kind_are_refused_by_name(options, named):
    with pytest.raises(ConfigError, match=named):
        DecoderConfig(**options)


def test_none_is_the_default_as_in_the_reference():
    assert DecoderConfig(None, None, None, None) == DecoderConfig()
    assert dataclasses.asdict(DecoderConfig()) == {
        'flip_horizontal': False,
        'max_detections': 5,
        'score_threshold': 0.5,
        'nms_radius': 20,
        'decoding_method': 'multi-person',
        'decoder': 'reference',
    }
    missing = ModelConfig(None, None, None, None, quant_bytes=None)
    assert missing == ModelConfig('MobileNetV1', 16, 1.0, 257, quant_bytes=4)


@pytest.mark.parametrize('config', [ModelConfig(), DecoderConfig(), RuntimeConfig()])
def test_configs_cannot_be_changed(config):
    name = dataclasses.fields(config)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, getattr(config, name))


@pytest.mark.parametrize(
    ('option', 'least', 'most'),
    [
        ('max_detections', 5e-324, math.inf),
        ('score_threshold', 0, 1),
        ('nms_radius', 5e-324, math.inf),
    ],
)
def test_decoder_takes_numbers_up_to_their_limits(option, least, most):
    for value in (least, most):
        assert getattr(DecoderConfig(**{option: value}), option) == value
    for value in (math.nextafter(least, -1), math.nan if most == math.inf else 1.0000001, True):
        with pytest.raises(ConfigError, match=f'{option}={value!r}'):
            DecoderConfig(**{option: value})


@pytest.mark.parametrize(
    ('option', 'least', 'most'),
    [('num_threads', 0, 256), ('workspace_mib', 0, 65536), ('dla_core', -1, 15)],
)
def test_integers_of_the_runtime_have_their_range(option, least, most):
    for value in (least, most, np.int64(most)):
        assert getattr(RuntimeConfig(**{option: value}), option) == value
    for value in (least - 1, most + 1, float(most), True, str(most), None):
        with pytest.raises(ConfigError) as caught:
            RuntimeConfig(**{option: value})
        assert str(caught.value) == (
            f'Invalid {option} {value!r}. Should be an integer from {least} to {most}'
        )


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'backend': 'cuda'},
            'Invalid backend cuda. Should be one of auto,onnxruntime,onnxruntime-cuda,tensorrt',
        ),
        ({'precision': 'fp8'}, 'Invalid precision fp8. Should be one of fp32,fp16,int8'),
        ({'precision': 16}, 'Invalid precision 16. Should be a string'),
        ({'calibration': ['a']}, r"Invalid calibration \['a'\]. Should be a string"),
        ({'allow_spinning': 1}, 'Invalid allow_spinning 1. Should be a bool'),
        ({'cuda_library': 'cupy'}, 'Should be one of pycuda,cuda-python'),
    ],
)
def test_options_of_the_runtime_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        RuntimeConfig(**options)


def test_empty_options_of_the_runtime_are_none():
    assert RuntimeConfig(precision='', calibration='', cuda_library='') == RuntimeConfig()
    assert dataclasses.asdict(RuntimeConfig()) == {
        'backend': 'auto',
        'precision': None,
        'calibration': None,
        'num_threads': 0,
        'allow_spinning': False,
        'cuda_library': None,
        'workspace_mib': 0,
        'dla_core': -1,
    }


def test_precision_follows_the_bytes_of_the_weights_unless_one_is_asked_for():
    assert [RuntimeConfig().precision_for(n) for n in (4, 2, 1)] == ['fp32', 'fp16', 'int8']
    assert RuntimeConfig(precision='fp16').precision_for(4) == 'fp16'


def test_a_dla_takes_one_image_at_a_time_and_closeups_make_the_batch_larger():
    gpu, dla = RuntimeConfig(), RuntimeConfig(dla_core=0)
    assert (gpu.largest_batch(8), dla.largest_batch(8)) == (8, 1)
    closer = ModelConfig(attention='closeups', max_closeups=6)
    assert largest_batch(ModelConfig(max_closeups=6), gpu, 2) == 2
    assert [largest_batch(closer, gpu, images) for images in (2, 8)] == [6, 8]
    assert largest_batch(closer, dla, 2) == 2


def test_largest_batch_is_64():
    check_max_batch(1)
    check_max_batch(64)
    for batch in (0, 65):
        with pytest.raises(ConfigError, match=f'Invalid max_batch {batch}. Should be 1 to 64'):
            check_max_batch(batch)


@pytest.mark.parametrize('resolution', [1, 4097, (1, 4097**2)])
def test_input_of_one_to_4097_x_4097_pixels_is_run(resolution):
    check_input_size(ModelConfig(input_resolution=resolution))


@pytest.mark.parametrize(
    ('resolution', 'message'),
    [
        (-15, r'Resolution -15. It makes a network input of -15 x -15 pixels, .* at least 1 x 1'),
        ((0, -1), r'input of 1 x -15 pixels'),
        ((-1, 0), r'input of -15 x 1 pixels'),
        ((4113, 4097), r'A network input of 4113 x 4097 pixels is more than can be run'),
    ],
)
def test_empty_and_too_large_inputs_are_refused_with_their_size(resolution, message):
    with pytest.raises(ConfigError, match=message):
        check_input_size(ModelConfig(input_resolution=resolution))


def test_limits_are_those_of_the_documents():
    assert MAX_INPUT_PIXELS == 4097**2 and MAX_IMAGE_PIXELS == 7680 * 4320


def test_width_comes_first_and_height_is_first_in_arrays():
    config = ModelConfig(input_resolution=[641.0, 481])
    assert config.input_resolution == (641.0, 481)
    assert config.valid_resolution == (481, 641)


def test_weights_may_be_pinned_in_either_case():
    pinned = ModelConfig(model_sha256=32 * 'aB', model_url='')
    assert (pinned.model_sha256, pinned.model_url) == (32 * 'ab', None)
    assert ModelConfig(model_sha256='').model_sha256 is None
    for wrong in (63 * 'a', 65 * 'a', 64 * 'g', 7):
        with pytest.raises(ConfigError, match=f'Invalid model_sha256 {wrong!r}. Should be 64'):
            ModelConfig(model_sha256=wrong)


def test_stride_is_chosen_among_those_of_all_architectures():
    option = next(f for f in dataclasses.fields(ModelConfig) if f.name == 'output_stride')
    strides = {stride for allowed in OUTPUT_STRIDES.values() for stride in allowed}
    assert set(option.metadata['choices']) == strides == {8, 16, 32}


def test_help_shows_the_default_that_most_models_have():
    defaults = {option.name: default_of(option) for option in dataclasses.fields(ModelConfig)}
    assert (defaults['multiplier'], defaults['output_stride']) == (0.75, 16)
    assert repr(NOT_GIVEN) == 'not given'
