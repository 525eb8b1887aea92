# SPDX-License-Identifier: Apache-2.0
"""Tables whose columns sort, some of whose cells are bars."""

from collections.abc import Sequence
from dataclasses import dataclass

from object_detection_ext.report.markup import Markup, element


@dataclass(frozen=True)
class Cell:
    """A cell: what is shown, and the number that it sorts by if that is another."""

    content: object
    sort_by: float | None = None


def scroll_box(name: str, *children) -> Markup:
    """A box that scrolls sideways by itself, also by keyboard, so that the page does not."""
    return element("div", *children, class_="scroll", tabindex=0, role="region", aria_label=name)


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    total: Sequence[object] | None = None,
    sortable: bool = False,
    text_columns: int = 1,
) -> Markup:
    """A table in a scroll box.

    Args:
      caption: says what the table has.
      header: names of the columns.
      rows: cells, or what cells show; the first of a row names it.
      total: a last row that stays the last.
      sortable: whether the script gives each column a button.
      text_columns: how many columns from the left are texts; the others are numbers, which end at
        the right.
    """
    head = element(
        "tr",
        *(
            element("th", name, scope="col", class_="number" if place >= text_columns else None)
            for place, name in enumerate(header)
        ),
    )
    body = [element("tr", *_cells(row, text_columns)) for row in rows]
    parts = [element("thead", head), element("tbody", *body)]
    if total is not None:
        parts.append(element("tfoot", element("tr", *_cells(total, text_columns))))
    built = element(
        "table",
        element("caption", caption),
        *parts,
        class_="sortable" if sortable else None,
    )
    return scroll_box(caption, built)


def _cells(row: Sequence[object], text_columns: int) -> list[Markup]:
    cells = []
    for place, cell in enumerate(row):
        cell = cell if isinstance(cell, Cell) else Cell(cell)
        kind = "th" if place == 0 else "td"
        cells.append(
            element(
                kind,
                cell.content,
                scope="row" if place == 0 else None,
                class_="number" if place >= text_columns else None,
                data_sort=cell.sort_by,
            )  # fmt: skip
        )
    return cells


def meter(value: float | None, low: float | None = None, high: float | None = None) -> Cell:
    """A value in 0..1 as a number and a bar, with its interval if there is one."""
    if value is None:
        return Cell("none", -1.0)
    parts = [element("i", class_="fill", style=f"width:{100 * value:.2f}%")]
    if low is not None and high is not None:
        style = f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"
        parts.append(element("i", class_="span", style=style))
    bar = element("span", *parts, class_="meter", aria_hidden="true")
    return Cell(element("span", bar, f"{value:.3f}", class_="metered"), value)


def stacked(parts: Sequence[tuple[str, int]]) -> Markup:
    """Counts as parts of one bar; the class of each part is its name."""
    whole = sum(count for _, count in parts)
    pieces = [
        element("i", class_=f"part {name.replace(' ', '-')}", style=f"width:{100 * n / whole:.3f}%",
                title=f"{name}: {n:,}")
        for name, n in parts
        if n
    ]  # fmt: skip
    said = ", ".join(f"{name} {count:,}" for name, count in parts)
    return element("span", *pieces, class_="stack", role="img", aria_label=said)


def legend(names: Sequence[str]) -> Markup:
    """What the parts' colours mean."""
    items = [
        element("li", element("i", class_=f"part {name.replace(' ', '-')}", aria_hidden="true"),
                f" {name}")
        for name in names
    ]  # fmt: skip
    return element("ul", *items, class_="legend")


def heat_map(
    caption: str,
    names: Sequence[str],
    shares: Sequence[Sequence[float]],
    counts: Sequence[Sequence[int]],
) -> Markup:
    """A square table of shares in 0..1, coloured by them; the diagonal is marked."""
    head = [element("td", "does \\ predicted", class_="corner")]
    head += [element("th", element("span", name), scope="col") for name in names]
    body = []
    for row, name in enumerate(names):
        cells = [
            _heat_cell(share, counts[row][column], row == column)
            for column, share in enumerate(shares[row])
        ]
        body.append(element("tr", element("th", name, scope="row"), *cells))
    built = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *head)),
        element("tbody", *body),
        class_="heat",
    )
    return scroll_box(caption, built)


def _heat_cell(share: float, count: int, diagonal: bool) -> Markup:
    text = f"{100 * share:.0f}" if count else ""
    # More than this much colour would be hard to read text on.
    style = f"--heat:{55 * share:.0f}%" if count else None
    return element("td", text, style=style, class_="diagonal" if diagonal else None)
