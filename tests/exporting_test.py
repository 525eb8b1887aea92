# SPDX-License-Identifier: Apache-2.0
"""What cannot be exported is refused before anything is built; end_to_end_test exports."""

import pytest
from google.protobuf import text_format
from object_detection import exporter_lib_v2

from object_detection_ext import errors, registration
from tests import tiny_pipeline

registration.register()


def test_clips_and_images_are_not_mixed_up(tmp_path):
    ours = tiny_pipeline.make_pipeline()
    with pytest.raises(errors.InputError, match="'image_tensor' does not fit.*clip_tensor"):
        exporter_lib_v2.export_inference_graph("image_tensor", ours, str(tmp_path), "out")
    stock = text_format.Parse("model { ssd { } }", type(ours)())
    with pytest.raises(errors.InputError, match="'clip_tensor' does not fit.*images"):
        exporter_lib_v2.export_inference_graph("clip_tensor", stock, str(tmp_path), "out")


def test_model_on_groundtruth_boxes_takes_boxes(tmp_path):
    override = (
        "[object_detection_ext.protos.video_action_transformer] "
        "{ proposals { source: GROUND_TRUTH } }"
    )
    pipeline = tiny_pipeline.make_pipeline(override)
    with pytest.raises(errors.InputError, match="takes boxes as an input: clip_and_boxes"):
        exporter_lib_v2.export_inference_graph("clip_tensor", pipeline, str(tmp_path), "out")
    with pytest.raises(errors.InputError, match="no checkpoint"):  # the type is right
        exporter_lib_v2.export_inference_graph("clip_and_boxes", pipeline, str(tmp_path), "out")


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(errors.InputError, match=f"no checkpoint in '{tmp_path}'"):
        exporter_lib_v2.export_inference_graph(
            "clip_tensor", tiny_pipeline.make_pipeline(), str(tmp_path), str(tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()


def test_pipeline_is_checked_first(tmp_path):
    wrong = tiny_pipeline.make_pipeline("model { faster_rcnn { number_of_stages: 3 } }")
    with pytest.raises(errors.InputError, match="number_of_stages: 3"):
        exporter_lib_v2.export_inference_graph("clip_tensor", wrong, str(tmp_path), "out")
