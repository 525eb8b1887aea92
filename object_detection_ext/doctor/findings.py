# SPDX-License-Identifier: Apache-2.0
"""What the doctor finds: one finding for each kind of fault in a file, however often it occurs."""

import dataclasses
from collections.abc import Sequence

from object_detection_ext import listing

ERROR, WARNING = "error", "warning"
# How many rows a finding keeps; it counts all of them.
MAX_ROWS = 100
# How many rows and values its text names.
MAX_EXAMPLES = 5


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of fault in one file.

    Attributes:
      code: the kind, stable from version to version.
      severity: `ERROR` where the work ahead fails, or loses or misreads data; `WARNING` where it
        goes on, but perhaps not as meant.
      file: the file or folder with the fault.
      message: what is wrong, with the first example.
      advice: what would be right.
      count: how often it occurs, in `unit`.
      unit: what is counted, in the plural.
      rows: the first lines of the file with the fault, from 1, up to `MAX_ROWS`.
      value: the first example's value, as the file has it.
      items: all videos, files, classes or labels with the fault, with what is wrong where that
        differs; empty for faults of rows.
    """

    code: str
    severity: str
    file: str
    message: str
    advice: str
    count: int = 1
    unit: str = "rows"
    rows: tuple[int, ...] = ()
    value: str = ""
    items: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        """The finding for machines."""
        return dataclasses.asdict(self)


def in_words(items: Sequence) -> str:
    """Returns the first few items and how many more there are."""
    all_in = " (--json has all)" * (len(items) > MAX_EXAMPLES)
    return listing.in_line([str(item) for item in items], MAX_EXAMPLES) + all_in


def sort_key(finding: Finding) -> tuple:
    """Errors first, then by file; within a file in the order of the checks (sorting is stable)."""
    return finding.severity != ERROR, finding.file
