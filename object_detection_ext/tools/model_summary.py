# SPDX-License-Identifier: Apache-2.0
r"""Prints the parameters and the FLOPs of a model, part by part.

    python -m object_detection_ext.tools.model_summary \
        --pipeline_config_path pipeline_configs/ava_i3d_tx_highres_r300.config --paper_profile

The model is built from its pipeline.config, at any number of frames, size and number of proposals,
but never run: no variable is made and no data is needed, so the largest clip costs as little as the
smallest.

Shapes: T frames, H W pixels, t h w cells of the feature map, C channels, R proposals of one clip.
"""

import dataclasses
import functools
import json
import math
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from object_detection_ext import compat  # isort: skip  # before any module of the stock API

import tensorflow as tf
from absl import app, flags
from object_detection.builders import model_builder
from object_detection.protos import pipeline_pb2
from object_detection.utils import config_util

from object_detection_ext import (
    builders,
    command_line,
    errors,
    flops,
    listing,
    pipeline_check,
    pipeline_overrides,
    registration,
)
from object_detection_ext import options as options_lib
from object_detection_ext.detection import video_meta_arch
from object_detection_ext.heads import combined_head, i3d_head, tx_head

assert compat.SHIMS

TRUNK, RPN, HEAD, FINAL = "trunk", "RPN", "head", "final layers"
PREPROCESSING, OTHER = "preprocessing", "other"
_SECTIONS = (PREPROCESSING, TRUNK, RPN, HEAD, FINAL, OTHER)

_RPN_PARTS = (
    ("RPNConv", "3x3 convolution"),
    ("BoxEncodingPredictor", "box encodings"),
    ("ClassPredictor", "objectness"),
)
_FINAL_PARTS = (
    ("mask_rcnn_class_head", "class logits"),
    ("mask_rcnn_box_head", "box encodings"),
)
_LOCATION, _QUERY = "Tx location embedding", "Tx query preprocessor"
_HEAD_PARTS = (
    (re.compile(r"/location_embedding"), _LOCATION),
    (re.compile(r"_query_preprocessor"), _QUERY),
    (re.compile(r"/layer_(\d+)_head_\d+/(query|key|value)/"), "Tx layer {} projections"),
    (re.compile(r"/layer_(\d+)_head_\d+/MatMul"), "Tx layer {} attention products"),
    (re.compile(r"/layer_(\d+)_head_\d+/ffn_"), "Tx layer {} FFN, layer norm"),
)

# The GFLOPs of Table 1, and with the 0.1 that section 4.4 adds for both heads, by the trunk, the
# head and the parameters in millions as Table 1 prints them (those of both heads are ours).
_PAPER_GFLOPS = {
    ("faster_rcnn_i3d_keras", i3d_head.I3DHead, "16.2"): ("Table 1", 6.5),
    ("faster_rcnn_i3d_keras", tx_head.TxHead, "13.9"): ("Table 1", 33.2),
    ("faster_rcnn_i3d_keras", tx_head.TxHead, "19.3"): ("Table 1", 39.6),
    ("faster_rcnn_i3d_keras", combined_head.TxI3DHead, "24.1"): ("Table 1 and section 4.4", 39.7),
}


@dataclasses.dataclass(frozen=True)
class Clip:
    """What one clip is: T frames of height x width pixels with R proposals."""

    num_frames: int
    height: int
    width: int
    proposals: int


# What the paper's numbers are for. Its Table 1 says R = 64, but only 300 gives the printed numbers.
PAPER_CLIP = Clip(num_frames=64, height=400, width=400, proposals=300)


@dataclasses.dataclass
class Part:
    """A row of the summary."""

    section: str
    name: str
    trainable_parameters: int = 0
    statistics: int = 0  # batch norm's means and variances
    multiply_adds: int = 0


@dataclasses.dataclass(frozen=True)
class TracedModel:
    """A model and the graph of its inference on one clip."""

    model: video_meta_arch.VideoActionTransformerMetaArch
    prediction: dict[str, Any]  # the model's, of symbolic tensors
    endpoints: tuple[str, ...]  # names of the trunk's stages, also of those behind its end

    @property
    def outputs(self) -> tuple[tf.Tensor, ...]:
        """All tensors of the prediction."""
        return tuple(v for v in tf.nest.flatten(self.prediction) if tf.is_tensor(v))

    @property
    def time_steps(self) -> int:
        """The feature map's size in time, t."""
        (feature_map,) = self.prediction["rpn_features_to_crop"]
        return feature_map.shape[1]

    @property
    def head(self) -> tf.keras.layers.Layer:
        """The action head."""
        return self.model._mask_rcnn_box_predictor.action_head


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the tool prints."""

    source: str
    clip: Clip
    parts: tuple[Part, ...]
    paper_profile: flops.PaperProfile | None
    paper_gflops: tuple[str, float] | None  # where the paper prints it, and what
    has_given_boxes: bool  # in place of the RPN's proposals

    def total(self, section: str | None = None) -> Part:
        """The sum over a section, or over everything."""
        parts = [part for part in self.parts if section in (None, part.section)]
        return Part(
            section=section or "total",
            name="",
            trainable_parameters=sum(part.trainable_parameters for part in parts),
            statistics=sum(part.statistics for part in parts),
            multiply_adds=sum(part.multiply_adds for part in parts),
        )


def read_pipeline(path: str, override: str | None = None) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Reads a pipeline.config without its data, whose files need not exist.

    Raises:
        errors.InputError: naming the file and the line or the field.
    """
    pipeline = registration.parse_pipeline(path, override)
    pipeline.ClearField("train_input_reader")
    pipeline.ClearField("eval_input_reader")
    if pipeline.HasExtension(options_lib.EXTENSION):
        # What is compiled is one operation in the graph, and counts the same.
        pipeline.Extensions[options_lib.EXTENSION].compute.ClearField("xla")
    pipeline_check.check(pipeline, path)
    if not pipeline_check.is_video_pipeline(pipeline):
        raise errors.InputError(
            f"{path}: not a model of clips. Its model.faster_rcnn.feature_extractor.type must be "
            f"one of: {', '.join(sorted(builders.TRUNKS))}."
        )
    return pipeline


def clip_of(pipeline: pipeline_pb2.TrainEvalPipelineConfig, source: str, **overrides) -> Clip:
    """The clip that a pipeline is for.

    Args:
        pipeline: see `read_pipeline`.
        source: its file, for messages.
        **overrides: values for `Clip`'s fields; None keeps the pipeline's.

    Raises:
        errors.InputError: a value is below 1, or the pipeline does not tell the size.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    for name, value in given.items():
        if value < 1:
            raise errors.InputError(f"--{name}: {value}; it must be at least 1.")
    values = {
        "num_frames": pipeline.Extensions[options_lib.EXTENSION].clip.num_frames,
        "proposals": pipeline.model.faster_rcnn.first_stage_max_proposals,
    }
    if not {"height", "width"} <= given.keys():
        values.update(_size_of(pipeline, source))
    clip = Clip(**{**values, **given})
    for name, value in dataclasses.asdict(clip).items():
        if value < 1:
            raise errors.InputError(f"{source}: {name} is {value}; it must be at least 1.")
    return clip


def _size_of(pipeline: pipeline_pb2.TrainEvalPipelineConfig, source: str) -> dict[str, int]:
    resizer = pipeline.model.faster_rcnn.image_resizer
    kind = resizer.WhichOneof("image_resizer_oneof")
    if kind == "fixed_shape_resizer":
        fixed = resizer.fixed_shape_resizer
        return {"height": fixed.height, "width": fixed.width}
    padded = resizer.keep_aspect_ratio_resizer
    if kind == "keep_aspect_ratio_resizer" and padded.pad_to_max_dimension:
        return {"height": padded.max_dimension, "width": padded.max_dimension}
    raise errors.InputError(
        f"{source}: the size of its clips depends on the video (image_resizer is "
        f"{kind or 'not set'}). Give --height and --width."
    )


def trace(pipeline: pipeline_pb2.TrainEvalPipelineConfig, clip: Clip) -> TracedModel:
    """Builds the graph of preprocessing and prediction for one clip, and runs nothing.

    Post-processing (sorting, non-maximum suppression) multiplies no matrices and is left out: its
    80 classes would take as long again.
    """
    registration.register()
    sized = pipeline_pb2.TrainEvalPipelineConfig()
    sized.CopyFrom(pipeline)
    sized.Extensions[options_lib.EXTENSION].clip.num_frames = clip.num_frames
    config = sized.model.faster_rcnn
    config.first_stage_max_proposals = clip.proposals
    config.image_resizer.fixed_shape_resizer.height = clip.height
    config.image_resizer.fixed_shape_resizer.width = clip.width
    # The model may not train on more proposals than it makes.
    config.second_stage_batch_size = min(config.second_stage_batch_size, clip.proposals)
    configs = config_util.create_configs_from_pipeline_proto(sized)
    # In a graph of TensorFlow 1's kind variables have shapes but no values.
    with tf.Graph().as_default():
        model = model_builder.build(configs["model"], is_training=False)
        shape = [1, clip.height, clip.width, 3 * clip.num_frames]
        images, true_shapes = model.preprocess(tf.compat.v1.placeholder(tf.float32, shape))
        side_inputs = {}
        if model.proposals_from_groundtruth:
            boxes = tf.compat.v1.placeholder(tf.float32, [1, clip.proposals, 4])
            side_inputs["proposal_boxes"] = boxes
        prediction = model.predict(images, true_shapes, **side_inputs)
    return TracedModel(
        model=model,
        prediction=prediction,
        endpoints=builders.TRUNKS[config.feature_extractor.type].endpoints,
    )


def summarize(
    path: str, config_override: str | None = None, *, with_paper_profile: bool = False, **overrides
) -> Summary:
    """The summary of a pipeline.config.

    Args:
        path: of the file.
        config_override: text proto that is merged into it.
        with_paper_profile: whether to count as Table 1 does, too.
        **overrides: see `clip_of`.

    Raises:
        errors.InputError: see `read_pipeline` and `clip_of`.
    """
    pipeline = read_pipeline(path, config_override)
    clip = clip_of(pipeline, path, **overrides)
    traced = trace(pipeline, clip)
    parts = count_parts(traced)
    profile = paper = None
    if with_paper_profile:
        profile = flops.paper_profile(
            traced.outputs,
            kernels=[v for v in traced.model.trainable_variables if v.shape.rank > 1],
            time_steps=traced.time_steps,
            section_of=lambda name: part_of(name, traced.endpoints)[0],
        )
        millions = sum(part.trainable_parameters for part in parts) / 1e6
        kind = pipeline.model.faster_rcnn.feature_extractor.type
        paper = _PAPER_GFLOPS.get((kind, type(traced.head), f"{millions:.1f}"))
    return Summary(path, clip, parts, profile, paper, traced.model.proposals_from_groundtruth)


def count_parts(traced: TracedModel) -> tuple[Part, ...]:
    """Parameters and multiply-adds of every part that has any, in the order of the computation."""
    parts: dict[tuple[str, str], Part] = {}

    def row(section: str, name: str) -> Part:
        return parts.setdefault((section, name), Part(section, name))

    for op in flops.count_multiply_adds(traced.outputs):
        row(*part_of(op.name, traced.endpoints)).multiply_adds += op.multiply_adds
    owned = set()
    for section, name, variables in _owned_variables(traced.model, traced.head):
        for variable in variables:
            owned.add(id(variable))
            _add_variable(row(section, name), variable)
    for variable in traced.model.variables:
        if id(variable) not in owned:
            _add_variable(row(OTHER, variable.name), variable)
    # Sorting keeps the order of parts inside their section.
    ordered = sorted(parts.values(), key=lambda part: _SECTIONS.index(part.section))
    return tuple(p for p in ordered if p.trainable_parameters or p.statistics or p.multiply_adds)


def _add_variable(part: Part, variable: tf.Variable) -> None:
    size = math.prod(variable.shape)
    if variable.trainable:
        part.trainable_parameters += size
    else:
        part.statistics += size


def part_of(op_name: str, endpoints: Sequence[str]) -> tuple[str, str]:
    """The section and the part of the model that an op belongs to, by its name scopes."""
    scopes = op_name.split("/")
    stage = next((scope for scope in scopes if scope in endpoints), None)
    if scopes[0] == "Preprocessor":
        return PREPROCESSING, OTHER
    if scopes[0] == "FirstStageFeatureExtractor":
        return TRUNK, stage or OTHER
    if scopes[0] in ("FirstStageRPNFeatures", "FirstStageBoxPredictor"):
        return RPN, next((name for scope, name in _RPN_PARTS if scope in scopes), OTHER)
    if scopes[0] != "ActionBoxPredictor":
        return OTHER, scopes[0]
    for scope, name in _FINAL_PARTS:
        if any(re.fullmatch(rf"{scope}(_\d+)?", candidate) for candidate in scopes):
            return FINAL, name
    for pattern, name in _HEAD_PARTS:
        match = pattern.search(op_name)
        if match:
            return HEAD, name.format(*(int(layer) + 1 for layer in match.groups()[:1]))
    return HEAD, f"I3D {stage}" if stage else OTHER


def _owned_variables(
    model: video_meta_arch.VideoActionTransformerMetaArch, head: tf.keras.layers.Layer
) -> Iterator[tuple[str, str, Sequence[tf.Variable]]]:
    """Every part's section, name and variables; a part may come several times."""
    trunk = model._feature_extractor_for_proposal_features.trunk
    for path, variable in trunk.variables_by_path().items():
        yield TRUNK, path.partition("/")[0], [variable]
    yield RPN, "3x3 convolution", model._first_stage_box_predictor_first_conv.variables
    for variable in model._first_stage_box_predictor.variables:
        scopes = variable.name.split("/")
        yield RPN, next((name for scope, name in _RPN_PARTS if scope in scopes), OTHER), [variable]
    predictor = model._mask_rcnn_box_predictor
    yield FINAL, "class logits", predictor._class_head.variables
    yield FINAL, "box encodings", predictor._box_head.variables
    heads = [head]
    if isinstance(head, combined_head.TxI3DHead):
        heads = [head.tx_head, head.i3d_head]
    for part in heads:
        if isinstance(part, tx_head.TxHead):
            yield from _tx_variables(part)
        elif isinstance(part, i3d_head.I3DHead):
            for path, variable in part.tail.variables_by_path().items():
                yield HEAD, f"I3D {path.partition('/')[0]}", [variable]


def _tx_variables(head: tx_head.TxHead) -> Iterator[tuple[str, str, Sequence[tf.Variable]]]:
    if head.location_embedding is not None:
        yield HEAD, _LOCATION, head.location_embedding.variables
    yield HEAD, _QUERY, head.query_preprocessor.variables
    for number, units in enumerate(head.units, start=1):
        for unit in units:
            for layer in (unit.query_projection, unit.key_projection, unit.value_projection):
                yield HEAD, f"Tx layer {number} projections", layer.variables
            for layer in (unit.ffn_hidden, unit.ffn_output, unit.attention_norm, unit.ffn_norm):
                yield HEAD, f"Tx layer {number} FFN, layer norm", layer.variables


_WIDTH = 34


def to_text(summary: Summary) -> str:
    """The summary for people."""
    clip = summary.clip
    columns = ("parameters", "statistics", "GMACs", "GFLOPs")
    lines = [
        summary.source,
        f"One clip: {listing.counted(clip.num_frames, 'frame')} of {clip.height} x {clip.width} "
        f"pixels, "
        f"{clip.proposals} proposals.",
        "",
        " " * _WIDTH + "".join(f"{column:>14}" for column in columns),
    ]
    for section in _SECTIONS:
        parts = [part for part in summary.parts if part.section == section]
        if parts:
            lines.append(_row(section, summary.total(section)))
            lines.extend(_row(f"  {part.name}", part) for part in parts)
    lines += [
        _row("total", summary.total()),
        "",
        "parameters: trainable ones. statistics: batch norm's means and variances.",
        "GMACs: 10^9 multiply-adds of all convolutions, matrix and attention products.",
        "GFLOPs: 2 per multiply-add. Biases, pooling, softmax, normalization and non-maximum",
        "suppression are not in either.",
    ]
    if summary.has_given_boxes:
        lines += [
            "The boxes are given; the RPN is counted all the same, as training and evaluation need",
            "it for its losses. An exported model leaves it out.",
        ]
    if summary.paper_profile is not None:
        lines += ["", *_paper_lines(summary)]
    return "\n".join(lines)


def _row(name: str, part: Part) -> str:
    return (
        f"{name:<{_WIDTH}}{part.trainable_parameters:>14,}{part.statistics:>14,}"
        f"{part.multiply_adds / 1e9:>14.3f}{2 * part.multiply_adds / 1e9:>14.3f}"
    )


def _paper_lines(summary: Summary) -> Iterator[str]:
    profile = summary.paper_profile
    yield "The paper's way of counting (TensorFlow's profiler of 2018), in GFLOPs:"
    small = [term for term in profile.counted if term.flops < 5e5]
    for term in profile.counted:
        if term not in small:
            yield f"  {term.name:<48}{term.flops / 1e9:>10.4f}"
    yield f"  {f'{len(small)} terms below 0.0005':<48}{sum(t.flops for t in small) / 1e9:>10.4f}"
    yield "Where the paper's graph differs from this one:"
    for term in profile.corrections:
        yield f"  {term.name:<48}{term.flops / 1e9:>10.4f}"
        yield from textwrap.wrap(term.reason, 95, initial_indent=" " * 4, subsequent_indent=" " * 4)
    true = 2 * summary.total().multiply_adds / 1e9
    own = profile.flops / 1e9
    yield f"As the paper counts: {own:.1f} GFLOPs ({own:.4f}). True: {true:.1f} GFLOPs."
    yield from _comparison(summary)
    yield "The paper's number leaves out, as the profiler did not know these kinds of ops:"
    for term in profile.left_out:
        yield f"  {term.name:<48}{term.flops / 1e9:>10.4f}"
    yield "  and the MaxPool3D ops."


def _comparison(summary: Summary) -> Iterator[str]:
    if summary.paper_gflops is None:
        yield "The paper prints no number for this model."
        return
    place, gflops = summary.paper_gflops
    yield f"The paper: {gflops} GFLOPs ({place}), which is at {_describe(PAPER_CLIP)}."
    if summary.clip != PAPER_CLIP:
        yield (
            "This is another clip; to compare: --num_frames 64 --size 400 --proposals 300. "
            "(Table 1 says R = 64, but its numbers are those of R = 300.)"
        )


def _describe(clip: Clip) -> str:
    return f"T = {clip.num_frames}, {clip.height} x {clip.width} pixels, R = {clip.proposals}"


def to_json(summary: Summary) -> str:
    """The summary for machines: numbers of parameters, multiply-adds and FLOPs, not rounded."""

    def numbers(part: Part) -> dict[str, int]:
        return {
            "trainable_parameters": part.trainable_parameters,
            "batch_norm_statistics": part.statistics,
            "multiply_adds": part.multiply_adds,
            "flops": 2 * part.multiply_adds,
        }

    result = {
        "pipeline_config": summary.source,
        "clip": dataclasses.asdict(summary.clip),
        "total": numbers(summary.total()),
        "sections": {
            section: numbers(summary.total(section))
            for section in _SECTIONS
            if any(part.section == section for part in summary.parts)
        },
        "parts": [
            {"section": part.section, "part": part.name, **numbers(part)} for part in summary.parts
        ],
    }
    if summary.paper_profile is not None:
        result["paper_profile"] = {
            "flops": summary.paper_profile.flops,
            **dataclasses.asdict(summary.paper_profile),
            "paper_prints_gflops": summary.paper_gflops and summary.paper_gflops[1],
            "paper_prints_it_in": summary.paper_gflops and summary.paper_gflops[0],
            "paper_clip": dataclasses.asdict(PAPER_CLIP),
        }
    return json.dumps(result, indent=2)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the tool's options."""
    integer = functools.partial(flags.DEFINE_integer, default=None, flag_values=values)
    boolean = functools.partial(flags.DEFINE_bool, default=False, flag_values=values)
    flags.DEFINE_string(
        "pipeline_config_path", None, "The pipeline.config.", required=True, flag_values=values
    )
    flags.DEFINE_string(
        "config_override",
        None,
        "Text proto that is merged into the pipeline.config.",
        flag_values=values,
    )
    pipeline_overrides.define_flag(values)
    integer("num_frames", help="T, frames of the clip; default: clip.num_frames.")
    integer("height", help="Pixels; default: image_resizer.")
    integer("width", help="Pixels; default: image_resizer.")
    integer("size", help="Pixels; --height and --width at once.")
    integer("proposals", help="R, proposals of the clip; default: first_stage_max_proposals.")
    boolean("json", help="Print JSON.")
    boolean("paper_profile", help="Also count as the paper's Table 1 does, term by term.")


def _overrides(values: flags.FlagValues) -> dict[str, int | None]:
    sizes = {name: values[name].value for name in ("height", "width")}
    if values.size is not None:
        for name, size in sizes.items():
            if size is not None:
                raise errors.InputError(f"--size says --{name} already; give one of them.")
        if values.size < 1:
            raise errors.InputError(f"--size: {values.size}; it must be at least 1.")
        sizes = dict.fromkeys(sizes, values.size)
    return {"num_frames": values.num_frames, "proposals": values.proposals, **sizes}


def main(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}")
    tf.get_logger().setLevel("ERROR")
    with command_line.ending(flops.UncountableError):
        overrides = _overrides(values)
        path = values.pipeline_config_path
        override = pipeline_overrides.combined(
            path, values.config_override_path, values.config_override
        )
        print(f"Building the graph of {path} ...", file=sys.stderr, flush=True)
        summary = summarize(path, override, with_paper_profile=values.paper_profile, **overrides)
        print(to_json(summary) if values.json else to_text(summary))


if __name__ == "__main__":
    define_flags(flags.FLAGS)
    app.run(main)
