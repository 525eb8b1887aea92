# SPDX-License-Identifier: Apache-2.0
"""Plots: heights are proportional to values, the line to counts, names are escaped."""

import xml.etree.ElementTree as ElementTree

import pytest

from object_detection_ext.report import plots

SVG = "{http://www.w3.org/2000/svg}"


def _plot(bars, scale="linear"):
    text = plots.bar_plot(
        bars, title="A plot & more", value_name="AP", count_name="rows", count_scale=scale
    )
    root = ElementTree.fromstring(text.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '))
    return root


def _bars(root):
    return [bar for bar in root.iter(f"{SVG}rect") if bar.get("class") == "bar"]


def _texts(root):
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def test_bars_are_as_high_as_their_values():
    root = _plot([plots.Bar("a", 0.8, 1), plots.Bar("b", 0.4, 2), plots.Bar("c", None, 4)])
    heights = [float(bar.get("height")) for bar in _bars(root)]
    assert len(heights) == 2 and heights[0] == pytest.approx(2 * heights[1], rel=1e-4)
    texts = _texts(root)
    assert "0.80" in texts and "0.40" in texts and any("no ground truth" in t for t in texts)
    assert root.get("aria-label") == "A plot & more" and root.get("role") == "img"


@pytest.mark.parametrize(
    ("scale", "counts", "shares"),
    [("linear", [0, 50, 100], [0, 0.5, 1]), ("log", [1, 10, 100], [0, 0.5, 1])],
)
def test_the_line_is_as_high_as_the_counts(scale, counts, shares):
    root = _plot([plots.Bar(str(count), 1.0, count) for count in counts], scale)
    heights = [-float(dot.get("cy")) for dot in root.iter(f"{SVG}circle")]
    found = [(height - heights[0]) / (heights[2] - heights[0]) for height in heights]
    assert found == pytest.approx(shares, abs=1e-4)
    # The bars' value is 1: the top of the plot, where the line's end is too.
    assert -heights[2] == pytest.approx(float(_bars(root)[0].get("y")))


def test_a_count_of_zero_has_a_place_on_a_logarithmic_axis():
    dots = list(_plot([plots.Bar("a", 1.0, 0), plots.Bar("b", 1.0, 1)], "log").iter(f"{SVG}circle"))
    assert dots[0].get("cy") == dots[1].get("cy")
    assert _plot([], "log").get("role") == "img"


def test_intervals_reach_from_end_to_end():
    root = _plot([plots.Bar("a", 0.5, 1, low=0.25, high=0.75)])
    (line,) = [e for e in root.iter(f"{SVG}line") if e.get("class") == "whisker"]
    bar = _bars(root)[0]
    y, height = float(bar.get("y")), float(bar.get("height"))
    assert float(line.get("y1")) == pytest.approx(y - height / 2)
    assert float(line.get("y2")) == pytest.approx(y + height / 2)


def test_many_bars_get_upright_names_of_limited_length():
    names = [f"an action with the number {i} and a long name" for i in range(80)]
    root = _plot([plots.Bar(name, 0.1, 5) for name in names])
    turned = [e for e in root.iter(f"{SVG}text") if e.get("transform")]
    assert len(turned) == 80 and all(len(e.text) <= 26 for e in turned)
    assert len(_bars(root)) == 80
    tips = {title.text for title in root.iter(f"{SVG}title")}
    assert {f"{name}: 0.100, 5" for name in names} <= tips


def test_names_are_text_whatever_they_hold():
    assert any("<script>&" in text for text in _texts(_plot([plots.Bar("<script>&", 0.5, 1)])))
