import re

import pytest
import yaml
from goldens import ROOT

from posenet_ros import ConfigError, DecoderConfig, ModelConfig
from posenet_ros.ros.parameters import (
    PARAMETERS,
    SPECS,
    checked_values,
    decoder_config,
    model_config,
)

DEFAULTS = {spec.name: spec.default for spec in PARAMETERS}


def test_defaults_are_allowed_and_are_the_librarys_but_for_a_few():
    assert checked_values(DEFAULTS) == DEFAULTS
    assert model_config(DEFAULTS) == ModelConfig(input_resolution=385, input_aspect='image')
    assert decoder_config(DEFAULTS) == DecoderConfig(decoder='refined', max_detections=20)


PRESETS = sorted(path for path in (ROOT / 'config').glob('*.yaml') if path.stem != 'posenet')


@pytest.mark.parametrize('path', PRESETS, ids=lambda path: path.stem)
def test_presets_are_allowed_and_say_what_they_find_and_cost(path):
    text = path.read_text()
    values = checked_values(yaml.safe_load(text)['/**']['ros__parameters'])
    assert any(value != DEFAULTS[name] for name, value in values.items())
    described = text[: text.index('/**:')]
    assert re.search(r'Finds \d+%', described) and '(AP 0.' in described
    assert re.search(r'\d+ ms', described)
    model_config({**DEFAULTS, **values})
    decoder_config({**DEFAULTS, **values})


def test_the_preset_of_the_reference_is_the_librarys_default():
    values = yaml.safe_load((ROOT / 'config/reference.yaml').read_text())['/**']['ros__parameters']
    assert model_config({**DEFAULTS, **values}) == ModelConfig()
    assert decoder_config({**DEFAULTS, **values}) == DecoderConfig()


def test_every_parameter_is_described():
    for spec in PARAMETERS:
        assert spec.help.endswith('.'), spec.name
        assert len(spec.help) > 20, spec.name


def test_default_multiplier_suits_resnet():
    config = model_config({**DEFAULTS, 'architecture': 'ResNet50'})
    assert config.multiplier == 1.0


@pytest.mark.parametrize(
    ('name', 'value', 'becomes'),
    [
        ('nms_radius', 20, 20.0),
        ('input_resolution', 353, 353),
        ('input_resolution', [640, 480], (640, 480)),
        ('cameras', ['front', 'rear'], ['front', 'rear']),
        ('flip_horizontal', True, True),
    ],
)
def test_good_values_come_back_in_the_parameters_type(name, value, becomes):
    result = SPECS[name].checked(value)
    assert (result, type(result)) == (becomes, type(becomes))


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('nms_radius', '20'),
        ('nms_radius', True),
        ('nms_radius', 0.0),
        ('score_threshold', 1.5),
        ('max_detections', 2.5),
        ('max_detections', 0),
        ('max_detections', True),
        ('input_resolution', [1, 2, 3]),
        ('input_resolution', 257.5),
        ('input_resolution', 'large'),
        ('input_resolution', [257, 0]),
        ('flip_horizontal', 1),
        ('cameras', 'front'),
        ('cameras', [1]),
        ('backend', 'gpu'),
        ('image_transport', 'theora'),
        ('num_threads', -1),
    ],
)
def test_wrong_values_are_refused_by_name_and_with_what_is_allowed(name, value):
    with pytest.raises(ConfigError, match=rf'Invalid {name} .*Should be'):
        SPECS[name].checked(value)
