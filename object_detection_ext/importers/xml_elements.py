# SPDX-License-Identifier: Apache-2.0
"""XML in pieces, with line numbers; without entities, which can read files and fill any memory."""

import dataclasses
from collections.abc import Iterator
from typing import IO
from xml.parsers import expat

from object_detection_ext import printable
from object_detection_ext.importers import model

_CHUNK_BYTES = 1 << 18
# Deeper than any annotation; a file of nothing but opening tags ends here.
_MAX_DEPTH = 100


@dataclasses.dataclass(slots=True)
class Element:
    """An element: its tag, attributes, text, children and the line of its opening tag."""

    tag: str
    attributes: dict[str, str]
    line: int
    text: str = ""
    children: list["Element"] = dataclasses.field(default_factory=list)

    def all(self, tag: str) -> list["Element"]:
        """The children of this tag."""
        return [child for child in self.children if child.tag == tag]

    def child(self, *path: str) -> "Element | None":
        """The first element down a path of tags; None if there is none."""
        found: Element | None = self
        for tag in path:
            found = next((c for c in found.children if c.tag == tag), None) if found else None
        return found

    def text_of(self, *path: str) -> str | None:
        """The stripped text of the element down a path; None if it is missing or empty."""
        found = self.child(*path)
        return (found.text.strip() or None) if found else None


class _Reader:
    """Builds the children of the root, one after the other."""

    def __init__(self, name: str, root: str):
        self._name, self._root = name, root
        self._open: list[Element] = []
        self.complete: list[Element] = []
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.EntityDeclHandler = self._refuse
        self.parser.ExternalEntityRefHandler = self._refuse

    @property
    def _line(self) -> int:
        return self.parser.CurrentLineNumber

    def _refuse(self, *_) -> None:
        raise model.ImportFault(
            f"{self._name}: line {self._line}: a document type or an entity is declared; no "
            "annotation tool writes any, and what they stand for is not read."
        )

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self._open and tag != self._root:
            raise model.ImportFault(
                f"{self._name}: line {self._line}: the first element is "
                f"<{printable.in_one_line(tag)}>; it must be <{self._root}>."
            )
        if len(self._open) >= _MAX_DEPTH:
            raise model.ImportFault(f"{self._name}: line {self._line}: nested too deeply.")
        self._open.append(Element(tag, attributes, self._line))

    def _end(self, _: str) -> None:
        element = self._open.pop()
        if len(self._open) > 1:
            self._open[-1].children.append(element)
        elif self._open:
            self.complete.append(element)

    def _text(self, text: str) -> None:
        if self._open and text.strip():
            self._open[-1].text += text


def top_elements(file: IO[bytes], name: str, root: str) -> Iterator[Element]:
    """Yields the children of the root element, each when it is complete.

    Args:
        file: opened for reading.
        name: what messages call it.
        root: the tag that the root must have.

    Raises:
        model.ImportFault: if it is not XML, is cut off, has another root, or declares an entity;
            with the line.
    """
    reader = _Reader(name, root)
    try:
        while chunk := file.read(_CHUNK_BYTES):
            reader.parser.Parse(chunk, False)
            yield from reader.complete
            reader.complete.clear()
        reader.parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise model.ImportFault(
            f"{name}: line {error.lineno}: not XML: {expat.ErrorString(error.code)}."
        ) from error
    except LookupError as error:  # of an encoding that Python does not have
        raise model.ImportFault(f"{name}: not XML: {error}.") from error
    yield from reader.complete
