# SPDX-License-Identifier: Apache-2.0
"""The browser that other tests use, on a page whose behaviour is known."""

import pytest
from PIL import Image

from tests import browser

_PAGE = """<!doctype html><html lang="en"><title>A page</title>
<style>body { margin: 0; background: #fff }
@media (prefers-color-scheme: dark) { body { background: #000 } }
div { width: 500px; height: 2000px }</style>
<button onclick="document.title = 'pressed'">b</button><div></div>
<script>console.error("told")</script></html>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    path = folder / "page.html"
    path.write_text(_PAGE)
    with browser.Browser(folder) as opened:
        opened.open(path)
        yield opened


def test_sizes_keys_colours_pictures_and_messages(page, tmp_path):
    assert page.run("return document.title") == "A page"
    assert page.overflow() == 0
    page.resize(360, 640)
    assert page.run("return [innerWidth, innerHeight]") == [360, 640]
    assert page.overflow() == 140
    page.press(browser.TAB, browser.ENTER)
    assert page.wait("return document.title == 'pressed'")
    assert any("told" in message for message in page.messages())
    page.prefer(prefers_color_scheme="dark")
    page.screenshot(tmp_path / "seen.png")
    with Image.open(tmp_path / "seen.png") as seen:
        assert seen.size == (360, 640)
        assert seen.convert("RGB").getpixel((200, 600)) == (0, 0, 0)
    page.screenshot(tmp_path / "whole.png", full_page=True)
    with Image.open(tmp_path / "whole.png") as whole:
        assert whole.size[0] == 500 and whole.size[1] > 2000


def test_what_a_script_raises_is_told(page):
    with pytest.raises(RuntimeError, match="javascript error.*no such thing"):
        page.run("throw new Error('no such thing')")
