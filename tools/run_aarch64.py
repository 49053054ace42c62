"""Runs aarch64's Python on an x86-64 machine, in QEMU, with what the library and its tests need.

Usage: python3 tools/run_aarch64.py BUILD ARGUMENT...
For instance: python3 tools/run_aarch64.py build/aarch64 -m pytest test/core

The first run fills the folder BUILD: QEMU and Debian's Python for arm64, from apt's own sources but
with apt's state kept apart, and a virtual environment with wheels for aarch64. It takes about four
minutes and 1.2 GB. Nothing outside BUILD is changed, and neither root, chroot nor binfmt_misc is
needed: `python` of the environment is a shell script that starts QEMU, so that Python's own child
processes (sys.executable) are emulated too, and programs of this machine (git, npm) run natively.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
REQUIREMENTS = ('requirements/runtime.txt', 'requirements/dev.txt')

# A Raspberry Pi 5's, and much like a Jetson Orin's (Cortex-A78AE): ARMv8.2 with fp16 and int8 dot
# products. CPUINFO has to tell of the same one, or ONNX Runtime uses instructions that it lacks.
CPU = 'cortex-a76'

# QEMU before 8.1 shows this machine's own /proc/cpuinfo, with which ONNX Runtime crashes as it is
# imported. A file below the root takes the place of the one outside.
CPUINFO = """\
processor\t: {number}
BogoMIPS\t: 62.50
Features\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""

CHECK = """\
import platform, ssl, sys
sys.exit(platform.machine() != 'aarch64' or sys.version_info < (3, 10))
"""

# An apt of its own, for arm64 first. Where packages come from, keys and proxies stay the machine's.
APT_CONFIG = """\
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; "{host}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
#clear APT::Update;
#clear DPkg;
"""


def run(why: str, *command: str | Path, cwd: Path | None = None) -> None:
    """Runs a command, quietly. If it fails: its own words, and a sentence of ours."""
    result = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode:
        sys.exit(f'{result.stdout}aarch64 cannot be emulated here: {why}.')


class Apt:
    """Fetches packages of this machine's distribution, for arm64, without installing them."""

    def __init__(self, folder: Path) -> None:
        for tool in ('apt-get', 'dpkg', 'dpkg-deb', 'tar'):
            if not shutil.which(tool):
                sys.exit(f'aarch64 cannot be emulated here: {tool} (Debian, Ubuntu) is missing.')
        query = ['dpkg', '--print-architecture']
        self.host = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
        for name in ('lists/partial', 'archives/partial'):
            (folder / name).mkdir(parents=True)
        (folder / 'status').touch()  # empty: nothing is installed, so that dependencies come too
        config = folder / 'apt.conf'
        config.write_text(APT_CONFIG.format(folder=folder, host=self.host))
        self.folder = folder
        self.command = ['apt-get', '-qq', '-c', str(config)]
        run('apt-get update failed', *self.command, 'update')

    def with_dependencies(self, *names: str) -> list[Path]:
        """Packages for arm64, and all that they depend on."""
        why = f'apt has no {" and ".join(names)} for arm64'
        run(why, *self.command, 'install', '--yes', '--download-only', *names)
        return sorted((self.folder / 'archives').glob('*.deb'))

    def alone(self, name: str) -> Path:
        """A package for this machine, without what it depends on."""
        why = f'apt has no {name}'
        run(why, *self.command, 'download', f'{name}:{self.host}', cwd=self.folder)
        return next(self.folder.glob(f'{name}_*.deb'))


def unpack(package: Path, folder: Path) -> None:
    """Like dpkg-deb -x, but follows /lib -> /usr/lib."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = subprocess.Popen(['dpkg-deb', '--fsys-tarfile', package], stdout=subprocess.PIPE)
    tar = ['tar', '-x', '--keep-directory-symlink', '--no-same-owner', '-C', folder]
    if subprocess.run(tar, stdin=contents.stdout).returncode or contents.wait():
        sys.exit(f'aarch64 cannot be emulated here: {package} cannot be unpacked.')


def get_qemu(apt: Apt) -> Path:
    """The static program: which of the two packages has it depends on the distribution's age."""
    folder = apt.folder / 'qemu'
    for package in ('qemu-user-static', 'qemu-user'):
        unpack(apt.alone(package), folder)
        for name in ('qemu-aarch64-static', 'qemu-aarch64'):
            if (folder / 'usr/bin' / name).exists():
                return folder / 'usr/bin' / name
    sys.exit('aarch64 cannot be emulated here: the packages of QEMU have no qemu-aarch64.')


def make_python(build: Path) -> Path:
    """arm64's C library and Python, and beside it a `python` that this machine can start."""
    root = build / 'root'
    python = root / 'usr/bin/python'
    if python.exists():  # it is written last
        return python
    print(f'Fetching QEMU and Python for aarch64 into {build}: half a minute, once.', flush=True)
    shutil.rmtree(root, ignore_errors=True)
    for name in ('bin', 'lib', 'sbin'):
        (root / 'usr' / name).mkdir(parents=True)
        (root / name).symlink_to(f'usr/{name}')
    with tempfile.TemporaryDirectory(dir=build) as scratch:
        apt = Apt(Path(scratch))
        shutil.copy2(get_qemu(apt), build / 'qemu-aarch64')
        for package in apt.with_dependencies('python3', 'libstdc++6'):
            unpack(package, root)
    (root / 'proc').mkdir()
    cpus = range(os.cpu_count() or 1)
    (root / 'proc/cpuinfo').write_text(''.join(CPUINFO.format(number=n) for n in cpus))
    # -L: files of the root come before the machine's own. -0: the name by which Python finds itself
    # and starts child processes; this script's, or a virtual environment's link to it.
    here = shlex.quote(str(build))
    script = (
        '#!/bin/sh\n'
        f'exec {here}/qemu-aarch64 -cpu {CPU} -L {here}/root -0 "$0" '
        f'{here}/root/usr/bin/python3 "$@"\n'
    )
    started = build / 'python'
    started.write_text(script)
    started.chmod(0o755)
    run('Python 3.10 or later does not start in QEMU', started, '-c', CHECK)
    return started.rename(python)


def make_environment(build: Path, python: Path) -> Path:
    """A virtual environment. This machine's pip runs in QEMU, and so takes aarch64's wheels."""
    venv = build / 'venv'
    ready = venv / '.ready'
    wanted = '\n'.join((REPOSITORY / name).read_text() for name in REQUIREMENTS)
    if not ready.exists() or ready.read_text() != wanted:
        print(f'Installing wheels for aarch64 into {venv}: three minutes, once.', flush=True)
        run('a virtual environment cannot be made', python, '-m', 'venv', '--without-pip', venv)
        files = [f'-r{REPOSITORY / name}' for name in REQUIREMENTS]
        pip = [sys.executable, '-m', 'pip', '--python', venv / 'bin/python']
        why = 'pip (22.3 or later) cannot install the wheels'
        run(why, *pip, 'install', '-q', '--no-compile', '--only-binary=:all:', *files)
        ready.write_text(wanted)
    return venv


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    if sys.platform != 'linux' or platform.machine() == 'aarch64':
        sys.exit('This is for Linux on another processor than aarch64, where Python needs no QEMU.')
    build = Path(sys.argv[1]).resolve()
    build.mkdir(parents=True, exist_ok=True)
    venv = make_environment(build, make_python(build))
    environment = dict(os.environ, VIRTUAL_ENV=str(venv), ORT_DISABLE_TELEMETRY='1')
    environment['PATH'] = f'{venv}/bin:{environment["PATH"]}'
    for name in ('OPENBLAS_CORETYPE', 'PYTHONHOME', 'PYTHONPATH', 'QEMU_LD_PREFIX'):
        environment.pop(name, None)  # they are about this machine's own CPU and Python
    python = venv / 'bin/python'
    os.execve(python, [str(python), *sys.argv[2:]], environment)


if __name__ == '__main__':
    main()
