# SPDX-License-Identifier: Apache-2.0
"""A trained model that takes clips: from a SavedModel, or from a pipeline.config and a checkpoint.

Shapes: B clips, T frames, H W pixels, N detections (one per box and action), L layers and M heads
of Tx units, t h w cells of the feature map, D size of a key.
"""

import os
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from object_detection_ext import errors, input_types
from object_detection_ext.data import annotations

_INPUT = input_types.INPUT
_OUTPUTS = input_types.DETECTIONS
ATTENTION = "detection_attention"
KEY_EMBEDDINGS = "key_embeddings"
_DEFAULT_FPS = 25.0


class ModelError(errors.InputError):
    """A model that cannot be used; the message says why and what would be right."""


class ClipModel:
    """Finds people and actions in batches of clips.

    Attributes:
      name: where the model is from, for messages.
      num_frames: T.
      fps: of a clip's frames.
      frame_size: (H, W) that frames are resized to inside the model; None if it depends on them.
      label_map: action names by id.
      outputs: the names of all that the model returns.
      takes_batches: whether B may be more than 1.
    """

    def __init__(
        self,
        call: Callable,
        *,
        name: str,
        num_frames: int,
        fps: float,
        frame_size: tuple[int, int] | None,
        label_map: Mapping[int, str],
        outputs: Iterable[str],
        takes_batches: bool,
        features: Callable | None = None,
        detect_in_features: Callable | None = None,
    ):
        """Takes the parts; see `load_saved_model` and `load_checkpoint`.

        Args:
          call: from uint8 [B, T, H, W, 3] to the stock detections, a dictionary of tensors.
          name: where the model is from, for messages.
          num_frames: T.
          fps: of a clip's frames.
          frame_size: (H, W) inside the model, if it is fixed.
          label_map: action names by id.
          outputs: the names of all that it returns.
          takes_batches: whether B may be more than 1.
          features: see `shared_trunk`; None if the model does not have it.
          detect_in_features: the same.
        """
        self._call = call
        self.name, self.num_frames, self.fps = name, num_frames, fps
        self.frame_size, self.label_map = frame_size, dict(label_map)
        self.outputs, self.takes_batches = frozenset(outputs), takes_batches
        self.features, self.detect_in_features = features, detect_in_features

    def __call__(self, clips: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Detections of each clip.

        Args:
          clips: uint8 [B, T, H, W, 3].

        Returns:
          For each clip `detection_boxes` [N, 4] (normalized [ymin, xmin, ymax, xmax]),
          `detection_scores` [N], `detection_classes` int [N] (ids of the label map) and, if the
          model has them, `detection_attention` [N, L, M, t, h, w] and `key_embeddings`
          [L, M, t, h, w, D].

        Raises:
          errors.InputError: for clips of another shape or type.
        """
        if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[4] != 3:
            raise errors.InputError(
                f"Clips must be uint8 [B, T, H, W, 3], not {clips.dtype} {list(clips.shape)}."
            )
        if clips.shape[1] != self.num_frames:
            raise errors.InputError(
                f"{self.name} takes clips of {self.num_frames} frames, not of {clips.shape[1]}."
            )
        if self.takes_batches:
            return unbatched(self._call(clips))
        return [found for clip in clips for found in unbatched(self._call(clip[np.newaxis]))]


def unbatched(detections: Mapping) -> list[dict[str, np.ndarray]]:
    """The detections of each clip out of those of a batch, without padding."""
    counts = np.asarray(detections["num_detections"]).astype(int)
    names = [name for name in (*_OUTPUTS[:3], ATTENTION) if name in detections]
    arrays = {name: np.asarray(detections[name]) for name in names}
    found = []
    for index, count in enumerate(counts):
        clip = {name: array[index, :count] for name, array in arrays.items()}
        clip["detection_classes"] = clip["detection_classes"].astype(int)
        if KEY_EMBEDDINGS in detections:
            clip[KEY_EMBEDDINGS] = np.asarray(detections[KEY_EMBEDDINGS][index])
        found.append(clip)
    return found


def load_saved_model(
    path: str,
    *,
    label_map: str | None = None,
    fps: float | None = None,
    num_frames: int | None = None,
) -> ClipModel:
    """Loads what `exporter_main_v2 --input_type=clip_tensor` wrote.

    Args:
      path: the folder of saved_model.pb.
      label_map: path; None takes that of the model's assets.
      fps: of a clip's frames; None takes the model's own, or 25 where it does not tell.
      num_frames: T, needed only where the model's signature leaves it open.

    Raises:
      ModelError: if it is no SavedModel, does not take clips, or something needed is unknown.
      annotations.AnnotationError: if the label map is not readable.
    """
    check_saved_model(path)
    description = input_types.ClipDescription.of_saved_model(path)
    names = _label_map(path, label_map)
    import tensorflow as tf  # takes seconds; what is wrong with the files is told before

    try:
        model = tf.saved_model.load(path)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ModelError(f"{path}: cannot be loaded as a SavedModel: {error}") from error
    signature = model.signatures.get("serving_default")
    spec = _input_spec(path, signature)

    def call(clips):
        return signature(**{_INPUT: tf.constant(clips)})

    call.model = model  # keeps the variables alive
    return ClipModel(
        call,
        name=path,
        num_frames=_clip_length(path, spec.shape[1], num_frames),
        fps=fps or (description and description.fps) or _DEFAULT_FPS,
        frame_size=description and description.frame_size,
        label_map=names,
        outputs=signature.structured_outputs,
        takes_batches=spec.shape[0] is None,
        features=getattr(model, "features", None),
        detect_in_features=getattr(model, "detect_in_features", None),
    )


def check_saved_model(path: str) -> None:
    """Raises ModelError unless the folder holds a SavedModel."""
    if not os.path.isfile(os.path.join(path, "saved_model.pb")):
        raise ModelError(
            f"{path!r} holds no saved_model.pb; give the folder saved_model that "
            "exporter_main_v2 wrote."
        )


def _label_map(path: str, given: str | None) -> dict[int, str]:
    own = input_types.asset(path, input_types.LABEL_MAP_ASSET)
    if given is None and not os.path.isfile(own):
        raise ModelError(
            f"{path} holds no label map; give one: label_map, or --label_map on the command line."
        )
    return annotations.read_label_map(given or own)


def _input_spec(path: str, signature):
    """The TensorSpec of the clips, after a look at inputs and outputs."""
    import tensorflow as tf

    inputs = {} if signature is None else signature.structured_input_signature[1]
    spec = inputs.get(_INPUT)
    if "boxes" in inputs:
        raise ModelError(
            f"{path}: this model classifies boxes that it is given (input 'boxes'), and there "
            "are none here. Export a model with proposals of its own with --input_type=clip_tensor."
        )
    if spec is None or spec.dtype != tf.uint8 or spec.shape.rank != 5 or len(inputs) != 1:
        raise ModelError(
            f"{path}: the default signature must take {_INPUT} uint8 [B, T, H, W, 3], not "
            f"{dict(inputs) or 'nothing'}. Export the model with "
            "object_detection_ext.exporter_main_v2 --input_type=clip_tensor."
        )
    missing = [key for key in _OUTPUTS if key not in signature.structured_outputs]
    if missing:
        raise ModelError(f"{path}: the model does not return {', '.join(missing)}.")
    return spec


def _clip_length(path: str, exported: int | None, asked: int | None) -> int:
    if exported is None and not asked:
        raise ModelError(f"{path}: the signature leaves T open; give it as num_frames.")
    if exported is not None and asked not in (None, 0, exported):
        raise ModelError(
            f"{path}: takes clips of {exported} frames, but num_frames is {asked}; leave it out."
        )
    return exported or asked


def load_checkpoint(
    pipeline_config: str,
    checkpoint: str,
    *,
    label_map: str | None = None,
    fps: float | None = None,
    config_override: str | None = None,
) -> ClipModel:
    """Builds the model of a pipeline.config and restores a checkpoint.

    Args:
      pipeline_config: path.
      checkpoint: a training's folder, whose newest is taken, or a prefix such as `.../ckpt-3`.
      label_map: path; None takes that of the pipeline.config.
      fps: of a clip's frames; None takes the pipeline.config's, or 25 where it does not tell.
      config_override: text proto, merged into the pipeline.config.

    Raises:
      errors.InputError: if the pipeline.config or the checkpoint cannot be used.
    """
    import tensorflow as tf

    from object_detection_ext import exporting, pipeline_check, registration

    registration.register()
    pipeline = registration.read_pipeline(pipeline_config, config_override)
    if not pipeline_check.is_video_pipeline(pipeline):
        raise ModelError(f"{pipeline_config}: not a model of clips.")
    prefix = checkpoint if os.path.isfile(f"{checkpoint}.index") else None
    prefix = prefix or tf.train.latest_checkpoint(checkpoint)
    if prefix is None:
        raise ModelError(f"There is no checkpoint in '{checkpoint}'.")
    description = exporting.describe(pipeline, exporting.CLIP_TENSOR)
    module = exporting.restored_module(pipeline, prefix)
    names = label_map or exporting.label_map_path(pipeline)
    if names is None:
        raise ModelError(
            f"{pipeline_config}: names no label map; give one: label_map, or --label_map on the "
            "command line."
        )
    return ClipModel(
        lambda clips: module.__call__(tf.constant(clips)),
        name=f"{pipeline_config} with {prefix}",
        num_frames=description.num_frames,
        fps=fps or description.fps or _DEFAULT_FPS,
        frame_size=description.frame_size,
        label_map=annotations.read_label_map(names),
        outputs=module.__call__.get_concrete_function().structured_outputs,
        takes_batches=True,
        features=module.features,
        detect_in_features=module.detect_in_features,
    )
