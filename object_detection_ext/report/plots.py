# SPDX-License-Identifier: Apache-2.0
"""Plots as inline SVG, whose text is text and whose colours follow the page's scheme.

Lengths are in CSS pixels, x to the right and y down from the upper left corner.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from object_detection_ext.report.markup import Markup, element

_LEFT, _RIGHT, _TOP, _HEIGHT = 34, 46, 20, 170
_LETTER = 6.2  # about as wide as a letter of the plots' text is
_LONGEST_NAME = 26


@dataclass(frozen=True)
class Bar:
    """A bar of a plot: a value in 0..1 or None, with its interval's ends, and a count."""

    label: str
    value: float | None
    count: int
    low: float | None = None
    high: float | None = None


def bar_plot(
    bars: Sequence[Bar], *, title: str, value_name: str, count_name: str, count_scale: str
) -> Markup:
    """Bars for values, and a line for counts (Figure 5).

    Args:
      bars: in their order.
      title: says in a sentence what is seen; the accessible name.
      value_name: of the left axis.
      count_name: of the right axis.
      count_scale: "linear" from 0, or "log".
    """
    upright = len(bars) > 8
    step = 12.5 if upright else 60
    width = _LEFT + step * max(len(bars), 4) + _RIGHT
    top_value = _top_of_axis([v for bar in bars for v in (bar.value, bar.high) if v is not None])
    bottom = _TOP + _HEIGHT
    parts = [element("title", title), *_value_axis(top_value, width, value_name)]
    counts = _CountScale([bar.count for bar in bars], count_scale)
    parts += counts.axis(width, count_name)
    middles = [_LEFT + step * (index + 0.5) for index in range(len(bars))]
    values = []  # above the line, since it may cross them
    for bar, x in zip(bars, middles, strict=True):
        parts += _bar(bar, x, 0.62 * step, top_value)
        values += [] if upright or bar.value is None else [_value(bar, x, top_value)]
        parts.append(_upright_label(bar.label, x) if upright else _label(bar.label, x))
    points = [(x, counts.y(bar.count)) for bar, x in zip(bars, middles, strict=True)]
    parts += [_line(points), *values]
    names = 16 + _LETTER * max((len(_short(bar.label)) for bar in bars), default=0)
    height = bottom + (names if upright else 46)
    return element(
        "svg", *parts,
        role="img", class_="plot wide" if upright else "plot", width=width, height=height,
        viewBox=f"0 0 {width:g} {height:g}", aria_label=title,
    )  # fmt: skip


def _top_of_axis(values: Sequence[float]) -> float:
    """The end of the value axis: the next tenth, at least 0.2."""
    return min(1.0, max(0.2, math.ceil(10 * max(values, default=0.0) + 0.2) / 10))


def _value_axis(top_value: float, width: float, name: str) -> list[Markup]:
    parts = [element("text", name, x=2, y=11, class_="value-name")]
    step = 0.1 if top_value <= 0.5 else 0.2
    for index in range(round(top_value / step) + 1):
        value = index * step
        if value > top_value + 1e-9:
            break
        y = _value_y(value, top_value)
        parts.append(element("line", x1=_LEFT, x2=width - _RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", f"{value:.1f}", x=_LEFT - 5, y=y + 4, text_anchor="end"))
    return parts


def _value_y(value: float, top_value: float) -> float:
    return _TOP + _HEIGHT * (1 - value / top_value)


class _CountScale:
    """The right axis."""

    def __init__(self, counts: Sequence[int], kind: str):
        self._log = kind == "log"
        self._high = max([*counts, 1])
        # A logarithm has no 0: the axis starts at 1, and a count of 0 lies there too.
        self._top = self._power_of_ten() if self._log else self._nice()

    def _power_of_ten(self) -> float:
        return 10 ** max(1, math.ceil(math.log10(self._high) - 1e-9))

    def _nice(self) -> float:
        power = 10 ** math.floor(math.log10(self._high))
        return next(power * m for m in (1, 2, 5, 10) if power * m >= self._high)

    def y(self, count: float) -> float:
        if self._log:
            share = math.log10(max(count, 1)) / math.log10(self._top)
        else:
            share = count / self._top
        return _TOP + _HEIGHT * (1 - share)

    def axis(self, width: float, name: str) -> list[Markup]:
        if self._log:
            ticks = [10**power for power in range(round(math.log10(self._top)) + 1)]
        else:
            ticks = [0, self._top / 2, self._top]
        parts = [element("text", name, x=width - 2, y=11, text_anchor="end", class_="count-name")]
        for tick in ticks:
            text = _short_number(tick)
            parts.append(
                element("text", text, x=width - _RIGHT + 6, y=self.y(tick) + 4, class_="count")
            )
        return parts


def _short_number(number: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _bar(bar: Bar, x: float, width: float, top_value: float) -> list[Markup]:
    bottom = _TOP + _HEIGHT
    said = "no ground truth" if bar.value is None else f"{bar.value:.3f}"
    tip = element("title", f"{bar.label}: {said}, {bar.count:,}")
    if bar.value is None:
        cross = element("text", tip, "–", x=x, y=bottom - 4, text_anchor="middle")
        return [cross]
    y = _value_y(bar.value, top_value)
    parts = [
        element("rect", tip, x=x - width / 2, y=y, width=width, height=bottom - y, class_="bar")
    ]
    if bar.low is not None and bar.high is not None:
        high, low = _value_y(bar.high, top_value), _value_y(bar.low, top_value)
        parts.append(element("line", x1=x, x2=x, y1=high, y2=low, class_="whisker"))
    return parts


def _value(bar: Bar, x: float, top_value: float) -> Markup:
    top = bar.value if bar.high is None else bar.high
    y = _value_y(top, top_value) - 4
    return element("text", f"{bar.value:.2f}", x=x, y=y, text_anchor="middle", class_="value")


def _label(text: str, x: float) -> Markup:
    # Names such as crouch/kneel break behind the slash.
    lines = textwrap.wrap(text.replace("/", "/ "), 9)[:3] or [""]
    lines = [line.replace("/ ", "/") for line in lines]
    spans = [element("tspan", line, x=x, dy=13) for line in lines]
    return element("text", *spans, y=_TOP + _HEIGHT + 2, text_anchor="middle")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"


def _upright_label(text: str, x: float) -> Markup:
    y = _TOP + _HEIGHT + 8
    turned = f"rotate(-90 {x + 4:g} {y})"
    return element("text", _short(text), x=x + 4, y=y, text_anchor="end", transform=turned)


def _line(points: Sequence[tuple[float, float]]) -> Markup:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [element("circle", cx=x, cy=y, r=3.0, class_="count-dot") for x, y in points]
    # A rim in the page's colour parts the line from the bars.
    lines = [element("polyline", points=path, class_=name) for name in ("count-rim", "count-line")]
    return element("g", *lines, *dots)
