"""Which bags a user means, and what their results are called."""

import pytest

from posenet_ros.errors import ImageError, PoseNetError
from posenet_ros.recordings.find import find_bags, is_one_bag

MCAP = b'\x89MCAP0\r\n'


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """day_1: a recording, one that was split and interrupted, a loose file. day_2: loose files."""
    for name in (
        'day_1/walk/metadata.yaml', 'day_1/walk/walk_0.mcap', 'day_1/cut/cut_0.mcap',
        'day_1/cut/cut_1.mcap', 'day_1/loose.mcap', 'day_2/a.db3', 'day_2/b.mcap.zstd',
        'day_2/old.bag', 'day_2/readme.md', 'day_2/.hidden.mcap', 'empty/notes.md',
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(MCAP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*texts, **options):
    return [found.name for found in find_bags(texts, **options)]


def test_folders_are_searched_to_the_bottom(tree):
    assert names('.') == [
        'day_1/cut', 'day_1/loose', 'day_1/walk', 'day_2/a', 'day_2/b', 'day_2/old',
    ]  # fmt: skip
    assert names('day_2') == ['a', 'b', 'old']
    assert names('day_1', 'day_2/a.db3') == ['a', 'cut', 'loose', 'walk']


def test_patterns_are_named_from_their_first_wildcard(tree):
    assert names('day_*') == names('.')
    assert names('day_2/*') == ['a', 'b', 'old']
    assert names('day_1/**') == ['cut', 'loose', 'walk']
    assert names(f'{tree}/**/*_0.mcap') == ['day_1/cut/cut_0', 'day_1/walk/walk_0']
    with pytest.raises(ImageError, match=r'nothing matches x\*'):
        find_bags(['x*'])


def test_lists_are_named_as_they_stand(tree):
    (tree / 'runs.txt').write_text(f'# of May\nday_1/walk\n\n{tree}/day_2/a.db3  # good\n')
    assert names('runs.txt') == ['day_1/walk', f'{str(tree)[1:]}/day_2/a']
    (tree / 'runs.txt').write_text('nowhere')
    with pytest.raises(ImageError, match=r'runs\.txt: there is no file or folder nowhere'):
        find_bags(['runs.txt'])


def test_results_among_the_bags_are_passed_over(tree):
    assert names('.', results=[tree.__class__('day_1')]) == ['day_2/a', 'day_2/b', 'day_2/old']


def test_same_names_keep_their_suffixes_or_are_refused(tree):
    (tree / 'day_2/a.mcap').write_bytes(MCAP)
    assert names('day_2') == ['a', 'a.mcap', 'b', 'old']
    (tree / 'other').mkdir()
    for name in ('a.mcap', 'c.mcap'):
        (tree / 'other' / name).write_bytes(MCAP)
    with pytest.raises(PoseNetError, match=r'a.mcap and other/a.mcap would both give the result'):
        find_bags(['day_2', 'other'])


def test_results_never_lie_in_each_other(tree):
    (tree / 'day_2/b').mkdir()
    (tree / 'day_2/b/c.mcap').write_bytes(MCAP)
    (tree / 'day_2/b/d.mcap').write_bytes(MCAP)
    assert names('day_2') == ['a', 'b.mcap.zstd', 'b/c', 'b/d', 'old']
    (tree / 'other/walk').mkdir(parents=True)
    (tree / 'other/walk/e.mcap').write_bytes(MCAP)
    (tree / 'other/f.mcap').write_bytes(MCAP)
    (tree / 'other/walk/g.mcap').write_bytes(MCAP)
    with pytest.raises(PoseNetError, match='would be a folder of other results'):
        find_bags(['day_1', 'other'])


def test_links_give_each_bag_once_and_lists_take_folders_and_patterns(tree):
    (tree / 'day_1/latest').symlink_to('walk')
    (tree / 'day_1/again').symlink_to('.')
    assert names('day_1') == ['cut', 'loose', 'walk']
    (tree / 'runs.txt').write_text('day_1\nday_2/*.db3\n')
    assert names('runs.txt') == ['a', 'day_1/cut', 'day_1/loose', 'day_1/walk']
    assert names('day_1', results=[tree / 'day_1/walk']) == ['cut', 'loose']
    assert names('day_1/walk/*.mcap') == ['walk_0']


def test_nothing_is_an_error(tree):
    with pytest.raises(PoseNetError, match='there is no bag in empty'):
        find_bags(['empty'])
    with pytest.raises(ImageError, match='there is no file or folder nowhere'):
        find_bags(['nowhere'])


@pytest.mark.parametrize(
    ('texts', 'one'),
    [
        (['day_1/walk'], True),
        (['day_1/cut'], True),
        (['day_1/loose.mcap'], True),
        (['nowhere'], True),
        (['day_1'], False),
        (['day_2'], False),
        (['day_2/*.db3'], False),
        (['runs.txt'], False),
        (['day_1/walk', 'day_1/cut'], False),
    ],
)
def test_one_bag_is_told_from_many(tree, texts, one):
    assert is_one_bag(texts) == one
