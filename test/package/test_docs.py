"""Documents: commands in them exist, with these arguments; Python in them runs."""

import ast
import re
import shlex
from itertools import pairwise

import numpy as np
import pytest
import yaml
from goldens import ROOT

from posenet_ros.commands import _parser
from posenet_ros.ros.launch_arguments import given_parameters
from posenet_ros.ros.parameters import CAMERA_GROUPS, PARAMETERS

PAGES = [ROOT / 'README.md', *sorted((ROOT / 'doc').glob('*.md'))]
PARAMETER_NAMES = {spec.name for spec in PARAMETERS}
EXECUTABLES = {path.name for part in ('scripts', 'examples') for path in (ROOT / part).iterdir()}


def blocks(*languages):
    """(page, text) of every block of these languages; those of README.md are indented."""
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r'(?ms)^```(\w+)\n(.*?)^```$', text):
            if match[1] in languages:
                yield pytest.param(
                    match[2], id=f'{page.name}:{text[: match.start()].count(chr(10))}'
                )
        if page.name == 'README.md' and 'bash' in languages:
            for match in re.finditer(r'(?m)(?:^    .*\n)+', text):
                block = re.sub(r'(?m)^    ', '', match[0])
                yield pytest.param(block, id=f'README.md:{text[: match.start()].count(chr(10))}')


def commands(block):
    """The commands of a block, in words, without comments."""
    for line in block.replace('\\\n', ' ').splitlines():
        for part in re.split(r'\s&&\s', line):
            words = shlex.split(part.replace('<this repository>', 'URL'), comments=True)
            if words:
                yield words


def launch_file_arguments(name):
    """Names that a launch file declares, and their defaults."""
    text = (ROOT / 'launch' / name).read_text()
    declared = set(re.findall(r"DeclareLaunchArgument\(\s*'(\w+)'", text))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith('ARGUMENTS'):
            declared |= {row.elts[0].value for row in node.value.elts}
    return declared


def check_launch(words):
    package, name, *arguments = words
    if package != 'posenet_ros':
        return
    assert (ROOT / 'launch' / name).is_file(), name
    known = launch_file_arguments(name) | launch_file_arguments('posenet.launch.py')
    given = dict(argument.split(':=', 1) for argument in arguments if ':=' in argument)
    for argument in given:
        assert argument in known | PARAMETER_NAMES, f'{name} has no argument {argument}'
    given_parameters(lambda key: given.get(key, ''))  # values are allowed


def check_run(words):
    package, name, *arguments = words
    if package != 'posenet_ros':
        return
    assert name in EXECUTABLES, name
    if name == 'posenet':
        check_posenet(arguments)
    source = next(p for part in ('scripts', 'examples') if (p := ROOT / part / name).exists())
    declared = source.read_text()
    if name in ('image_source', 'posenet_view'):
        module = {'image_source': 'image_source', 'posenet_view': 'view_node'}[name]
        declared = (ROOT / f'posenet_ros/ros/{module}.py').read_text()
    for option, value in pairwise(arguments):
        if option != '-p':
            continue
        parameter = value.split(':=')[0]
        if name == 'posenet_node':
            assert parameter in PARAMETER_NAMES
        elif name != 'count_in_zones':  # whose zones have names of the user's
            assert f"'{parameter}'" in declared, f'{name} has no parameter {parameter}'


def check_posenet(words):
    _parser().parse_args(words)  # exits with 2 if they are wrong


@pytest.mark.parametrize('block', [*blocks('bash')])
def test_commands_exist_with_these_arguments(block):
    targets = re.findall(r'(?m)^([a-z0-9-]+):', (ROOT / 'Makefile').read_text())
    for words in commands(block):
        if words[:2] == ['ros2', 'launch']:
            check_launch(words[2:])
        elif words[:2] == ['ros2', 'run']:
            check_run(words[2:])
        elif words[0] == 'posenet':
            check_posenet(words[1:])
        elif words[0] == 'make':
            for target in words[1:]:
                assert '=' in target or target in targets, words


@pytest.mark.parametrize('block', [*blocks('python')])
def test_python_is_python_and_its_names_are_there(block):
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == 'posenet_ros':
            package = __import__('posenet_ros')
            for alias in node.names:
                assert hasattr(package, alias.name), alias.name


def block_with(page, words):
    found = [
        text
        for text in re.findall(r'(?ms)^```python\n(.*?)^```$', (ROOT / 'doc' / page).read_text())
        if words in text
    ]
    assert len(found) == 1
    return found[0]


def test_the_librarys_first_example_runs(astronaut):
    names = {'image': astronaut}
    exec(block_with('library.md', 'estimate_single_pose'), names)
    assert names['pose'].score > 0.5
    assert len(names['poses']) >= 1


def test_the_example_of_a_video_runs(astronaut):
    frames = [(np.roll(astronaut, 2 * i, axis=1), i / 20) for i in range(4)]
    names = {'frames': frames}
    exec(block_with('library.md', 'estimate_stream'), names)
    assert names['poses'][0].track_id == 1


def check_values(given, allowed):
    assert given.keys() <= allowed
    texts = {name: yaml.safe_dump(value, default_flow_style=True) for name, value in given.items()}
    given_parameters(lambda name: texts.get(name, '').removesuffix('...\n').strip())


@pytest.mark.parametrize('block', [*blocks('yaml')])
def test_parameters_of_yaml_exist(block):
    of_cameras = {spec.name for spec in PARAMETERS if spec.group in CAMERA_GROUPS}
    for node in yaml.safe_load(block).values():
        values = node['ros__parameters']
        own = {name: values[name] for name in values.get('cameras', []) if name in values}
        check_values({k: v for k, v in values.items() if k not in own}, PARAMETER_NAMES)
        for of_camera in own.values():
            check_values(of_camera, of_cameras)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_services_and_topics_of_ours_exist(page):
    """Of the commands and tables: /posenet_node/NAME is a topic or a service of the node."""
    sources = [*(ROOT / 'posenet_ros/ros').rglob('*.py'), ROOT / 'doc/topics.md']
    known = '\n'.join(path.read_text() for path in sources)
    for name in re.findall(r'/posenet_node/(\w+)', page.read_text()):
        assert name in known, f'{page.name}: {name}'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_their_headings(page):
    links = re.findall(r'\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?', page.read_text())
    for target, heading in links:
        to = page.parent / target if target else page
        assert to.exists(), f'{page.name}: {target}'
        assert not heading or heading in headings_of(to), f'{page.name}: {target}#{heading}'


def headings_of(page):
    """The anchors that GitHub and Sphinx give to a page's headings."""
    headings = re.findall(r'(?m)^#+ (.*)$', page.read_text())
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


def test_every_page_is_in_the_index():
    listed = set(re.findall(r'(?m)^(\w+)$', (ROOT / 'doc/index.md').read_text()))
    pages = {page.stem for page in (ROOT / 'doc').glob('*.md')} - {'index'}
    assert listed == pages
