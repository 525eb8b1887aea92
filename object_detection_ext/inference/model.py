# SPDX-License-Identifier: Apache-2.0
"""Loads a model that takes clips: a SavedModel, or a pipeline.config and a checkpoint.

Shapes: B clips, T frames, H W pixels.
"""

import os
from collections.abc import Sequence

from object_detection_ext import devices, errors, files, input_types, messages
from object_detection_ext import precision as precision_lib
from object_detection_ext.ava import label_maps
from object_detection_ext.inference import clip_model

_INPUT = input_types.INPUT
_BOXES = input_types.BOXES
_OUTPUTS = input_types.DETECTIONS
_DEFAULT_FPS = 25.0


class ModelError(errors.InputError):
    """A model that cannot be used; the message says why and what would be right."""


def load_saved_model(
    path: str,
    *,
    label_map: str | None = None,
    fps: float | None = None,
    num_frames: int | None = None,
    precision: str | None = None,
) -> clip_model.ClipModel:
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
    return clip_model.ClipModel(
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


def _pipelines_label_map(pipeline_config: str, path: str | None) -> dict[int, str]:
    if path is None:
        raise ModelError(
            f"{pipeline_config}: names no label map; give one: label_map, or --label_map on the "
            "command line."
        )
    return label_maps.read_label_map(path)


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
) -> clip_model.ClipModel:
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
    names = _pipelines_label_map(pipeline_config, label_map or exporting.label_map_path(pipeline))
    return clip_model.ClipModel(
        lambda *inputs: module.__call__(*map(tf.constant, inputs)),
        name=f"{pipeline_config} with {contents.prefix}",
        num_frames=description.num_frames,
        fps=_clip_rate(pipeline_config, fps or description.fps),
        frame_size=description.frame_size,
        short_side=description.short_side,
        label_map=names,
        outputs=module.__call__.get_concrete_function().structured_outputs,
        takes_batches=True,
        takes_boxes=takes_boxes,
        max_boxes=description.max_boxes,
        features=getattr(module, "features", None),
        detect_in_features=getattr(module, "detect_in_features", None),
        precision=description.precision,
    )
