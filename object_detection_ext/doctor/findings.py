# SPDX-License-Identifier: Apache-2.0
"""What the doctor finds: one finding for each kind of fault in a file, however often it occurs."""

import dataclasses
from collections.abc import Iterable, Sequence

ERROR, WARNING = "error", "warning"
# How many places and values a finding names; it counts all of them.
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
      rows: the first lines of the file with the fault, from 1; empty where it has no lines.
      value: the first example's value, as the file has it.
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

    def to_dict(self) -> dict:
        """The finding for machines."""
        return dataclasses.asdict(self)


def first(items: Iterable) -> tuple:
    """Returns the first few items as Python values."""
    items = items[:MAX_EXAMPLES] if isinstance(items, Sequence) else list(items)[:MAX_EXAMPLES]
    return tuple(item.item() if hasattr(item, "item") else item for item in items)


def in_words(items: Sequence) -> str:
    """Returns the first few items and how many more there are."""
    more = f" and {len(items) - MAX_EXAMPLES:,} more" if len(items) > MAX_EXAMPLES else ""
    return ", ".join(str(item) for item in items[:MAX_EXAMPLES]) + more


def sort_key(finding: Finding) -> tuple:
    """Errors first, then by file; within a file in the order of the checks (sorting is stable)."""
    return finding.severity != ERROR, finding.file
