"""The short form of make soak: three rounds of everything that disturbs a node."""

import subprocess
import sys

import pytest
from goldens import ROOT

pytestmark = pytest.mark.slow


def test_three_rounds_of_reconfiguring_unplugging_and_cycling(tmp_path):
    pytest.importorskip('matplotlib')
    command = [sys.executable, str(ROOT / 'tools/soak.py'), '0.7', '--round', '14']
    run = subprocess.run(
        [*command, '--out', str(tmp_path)], capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.startswith('nothing went wrong')
    assert (tmp_path / 'soak.png').stat().st_size > 10_000
