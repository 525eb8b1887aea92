# SPDX-License-Identifier: Apache-2.0
"""The table of what a training starts from, letter by letter."""

import textwrap

from object_detection_ext.checkpoints import class_names, start_plan, start_report

_TRUNK = "model/_feature_extractor_for_proposal_features/trunk/stages/_units"
_PREDICTOR = "model/_mask_rcnn_box_predictor"
_UNITS = f"{_PREDICTOR}/action_head/units"
_CLASS = f"{_PREDICTOR}/_class_head/_class_predictor_layers/1"
_BOX = f"{_PREDICTOR}/_box_head/_box_encoder_layers/1"


def _model(num_classes: int, num_layers: int = 1, features: int = 8) -> dict:
    shapes = {f"{_TRUNK}/Mixed_3b.SBranch_0/w": (3, 3, 3, 4, 4)}
    for layer in range(num_layers):
        shapes[f"{_UNITS}/{layer}/0/query_projection/kernel"] = (8, 8)
        shapes[f"{_UNITS}/{layer}/0/query_projection/bias"] = (8,)
    shapes[f"{_CLASS}/kernel"] = (features, num_classes + 1)
    shapes[f"{_CLASS}/bias"] = (num_classes + 1,)
    shapes[f"{_BOX}/kernel"] = (8, 4)
    return shapes


def _names(source: str, *names: str) -> class_names.ClassNames:
    return class_names.ClassNames(len(names), source, dict(enumerate(names, start=1)))


def _report(new: dict, old: dict, model, checkpoint, kind: str = "detection") -> str:
    make = start_plan.of_everything if kind == "full" else start_plan.of_what_fits
    plan = make(new, old, model, checkpoint)
    return start_report.text(plan, "old/ckpt-3", kind, model, checkpoint)


_OLD = _names("old.pbtxt", "stand", "walk", "sit")


def test_table_of_a_model_with_other_classes_and_more_layers():
    new = _names("new.pbtxt", "walk", "Stand", "jump", "sit")
    assert _report(_model(4, 2), _model(3), new, _OLD) == textwrap.dedent(
        """\
        Training starts from 'old/ckpt-3' (fine_tune_checkpoint_type 'detection'). Variables:
          part         restored  in part  new  not used
          trunk               1        0    0         0
          Tx head             2        0    2         0
          box layer           1        0    0         0
          class layer         0        2    0         0
          all                 4        2    2         0
        Classes by name: 2 taken over, 2 new ('Stand', 'jump'), 1 dropped ('stand').
          In the checkpoint: 'old.pbtxt'. In this training: 'new.pbtxt'.
          Names that are almost the same count as different: 'Stand' and 'stand'.
        New in the Tx head: units/1/0/query_projection (not in the checkpoint)."""
    )


def test_class_layer_that_does_not_fit():
    report = _report(_model(3, 1, features=9), _model(3, 2), _OLD, _OLD)
    assert "  class layer         0        0    2         2\n" in report
    assert "  Tx head             2        0    0         2\n" in report
    assert "Classes: none is taken over, as the class layer starts new: kernel [8, 4]" in report
    assert "New: the class layer (kernel [8, 4] in the checkpoint, [9, 4] here)." in report


def test_unknown_classes_are_reported_with_what_is_done_and_what_would_help():
    unknown = class_names.ClassNames(3, unknown="it is gone")
    report = _report(_model(3), _model(3), _OLD, unknown)
    assert (
        "Classes: none is taken over, all start new: the names in the checkpoint are not known: it "
        "is gone. To match classes by name, put the label map that it was trained with beside it, "
        "as training_label_map.pbtxt."
    ) in report
    report = _report(_model(3), _model(3), _OLD, unknown, "full")
    assert "Classes: all taken over by their ids, not by name: the names in the check" in report
    report = _report(_model(3), _model(3), unknown, _OLD)
    assert "all start new: the names in this training are not known: it is gone." in report


def test_long_lists_of_names_and_layers_are_cut():
    new = _names("new.pbtxt", *(f"class {number}" for number in range(12)))
    report = _report(_model(12, 7), _model(3), new, _OLD)
    assert "'class 8', 'class 9' and 2 more)" in report and "class 10" not in report
    assert "units/4/0/query_projection and 2 more (not in the checkpoint)." in report


def test_names_cannot_control_the_terminal():
    report = _report(_model(1), _model(3), _names("new.pbtxt", "\x1b[2Jjump"), _OLD)
    assert "\x1b" not in report and r"'\x1b[2Jjump'" in report


def test_pretrained_trunk_has_no_classes():
    plan = start_plan.of_trunk(_model(3))
    assert start_report.text(plan, "i3d/ckpt", "classification") == textwrap.dedent(
        """\
        Training starts from 'i3d/ckpt' (fine_tune_checkpoint_type 'classification'). Variables:
          part         restored  in part  new  not used
          trunk               1        0    0         0
          Tx head             0        0    2         0
          box layer           0        0    1         0
          class layer         0        0    2         0
          all                 1        0    5         0"""
    )
