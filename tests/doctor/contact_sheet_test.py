# SPDX-License-Identifier: Apache-2.0
"""The contact sheet shows the annotated keyframes, with the boxes where the file has them."""

import numpy as np
from PIL import Image

from object_detection_ext.doctor import contact_sheet
from object_detection_ext.visualization import drawing
from tests.doctor import small_data
from tests.doctor.small_data import rows, write_csv

# A frame of 64x48 pixels at the size of a tile.
WIDTH, HEIGHT = 533, 400


def _drawn(exam, count=4):
    """Each tile with its picture, as they are laid out."""
    return list(contact_sheet._pictures(exam, list(contact_sheet.choose(exam, count))))


def _is(pixel, color) -> bool:
    return bool(np.abs(np.asarray(pixel, int) - color).max() < 3)


def _box_edges(picture, box, color) -> list[bool]:
    """Whether the middles of the four edges of x1,y1,x2,y2 have the colour."""
    x1, y1, x2, y2 = (
        round(value * (side - 1))
        for value, side in zip(box, [picture.shape[1], picture.shape[0]] * 2, strict=True)
    )
    middle = (x1 + x2) // 2, (y1 + y2) // 2
    places = [(middle[0], y1), (middle[0], y2), (x1, middle[1]), (x2, middle[1])]
    return [_is(picture[y, x], color) for x, y in places]


def test_boxes_stand_where_the_rows_have_them(data):
    exam, _ = data.look()
    pictures = _drawn(exam)
    assert [(tile.split.split, tile.video_id) for tile, _ in pictures] == [
        ("train", "a"), ("train", "b"), ("val", "c"), ("val", "c"),
    ]  # fmt: skip
    for tile, picture in pictures:
        assert picture.shape[1] in (WIDTH - 1, WIDTH, WIDTH + 1)
        assert picture.shape[0] == HEIGHT
        assert all(_box_edges(picture, (0.25, 0.125, 0.5, 0.875), drawing.person_color(0)))
        assert all(_box_edges(picture, (0.6, 0.2, 0.8, 0.9), drawing.person_color(1)))
        # The person of the video is inside the first box.
        assert _near(picture[200, 200], small_data.RED)
        assert _near(picture[200, 330], small_data.GREY)
        first, second = tile.people
        assert [name for name, _ in first.actions] == ["stand", "walk", "watch (a person)"]
        assert [name for name, _ in second.actions] == ["stand"]
        assert tile.faults == ()


def _near(pixel, color) -> bool:
    """The colour, after the video's compression."""
    return bool(np.abs(np.asarray(pixel, int) - color).max() < 30)


def test_caption_names_video_time_and_rows(data):
    exam, _ = data.look()
    captions = [tile.caption for tile, _ in _drawn(exam, 99)]
    assert len(captions) == 9
    assert captions[1] == "train: a, 0.6 s, rows 5-8"
    assert captions[-1] == "val: c, 0001 s, rows 9-12"


def test_the_frame_is_that_of_the_timestamp(data):
    levels = [np.full((48, 64, 3), 4 * i, np.uint8) for i in range(50)]
    drawing.write_video(data.path("c"), levels, 25)
    exam, _ = data.look()
    for tile, picture in _drawn(exam, 99)[-3:]:
        level = 4 * round(tile.seconds * 25)
        assert abs(int(picture[200, 15, 0]) - level) < 8


def test_pixel_boxes_are_drawn_as_given_with_a_note(data):
    lines = [line.replace(small_data.BOX, "16,6,32,42") for line in rows("a", "b")]
    exam, _ = data.look(annotations=write_csv(data.folder / "train.csv", lines))
    tile, picture = _drawn(exam, 2)[0]
    assert tile.faults == ("outside [0, 1]: 16,6,32,42",)
    assert tile.people[0].box == (6, 16, 42, 32)
    # Cut off at the frame's edge it is a point in the corner: nothing is where the person stands.
    assert not any(_box_edges(picture, (0.25, 0.125, 0.5, 0.875), drawing.person_color(0)))
    sheet = contact_sheet.draw([(tile, picture)])
    red = (sheet[:, :, 0] > 150) & (sheet[:, :, 1] < 60) & (sheet[:, :, 2] < 60)
    assert red[-60:].any()


def test_boxes_with_swapped_corners_are_drawn_with_a_note(data):
    lines = [line.replace(small_data.BOX, "0.5,0.125,0.25,0.875") for line in rows("a", "b")]
    exam, _ = data.look(annotations=write_csv(data.folder / "train.csv", lines))
    tile, picture = _drawn(exam, 2)[0]
    assert tile.faults == ("corners in the wrong order: 0.5,0.125,0.25,0.875",)
    assert all(_box_edges(picture, (0.25, 0.125, 0.5, 0.875), drawing.person_color(0)))


def test_unknown_actions_and_no_label_map_show_ids(data):
    exam, _ = data.look(label_map=None)
    (tile, _), *_ = _drawn(exam)
    assert [name for name, _ in tile.people[0].actions] == ["action 1", "action 2", "action 3"]


def test_frames_that_cannot_be_decoded_are_grey_with_the_reason(data):
    lines = [*rows("a", "b"), f"b,2.4,{small_data.BOX},1,0"]
    exam, _ = data.look(annotations=write_csv(data.folder / "train.csv", lines))
    pictures = _drawn(exam, 99)
    (outside,) = [picture for tile, picture in pictures if tile.seconds == 2.4]
    assert _is(outside[-1, -1], (120, 120, 120))
    assert (outside == 255).all(axis=2).any()  # the reason, in white


def test_sheet_is_a_png_of_all_tiles(data):
    exam, _ = data.look()
    path = data.folder / "sheet.png"
    assert contact_sheet.write(str(path), exam, 4) == 4
    sheet = np.asarray(Image.open(path))
    (_, first), *_ = _drawn(exam)
    top = next(y for y in range(sheet.shape[0]) if _is(sheet[y, 14], first[0, 2]))
    pasted = sheet[top : top + first.shape[0], 12 : 12 + first.shape[1]]
    np.testing.assert_array_equal(pasted, first)
    # Three columns, two rows.
    assert sheet.shape[1] == 12 + 3 * (first.shape[1] + 12)
    assert sheet.shape[0] > 2 * HEIGHT
    content = path.read_bytes()
    contact_sheet.write(str(path), exam, 4)
    assert path.read_bytes() == content
    assert not list(data.folder.glob("*.incomplete"))


def test_nothing_to_show(data):
    for name in "abc":
        data.path(name).unlink()
    exam, _ = data.look()
    path = data.folder / "sheet.png"
    assert contact_sheet.write(str(path), exam, 4) == 0
    assert not path.exists()
