# SPDX-License-Identifier: Apache-2.0
"""Evaluation pictures of hand-made batches, through the stock `prepare_eval_dict`.

Shapes: B clips, T frames, G ground-truth rows, N detections.
"""

import types
import weakref
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from object_detection import model_lib_v2
from object_detection.utils import config_util

from object_detection_ext import registration
from object_detection_ext.data import clip_names, clip_packing
from object_detection_ext.detection import eval_pictures, video_meta_arch
from object_detection_ext.visualization import drawing, panels
from tests import tiny_pipeline

_SIZE, _NUM_FRAMES, _LEVEL = 64, 4, 90
_CATEGORIES = {
    number: {"id": number, "name": name} for number, name in tiny_pipeline.ACTIONS.items()
}
_LEFT, _RIGHT = [0.2, 0.1, 0.8, 0.3], [0.1, 0.6, 0.9, 0.9]
_NOWHERE = [0.0, 0.0, 0.0, 0.0]


def _batch(truth, found, names=("video,902",), true_size=(_SIZE, _SIZE)):
    """What the loop has of a batch: detections, groundtruth, features.

    Args:
        truth: for each clip rows (box, action id), padded to 4.
        found: for each clip rows (box, action id, score), padded to 5.
        names: of the clips; None: without.
        true_size: height and width without padding.
    """
    batch = len(truth)
    boxes = np.zeros([batch, 4, 4], np.float32)
    classes = np.zeros([batch, 4, 3], np.float32)
    for clip, rows in enumerate(truth):
        for row, (box, action) in enumerate(rows):
            # Ground truth is normalized by the padded frame.
            boxes[clip, row] = np.array(box) * np.tile(np.array(true_size) / _SIZE, 2)
            classes[clip, row, action - 1] = 1
    groundtruth = {
        "groundtruth_boxes": tf.constant(boxes),
        "groundtruth_classes": tf.constant(classes),
        "num_groundtruth_boxes": tf.constant([len(rows) for rows in truth]),
    }
    if names is not None:
        encoded = [clip_names.encode(tf.constant(name)) for name in names]
        groundtruth[clip_names.KEY] = tf.stack(encoded)
    padded = [[*rows, *[(_NOWHERE, 1, 0.0)] * (5 - len(rows))] for rows in found]
    detections = {
        "detection_boxes": tf.constant([[row[0] for row in rows] for rows in padded]),
        "detection_classes": tf.constant([[row[1] - 1.0 for row in rows] for rows in padded]),
        "detection_scores": tf.constant([[row[2] for row in rows] for rows in padded]),
        "num_detections": tf.constant([float(len(rows)) for rows in found]),
    }
    frame = np.zeros([_SIZE, _SIZE, 3], np.uint8)
    frame[: true_size[0], : true_size[1]] = _LEVEL
    packed = np.full([batch, _SIZE, _SIZE, 3 * _NUM_FRAMES], _LEVEL / 127.5 - 1, np.float32)
    features = {
        "image": tf.constant(packed),
        "hash": tf.zeros([batch], tf.int32),
        "original_image": tf.constant(np.stack([frame] * batch)),
        # The record's own frames are twice as wide as high.
        "original_image_spatial_shape": tf.constant([[100, 200]] * batch),
        "true_image_shape": tf.constant([[*true_size, 3 * _NUM_FRAMES]] * batch),
    }
    return detections, groundtruth, features


def _pictures(num_batches=1, step=7) -> eval_pictures.EvalPictures:
    return eval_pictures.EvalPictures(
        model_lib_v2.prepare_eval_dict,
        to_clips=lambda images: clip_packing.unpack_clips(images, _NUM_FRAMES),
        num_batches=num_batches,
        step=step,
    )


def _draw(batch, *, most=20, threshold=0.3, pictures=None) -> list[np.ndarray]:
    pictures = pictures or _pictures()
    eval_dict, _ = pictures.prepare_eval_dict(*batch)
    drawn = pictures.draw_side_by_side(
        eval_dict,
        category_index=_CATEGORIES,
        max_boxes_to_draw=most,
        min_score_thresh=threshold,
        use_normalized_coordinates=False,
        keypoint_edges=None,
    )
    assert all(picture.shape[0] == 1 and picture.dtype == np.uint8 for picture in drawn)
    return [picture[0] for picture in drawn]


def _frames(picture) -> tuple[np.ndarray, np.ndarray]:
    """The frames of the ground truth and of the detections: 346 x 173 pixels below two lines."""
    wide = panels.PANEL_WIDTH
    level = (np.abs(picture[:, 2:-2].astype(int) - _LEVEL).max(axis=-1) < 4).mean(axis=1)
    top = int(np.nonzero(level > 0.4)[0][0])
    return tuple(picture[top : top + 173, x + 2 : x + wide - 2] for x in (0, wide))


def _box_of(frame, number) -> list[float] | None:
    """Where the colour of a person is, [ymin, xmin, ymax, xmax], normalized; None: nowhere."""
    distance = np.abs(frame.astype(int) - np.array(drawing.person_color(number - 1)))
    rows, columns = np.nonzero(distance.max(axis=-1) < 12)
    if not len(rows):
        return None
    height, width = (side - 1 for side in frame.shape[:2])
    return [rows.min() / height, columns.min() / width, rows.max() / height, columns.max() / width]


def _assert_at(frame, number, box) -> None:
    np.testing.assert_allclose(_box_of(frame, number), box, atol=0.012)


def test_ground_truth_stands_left_and_detections_right():
    shifted = [0.22, 0.1, 0.8, 0.32]
    truth = [[(_LEFT, 1), (_RIGHT, 2), (_LEFT, 3)]]
    found = [[(shifted, 1, 0.9), (shifted, 2, 0.6)]]
    (picture,) = _draw(_batch(truth, found))
    assert picture.shape[1] == 2 * panels.PANEL_WIDTH
    left, right = _frames(picture)
    _assert_at(left, 1, _LEFT)
    _assert_at(left, 2, _RIGHT)
    # The detection has the number and the colour of the person that it is of.
    _assert_at(right, 1, shifted)
    assert _box_of(right, 2) is None and _box_of(right, 3) is None


def test_a_wrong_person_gets_a_number_of_its_own():
    (picture,) = _draw(_batch([[(_LEFT, 1)]], [[(_RIGHT, 1, 0.9), (_LEFT, 1, 0.5)]]))
    left, right = _frames(picture)
    assert _box_of(left, 2) is None
    _assert_at(right, 1, _LEFT)
    _assert_at(right, 2, _RIGHT)


def test_actions_of_one_box_are_lines_and_right_ones_are_marked():
    def drawn(*actions):
        found = [[(_LEFT, number, score) for number, score in actions]]
        (picture,) = _draw(_batch([[(_LEFT, 1), (_LEFT, 3)]], found))
        return picture

    def pixels(picture, ink):
        half = np.split(picture, 2, axis=1)[1]
        return int((np.abs(half.astype(int) - np.array(ink)).max(axis=-1) < 12).sum())

    green, red = (110, 225, 130), (255, 130, 120)
    one, both, wrong = drawn((1, 0.9)), drawn((1, 0.9), (3, 0.8)), drawn((2, 0.9))
    assert pixels(one, green) > 100 and pixels(both, green) > 1.5 * pixels(one, green)
    assert pixels(one, red) == pixels(both, red) == 0
    assert pixels(wrong, red) > 100 and pixels(wrong, green) == 0


def test_nobody_annotated_and_nobody_detected():
    nobody, somebody = _draw(
        _batch([[], [(_LEFT, 1)]], [[], [(_LEFT, 1, 0.2)]], names=("a,1", "b,2"))
    )
    for frame in _frames(nobody):
        assert np.abs(frame.astype(int) - _LEVEL).max() <= 2
    left, right = _frames(somebody)
    _assert_at(left, 1, _LEFT)
    assert np.abs(right.astype(int) - _LEVEL).max() <= 2, "the score is below the threshold"


def test_most_people_and_threshold_keep_their_meaning():
    found = [[(_LEFT, 1, 0.9), (_LEFT, 2, 0.8), (_RIGHT, 1, 0.7)]]
    batch = _batch([[]], found)
    # Two rows of one box are one person.
    (one,), (two,) = _draw(batch, most=1), _draw(batch, most=2)
    assert _box_of(_frames(one)[1], 1) and not _box_of(_frames(one)[1], 2)
    assert _box_of(_frames(two)[1], 2)
    (above,) = _draw(batch, threshold=0.75)
    assert not _box_of(_frames(above)[1], 2)


def test_padding_of_the_resizer_is_cut_off():
    (picture,) = _draw(_batch([[(_LEFT, 1)]], [[(_LEFT, 1, 0.9)]], true_size=(48, 32)))
    for frame in _frames(picture):
        assert frame.mean() > 0.9 * _LEVEL
        _assert_at(frame, 1, _LEFT)


def test_the_title_is_the_clips_name_and_may_be_unknown():
    rows = [[(_LEFT, 1)]], [[(_LEFT, 1, 0.9)]]
    (named,), (other,), (unknown,) = (
        _draw(_batch(*rows, names=names)) for names in (("video,902",), ("video,903",), None)
    )
    assert named.shape == other.shape and (named != other).any()
    changed = np.nonzero((named != other).any(axis=(1, 2)))[0]
    assert changed.max() < 40, "only the title differs"
    assert unknown.shape[0] < named.shape[0]


def _attention_batch():
    batch = _batch([[(_LEFT, 1)]], [[(_RIGHT, 2, 0.6), (_LEFT, 1, 0.9)]])
    weights = np.full([1, 5, 2, 1, 2, 4, 4], 1e-9, np.float32)
    weights[0, 1, 1, 0, :, 0, 0] = 0.5  # the last layer, of the second row: upper left
    weights[0, 0, 1, 0, :, 3, 3] = 0.5  # of the first row: lower right
    weights[0, :, 0, 0, :, 0, 3] = 0.5  # the first layer: not shown
    batch[0]["detection_attention"] = tf.constant(weights)
    return batch


def test_attention_is_that_of_the_surest_people(tmp_path):
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        _draw(_attention_batch())
    ((_, sure), (_, other)) = tiny_pipeline.read_events(tmp_path).pictures["eval_attention_0_0"]
    places = []
    for picture in (sure, other):
        frame = np.split(picture, 2, axis=1)[1][70:235, 2:-2]
        warmth = frame[..., 0].astype(float) - frame[..., 2]
        row, column = np.unravel_index(np.argmax(warmth), warmth.shape)
        places.append((row > 80, column > 173))
    assert places == [(False, False), (True, True)]


def test_without_attention_there_is_no_such_picture(tmp_path):
    with tf.summary.create_file_writer(str(tmp_path)).as_default():
        _draw(_batch([[(_LEFT, 1)]], [[(_LEFT, 1, 0.9)]]))
    assert not tiny_pipeline.read_events(tmp_path).pictures


def test_nothing_is_held_of_what_was_drawn_or_will_not_be():
    pictures, held = _pictures(num_batches=2), []
    for number in range(5):
        batch = _batch([[(_LEFT, 1)]], [[(_LEFT, 1, 0.9)]])
        held += [weakref.ref(batch[2]["image"]), weakref.ref(batch[2]["original_image"])]
        if number < 2:
            _draw(batch, pictures=pictures)
        else:
            pictures.prepare_eval_dict(*batch)
        del batch
        assert not any(reference() is not None for reference in held), number


def test_evaluators_see_no_label_that_they_do_not_know():
    batch = _batch([[(_LEFT, 1)]], [[(_LEFT, 1, 0.9)]])
    eval_dict, class_agnostic = _pictures().prepare_eval_dict(*batch)
    expected, _ = model_lib_v2.prepare_eval_dict(*_batch([[(_LEFT, 1)]], [[(_LEFT, 1, 0.9)]], None))
    assert not class_agnostic
    assert eval_dict.keys() == expected.keys()
    assert clip_names.KEY in batch[1], "the caller's labels stay"


@pytest.mark.parametrize("keyword", [True, False])
def test_stock_models_are_evaluated_by_the_stock_loop(keyword):
    calls = []
    loop = eval_pictures.wrap_eager_eval_loop(lambda *arguments: calls.append(arguments) or "done")
    model = types.SimpleNamespace()
    if keyword:
        assert loop(detection_model=model, configs={}, eval_dataset=[], global_step=3) == "done"
    else:
        assert loop(model, {}, [], False, False, 3) == "done"
    assert calls == [(model, {}, [], False, False, 3)]


def test_an_error_of_a_batch_ends_the_evaluation(monkeypatch, tmp_path):
    """The stock loop takes any error for the end of the examples and goes on to its metrics."""

    def out_of_memory(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    registration.register()
    monkeypatch.setattr(model_lib_v2, "_compute_losses_and_predictions_dicts", out_of_memory)
    label_map = tiny_pipeline.write_label_map(tmp_path / "label_map.pbtxt")
    pipeline = tiny_pipeline.make_pipeline(label_map=label_map)
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    configs["eval_input_config"] = configs["eval_input_configs"][0]
    _, groundtruth, features = _batch([[(_LEFT, 1)]], [[(_LEFT, 1, 0.9)]])
    model = mock.Mock(spec=video_meta_arch.VideoActionTransformerMetaArch)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="out of memory"):
        model_lib_v2.eager_eval_loop(
            model, configs, [(features, groundtruth)], global_step=tf.constant(3)
        )
