"""The package as a whole: what it needs, and that documents say what the code says."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from goldens import ROOT

ROS_MODULES = (
    'rclpy', 'launch', 'launch_ros', 'cv_bridge', 'std_msgs', 'sensor_msgs', 'visualization_msgs',
    'diagnostic_msgs', 'geometry_msgs', 'rcl_interfaces', 'std_srvs', 'lifecycle_msgs',
)  # fmt: skip
MODULES = sorted((ROOT / 'posenet_ros').rglob('*.py'))
LIBRARY = [path for path in MODULES if ROOT / 'posenet_ros/ros' not in path.parents]


def imported_modules(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ''


@pytest.mark.parametrize('path', LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_library_imports_no_message_of_ours(path):
    """They are generated, and import-linter does not see them."""
    for module in imported_modules(path):
        assert not module.startswith(('posenet_ros.msg', 'posenet_ros.ros')), module


def test_library_and_command_run_where_ros_is_not():
    """With ROS out of reach, every module of the library can be imported."""
    code = f"""
import importlib, pkgutil, sys
class NoRos:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {ROS_MODULES!r}:
            raise ImportError(name)
sys.meta_path.insert(0, NoRos())
sys.path.insert(0, {str(ROOT)!r})
import posenet_ros
for module in pkgutil.walk_packages(posenet_ros.__path__, 'posenet_ros.'):
    if module.name.startswith(('posenet_ros.ros', 'posenet_ros.msg', 'posenet_ros.posenet')):
        continue
    if module.name.endswith('__main__'):
        continue
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if not error.name.startswith(('rosbags', 'aiohttp', 'ray', 'pyarrow')):  # extras
            raise
print('done')
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.strip() == 'done', result.stderr


def test_version_is_the_same_everywhere():
    from posenet_ros import __version__

    assert f'<version>{__version__}</version>' in (ROOT / 'package.xml').read_text()
    setup = (ROOT / 'setup.cfg').read_text()
    assert 'version = attr: posenet_ros.version.__version__' in setup


def test_pip_installs_every_folder_of_the_library():
    setup = (ROOT / 'setup.cfg').read_text()
    listed = re.findall(r'^    (posenet_ros[.\w]*)$', setup.split('packages =')[1], re.MULTILINE)
    folders = {path.parent for path in LIBRARY if path.name == '__init__.py'}
    assert sorted(listed) == sorted('.'.join(path.relative_to(ROOT).parts) for path in folders)


def test_parameter_documents_come_from_the_table():
    sys.path.insert(0, str(ROOT / 'tools'))
    try:
        import write_parameter_docs as docs
    finally:
        sys.path.pop(0)
    assert docs.YAML_PATH.read_text() == docs.yaml_text(), 'run tools/write_parameter_docs.py'
    page = docs.PAGE_PATH.read_text()
    assert docs.page_tables() in page, 'run tools/write_parameter_docs.py'


def test_everything_that_the_library_imports_is_installed_with_it():
    """A module that nothing installs would fail on a user's machine."""
    lists = ('runtime', 'bag')
    required = ''.join((ROOT / f'requirements/{name}.txt').read_text() for name in lists)
    optional = (ROOT / 'setup.cfg').read_text().split('[options.extras_require]')[1]
    package_of = {
        'cv2': 'opencv-python-headless',
        'cuda': 'cuda-python',
        'yaml': 'pyyaml',
        'PIL': 'pillow',
        'pillow_heif': 'pillow-heif',
        'upath': 'universal_pathlib',
    }
    for path in LIBRARY:
        for module in imported_modules(path):
            top = module.split('.')[0]
            if top in sys.stdlib_module_names or top in ('posenet_ros', 'cv_bridge'):
                continue
            pattern = rf'(?m)(^ *|= ){package_of.get(top, top)}>='
            assert re.search(pattern, required + optional), f'{path.name} imports {module}'


# What package.xml declares, by the name that Python imports.
DISTRIBUTION = {
    'numpy': 'python3-numpy', 'cv2': 'python3-opencv', 'requests': 'python3-requests',
    'tqdm': 'python3-tqdm', 'yaml': 'python3-yaml', 'PIL': 'python3-pil',
    'aiohttp': 'python3-aiohttp',
    'pytest': 'python3-pytest', 'skimage': 'python3-skimage', 'tf2_ros': 'tf2_ros_py',
}  # fmt: skip
SETUP_ROBOT = (
    'av',
    'numba',
    'onnx',
    'onnxruntime',
    'msgspec',
    'simplejpeg',
    'lap',
)  # no distribution has them
OPTIONAL = (  # where they are imported
    'rosbags', 'tensorrt', 'tensorrt_rtx', 'pycuda', 'cuda', 'scipy', 'pycocotools',
    'matplotlib', 'mcap', 'zstandard', 'argcomplete', 'pillow_heif', 'atheris', 'sros2',
    'vision_msgs', 'hri_msgs', 'foxglove_msgs', 'playwright', 'pyarrow', 'duckdb',
    'ray', 'upath', 's3fs', 'moto',
)  # fmt: skip


def declared():
    sys.path.insert(0, str(ROOT / 'tools'))
    try:
        import rosdep_stand_in
    finally:
        sys.path.pop(0)
    return rosdep_stand_in


def test_everything_that_is_imported_is_declared():
    keys = set(declared().keys_of(ROOT / 'package.xml'))
    here = {path.stem for folder in ('test', 'tools') for path in (ROOT / folder).rglob('*.py')}
    folders = ('posenet_ros', 'launch', 'scripts', 'test')
    files = [path for folder in folders for path in (ROOT / folder).rglob('*') if path.is_file()]
    sources = [path for path in files if path.suffix == '.py' or path.parent.name == 'scripts']
    assert len(sources) > 60
    for path in sources:
        for module in imported_modules(path):
            top = module.split('.')[0]
            if top in sys.stdlib_module_names or top in ('posenet_ros', 'benchmarks', *here):
                continue
            if top in SETUP_ROBOT or top in OPTIONAL:
                continue
            assert DISTRIBUTION.get(top, top) in keys, f'{path.name} imports {module}'
    for command in ('rviz2', 'usb_cam', 'ros2launch', 'python3-pytest-timeout', 'python3-venv'):
        assert command in keys  # started, or an option of pytest: nothing imports it


def test_rosdep_knows_everything_that_is_declared():
    assert declared().unknown_keys(ROOT / 'package.xml') == []


def test_package_xml_is_ready_for_bloom():
    """REP 149, and what catkin_generate_changelog and bloom look for."""
    catkin_pkg = pytest.importorskip('catkin_pkg.package', reason='catkin_pkg is not installed')
    warnings: list[str] = []
    catkin_pkg.parse_package(str(ROOT / 'package.xml'), warnings=warnings).validate()
    assert warnings == []
    package = ElementTree.parse(ROOT / 'package.xml').getroot()
    assert package.get('format') == '3'
    assert {url.get('type') for url in package.findall('url')} == {
        'website', 'repository', 'bugtracker',
    }  # fmt: skip
    assert package.find('author') is not None
    assert (ROOT / package.find('license').get('file')).is_file()
    changelog = (ROOT / 'CHANGELOG.rst').read_text()
    title = 'Changelog for package posenet_ros'
    assert changelog.startswith(
        f'{"^" * len(title)}\n{title}\n{"^" * len(title)}\n\nForthcoming\n-----------\n* '
    )


def test_findings_on_robots_name_tests_that_there_are():
    named = set(re.findall(r'::(test_\w+)', (ROOT / 'doc/robot.md').read_text()))
    files = [path.read_text() for path in (ROOT / 'test').rglob('test_*.py')]
    assert named
    assert named <= {name for text in files for name in re.findall(r'def (test_\w+)', text)}


def test_architecture_names_every_file_and_no_other():
    page = (ROOT / 'doc/architecture.md').read_text()
    named = set(re.findall(r'\b\w+\.py\b', page))
    beside = {path.name for part in ('test', 'tools') for path in (ROOT / part).rglob('*.py')}
    modules = {path.name for path in MODULES}
    assert named <= modules | beside
    assert modules - {'__init__.py'} <= named


def test_architecture_has_the_rooms_in_the_order_that_is_checked():
    """import-linter checks that imports go downwards; the table shows the same order."""
    layers = (ROOT / 'pyproject.toml').read_text().split('layers = [')[1].split(']')[0]
    order = re.findall(r'\w+', layers)
    table = (ROOT / 'doc/architecture.md').read_text().split('| room |')[1].split('\n\n')[0]
    rooms = [
        re.findall(r'`(\w+)(?:/|\.py)`', line.split('|')[1]) for line in table.splitlines()[2:]
    ]
    assert [room for row in rooms for room in row] == order
