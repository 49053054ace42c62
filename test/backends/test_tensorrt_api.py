"""Every name of TensorRT that our code uses exists in each version, or is checked with hasattr.

The lists of names were read off the real bindings of five versions; what they do not cover must
exist in TensorRT for RTX. This reads the code; test_tensorrt.py runs it with each version's names.
"""

from __future__ import annotations

import ast
import inspect

import pytest
from conftest import NO_LISTS
from tensorrt_stand_in import API, VERSIONS, api

from posenet_ros.backends import engine, engine_builder, tensorrt_log

MODULES = (engine, engine_builder, tensorrt_log)

# What the code calls an object -> its class.
OBJECTS = {
    'builder': 'Builder',
    'config': 'IBuilderConfig',
    'network': 'INetworkDefinition',
    'parser': 'OnnxParser',
    'layer': 'ILayer',
    'engine': 'ICudaEngine',
    'self._engine': 'ICudaEngine',
    'context': 'IExecutionContext',
    'execution.context': 'IExecutionContext',
    'self._runtime': 'Runtime',
}
# Names of the module that the lists do not have; TensorRT for RTX does.
UNLISTED = {
    'ILogger', 'OnnxParser', 'Runtime', 'Builder', 'DeviceType', 'LayerType', 'TensorIOMode',
    'IBuilderConfig', 'IProgressMonitor', '__version__',
}  # fmt: skip

pytestmark = pytest.mark.skipif(not API.is_dir(), reason=NO_LISTS)


def uses():
    """(class or enumeration, name, function that uses it), for every use in our code."""
    found = set()
    for module in MODULES:
        tree = ast.parse(inspect.getsource(module))
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if not isinstance(node, ast.Attribute):
                    continue
                owner = ast.unparse(node.value)
                if owner in OBJECTS:
                    found.add((OBJECTS[owner], node.attr, function.name))
                elif owner == 'trt':
                    found.add(('trt', node.attr, function.name))
                elif owner.startswith('trt.'):
                    found.add((owner.removeprefix('trt.'), node.attr, function.name))
                elif owner == 'flags':
                    found.add(('NetworkDefinitionCreationFlag', node.attr, function.name))
    return found


def has(version, owner, name):
    """Whether a version has a name; None if the lists do not say."""
    names = api(version)
    if owner == 'trt':
        return None if name in UNLISTED or name not in names else names[name] is not None
    if owner not in names:
        return None
    members = names[owner]
    if isinstance(members, dict):
        return members.get(name)
    return name in (members or ())


def guards():
    """Names that the code asks for with hasattr, and those that it then uses."""
    found = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == 'hasattr':
                found.add(node.args[1].value)
            elif isinstance(node, ast.If) and 'hasattr(' in ast.unparse(node.test):
                for statement in node.body:
                    found |= {n.attr for n in ast.walk(statement) if isinstance(n, ast.Attribute)}
    return found


# Used only where STRONGLY_TYPED is missing: the branches say so, and are checked below.
WEAKLY_TYPED = {'EXPLICIT_BATCH', 'FP16', 'INT8', 'PREFER_PRECISION_CONSTRAINTS', 'precision'}


@pytest.mark.parametrize('version', VERSIONS)
def test_every_name_exists_or_is_checked_first(version):
    weakly_typed = not has(version, 'NetworkDefinitionCreationFlag', 'STRONGLY_TYPED')
    checked = 0
    for owner, name, function in sorted(uses()):
        there = has(version, owner, name)
        checked += there is not None
        optional = name in guards() or (name in WEAKLY_TYPED and not weakly_typed)
        assert there in (True, None) or optional, f'{owner}.{name} in {function}, {version}'
    assert checked >= 25


def test_what_the_lists_do_not_cover_exists_in_tensorrt_for_rtx():
    rtx = pytest.importorskip('tensorrt_rtx', reason='TensorRT for RTX is not on this machine')
    unlisted = [
        (owner, name)
        for owner, name, _ in sorted(uses())
        if all(has(version, owner, name) is None for version in VERSIONS)
    ]
    assert ('IBuilderConfig', 'clear_flag') in unlisted
    for owner, name in unlisted:
        assert hasattr(rtx if owner == 'trt' else getattr(rtx, owner), name), f'{owner}.{name}'


class WithoutTypeQuestions(ast.NodeTransformer):
    """Removes every `if` that depends on is_strongly_typed."""

    def visit_If(self, node):
        self.generic_visit(node)
        return ast.Pass() if 'is_strongly_typed(trt)' in ast.unparse(node.test) else node


def test_precision_flags_are_behind_the_question_for_strong_types():
    users = {function for _, name, function in uses() if name in WEAKLY_TYPED}
    assert users == {'_allow_precision', 'build_engine'}
    tree = WithoutTypeQuestions().visit(ast.parse(inspect.getsource(engine_builder)))
    rest = ast.unparse(tree)
    assert 'def _allow_precision(' in rest and rest.count('_allow_precision(') == 1
    assert 'EXPLICIT_BATCH' not in rest


@pytest.mark.parametrize('version', VERSIONS)
def test_each_version_has_one_way_to_say_the_precision(version):
    strong = has(version, 'NetworkDefinitionCreationFlag', 'STRONGLY_TYPED')
    weak = has(version, 'BuilderFlag', 'FP16') and has(version, 'BuilderFlag', 'INT8')
    assert strong or weak


def test_a_name_that_a_version_lacks_is_found():
    """So the check above can fail."""
    assert has('11.4.0.106', 'BuilderFlag', 'FP16') is False
    assert has('8.5.3.1', 'NetworkDefinitionCreationFlag', 'STRONGLY_TYPED') is False
    assert has('10.3.0', 'IExecutionContext', 'execute_async_v2') is False
    assert has('10.3.0', 'IExecutionContext', 'execute_async_v3') is True
