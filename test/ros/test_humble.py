"""What we use of ROS is in Humble too, by the dated list that tools/make_humble_api.py writes."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from goldens import DATA, ROOT

HUMBLE = json.loads((DATA / 'humble_api.json').read_text())
MODULES, MESSAGES = HUMBLE['modules'], HUMBLE['messages']
SOURCES = sorted(
    [
        *(ROOT / 'posenet_ros/ros').glob('*.py'),
        *(ROOT / 'launch').glob('*.py'),
        *(ROOT / 'scripts').iterdir(),
    ]
)
# Whose methods are called on objects, in our code.
CLASSES = (
    'rclpy.lifecycle.LifecycleNode',
    'rclpy.node.Node',
    'rclpy.publisher.Publisher',
    'rclpy.executors.SingleThreadedExecutor',
    'rclpy.clock.Clock',
    'rclpy.parameter.Parameter',
    'rclpy.service.Service',
    'rclpy.timer.Timer',
    'rclpy.qos.QoSProfile',
    'rclpy.topic_endpoint_info.TopicEndpointInfo',
)


def in_humble(name: str) -> Any:
    """What Humble has under a full name: a class, parameters, or None for a value; or KeyError."""
    if name in MODULES:
        return {}
    module, _, last = name.rpartition('.')
    found = MODULES[module][last]
    return in_humble(found) if isinstance(found, str) else found


def of_class(name: str, member: str) -> Any:
    """A member of a class or of its bases; KeyError where Humble has none."""
    described = in_humble(name)
    if member in described:
        return described[member]
    if member in described.get('attributes', ()) or member in described.get('members', ()):
        return None
    for base in described['bases']:
        try:
            return of_class(base, member)
        except (KeyError, TypeError):
            continue
    raise KeyError(member)


def made_with(name: str) -> Any:
    """The parameters of a class's constructor; None if not listed, as for an enum."""
    try:
        return of_class(name, '__init__')
    except KeyError:
        return None


def takes(parameters: Any, keyword: str) -> bool:
    if not isinstance(parameters, list):
        return True
    return keyword in parameters or any(name.startswith('**') for name in parameters)


def in_try_for_humble(tree: ast.AST) -> set[ast.AST]:
    """Nodes in a `try` whose ImportError is caught: they have a fallback for Humble."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        and any(ast.unparse(h.type) == 'ImportError' for h in node.handlers if h.type)
        for statement in node.body
        for inner in ast.walk(statement)
    }


def lacking(tree: ast.AST) -> Iterator[str]:
    """What a source file uses that Humble does not have."""
    names: dict[str, str] = {}
    excused = in_try_for_humble(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node in excused or not node.module:
            continue
        for alias in node.names:
            full = f'{node.module}.{alias.name}'
            message = full.replace('.', '/')
            if node.module.startswith('posenet_ros'):
                continue
            if node.module.endswith(('.msg', '.srv')):
                names[alias.asname or alias.name] = message
                if message not in MESSAGES:
                    yield f'import {full}'
            elif node.module.split('.')[0] in ('rclpy', 'launch', 'launch_ros'):
                names[alias.asname or alias.name] = full
                try:
                    in_humble(full)
                except KeyError:
                    yield f'import {full}'
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from lacking_in_call(node, names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            message = MESSAGES.get(names.get(node.value.id, ''))
            if isinstance(message, list) and node.attr not in (*message, 'Request', 'Response'):
                yield f'{node.value.id}.{node.attr}'


def lacking_in_call(call: ast.Call, names: dict[str, str]) -> Iterator[str]:
    keywords = [keyword.arg for keyword in call.keywords if keyword.arg]
    if isinstance(call.func, ast.Name) and call.func.id in names:
        full = names[call.func.id]
        if full in MESSAGES:
            known = MESSAGES[full]
        else:
            described = in_humble(full)
            known = made_with(full) if isinstance(described, dict) else described
        for keyword in keywords:
            if not takes(known, keyword):
                yield f'{full}({keyword}=)'
    elif isinstance(call.func, ast.Attribute):
        yield from lacking_in_method(call.func.attr, keywords)


def lacking_in_method(method: str, keywords: list[str]) -> Iterator[str]:
    """Checks that a method of an rclpy class exists in Humble, with these keywords."""
    here = [name for name in CLASSES if method in dir(named(name))]
    if not here or method.startswith('__'):
        return
    found = []
    for name in here:
        try:
            found.append(of_class(name, method))
        except KeyError:
            continue
    if not found:
        yield f'.{method}()'
    for keyword in keywords:
        if found and not any(takes(parameters, keyword) for parameters in found):
            yield f'.{method}({keyword}=)'


def named(name: str) -> Any:
    module, _, last = name.rpartition('.')
    return getattr(importlib.import_module(module), last)


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: path.name)
def test_everything_used_is_in_humble(path: Path):
    assert list(lacking(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    ('code', 'what'),
    [
        ('from rclpy.event_handler import PublisherEventCallbacks', 'rclpy.event_handler'),
        ('from rclpy.node import Node\nNode("n", enable_logger_service=True)', 'enable_logger_'),
        ('node.add_pre_set_parameters_callback(f)', '.add_pre_set_parameters_callback()'),
        ('from sensor_msgs.msg import Image\nImage(pixels=1)', 'Image(pixels=)'),
        ('node.create_timer(1.0, f, autostart=False)', '.create_timer(autostart=)'),
        ('from visualization_msgs.msg import Marker\nMarker.ARROW_STRIP', 'Marker.ARROW_STRIP'),
    ],
)
def test_the_check_sees_what_humble_lacks(code, what):
    assert any(what in found for found in lacking(ast.parse(code)))


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {missing!r} or name in {missing!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Missing())
{code}
"""


def run_without(missing: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    program = WITHOUT.format(missing=missing, code=code)
    return subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)


OURS = ('numba', 'onnx', 'onnxruntime', 'msgspec', 'tqdm', 'cv2', 'numpy', 'requests')


def test_messages_need_none_of_our_dependencies():
    code = 'from posenet_ros.msg import PoseArray; print(PoseArray().poses)'
    result = run_without(OURS, code)
    assert result.stdout == '[]\n', result.stderr


def test_what_launch_files_import_needs_none_of_our_dependencies():
    names = [
        node.module
        for path in (ROOT / 'launch').glob('*.py')
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('posenet_ros')
    ]
    assert names
    code = ''.join(f'import {name}\n' for name in names) + 'print("all")'
    result = run_without((*OURS, 'rclpy'), code)
    assert result.stdout == 'all\n', result.stderr


def test_launch_descriptions_are_made_without_our_dependencies():
    pytest.importorskip('launch_ros', reason='launch_ros has no wheel: make test-launch')
    code = f"""
from importlib.util import module_from_spec, spec_from_file_location
for name in ('posenet', 'multi_camera', 'demo'):
    spec = spec_from_file_location(name, {str(ROOT)!r} + '/launch/' + name + '.launch.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    print(len(module.generate_launch_description().entities) > 3)
"""
    assert run_without(OURS, code).stdout == 'True\n' * 3


def test_camera_is_made_where_events_have_their_humble_name():
    """Humble has rclpy.qos_event, and no rclpy.event_handler."""
    code = """
import types, rclpy
humble = types.ModuleType('rclpy.qos_event')
humble.PublisherEventCallbacks = humble.SubscriptionEventCallbacks = type('Callbacks', (), {})
sys.modules['rclpy.qos_event'] = humble
del sys.modules['rclpy.event_handler']
import posenet_ros.ros.camera as camera
print(camera.PublisherEventCallbacks is humble.PublisherEventCallbacks)
"""
    program = 'import rclpy.lifecycle\n' + WITHOUT.format(
        missing=('rclpy.event_handler',), code=code
    )
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert result.stdout == 'True\n', result.stderr


def test_error_that_is_a_tuple_reads_as_one_sentence():
    from posenet_ros.ros.unused_arguments import in_one_sentence

    # As Humble's InvalidParameterValueException has it.
    error = ValueError(
        'Invalid parameter value (', 3, ') for parameter', 'nms_radius.', 'Reason: r'
    )
    assert '(' + "'" not in in_one_sentence(error)
    assert in_one_sentence(error).endswith('for parameter nms_radius. Reason: r')
    assert in_one_sentence(ValueError()) == 'ValueError'
