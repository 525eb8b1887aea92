# SPDX-License-Identifier: Apache-2.0
"""What is taken over from a checkpoint, in models of few variables, with columns by hand."""

import pytest

from object_detection_ext import errors
from object_detection_ext.checkpoints import class_names, start_plan
from object_detection_ext.checkpoints.start_plan import Copy

_TRUNK = "model/_feature_extractor_for_proposal_features/trunk/stages/_units"
_PREDICTOR = "model/_mask_rcnn_box_predictor"
_HEAD = f"{_PREDICTOR}/action_head"
_CLASS = f"{_PREDICTOR}/_class_head/_class_predictor_layers/1"
_BOX = f"{_PREDICTOR}/_box_head/_box_encoder_layers/1"
_RPN = "model/_first_stage_box_predictor_first_conv/layer_with_weights-0"


def _dense(name: str, inputs: int, outputs: int) -> dict:
    return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}


def _model(
    *,
    head: str = "tx",
    num_classes: int = 3,
    num_layers: int = 2,
    ffn_size: int = 5,
    box_columns: int = 4,
    channels: int = 6,
    i3d_features: int = 9,
    stages: tuple[str, ...] = ("Mixed_4e", "Mixed_4f"),
    tail: tuple[str, ...] = ("Mixed_5b",),
) -> dict:
    """Variables named as those of a real model; 8 features of the Tx head."""
    shapes = {f"{_TRUNK}/{stage}.Sconv/w": (3, 3, 3, 4, channels) for stage in stages}
    shapes |= {f"{_TRUNK}/{stage}.Sconv/beta": (channels,) for stage in stages}
    shapes |= _dense(_RPN, channels, 16)
    tx, i3d = {"tx": (_HEAD, ""), "i3d": ("", _HEAD)}.get(
        head, (f"{_HEAD}/tx_head", f"{_HEAD}/i3d_head")
    )
    if tx:
        for layer in range(num_layers):
            shapes |= _dense(f"{tx}/units/{layer}/0/query_projection", 8 if layer else channels, 8)
            shapes |= _dense(f"{tx}/units/{layer}/0/ffn_hidden", 8, ffn_size)
    if i3d:
        for stage in tail:
            shapes[f"{i3d}/tail/_units/{stage}.Sconv/w"] = (3, 3, 3, channels, i3d_features)
    shapes |= _dense(_CLASS, 8 if tx else i3d_features, num_classes + 1)
    shapes |= _dense(_BOX, i3d_features if i3d else 8, box_columns)
    return shapes


def _names(*names: str, num_classes: int | None = None) -> class_names.ClassNames:
    by_id = dict(enumerate(names, start=1))
    return class_names.ClassNames(num_classes or len(by_id), "a label map", by_id)


_OLD = _names("stand", "walk", "watch")
_UNKNOWN = class_names.ClassNames(3, unknown="it is gone")


def _new(plan: start_plan.Plan) -> set[str]:
    """Layers that start new."""
    assert plan.reasons.keys() == plan.wanted.keys() - plan.copies.keys()
    return {name.rpartition("/")[0] for name in plan.reasons}


def _in_place(plan: start_plan.Plan) -> set[str]:
    return {name for name, copy in plan.copies.items() if copy == Copy(name)}


def test_everything_of_the_same_model():
    shapes = _model()
    plan = start_plan.of_everything(shapes, _model(), _OLD, _OLD)
    assert plan.copies.keys() == shapes.keys() and not plan.reasons
    assert plan.copies[f"{_CLASS}/kernel"].columns == ((0, 0), (1, 1), (2, 2), (3, 3))
    assert not any(plan.is_partial(name) for name in shapes)


def test_everything_with_classes_in_another_order_goes_by_name():
    plan = start_plan.of_everything(_model(), _model(), _names("watch", "stand", "walk"), _OLD)
    for name in (f"{_CLASS}/kernel", f"{_CLASS}/bias"):
        assert plan.copies[name] == Copy(name, ((0, 0), (1, 3), (2, 1), (3, 2)))
        assert not plan.is_partial(name)
    assert _in_place(plan) == {name for name in _model() if not name.startswith(_CLASS)}


def test_everything_with_other_classes_of_the_same_number_takes_over_those_of_the_same_name():
    plan = start_plan.of_everything(_model(), _model(), _names("stand", "jump", "walk"), _OLD)
    assert plan.copies[f"{_CLASS}/bias"].columns == ((0, 0), (1, 1), (3, 2))
    assert plan.is_partial(f"{_CLASS}/bias") and not plan.reasons
    plan = start_plan.of_everything(_model(), _model(), _names("a", "b", "c"), _OLD)
    assert _new(plan) == {_CLASS}


@pytest.mark.parametrize(("new", "old"), [(_UNKNOWN, _OLD), (_OLD, _UNKNOWN)])
def test_everything_goes_by_id_if_names_are_not_known(new, old):
    plan = start_plan.of_everything(_model(), _model(), new, old)
    assert plan.matched is None and _in_place(plan) == _model().keys()


@pytest.mark.parametrize(
    ("override", "cause", "listed"),
    [
        (
            {"num_classes": 4},
            "num_classes is 4 here and 3 in it",
            [
                "2 variables have another shape:",
                f"{_CLASS}/kernel: [8, 5] in the model, [8, 4] in the",
            ],
        ),
        (
            {"num_layers": 3},
            "num_layers is 3 here and 2 in it",
            [
                "4 variables of the model are missing",
                f"{_HEAD}/units/2/0/ffn_hidden/bias [5]",
            ],
        ),
        (
            {"num_layers": 1},
            "num_layers is 1 here and 2 in it",
            [
                "4 variables of the checkpoint are not",
                f"{_HEAD}/units/1/0/ffn_hidden/bias [5]",
            ],
        ),
        (
            {"head": "i3d", "num_classes": 2},
            "head is i3d_head here and tx_head in it, num_classes is 2 here and 3 in it",
            ["are not in the model:", "is missing in the", "another shape:"],
        ),
        (
            {"head": "both"},
            "head is tx_i3d_head here and tx_head in it",
            ["missing in the"],
        ),
        (
            {"ffn_size": 6},
            "it is of another model (tx_head.ffn_size is 6 here and 5 in it), but",
            ["4 variables have another shape:"],
        ),
    ],
)
def test_everything_is_refused_of_another_model(override, cause, listed):
    with pytest.raises(errors.InputError) as caught:
        start_plan.of_everything(_model(**override), _model(), _OLD, _OLD)
    for text in (cause, "Set 'detection'", *listed):
        assert text in str(caught.value)


def test_long_lists_are_cut():
    with pytest.raises(errors.InputError) as caught:
        start_plan.of_everything(_model(num_layers=12), _model(), _OLD, _OLD)
    message = str(caught.value)
    assert "40 variables of the model are missing" in message and "... and 20 more" in message
    assert message.count("units/") == 20


def test_one_class_more_costs_its_own_column_only():
    """The class layer has the background at 0 and each class at its id."""
    new = _names("walk", "jump", "watch", "stand")
    plan = start_plan.of_what_fits(_model(num_classes=4), _model(), new, _OLD)
    for name in (f"{_CLASS}/kernel", f"{_CLASS}/bias"):
        assert plan.copies[name] == Copy(name, ((0, 0), (1, 2), (3, 3), (4, 1)))
        assert plan.is_partial(name)
    assert _in_place(plan) == {name for name in _model() if not name.startswith(_CLASS)}
    assert not plan.reasons
    assert (plan.matched.new, plan.matched.dropped) == (("jump",), ())


def test_boxes_of_classes_go_by_name_too():
    """A class-specific box layer has 4 numbers for each class, and none for the background."""
    new = _names("walk", "jump")
    plan = start_plan.of_what_fits(
        _model(num_classes=2, box_columns=8), _model(box_columns=12), new, _OLD
    )
    assert plan.copies[f"{_BOX}/kernel"] == Copy(f"{_BOX}/kernel", ((0, 4), (1, 5), (2, 6), (3, 7)))
    assert plan.copies[f"{_CLASS}/kernel"].columns == ((0, 0), (1, 2))
    assert plan.matched.dropped == ("stand", "watch")


@pytest.mark.parametrize(
    ("new", "new_columns", "old", "old_columns", "expected"),
    [
        (_names("walk"), 4, _OLD, 12, ((0, 4), (1, 5), (2, 6), (3, 7))),
        (_names("a", "walk"), 8, _names("walk"), 4, ((4, 0), (5, 1), (6, 2), (7, 3))),
        (_names("a"), 4, _names("walk"), 4, None),  # for one class they are those of anybody
    ],
)
def test_boxes_of_one_class(new, new_columns, old, old_columns, expected):
    plan = start_plan.of_what_fits(
        _model(num_classes=new.num_classes, box_columns=new_columns),
        _model(num_classes=old.num_classes, box_columns=old_columns),
        new,
        old,
    )
    assert plan.copies[f"{_BOX}/bias"] == Copy(f"{_BOX}/bias", expected)


@pytest.mark.parametrize(("new_columns", "old_columns"), [(4, 12), (12, 4)])
def test_boxes_for_all_classes_are_not_those_of_each(new_columns, old_columns):
    plan = start_plan.of_what_fits(
        _model(box_columns=new_columns), _model(box_columns=old_columns), _OLD, _OLD
    )
    assert _new(plan) == {_BOX}
    assert f"[{old_columns}] in the checkpoint" in plan.reasons[f"{_BOX}/bias"]


def test_no_class_of_the_same_name():
    plan = start_plan.of_what_fits(_model(), _model(), _names("a", "b", "c"), _OLD)
    assert _new(plan) == {_CLASS}


@pytest.mark.parametrize(("new", "old"), [(_UNKNOWN, _OLD), (_OLD, _UNKNOWN)])
def test_classes_start_new_if_names_are_not_known(new, old):
    plan = start_plan.of_what_fits(_model(), _model(), new, old)
    assert _new(plan) == {_CLASS} and plan.matched is None
    plan = start_plan.of_what_fits(_model(box_columns=12), _model(box_columns=12), new, old)
    assert _new(plan) == {_CLASS, _BOX}


def test_more_layers_of_the_head():
    plan = start_plan.of_what_fits(_model(num_layers=3), _model(), _OLD, _OLD)
    assert _new(plan) == {f"{_HEAD}/units/2/0/{n}" for n in ("query_projection", "ffn_hidden")}
    assert f"{_CLASS}/kernel" in plan.copies


def test_layer_is_taken_over_as_a_whole():
    """A batch norm of 6 channels fits a kernel of 6 output channels only."""
    new, old = _model(), _model()
    del old[f"{_HEAD}/units/1/0/ffn_hidden/bias"]
    old[f"{_RPN}/kernel"] = (6, 15)
    plan = start_plan.of_what_fits(new, old, _OLD, _OLD)
    assert _new(plan) == {_RPN, f"{_HEAD}/units/1/0/ffn_hidden"}
    assert plan.reasons[f"{_RPN}/bias"] == "kernel [6, 15] in the checkpoint, [6, 16] here"


def test_tx_head_is_the_same_beside_an_i3d_head():
    plan = start_plan.of_what_fits(_model(head="both"), _model(), _OLD, _OLD)
    name = "units/1/0/ffn_hidden/kernel"
    assert plan.copies[f"{_HEAD}/tx_head/{name}"] == Copy(f"{_HEAD}/{name}")
    assert _new(plan) == {f"{_HEAD}/i3d_head/tail/_units/Mixed_5b.Sconv", _BOX}
    back = start_plan.of_what_fits(_model(head="i3d"), _model(head="both"), _OLD, _OLD)
    assert _new(back) == {_CLASS}


def test_last_layers_go_with_their_head_even_if_their_shapes_agree():
    new, old = _model(head="i3d", i3d_features=8), _model()
    assert new[f"{_CLASS}/kernel"] == old[f"{_CLASS}/kernel"]
    plan = start_plan.of_what_fits(new, old, _OLD, _OLD)
    assert {_CLASS, _BOX} < _new(plan)
    assert plan.reasons[f"{_CLASS}/kernel"] == (
        "it gets the features of the I3D head, in the checkpoint those of the Tx head"
    )


def test_stage_is_the_same_in_the_trunk_and_in_the_head():
    stages = ("Mixed_4e", "Mixed_4f")
    new = _model(head="i3d", stages=stages[:1], tail=stages[1:])
    new[f"{_HEAD}/tail/_units/Mixed_4f.Sconv/w"] = (3, 3, 3, 4, 6)
    new[f"{_HEAD}/tail/_units/Mixed_4f.Sconv/beta"] = (6,)
    plan = start_plan.of_what_fits(new, _model(stages=stages), _OLD, _OLD)
    name = f"{_HEAD}/tail/_units/Mixed_4f.Sconv/w"
    assert plan.copies[name] == Copy(f"{_TRUNK}/Mixed_4f.Sconv/w")


def test_longer_trunk_starts_its_last_stage_new():
    new = _model(stages=("Mixed_4e", "Mixed_4f", "Mixed_5b"))
    plan = start_plan.of_what_fits(new, _model(), _OLD, _OLD)
    assert _new(plan) == {f"{_TRUNK}/Mixed_5b.Sconv"}


@pytest.mark.parametrize("override", [{"channels": 7}, {"stages": ("conv1", "res2")}])
def test_other_trunk_is_refused(override):
    with pytest.raises(errors.InputError) as caught:
        start_plan.of_what_fits(_model(**override), _model(), _OLD, _OLD)
    assert "its trunk is of another network" in str(caught.value)
    assert "4 variables have another shape:" in str(
        caught.value
    ) or "4 variables of the model are missing" in str(caught.value)


def test_pretrained_trunk_and_its_tail():
    shapes = _model(head="both")
    plan = start_plan.of_trunk(shapes)
    assert {start_plan.part_of(name) for name in plan.copies} == {"trunk", "I3D head"}


def test_parts_and_number_of_classes():
    shapes = _model(head="both", num_classes=7)
    assert start_plan.num_classes(shapes) == 7
    assert start_plan.num_classes({"model/weight": (3,)}) is None
    assert {start_plan.part_of(name) for name in shapes} == {*start_plan.PART_NAMES} - {"other"}
