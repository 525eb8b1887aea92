# SPDX-License-Identifier: Apache-2.0
"""The toy data must keep its promises: exact boxes, the watch rule, balance, repeatability."""

import collections
import csv
import dataclasses
import re

import av
import numpy as np
import pytest
from absl import flags

from object_detection_ext.ava import annotations, label_maps
from object_detection_ext.tools import make_toy_dataset as toy
from tests import command_lines

_SIZE = (128, 96)


def _scene(company, seed=0):
    return toy.make_scene(company, np.random.default_rng(seed), _SIZE)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    toy.make_dataset(folder, num_train=6, num_eval=4, seed=3, width=128, height=96, seconds=2.4)
    return folder


def test_files_are_a_valid_data_set(dataset):
    label_map = label_maps.read_label_map(dataset / "label_map.pbtxt")
    assert label_map == toy.ACTIONS
    for split, count in (("train", 6), ("eval", 4)):
        labels = annotations.read_annotations(dataset / f"{split}.csv", label_map)
        assert len(labels.by_video()) == count
        for video_id, keyframes in labels.by_video().items():
            assert [k.timestamp for k in keyframes] == [1.0, 2.0]
            with av.open(str(dataset / "videos" / f"{video_id}.mp4")) as container:
                frames = list(container.decode(video=0))
            assert len(frames) == 60
            assert (frames[0].width, frames[0].height) == (128, 96)
            assert float(frames[-1].time) == pytest.approx(59 / 25)


def test_labels_follow_the_rules_as_read_from_the_files(dataset):
    rows = list(csv.reader((dataset / "train.csv").open()))
    rows += list(csv.reader((dataset / "eval.csv").open()))
    frames = collections.defaultdict(lambda: collections.defaultdict(set))
    for video_id, timestamp, *_, action, person in rows:
        frames[video_id, timestamp][person].add(int(action))
    watched = 0
    for people in frames.values():
        for person, actions in people.items():
            assert len(actions & {toy.STAND, toy.CROUCH, toy.WALK, toy.JUMP}) == 1
            others_wave = any(toy.WAVE in a for p, a in people.items() if p != person)
            still = not actions & {toy.WALK, toy.JUMP, toy.WAVE}
            assert (toy.WATCH in actions) == (still and others_wave)
            watched += toy.WATCH in actions
    assert watched > 0


def test_watching_shows_in_nobody_s_own_pixels():
    still = _scene([("still", False), ("jump", False)]).people
    person = next(p for p in still if p.motion == "still")
    other = next(p for p in still if p.motion == "jump")
    waving = dataclasses.replace(other, motion="wave")
    scenes = [(person, other), (person, waving)]
    assert toy.person_actions(scenes[0], 0) == [toy.STAND]
    assert toy.person_actions(scenes[1], 0) == [toy.STAND, toy.WATCH]
    # One drawing stands for both: drawing a person takes nothing but that person.
    background = _scene([("still", False)]).background
    left, box = toy.render(toy.Scene(background, (person,), None), 1.0)
    for people in scenes:
        picture, boxes = toy.render(toy.Scene(background, people, None), 1.0)
        assert boxes[0] == box[0]
        mine = _pixels_of(box[0]) & ~_pixels_of(boxes[1])
        np.testing.assert_array_equal(picture[mine], left[mine])


def _pixels_of(box):
    """Returns bool [H, W]: the pixels that a normalized box touches, and one around them."""
    ymin, xmin, ymax, xmax = np.array(box) * [_SIZE[1], _SIZE[0], _SIZE[1], _SIZE[0]]
    y, x = np.mgrid[: _SIZE[1], : _SIZE[0]]
    return (y >= ymin - 1) & (y <= ymax) & (x >= xmin - 1) & (x <= xmax)


@pytest.mark.parametrize("motion", ["still", "wave", "walk", "jump"])
@pytest.mark.parametrize("seconds", [0.0, 1.0, 2.3])
def test_boxes_are_the_drawn_extent(motion, seconds):
    for seed in range(4):
        scene = dataclasses.replace(_scene([(motion, False)], seed), ball=None)
        picture, (box,) = toy.render(scene, seconds)
        empty, _ = toy.render(dataclasses.replace(scene, people=()), seconds)
        rows, columns = np.nonzero(np.any(picture != empty, axis=-1))
        drawn = [rows.min() / 96, columns.min() / 128, (rows.max() + 1) / 96,
                 (columns.max() + 1) / 128]  # fmt: skip
        # Equal to a pixel; a column of the same colour as the wall may hide one more.
        np.testing.assert_allclose(box, drawn, atol=2.5 / 96)
        assert all(0 <= v <= 1 for v in box)


def test_motion_is_visible_between_frames_and_stillness_is_still():
    def change(motion):
        values = []
        for seed in range(5):
            scene = dataclasses.replace(_scene([(motion, False)], seed), ball=None)
            frames = [toy.render(scene, t)[0].astype(int) for t in (1.0, 1.16, 1.32, 1.48)]
            values.append(np.mean(np.abs(np.diff(frames, axis=0)) > 20))
        return np.mean(values)

    still = change("still")
    for motion in ("wave", "walk", "jump"):
        assert change(motion) > 2 * still


@pytest.mark.parametrize("num_videos", [20, 60])
def test_classes_are_balanced(num_videos):
    counts, people = collections.Counter(), 0
    sizes = collections.defaultdict(collections.Counter)
    for company in toy.deal_companies(num_videos, np.random.default_rng(5)):
        scene = _scene(company)
        for index, person in enumerate(scene.people):
            actions = toy.person_actions(scene.people, index)
            counts.update(actions)
            people += 1
            if person.motion == "still":
                sizes[toy.WATCH in actions][len(company) > 1] += 1
    assert all(counts[action] >= 0.15 * people for action in toy.ACTIONS)
    # In company, watching or not is nearly even, so that guessing does not pay.
    watching, not_watching = sizes[True][True], sizes[False][True]
    assert 0.7 < watching / not_watching < 1.4


def test_labels_and_pictures_are_the_same_every_time(tmp_path, dataset):
    toy.make_dataset(
        tmp_path, num_train=6, num_eval=4, seed=3, width=128, height=96, seconds=2.4, workers=1
    )
    for name in ("train.csv", "eval.csv", "label_map.pbtxt", "videos/train_0002.mp4"):
        assert (tmp_path / name).read_bytes() == (dataset / name).read_bytes()
    other = [toy.deal_companies(20, np.random.default_rng(seed)) for seed in (1, 2)]
    assert other[0] != other[1]


def test_splits_and_seeds_differ(dataset):
    assert (dataset / "train.csv").read_text() != (dataset / "eval.csv").read_text()
    plans = [toy._plan(dataset, "train", 3, {"seed": s, "width": 128, "height": 96, "seconds": 3.0,
                                             "fps": 25}) for s in (1, 2)]  # fmt: skip
    scenes = [toy.make_scene([("still", False)], np.random.default_rng(p[0].seed), _SIZE)
              for p in plans]  # fmt: skip
    assert scenes[0].people != scenes[1].people


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_train": 0, "num_eval": 0}, "one of them more"),
        ({"num_train": -1}, "at least 0"),
        ({"width": 97}, "width must be even and at least 64 pixels, not 97"),
        ({"height": 300}, "width must be 1 to 3 times the height"),
        ({"fps": 2}, "fps must be at least 5"),
        ({"seconds": 1.0}, "seconds must be more than 1"),
    ],
)
def test_options_out_of_range(tmp_path, options, message):
    options = {"num_train": 1, "num_eval": 1, **options}
    with pytest.raises(ValueError, match=message):
        toy.make_dataset(tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


def test_command_line(tmp_path, capsys):
    values = flags.FlagValues()
    toy.define_flags(values)
    common = ["toy", f"--output={tmp_path}", "--num_train=1", "--num_eval=0", "--width=128"]
    values([*common, "--height=300"])
    with command_lines.ends(capsys, 2, "^error: Cannot make the toy data: width must be"):
        toy.main(["toy"], values)
    values([*common, "--height=96", "--seconds=1.4"])
    toy.main(["toy"], values)
    output = capsys.readouterr().out
    assert re.search(r"toy data: 1/1 videos, [\d.]+ per s, 0 s left", output)
    assert "create_ava_records --annotations" in output
    assert (tmp_path / "videos" / "train_0000.mp4").is_file()
