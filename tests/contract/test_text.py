"""Text of options: what is taken, and that everything else is one line."""

from __future__ import annotations

import pytest

from alchemdriver.contract import text
from alchemdriver.errors import InputError

TAKEN = [
    (text.parse_list, ("a, b,,c",), ["a", "b", "c"]),
    (text.parse_list, ("",), []),
    (text.parse_numbers, ("100 300,5e2", "t"), (100.0, 300.0, 500.0)),
    (text.parse_counts, ("1, 12", "n"), [1, 12]),
    (text.parse_assignment, ("a=3.19",), ("a", 3.19)),
    (text.parse_assignment, ("a=x",), ("a", None)),
    (text.parse_assignment, ("biaxial",), ("biaxial", None)),
    (text.parse_supercell, ("2X3x10",), (2, 3, 10)),
    (text.parse_wall_time, ("2-01:00:30",), 2 * 86400.0 + 3630.0),
    (text.parse_sites, ("0;5, 7",), [0, 5, 7]),
    (text.parse_potentials, ("I=-1.5 Cs=2",), {"I": -1.5, "Cs": 2.0}),
]


@pytest.mark.parametrize(("parse", "given", "expected"), TAKEN)
def test_what_is_meant(parse, given, expected):
    assert parse(*given) == expected


@pytest.mark.parametrize(
    ("parse", "given", "words"),
    [
        (text.parse_numbers, ("warm", "t"), "t: expected numbers, got 'warm'"),
        (text.parse_numbers, ("1 2", "t", 1), "expected 1 number"),
        (text.parse_numbers, ("", "t"), "one or more"),
        (text.parse_counts, ("", "n"), "n: expected whole numbers"),
        (text.parse_counts, ("1,0", "n"), "whole numbers"),
        (text.parse_counts, ("1.5", "n"), "whole numbers"),
        (text.parse_supercell, ("2x2x²",), "such as 2x2x2"),
        (text.parse_wall_time, ("0:00",), "expected a time"),
        (text.parse_sites, ("²",), "expected indices"),  # a digit to Python, but no number
        (text.parse_potentials, ("=1",), "ELEMENT=eV"),
        (text.parse_potentials, ("I=nan",), "ELEMENT=eV"),
    ],
)
def test_what_is_not_is_one_line(parse, given, words):
    with pytest.raises(InputError, match=words) as caught:
        parse(*given)
    assert "\n" not in str(caught.value)
