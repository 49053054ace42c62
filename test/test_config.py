"""The reference's options, defaults, checks and messages; validation.json is what it said."""

import dataclasses
import math

import numpy as np
import pytest

from posenet_ros import ConfigError, DecoderConfig, ModelConfig
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


def test_numbers_may_be_numpys():
    config = ModelConfig(
        output_stride=np.int64(16), multiplier=np.float64(0.5), input_resolution=np.int32(353)
    )
    assert config.valid_resolution == (353, 353)
    assert type(config.output_stride) is int


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
    ],
)
def test_decoder_values_of_the_wrong_kind_are_refused_by_name(options, named):
    with pytest.raises(ConfigError, match=named):
        DecoderConfig(**options)


def test_none_is_the_default_as_in_the_reference():
    assert DecoderConfig(None, None, None, None) == DecoderConfig()


def test_configs_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().output_stride = 8  # type: ignore[misc]
