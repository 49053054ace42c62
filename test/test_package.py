"""The shape of the package: what imports what, and that documents say what the code says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from goldens import ROOT

ROS_MODULES = (
    'rclpy', 'launch', 'launch_ros', 'cv_bridge', 'std_msgs', 'sensor_msgs', 'visualization_msgs',
    'diagnostic_msgs', 'geometry_msgs', 'rcl_interfaces', 'std_srvs', 'lifecycle_msgs',
)  # fmt: skip
CORE = [p for p in (ROOT / 'posenet_ros').rglob('*.py') if p.parent.name != 'ros']


def imported_modules(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ''


def test_core_is_found():
    assert {'decode.py', 'estimator.py', 'cli.py'} <= {path.name for path in CORE}


@pytest.mark.parametrize('path', CORE, ids=lambda path: path.name)
def test_core_imports_no_ros(path):
    for module in imported_modules(path):
        assert module.split('.')[0] not in ROS_MODULES, module
        assert not module.startswith(('posenet_ros.ros', 'posenet_ros.msg')), module


def test_library_and_command_run_where_ros_is_not():
    """Not only by their text: with ROS out of reach, everything of the core can be imported."""
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
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if not error.name.startswith('rosbags'):  # an optional extra
            raise
print('done')
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout.strip() == 'done', result.stderr


def test_version_is_the_same_everywhere():
    from posenet_ros import __version__

    assert f'<version>{__version__}</version>' in (ROOT / 'package.xml').read_text()
    assert __version__ in (ROOT / 'CHANGELOG.rst').read_text()


def test_parameter_documents_come_from_the_table():
    sys.path.insert(0, str(ROOT / 'tools'))
    try:
        import write_parameter_docs as docs
    finally:
        sys.path.pop(0)
    assert docs.YAML_PATH.read_text() == docs.yaml_text(), 'run tools/write_parameter_docs.py'
    readme = docs.README_PATH.read_text()
    assert docs.readme_tables() in readme, 'run tools/write_parameter_docs.py'


def test_everything_that_the_core_imports_is_installed_with_it():
    """A module that nothing installs would fail on a user's machine."""
    required = (ROOT / 'requirements/runtime.txt').read_text()
    optional = (ROOT / 'setup.cfg').read_text().split('[options.extras_require]')[1]
    package_of = {'cv2': 'opencv-python-headless', 'cuda': 'cuda-python'}
    for path in CORE:
        for module in imported_modules(path):
            top = module.split('.')[0]
            if top in sys.stdlib_module_names or top in ('posenet_ros', 'cv_bridge'):
                continue
            pattern = rf'(?m)(^|= ){package_of.get(top, top)}>='
            assert re.search(pattern, required + optional), f'{path.name} imports {module}'
