"""Builds the real pycuda into a virtual environment, for the tests that need no GPU.

Usage: VENV/bin/python tools/build_pycuda.py BUILD

pycuda has no wheels; building it needs a CUDA toolkit's headers and a C++ compiler. If they are
missing, nothing is built, and the tests that use pycuda are skipped. It is linked against the
tests' own CUDA driver (test/backends/host_memory_driver.c), which has the real driver's name; on a
machine with a GPU the real one is loaded.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'test/backends'))

from host_driver import compile_driver  # noqa: E402

# Put before pycuda's own setup.py: compiles its files in parallel.
PARALLEL = """
from concurrent.futures import ThreadPoolExecutor
import os
import setuptools
from distutils.unixccompiler import UnixCCompiler

def compile_in_parallel(self, sources, output_dir=None, macros=None, include_dirs=None, debug=0,
            extra_preargs=None, extra_postargs=None, depends=None):
    macros, objects, extra, options, build = self._setup_compile(
        output_dir, macros, include_dirs, sources, depends, extra_postargs)
    arguments = self._get_cc_args(options, debug, extra_preargs)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(self._compile, name, *build[name], arguments, extra, options)
                for name in objects if name in build]
    for job in jobs:
        job.result()
    return objects

UnixCCompiler.compile = compile_in_parallel
"""


def toolkit() -> Path | None:
    """The CUDA toolkit's folder, if there is one."""
    compiler = shutil.which('nvcc')
    places = [os.environ.get('CUDA_HOME'), '/usr/local/cuda']
    places += [] if compiler is None else [str(Path(compiler).resolve().parent.parent)]
    found = (Path(place) for place in places if place)
    return next((place for place in found if (place / 'include/cuda.h').exists()), None)


def build_driver(folder: Path) -> None:
    """The tests' CUDA driver, under the real one's names."""
    folder.mkdir(parents=True, exist_ok=True)
    library = compile_driver(folder)
    link = folder / 'libcuda.so'
    link.unlink(missing_ok=True)
    link.symlink_to(library.name)


def build_pycuda(root: Path, folder: Path) -> None:
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
    sources = folder / 'pycuda'
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir()
    isolated = ['--no-deps', '--no-build-isolation', '--no-binary', 'pycuda']
    subprocess.run([*pip, 'download', *isolated, '-d', str(sources), 'pycuda'], check=True)
    with tarfile.open(next(sources.glob('pycuda-*.tar.gz'))) as archive:
        archive.extractall(sources)
    tree = next(path for path in sources.glob('pycuda-*') if path.is_dir())
    # Only for tests: the compile time matters, not the speed of the code.
    options = [
        f'--cuda-root={root}',
        f'--cudadrv-lib-dir={folder}',
        '--no-cuda-enable-curand',
        '--cxxflags=-O0,-g0',
    ]
    subprocess.run([sys.executable, 'configure.py', *options], cwd=tree, check=True)
    setup = tree / 'setup.py'
    setup.write_text(PARALLEL + setup.read_text().replace('from __future__ import annotations', ''))
    subprocess.run([*pip, 'install', '--no-build-isolation', str(tree)], check=True)


def main() -> None:
    folder = ROOT / sys.argv[1] / 'cuda'
    root = toolkit()
    if root is None or shutil.which('c++') is None or shutil.which('cc') is None:
        print('No CUDA toolkit, or no C++ compiler: the tests that use pycuda will be skipped.')
        return
    build_driver(folder)
    if importlib.util.find_spec('pycuda') is None:
        print('Building pycuda for the tests: about a minute, once.')
        build_pycuda(root, folder)


if __name__ == '__main__':
    main()
