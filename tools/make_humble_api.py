#!/usr/bin/env python3
"""Writes what the Python packages of a ROS 2 distribution offer, as JSON: names and parameters.

    make_humble_api.py --messages-of PACKAGE ros2/rclpy=GIT_DIR ros2/launch=GIT_DIR ... > api.json

Read from the sources on a branch, with `ast`: no ROS is needed. The messages listed are those that
the Python and message files of PACKAGE name, and the messages that these contain.

    "modules": {module: {name: what}}
        what: [parameters] of a function, {class}, null for a value, and 'module.name' for a name
        that is another one: a re-export of a package's __init__, or an alias.
        class: {'bases': [...], method: [parameters] without self, 'attributes': [...]}, and
        'members' for an enum. Inherited methods are listed only in the bases. A base is
        'module.name' if it is listed here, else as written. Nested classes are listed like
        methods, as {class}.
    "messages": {type: [fields, constants]}; of a service {'request': [...], 'response': [...]}

A bare '*' in a list of parameters stands before the keyword-only ones.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Where each repository keeps its Python package. All modules are listed, except those whose name
# begins with an entry of LEFT_OUT.
PACKAGES = {
    'ros2/rclpy': 'rclpy/rclpy',
    'ros2/launch': 'launch/launch',
    'ros2/launch_ros': 'launch_ros/launch_ros',
    'ament/ament_index': 'ament_index_python/ament_index_python',
}
LEFT_OUT = (
    'launch.frontend', 'launch.logging', 'launch.utilities.', 'launch_ros.utilities.',
    'launch.actions.conftest', 'launch.conditions.conftest', 'ament_index_python.cli',
)  # fmt: skip
MESSAGE_PACKAGES = (
    'sensor_msgs', 'std_msgs', 'std_srvs', 'visualization_msgs', 'geometry_msgs',
    'diagnostic_msgs', 'builtin_interfaces', 'rcl_interfaces', 'lifecycle_msgs', 'rosgraph_msgs',
)  # fmt: skip


# Sources.


def git(git_dir: str, *arguments: str) -> str:
    return subprocess.run(
        ['git', f'--git-dir={git_dir}', *arguments], check=True, capture_output=True, text=True
    ).stdout


def files_of(git_dir: str, branch: str) -> dict[str, str]:
    """Path -> text of the files that matter, on a branch."""
    paths = git(git_dir, 'ls-tree', '-r', '--name-only', branch).splitlines()
    wanted = [
        path
        for path in paths
        if Path(path).suffix in ('.py', '.msg', '.srv')
        or re.fullmatch(r'rclpy/src/rclpy/\w+\.cpp', path)
    ]
    return {path: git(git_dir, 'show', f'{branch}:{path}') for path in wanted}


def modules_of(repository: str, files: dict[str, str]) -> dict[str, tuple[str, bool]]:
    """Module -> its text, and whether it is a package, of the Python package of a repository."""
    folder = PACKAGES.get(repository)
    modules = {}
    for path, text in files.items():
        if folder is None or not path.startswith(f'{folder}/') or not path.endswith('.py'):
            continue
        parts = Path(path).relative_to(Path(folder).parent).with_suffix('').parts
        is_package = parts[-1] == '__init__'
        modules['.'.join(parts[:-1] if is_package else parts)] = (text, is_package)
    return modules


# Python.


class Module:
    """The names of one module. `enums`: those of rclpy's C++, name -> members."""

    def __init__(self, name: str, text: str, is_package: bool, enums: dict[str, list[str]]):
        self.name = name
        self._enums = enums
        self._package = name if is_package else name.rpartition('.')[0]
        self.names: dict[str, object] = {}
        self.imported: dict[str, str] = {}  # name -> module.name
        statements = list(_statements(ast.parse(text).body))
        for statement in statements:
            self._note_imports(statement)
        for statement in statements:
            self._note_definition(statement)
        if is_package:
            for alias, target in self.imported.items():
                if not alias.startswith('_'):
                    self.names.setdefault(alias, target)

    def _note_imports(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                if alias.asname:
                    self.imported[alias.asname] = alias.name
                else:  # import a.b binds a
                    first = alias.name.partition('.')[0]
                    self.imported[first] = first
        elif isinstance(statement, ast.ImportFrom):
            source = statement.module or ''
            if statement.level:
                above = self._package.split('.')
                above = above[: len(above) - statement.level + 1]
                source = '.'.join([*above, *([source] if source else [])])
            for alias in statement.names:
                self.imported[alias.asname or alias.name] = f'{source}.{alias.name}'

    def _note_definition(self, statement: ast.stmt) -> None:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if not statement.name.startswith('_'):
                self.names[statement.name] = parameters(statement)
        elif isinstance(statement, ast.ClassDef):
            if not statement.name.startswith('_'):
                self.names[statement.name] = self._class(statement)
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            for name in _assigned(statement):
                if not name.startswith('_'):
                    self.names[name] = self._value(statement.value)

    def _value(self, value: ast.expr | None) -> object:
        """An alias of a name that is known, an enum of rclpy's C++, or just a value."""
        written = ast.unparse(value) if value is not None else ''
        if written.startswith('_rclpy.') and written[7:] in self._enums:
            return {'bases': [], 'members': self._enums[written[7:]]}
        if isinstance(value, ast.Name) and (written in self.names or written in self.imported):
            return self.full_name(written)
        return None

    def full_name(self, written: str) -> str:
        """The full name of a name that this module uses."""
        first, dot, rest = written.partition('.')
        if first in self.imported:
            return self.imported[first] + dot + rest
        return f'{self.name}.{written}' if first in self.names else written

    def _class(self, statement: ast.ClassDef) -> dict[str, object]:
        # Of a generic base, Waitable[T], only the class counts.
        bases = [ast.unparse(base).partition('[')[0] for base in statement.bases]
        described: dict[str, object] = {'bases': [self.full_name(base) for base in bases]}
        attributes: set[str] = set()
        values: list[str] = []
        body = list(_statements(statement.body))
        for part in body:
            if isinstance(part, (ast.Assign, ast.AnnAssign)):
                values += [name for name in _assigned(part) if not name.startswith('_')]
                attributes |= _slots(part)
            elif isinstance(part, ast.ClassDef) and not part.name.startswith('_'):
                described[part.name] = self._class(part)
            elif isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
                attributes |= _set_on_self(part)
                if part.name.startswith('_') and part.name not in ('__init__', '__new__'):
                    continue
                if _is_property(part):
                    attributes.add(part.name)
                else:
                    described[part.name] = parameters(part, method=True)
        if bases and bases[0].endswith(('Enum', 'IntFlag', 'Flag')):
            described['members'] = values
        else:
            attributes.update(values)
        if bases == ['NamedTuple']:
            described['__init__'] = values
        attributes -= described.keys()
        if attributes:
            described['attributes'] = sorted(attributes)
        return described


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef, method: bool = False) -> list[str]:
    arguments = function.args
    names = [argument.arg for argument in [*arguments.posonlyargs, *arguments.args]]
    if method and 'staticmethod' not in _decorators(function):
        names = names[1:]
    if arguments.vararg:
        names.append(f'*{arguments.vararg.arg}')
    elif arguments.kwonlyargs:
        names.append('*')
    names += [argument.arg for argument in arguments.kwonlyargs]
    if arguments.kwarg:
        names.append(f'**{arguments.kwarg.arg}')
    return names


def _decorators(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [ast.unparse(decorator) for decorator in function.decorator_list]


def _is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(
        'property' in decorator or decorator.endswith(('.setter', '.getter', '.deleter'))
        for decorator in _decorators(function)
    )


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a body, also under `if` and `try`; not those for type checkers only."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If) and 'TYPE_CHECKING' not in ast.unparse(statement.test):
            yield from _statements(statement.body + statement.orelse)
        elif isinstance(statement, ast.Try):
            yield from _statements(statement.body + statement.orelse)
            for handler in statement.handlers:
                yield from _statements(handler.body)


def _assigned(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _slots(statement: ast.Assign | ast.AnnAssign) -> set[str]:
    if '__slots__' not in _assigned(statement) or statement.value is None:
        return set()
    slots = ast.literal_eval(statement.value)
    return {slot for slot in slots if not slot.startswith('_')}


def _set_on_self(method: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Public attributes that a method assigns."""
    return {
        node.attr
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and ast.unparse(node.value) == 'self'
        and not node.attr.startswith('_')
    }


def enums_in(files: dict[str, str]) -> dict[str, list[str]]:
    """The enums that rclpy's C++ hands to Python, name -> members."""
    found = {}
    for path, text in files.items():
        if path.endswith('.cpp'):
            for name, rest in re.findall(r'py::enum_<[^>]*>\(\s*\w+,\s*"(\w+)"(.*?);', text, re.S):
                found[name] = re.findall(r'\.value\(\s*"(\w+)"', rest)
    return found


def python_api(modules: dict[str, Module]) -> dict[str, dict[str, object]]:
    """The names of the modules that are listed."""
    listed = {name for name in modules if not name.startswith(LEFT_OUT)}
    api = {}
    for module in sorted(listed):
        names = {}
        for name, what in modules[module].names.items():
            if isinstance(what, str) and what not in listed:
                source, _, original = what.rpartition('.')
                if source not in modules:  # of another package
                    if modules[module].imported.get(name) == what:
                        continue
                    what = None
                elif source not in listed:  # there is no other place to describe it
                    what = modules[source].names.get(original)
                    what = None if isinstance(what, str) else what
                elif what in modules:  # a module that is left out
                    what = None
            names[name] = what
        if names:
            api[module] = names
    return api


# Messages.


def fields_in(text: str) -> tuple[list[str], list[str]]:
    """Names of the fields and constants of one part of an interface, and the types it contains."""
    names, types = [], []
    for line in text.splitlines():
        line = line.partition('#')[0].strip()
        match = re.match(r'([\w/]+)(?:<=\d+)?(?:\[[^\]]*\])?\s+(\w+)', line)
        if match:
            types.append(match[1])
            names.append(match[2])
    return names, types


def types_named_in(package: Path) -> set[str]:
    """The messages and services that the files of a package name."""
    found = set()
    sources = [*package.rglob('*.py'), *package.rglob('*.msg'), *package.rglob('*.srv')]
    for path in sources:
        inside = path.relative_to(package).parts
        if inside[0] in ('build', 'install', 'log') or any(p.startswith('.') for p in inside):
            continue
        text = path.read_text()
        if path.suffix == '.py':
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and node.module:
                    name, _, kind = node.module.partition('.')
                    if name in MESSAGE_PACKAGES and kind in ('msg', 'srv'):
                        found |= {f'{name}/{kind}/{alias.name}' for alias in node.names}
        for name, kind, message in re.findall(r'(\w+)/(?:(msg|srv)/)?([A-Z]\w*)', text):
            if name in MESSAGE_PACKAGES:
                found.add(f'{name}/{kind or "msg"}/{message}')
    return found


def messages_api(named: set[str], definitions: dict[str, str]) -> dict[str, object]:
    """The types that are named, with those that they contain."""
    api: dict[str, object] = {}
    waiting = sorted(named & definitions.keys())
    while waiting:
        name = waiting.pop()
        if name in api:
            continue
        package, kind, _ = name.split('/')
        parts = [fields_in(part) for part in re.split(r'^---$', definitions[name], flags=re.M)]
        if kind == 'srv':
            api[name] = {'request': parts[0][0], 'response': parts[1][0]}
        else:
            api[name] = parts[0][0]
        for inner in (inner for _, types in parts for inner in types):
            inner_package, _, message = inner.rpartition('/')
            full = f'{inner_package.removesuffix("/msg") or package}/msg/{message}'
            if full in definitions:
                waiting.append(full)
    return dict(sorted(api.items()))


# All of it.


def as_text(api: dict) -> str:
    """JSON with one name a line: a diff shows what changed."""
    lines = ['{']
    for section, content in api.items():
        lines.append(f'{json.dumps(section)}: {{')
        for key, value in content.items():
            if section != 'modules':
                lines.append(f' {json.dumps(key)}: {json.dumps(value)},')
                continue
            lines.append(f' {json.dumps(key)}: {{')
            for name, what in value.items():
                if isinstance(what, dict):
                    lines.append(f'  {json.dumps(name)}: {{')
                    lines += [f'   {json.dumps(k)}: {json.dumps(v)},' for k, v in what.items()]
                    lines[-1] = lines[-1].removesuffix(',') + '},'
                else:
                    lines.append(f'  {json.dumps(name)}: {json.dumps(what)},')
            lines[-1] = lines[-1].removesuffix(',') + '},'
        lines[-1] = lines[-1].removesuffix(',') + '},'
    lines[-1] = lines[-1].removesuffix(',') + '}'
    return '\n'.join(lines) + '\n'


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('repositories', nargs='+', metavar='OWNER/NAME=GIT_DIR')
    parser.add_argument('--branch', default='humble')
    parser.add_argument('--messages-of', type=Path, required=True, metavar='PACKAGE')
    arguments = parser.parse_args()

    source, modules, definitions = {}, {}, {}
    for argument in arguments.repositories:
        repository, _, git_dir = argument.partition('=')
        commit, date = git(git_dir, 'log', '-1', '--format=%H %cI', arguments.branch).split()
        source[repository] = {'branch': arguments.branch, 'commit': commit, 'date': date}
        files = files_of(git_dir, arguments.branch)
        enums = enums_in(files)
        for name, (text, is_package) in sorted(modules_of(repository, files).items()):
            modules[name] = Module(name, text, is_package, enums)
        for path, text in files.items():
            match = re.fullmatch(r'(\w+)/(msg|srv)/(\w+)\.(?:msg|srv)', path)
            if match and match[1] in MESSAGE_PACKAGES:
                definitions['/'.join(match.groups())] = text
    api = {
        'source': source,
        'modules': python_api(modules),
        'messages': messages_api(types_named_in(arguments.messages_of), definitions),
    }
    text = as_text(api)
    assert json.loads(text) == api
    sys.stdout.write(text)
    return 0


if __name__ == '__main__':
    sys.exit(main())
