# SPDX-License-Identifier: Apache-2.0
"""Video-AP and frame-AP of tubes: plain loops, hand-computed cases, and what is said of input."""

import dataclasses
import json

import numpy as np
import pytest

from object_detection_ext import errors
from object_detection_ext.ava import tables
from object_detection_ext.evaluation import tube_protocols, video_ap
from object_detection_ext.evaluation.tube_protocols import TUBE_PROTOCOLS, Linking
from tests.evaluation import plain_tubes
from tests.evaluation.ava_rows import CATEGORIES, RUN, SIT, TALK

LABEL_MAP = "".join(f'item {{ name: "{c["name"]}" id: {c["id"]} }}\n' for c in CATEGORIES)
BOX = (0.1, 0.1, 0.9, 0.5)  # [ymin, xmin, ymax, xmax]


def _write(tmp_path, truth, found, listed=(), spacing=1.0):
    """Files of entries (video, keyframe, box, class, person or score); their paths."""

    def row(video, keyframe, box, class_id, last):
        ymin, xmin, ymax, xmax = box
        return f"{video},{keyframe * spacing:g},{xmin},{ymin},{xmax},{ymax},{class_id},{last}\n"

    paths = [str(tmp_path / name) for name in ("l.pbtxt", "g.csv", "d.csv")]
    empty = "".join(f"{video},{keyframe * spacing:g}\n" for video, keyframe in listed)
    texts = (LABEL_MAP, empty + "".join(row(*e) for e in truth), "".join(row(*e) for e in found))
    for path, text in zip(paths, texts, strict=True):
        with open(path, "w") as file:
            file.write(text)
    return paths


def _evaluate(tmp_path, truth, found, listed=(), protocol="general", spacing=1.0, **changes):
    changed = tube_protocols.changed(protocol, **changes)
    paths = _write(tmp_path, truth, found, listed, spacing)
    return video_ap.evaluate_files(*paths, protocol=changed)


def _at(result, threshold, class_id=SIT):
    classes = result.video[threshold].classes
    return next(entry for entry in classes if entry.id == class_id)


# --- Plain loops ----------------------------------------------------------------------------------


def _random_box(rng):
    low = rng.integers(0, 20, 2) / 40
    return np.concatenate([low, low + rng.integers(12, 20, 2) / 40])


def _moved(rng, box):
    moved = np.clip(box + rng.integers(-1, 2, 4) / 40, 0, 1)
    return moved if (moved[2:] > moved[:2]).all() else box


def _walk(rng, box, keyframes, miss):
    """Boxes that move a little, some keyframes missing."""
    for keyframe in keyframes:
        box = _moved(rng, box)
        if rng.random() >= miss:
            yield keyframe, box


def _random_case(rng, videos=3, keyframes=12):
    """(truth, found, listed) with gaps, equal scores, people who overlap, empty videos.

    Of RUN there is ground truth in one case of two only.
    """
    truth, found = [], []
    listed = [(f"v{v}", k) for v in range(videos + 1) for k in range(keyframes)]
    classes = [SIT, TALK, RUN] if rng.random() < 0.5 else [SIT, TALK]
    for video in (f"v{v}" for v in range(videos)):  # the last one is empty
        for person in range(rng.integers(0, 4)):
            start = rng.integers(0, keyframes - 3)
            span = range(start, rng.integers(start + 1, keyframes))
            class_id = rng.choice(classes)
            for keyframe, box in _walk(rng, _random_box(rng), span, miss=0.15):
                truth.append((video, keyframe, tuple(box), class_id, person))
                for _ in range(rng.choice([0, 1, 1, 1, 2])):
                    guess = class_id if rng.random() < 0.8 else rng.choice([SIT, TALK, RUN])
                    score = rng.integers(0, 6) / 5
                    found.append((video, keyframe, tuple(_moved(rng, box)), guess, score))
    for video, keyframe in listed:
        if rng.random() < 0.2:
            box, class_id = tuple(_random_box(rng)), rng.choice([SIT, TALK, RUN])
            found.append((video, keyframe, box, class_id, rng.random()))
    found.sort(key=lambda entry: entry[:2])
    return truth, found, listed


_LINKINGS = {
    "default": Linking(),
    "no gaps": Linking(min_iou=0.5, max_gap=0),
    "suppressed boxes": Linking(box_nms_iou=0.5, max_boxes=2, min_keyframes=3),
    "suppressed tubes": Linking(min_iou=0.2, max_gap=3, tube_nms_iou=0.3, min_score=0.3),
}


@pytest.mark.parametrize("linking", _LINKINGS.values(), ids=_LINKINGS)
@pytest.mark.parametrize("name", TUBE_PROTOCOLS)
def test_it_agrees_with_plain_loops(tmp_path, name, linking):
    # Equal scores of boxes follow the file; those of tubes video, class and first keyframe.
    protocol = dataclasses.replace(
        tube_protocols.by_name(name),
        linking=linking,
        video_ious=tube_protocols.parse_thresholds("0.2,0.5,0.75,0.5:0.95"),
    )
    rng, compared, right = np.random.default_rng(3), 0, 0
    for _ in range(10):
        truth, found, listed = _random_case(rng)
        if not truth:
            continue
        paths = _write(tmp_path, truth, found, listed, spacing=rng.choice([1.0, 0.04, 0.5]))
        result = video_ap.evaluate_files(*paths, protocol=protocol)
        for place, entry in enumerate(result.frame_classes):
            wanted = plain_tubes.frame_ap(truth, found, entry.id, protocol)
            assert entry.average_precision == pytest.approx(wanted, abs=1e-9)
            for threshold, video_result in result.video.items():
                wanted = plain_tubes.video_ap(truth, found, entry.id, threshold, protocol)
                own = video_result.classes[place]
                assert own.average_precision == pytest.approx(wanted, abs=1e-9)
                compared += 1
                right += own.true_positives
    assert compared > 150
    assert right > 40  # not all of them zero


def test_scores_that_all_differ_give_the_same_tubes_in_any_order_of_rows(tmp_path):
    rng = np.random.default_rng(8)
    truth, found, listed = _random_case(rng)
    scores = rng.permutation(len(found)) / len(found)
    found = [(*entry[:4], score) for entry, score in zip(found, scores, strict=True)]
    result = _evaluate(tmp_path, truth, found, listed)
    shuffled = [found[place] for place in rng.permutation(len(found))]
    again = _evaluate(tmp_path, truth, shuffled, listed)
    assert again.video == result.video
    assert again.frame_classes == result.frame_classes


# --- By hand --------------------------------------------------------------------------------------

# A person sits at keyframes 0 to 3; the detector has the box at 1 to 4. Three of five keyframes are
# common, and the boxes are the same there.
SITTING = [("v", k, BOX, SIT, 1) for k in range(4)]
LATE = [("v", k, BOX, SIT, 0.9) for k in range(1, 5)]
# The left half of the box, IoU 1/2.
HALF = (0.1, 0.1, 0.9, 0.3)
LISTED = [("v", k) for k in range(6)]


def test_the_iou_of_tubes_counts_keyframes(tmp_path):
    result = _evaluate(tmp_path, SITTING, LATE, LISTED, video_iou="0.6,0.61")
    assert [_at(result, t).average_precision for t in (0.6, 0.61)] == [1, 0]


def test_multisports_measures_from_the_first_to_the_last_keyframe(tmp_path):
    # From 1 to 3 of from 0 to 4: 2 / 4.
    changes = {"min_keyframes": 1, "video_iou": "0.5,0.51"}
    result = _evaluate(tmp_path, SITTING, LATE, LISTED, "multisports", **changes)
    assert [_at(result, t).average_precision for t in (0.5, 0.51)] == [1, 0]


def test_boxes_weigh_as_much_as_time(tmp_path):
    # Keyframes 0 to 3, of which two have half of the box: (1 + 1 + 1/2 + 1/2) / 4.
    found = [("v", k, BOX if k < 2 else HALF, SIT, 0.9) for k in range(4)]
    result = _evaluate(tmp_path, SITTING, found, LISTED, video_iou="0.74,0.76")
    assert [_at(result, t).average_precision for t in (0.74, 0.76)] == [1, 0]


@pytest.mark.parametrize(("max_gap", "tubes"), [(0, 2), (1, 1)])
def test_a_gap_is_bridged_or_ends_the_tube(tmp_path, max_gap, tubes):
    found = [("v", k, BOX, SIT, 0.9) for k in (0, 1, 3)]
    result = _evaluate(tmp_path, SITTING, found, LISTED, video_iou="0.5,1", max_gap=max_gap)
    assert _at(result, 0.5).detections == tubes
    assert _at(result, 1.0).average_precision == (1 if tubes == 1 else 0)


def test_tubes_of_one_keyframe(tmp_path):
    truth = [("v", 2, BOX, SIT, 1), ("w", 0, BOX, SIT, 1)]
    found = [("v", 2, BOX, SIT, 0.9), ("w", 0, HALF, SIT, 0.8)]
    result = _evaluate(tmp_path, truth, found, LISTED, video_iou="0.4,0.6")
    assert [_at(result, t).average_precision for t in (0.4, 0.6)] == [1, 0.5]
    result = _evaluate(tmp_path, truth, found, LISTED, "multisports", min_keyframes=1)
    assert _at(result, 0.2).average_precision == 0
    assert "tubes of one keyframe: 2 of 2; by these rules" in "\n".join(result.warnings)


def test_two_people_who_overlap_are_two_tubes(tmp_path):
    # Two people side by side, whose boxes overlap by IoU 1/3, cross nobody's way.
    other = (0.1, 0.3, 0.9, 0.7)
    truth = [("v", k, box, SIT, p) for k in range(4) for p, box in enumerate((BOX, other))]
    found = [(v, k, box, c, 0.9 - 0.1 * p) for v, k, box, c, p in truth]
    result = _evaluate(tmp_path, truth, found, LISTED, video_iou="1")
    assert _at(result, 1.0).average_precision == 1
    assert _at(result, 1.0).detections == 2
    # One of two suppressed: recall 1/2.
    result = _evaluate(tmp_path, truth, found, LISTED, video_iou="1", tube_nms_iou=0.3)
    assert _at(result, 1.0).average_precision == 0.5


def test_a_second_tube_of_the_same_person_is_wrong_or_takes_what_is_left(tmp_path):
    # Two people; both tubes overlap the first one most, the lower-scored one the second one too.
    near = (0.1, 0.12, 0.9, 0.52)
    truth = [("v", k, box, SIT, p) for k in range(4) for p, box in enumerate((BOX, near))]
    found = [("v", k, BOX, SIT, score) for k in range(4) for score in (0.9, 0.8)]
    general = _evaluate(tmp_path, truth, found, LISTED)
    assert (_at(general, 0.5).true_positives, general.frame_classes[0].true_positives) == (1, 4)
    changes = {"min_keyframes": 1, "box_nms_iou": 0.0, "tube_nms_iou": 0.0}
    act = _evaluate(tmp_path, truth, found, LISTED, "jhmdb", **changes)
    assert (_at(act, 0.5).true_positives, act.frame_classes[0].true_positives) == (2, 8)


def test_the_two_curves(tmp_path):
    # Of three tubes by score the first and the third are right; there are two people.
    boxes = [BOX, (0.1, 0.6, 0.9, 0.9), (0.0, 0.0, 0.05, 0.05)]
    truth = [("v", k, boxes[p], SIT, p) for k in range(3) for p in (0, 1)]
    found = [
        ("v", k, boxes[p], SIT, s) for k in range(3) for p, s in ((0, 0.9), (2, 0.8), (1, 0.7))
    ]
    # Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
    result = _evaluate(tmp_path, truth, found, LISTED)
    assert _at(result, 0.5).average_precision == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    result = _evaluate(tmp_path, truth, found, LISTED, "jhmdb", min_keyframes=1)
    wanted = 1 / 2 * (1 + 1) / 2 + 1 / 2 * (1 / 2 + 2 / 3) / 2
    assert _at(result, 0.5).average_precision == pytest.approx(wanted)


def test_equal_scores_keep_the_order_of_the_file_and_the_span_is_said(tmp_path):
    wrong = (0.0, 0.6, 0.2, 0.9)
    for first, second, wanted in ((BOX, wrong, 1.0), (wrong, BOX, 0.5)):
        found = [("v", k, box, SIT, 0.5) for k in range(4) for box in (first, second)]
        result = _evaluate(tmp_path, SITTING, found, LISTED, video_iou="0.5")
        assert _at(result, 0.5).average_precision == wanted
        assert (result.video[0.5].tie_span.worst, result.video[0.5].tie_span.best) == (0.5, 1.0)


def test_a_person_who_does_something_again_later_has_two_tubes(tmp_path):
    truth = [("v", k, BOX, SIT, 1) for k in (0, 1, 2, 8, 9)]
    found = [(*entry[:4], 0.9) for entry in truth]
    listed = [("v", k) for k in range(12)]
    result = _evaluate(tmp_path, truth, found, listed)
    assert (result.ground_truth_tubes, _at(result, 0.75).average_precision) == (2, 1)


def test_missing_boxes_of_the_ground_truth_are_interpolated_and_counted(tmp_path):
    truth = [("v", 0, (0.1, 0.1, 0.5, 0.5), SIT, 1), ("v", 2, (0.1, 0.3, 0.5, 0.7), SIT, 1)]
    found = [("v", 0, (0.1, 0.1, 0.5, 0.5), SIT, 0.9), ("v", 1, (0.1, 0.2, 0.5, 0.6), SIT, 0.9)]
    found.append(("v", 2, (0.1, 0.3, 0.5, 0.7), SIT, 0.9))
    result = _evaluate(tmp_path, truth, found, LISTED, video_iou="0.99")
    assert result.ground_truth_boxes_interpolated == 1
    assert _at(result, 0.99).average_precision == 1


def test_empty_videos_and_classes_without_ground_truth(tmp_path):
    listed = [*LISTED, *(("empty", k) for k in range(6))]
    found = [*LATE, *(("empty", k, BOX, SIT, 0.95) for k in range(6)), ("v", 0, BOX, RUN, 0.3)]
    result = _evaluate(tmp_path, SITTING, found, listed)
    assert _at(result, 0.5).average_precision == 0.5  # the tube of the empty video comes first
    assert _at(result, 0.5, RUN).average_precision is None
    assert _at(result, 0.5, RUN).detections == 1
    assert result.video[0.5].mean_average_precision == 0.5


def test_no_detections_at_all(tmp_path):
    result = _evaluate(tmp_path, SITTING, [], LISTED)
    assert result.frame_mean_average_precision == 0
    assert result.video_mean_average_precision(result.protocol.video_ious[3]) == 0
    assert "d.csv: no detections" in "\n".join(result.warnings)


def test_keyframes_that_are_not_listed_are_ignored_or_wrong(tmp_path):
    # Nobody says what happens from 4 on.
    found = [("v", k, BOX, SIT, 0.9) for k in range(8)]
    general = _evaluate(tmp_path, SITTING, found, video_iou="1")
    assert _at(general, 1.0).average_precision == 1
    assert "4 of 8 rows are at keyframes that the ground truth does not list; ignored (first: " in (
        "\n".join(general.warnings)
    )
    act = _evaluate(
        tmp_path, SITTING, found, protocol="jhmdb", video_iou="0.5,0.51", min_keyframes=1
    )
    assert [_at(act, t).average_precision for t in (0.5, 0.51)] == [1, 0]
    assert "does not list; they are false positives" in "\n".join(act.warnings)
    assert act.frame_classes[0].detections == 8


def test_the_spacing_of_each_video_is_its_own(tmp_path):
    truth = [("a", 0.04 * k, BOX, SIT, 1) for k in range(20)]
    truth += [("b", 5.0 * k, BOX, SIT, 1) for k in range(4)]
    found = [(*entry[:4], 0.9) for entry in truth if entry[1] not in (0.08, 10.0)]
    result = _evaluate(tmp_path, truth, found, video_iou="1", max_gap=1)
    assert _at(result, 1.0).average_precision == 1
    assert result.link_counts.detected_boxes_interpolated == 2


def test_excluded_keyframes_are_in_no_tube(tmp_path):
    excluded = str(tmp_path / "e.csv")
    with open(excluded, "w") as file:
        file.write("v,1\nv,0002\n")
    found = [("v", k, BOX if k in (0, 3) else HALF, SIT, 0.9) for k in range(4)]
    paths = _write(tmp_path, SITTING, found)
    protocol = tube_protocols.changed("general", video_iou="1", max_gap=0)
    result = video_ap.evaluate_files(*paths, excluded, protocol=protocol)
    assert _at(result, 1.0).average_precision == 1
    assert result.counts.detection_rows_on_excluded_frames == 2


def test_trimming_cuts_where_the_action_is_not(tmp_path):
    listed = [("v", k) for k in range(20)]
    truth = [("v", k, BOX, SIT, 1) for k in range(5, 15)]
    found = [("v", k, BOX, SIT, 0.9 if 5 <= k < 15 else 0.1) for k in range(20)]
    whole = _evaluate(tmp_path, truth, found, listed, video_iou="0.5,1")
    assert [_at(whole, t).average_precision for t in (0.5, 1.0)] == [1, 0]
    cut = _evaluate(tmp_path, truth, found, listed, video_iou="1", trim_penalty=1.0)
    assert _at(cut, 1.0).average_precision == 1
    assert cut.link_counts.detected_boxes_trimmed == 10


# --- The command line -----------------------------------------------------------------------------


def _run(tmp_path, capsys, *flags, truth=SITTING, found=LATE, listed=LISTED):
    """(status, what is printed, what is said)."""
    labelmap, gt, detections = _write(tmp_path, truth, found, listed)
    status = video_ap.main(["-l", labelmap, "-g", gt, "-d", detections, *flags])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_what_is_printed(tmp_path, capsys):
    status, printed, said = _run(
        tmp_path, capsys, "--video_iou", "0.5,0.5:0.95", "--frame_iou", "0.9"
    )
    assert (status, said) == (0, "")
    lines = printed.splitlines()
    assert lines[0] == "Rules"
    assert "  protocol general: for data of one's own" in printed
    # Of the boxes by score 3 of 4 are right, but the wrong one is the last of the equals; 3 of 4
    # people are found.
    assert lines[-3:] == [
        "frame-mAP@0.9IOU: 0.750000 over 1 of 3 classes; equal scores: 0.562500 to 0.750000, by "
        "their order",
        "video-mAP@0.5IOU: 1.000000 over 1 of 3 classes",
        "video-mAP@0.5:0.95IOU: 0.300000 over 1 of 3 classes",
    ]
    assert "1  ground truth tubes" in printed
    assert "4  detected boxes linked" in printed


def test_json(tmp_path, capsys):
    status, printed, _ = _run(
        tmp_path, capsys, "--json", "--protocol", "ucf101_24", "--min_keyframes", "1"
    )
    document = json.loads(printed)
    assert status == 0
    assert document["protocol_name"] == "ucf101_24"
    assert document["video_mAP"] == {"0.2": 1.0, "0.5": 1.0, "0.75": 0.0, "0.5:0.95": 0.3}
    assert document["linking"]["min_keyframes"] == 1
    assert document["classes"][0]["name"] == "sit"
    assert document["classes"][0]["video_AP"]["0.5"] == 1.0
    assert document["classes"][1]["video_AP"]["0.5"] is None
    assert document["counts"]["ground_truth_tubes"] == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--video_iou", "0"], "iou_threshold is 0.0, but must be in (0, 1]"),
        (["--video_iou", "half"], "IoU threshold 'half': write 0.5, 0.5:0.95"),
        (["--video_iou", "0.5:0.95:0.05:1"], "IoU threshold '0.5:0.95:0.05:1': write"),
        (["--video_iou", "0.9:0.5"], "the first must not be above the last"),
        (["--video_iou", "0.5:0.9:0"], "the step must be at least 0.001"),
        (["--video_iou", "0.5:0.9:1e-9"], "the step must be at least 0.001"),
        (["--video_iou", "0.5:0.9:nan"], "the step must be at least 0.001"),
        (["--video_iou", "nan"], "IoU threshold"),
        (["--frame_iou", "1.5"], "iou_threshold is 1.5"),
        (["--link_iou", "0"], "link_iou is 0.0, but must be in (0, 1]"),
        (["--max_gap", "-1"], "max_gap is -1, but must be 0 or more"),
        (["--min_keyframes", "0"], "min_keyframes is 0, but must be 1 or more"),
        (["--tube_nms_iou", "nan"], "tube_nms_iou is nan, but must be in [0, 1]"),
        (["--min_tube_score", "nan"], "min_tube_score is nan"),
        (["--trim", "-1"], "trim is -1.0, but must be a number of 0 or more"),
        (["--spacing", "0"], "--spacing must be at least 0.001 seconds, not 0"),
        (["--spacing", "1e-9"], "--spacing must be at least 0.001 seconds, not 1e-09"),
        (["--spacing", "inf"], "--spacing must be at least 0.001 seconds, not inf"),
    ],
)
def test_a_number_out_of_range_is_an_error(tmp_path, capsys, flags, words):
    status, printed, said = _run(tmp_path, capsys, *flags)
    assert (status, printed) == (2, "")
    assert words in said


def test_ranges_of_thresholds():
    parsed = tube_protocols.Thresholds.parse
    assert parsed("0.5:0.95").values == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    assert parsed("0.1:0.9:0.1").values == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert parsed("0.05:0.45").values[-1] == 0.45
    assert parsed("0.2").values == (0.2,)


def test_the_data_sets_have_their_own_thresholds():
    names = {name: [t.name for t in p.video_ious] for name, p in TUBE_PROTOCOLS.items()}
    assert names["jhmdb"] == names["ucf101_24"] == ["0.2", "0.5", "0.75", "0.5:0.95"]
    assert names["multisports"] == ["0.2", "0.5", "0.05:0.45", "0.1:0.9:0.1", "0.5:0.95"]
    assert {protocol.frame_iou for protocol in TUBE_PROTOCOLS.values()} == {0.5}


# --- Input that has no tubes ----------------------------------------------------------------------


def _texts(tmp_path, capsys, truth, found="", flags=()):
    paths = [str(tmp_path / name) for name in ("l.pbtxt", "g.csv", "d.csv")]
    for path, text in zip(paths, (LABEL_MAP, truth, found), strict=True):
        with open(path, "w") as file:
            file.write(text)
    status = video_ap.main(["-l", paths[0], "-g", paths[1], "-d", paths[2], *flags])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


_ROW = "v,{},0.1,0.1,0.5,0.9,2"


def test_ground_truth_without_person_ids_is_an_error(tmp_path, capsys):
    truth = f"{_ROW.format(0)},1\n{_ROW.format(1)}\n{_ROW.format(2)}\n"
    status, _, said = _texts(tmp_path, capsys, truth)
    assert status == 2
    assert "g.csv: 2 of 3 rows have no person id, the 8th column (first: line 2)" in said


def test_files_as_people_have_them(tmp_path, capsys):
    # A header, semicolons, names for people, times with another number of decimals.
    truth = "video_id;timestamp;x1;y1;x2;y2;action_id;track_id\n"
    truth += "".join(f"v;{k / 30:.3f};0.1;0.1;0.5;0.9;2;Ann\n" for k in range(9))
    truth += "".join(f"v;{k / 30:.3f};0.6;0.1;0.9;0.9;2;Bob\n" for k in range(9))
    found = "".join(f"v,{k / 30:.6f},0.1,0.1,0.5,0.9,2,0.9\n" for k in range(9))
    found += "".join(f"v,{k / 30:.6f},0.6,0.1,0.9,0.9,2,0.8\n" for k in range(9))
    status, printed, _ = _texts(tmp_path, capsys, truth, found, flags=["--video_iou", "1"])
    assert status == 0
    assert "2  ground truth tubes" in printed
    assert "frame-mAP@0.5IOU: 1.000000" in printed
    assert "video-mAP@1IOU: 1.000000" in printed


def test_rows_that_were_read_as_detections_have_no_person_ids(tmp_path):
    truth = tmp_path / "g.csv"
    truth.write_text(f"{_ROW.format(0)},1\n")
    rows = tables.read_csv(truth)
    with pytest.raises(errors.InputError, match="1 of 1 row has no person id"):
        video_ap.evaluate(rows, rows, CATEGORIES)


def test_two_boxes_of_one_person_at_once_are_an_error(tmp_path, capsys):
    truth = f"{_ROW.format(0)},1\nv,0,0.2,0.1,0.5,0.9,2,1\n"
    status, _, said = _texts(tmp_path, capsys, truth)
    assert status == 2
    assert "g.csv, lines 1 and 2: two boxes of one person with one action at one keyframe" in said


def test_a_row_that_is_there_twice_is_left_out_and_said(tmp_path, capsys):
    truth = f"{_ROW.format(0)},1\n{_ROW.format(0)},1\n{_ROW.format(1)},1\n"
    found = f"{_ROW.format(0)},0.9\n{_ROW.format(1)},0.9\n"
    status, printed, _ = _texts(tmp_path, capsys, truth, found)
    assert status == 0
    assert "1 row repeats another one (first: line 2); left out of tubes" in printed
    assert "video-mAP@0.75IOU: 1.000000" in printed


@pytest.mark.parametrize(
    "times",
    [
        [0, 1, 2, 3, 4, 5, 5.5, 6, 6.5],
        [0, 0.04, 0.08, 0.12, 1.12, 2.12, 3.12, 4.12],
        [0, 1, 2, 2.3, 3, 4],
    ],
    ids=["halved later", "one a second later", "one between"],
)
def test_keyframes_that_are_spaced_in_two_ways_are_an_error(tmp_path, capsys, times):
    truth = "".join(f"{_ROW.format(time)},1\n" for time in times)
    status, _, said = _texts(tmp_path, capsys, truth)
    assert status == 2
    assert "g.csv: video 'v': " in said
    assert "keep one keyframe per so many seconds" in said


def test_keyframes_without_people_that_are_not_listed_are_no_such_thing(tmp_path, capsys):
    # Somebody is there every now and then.
    times = [0, 1, 2, 4, 6, 8, 9]
    truth = "".join(f"{_ROW.format(time)},{person}\n" for person, time in enumerate(times))
    status, _, said = _texts(tmp_path, capsys, truth, found=truth)
    assert (status, said) == (0, "")
    # Three boxes of one person, after one of somebody else.
    rows = [(0, 1), (2, 2), (4, 2), (6, 2), (7, 3)]
    truth = "".join(f"{_ROW.format(time)},{person}\n" for time, person in rows)
    assert _texts(tmp_path, capsys, truth, found=truth)[0] == 0


def test_a_given_spacing_settles_it(tmp_path, capsys):
    truth = "".join(f"{_ROW.format(time)},1\n" for time in [0, 1, 3, 5, 7, 9])
    assert _texts(tmp_path, capsys, truth)[0] == 2
    flags = ["--spacing", "1"]
    status, printed, _ = _texts(tmp_path, capsys, truth, found=truth, flags=flags)
    assert status == 0
    assert "4  ground truth boxes interpolated" in printed


def test_detections_at_other_times_are_counted(tmp_path, capsys):
    truth = "".join(f"{_ROW.format(k)},1\n" for k in range(6))
    found = "".join(f"{_ROW.format(k + 0.335 * (k % 3 > 0))},0.9\n" for k in range(6))
    status, printed, _ = _texts(tmp_path, capsys, truth, found)
    assert status == 0
    assert "d.csv: 4 of 6 rows are at times between the keyframes" in printed
    assert "(first: line 2, 'v' at 1.335 s)" in printed
    assert "d.csv: 4 of 6 ground-truth moments have no detection" in printed
    assert "4  detection rows between keyframes" in printed


def test_detections_of_films_that_were_cut(tmp_path, capsys):
    truth = "".join(f"{_ROW.format(900 + k)},1\n" for k in range(6))
    found = "".join(f"{_ROW.format(k)},0.9\n" for k in range(6))
    flags = ["--time_offset_seconds", "900", "--video_iou", "1"]
    status, printed, _ = _texts(tmp_path, capsys, truth, found, flags=flags)
    assert status == 0
    assert "video-mAP@1IOU: 1.000000" in printed


def test_a_denser_detector_is_seen_at_the_keyframes_of_the_ground_truth(tmp_path, capsys):
    truth = "".join(f"{_ROW.format(k)},1\n" for k in range(4))
    found = "".join(f"{_ROW.format(k / 25)},0.9\n" for k in range(76))
    status, printed, _ = _texts(tmp_path, capsys, truth, found, flags=["--video_iou", "1"])
    assert status == 0
    assert "video-mAP@1IOU: 1.000000" in printed
    assert "72 of 76 rows are at times between the keyframes" in printed


def test_detections_of_other_videos_are_counted(tmp_path, capsys):
    truth = f"{_ROW.format(0)},1\n"
    found = f"{_ROW.format(0)},0.9\nV{_ROW.format(0)[1:]},0.9\n"
    status, printed, _ = _texts(tmp_path, capsys, truth, found)
    assert status == 0
    assert (
        "d.csv: 1 of 2 rows is of videos that the ground truth does not list; left out" in printed
    )
    assert "(first: line 2, 'V' at 0 s)" in printed


def test_a_data_sets_shortest_tube_is_said(tmp_path, capsys):
    status, printed, _ = _run(tmp_path, capsys, "--protocol", "jhmdb")
    assert status == 0
    assert "tubes shorter than the 15 keyframes that a detected tube must have" in printed
    assert "(--min_keyframes): 1 of 1" in printed
    assert "no linked tube is left of 1: shorter than 15 keyframes (--min_keyframes): 1;" in printed


def test_trimming_needs_probabilities(tmp_path, capsys):
    found = [("v", k, BOX, SIT, 3.5) for k in range(3)]
    status, _, said = _run(tmp_path, capsys, "--trim", "1", found=found)
    assert status == 2
    assert "can be trimmed only with scores in [0, 1]" in said


def test_ground_truth_of_other_classes_alone_has_no_map(tmp_path, capsys):
    status, printed, said = _texts(tmp_path, capsys, "v,0,0.1,0.1,0.5,0.9,77,1\n", "")
    assert status == 1
    assert "mAP: none, no class has ground truth" in printed
    assert "error: no class has ground truth" in said
    status, printed, _ = _texts(tmp_path, capsys, "v,0\n", "", flags=["--json"])
    assert status == 1
    assert json.loads(printed)["frame_mAP"] is None


def test_people_of_a_long_file_are_those_of_a_short_one(tmp_path, monkeypatch):
    truth = [("v", k, BOX, SIT, person) for k in range(30) for person in (7, -3, 0, 2**62)]
    _, path, _ = _write(tmp_path, truth, [])
    careful = tables.read_ground_truth(path)
    monkeypatch.setattr(tables, "_LONG_FILE", 1)
    fast = tables.read_ground_truth(path)
    assert careful.persons.tolist() == fast.persons.tolist() == [0, 1, 2, 3] * 30


def test_an_empty_ground_truth_is_an_error(tmp_path, capsys):
    status, printed, said = _texts(tmp_path, capsys, "", f"{_ROW.format(0)},0.9\n")
    assert (status, printed) == (2, "")
    assert "g.csv: the ground truth is empty" in said


def test_a_box_that_is_reversed_is_an_error(tmp_path, capsys):
    status, _, said = _texts(tmp_path, capsys, "v,0,0.5,0.1,0.1,0.9,2,1\n")
    assert status == 2
    assert "g.csv, line 1: box x1=0.5" in said


def _rounded_video(tmp_path, count, fps):
    """A person in a video of `count` frames, times with two decimals; found on every frame."""
    times = [f"{k / fps:.2f}" for k in range(count)]
    rows = [f"v,{time},0.1,0.1,0.4,0.9,2" for time in times]
    (tmp_path / "g.csv").write_text("".join(f"{row},7\n" for row in rows))
    (tmp_path / "d.csv").write_text("".join(f"{row},0.5\n" for row in rows))
    (tmp_path / "l.pbtxt").write_text('item { name: "sit" id: 2 }\n')
    return [str(tmp_path / name) for name in ("l.pbtxt", "g.csv", "d.csv")]


@pytest.mark.parametrize("fps", [60, 59.94, 29.97, 25, 1])
def test_times_with_two_decimals_have_no_gaps(tmp_path, fps):
    """With gaps, a tube that must not have one would be cut into many."""
    protocol = tube_protocols.changed("general", max_gap=0)
    result = video_ap.evaluate_files(*_rounded_video(tmp_path, 90, fps), protocol=protocol)
    assert (result.ground_truth_tubes, result.link_counts.detected_tubes) == (1, 1)
    assert result.ground_truth_boxes_interpolated == 0
    assert result.video[0.5].mean_average_precision == 1.0
    assert not result.warnings


def test_a_short_video_with_rounded_times_is_warned_of(tmp_path):
    paths = _rounded_video(tmp_path, 9, 60)
    (warning,) = video_ap.evaluate_files(*paths).warnings
    assert warning.startswith(
        f"{paths[1]}: 1 video with keyframes one or two units of the last decimal apart (such as "
        "'v'), taken for 0.01 s with keyframes missing between;"
    )
    assert not video_ap.evaluate_files(*paths, spacing=1 / 60).warnings


@pytest.mark.parametrize("fps", [60, 30, 24, 7])
def test_frames_that_are_not_listed_are_wrong_with_two_decimals_too(tmp_path, fps):
    """Data sets count all frames: what is detected before and after a person is wrong."""

    def rows(frames, end, decimals):
        return [f"v,{k / fps:.{decimals}f},0.1,0.1,0.4,0.9,1,{end}" for k in frames]

    figures = []
    for decimals in (6, 2):
        ground_truth, detections = tmp_path / "g.csv", tmp_path / "d.csv"
        ground_truth.write_text("\n".join(rows(range(60, 120), 1, decimals)))
        detections.write_text("\n".join(rows(range(20, 150), 0.5, decimals)))
        label_map = tmp_path / "l.pbtxt"
        label_map.write_text("item { id: 1 name: 'a' }")
        result = video_ap.evaluate_files(
            str(label_map), str(ground_truth), str(detections),
            protocol=tube_protocols.TUBE_PROTOCOLS["ucf101_24"],
        )  # fmt: skip
        assert result.place_counts.detection_rows_between_keyframes == 0
        video = {k: v.mean_average_precision for k, v in result.video.items()}
        figures.append((result.frame_mean_average_precision, video))
    assert figures[0] == figures[1]
