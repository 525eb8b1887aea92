# SPDX-License-Identifier: Apache-2.0
"""docs/reliability.md: every row has a status and tests that exist."""

import ast
import functools
import pathlib
import re

import pytest

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_TEXT = (_ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
_TEST = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")


def _rows() -> list[list[str]]:
    """The cells of each row of the tables of faults."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in _TEXT.splitlines()
        if line.startswith("| ")
    ]
    return [cells for cells in rows if len(cells) == 4 and cells[0] != "fault"]


@functools.cache
def _tests_in(path: str) -> set[str]:
    tree = ast.parse((_ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("cells", _rows(), ids=lambda cells: cells[0][:40])
def test_row_names_a_status_and_tests_that_exist(cells):
    fault, happens, status, tests = cells
    assert fault and happens
    assert re.search(r"\d", status), f"no exit status: {fault}"
    named = _TEST.findall(tests)
    assert named, f"no test: {fault}"
    for path, name in named:
        assert name in _tests_in(path), f"{path} has no {name}"


def test_every_stage_has_rows():
    parts = re.split(r"^## ", _TEXT, flags=re.MULTILINE)[1:]
    assert {part.splitlines()[0] for part in parts} >= {
        *("Conversion", "Training", "Evaluation", "Export", "Detection"),
        "Evaluation of CSVs and the report",
    }
    assert all(part.count("::test_") for part in parts)
