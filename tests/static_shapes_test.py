# SPDX-License-Identifier: Apache-2.0
"""The stock fields that compiled steps set, and what contradicts them."""

import pytest

from object_detection_ext import registration

registration.register()

from object_detection_ext import builders, pipeline_check, static_shapes  # noqa: E402
from tests import tiny_pipeline  # noqa: E402

_XLA = "[object_detection_ext.protos.video_action_transformer] { compute { xla: true } }"


def _faults(override: str, xla: str = _XLA) -> list[str]:
    return pipeline_check.find_faults(tiny_pipeline.make_pipeline(xla + override))


def _model(fields: str) -> str:
    return f"model {{ faster_rcnn {{ {fields} }} }}"


def test_nothing_is_wrong_with_fields_that_are_not_set_or_agree():
    assert not _faults("")
    for field in static_shapes.FIELDS:
        assert not _faults(_model(f"{field}: true"))
    assert not _faults("train_config { unpad_groundtruth_tensors: false }")


@pytest.mark.parametrize("field", static_shapes.FIELDS)
def test_field_that_contradicts_is_an_error_with_its_reason(field):
    (fault,) = _faults(_model(f"{field}: false"))
    assert fault.startswith(f"model.faster_rcnn.{field}: false, but {static_shapes.OPTION} needs")
    assert static_shapes.FIELDS[field] in fault
    assert not _faults(_model(f"{field}: false"), xla="")


def test_what_cannot_be_compiled_is_an_error():
    unpadded = "train_config { unpad_groundtruth_tensors: true }"
    (fault,) = _faults(unpadded)
    assert fault.startswith("train_config.unpad_groundtruth_tensors: true, but")
    assert not _faults(unpadded, xla="")
    miner = _model("hard_example_miner { num_hard_examples: 3 }")
    (fault,) = _faults(miner)
    assert fault.startswith("model.faster_rcnn.hard_example_miner: ")
    assert not _faults(miner, xla="")


@pytest.mark.parametrize(
    ("resizer", "right"),
    [
        ("keep_aspect_ratio_resizer { }", "or pad_to_max_dimension: true"),
        ("identity_resizer { }", "Set fixed_shape_resizer."),
        ("conditional_shape_resizer { }", "Set fixed_shape_resizer."),
        ("keep_aspect_ratio_resizer { pad_to_max_dimension: true }", None),
        ("fixed_shape_resizer { height: 80 width: 48 }", None),
    ],
)
def test_frames_of_many_sizes_are_an_error(resizer, right):
    faults = _faults(_model(f"image_resizer {{ {resizer} }}"))
    if right is None:
        assert not faults
    else:
        (fault,) = faults
        kind = resizer.split()[0]
        assert fault.startswith(f"model.faster_rcnn.image_resizer.{kind}: frames of many sizes")
        assert right in fault


def test_fields_are_set_in_a_copy_and_named():
    config = tiny_pipeline.make_pipeline(_model("use_static_shapes: true")).model.faster_rcnn
    before = type(config)()
    before.CopyFrom(config)
    changed, names = static_shapes.applied(config)
    assert config == before
    assert names == ["use_static_balanced_label_sampler", "use_matmul_crop_and_resize"]
    for field in static_shapes.FIELDS:
        assert getattr(changed, field)
        changed.ClearField(field)
        before.ClearField(field)
    assert changed == before


@pytest.mark.parametrize("for_eval", [False, True])
def test_models_are_built_with_them_and_it_is_said_once(capsys, for_eval):
    """An evaluation compiles its trunk alone, and computes all else as it does without."""
    builders._say_once.cache_clear()
    override = _XLA + _model(f"use_static_shapes_for_eval: {str(for_eval).lower()}")
    for is_training in (True, True, False):
        pipeline = tiny_pipeline.make_pipeline(override)
        model = tiny_pipeline.build_model(pipeline, is_training=is_training)
        is_static = is_training or for_eval
        assert model._use_static_shapes == is_static
        assert model.clip_anchors_to_image
        kind = "matmul" if is_static else "native"
        assert model._crop_and_resize_fn.__name__ == f"multilevel_{kind}_crop_and_resize"
        assert model._first_stage_sampler._is_static == is_static
    said = capsys.readouterr().err
    assert said.count("sets in model.faster_rcnn: use_static_shapes, ") == 1
    plain = tiny_pipeline.build_model(tiny_pipeline.make_pipeline(), is_training=True)
    assert not plain._use_static_shapes and not plain._first_stage_sampler._is_static
    assert not capsys.readouterr().err
