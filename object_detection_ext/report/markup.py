# SPDX-License-Identifier: Apache-2.0
"""HTML and SVG from Python, in which every text is escaped unless it is markup already."""

import base64
import html
from collections.abc import Sequence

_VOID = frozenset(("img", "meta"))


class Markup(str):
    """Text that is HTML or SVG; plain `str` is not and gets escaped."""


def element(name: str, /, *children, **attributes) -> Markup:
    """An element.

    Args:
      name: of the tag.
      *children: Markup as it is, lists of children, anything else as escaped text; None is left
        out.
      **attributes: underscores stand for hyphens, one at the end is dropped (`class_`); None and
        False leave the attribute out, True gives it no value.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Sequence) -> Markup:
    """Children one after another."""
    return Markup("".join(_child(child) for child in children if child is not None))


def _child(child) -> str:
    if isinstance(child, Markup):
        return child
    if isinstance(child, list | tuple):
        return join(child)
    return html.escape(str(child))


def _attribute(key: str, value) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    if isinstance(value, float):
        value = f"{value:.6g}"
    return f' {name}="{html.escape(str(value))}"'


def data_uri(data: bytes, media_type: str) -> str:
    """A URI that holds the data itself."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
