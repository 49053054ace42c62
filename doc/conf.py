"""Sphinx: these pages as a site. `make docs` builds it into build/docs, warnings are errors."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from posenet_ros.version import __version__

project = 'posenet_ros'
copyright = 'posenet_ros maintainers'
version = release = __version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 3
html_theme = 'furo'
html_title = f'posenet_ros {version}'
html_static_path: list[str] = []
exclude_patterns = ['gpu']
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
add_module_names = False
# Links out of the pages, to files of the repository.
suppress_warnings = ['myst.xref_missing']
