"""Which bags are meant: one, folders of them, patterns, lists; on disks or in object stores."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from posenet_ros.errors import ImageError, PoseNetError, reason
from posenet_ros.io.source import BAG_SUFFIXES, expect, find_source, without_zstandard
from posenet_ros.recordings.storage import errors_of, is_remote, path_of

LIST_SUFFIXES = ('.txt', '.list')

logger = logging.getLogger('posenet_ros')


class Found(NamedTuple):
    """A bag, and what its result is called below the folder of results: day_1/run_7."""

    name: str
    path: Path


def is_one_bag(texts: Sequence[str]) -> bool:
    """Whether what a user gives is one bag, and nothing that stands for several."""
    if len(texts) != 1 or has_magic(texts[0]) or texts[0].endswith(LIST_SUFFIXES):
        return False
    path = path_of(texts[0])
    with _errors_of(path):
        return not (path.is_dir() and not is_bag(path))


def find_bags(texts: Sequence[str], results: Sequence[Path] = ()) -> list[Found]:
    """The bags that a user means, in the order of their names.

    Args:
        texts: bags, folders that have bags somewhere below, patterns such as runs/*.mcap, and
            files NAME.txt or NAME.list with one of these in each line; # begins a comment.
        results: folders that are passed over: those of the results, which may lie among the bags.

    Raises:
        PoseNetError: there are none, or two would have the same name.
        ImageError: there is nothing of that name, or it is no bag.
    """
    found: dict[str, Path] = {}
    for name, path in _all_of(texts):
        if any(_is_within(path, folder) for folder in results):
            continue
        if found.setdefault(name, path) != path:
            # run.mcap beside run.db3
            name = f'{name}{"".join(path.suffixes)}'
            if found.setdefault(name, path) != path:
                raise PoseNetError(
                    f'{found[name]} and {path} would both give the result {name}; put them into '
                    'two results'
                )
    if not found:
        raise PoseNetError(f'there is no bag in {", ".join(texts)}')
    folders = {str(folder) for name in found for folder in PurePosixPath(name).parents}
    for name in folders & found.keys():
        # run.mcap beside run/, which has bags: their results would lie in that of run.mcap.
        path = found.pop(name)
        if found.setdefault(f'{name}{"".join(path.suffixes)}', path) != path or not path.suffixes:
            raise PoseNetError(
                f'the result of {path} would be a folder of other results; put them into two'
            )
    return [Found(name, found[name]) for name in sorted(found)]


def _all_of(texts: Iterable[str]) -> Iterator[Found]:
    for text in texts:
        with _errors_of(path_of(text)):
            yield from _of(text)


def _of(text: str) -> Iterator[Found]:
    path = path_of(text)
    if has_magic(text) and not path.exists():
        yield from _of_pattern(text)
        return
    if text.endswith(LIST_SUFFIXES):
        yield from _of_list(path)
    elif path.is_dir() and not is_bag(path):
        yield from _below(path, path)
    else:
        if not is_remote(path):
            expect(find_source(text), ('bag',))
        elif not path.exists():
            raise ImageError(f'there is no file or folder {path}')
        yield Found(_result_name(PurePosixPath(path.name)), path)


def _of_pattern(text: str) -> Iterator[Found]:
    """Named by their path below the folder before the first wildcard."""
    parts = text.split('/')
    fixed = next(i for i, part in enumerate(parts) if has_magic(part))
    base = path_of('/'.join(parts[:fixed]) or ('/' if text.startswith('/') else '.'))
    matches = sorted(base.glob('/'.join(parts[fixed:])))
    if not matches:
        raise ImageError(f'nothing matches {text}')
    bags: set[Path] = set()
    for path in matches:
        if (path == base and is_bag(base)) or not bags.isdisjoint(path.parents):
            continue  # a file of a bag that matches itself
        if any(part.startswith('.') for part in path.relative_to(base).parts):
            continue  # as in a shell
        if path.is_dir() and not is_bag(path):
            yield from _below(path, base)
        elif path.is_dir() or _has_a_bags_name(path):
            bags.add(path)
            yield Found(_result_name(_relative(path, base)), path)


def _of_list(file: Path) -> Iterator[Found]:
    """Named by their path as it stands in the list; a relative one begins at the list's folder."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise ImageError(f'cannot read the list {file}: {reason(error)}') from error
    for line in lines:
        text = line.partition('#')[0].strip()
        if not text:
            continue
        given = path_of(text)
        path = given if is_remote(given) or given.is_absolute() else file.parent / text
        if has_magic(text) and not path.exists():
            yield from _of_pattern(str(path))
        elif path.is_dir() and not is_bag(path):
            for found in _below(path, path):
                yield Found(str(_without_root(text) / found.name), found.path)
        elif path.exists():
            yield Found(_result_name(_without_root(text)), path)
        else:
            raise ImageError(f'{file}: there is no file or folder {path}')


def _below(folder: Path, base: Path, seen: set[Path] | None = None) -> Iterator[Found]:
    """All bags of a folder, however deep, by their path below `base`; each once, despite links."""
    seen = set() if seen is None else seen
    seen.add(folder.resolve())
    # What is itself there before what links to it.
    inside = sorted(folder.iterdir(), key=lambda path: (path.is_symlink(), path.name))
    for path in inside:
        if path.name.startswith('.') or re.search(r'\.partial(\.|$)', path.name):
            continue
        if path.resolve() in seen:
            continue
        seen.add(path.resolve())
        if path.is_dir():
            try:
                if is_bag(path):
                    yield Found(_result_name(_relative(path, base)), path)
                else:
                    yield from _below(path, base, seen)
            except PermissionError as error:
                logger.warning('%s is passed over: %s', path, reason(error))
        elif _has_a_bags_name(path):
            yield Found(_result_name(_relative(path, base)), path)


def _errors_of(path: Path) -> AbstractContextManager[None]:
    """Turns what an object store raises into our errors."""
    return errors_of(path) if is_remote(path) else nullcontext()


def is_bag(folder_or_file: Path) -> bool:
    """Whether this is one bag; a folder of files that were recorded one by one is several."""
    path = folder_or_file
    if not path.is_dir():
        return True
    inside = [file for file in path.iterdir() if not file.name.startswith('.')]
    names = [file.name for file in inside]
    if 'metadata.yaml' in names:
        return True
    if any(file.is_dir() for file in inside):
        return False
    files = [name for name in names if _has_a_bags_name(Path(name)) and '.bag' not in name]
    # NAME_0.mcap, NAME_1.mcap are what one recording is split into.
    stems = [without_zstandard(Path(name)).stem for name in files]
    whole = {re.sub(r'_\d+$', '', stem) for stem in stems}
    split = all(re.search(r'_\d+$', stem) for stem in stems)
    return len(whole) == 1 and (split or stems == [path.name])


def _is_within(path: Path, folder: Path) -> bool:
    if is_remote(path) or is_remote(folder):
        return str(path) == str(folder) or str(path).startswith(f'{str(folder).rstrip("/")}/')
    return path.resolve().is_relative_to(folder.resolve())


def _has_a_bags_name(path: Path) -> bool:
    return without_zstandard(Path(path.name)).suffix in BAG_SUFFIXES


def _result_name(path: PurePosixPath) -> str:
    """The name without the suffixes of a bag's file."""
    name = without_zstandard(Path(path.name))
    return str(path.with_name(name.stem if name.suffix in BAG_SUFFIXES else path.name))


def _relative(path: Path, base: Path) -> PurePosixPath:
    return PurePosixPath(path.relative_to(base).as_posix())


def _without_root(text: str) -> PurePosixPath:
    """A path as a relative one: of s3://bucket/run and /bucket/run, bucket/run."""
    path = PurePosixPath(text.partition('://')[2] or text)
    return PurePosixPath(*(part for part in path.parts if part not in ('/', '..', '.')))
