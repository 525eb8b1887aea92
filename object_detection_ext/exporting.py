# SPDX-License-Identifier: Apache-2.0
"""What an exported model takes as its input, and what travels with it.

The SavedModel's assets hold `label_map.pbtxt` and `clip.json` (see `ClipDescription`), so that
nothing else is needed to use it; with them it can be told from any other SavedModel.

Shapes: B clips, T frames, H W pixels as given, h w pixels as the model gets them, G given boxes, R
the pipeline's `first_stage_max_proposals`, N detections.
"""

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterator

import tensorflow as tf
from object_detection import exporter_lib_v2
from object_detection.builders import model_builder
from object_detection.protos import pipeline_pb2
from object_detection.utils import config_util
from tf_keras.src.saving.legacy.saved_model import utils as keras_saving

from object_detection_ext import errors, export_folder, pipeline_check, static_shapes
from object_detection_ext import files as file_systems
from object_detection_ext import options as options_lib
from object_detection_ext.checkpoints import averages, matching
from object_detection_ext.checkpoints import files as checkpoint_files
from object_detection_ext.data import clip_decoder, picture_size
from object_detection_ext.detection.video_meta_arch import ClipFeatures
from object_detection_ext.input_types import (
    BOXES,
    CLIP_AND_BOXES,
    CLIP_ASSET,
    CLIP_TENSOR,
    ENCODED_CLIP,
    INPUT,
    LABEL_MAP_ASSET,
    TF_SEQUENCE_EXAMPLE,
    ClipDescription,
)
from object_detection_ext.messages import say
from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2
from object_detection_ext.serving import warmup

# Frames that are decoded and resized at a time. Each may be a large one, as floats.
_FRAMES_AT_A_TIME = 4


def describe(pipeline: pipeline_pb2.TrainEvalPipelineConfig, input_type: str) -> ClipDescription:
    """The description of the model that this pipeline exports."""
    clip = pipeline.Extensions[options_lib.EXTENSION].clip
    resizer = pipeline.model.faster_rcnn.image_resizer
    size = config_util.get_spatial_image_size(resizer)
    keeps_aspect_ratio = resizer.HasField("keep_aspect_ratio_resizer")
    return ClipDescription(
        input_type=input_type,
        num_frames=clip.num_frames,
        fps=clip.fps / clip.frame_stride if clip.HasField("fps") else None,
        record_stride=clip.frame_stride,
        max_boxes=pipeline.model.faster_rcnn.first_stage_max_proposals,
        frame_size=None if -1 in size else tuple(size),
        short_side=resizer.keep_aspect_ratio_resizer.min_dimension if keeps_aspect_ratio else None,
        precision=options_lib.precision_name(pipeline),
    )


class _ClipModule(exporter_lib_v2.DetectionInferenceModule):
    """What the modules share: clips of frames in, the stock detections out.

    `detection_boxes` [B, N, 4] are normalized [ymin, xmin, ymax, xmax]; `detection_classes` are
    ids of the label map. Each frame is resized and rounded as the evaluation's input is.
    """

    def __init__(
        self,
        detection_model,
        use_side_inputs=False,
        zipped_side_inputs=None,
        assets: dict[str, str] | None = None,
        record_stride: int = 1,
        max_frame_pixels: int = picture_size.MAX_PIXELS,
    ):
        """Creates the module.

        Args:
            detection_model: the model.
            use_side_inputs: the stock exporter's; not used.
            zipped_side_inputs: the stock exporter's; not used.
            assets: paths of files that travel in the SavedModel, by the attribute that finds them.
            record_stride: see `ClipDescription`.
            max_frame_pixels: encoded frames of more pixels are refused before they are decoded.
        """
        super().__init__(detection_model, use_side_inputs, zipped_side_inputs)
        self._record_stride = record_stride
        self._max_frame_pixels = max_frame_pixels
        for name, path in (assets or {}).items():
            setattr(self, name, tf.saved_model.Asset(path))
        self.__call__ = tf.function(self._detect, input_signature=self._signature())

    @property
    def _num_frames(self) -> int:
        return self._model.feature_extractor.num_frames

    def _detect_in(self, frames: tf.Tensor, decode: Callable, **side_inputs):
        """Detections in clips [B, T, ...] of frames that `decode` makes uint8 [H, W, 3]."""
        images, true_shapes = self._stacked(frames, decode)
        return self._run_inference_on_images(images, true_shapes, **side_inputs)

    def _stacked(self, frames: tf.Tensor, decode: Callable) -> tuple[tf.Tensor, tf.Tensor]:
        """Clips as the input pipeline gives them: uint8 [B, T h, w, 3], and true shapes [B, 3]."""
        shape = tf.shape(frames)
        pictures, true_shapes = self._resized(
            tf.reshape(frames, tf.concat([[-1], shape[2:]], axis=0)), decode
        )  # [B T, h, w, 3], [B T, 3]
        size = tf.shape(pictures)
        images = tf.reshape(pictures, [shape[0], self._num_frames * size[1], size[2], 3])
        heights_and_widths = tf.reshape(true_shapes, [shape[0], self._num_frames, 3])[:, 0, :2]
        channels = tf.fill([shape[0], 1], 3 * self._num_frames)
        return images, tf.concat([heights_and_widths, channels], axis=1)

    def _resized(self, frames: tf.Tensor, decode: Callable) -> tuple[tf.Tensor, tf.Tensor]:
        """Frames [n, ...] as the model gets them, uint8 [n, h, w, 3], and true shapes [n, 3].

        Frame by frame, so that no clip is there as floats.
        """

        def resized(frame):
            # The model's own resizer; on floats it is twice as fast.
            picture, true_shape = self._model.image_resizer(tf.cast(decode(frame), tf.float32))
            picture = tf.clip_by_value(picture + 0.5, 0.0, 255.0)
            return tf.cast(picture, tf.uint8), true_shape

        return tf.map_fn(
            resized,
            frames,
            fn_output_signature=(
                tf.TensorSpec([None, None, 3], tf.uint8),
                tf.TensorSpec([3], tf.int32),
            ),
            parallel_iterations=_FRAMES_AT_A_TIME,
        )


class DetectionFromClipModule(_ClipModule):
    """Takes clips, uint8 [B, T, H, W, 3] of any H and W.

    Two more functions of the loaded SavedModel, which are no signatures, run the trunk once over a
    long stretch of video and the rest on windows of its feature map (inference/shared_trunk.py).
    """

    def __init__(self, detection_model, *args, **kwargs):
        """See `_ClipModule`."""
        super().__init__(detection_model, *args, **kwargs)
        self.features = tf.function(
            self._features, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)]
        )
        steps, channels = detection_model.feature_map_size
        self.detect_in_features = tf.function(
            self._detect_in_features,
            input_signature=[
                tf.TensorSpec([None, steps, None, None, channels], tf.float32),
                tf.TensorSpec([2], tf.int32),
                tf.TensorSpec([2], tf.int32),
            ],
        )

    def _signature(self) -> list[tf.TensorSpec]:
        return [tf.TensorSpec([None, self._num_frames, None, None, 3], tf.uint8, name=INPUT)]

    def _detect(self, input_tensor):
        return self._detect_in(input_tensor, lambda frame: frame)

    def _features(self, frames: tf.Tensor):
        """The trunk's feature map of a stretch of video.

        Args:
            frames: uint8 [n, H, W, 3], any n; n frames give n / temporal stride cells, rounded up.

        Returns:
            The feature map [1, n', h', w', C]; height and width in pixels of the resized frames,
            int32 [2], with padding; the same without padding; frames from one of the n' to the
            next; how many of them a clip has.
        """
        pictures, true_shapes = self._resized(frames, lambda frame: frame)
        features = self._model.trunk_features(pictures[tf.newaxis])
        steps, _ = self._model.feature_map_size
        return (
            features,
            tf.shape(pictures)[1:3],
            true_shapes[0, :2],
            tf.constant(self._model.temporal_stride),
            tf.constant(steps),
        )

    def _detect_in_features(self, features: tf.Tensor, size: tf.Tensor, true_size: tf.Tensor):
        """The stock detections of windows of a feature map.

        Args:
            features: float [B, t, h', w', C], the cells of a clip each.
            size: int32 [2], as `_features` gives it.
            true_size: int32 [2], as `_features` gives it.
        """
        num_clips, channels = tf.shape(features)[0], 3 * self._num_frames
        true_shapes = tf.tile(
            tf.concat([true_size, [channels]], axis=0)[tf.newaxis], [num_clips, 1]
        )
        return self._run_inference_on_images(ClipFeatures(features, size), true_shapes)


class DetectionFromEncodedClipModule(_ClipModule):
    """Takes clips of encoded frames, strings [B, T]: JPEGs, or what `tf.io.decode_image` takes.

    A frame of more than `max_frame_pixels`, by its header, is an error; it is not decoded.

    Where the resizer keeps the aspect ratio and does not pad, all frames must be of one size.
    """

    def _signature(self) -> list[tf.TensorSpec]:
        return [tf.TensorSpec([None, self._num_frames], tf.string, name=INPUT)]

    def _detect(self, input_tensor):
        return self._detect_in(input_tensor, self._decoded)

    def _decoded(self, encoded: tf.Tensor) -> tf.Tensor:
        check = picture_size.check_pixels(picture_size.header_size(encoded), self._max_frame_pixels)
        with tf.control_dependencies([check]):
            return tf.io.decode_image(encoded, channels=3, expand_animations=False)


class DetectionFromSequenceExampleModule(DetectionFromEncodedClipModule):
    """Takes serialized SequenceExamples, strings [B], as `create_ava_records` writes them.

    Of each the clip around its first annotated frame, or around its middle one if none is.
    """

    def _signature(self) -> list[tf.TensorSpec]:
        return [tf.TensorSpec([None], tf.string, name=INPUT)]

    def _detect(self, input_tensor):
        frames = tf.map_fn(
            lambda record: clip_decoder.frames_around_keyframe(
                record, self._num_frames, self._record_stride
            ),
            input_tensor,
            fn_output_signature=tf.TensorSpec([self._num_frames], tf.string),
        )
        return super()._detect(frames)


class DetectionFromClipAndBoxesModule(_ClipModule):
    """Takes clips, and boxes in place of the model's own proposals.

    `boxes`, float [B, G, 4] with G up to R, are normalized [ymin, xmin, ymax, xmax] of people in
    the clips' middle frames; boxes without an area at the end are padding. The model refines and
    classifies them; `detection_anchor_indices` tells each detection's box.
    """

    def _signature(self) -> list[tf.TensorSpec]:
        return [
            tf.TensorSpec([None, self._num_frames, None, None, 3], tf.uint8, name=INPUT),
            tf.TensorSpec([None, None, 4], tf.float32, name=BOXES),
        ]

    def _detect(self, input_tensor, boxes):
        return self._detect_in(input_tensor, lambda frame: frame, proposal_boxes=boxes)


MODULES = {
    CLIP_TENSOR: DetectionFromClipModule,
    ENCODED_CLIP: DetectionFromEncodedClipModule,
    TF_SEQUENCE_EXAMPLE: DetectionFromSequenceExampleModule,
    CLIP_AND_BOXES: DetectionFromClipAndBoxesModule,
}


def _check_input_type(input_type: str, pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> None:
    is_video = pipeline_check.is_video_pipeline(pipeline)
    if is_video != (input_type in MODULES):
        raise errors.InputError(
            f"input_type '{input_type}' does not fit this model: models of clips take "
            f"{', '.join(MODULES)}; models of images the stock input types."
        )
    proposals = pipeline.Extensions[options_lib.EXTENSION].proposals
    if proposals.source == vat_pb2.Proposals.GROUND_TRUTH and input_type != CLIP_AND_BOXES:
        raise errors.InputError(
            f"input_type '{input_type}' does not fit this model: its proposals are the ground "
            f"truth's boxes (proposals.source), so it takes boxes as an input: {CLIP_AND_BOXES}."
        )


def usable_checkpoint(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, path: str, source: str
) -> checkpoint_files.Contents:
    """The checkpoint that a user means, read and found fit for a pipeline's model.

    Args:
        pipeline: of the model, checked.
        path: a folder, whose newest whole checkpoint is taken, or a prefix such as `.../ckpt-3`.
        source: where the pipeline comes from, for messages.

    Raises:
        errors.InputError: if there is none, if it is damaged, has values that are not finite, or is
            not of this model.
    """
    contents = checkpoint_files.resolve(path, say)
    checkpoint_files.check_finite(contents)
    matching.check(pipeline, contents, source, say)
    return contents


def restored_module(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    contents: checkpoint_files.Contents,
    input_type: str,
) -> exporter_lib_v2.DetectionInferenceModule:
    """What is exported for an input type, without the export.

    Args:
        pipeline: of the model.
        contents: of its checkpoint; see `usable_checkpoint`.
        input_type: one of `MODULES`.

    Raises:
        errors.InputError: if the pipeline does not fit.
    """
    pipeline_check.check(pipeline, "pipeline.config")
    _check_input_type(input_type, pipeline)
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    model = model_builder.build(configs["model"], is_training=False)
    clip = pipeline.Extensions[options_lib.EXTENSION].clip
    module = MODULES[input_type](model, max_frame_pixels=clip.max_frame_pixels)
    with averages.folder_to_export(pipeline, contents) as newest:
        checkpoint = tf.train.latest_checkpoint(newest)
        status = tf.train.Checkpoint(model=model).restore(checkpoint).expect_partial()
        module.__call__.get_concrete_function()  # makes the variables
        status.assert_existing_objects_matched()
    return module


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
        contents = usable_checkpoint(
            pipeline_config, trained_checkpoint_dir, "the pipeline.config in use"
        )
        pipeline = pipeline_pb2.TrainEvalPipelineConfig()
        pipeline.CopyFrom(pipeline_config)
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(export_folder.replaced(output_directory))
            if pipeline_check.is_video_pipeline(pipeline):
                _leave_out_compilation(pipeline)
                options_lib.attach_to_pipeline(pipeline)
                stack.enter_context(_with_assets(pipeline, input_type))
                stack.enter_context(_without_functions_of_layers())
                newest = stack.enter_context(averages.folder_to_export(pipeline, contents))
                # The exported weights are the averages, and the export has no others.
                if pipeline.eval_config.use_moving_averages:
                    pipeline.eval_config.use_moving_averages = False
            else:
                newest = stack.enter_context(checkpoint_files.folder_of(contents.prefix))
            stock_export(input_type, pipeline, newest, folder, *args, **kwargs)
            if input_type in MODULES:
                _write_warmup(pipeline, input_type, folder)

    return export_inference_graph


def _leave_out_compilation(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> None:
    """Programs that serve models, such as TF Serving, may have no XLA; batches are of any size."""
    if static_shapes.is_wanted(pipeline):
        say(
            f"export: {static_shapes.OPTION} is left out: the exported model runs anywhere, on "
            "batches of any size"
        )
        pipeline.Extensions[options_lib.EXTENSION].compute.ClearField("xla")


def _without_functions_of_layers() -> contextlib.AbstractContextManager:
    """While this lasts, a SavedModel holds the functions that we export and no others.

    Keras would add some for each layer, from which it makes layers again. Nothing calls them, and
    they are half of the file and more than half of the time to write and to load it.
    """
    return keras_saving.keras_option_scope(save_traces=False, in_tf_saved_model_scope=False)


def _write_warmup(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, input_type: str, output_directory: str
) -> None:
    """Adds the requests that TF Serving sends itself when it loads the model."""
    description = describe(pipeline, input_type)
    warmup.write(
        os.path.join(output_directory, "saved_model"),
        input_type,
        num_frames=description.num_frames,
        record_stride=description.record_stride,
        frame_size=warmup.frame_size(pipeline.model.faster_rcnn.image_resizer),
    )


@contextlib.contextmanager
def _with_assets(pipeline: pipeline_pb2.TrainEvalPipelineConfig, input_type: str) -> Iterator[None]:
    """While this lasts, the stock exporter gives the module this pipeline's assets."""
    description = describe(pipeline, input_type)
    stock_map = exporter_lib_v2.DETECTION_MODULE_MAP
    with tempfile.TemporaryDirectory() as folder:
        clip = os.path.join(folder, CLIP_ASSET)
        file_systems.write_text(clip, description.to_json())
        assets = {"clip_description": clip}
        label_map = label_map_path(pipeline)
        if label_map:
            assets["label_map"] = os.path.join(folder, LABEL_MAP_ASSET)
            tf.io.gfile.copy(label_map, assets["label_map"])
        module = MODULES[input_type]
        stock_map[input_type] = functools.partial(
            module,
            assets=assets,
            record_stride=description.record_stride,
            max_frame_pixels=pipeline.Extensions[options_lib.EXTENSION].clip.max_frame_pixels,
        )
        try:
            yield
        finally:
            stock_map[input_type] = module


def label_map_path(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> str | None:
    """The label map that the pipeline names; `pipeline_check` has seen that it is there."""
    for reader in (*pipeline.eval_input_reader, pipeline.train_input_reader):
        if reader.label_map_path:
            return reader.label_map_path
    print(
        "WARNING: the pipeline.config names no label map (label_map_path), so that the exported "
        "model holds none. Whoever uses it must have it.",
        flush=True,
    )
    return None
