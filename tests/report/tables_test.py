# SPDX-License-Identifier: Apache-2.0
"""Tables and the bars in their cells."""

import re

from object_detection_ext.report import tables


def test_a_table_names_itself_its_columns_and_its_rows():
    built = tables.table("Of <things>", ["name", "n"], [["a & b", "1"]], total=["all", "1"])
    assert 'aria-label="Of &lt;things&gt;"' in built and "<caption>Of &lt;things&gt;" in built
    assert '<th scope="col">name</th><th scope="col" class="number">n</th>' in built
    assert '<th scope="row">a &amp; b</th><td class="number">1</td>' in built
    assert re.search(r"<tfoot><tr><th scope=\"row\">all</th>.*</tfoot>", built)


def test_cells_sort_by_numbers_that_are_not_what_they_show():
    built = tables.table("t", ["n", "AP"], [["a", tables.meter(0.5)], ["b", tables.meter(None)]])
    assert 'data-sort="0.5"' in built and 'data-sort="-1"' in built and ">none<" in built


def test_a_meter_is_as_long_as_its_value_and_its_interval():
    content = tables.meter(0.25, 0.125, 0.375).content
    assert "width:25.00%" in content and "left:12.50%;width:25.00%" in content
    assert "0.250" in content


def test_parts_of_a_bar_are_as_long_as_their_counts():
    built = tables.stacked([("right", 3), ("badly localized", 1), ("background", 0)])
    assert re.findall(r"width:([\d.]+)%", built) == ["75.000", "25.000"]
    assert 'class="part badly-localized"' in built
    assert 'aria-label="right 3, badly localized 1, background 0"' in built


def test_a_heat_map_colours_by_share_and_marks_the_diagonal():
    built = tables.heat_map("c", ["a", "b"], [[1.0, 0.0], [0.2, 0.5]], [[4, 0], [1, 2]])
    cells = re.findall(r'<td( style="--heat:(\d+)%")?( class="diagonal")?>(\d*)</td>', built)
    assert [(heat, bool(mark), text) for _, heat, mark, text in cells] == [
        ("55", True, "100"),
        ("", False, ""),
        ("11", False, "20"),
        ("28", True, "50"),
    ]
