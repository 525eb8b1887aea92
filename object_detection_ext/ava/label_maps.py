# SPDX-License-Identifier: Apache-2.0
"""Label maps: the names of action ids, as the stock API writes them or as the AVA release does.

Blocks `item { name: ".." id: 3 }`, or in the release's own form, which has groups of classes too,
`label { name: ".." label_id: 3 label_type: PERSON_MOVEMENT }`.
"""

import codecs
import dataclasses
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from google.protobuf import text_encoding

from object_detection_ext import files, listing, printable
from object_detection_ext.ava.faults import AnnotationError

Category = dict[str, int | str]

_EXAMPLE = "item { name: 'stand' id: 12 }"
_AVA_FORM = (
    "this one is in the form of AVA v2.2's own list, which the stock API does not read; the same "
    "classes are in label_maps/ava_80.pbtxt"
)
_TOKEN = re.compile(
    r"""(?P<skip>[\s,;]+|\#[^\n]*)|(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|(?P<mark>[{}<>:\[\]])|(?P<word>[^\s{}<>:\[\]"'\#,;]+)"""
)
_CURLY = "\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f"
_BLOCKS = ("item", "label")
# The stock API keeps ids in 32 bits.
_MAX_ID = 2**31 - 1
# Of ids in messages.
_MAX_RANGES = 30
# What a block may have for the stock API beside its id; what is else in it, that does not read.
_STOCK_FIELDS = frozenset(
    ("name", "id", "display_name", "keypoints", "ancestor_ids", "descendant_ids", "frequency",
     "instance_count")
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Label:
    """A class.

    Attributes:
        line: where its block begins, from 1.
        id: from 1.
        name: what it is called.
        type: its group, such as PERSON_MOVEMENT; empty without one.
    """

    line: int
    id: int
    name: str
    type: str


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """A file.

    Attributes:
        path: of the file.
        labels: in the order of the file.
        ava_form: whether a block is in the form of the AVA release, which has groups.
        notes: what was taken here although the stock API, which trains, would not, in words.
    """

    path: str
    labels: tuple[Label, ...]
    ava_form: bool
    notes: tuple[str, ...]


class _Faults:
    """Raises errors with file and line."""

    def __init__(self, path: str):
        self._path = path

    def error(self, line: int, text: str) -> AnnotationError:
        return AnnotationError(f"{self._path}, line {line}: {text}; this is not a label map.")


def _tokens(text: str, faults: _Faults) -> Iterator[tuple[str, str, int]]:
    """Yields (kind, token, line), comments left out."""
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise faults.error(line, "a quoted text is not closed on its line")
        token, kind = match.group(), match.lastgroup
        if kind == "word" and any(mark in token for mark in _CURLY):
            curly = next(mark for mark in token if mark in _CURLY)
            raise faults.error(
                line,
                f"{token!r} has a curly quotation mark ({curly}), as word processors write them; "
                "use straight ones (' or \")",
            )
        if kind == "text":
            yield kind, _unescaped(token[1:-1], line, faults), line
        elif kind != "skip":
            yield kind, token, line
        position, line = match.end(), line + token.count("\n")


def _unescaped(text: str, line: int, faults: _Faults) -> str:
    try:
        return text_encoding.CUnescape(text).decode() if "\\" in text else text
    except ValueError as error:
        raise faults.error(line, f"{text!r} is no quoted text ({error})") from None


@dataclasses.dataclass
class _Block:
    kind: str
    line: int
    fields: dict[str, str] = dataclasses.field(default_factory=dict)
    quoted: set[str] = dataclasses.field(default_factory=set)


class _Blocks:
    """Puts tokens together to the outermost blocks; those nested in them are left out."""

    def __init__(self, faults: _Faults):
        self._faults = faults
        self._open: list[_Block] = []
        self._key: str | None = None

    def add(self, kind: str, token: str, line: int) -> _Block | None:
        """Takes a token; returns a block that it closes."""
        if kind == "mark":
            return self._add_mark(token, line)
        if kind == "word" and self._key is None:
            self._key = token
        elif self._key is None or not self._open:
            raise self._faults.error(line, f"{token!r} stands where no value is expected")
        else:
            self._set(kind, token, line)
        return None

    def _add_mark(self, token: str, line: int) -> _Block | None:
        if token in "{<":
            self._begin(line)
        elif token in "}>":
            if not self._open:
                raise self._faults.error(line, f"{token!r} closes nothing")
            if self._key is not None:
                raise self._faults.error(line, f"{self._key!r} has no value")
            block = self._open.pop()
            return None if self._open else block
        elif token in "[]":
            # Lists, such as `ancestor_ids: [1, 2]`, are of no use here.
            if len(self._open) < 2 and self._key in ("id", "label_id", "name"):
                raise self._faults.error(line, f"{self._key} is a list")
            self._key = None if token == "]" else self._key
        elif self._key is None:
            raise self._faults.error(line, "':' stands where a name is expected")
        return None

    def _begin(self, line: int) -> None:
        key, self._key = self._key, None
        if not self._open and key not in _BLOCKS:
            called = "without a name" if key is None else f"called {key!r}"
            raise self._faults.error(line, f"a block {called}; each class is one: {_EXAMPLE}")
        self._open.append(_Block(key or "", line))

    def _set(self, kind: str, token: str, line: int) -> None:
        if len(self._open) == 1:
            if self._key in self._open[0].fields and self._key in ("id", "label_id", "name"):
                raise self._faults.error(line, f"{self._key!r} stands twice in one block")
            self._open[0].fields[self._key] = token
            if kind == "text":
                self._open[0].quoted.add(self._key)
        self._key = None

    def end(self, line: int) -> None:
        """Raises AnnotationError unless all is closed."""
        if self._open:
            raise self._faults.error(self._open[0].line, "this block is not closed")
        if self._key is not None:
            raise self._faults.error(line, f"{self._key!r} is no block such as {_EXAMPLE}")


def _label_blocks(text: str, faults: _Faults) -> Iterator[_Block]:
    blocks, line = _Blocks(faults), 1
    for kind, token, line in _tokens(text, faults):
        block = blocks.add(kind, token, line)
        if block is not None:
            yield block
    blocks.end(line)


def _label(block: _Block, faults: _Faults) -> Label:
    fields = block.fields
    id_text = fields.get("id", fields.get("label_id"))
    if id_text is None:
        raise faults.error(block.line, "a block without an 'id' or a 'label_id'")
    # Of a number that begins with 0, protobuf takes the digits for octal.
    if not re.fullmatch(r"-?(?:0|[1-9][0-9]{0,17})", id_text) or int(id_text) > _MAX_ID:
        raise faults.error(
            block.line,
            f"id {id_text!r} is not a whole number from 1 to {_MAX_ID} without zeros before it",
        )
    if block.quoted & {"id", "label_id"}:
        raise faults.error(block.line, f"id {id_text!r} has quotation marks; write it without")
    for key in ("name", "display_name"):
        if key in fields and key not in block.quoted:
            raise faults.error(
                block.line, f'{key} {fields[key]} has no quotation marks; write "{fields[key]}"'
            )
    name = fields.get("name", "").strip() and fields["name"] or fields.get("display_name", "")
    return Label(block.line, int(id_text), name, fields.get("label_type", ""))


def _is_background(label: Label) -> bool:
    return label.id == 0 and label.name.lower() in ("background", "__background__", "bg")


def _problems(labels: Iterable[Label], needs_names: bool) -> Iterator[str]:
    """What is wrong with ids and names, line by line."""
    by_id: dict[int, Label] = {}
    by_name: dict[str, Label] = {}
    for label in labels:
        where, first = f"line {label.line}", by_id.setdefault(label.id, label)
        if label.id < 1:
            yield f"{where}: id {label.id} of {label.name!r} must be at least 1 (0 is background)"
        elif first is not label:
            yield (
                f"{where}: id {label.id} stands twice: {first.name!r} (line {first.line}) and "
                f"{label.name!r}"
            )
        elif not label.name and not needs_names:
            continue
        elif not label.name:
            yield f"{where}: id {label.id} has no name"
        elif printable.in_one_line(label.name) != label.name:
            yield f"{where}: name {label.name!r} of id {label.id} has control characters"
        elif (same := by_name.setdefault(label.name, label)) is not label:
            yield (
                f"{where}: name {label.name!r} stands twice, the second time with id {label.id} "
                f"(line {same.line} has it with id {same.id})"
            )


def _notes(has_mark: bool, blocks: Sequence[_Block]) -> tuple[str, ...]:
    notes = []
    if has_mark:
        notes.append("it begins with a byte order mark: save it as UTF-8 without one")
    nameless = sum(
        not block.fields.get("name", "").strip() and "display_name" in block.fields
        for block in blocks
    )
    if nameless:
        blocks_have = "1 block has" if nameless == 1 else f"{nameless} blocks have"
        notes.append(f"{blocks_have} a display_name and no name: write name in its place")
    unknown = {
        field: block.line for block in reversed(blocks) if block.kind == "item"
        for field in block.fields if field not in _STOCK_FIELDS and "label_id" not in block.fields
    }  # fmt: skip
    if unknown:
        some = listing.in_line([f"{name} (line {line})" for name, line in unknown.items()])
        notes.append(f"blocks have fields that the stock API does not know: {some}: remove them")
    return tuple(notes)


def _text(path: str) -> tuple[str, bool]:
    """The file's text, and whether it begins with a byte order mark."""
    if files.is_local(path) and not os.path.isfile(path):
        raise AnnotationError(f"{path}: there is no such label map file.")
    try:
        with files.system_of(path).open(path, "rb") as file:
            content = file.read()
        has_mark = content.startswith(codecs.BOM_UTF8)
        return content.decode("utf-8-sig"), has_mark
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: not a label map: no text in UTF-8 ({error}).") from None
    except files.errors() as error:
        raise AnnotationError(f"{path}: the label map cannot be read: {error}") from error


def read(path: str | os.PathLike, *, needs_names: bool = True) -> LabelMap:
    """Reads a label map of either form.

    Args:
        path: local, or what TensorFlow can read. Ids need not be contiguous; an item with id 0 for
            the background is left out; a class without a name has its `display_name`.
        needs_names: whether it is an error that a class has neither.

    Raises:
        AnnotationError: if the file is missing, is no label map, or ids or names are missing or
            repeat; names the lines.
    """
    path = os.fspath(path)
    text, has_mark = _text(path)
    faults = _Faults(path)
    blocks = list(_label_blocks(text, faults))
    labels = [_label(block, faults) for block in blocks]
    labels = [label for label in labels if not _is_background(label)]
    problems = list(_problems(labels, needs_names))
    if not labels:
        problems.append(f"no class in it; each is: {_EXAMPLE}")
    if problems:
        raise AnnotationError(f"{path}: bad label map: " + "; ".join(problems) + ".")
    ava_form = any("label_id" in block.fields or block.kind == "label" for block in blocks)
    return LabelMap(path, tuple(labels), ava_form, _notes(has_mark, blocks))


def read_label_map(path: str | os.PathLike) -> dict[int, str]:
    """Reads a label map to train with, in the stock form.

    Returns:
        Names by action id. Ids start at 1 and need not be contiguous.

    Raises:
        AnnotationError: as `read`; or if it is in the AVA release's form, which the stock API does
            not read.
    """
    label_map = read(path)
    if label_map.ava_form:
        raise AnnotationError(
            f"{label_map.path}: not a label map of the stock API. It holds one block per class: "
            f"{_EXAMPLE}. {_AVA_FORM[0].upper()}{_AVA_FORM[1:]}."
        )
    return {label.id: label.name for label in label_map.labels}


def read_categories(path: str | os.PathLike) -> list[Category]:
    """Reads a label map of either form.

    Returns:
        {"id": .., "name": ..} of each class, in the order of the file.

    Raises:
        AnnotationError: as `read`.
    """
    return [{"id": label.id, "name": label.name} for label in read(path).labels]


def read_label_types(path: str | os.PathLike, required: bool = True) -> dict[int, str]:
    """Reads which group each class of a label map belongs to.

    Args:
        path: as for `read`; the blocks' `label_type`, such as PERSON_MOVEMENT in the AVA release.
            (The stock API's own label maps cannot have that field.)
        required: whether it is an error that no class has one.

    Returns:
        Groups by class id, without the classes that have none.

    Raises:
        AnnotationError: as `read`, or if what is required is missing.
    """
    types = {label.id: label.type for label in read(path, needs_names=False).labels if label.type}
    if required and not types:
        raise AnnotationError(
            f'{path}: no class has a label_type; blocks \'label {{ name: ".." label_id: 1 '
            "label_type: PERSON_MOVEMENT }' are expected."
        )
    return types


def unknown_action(action_id: int, label_map: Mapping[int, str]) -> str:
    """Returns what is wrong with an action id that the label map does not have."""
    return f"action_id {action_id} is not in the label map, which has {id_ranges(label_map)}"


def id_ranges(label_map: Iterable[int]) -> str:
    """Returns the ids in words, such as `1, 3-12, 80`."""
    ids, ranges = sorted(label_map), []
    for i in ids:
        if ranges and ranges[-1][1] == i - 1:
            ranges[-1][1] = i
        else:
            ranges.append([i, i])
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in ranges]
    return listing.in_line(texts, _MAX_RANGES)
