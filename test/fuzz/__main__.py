"""Fuzzes what reads bytes from outside, guided by the code that is reached.

python test/fuzz NAME|all CASES SEED

`all` shares the cases among the targets by their speed, each in its own process. Needs atheris.
A case that fails is written to the working directory, and its name is printed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ['POSENET_HOME'] = tempfile.mkdtemp(prefix='posenet-fuzz-home-')
# Cases per second, about, where a target is slow; others run a thousand or more.
SLOW = {'graph_of_a_model': 0.2, 'bag': 0.3, 'photo': 0.5, 'file_of_a_cache': 0.5}


def fuzz(name: str, cases: int, seed: int) -> None:
    import atheris

    with atheris.instrument_imports(include=['posenet_ros']):
        from targets import TARGETS
    with tempfile.TemporaryDirectory() as corpus:
        for i, example in enumerate(TARGETS[name].examples()):
            Path(corpus, f'example{i}').write_bytes(example)
        options = [
            f'-runs={cases}', f'-seed={seed}', '-max_len=16384', '-rss_limit_mb=4096',
            '-timeout=20', '-verbosity=0', '-print_final_stats=1',
        ]  # fmt: skip
        atheris.Setup([sys.argv[0], *options, corpus], TARGETS[name].try_on)
        atheris.Fuzz()


def fuzz_all(cases: int, seed: int) -> int:
    from targets import TARGETS

    shares = {name: SLOW.get(name, 1.0) for name in TARGETS}
    failed = []
    for name, share in shares.items():
        count = round(cases * share / sum(shares.values()))
        print(f'{name}: {count} cases', flush=True)
        command = [sys.executable, str(HERE), name, str(count), str(seed)]
        with tempfile.TemporaryFile() as log:
            status = subprocess.run(command, stdout=log, stderr=log).returncode
            if status:
                log.seek(0)
                print(log.read().decode(errors='replace')[-5000:])
                failed.append(name)
    print(f'failed: {", ".join(failed)}' if failed else 'nothing failed')
    return len(failed)


def main() -> None:
    name, cases, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if name == 'all':
        sys.exit(fuzz_all(cases, seed))
    fuzz(name, cases, seed)


if __name__ == '__main__':
    main()
