# SPDX-License-Identifier: Apache-2.0
"""Drawings are checked by where they change the frame, videos by reading them back."""

import av
import numpy as np
import pytest

from object_detection_ext.visualization import drawing

_BOX = (0.25, 0.25, 0.75, 0.5)


def _gray(height, width):
    return np.full((height, width, 3), 100, np.uint8)


def test_box_outline_stands_where_the_box_is():
    person = drawing.DetectedPerson(_BOX, ())
    frame = _gray(400, 600)
    picture = drawing.draw_people(frame, [person])
    assert picture.shape == (400, 600, 3)
    assert np.all(frame == 100)
    rows, columns = np.nonzero(np.any(picture != 100, axis=-1))
    assert abs(rows.min() - 100) <= 1 and abs(rows.max() - 300) <= 1
    assert abs(columns.min() - 150) <= 1 and abs(columns.max() - 300) <= 1
    assert tuple(picture[200, 150]) == drawing.person_color(0)
    assert np.all(picture[110:290, 160:290] == 100)


def test_every_action_gets_a_line():
    def height_of_label(count):
        actions = tuple((f"action {i}", 0.5) for i in range(count))
        picture = drawing.draw_people(_gray(480, 640), [drawing.DetectedPerson(_BOX, actions)])
        rows, _ = np.nonzero(np.any(picture[:119] != 100, axis=-1))
        return 120 - rows.min()

    heights = [height_of_label(count) for count in (1, 2, 3)]
    assert heights[0] >= 12
    assert np.diff(heights).min() >= 12


def test_small_frames_are_enlarged_and_large_ones_kept():
    assert drawing.display_size(96, 128) == (360, 480)
    assert drawing.display_size(1080, 1920) == (1080, 1920)
    assert drawing.display_size(481, 641) == (480, 640)
    assert drawing.draw_people(_gray(51, 77), []).shape[0] == 360


@pytest.mark.parametrize("size", [(96, 128), (240, 426), (1080, 1920)])
@pytest.mark.parametrize(
    "box", [(0.0, 0.0, 1.0, 1.0), (0.0, 0.9, 0.1, 1.0), (-0.5, 0.4, 2.0, 0.41)]
)
def test_labels_stay_inside_the_frame(size, box):
    person = drawing.DetectedPerson(box, (("talk to (e.g., self, a person, a group)", 0.987),))
    picture = drawing.draw_people(_gray(*size), [person], caption="12.5 s")
    # The label is opaque enough to be found by its colour and is not cut off at its right end.
    color = np.array(drawing.person_color(0))
    near = np.all(np.abs(picture.astype(int) - color) < 50, axis=-1)
    assert near.sum() > 500


def test_labels_of_neighbours_do_not_cover_each_other():
    actions = (("stand", 0.9), ("watch (a person)", 0.8))
    boxes = [(0.3, 0.2, 0.9, 0.4), (0.3, 0.32, 0.9, 0.5)]
    pictures = []
    for chosen in ([0, 1], [0], [1]):
        people = [drawing.DetectedPerson(boxes[i], actions) for i in chosen]
        pictures.append(drawing.draw_people(_gray(480, 640), people))
    areas = []
    for index, color in enumerate(drawing.person_color(i) for i in range(2)):
        del index
        near = np.all(np.abs(pictures[0].astype(int) - color) < 40, axis=-1)
        areas.append(near.sum())
    # Both labels show about equally much of their own colour.
    assert min(areas) > 0.6 * max(areas)


def test_colors_of_people_differ():
    colors = np.array([drawing.person_color(i) for i in range(8)], int)
    distances = np.abs(colors[:, None] - colors[None]).sum(-1) + 1000 * np.eye(8)
    assert distances.min() > 40


def test_wrong_frames_are_refused():
    with pytest.raises(ValueError, match="must be uint8"):
        drawing.draw_people(np.zeros((10, 10, 3), np.float32), [])


@pytest.mark.parametrize("codec_missing", [False, True])
def test_video_reads_back(tmp_path, monkeypatch, codec_missing):
    if codec_missing:
        monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    frames = [np.full((47, 63, 3), 20 * i, np.uint8) for i in range(12)]
    assert drawing.write_video(tmp_path / "v.mp4", iter(frames), 23.976) == 12
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == ("mpeg4" if codec_missing else "h264")
        assert stream.codec_context.pix_fmt == "yuv420p"
        read = list(container.decode(stream))
    assert len(read) == 12
    assert (read[0].width, read[0].height) == (64, 48)
    assert float(read[11].time) == pytest.approx(11 / 23.976, abs=2e-3)
    for i, frame in enumerate(read):
        assert abs(frame.to_ndarray(format="rgb24").mean() - 20 * i) < 6


def test_video_of_nothing_or_of_changing_frames(tmp_path):
    with pytest.raises(ValueError, match="no frame"):
        drawing.write_video(tmp_path / "none.mp4", [], 25)
    assert not (tmp_path / "none.mp4").exists()
    frames = [_gray(48, 64), _gray(48, 66)]
    with pytest.raises(ValueError, match="Frame 1 is uint8"):
        drawing.write_video(tmp_path / "v.mp4", frames, 25)
    assert list(tmp_path.iterdir()) == []


def test_colors_can_be_chosen():
    people = [drawing.DetectedPerson(_BOX, ())] * 2
    picture = drawing.draw_people(_gray(400, 600), people[:1], colors=[(1, 2, 3)])
    assert tuple(picture[200, 150]) == (1, 2, 3)
    with pytest.raises(ValueError):
        drawing.draw_people(_gray(400, 600), people, colors=[(1, 2, 3)])
