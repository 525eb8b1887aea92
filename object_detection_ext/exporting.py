# SPDX-License-Identifier: Apache-2.0
"""What an exported model takes as its input.

Shapes: T frames, H W pixels, G given boxes, R the pipeline's `first_stage_max_proposals`, N
detections, K classes.
"""

import functools
from collections.abc import Callable

import tensorflow as tf
from object_detection import exporter_lib_v2
from object_detection.protos import pipeline_pb2

from object_detection_ext import errors, pipeline_check
from object_detection_ext import options as options_lib
from object_detection_ext.data import clip_packing
from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2

CLIP_TENSOR = "clip_tensor"
CLIP_AND_BOXES = "clip_and_boxes"


class DetectionFromClipModule(exporter_lib_v2.DetectionInferenceModule):
    """Takes a clip, uint8 [1, T, H, W, 3] of any H and W; returns the stock detections.

    `detection_boxes` [1, N, 4] are normalized [ymin, xmin, ymax, xmax];
    `detection_classes` are ids of the label map.
    """

    def __init__(self, detection_model, use_side_inputs=False, zipped_side_inputs=None):
        super().__init__(detection_model, use_side_inputs, zipped_side_inputs)
        self.__call__ = tf.function(self._detect, input_signature=self._signature())

    def _signature(self) -> list[tf.TensorSpec]:
        num_frames = self._model.feature_extractor.num_frames
        return [tf.TensorSpec([1, num_frames, None, None, 3], tf.uint8, name="input_tensor")]

    def _detect(self, input_tensor, **side_inputs):
        images, true_shapes = self._preprocess_input(input_tensor, clip_packing.pack_clip)
        return self._run_inference_on_images(images, true_shapes, **side_inputs)


class DetectionFromClipAndBoxesModule(DetectionFromClipModule):
    """Takes a clip, and boxes in place of the model's own proposals.

    `boxes`, float [1, G, 4] with G up to R, are normalized [ymin, xmin, ymax, xmax] of people in
    the clip's middle frame; boxes without an area at the end are padding. The model refines and
    classifies them; `detection_anchor_indices` tells each detection's box.
    """

    def _signature(self) -> list[tf.TensorSpec]:
        boxes = tf.TensorSpec([1, None, 4], tf.float32, name="boxes")
        return [*super()._signature(), boxes]

    def _detect(self, input_tensor, boxes):
        return super()._detect(input_tensor, proposal_boxes=boxes)


MODULES = {
    CLIP_TENSOR: DetectionFromClipModule,
    CLIP_AND_BOXES: DetectionFromClipAndBoxesModule,
}


def _check_input_type(input_type: str, pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> None:
    is_video = pipeline_check.is_video_pipeline(pipeline)
    if is_video != (input_type in MODULES):
        raise errors.InputError(
            f"input_type '{input_type}' does not fit this model: models of clips take "
            f"{' or '.join(MODULES)}, models of images the stock input types."
        )
    proposals = pipeline.Extensions[options_lib.EXTENSION].proposals
    if proposals.source == vat_pb2.Proposals.GROUND_TRUTH and input_type != CLIP_AND_BOXES:
        raise errors.InputError(
            f"input_type '{input_type}' does not fit this model: its proposals are the ground "
            f"truth's boxes (proposals.source), so it takes boxes as an input: {CLIP_AND_BOXES}."
        )


def wrap_export(stock_export: Callable) -> Callable:
    """Surrounds `exporter_lib_v2.export_inference_graph`; same arguments."""

    @functools.wraps(stock_export)
    def export_inference_graph(
        input_type,
        pipeline_config: pipeline_pb2.TrainEvalPipelineConfig,
        trained_checkpoint_dir: str,
        output_directory: str,
        *args,
        **kwargs,
    ):
        pipeline_check.check(pipeline_config, "pipeline.config")
        _check_input_type(input_type, pipeline_config)
        if tf.train.latest_checkpoint(trained_checkpoint_dir) is None:
            raise errors.InputError(f"There is no checkpoint in '{trained_checkpoint_dir}'.")
        pipeline = pipeline_pb2.TrainEvalPipelineConfig()
        pipeline.CopyFrom(pipeline_config)
        if pipeline_check.is_video_pipeline(pipeline):
            options_lib.attach_to_pipeline(pipeline)
        stock_export(
            input_type, pipeline, trained_checkpoint_dir, output_directory, *args, **kwargs
        )

    return export_inference_graph
