# SPDX-License-Identifier: Apache-2.0
"""A trained model that takes clips: from a SavedModel, or from a pipeline.config and a checkpoint.

Shapes: B clips, T frames, H W pixels, G given boxes of a clip, R the most that the model takes at
once, N detections (one per box and action), L layers and M heads of Tx units, t h w cells of the
feature map, D size of a key.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from object_detection_ext import devices, errors, files, input_types, messages
from object_detection_ext import precision as precision_lib
from object_detection_ext.ava import label_maps

_INPUT = input_types.INPUT
_BOXES = input_types.BOXES
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
      short_side: of a frame inside the model, in pixels, where the model keeps the aspect ratio.
      label_map: action names by id.
      outputs: the names of all that the model returns.
      takes_batches: whether B may be more than 1.
      takes_boxes: whether the people's boxes are given, in place of proposals of its own.
      precision: that trunk and head compute in, one of `precision.NAMES`; None if it is not known.
    """

    def __init__(
        self,
        call: Callable,
        *,
        name: str,
        num_frames: int,
        fps: float,
        frame_size: tuple[int, int] | None,
        short_side: int | None = None,
        label_map: Mapping[int, str],
        outputs: Iterable[str],
        takes_batches: bool,
        takes_boxes: bool = False,
        max_boxes: int | None = None,
        features: Callable | None = None,
        detect_in_features: Callable | None = None,
        precision: str | None = None,
    ):
        """Takes the parts; see `load_saved_model` and `load_checkpoint`.

        Args:
          call: from uint8 [B, T, H, W, 3], and with `takes_boxes` also float32 [B, G, 4], to the
            stock detections, a dictionary of tensors.
          name: where the model is from, for messages.
          num_frames: T.
          fps: of a clip's frames.
          frame_size: (H, W) inside the model, if it is fixed.
          short_side: of a frame inside the model, where the model keeps the aspect ratio.
          label_map: action names by id.
          outputs: the names of all that it returns.
          takes_batches: whether B may be more than 1.
          takes_boxes: whether the people's boxes are given.
          max_boxes: R; None: any number.
          features: see `shared_trunk`; None if the model does not have it.
          detect_in_features: the same.
          precision: see the class.
        """
        self._call = call
        self.name, self.num_frames, self.fps = name, num_frames, fps
        self.frame_size, self.short_side = frame_size, short_side
        self.label_map = dict(label_map)
        self.outputs, self.takes_batches = frozenset(outputs), takes_batches
        self.takes_boxes, self._max_boxes = takes_boxes, max_boxes
        self.features, self.detect_in_features = features, detect_in_features
        self.precision = precision

    def __call__(
        self, clips: np.ndarray, boxes: Sequence[np.ndarray] | None = None
    ) -> list[dict[str, np.ndarray]]:
        """Detections of each clip.

        Args:
          clips: uint8 [B, T, H, W, 3].
          boxes: for a model that takes them, float [G, 4] of the people in each clip's middle
            frame, normalized [ymin, xmin, ymax, xmax], any G for each clip; boxes without an area
            are padding. If there are more than R, the clip is looked at more than once.

        Returns:
          For each clip `detection_boxes` [N, 4] (normalized [ymin, xmin, ymax, xmax]),
          `detection_scores` [N], `detection_classes` int [N] (ids of the label map) and, if the
          model has them, `detection_attention` [N, L, M, t, h, w] and `key_embeddings`
          [L, M, t, h, w, D].

        Raises:
          errors.InputError: for clips or boxes of another shape or type, for a model that takes
            boxes without them, and for boxes to one that takes none.
        """
        if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[4] != 3:
            raise errors.InputError(
                f"Clips must be uint8 [B, T, H, W, 3], not {clips.dtype} {list(clips.shape)}."
            )
        if clips.shape[1] != self.num_frames:
            raise errors.InputError(
                f"{self.name} takes clips of {self.num_frames} frames, not of {clips.shape[1]}."
            )
        if self.takes_boxes != (boxes is not None):
            raise errors.InputError(
                f"{self.name}: this model "
                + ("needs the people's boxes." if self.takes_boxes else "takes no boxes.")
            )
        if boxes is not None:
            return self._detect_given(clips, [_checked_boxes(each) for each in boxes])
        if self.takes_batches:
            return unbatched(self._call(clips))
        return [found for clip in clips for found in unbatched(self._call(clip[np.newaxis]))]

    def _detect_given(
        self, clips: np.ndarray, boxes: Sequence[np.ndarray]
    ) -> list[dict[str, np.ndarray]]:
        """What `__call__` gives, R boxes at a time; clips without boxes cost nothing."""
        if len(boxes) != len(clips):
            raise errors.InputError(f"{len(clips)} clips, but boxes of {len(boxes)}.")
        at_once = self._max_boxes or max(1, *map(len, boxes))
        looks = [
            (index, each[start : start + at_once])
            for index, each in enumerate(boxes)
            for start in range(0, len(each), at_once)
        ]
        batch = len(clips) if self.takes_batches else 1
        found: list[list[dict[str, np.ndarray]]] = [[] for _ in clips]
        for first in range(0, len(looks), batch):
            indices, parts = zip(*looks[first : first + batch], strict=True)
            size = max(map(len, parts))
            padded = np.stack([np.pad(part, [(0, size - len(part)), (0, 0)]) for part in parts])
            detections = unbatched(self._call(clips[list(indices)], padded))
            for index, each in zip(indices, detections, strict=True):
                found[index].append(each)
        return [_joined(parts) for parts in found]


def _checked_boxes(boxes: np.ndarray) -> np.ndarray:
    """Float32 [G, 4] with an area. Raises errors.InputError for anything else."""
    boxes = np.asarray(boxes, np.float32)
    if not boxes.size:
        return np.zeros([0, 4], np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise errors.InputError(f"A clip's boxes must be [G, 4], not {list(boxes.shape)}.")
    if not ((boxes >= 0) & (boxes <= 1)).all():  # also for what is no number
        row = boxes[~((boxes >= 0) & (boxes <= 1)).all(axis=1)][0]
        raise errors.InputError(
            f"Boxes are [ymin, xmin, ymax, xmax], normalized to [0, 1], not {row.tolist()}."
        )
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The detections of one clip out of several looks at it; none if there was none."""
    if not parts:
        return {
            "detection_boxes": np.zeros([0, 4], np.float32),
            "detection_scores": np.zeros([0], np.float32),
            "detection_classes": np.zeros([0], int),
        }
    joined = {
        name: np.concatenate([part[name] for part in parts])
        for name in parts[0]
        if name != KEY_EMBEDDINGS
    }
    if KEY_EMBEDDINGS in parts[0]:  # those of the clip, whatever the boxes
        joined[KEY_EMBEDDINGS] = parts[0][KEY_EMBEDDINGS]
    return joined


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
    precision: str | None = None,
) -> ClipModel:
    """Loads what `exporter_main_v2` wrote with `--input_type` clip_tensor or clip_and_boxes.

    Args:
      path: the folder of saved_model.pb.
      label_map: path; None takes that of the model's assets.
      fps: of a clip's frames; None takes the model's own, or 25 where it does not tell.
      num_frames: T, needed only where the model's signature leaves it open.
      precision: the one that the model must have been exported in; None: whichever it was.

    Raises:
      ModelError: if it is no SavedModel, does not take clips, something needed is unknown, or it
        was exported in another precision.
      faults.AnnotationError: if the label map is not readable.
    """
    check_saved_model(path)
    if precision is not None:
        check_precision(path, precision)
    description = input_types.ClipDescription.of_saved_model(path)
    names = _label_map(path, label_map)
    import tensorflow as tf  # takes seconds; what is wrong with the files is told before

    devices.announce(devices.INFERENCE)
    if description is not None and description.precision == precision_lib.BFLOAT16:
        precision_lib.warn_if_slow(tf, messages.say)
    model = _load(tf, path)
    signature = model.signatures.get("serving_default")
    spec = _input_spec(path, signature)
    takes_boxes = _BOXES in signature.structured_input_signature[1]
    if description is not None:
        _check_description(path, description, spec.shape[1], takes_boxes)

    def call(clips, *boxes):
        inputs = dict(zip((_INPUT, _BOXES), (clips, *boxes), strict=False))
        return signature(**{name: tf.constant(value) for name, value in inputs.items()})

    call.model = model  # keeps the variables alive
    return ClipModel(
        call,
        name=path,
        num_frames=_clip_length(path, spec.shape[1], num_frames),
        fps=_clip_rate(path, fps or (description and description.fps)),
        frame_size=description and description.frame_size,
        short_side=description and description.short_side,
        label_map=names,
        outputs=signature.structured_outputs,
        takes_batches=spec.shape[0] is None,
        takes_boxes=takes_boxes,
        max_boxes=description and description.max_boxes,
        features=getattr(model, "features", None),
        detect_in_features=getattr(model, "detect_in_features", None),
        precision=description and description.precision,
    )


def _load(tf, path: str):
    """The SavedModel. Raises errors.InputError if it is damaged."""
    _check_variables(path)
    try:
        return tf.saved_model.load(path)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ModelError(f"{path}: cannot be loaded as a SavedModel: {error}") from error


def check_saved_model(path: str) -> None:
    """Raises ModelError unless the folder holds a SavedModel."""
    if not files.is_local(path):
        raise ModelError(f"{path}: copy the exported model to a disk of this machine first.")
    if not os.path.isfile(os.path.join(path, "saved_model.pb")):
        raise ModelError(
            f"{path!r} holds no saved_model.pb; give the folder saved_model that "
            "exporter_main_v2 wrote."
        )


def check_precision(path: str, wanted: str) -> None:
    """Raises errors.InputError if a SavedModel was exported in another precision than this."""
    description = input_types.ClipDescription.of_saved_model(path)
    precision_lib.check_exported(path, description and description.precision, wanted)


def _check_variables(path: str) -> None:
    """Raises errors.InputError for variables that are damaged or have values that are not finite.

    It takes a fraction of the time of loading them.
    """
    from object_detection_ext.checkpoints import files as checkpoint_files

    folder = os.path.join(path, "variables")
    if not os.path.isdir(folder):
        return  # frozen models have none
    contents = checkpoint_files.read(os.path.join(folder, "variables"))
    if contents.non_finite:
        raise ModelError(
            f"{path}: the model cannot be used: "
            f"{checkpoint_files.describe_non_finite(contents)} It was exported from a training "
            "that had diverged."
        )


def _label_map(path: str, given: str | None) -> dict[int, str]:
    own = input_types.asset(path, input_types.LABEL_MAP_ASSET)
    if given is None and not os.path.isfile(own):
        raise ModelError(
            f"{path} holds no label map; give one: label_map, or --label_map on the command line."
        )
    return label_maps.read_label_map(given or own)


def _input_spec(path: str, signature):
    """The TensorSpec of the clips, after a look at inputs and outputs."""
    import tensorflow as tf

    inputs = {} if signature is None else signature.structured_input_signature[1]
    spec = inputs.get(_INPUT)
    others = set(inputs) - {_INPUT, _BOXES}
    if spec is None or spec.dtype != tf.uint8 or spec.shape.rank != 5 or others:
        raise ModelError(
            f"{path}: the default signature must take {_INPUT} uint8 [B, T, H, W, 3], not "
            f"{dict(inputs) or 'nothing'}. Export the model with "
            "object_detection_ext.exporter_main_v2 --input_type=clip_tensor or clip_and_boxes."
        )
    missing = [key for key in _OUTPUTS if key not in signature.structured_outputs]
    if missing:
        raise ModelError(f"{path}: the model does not return {', '.join(missing)}.")
    return spec


def _check_description(
    path: str, description: input_types.ClipDescription, num_frames: int | None, takes_boxes: bool
) -> None:
    """Raises errors.InputError if the assets describe another model than the signature is of."""
    found = input_types.CLIP_AND_BOXES if takes_boxes else input_types.CLIP_TENSOR
    wrong = None
    if description.input_type != found:
        wrong = f"input_type is {description.input_type}, but the model's inputs are of {found}"
    elif num_frames not in (None, description.num_frames):
        wrong = f"num_frames is {description.num_frames}, but the model takes {num_frames} frames"
    if wrong:
        file = input_types.asset(path, input_types.CLIP_ASSET)
        raise errors.InputError(f"{file}: {wrong}; export the model again.")


def _clip_length(path: str, exported: int | None, asked: int | None) -> int:
    if exported is None and not asked:
        raise ModelError(f"{path}: the signature leaves T open; give it as num_frames.")
    if exported is not None and asked not in (None, 0, exported):
        raise ModelError(
            f"{path}: takes clips of {exported} frames, but num_frames is {asked}; leave it out."
        )
    return exported or asked


def _clip_rate(name: str, fps: float | None) -> float:
    if fps:
        return fps
    print(
        f"detection: {name} does not tell its frame rate (clip.fps of the pipeline.config): its "
        f"clips are taken at {_DEFAULT_FPS:g} frames a second; give what it was trained at as fps "
        "(--fps).",
        flush=True,
    )
    return _DEFAULT_FPS


def _read_pipeline(path: str, override: str | None, precision: str | None):
    """The checked pipeline of a model of clips; says what of it has no effect."""
    from object_detection_ext import options, pipeline_check, registration, unused_fields

    pipeline = registration.read_pipeline(path, override)
    if not pipeline_check.is_video_pipeline(pipeline):
        raise ModelError(f"{path}: not a model of clips.")
    if precision is not None:
        options.set_precision(pipeline, precision)
    for text in unused_fields.find(pipeline, trains=False, evaluates=False):
        messages.say(f"warning: {path}: no effect: {text}")
    return pipeline


def load_checkpoint(
    pipeline_config: str,
    checkpoint: str,
    *,
    label_map: str | None = None,
    fps: float | None = None,
    config_override: str | None = None,
    config_override_paths: Sequence[str] = (),
    takes_boxes: bool = False,
    precision: str | None = None,
) -> ClipModel:
    """Builds the model of a pipeline.config and restores a checkpoint.

    Args:
      pipeline_config: path.
      checkpoint: a folder of checkpoints, whose newest whole one is taken, or a prefix such as
        `.../ckpt-3`.
      label_map: path; None takes that of the pipeline.config.
      fps: of a clip's frames; None takes the pipeline.config's, or 25 where it does not tell.
      config_override: text proto, merged into the pipeline.config.
      config_override_paths: files of such text, which are merged before it, in this order.
      takes_boxes: whether the people's boxes will be given.
      precision: that trunk and head compute in, whatever they were trained in; None takes the
        pipeline.config's.

    Raises:
      errors.InputError: if the pipeline.config or the checkpoint cannot be used.
    """
    precision = precision if precision is None else precision_lib.checked(precision)
    import tensorflow as tf

    from object_detection_ext import exporting, pipeline_overrides, registration

    registration.register()
    devices.announce(devices.INFERENCE)
    override = pipeline_overrides.combined(pipeline_config, config_override_paths, config_override)
    pipeline = _read_pipeline(pipeline_config, override, precision)
    contents = exporting.usable_checkpoint(pipeline, checkpoint, pipeline_config)
    input_type = exporting.CLIP_AND_BOXES if takes_boxes else exporting.CLIP_TENSOR
    description = exporting.describe(pipeline, input_type)
    module = exporting.restored_module(pipeline, contents, input_type)
    names = label_map or exporting.label_map_path(pipeline)
    if names is None:
        raise ModelError(
            f"{pipeline_config}: names no label map; give one: label_map, or --label_map on the "
            "command line."
        )
    return ClipModel(
        lambda *inputs: module.__call__(*map(tf.constant, inputs)),
        name=f"{pipeline_config} with {contents.prefix}",
        num_frames=description.num_frames,
        fps=_clip_rate(pipeline_config, fps or description.fps),
        frame_size=description.frame_size,
        short_side=description.short_side,
        label_map=label_maps.read_label_map(names),
        outputs=module.__call__.get_concrete_function().structured_outputs,
        takes_batches=True,
        takes_boxes=takes_boxes,
        max_boxes=description.max_boxes,
        features=getattr(module, "features", None),
        detect_in_features=getattr(module, "detect_in_features", None),
        precision=description.precision,
    )
