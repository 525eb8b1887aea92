# SPDX-License-Identifier: Apache-2.0
"""Pictures for TensorBoard are checked by what stands where."""

import numpy as np
import pytest

from object_detection_ext.visualization import drawing, panels

_GRAY = np.full((240, 320, 3), 100, np.uint8)
_BOX = (0.25, 0.25, 0.75, 0.5)


def _person(*actions, box=_BOX, number=1):
    return panels.NumberedPerson(box, number, [panels.Action(*action) for action in actions])


def _draw(people, **kwargs) -> np.ndarray:
    return panels.draw_panels([panels.Panel("heading", _GRAY, people, "nobody")], **kwargs)


def _near(picture, color) -> np.ndarray:
    """Where a picture has a colour, bool [H, W]."""
    return np.abs(picture.astype(int) - np.array(color)).max(axis=-1) < 12


def _frame_of(picture, top) -> np.ndarray:
    """The part that is the frame: 346 pixels wide, in the frame's 4:3, two from the left."""
    return picture[top : top + 260, 2:348]


def _top_of_frame(picture) -> int:
    rows = np.nonzero(_near(picture, (100, 100, 100))[:, 2:348].mean(axis=1) > 0.5)[0]
    return int(rows[0])


def test_box_stands_where_the_person_is():
    picture = _draw([_person(("stand",))])
    assert picture.shape[1] == panels.PANEL_WIDTH
    frame = _frame_of(picture, _top_of_frame(picture))
    rows, columns = np.nonzero(_near(frame, drawing.person_color(0)))
    assert abs(rows.min() - 0.25 * 260) <= 1 and abs(rows.max() - 0.75 * 260) <= 1
    assert abs(columns.min() - 0.25 * 346) <= 1 and abs(columns.max() - 0.5 * 346) <= 1
    # No text on the frame: all else but the box and its number is the frame itself.
    assert (_near(frame, (100, 100, 100))).mean() > 0.95


def _list_of(picture) -> np.ndarray:
    return picture[_top_of_frame(picture) + 260 :]


def _text_lines(part, ink) -> int:
    """Number of lines, by the runs of rows that have ink."""
    rows = (_near(part, ink)).any(axis=1)
    return int((np.diff(np.concatenate([[0], rows.astype(int)])) == 1).sum())


def test_every_action_is_a_line_in_the_list_and_a_person_is_a_number_once():
    one, three = (
        _list_of(_draw([_person(*((f"action {i}",) for i in range(count)))])) for count in (1, 3)
    )
    white = (240, 240, 240)
    assert _text_lines(one[:, panels.PANEL_WIDTH // 8 :], white) == 1
    assert _text_lines(three[:, panels.PANEL_WIDTH // 8 :], white) == 3
    numbers = _near(three, drawing.person_color(0))
    rows = np.nonzero(numbers.any(axis=1))[0]
    assert len(rows) < 35 and numbers[:, 60:].sum() == 0


def test_right_and_wrong_actions_differ_in_colour_and_mark():
    right = _list_of(_draw([_person(("stand", 0.9, True))]))
    wrong = _list_of(_draw([_person(("stand", 0.9, False))]))
    unknown = _list_of(_draw([_person(("stand", 0.9))]))
    green, red = (110, 225, 130), (255, 130, 120)
    assert _near(right, green).sum() > 100 and not _near(right, red).any()
    assert _near(wrong, red).sum() > 100 and not _near(wrong, green).any()
    # The mark stands behind the score, at the right end.
    assert _near(right, green)[:, -32:].sum() > 20 and _near(wrong, red)[:, -32:].sum() > 20
    assert not _near(unknown, (240, 240, 240))[:, -30:].any()
    shapes = _near(right, green)[:, -32:], _near(wrong, red)[:, -32:]
    assert (shapes[0] != shapes[1]).any(), "those who do not see the colours see the shape"


def test_long_names_are_wrapped_and_long_lists_are_cut():
    long = "talk to (e.g., self, a person, a group)"
    white = (240, 240, 240)
    names = _list_of(_draw([_person((long, 0.55))]))
    text = names[:, 46:]
    assert _text_lines(text, white) == 2
    score = names[:, -84:-30]
    assert _text_lines(score, white) == 1, "the name does not run into its score"
    many = _draw([_person(*((f"action {i}", 0.5) for i in range(60)))])
    ten = _draw([_person(*((f"action {i}", 0.5) for i in range(9)))])
    assert many.shape == ten.shape
    _draw([_person(("w" * 200, 0.5))])


def test_nobody_is_said():
    said = _list_of(_draw([]))
    assert _text_lines(said, (170, 170, 175)) == 1
    assert not _near(said, drawing.person_color(0)).any()


def test_numbers_of_equal_boxes_do_not_cover_each_other():
    picture = _draw([_person(("stand",)), _person(("sit",), number=2), _person(("run",), number=3)])
    frame = _frame_of(picture, _top_of_frame(picture))
    for number in range(3):
        # A number's area is about 25 x 29 pixels, of which its digit takes some.
        assert _near(frame, drawing.person_color(number)).sum() > 400, number


def test_panels_stand_side_by_side_below_the_title():
    plain, titled = (
        panels.draw_panels([panels.Panel("", _GRAY, [])] * 2, title) for title in ("", "video")
    )
    assert plain.shape[1] == titled.shape[1] == 2 * panels.PANEL_WIDTH
    assert titled.shape[0] > plain.shape[0]
    np.testing.assert_array_equal(titled[len(titled) - len(plain) :], plain)
    left, right = np.split(plain, 2, axis=1)
    np.testing.assert_array_equal(left, right)


def test_frames_must_be_frames():
    with pytest.raises(ValueError, match="uint8 .* not float64"):
        panels.draw_panels([panels.Panel("", np.zeros([4, 4, 3]), [])])
    with pytest.raises(ValueError, match="not uint8"):
        panels.draw_panels([panels.Panel("", np.zeros([4, 4, 12], np.uint8), [])])


def test_stacked_pictures_have_one_height():
    low, high = np.full([2, 5, 3], 9, np.uint8), np.full([4, 5, 3], 7, np.uint8)
    stacked = panels.stack_pictures([low, high])
    assert stacked.shape == (2, 4, 5, 3)
    np.testing.assert_array_equal(stacked[0, :2], low)
    np.testing.assert_array_equal(stacked[1], high)
    assert (stacked[0, 2:] < 30).all()
