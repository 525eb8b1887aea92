# SPDX-License-Identifier: Apache-2.0
"""The report, read as a file and used in a real browser."""

import html.parser
import pathlib
import re

import numpy as np
import pytest
from absl import flags
from PIL import Image

from object_detection_ext.errors import InputError
from object_detection_ext.evaluation import video_ap
from object_detection_ext.inference import results
from object_detection_ext.tools import report
from tests import browser, command_lines, toy_records
from tests.noisy_detections import write_noisy_detections

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Class names that would break a page that does not escape them.
HOSTILE = "</script><script>document.title='broken'</script>"
NAMES = {1: HOSTILE, 2: 'kneel & "crouch"', 3: "walk <b>", 4: "it's", 5: "wave", 6: "watch"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with toy videos and the CSVs about them, one video missing; and the options."""
    folder = tmp_path_factory.mktemp("report")
    toy_records.make_toy(folder, num_train=4)
    (folder / "videos" / "train_0003.mp4").unlink()
    write_noisy_detections(folder / "train.csv", folder / "d.csv", seed=3)
    escaped = {i: name.replace('"', '\\"') for i, name in NAMES.items()}
    items = [f'item {{ name: "{name}" id: {i} }}\n' for i, name in escaped.items()]
    (folder / "l.pbtxt").write_text("".join(items))
    (folder / "attention").mkdir()
    Image.new("RGB", (1200, 90), (9, 99, 9)).save(folder / "attention" / "train_0001_1_person0.png")
    return folder, {
        "groundtruth": str(folder / "train.csv"),
        "detections": str(folder / "d.csv"),
        "labelmap": str(folder / "l.pbtxt"),
        "output": str(folder / "out" / "report.html"),
    }


@pytest.fixture(scope="module")
def page_path(files):
    folder, options = files
    extra = {"videos": str(folder / "videos"), "attention": str(folder / "attention")}
    report.run(
        report.Options(
            **options,
            **extra,
            train_annotations=options["groundtruth"],
            bootstrap=50,
            tubes="general",
        )
    )
    return options["output"]


class _Reader(html.parser.HTMLParser):
    """Checks that elements close in order, and collects tags and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_file_is_whole_by_itself(page_path):
    text = open(page_path, encoding="utf-8").read()
    reader = _Reader(text)
    assert text.startswith("<!DOCTYPE html>")
    assert [tag for tag, _ in reader.tags if tag in ("link", "iframe", "object")] == []
    assert [tag for tag, _ in reader.tags].count("script") == 1
    for _, attributes in reader.tags:
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"https?://|@import|url\(", text)
    assert HOSTILE in "".join(reader.text)


def test_without_videos_there_are_no_pictures_and_it_says_so(files, capsys):
    _, options = files
    text = report.make(report.Options(**options))
    assert "<img" not in text
    assert text.count("There are no pictures, as no folder of videos was given (--videos).") == 2
    said = "".join(_Reader(text).text)
    assert "Without training annotations, these are the evaluation's own rows." in said
    assert 'id="attention"' not in text and 'id="model"' not in text


def test_what_is_missing_is_told_and_does_not_end_it(page_path, files):
    text = open(page_path, encoding="utf-8").read()
    assert re.search(r"\d+ pictures? missing\. The first reason: .*train_0003", text)
    assert "no picture" in text


def test_what_detect_video_writes_is_read(files, tmp_path):
    _, options = files
    person = results.Person(np.array([0.1, 0.1, 0.9, 0.5]), {1: 0.9, 5: 0.4}, {1: "a", 5: "b"})
    found = [results.Keyframe("train_0000", seconds, (person,)) for seconds in (0.5, 1.0, 2.0)]
    path = str(tmp_path / "d.csv")
    assert results.write_ava_csv(path, found) == 6
    text = report.make(report.Options(**{**options, "detections": path}))
    # Those at half a second are on no frame of the ground truth.
    said = "".join(_Reader(text).text)
    assert "detection rows used4" in said and "detection rows on unlisted frames2" in said


def test_tubes_are_evaluated_where_that_is_asked_for(page_path, files, capsys):
    text = " ".join(_Reader(open(page_path, encoding="utf-8").read()).text)
    assert "Action tubes" in text
    assert "video-mAP at IoU 0.5:0.95" in text
    assert "a tube of the ground truth: the boxes of a person id with one action" in text
    command = ["-l", files[1]["labelmap"], "-g", files[1]["groundtruth"]]
    assert video_ap.main([*command, "-d", files[1]["detections"]]) == 0
    printed = capsys.readouterr().out
    value = float(re.search(r"video-mAP@0.5IOU: ([.0-9]+)", printed)[1])
    assert 0 < value
    assert f"0.5: {value:.4f}" in text


def test_tubes_of_a_ground_truth_without_person_ids_end_it_at_once(files, tmp_path):
    truth = tmp_path / "t.csv"
    rows = pathlib.Path(files[1]["groundtruth"]).read_text().splitlines()
    truth.write_text("".join(",".join(row.split(",")[:7]) + "\n" for row in rows))
    options = {**files[1], "groundtruth": str(truth), "output": str(tmp_path / "r.html")}
    with pytest.raises(InputError, match="rows have no person id, the 8th column"):
        report.run(report.Options(**options, tubes="general"))
    assert not (tmp_path / "r.html").exists()


def test_a_ground_truth_without_boxes_is_reported_as_such(files, tmp_path):
    _, options = files
    (tmp_path / "g.csv").write_text("train_0000,1\n")
    text = report.make(
        report.Options(**{**options, "groundtruth": str(tmp_path / "g.csv")}, bootstrap=5)
    )
    assert "no class has ground truth" in text
    assert "nan" not in "".join(_Reader(text).text).lower().split()


def test_the_model_is_shown_with_its_summary(files, tmp_path):
    _, options = files
    (tmp_path / "c.config").write_text("model { ssd { num_classes: 3 } }  # <not a clip model>\n")
    config = str(tmp_path / "c.config")
    text = report.make(report.Options(**options, pipeline_config_path=config))
    assert "&lt;not a clip model&gt;" in text
    assert "There is no summary of the model." in text


@pytest.mark.slow
def test_the_summary_of_a_clip_model_is_in_the_report(files):
    _, options = files
    config = str(ROOT / "pipeline_configs" / "demo_toy_tx.config")
    text = report.make(report.Options(**options, pipeline_config_path=config))
    assert re.search(r"\ntotal +1,433,479 ", text)
    assert "faster_rcnn_i3d_keras" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"examples": -1}, "--examples must be at least 0, not -1"),
        ({"videos": "no_such_folder"}, "--videos 'no_such_folder': there is no such folder"),
        ({"detections": "found.csv"}, "--detections 'found.csv': there is no such file"),
        ({"train_annotations": "."}, "--train_annotations '.': there is no such file"),
        ({"attention": "no_such_folder"}, "--attention 'no_such_folder'"),
        ({"bootstrap": 1}, "at least 2 resamples, not 1"),
    ],
)
def test_unusable_options_are_errors(files, change, message):
    _, options = files
    with pytest.raises(InputError, match=re.escape(message)):
        report.make(report.Options(**{**options, **change}))


def test_the_command_line_names_what_is_wrong(files, capsys):
    _, options = files
    values = flags.FlagValues()
    report.define_flags(values)
    given = {**options, "groundtruth": "no_such.csv"}
    values(["report", *(f"--{name}={value}" for name, value in given.items())])
    with command_lines.ends(capsys, 2, "^error: .*no_such.csv"):
        report.main(["report"], values)


def test_boxes_far_outside_the_frame_are_taken_only_as_they_are(files, tmp_path, capsys):
    _, options = files
    path = tmp_path / "d.csv"
    path.write_text("train_0000,1,-0.25,0.1,0.4,0.9,1,0.5\n")
    given = {**options, "detections": str(path), "output": str(tmp_path / "r.html"), "examples": 0}

    def run(**more):
        values = flags.FlagValues()
        report.define_flags(values)
        values(["report", *(f"--{name}={value}" for name, value in (given | more).items())])
        report.main(["report"], values)

    with command_lines.ends(capsys, 2, r"d.csv:1: x1 is -0.25; (.|\n)*--box_tolerance none takes"):
        run()
    with command_lines.ends(capsys, 2, "--box_tolerance must be at least 0 .* not 'all'"):
        run(box_tolerance="all")
    run(box_tolerance="none")
    text = "".join(_Reader((tmp_path / "r.html").read_text()).text)
    assert "1 of 1 box leaves [0, 1] (first: line 1, -0.25,0.1,0.4,0.9)" in text


# ------------------------------------------------------------------------------------------------
# In a browser


@pytest.fixture(scope="module")
def page(page_path, tmp_path_factory):
    with browser.Browser(tmp_path_factory.mktemp("browser")) as opened:
        opened.prefer(prefers_reduced_motion="reduce")
        opened.open(page_path)
        yield opened


def test_nothing_is_loaded_and_nothing_is_wrong(page):
    loaded = page.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []
    assert page.messages() == []
    assert page.run("return document.title") == "Action detection report"
    assert page.run("return document.scripts.length") == 1
    names = page.run("return [...document.querySelectorAll('#classes tbody th')]"
                     ".map(e => e.textContent)")  # fmt: skip
    assert sorted(names) == sorted(NAMES.values())


def test_pictures_and_plots_are_there_and_have_names(page):
    pictures = page.run(
        "return [...document.images].map(i => [i.complete && i.naturalWidth, i.alt])"
    )
    assert len(pictures) > 10 and all(width and alt for width, alt in pictures)
    plots = page.run(
        "return [...document.querySelectorAll('svg')].map(s => [s.getAttribute('aria-label'), "
        "s.querySelectorAll('rect.bar').length, s.getBoundingClientRect().height])"
    )
    assert len(plots) == 4
    assert all(name and bars and height > 100 for name, bars, height in plots)


def test_headings_and_landmarks_lead_through_the_page(page):
    levels = page.run(
        "return [...document.querySelectorAll('h1,h2,h3')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    landmarks = page.run("return [...document.body.children].map(e => e.tagName)")
    assert landmarks == ["A", "HEADER", "NAV", "MAIN", "FOOTER", "SCRIPT"]
    targets = page.run(
        "return [...document.querySelectorAll('nav a, a.skip')].map("
        "a => document.querySelectorAll(a.getAttribute('href')).length)"
    )
    assert len(targets) >= 8 and set(targets) == {1}


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_the_page_does_not_scroll_sideways(page, width):
    page.resize(width, 740)
    page.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.overflow() == 0
    boxes = page.run(
        "return [...document.querySelectorAll('.scroll, pre')].map(e => [e.tabIndex, "
        "e.getAttribute('aria-label'), e.getBoundingClientRect().right])"
    )
    assert all(tab == 0 and name and right <= width for tab, name, right in boxes)


def test_the_keyboard_reaches_and_sorts(page):
    page.resize(1280, 900)
    page.run("document.activeElement.blur(); scrollTo(0, 0)")
    page.press(browser.TAB)
    assert page.run("return document.activeElement.textContent") == "Skip to the figures"
    assert page.run("return document.activeElement.getBoundingClientRect().left") >= 0
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press(browser.ENTER)
    assert page.run("return document.activeElement.id") == "main"

    def focus():
        return page.run("return document.activeElement.textContent")

    for _ in range(8):
        page.press(browser.TAB)
        if focus() == "AP":
            break
    assert focus() == "AP"
    shown = (
        "return [...document.querySelectorAll('#classes tbody tr')].map(r => r.cells[1].innerText)"
    )
    for key, direction in ((browser.ENTER, "ascending"), (browser.SPACE, "descending")):
        page.press(key)
        sort = "return document.activeElement.closest('th').getAttribute('aria-sort')"
        assert page.run(sort) == direction
        values = [-1.0 if text == "none" else float(text) for text in page.run(shown)]
        assert values == sorted(values, reverse=direction == "descending")
    assert page.run("return document.querySelectorAll('#classes [aria-sort]').length") == 1


def test_totals_stay_last_when_errors_are_sorted(page):
    page.run("document.querySelector('#errors thead th button').click()")
    rows = page.run("return [...document.querySelector('#errors table').rows].map("
                    "r => r.cells[0].textContent)")  # fmt: skip
    assert rows[-1] == "all classes"
    assert rows[1:-1] == sorted(rows[1:-1], key=lambda name: (name[0] != "<", name))


_CONTRAST = """
const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgb = (layers) => {
  layers.forEach((layer) => { paint.fillStyle = layer; paint.fillRect(0, 0, 1, 1); });
  return paint.getImageData(0, 0, 1, 1).data;
};
const worst = [];
for (const e of document.querySelectorAll("p, li, dt, dd, th, td, caption, figcaption, a, "
    + "summary, button, .badge, pre, svg text")) {
  if (!e.textContent.trim() || e.closest(".skip")) continue;
  const layers = [];
  for (let at = e; at; at = at.parentElement) layers.unshift(getComputedStyle(at).backgroundColor);
  const style = getComputedStyle(e);
  const ink = e.namespaceURI.endsWith("svg") ? style.fill : style.color;
  const [a, b] = [light(rgb(layers)), light(rgb([...layers, ink]))];
  worst.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.tagName + " " + e.className]);
}
return worst.sort((x, y) => x[0] - y[0])[0];
"""


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_text_can_be_read_in_both_schemes(page, scheme, dark):
    page.prefer(prefers_color_scheme=scheme)
    background = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == dark
    ratio, where = page.run(_CONTRAST)
    assert ratio >= 4.5, where


def test_print_shows_what_is_folded(page):
    page.run("document.querySelectorAll('details').forEach(d => { d.open = false; })")
    assert len(page.devtools("Page.printToPDF")["data"]) > 10_000
    assert page.run("return document.querySelectorAll('details:not([open])').length") == 0
