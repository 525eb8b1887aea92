# SPDX-License-Identifier: Apache-2.0
"""CVAT's XML as CVAT writes it, and what must be refused, with its line."""

import zipfile

import pytest

from object_detection_ext.importers import cvat, model
from tests.importers import made_files


def _read(path, **options):
    return cvat.read(str(path), model.ReadOptions(**options))


def _marks(source):
    (video,) = source.videos
    return {(mark.frame, mark.person): mark for mark in video.marks}


def test_a_task_as_cvat_exports_it(tmp_path):
    source = _read(made_files.cvat(tmp_path / "annotations.xml"))
    (video,) = source.videos
    assert (video.name, video.width, video.height, video.num_frames) == ("street.mp4", 64, 48, 50)
    assert list(video.listed) == list(range(50))
    assert source.labels == ["waves", "stand", "walk"]
    marks = _marks(source)
    assert sorted(marks) == [(10, "0"), (11, "0"), (12, "0"), (12, "1"), (13, "0"), (14, "0")]
    assert marks[10, "0"].box == (6.4, 4.8, 32.0, 43.2)
    assert marks[10, "0"].actions == ("stand",)
    assert marks[12, "0"].actions == ("waves", "stand")
    assert marks[12, "1"].actions == ("walk",)
    assert source.notes["attribute 'note' was not taken for an action (--attributes chooses)"] == 0


def test_attributes_are_chosen_by_name(tmp_path):
    path = made_files.cvat(tmp_path / "annotations.xml")
    source = _read(path, attributes=("pose", "note"))
    assert source.labels == ["stand", "walk"]
    assert _marks(source)[12, "0"].actions == ("stand", "in a hat")
    with pytest.raises(model.ImportFault, match="no attribute 'posture'.*waves, pose, note"):
        _read(path, attributes=("posture",))


_SPARSE = """  <track id="4" label="person">
    <box frame="0" outside="0" occluded="0" keyframe="1" xtl="0" ytl="0" xbr="10" ybr="10">
      <attribute name="waves">true</attribute><attribute name="pose">stand</attribute>
    </box>
    <box frame="4" outside="0" occluded="0" keyframe="1" xtl="8" ytl="4" xbr="18" ybr="14">
      <attribute name="waves">false</attribute><attribute name="pose">walk</attribute>
    </box>
    <box frame="8" outside="1" occluded="0" keyframe="1" xtl="8" ytl="4" xbr="18" ybr="14">
      <attribute name="waves">false</attribute><attribute name="pose">walk</attribute>
    </box>
    <box frame="20" outside="0" occluded="0" keyframe="1" xtl="8" ytl="4" xbr="18" ybr="14">
      <attribute name="waves">false</attribute><attribute name="pose">walk</attribute>
    </box>
  </track>"""


def test_keyframes_alone_are_interpolated_up_to_outside(tmp_path):
    source = _read(made_files.cvat(tmp_path / "annotations.xml", _SPARSE))
    marks = {mark.frame: mark for mark in source.videos[0].marks}
    assert sorted(marks) == [0, 1, 2, 3, 4, 5, 6, 7, 20]
    assert marks[1].box == (2.0, 1.0, 12.0, 11.0)
    assert marks[3].actions == ("waves", "stand") and marks[4].actions == ("walk",)
    assert source.notes["boxes interpolated between keyframes"] == 6
    assert source.notes["tracks that end without outside: they end with their last box"] == 1


def test_gaps_where_cvat_interpolated_are_deleted_frames(tmp_path):
    tracks = made_files.CVAT_TRACKS
    first, second = tracks.index('    <box frame="11"'), tracks.index('    <box frame="12"')
    source = _read(made_files.cvat(tmp_path / "annotations.xml", tracks[:first] + tracks[second:]))
    assert 11 not in {mark.frame for mark in source.videos[0].marks}


def test_start_and_step_of_a_task(tmp_path):
    tracks = _SPARSE.replace('frame="0"', 'frame="100"').replace('frame="4"', 'frame="110"')
    tracks = tracks.replace('frame="8"', 'frame="120"').replace('frame="20"', 'frame="140"')
    path = made_files.cvat(tmp_path / "a.xml", tracks, size=10, start=100, stop=149,
                           filter="step=5")  # fmt: skip
    source = _read(path)
    assert [mark.frame for mark in source.videos[0].marks] == [100, 105, 110, 115, 140]
    assert list(source.videos[0].listed) == list(range(100, 150, 5))
    assert source.videos[0].count_may_be_less


def test_labels_are_actions_where_no_attribute_is(tmp_path):
    text = made_files.cvat(tmp_path / "a.xml")
    content = (tmp_path / "a.xml").read_text()
    begin, end = content.index("          <attributes>"), content.index("        </label>")
    content = content[:begin] + content[end:]
    content = "\n".join(line for line in content.splitlines() if "<attribute name" not in line)
    (tmp_path / "a.xml").write_text(content)
    source = _read(text)
    assert source.labels == ["person"]
    assert {mark.actions for mark in source.videos[0].marks} == {("person",)}


def test_a_rotated_box_is_the_upright_one_around_it(tmp_path):
    box = '    <box frame="3" keyframe="1" outside="0" occluded="0" xtl="20" ytl="10" xbr="40" ' \
          'ybr="20" rotation="90.0"><attribute name="waves">true</attribute></box>\n'  # fmt: skip
    source = _read(
        made_files.cvat(tmp_path / "a.xml", f'<track id="0" label="person">{box}</track>')
    )
    (mark,) = source.videos[0].marks
    assert mark.box == pytest.approx((25.0, 5.0, 35.0, 25.0))
    assert source.notes["rotated boxes: the upright box around each was taken"] == 1
    assert source.notes["boxes without attribute 'pose': its last or default value was taken"] == 1


def test_other_shapes_are_counted(tmp_path):
    tracks = made_files.CVAT_TRACKS + (
        '<track id="9" label="person"><polygon frame="3" outside="0" keyframe="1" '
        'points="1,1;2,2;3,1"/></track>'
    )
    source = _read(made_files.cvat(tmp_path / "a.xml", tracks))
    assert source.notes["<polygon> elements, which are not boxes, were left out"] == 1


def test_a_zip_as_it_is_downloaded(tmp_path):
    made_files.cvat(tmp_path / "annotations.xml")
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        archive.write(tmp_path / "annotations.xml", "annotations.xml")
        archive.writestr("images/frame_000000.PNG", b"")
    assert len(_read(tmp_path / "task.zip").videos[0].marks) == 6
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("labels.json", "{}")
    with pytest.raises(model.ImportFault, match=r"other.zip: there is no \.xml in it"):
        _read(tmp_path / "other.zip")


def test_a_project_of_several_tasks(tmp_path):
    path = tmp_path / "a.xml"
    made_files.cvat(path)
    text = path.read_text()
    begin, end = text.index("    <task>"), text.index("    </task>") + len("    </task>\n")
    labels = text[text.index("      <labels>") : text.index("      </labels>") + 16]
    task = text[begin:end].replace(labels, "")
    tasks = task + task.replace("<id>7<", "<id>8<").replace("street.mp4", "yard.mp4")
    text = (
        text[:begin] + f"<project><id>1</id>{labels}<tasks>{tasks}</tasks></project>" + text[end:]
    )
    text = text.replace('id="0" label="person"', 'id="0" label="person" task_id="7"')
    text = text.replace('id="1" label="person"', 'id="1" label="person" task_id="8"')
    path.write_text(text)
    street, yard = _read(path).videos
    assert (street.name, len(street.marks)) == ("street.mp4", 5)
    assert (yard.name, [mark.frame for mark in yard.marks]) == ("yard.mp4", [12])
    path.write_text(text.replace('task_id="8"', 'task_id="6"'))
    with pytest.raises(model.ImportFault, match=r"line \d+: task_id is '6'; .* 7, 8"):
        _read(path)


def test_cvat_for_images_of_a_video_task(tmp_path):
    image = (
        '<image id="3" name="frame_000003" width="64" height="48">'
        '<box label="person" source="manual" occluded="0" xtl="1" ytl="2" xbr="30" ybr="40" '
        'z_order="0"><attribute name="waves">true</attribute>'
        '<attribute name="pose">__undefined__</attribute></box></image>'
    )
    source = _read(made_files.cvat(tmp_path / "a.xml", image))
    (mark,) = source.videos[0].marks
    assert (mark.frame, mark.actions, mark.person) == (3, ("waves",), None)
    with pytest.raises(model.ImportFault, match="'kitchen.jpg' is not a frame of a video"):
        _read(made_files.cvat(tmp_path / "a.xml", image.replace("frame_000003", "kitchen.jpg")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (' xtl="6.40"', "", r"line 72: <box> has no attribute 'xtl'"),
        ('xtl="6.40"', 'xtl="left"', r"line 72: 'xtl' is 'left'; it must be a number of pixels"),
        ('xtl="6.40"', 'xtl="nan"', r"line 72: 'xtl' is 'nan'"),
        ('frame="10" ', "", r"line 72: 'frame' of <box> is missing"),
        ('frame="10" ', 'frame="-1" ', r"line 72: 'frame' of <box> is '-1'"),
        ('outside="0"', 'outside="yes"', r"line 72: 'outside' is 'yes'; it must be 0 or 1"),
        (' label="person"', "", r"line 71: <track> has no attribute 'label'"),
        ('label="person"', 'label="dog"', r"line 71: label 'dog' is not declared .* person"),
        ('name="waves"', 'name="wavs"', r"line 73: attribute 'wavs' is not declared for label"),
        (">stand</attribute>", ">sit</attribute>", r"line 72: attribute 'pose' is 'sit', not one"),
        (">false</attribute>", ">no?</attribute>", r"line 72: attribute 'waves' is 'no\?', not tr"),
        ("</track>", "</trak>", r"line 102: not XML: mismatched tag"),
        ("<size>50", "<size>900000000000", r"line 5.*it must be a whole number, 20,000,000 at mo"),
        ('frame="10" ', 'frame="99999999999" ', r"line 72: 'frame' of <box> is '99999999999'"),
        ("<size>50", "<size>many", r"line 5: 'size' of <task> is 'many'"),
        ("<annotations>", "<annotation>", r"line 2: the first element is <annotation>"),
        ("<version>1.1", "<version>2.0", r"line 3: version '2.0'; it must be 1.1"),
        ("<width>64", "<width>0", r"line 63: the size is 0x48 pixels"),
    ],
)  # fmt: skip
def test_what_is_not_as_cvat_writes_it_is_refused_with_its_line(tmp_path, old, new, message):
    path = made_files.cvat(tmp_path / "annotations.xml", replace=[(old, new)])
    with pytest.raises(model.ImportFault, match=message) as raised:
        _read(path)
    assert str(raised.value).startswith(path)


def test_a_file_that_is_cut_off(tmp_path):
    path = tmp_path / "annotations.xml"
    made_files.cvat(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(model.ImportFault, match=r"line \d+: not XML"):
        _read(path)
    path.write_bytes(b"")
    with pytest.raises(model.ImportFault, match="the annotation file is empty"):
        _read(path)


_BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>'


@pytest.mark.parametrize(
    "declaration",
    [_BOMB, '<!DOCTYPE a SYSTEM "http://localhost:1/a.dtd">',
     '<!DOCTYPE a [<!ENTITY passwd SYSTEM "file:///etc/passwd">]>'],
)  # fmt: skip
def test_entities_are_refused_before_they_are_read(tmp_path, declaration):
    head = "<annotations>\n"
    path = made_files.cvat(tmp_path / "a.xml", replace=[(head, declaration + head)])
    with pytest.raises(model.ImportFault, match="line 2: a document type or an entity is declared"):
        _read(path)


def test_nesting_ends(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<annotations>" + "<a>" * 100_000)
    with pytest.raises(model.ImportFault, match="nested too deeply"):
        _read(path)


_CAR = """  <track id="9" label="car">
    <box frame="3" outside="0" occluded="0" keyframe="1" xtl="0" ytl="0" xbr="10" ybr="10">
    </box>
    <box frame="5" outside="1" occluded="0" keyframe="1" xtl="0" ytl="0" xbr="10" ybr="10">
    </box>
  </track>"""


def test_boxes_of_labels_without_actions_are_of_no_person(tmp_path):
    """A car has no attribute that is an action: it is no person who does nothing."""
    path = made_files.cvat(
        tmp_path / "annotations.xml",
        made_files.CVAT_TRACKS + "\n" + _CAR,
        replace=[("<labels>", "<labels><label><name>car</name></label>")],
    )
    source = _read(path)
    assert {mark.person for mark in source.videos[0].marks} == {"0", "1"}
    note = "boxes of label 'car', which has no attribute for actions, were left out"
    assert source.notes[note] == 1


def test_a_zip_that_was_packed_again_on_macos(tmp_path):
    made_files.cvat(tmp_path / "annotations.xml")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "annotations.xml", "task/annotations.xml")
        archive.writestr("__MACOSX/task/._annotations.xml", b"\0\5\x16\7")
    assert len(_read(tmp_path / "a.zip").videos) == 1
