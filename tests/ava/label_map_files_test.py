# SPDX-License-Identifier: Apache-2.0
"""Label maps of both forms, as people have them; every fault is reported with its line."""

import codecs
import pathlib

import pytest
from google.protobuf import text_format
from object_detection.protos import string_int_label_map_pb2

from object_detection_ext.ava import label_maps
from object_detection_ext.ava.faults import AnnotationError

_LABEL_MAPS = pathlib.Path(__file__).resolve().parents[2] / "label_maps"

STOCK_FORM = """
# A comment with { and "
item {
  name: "bend/bow (at the waist)"  # another
  id: 1
}
item{id:80 name:'watch (e.g., TV) {1}' display_name: "Watch \\"it\\""
  keypoints { id: 5 label: "nose" } ancestor_ids: [1, 2] }
"""
AVA_FORM = """label {
  name: "bend/bow (at the waist)"
  label_id: 1
  label_type: PERSON_MOVEMENT
}
label {
  name: "watch (e.g., TV) {1}"
  label_id: 80
  label_type: PERSON_INTERACTION
}
"""


def _file(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "map.pbtxt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


@pytest.mark.parametrize("text", [STOCK_FORM, AVA_FORM])
def test_both_forms(tmp_path, text):
    path = _file(tmp_path, text)
    assert label_maps.read_categories(path) == [
        {"id": 1, "name": "bend/bow (at the waist)"},
        {"id": 80, "name": "watch (e.g., TV) {1}"},
    ]
    assert label_maps.read(path).notes == ()


def test_types_are_those_of_the_release(tmp_path):
    path = _file(tmp_path, AVA_FORM)
    assert label_maps.read_label_types(path) == {1: "PERSON_MOVEMENT", 80: "PERSON_INTERACTION"}
    without = _file(tmp_path, STOCK_FORM)
    assert label_maps.read_label_types(without, required=False) == {}
    with pytest.raises(AnnotationError, match="no class has a label_type"):
        label_maps.read_label_types(without)


def test_the_stock_parser_reads_the_same_names(tmp_path):
    """Names with quotes, tabs and letters of all alphabets, as protobuf itself writes them."""
    names = ["stand", 'say "hi"', "it's", "geh\u00f6rt", "\u8d70\u8def", "back\\slash", "a # b { c"]
    expected = string_int_label_map_pb2.StringIntLabelMap()
    for number, name in enumerate(names, 1):
        expected.item.add(name=name, id=number)
    for as_utf8 in (True, False):
        path = _file(tmp_path, text_format.MessageToString(expected, as_utf8=as_utf8))
        assert label_maps.read_label_map(path) == dict(enumerate(names, 1))
    for path in (_LABEL_MAPS / "ava_80.pbtxt", _LABEL_MAPS / "ava_60.pbtxt"):
        stock = string_int_label_map_pb2.StringIntLabelMap()
        text_format.Parse(path.read_text(), stock)
        assert label_maps.read_label_map(path) == {item.id: item.name for item in stock.item}


def test_a_byte_order_mark_is_taken_and_told(tmp_path):
    path = _file(tmp_path, codecs.BOM_UTF8 + b"item { name: 'a' id: 1 }")
    assert label_maps.read_label_map(path) == {1: "a"}
    (note,) = label_maps.read(path).notes
    assert "byte order mark" in note


@pytest.mark.parametrize("name", ["background", "Background", "__background__"])
def test_a_background_item_is_left_out(tmp_path, name):
    path = _file(tmp_path, f"item {{ id: 0 name: '{name}' }} item {{ id: 1 name: 'a' }}")
    assert label_maps.read_label_map(path) == {1: "a"}


def test_display_names_stand_for_names_and_are_told(tmp_path):
    path = _file(tmp_path, "item { id: 1 display_name: 'stand' }\nitem { id: 2 name: 'sit' }")
    assert label_maps.read_label_map(path) == {1: "stand", 2: "sit"}
    (note,) = label_maps.read(path).notes
    assert note == "1 block has a display_name and no name: write name in its place"


def test_ids_have_gaps(tmp_path):
    path = _file(tmp_path, "item { name: 'stand' id: 12 }\nitem { id: 80 name: 'watch' }\n")
    assert label_maps.read_label_map(str(path)) == {12: "stand", 80: "watch"}
    assert label_maps.id_ranges([80, 12, 3, 4, 5]) == "3-5, 12, 80"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no class in it"),
        ("hello", "line 1: 'hello' is no block"),
        ("# x\n\nclass { name: 'a' id: 1 }", "line 3: a block called 'class'"),
        ("{ name: 'a' id: 1 }", "a block without a name"),
        ("item { name: 'a' }", "line 1: a block without an 'id'"),
        ("item { name: 'a' id: x }", "id 'x' is not a whole number"),
        ("item { name: 'a' id: 1.5 }", "id '1.5' is not a whole number"),
        ("item { name: 'a' id: 0 }", "line 1: id 0 of 'a' must be at least 1"),
        ("item { id: 4 }", "line 1: id 4 has no name"),
        (
            "item { name: 'a' id: 2 }\nitem { name: 'b' id: 2 }",
            "line 2: id 2 stands twice: 'a' (line 1) and 'b'",
        ),
        ("item { name: 'a' id: 1 }\nitem { name: 'a' id: 2 }", "line 2: name 'a' stands twice"),
        ("item { name: 'a' id: 1 id: 2 }", "'id' stands twice in one block"),
        ("item { name: 'a' 'b' id: 1 }", "'b' stands where no value is expected"),
        ("item { name: 'a id: 2 }", "line 1: a quoted text is not closed"),
        ("item { name: 'a' id: 2 ", "line 1: this block is not closed"),
        ("item { name: 'a' id: }", "'id' has no value"),
        ("}", "closes nothing"),
        ("item { name: 'a\\x1b' id: 1 }", "name 'a\\x1b' of id 1 has control characters"),
        ("item { name: 'a\\377' id: 1 }", "is no quoted text"),
        (
            "item {\n  name: \u201cstand\u201d\n  id: 1\n}",
            "line 2: '\u201cstand\u201d' has a curly quotation mark (\u201c)",
        ),
        (b"\xff\xfe\x80", "not a label map: no text in UTF-8"),
    ],
)
def test_faults_name_file_and_line(tmp_path, text, message):
    path = _file(tmp_path, text)
    with pytest.raises(AnnotationError) as caught:
        label_maps.read_label_map(path)
    assert str(path) in str(caught.value) and message in str(caught.value)
    assert "label map" in str(caught.value)


def test_the_release_form_is_not_for_training(tmp_path):
    with pytest.raises(AnnotationError, match="are in label_maps/ava_80.pbtxt"):
        label_maps.read_label_map(_file(tmp_path, AVA_FORM))


def test_missing_label_map(tmp_path):
    with pytest.raises(AnnotationError, match="none.pbtxt: there is no such"):
        label_maps.read_label_map(tmp_path / "none.pbtxt")


def test_ava_label_map_has_gaps(shared_dir):
    path = shared_dir / "reference/ava_action_list_v2.1_60.pbtxt"
    label_map = label_maps.read_label_map(path)
    assert len(label_map) == 60
    assert max(label_map) == 80
    assert 2 not in label_map
