"""Whatever comes from outside ends in what it should be, or in one of our errors."""

import pytest
from targets import TARGETS, changed, crc_mended


@pytest.mark.parametrize('name', TARGETS)
def test_examples_are_read_and_changed_ones_end_in_our_errors(name, fuzz):
    found = TARGETS[name]
    examples = found.examples()
    for example in examples:
        found.read(example) if name != 'heads_of_a_network' else found.try_on(example)
    dice = fuzz.dice
    for _ in range(fuzz.cases(300, 300)):
        data = changed(dice.choice(examples), dice)
        found.try_on(data)
        if data[1:9] == b'\x89PNG\r\n\x1a\n':
            found.try_on(data[:1] + crc_mended(data[1:]))


@pytest.mark.parametrize('name', TARGETS)
def test_bytes_of_no_meaning_end_in_our_errors(name):
    found = TARGETS[name]
    for data in (b'', b'\0', b'[' * 100_000, b'{"a":' * 100_000, b'\xff' * 1000, b'1e999', b'null'):
        found.try_on(data)
