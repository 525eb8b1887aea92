# SPDX-License-Identifier: Apache-2.0
"""The first entries of a list, and how many more there are."""

import pathlib
import re

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


@pytest.mark.parametrize(
    ("number", "counted", "part", "verb"),
    [
        (0, "0 boxes", "0 of 0 boxes", "have"),
        (1, "1 box", "1 of 1 box", "has"),
        (2, "2 boxes", "2 of 2 boxes", "have"),
        (1234, "1,234 boxes", "1,234 of 1,234 boxes", "have"),
    ],
)
def test_counts_and_what_goes_with_them(number, counted, part, verb):
    assert listing.counted(number, "box", "boxes") == counted
    assert listing.counted(number, "row") == f"{number:,} {'row' if number == 1 else 'rows'}"
    assert listing.part(number, number, "box", "boxes") == part
    assert listing.part(1, 3, "row") == "1 of 3 rows"
    assert listing.verb(number, "has", "have") == verb


# "of 1 videos", "1 rows": counts are put together with their noun by `listing`.
_NOUNS = "fields|videos|rows|frames|keyframes|moments|people|boxes|files|tubes|scores|actions|clips"
_COUNTED = re.compile(r"\}(?: more)? (?:" + _NOUNS + r")\b(?!/s| (?:a|per) second)")
# Numbers that cannot be 1, or are not counts of what follows.
_MAY = {
    "of {num_frames} frames", "takes {num_frames} frames", "of {self.num_frames} frames",
    "of {model.num_frames} frames", "of {clip.num_frames} frames", "of {exported} frames",
    "of {made.videos} videos", "than the {linking.min_keyframes} keyframes",
    "times, {made.videos:,} videos were",
}  # fmt: skip


@pytest.mark.parametrize(
    "room",
    [
        "*.py", "ava", "checkpoints", "conversion", "data", "doctor", "evaluation", "importers",
        "inference", "loops", "report", "serving", "tools", "visualization",
    ],
)  # fmt: skip
def test_messages_do_not_count_one_in_the_plural(room):
    package = pathlib.Path(listing.__file__).parent
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted(package.glob(room) if "*" in room else (package / room).rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if _COUNTED.search(line) and not any(part in line for part in _MAY)
    ]
    assert found == []
