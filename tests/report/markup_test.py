# SPDX-License-Identifier: Apache-2.0
"""HTML that is escaped wherever it is not markup."""

import base64

from object_detection_ext.report.markup import Markup, data_uri, element, join


def test_texts_and_attributes_are_escaped_and_markup_is_not():
    built = element("p", "<b>&\"'", Markup("<i>x</i>"), 3, title='a"<b>', class_="c")
    assert built == (
        '<p title="a&quot;&lt;b&gt;" class="c">&lt;b&gt;&amp;&quot;&#x27;<i>x</i>3</p>'
    )


def test_children_in_lists_and_children_that_are_none():
    items = [element("li", "a"), element("li", "b")]
    assert element("ul", items, None) == "<ul><li>a</li><li>b</li></ul>"
    assert join([["<", Markup("<br>")], None]) == "&lt;<br>"


def test_attributes_of_every_kind():
    built = element("td", aria_label="x", name="n", open=True, hidden=False, lang=None, x=0.1 + 0.2)
    assert built == '<td aria-label="x" name="n" open x="0.3"></td>'
    assert element("img", alt="") == '<img alt="">'


def test_a_data_uri_holds_the_data():
    uri = data_uri(b"\x00\xff", "image/jpeg")
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64" and base64.b64decode(data) == b"\x00\xff"
