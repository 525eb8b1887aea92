# SPDX-License-Identifier: Apache-2.0
"""Pictures: of the right moment, with the boxes where they belong; bad videos are notes."""

import io

import numpy as np
import pytest
from PIL import Image

from object_detection_ext.ava import time_offsets
from object_detection_ext.report import examples, pictures
from tests import numbered_videos

FAR = (0.05, 0.05, 0.1, 0.1)
DETECTED, TRUTH = (0.3, 0.25, 0.9, 0.5), (0.3, 0.6, 0.9, 0.85)


def _example(video="v", seconds=1, box=FAR, people=(), score=0.5):
    return examples.Example("sit", score, "right", video, seconds, box, 0.0, (), people)


def _pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def test_pictures_are_of_their_moment_and_of_limited_size(tmp_path):
    numbered_videos.write(tmp_path / "v.mp4", np.arange(40) / 10, shape=(480, 640))
    wanted = [_example(seconds=s, score=k) for s, k in ((2, 0.1), (0.5, 0.2), (2, 0.3))]
    made = pictures.cut(wanted, str(tmp_path))
    assert made.notes == []
    # Drawn in a corner, the box covers no number.
    assert [numbered_videos.read_number(_pixels(made.jpegs[e])) for e in wanted] == [20, 5, 20]
    assert {pictures.jpeg_size(jpeg) for jpeg in made.jpegs.values()} == {(400, 300)}


def test_pictures_of_folders_of_frames_and_of_parts_of_films(tmp_path):
    numbered_videos.write_frames(tmp_path / "v", 40, "{:05d}.png")
    wanted = [_example(seconds=902), _example(seconds=900.5)]
    offsets = time_offsets.read("900")
    made = pictures.cut(wanted, str(tmp_path), frames_fps=10.0, offsets=offsets)
    assert made.notes == []
    assert [numbered_videos.read_number(_pixels(made.jpegs[e])) for e in wanted] == [20, 5]
    made = pictures.cut(wanted, str(tmp_path), offsets=offsets)
    assert "give --frames_fps" in made.notes[0]


def test_boxes_of_detection_and_ground_truth_are_told_apart():
    frame = np.full((150, 200, 3), 100, np.uint8)
    drawn = pictures.draw(frame, _example(box=DETECTED, people=((TRUTH, ("sit",)),)))
    assert drawn.shape == (300, 400, 3)
    assert tuple(drawn[180, 100]) == pictures.DETECTION_COLOR
    assert tuple(drawn[180, 240]) == pictures.TRUTH_COLOR
    assert tuple(drawn[180, 150]) == tuple(drawn[180, 290]) == (100, 100, 100)
    # The labels stand above the boxes, in their colours.
    for left, color in ((100, pictures.DETECTION_COLOR), (240, pictures.TRUTH_COLOR)):
        label = np.abs(drawn[70:88, left : left + 60].astype(int) - color).max(axis=2) < 45
        assert label.mean() > 0.3


def test_bad_videos_and_moments_are_counted_notes(tmp_path):
    numbered_videos.write(tmp_path / "v.mp4", np.arange(20) / 10)
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    good = _example(seconds=1)
    wanted = [good, _example("broken"), _example("gone"), _example(seconds=99)]
    made = pictures.cut(wanted, str(tmp_path))
    assert list(made.jpegs) == [good]
    (note,) = made.notes
    assert note.startswith("3 pictures missing. The first reason: ") and "broken" in note


def test_pictures_of_a_folder(tmp_path):
    (tmp_path / "below").mkdir()
    Image.new("RGB", (3000, 100), (255, 0, 0)).save(tmp_path / "below" / "wide.png")
    Image.new("L", (50, 40), 7).save(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not shown")
    found, notes = pictures.read_folder(str(tmp_path), 10)
    assert [picture.name for picture in found] == ["a.png", "below/wide.png"]
    assert pictures.jpeg_size(found[1].jpeg) == (1400, 47)
    assert _pixels(found[1].jpeg)[20, 700] == pytest.approx([255, 0, 0], abs=5)
    assert len(notes) == 1 and "broken.png cannot be read" in notes[0]
    found, notes = pictures.read_folder(str(tmp_path), 1)
    assert len(found) == 1 and "The first 1 of 3 pictures" in notes[0]


def test_a_folder_without_pictures_says_so(tmp_path):
    assert pictures.read_folder(str(tmp_path), 3) == ([], [f"{tmp_path} has no PNG files."])
