"""The self-test: what it feeds the network."""

import numpy as np
import pytest
from tfjs_models import mobilenet_like, resnet_like

from posenet_ros import ModelConfig, PoseNet
from posenet_ros.backends.onnxruntime import OnnxRuntimeBackend
from posenet_ros.evaluation.selftest import _measure
from posenet_ros.model.calibration import generated_images
from posenet_ros.model.onnx_export import export_onnx
from posenet_ros.model.tfjs_graph import load_graph


@pytest.mark.parametrize(
    ('architecture', 'graph', 'lowest', 'highest'),
    [
        ('MobileNetV1', mobilenet_like(), (-1.0, -0.5), (0.5, 1.0)),
        ('ResNet50', resnet_like(), (-123.2, -60.0), (60.0, 152.0)),
    ],
)
def test_images_are_normalised_as_the_architecture_needs(
    tmp_path, architecture, graph, lowest, highest
):
    """With another normalisation an error of fp16 of 0.11 would read as 0.008."""
    path = graph.write(tmp_path / 'model.json')
    model = export_onnx(load_graph(path), 33, 33, 4).SerializeToString()
    inputs = []

    class Recording(OnnxRuntimeBackend):
        def run(self, images):
            inputs.append(images.copy())
            return super().run(images)

    config = ModelConfig(architecture, input_resolution=33)
    net, reference = (PoseNet(config, Recording(model), '') for _ in range(2))
    run = {'precision': 'fp32'}
    net.estimate = lambda images, config: []  # its decoder would need stride 16
    _measure(run, net, reference, np.stack(list(generated_images(4, 33, 33))), None, 1)
    assert max(run['max_error'].values()) == 0
    fed = np.concatenate(inputs[:8])
    assert lowest[0] <= fed.min() <= lowest[1] and highest[0] <= fed.max() <= highest[1]
