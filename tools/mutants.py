"""Tests the tests: puts one small fault after another into a module, and runs its tests.

Usage: VENV/bin/python tools/mutants.py MODULE [MOST] [SEED]
For instance: python tools/mutants.py posenet_ros/config.py

Cosmic Ray makes the mutants, and one operator of our own: a statement is left out. It would start
Python for each, which imports for seconds; here each runs in a fork of a process that has imported
everything but the package. Loops run as Python. MOST takes a sample, of which SEED is the seed.
doc/mutants.md has the results.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import parso
import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider

PACKAGE = Path(__file__).resolve().parent.parent / 'posenet_ros'
PARALLEL = 2
MEMORY = 6 << 30  # of one run
OUTCOMES = {0: 'survived', signal.SIGKILL: 'timed out'}  # of a process's status; any other: killed

# The tests of each module: those that take a second or two.
FAST = '-k=not every_checkpoint and not processes_that_want and not to_the_last_bit'
FEW_CELLS = (
    '-k=not second_root and not 65-65 and not d02 and not d04 and not d09 and not d11 and not d13 '
    'and not d16 and not d21 and not d31'
)
DOCUMENTS = 'test/package/test_package.py::test_parameter_documents_come_from_the_table'
TESTS = {
    'config.py': ['test/test_config.py', DOCUMENTS],
    'input_size.py': ['test/test_input_size.py', 'test/test_config.py'],
    'errors.py': ['test/test_errors.py'],
    'cache.py': ['test/test_cache.py', FAST],
    'atomic_file.py': ['test/test_atomic_file.py', 'test/test_cache.py', FAST],
    'model/tfjs_graph.py': ['test/model/test_tfjs_graph.py', FAST],
    'io/picture_header.py': ['test/io/test_picture_header.py'],
    'ros/serialized_image.py': ['test/ros/test_serialized_image.py'],
    'core/decode.py': ['test/core/test_decode.py', 'test/core/test_refined.py', FEW_CELLS],
    'core/preprocess.py': ['test/core/test_preprocess.py', FAST],
}

# Of Cosmic Ray's operators, one or two for each token of Python: most others fail at once.
OPERATORS = re.compile(
    'ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Mod_FloorDiv|Pow_Mul|'
    'RShift_LShift|LShift_RShift|BitOr_BitAnd|BitAnd_BitOr|BitXor_BitOr)|'
    'ReplaceComparisonOperator_(Eq_NotEq|NotEq_Eq|Lt_LtE|Lt_GtE|LtE_Lt|LtE_Gt|Gt_GtE|Gt_LtE|'
    'GtE_Gt|GtE_Lt|Is_IsNot|IsNot_Is)|'
    'ReplaceUnaryOperator_(USub_UAdd|Delete_USub|Delete_Invert|Delete_Not)|'
    'AddNot|Replace(TrueWithFalse|FalseWithTrue|AndWithOr|OrWithAnd)|'
    'Replace(BreakWithContinue|ContinueWithBreak)|ExceptionReplacer|NumberReplacer|'
    'RemoveDecorator|ZeroIterationForLoop'
)
STATEMENTS = ('expr_stmt', 'atom_expr', 'raise_stmt', 'return_stmt', 'assert_stmt')


class RemoveStatement(Operator):
    """Leaves out an assignment, a call, a raise or a return."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        if node.type == 'simple_stmt' and node.children[0].type in STATEMENTS:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        return parso.parse(f'{node.get_first_leaf().prefix}pass\n')

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


@dataclass(frozen=True)
class Mutant:
    operator: type[Operator]
    occurrence: int
    line: int

    def of(self, source: str) -> str:
        return str(mutate_code(source, self.operator(), self.occurrence))


def mutants_of(source: str) -> list[Mutant]:
    """All mutants but those of annotations, and of @jit, which does nothing here."""
    provider = OperatorProvider()
    operators = [provider[name] for name in provider if OPERATORS.fullmatch(name)]
    annotations = list(annotations_of(source))
    nodes, lines = list(ast_nodes(get_ast(source))), source.splitlines()
    found = []
    for operator in (*operators, RemoveStatement):
        positions = [place for node in nodes for place in operator().mutation_positions(node)]
        for occurrence, (start, end) in enumerate(positions):
            line = lines[start[0] - 1]
            if operator.__name__ == 'RemoveDecorator' and line == '@jit':
                continue
            if operator.__name__ == 'ExceptionReplacer' and '.' in line[start[1] : end[1]]:
                continue  # Cosmic Ray cannot
            if not any(first <= start < last for first, last in annotations):
                found.append(Mutant(operator, occurrence, start[0]))
    return sorted(found, key=lambda mutant: mutant.line)


def annotations_of(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where annotations are that nothing evaluates: all but those with a msgspec.Meta."""
    for node in ast.walk(ast.parse(source)):
        for name in ('annotation', 'returns'):
            part = getattr(node, name, None)
            if part is not None and 'Meta' not in ast.dump(part):
                yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


def run_tests(path: Path, source: str, folder: Path) -> int:
    """Runs the tests of a module in this process, with another source. Returns pytest's status."""
    get_code = SourceFileLoader.get_code

    def changed(loader: SourceFileLoader, name: str) -> Any:
        if Path(loader.path).resolve() == path:
            return compile(source, loader.path, 'exec')
        return get_code(loader, name)

    SourceFileLoader.get_code = changed  # type: ignore[method-assign]
    tests = TESTS[str(path.relative_to(PACKAGE))]
    options = ['-x', '-q', '-m', 'not slow', '-p', 'no:cacheprovider', '--basetemp', str(folder)]
    return int(pytest.main([*tests, *options]))


def forked(run: Callable[[], int], output: str = os.devnull) -> int:
    """Starts a function in a process of its own. Returns its number."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        file = os.open(output, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
        status = run()
    finally:
        os._exit(status)


def check_tests(path: Path, source: str, folder: Path) -> float:
    """Runs the tests without a fault, and imports what they import. Returns their seconds."""

    def run() -> int:
        status = run_tests(path, source, folder / 'tests')
        names = [
            name
            for name, module in list(sys.modules.items())
            if '/site-packages/' in str(getattr(module, '__file__', None))
            and not name.startswith(('posenet_ros', 'pytest', '_pytest'))
        ]
        (folder / 'imported').write_text('\n'.join(names))
        return status

    for _ in range(2):  # the second time with all imports done, as the mutants run
        started = time.monotonic()
        process = forked(run, str(folder / 'output'))
        if os.waitpid(process, 0)[1]:
            raise SystemExit((folder / 'output').read_text())
        seconds = time.monotonic() - started
        for name in (folder / 'imported').read_text().split():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    return seconds


def outcomes_of(
    path: Path, source: str, mutants: list[Mutant], seconds: float, folder: Path
) -> Iterator[tuple[Mutant, str]]:
    """Runs the tests on each mutant, PARALLEL at a time."""
    waiting = list(enumerate(mutants))[::-1]
    running: dict[int, tuple[Mutant, float]] = {}
    while waiting or running:
        while waiting and len(running) < PARALLEL:
            number, mutant = waiting.pop()
            changed, tests = mutant.of(source), folder / str(number)
            process = forked(lambda changed=changed, tests=tests: run_tests(path, changed, tests))
            running[process] = mutant, time.monotonic() + seconds
        time.sleep(0.01)
        for process, (mutant, deadline) in list(running.items()):
            if time.monotonic() > deadline:
                os.killpg(process, signal.SIGKILL)
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                del running[process]
                yield mutant, OUTCOMES.get(status, 'killed')


def difference(before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), n=0)
    return ''.join(line for line in lines if not line.startswith(('---', '+++', '@@')))


def main(module: str, most: str = '0', seed: str = '1') -> None:
    path = Path(module).resolve()
    source = path.read_text()
    mutants = mutants_of(source)
    tried = mutants
    if 0 < int(most) < len(mutants):
        tried = random.Random(int(seed)).sample(mutants, int(most))
        tried.sort(key=lambda mutant: mutant.line)
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        seconds = 10 + 5 * check_tests(path, source, folder)
        for mutant, outcome in outcomes_of(path, source, tried, seconds, folder):
            counts[outcome] += 1
            if outcome != 'killed':
                print(f'{outcome}: {module}:{mutant.line} {mutant.operator.__name__}')
                print(difference(source, mutant.of(source)), flush=True)
    print(
        f'{module}: {len(tried)} of {len(mutants)} mutants, {counts["killed"]} killed, '
        f'{counts["timed out"]} timed out, {counts["survived"]} survived'
    )


if __name__ == '__main__':
    os.environ['NUMBA_DISABLE_JIT'] = '1'
    main(*sys.argv[1:])
