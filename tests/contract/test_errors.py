"""Errors of others, and ours, put into a line."""

import pytest

from emadeploy.contract.errors import EmadeployError, first_line, one_line


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("no such layer", "no such layer"),
        ("\n  no such layer \n  at conv.cpp:12\n", "no such layer"),
        ("no such layer\r\nat conv.cpp:12", "no such layer"),
        ("", "ValueError"),
        (" \n\n ", "ValueError"),
    ],
)
def test_the_first_line_of_an_error_is_what_it_says_or_is(message: str, line: str) -> None:
    assert first_line(ValueError(message)) == line


def test_a_message_of_several_lines_becomes_one() -> None:
    assert one_line(EmadeployError("  first\n  second\tthird\n")) == "first second third"
