# SPDX-License-Identifier: Apache-2.0
"""What a compiled training step asks of a pipeline: sizes that no value in the batch decides.

XLA compiles for fixed sizes. The stock Faster R-CNN has them when some of its fields are set, which
`compute { xla: true }` does: nobody has to know which. A field that says the opposite is an error.
"""

from collections.abc import Iterator

from object_detection.protos import faster_rcnn_pb2, pipeline_pb2

from object_detection_ext import options as options_lib

OPTION = "[object_detection_ext.protos.video_action_transformer].compute.xla"
_MODEL = "model.faster_rcnn"

# Fields of `model.faster_rcnn` that are set to true, and why. `use_matmul_gather_in_matcher` is not
# one of them: a gather compiles too, and a matrix product rounds boxes where it is computed in TF32
# or bfloat16.
FIELDS = {
    "use_static_shapes": "proposals and samples are padded to their greatest number",
    "use_static_balanced_label_sampler": "as many anchors and proposals are sampled in every step",
    "use_matmul_crop_and_resize": "XLA has no CropAndResize",
    "clip_anchors_to_image": (
        "anchors that reach beyond the image are clipped; removing them makes their number depend "
        "on the image"
    ),
}


def is_wanted(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> bool:
    """Whether the pipeline, with our options as its extension, asks for compiled steps."""
    return pipeline.Extensions[options_lib.EXTENSION].compute.xla


def faults(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> Iterator[str]:
    """What contradicts `compute { xla: true }`, one text each.

    Args:
        pipeline: of a video model, with our options as its extension.
    """
    if not is_wanted(pipeline):
        return
    model = pipeline.model.faster_rcnn
    for field, why in FIELDS.items():
        if model.HasField(field) and not getattr(model, field):
            yield f"{_MODEL}.{field}: false, but {OPTION} needs true: {why}. Take the field out."
    if model.HasField("hard_example_miner"):
        yield (
            f"{_MODEL}.hard_example_miner: the number of examples that it keeps depends on their "
            f"losses, which {OPTION} cannot compile. Take one of the two out."
        )
    training = pipeline.train_config
    if training.HasField("unpad_groundtruth_tensors") and training.unpad_groundtruth_tensors:
        yield (
            f"train_config.unpad_groundtruth_tensors: true, but {OPTION} needs the ground truth "
            "padded to train_input_reader.max_number_of_boxes. Take the field out."
        )
    yield from _resizer_faults(model)


def _resizer_faults(model: faster_rcnn_pb2.FasterRcnn) -> Iterator[str]:
    resizer = model.image_resizer
    kind = resizer.WhichOneof("image_resizer_oneof")
    if kind in (None, "fixed_shape_resizer"):
        return
    if (
        kind == "keep_aspect_ratio_resizer"
        and resizer.keep_aspect_ratio_resizer.pad_to_max_dimension
    ):
        return
    right = "fixed_shape_resizer"
    if kind == "keep_aspect_ratio_resizer":
        right += " or pad_to_max_dimension: true"
    yield (
        f"{_MODEL}.image_resizer.{kind}: frames of many sizes, and {OPTION} compiles for each size "
        f"separately, which takes minutes. Set {right}."
    )


def applied(config: faster_rcnn_pb2.FasterRcnn) -> tuple[faster_rcnn_pb2.FasterRcnn, list[str]]:
    """A model's config with the fields that compiled steps need.

    Args:
        config: is left as it is.

    Returns:
        The changed copy; and the names of the fields that were not set before.
    """
    names = [name for name in FIELDS if not getattr(config, name)]
    changed = type(config)()
    changed.CopyFrom(config)
    for name in names:
        setattr(changed, name, True)
    return changed, names
