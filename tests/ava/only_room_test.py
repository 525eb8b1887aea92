# SPDX-License-Identifier: Apache-2.0
"""Nothing outside of ava/ parses or writes AVA's files, or knows how a timestamp is written."""

import ast
import pathlib

import pytest

_PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "object_detection_ext"
_ROOM = _PACKAGE / "ava"

# Modules whose use is parsing or writing of these files, and who else may use them, and why.
_MODULES = {
    "csv": {},
    "pyarrow": {},
    "object_detection.protos.string_int_label_map_pb2": {},
    "object_detection.utils.label_map_util": {
        "pipeline_check.py": "looks whether the stock API, which trains, reads a label map",
        "checkpoints/class_names.py": "compares the label maps that the stock API trained with",
        "data/input_check.py": "compares records with the names that the stock decoder has",
        "loops/metric_names.py": "names metrics as the stock evaluation does",
        "builders.py": "counts records by the names that the stock decoder has",
        "detection/video_meta_arch.py": "names pictures as the stock evaluation does",
    },
}


def _imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def _split_at_commas(tree: ast.AST) -> list[int]:
    """Lines with `text.split(",")` of something that is read, and rows put together by hand."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            is_split = node.func.attr in ("split", "rsplit", "partition", "rpartition")
            arguments = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if is_split and "," in arguments:
                found.append(node.lineno)
        # f"{video_id},{timestamp}..."
        if isinstance(node, ast.JoinedStr):
            parts = [part.value for part in node.values if isinstance(part, ast.Constant)]
            if sum(part == "," for part in parts) >= 4 or any("item {" in part for part in parts):
                found.append(node.lineno)
    return found


# What is split at commas, but is no row of AVA's.
_OTHER_COMMAS = {
    "importers/via.py": "ids of ticked options",
    "evaluation/command_lines.py": "thresholds of an option",
    "flops.py": "an equation of einsum",
    "evaluation/tube_protocols.py": "thresholds of an option",
    "devices.py": "a variable of the environment",
    "data/clip_names.py": "names of clips of whatever form, for people",
}


def _sources():
    for path in sorted(_PACKAGE.rglob("*.py")):
        if _ROOM not in path.parents:
            yield path.relative_to(_PACKAGE).as_posix(), ast.parse(path.read_text("utf-8"))


def test_no_other_module_reads_or_writes_csvs_and_label_maps():
    for name, tree in _sources():
        for module, exceptions in _MODULES.items():
            used = any(m == module or m.startswith(f"{module}.") for m in _imported(tree))
            assert not used or name in exceptions, f"{name} imports {module}: that is for ava/"


def test_no_other_module_splits_rows_or_puts_them_together():
    found = {name: _split_at_commas(tree) for name, tree in _sources() if name not in _OTHER_COMMAS}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "code",
    [
        "row = line.split(',')",
        "text = f'{video},{time},{x1},{y1},{x2},{y2},{action}'",
        "block = f'item {{ id: {i} }}'",
        "video, _, time = name.rpartition(',')",
    ],
)
def test_what_is_looked_for_is_found(code):
    assert _split_at_commas(ast.parse(code))


@pytest.mark.parametrize("code", ["import csv", "from pyarrow import csv", "import csv as rows"])
def test_imports_are_found(code):
    assert _imported(ast.parse(code)) & {"csv", "pyarrow"}


def test_exceptions_are_used():
    sources = dict(_sources())
    for exceptions in (*_MODULES.values(), _OTHER_COMMAS):
        for name in exceptions:
            tree = sources[name]
            assert _split_at_commas(tree) or _imported(tree) & _MODULES.keys(), name
