# SPDX-License-Identifier: Apache-2.0
r"""From a CSV file's bytes to fields, line by line.

Commas, semicolons or tabs between the fields; UTF-8 or UTF-16; CR, LF or both; quotation marks or
none. A field never has a line end, so that each line is read by itself, and a quotation mark that
was lost in one cannot take in the next.
"""

import codecs
import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from object_detection_ext import listing, printable
from object_detection_ext.ava import columns, timestamps
from object_detection_ext.ava.faults import AnnotationError, Notes

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Bytes and lines from which encoding and delimiter are detected.
_HEAD_BYTES, _HEAD_LINES = 4096, 20
# After so many lines progress may be told.
_REPORT_LINES = 20_000
# A byte order mark, which stands inside a file where two files were put together.
_MARK = "\ufeff"
# Files that are taken for CSVs by their names, by their first bytes.
_NO_TEXT = {
    b"PK\x03\x04": "a workbook of Excel or LibreOffice, or a ZIP file; save it as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "a workbook of an older Excel; save it as CSV UTF-8",
    b"\x1f\x8b": "compressed by gzip; unpack it",
}
# What Excel reads the delimiter from.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


class Row(NamedTuple):
    """A line that is not blank.

    Attributes:
        line: counted from 1.
        fields: stripped, in the order of the kind's columns; None if quotation marks do not pair.
        text: the whole line, of a row whose fields cannot be separated.
        too_many: fields beyond those that the header row names.
        given: number of fields of the line.
        named: number of columns that the header row names; 0 without one.
    """

    line: int
    fields: list[str] | None
    text: str = ""
    too_many: int = 0
    given: int = 0
    named: int = 0


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a file is written.

    Attributes:
        encoding: a codec's name.
        delimiter: between fields.
        header: the names of the columns, as the file has them; empty without a header row.
        header_line: its line; 0 without one.
        places: of the kind's columns in a row; None for their usual order.
        first_line: the first that can be a row.
    """

    encoding: str
    delimiter: str = ","
    header: tuple[str, ...] = ()
    header_line: int = 0
    places: tuple[int, ...] | None = None
    first_line: int = 1


def _encoding(head: bytes) -> str:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    # Text in Latin letters has a zero in every second byte of UTF-16, and only there.
    pairs = len(head) // 2
    even, odd = head[: 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    for zeros, others, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if pairs > 1 and zeros > 0.8 * pairs and others < 0.2 * pairs:
            return encoding
    return "utf-8"


def lines(
    path: str, encoding: str, at_byte: Callable[[int], None] | None = None
) -> Iterator[tuple[int, str]]:
    """Yields (number, text) of each line, its end included.

    Args:
        path: of the file.
        encoding: of the file.
        at_byte: called now and then with how far it is.

    Raises:
        AnnotationError: if the file cannot be read, or is no text.
    """
    number = 0
    try:
        with open(path, encoding=encoding, newline="") as file:
            for number, text in enumerate(file, 1):
                yield number, text
                if at_byte and number % _REPORT_LINES == 0:
                    at_byte(file.buffer.tell())
    except UnicodeError as error:
        where = _undecodable_line(path) if encoding.startswith("utf-8") else f"after line {number}"
        raise AnnotationError(
            f"{path}, {where}: not a CSV file in UTF-8 or UTF-16: {error}. Save it as "
            "text in UTF-8 (Excel: CSV UTF-8)."
        ) from error
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read: {error}") from error


def _undecodable_line(path: str) -> str:
    """Which line is not UTF-8; a decoder reads ahead of what it has given."""
    number = 1
    with open(path, "rb") as file:
        for line in file:
            try:
                line.decode()
            except UnicodeDecodeError as error:
                # A CR alone ends a line too.
                before = line[: error.start].replace(b"\r\n", b"\n")
                number += before.count(b"\r")
                return f"line {number}"
            number += 1 + line.removesuffix(b"\r\n").count(b"\r")
    return "at the end"


def split(text: str, delimiter: str) -> list[str] | None:
    """The stripped fields of a line; None if its quotation marks do not pair."""
    text = text.rstrip("\r\n")
    if '"' not in text:
        return [field.strip() for field in text.split(delimiter)]
    pattern = re.compile(
        rf'[^\S\t]*"(?P<quoted>(?:[^"]|"")*)"[^\S\t]*(?={re.escape(delimiter)}|$)'
        rf'|(?P<plain>[^"{re.escape(delimiter)}]*)(?={re.escape(delimiter)}|$)'
    )
    fields, position = [], 0
    while True:
        match = pattern.match(text, position)
        if match is None:
            return None
        quoted = match["quoted"]
        fields.append((match["plain"] if quoted is None else quoted.replace('""', '"')).strip())
        if match.end() == len(text):
            return fields
        position = match.end() + 1


def _is_readable(fields: list[str] | None) -> bool:
    """Whether fields look like a row or a header row."""
    if fields is None or len(fields) < 2:
        return False
    if columns.is_header(fields):
        return True
    try:
        timestamps.parse(fields[1].replace(",", "."))
    except ValueError:
        return False
    return True


def layout(path: str, kind: columns.Kind) -> Layout:
    """Looks at a file's first lines.

    Raises:
        AnnotationError: if there is no such file, it is no text, or its header row lacks a column.
    """
    if not os.path.isfile(path):
        raise AnnotationError(f"{path}: there is no such annotation file.")
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read: {error}") from error
    for start, what in _NO_TEXT.items():
        if head.startswith(start):
            raise AnnotationError(f"{path}: no CSV file, but {what}.")
    return _layout(path, kind, _encoding(head))


def _layout(path: str, kind: columns.Kind, encoding: str) -> Layout:
    found, delimiters, seen, first = Layout(encoding), tuple(_DELIMITERS), 0, None
    for number, text in lines(path, encoding):
        text = text.lstrip(_MARK)
        separator = _SEPARATOR_LINE.fullmatch(text.strip(" \r\n"))
        if separator and not seen:
            delimiters = (separator[1],)
            found = dataclasses.replace(found, delimiter=separator[1], first_line=number + 1)
        elif text.strip():
            first = text if first is None else first
            # Commas last: those of `v1;902,5` are decimal.
            for delimiter in reversed(delimiters):
                fields = split(text, delimiter)
                if _is_readable(fields):
                    found = dataclasses.replace(found, delimiter=delimiter)
                    # A header row is one only if nothing stands before it.
                    is_header = not seen and columns.is_header(fields)
                    return _with_header(path, kind, found, fields, number) if is_header else found
            seen += 1
            if seen == _HEAD_LINES:
                break
    if first is not None and len(delimiters) > 1:
        # Not one row can be read: take what separates most fields; the rows' faults say why.
        most = max(delimiters, key=lambda delimiter: len(split(first, delimiter) or ()))
        found = dataclasses.replace(found, delimiter=most)
    return found


def _with_header(
    path: str, kind: columns.Kind, found: Layout, fields: list[str], line: int
) -> Layout:
    places = columns.places(fields, kind, f"{path}, line {line}")
    return dataclasses.replace(
        found, header=tuple(fields), header_line=line, places=tuple(places), first_line=line + 1
    )


def rows(
    path: str, found: Layout, notes: Notes, at_byte: Callable[[int], None] | None = None
) -> Iterator[Row]:
    """Yields the rows of a file, each with the columns of its kind in their usual order.

    Args:
        path: of the file.
        found: what `layout` said of it.
        notes: takes what is changed.
        at_byte: called now and then with how far it is.

    Raises:
        AnnotationError: if the file is no text to its end.
    """
    note(found, notes)
    for number, text in lines(path, found.encoding, at_byte):
        if number < found.first_line:
            continue
        if text.startswith(_MARK):
            text = text.lstrip(_MARK)
            what = "a byte order mark inside the file, which is left out"
            notes.add("inner_mark", what, number)
        fields = split(text, found.delimiter)
        if fields is None:
            yield Row(number, None, text.rstrip("\r\n"))
        elif not any(fields):
            continue
        elif found.places is None:
            yield Row(number, fields, given=len(fields))
        elif tuple(fields) == found.header:
            notes.add("repeated_header", "the header again, left out", number)
        else:
            extra = sum(map(bool, fields[len(found.header) :]))
            picked = [fields[i] if i < len(fields) else "" for i in found.places]
            named = len(found.header)
            yield Row(number, picked, too_many=extra, given=len(fields), named=named)


def note(found: Layout, notes: Notes) -> None:
    """Notes what is unusual about a layout."""
    if not found.encoding.startswith("utf-8"):
        notes.say("encoding", f"read as {found.encoding[:6].upper()}; UTF-8 is usual")
    if found.delimiter != ",":
        name = _DELIMITERS.get(found.delimiter, repr(found.delimiter))
        notes.say("delimiter", f"{name} stand between the columns, and are read as commas")
    if found.places is None:
        return
    text = f"line {found.header_line} names the columns"
    unused = [f for i, f in enumerate(found.header) if f and i not in found.places]
    if unused:
        text += f"; not looked at: {listing.in_line([*map(printable.in_one_line, unused)])}"
    notes.say("header", text, found.header_line)


def has_line_end(path: str, encoding: str) -> bool:
    """Whether the file's last line has an end; that of an empty file has."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 4))
        tail = file.read()
    width = {"utf-32": 4}.get(encoding, 2 if encoding.startswith("utf-16") else 1)
    last = tail[-width:]
    return not last or bool(set(last) & {0x0A, 0x0D}) and not set(last) - {0, 0x0A, 0x0D}
