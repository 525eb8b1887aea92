# SPDX-License-Identifier: Apache-2.0
"""The page around the report's sections."""

from collections.abc import Sequence

from object_detection_ext.report import style
from object_detection_ext.report.markup import Markup, element
from object_detection_ext.report.sections import Section

# Nothing but what the file itself holds may be loaded, whatever a name in the data says.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def render(title: str, sources: Sequence[tuple[str, str]], top: Sequence, sections) -> str:
    """The whole HTML file.

    Args:
      title: of the page.
      sources: (what it is, file) of everything that the report was made from.
      top: markup that comes before the first section; None is left out.
      sections: in their order.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("style", Markup(style.CSS)),
    )
    body = element(
        "body",
        element("a", "Skip to the figures", href="#main", class_="skip"),
        element("header", element("h1", title), _sources(sources)),
        _contents(sections),
        element("main", *top, *(section.render() for section in sections), id="main", tabindex=-1),
        element("footer", element("p", "Made by object_detection_ext.tools.report.")),
        element("script", Markup(style.SCRIPT)),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _sources(sources: Sequence[tuple[str, str]]) -> Markup:
    parts = []
    for index, (what, file) in enumerate(sources):
        parts += [", " if index else "", f"{what} ", element("code", file)]
    return element("p", *parts, class_="soft")


def _contents(sections: Sequence[Section]) -> Markup:
    links = [
        element("li", element("a", section.title, href=f"#{section.anchor}"))
        for section in sections
    ]
    return element("nav", element("ul", *links), aria_label="Contents")
