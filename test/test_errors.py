"""Messages: one line that every terminal takes, whatever they quote."""

import pytest

from posenet_ros.errors import (
    MOST_CHARACTERS,
    MOST_QUOTED,
    ConfigError,
    GraphError,
    ImageError,
    PoseNetError,
    everything_as,
    in_words,
    printable,
    quoted,
    reason,
)


@pytest.mark.parametrize(
    ('text', 'shown'),
    [
        ('', ''),
        ('größe 姿势', 'größe 姿势'),
        ('two\nlines', 'two lines'),
        ('\x1b[31mred\a', '\\x1b[31mred\\x07'),
        ('no\udcffutf-8', 'no\\udcffutf-8'),
    ],
)
def test_text_is_one_line_of_characters_that_can_be_shown(text, shown):
    assert printable(text) == shown
    assert str(PoseNetError(text)) == shown


@pytest.mark.parametrize(
    ('text', 'most', 'shown'),
    [
        ('0123456789ab', 12, '0123456789ab'),
        ('0123456789abc', 12, '012345678 ... abc'),
        ('\0' * 12, 12, '\\x00\\x00\\ ... x00'),  # escaped, it is four times as long
    ],
)
def test_middle_of_a_long_text_is_left_out(text, most, shown):
    assert printable(text, most) == shown


def test_messages_and_what_they_quote_are_bounded():
    assert str(PoseNetError('x' * MOST_CHARACTERS)) == 'x' * MOST_CHARACTERS
    assert str(PoseNetError('x' * (MOST_CHARACTERS + 1))).count('x') == MOST_CHARACTERS
    assert (MOST_CHARACTERS, MOST_QUOTED) == (2000, 100)
    assert quoted('x' * 1000).count('x') == MOST_QUOTED
    assert quoted("it's\n") == '"it\'s "'


@pytest.mark.parametrize(
    ('error', 'why'),
    [
        (FileNotFoundError(2, 'No such file or directory'), 'No such file or directory'),
        (OSError('of our own'), 'of our own'),
        (ValueError('bad\nvalue'), 'bad\nvalue'),
        (MemoryError(), 'MemoryError'),
    ],
)
def test_reason_is_the_text_without_the_systems_number(error, why):
    assert reason(error) == why


def test_unforeseen_error_is_told_with_its_kind():
    assert in_words(KeyError('a\nb')) == "KeyError: 'a\\nb'"
    assert in_words(ValueError('a\nb')) == 'ValueError: a b'


def test_any_error_within_becomes_ours_and_keeps_its_cause():
    with pytest.raises(ImageError) as caught, everything_as(ImageError, 'cannot read a.png'):
        raise OSError(28, 'No space left on device')
    assert str(caught.value) == 'cannot read a.png (OSError: No space left on device)'
    assert isinstance(caught.value.__cause__, OSError)


def test_our_own_errors_and_interrupts_pass_as_they_are():
    for error in (GraphError('ours'), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, everything_as(ImageError, 'cannot read'):
            raise error
        assert caught.value is error


def test_invalid_options_and_images_are_value_errors_too():
    assert issubclass(ConfigError, ValueError) and issubclass(ImageError, ValueError)
