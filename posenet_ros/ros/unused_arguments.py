"""Finds parameters and QoS overrides that were given and have no effect, with advice."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

QOS_PREFIX = 'qos_overrides.'
OF_EVERY_NODE = ('/clock.', '/parameter_events.', '/rosout.')


def in_one_sentence(error: BaseException) -> str:
    """The message of an rclpy exception; in Humble it may be split into several arguments."""
    return ' '.join(str(part) for part in error.args) or type(error).__name__


def unused_parameters(given: Collection[str], known: Collection[str]) -> Iterator[tuple[str, bool]]:
    """A sentence for each given parameter that the node does not have.

    The second value is whether it was surely meant for this node: its name is close to one of the
    node's, or it was given with -p. Other parameters of a file, under /**, may be for other nodes.

    Args:
        given: names of the overrides, from the command line and from params files.
        known: names of the node's parameters.
    """
    for name in sorted(set(given) - set(known)):
        if name.startswith(QOS_PREFIX):
            continue
        near = difflib.get_close_matches(name, known, 1, 0.7)
        advice = f'; is it {near[0]}?' if near else ''
        typed = any(argument.startswith(f'{name}:=') for argument in sys.argv)
        yield f'there is no parameter {name}: its value is not used{advice}', bool(near) or typed


def unused_qos_overrides(given: Collection[str], endpoints: Collection[str]) -> Iterator[str]:
    """A sentence for each QoS override without effect.

    Args:
        given: names of the overrides.
        endpoints: that have overrides: /topic.subscription, /topic.publisher.
    """
    policies = ('history', 'depth', 'reliability')
    for name in sorted(given):
        if not name.startswith(QOS_PREFIX):
            continue
        endpoint, _, policy = name[len(QOS_PREFIX) :].rpartition('.')
        if endpoint.startswith(OF_EVERY_NODE):
            continue
        if endpoint not in endpoints:
            yield f'{name} is not used: the node only has {", ".join(sorted(endpoints))}'
        elif policy not in policies:
            yield f'{name} is not used: {", ".join(policies)} can be overridden'


def sections_for_others(arguments: Sequence[str], node_name: str) -> Iterator[str]:
    """A sentence for each params file that has no section for this node.

    Args:
        arguments: of the process.
        node_name: fully qualified.
    """
    for option, path in pairwise(arguments):
        if option != '--params-file':
            continue
        try:
            content = yaml.load(Path(path).read_text(), yaml.BaseLoader)  # the names are enough
        except (OSError, ValueError, yaml.YAMLError):
            continue  # rcl has reported it
        names = list(_node_names(content))
        if names and not any(_matches(name, node_name) for name in names):
            yield f'{path} has no parameters for {node_name}, only for {", ".join(sorted(names))}'


def _node_names(content: Any, above: str = '') -> Iterator[str]:
    """The node names, or patterns of them, of a params file's sections."""
    if not isinstance(content, Mapping):
        return
    for key, value in content.items():
        if key == 'ros__parameters':
            yield above
        else:
            yield from _node_names(value, f'{above}/{str(key).strip("/")}')


def _matches(pattern: str, node_name: str) -> bool:
    # As in rcl: * is one name, ** any number of names.
    parts = []
    for part in pattern.strip('/').split('/'):
        parts.append('(/[^/]+)*' if part == '**' else '/' + re.escape(part).replace(r'\*', '[^/]+'))
    return re.fullmatch(''.join(parts), node_name) is not None
