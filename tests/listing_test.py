# SPDX-License-Identifier: Apache-2.0
"""The first entries of a list, and how many more there are."""

import pytest

from object_detection_ext import listing


@pytest.mark.parametrize(
    ("entries", "line", "lines"),
    [
        ([], "", []),
        (["a"], "a", ["  a"]),
        (["a", "b"], "a, b", ["  a", "  b"]),
        (["a", "b", "c"], "a, b and 1 more", ["  a", "  b", "  ... and 1 more"]),
        (["a"] * 1234, "a, a and 1,232 more", ["  a", "  a", "  ... and 1,232 more"]),
    ],
)
def test_the_first_two(entries, line, lines):
    assert listing.in_line(entries, limit=2) == line
    assert listing.in_lines(entries, limit=2) == lines
