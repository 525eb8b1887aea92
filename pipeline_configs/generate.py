# SPDX-License-Identifier: Apache-2.0
"""Writes the pipeline.config of every model of the paper's tables, and the README's table of them.

    python pipeline_configs/generate.py

The models have nearly all of their text in common. It stands once, in `ava.config.in`; this file
has the table of what each model changes. Figures measured here come from `figures.json`, by model:

    parameters        value, the number of trainable ones; how
    multiply_adds     value, of one clip through the whole detector; how
    training_step     seconds, gib (peak memory); how
    evaluation_step   seconds, gib; how

`how` says where and with what a figure was measured. What is not measured yet is left out, and the
header says so.
"""

import argparse
import dataclasses
import json
import pathlib
import string
import sys
import textwrap
from collections.abc import Mapping, Sequence

FOLDER = pathlib.Path(__file__).resolve().parent
ROOT = FOLDER.parent
TEMPLATE = FOLDER / "ava.config.in"
FIGURES = FOLDER / "figures.json"
README = ROOT / "README.md"

TABLE_BEGIN = "<!-- paper table: begin -->"
TABLE_END = "<!-- paper table: end -->"

FIGURE_NAMES = ("parameters", "multiply_adds", "training_step", "evaluation_step")

# Columns of a config.
_WIDTH = 100

# As the converters write them.
I3D_CHECKPOINT = "MODELS/i3d_rgb_imagenet/ckpt"
R3D50_CHECKPOINT = "MODELS/r3d50_imagenet/ckpt"
_I3D_SOURCE = (
    "# Section 3.5: I3D pre-trained on Kinetics-400, converted as docs/pretrained.md says."
)
_R3D50_SOURCE = (
    "# ResNet-50 pre-trained on ImageNet, inflated as docs/pretrained.md says (paper: Kinetics)."
)

I3D_HEAD = """\
  # Section 3.3; it has no sizes of its own.
  i3d_head { }"""

_TX_FIELDS = """\
# Section 3.4: 2 heads, 3 layers, D = 128.
num_heads: 2
num_layers: 3
feature_size: 128
dropout_rate: 0.3
# Section 3.2.
query_preprocessor: {}"""

TX_LOWRES_HEAD = "  tx_head {\n" + textwrap.indent(_TX_FIELDS.format("LOW_RES"), " " * 4) + "\n  }"
TX_HIGHRES_HEAD = (
    "  tx_head {\n" + textwrap.indent(_TX_FIELDS.format("HIGH_RES"), " " * 4) + "\n  }"
)
TX_I3D_HEAD = (
    "  # Table 3, last row: the Tx head classifies, the I3D head regresses the box.\n"
    "  tx_i3d_head {\n    tx_head {\n"
    + textwrap.indent(_TX_FIELDS.format("HIGH_RES"), " " * 6)
    + "\n    }\n    i3d_head { }\n  }"
)


@dataclasses.dataclass(frozen=True)
class Row:
    """Where the paper prints a model, and what."""

    place: str  # such as "Table 1, row 1"
    val: float  # mAP on AVA v2.1 validation
    test: float | None = None  # mAP on the challenge server's test set


@dataclasses.dataclass(frozen=True)
class Model:
    """What a model has of its own; the defaults are those of the paper's main model."""

    name: str
    title: str
    rows: tuple[Row, ...]
    paper_parameters: float | None  # in millions, if the paper prints them
    head: str
    r: int = 300
    trunk_type: str = "faster_rcnn_i3d_keras"
    # None: from scratch, with trained batch-norm statistics.
    checkpoint: str | None = I3D_CHECKPOINT
    checkpoint_source: str = _I3D_SOURCE
    num_frames: int = 64
    num_steps: int = 500_000
    groundtruth_boxes: bool = False
    class_agnostic_boxes: bool = True
    augmentation: bool = True
    # Evaluates the checkpoints of the model of this name.
    trained_as: str | None = None
    notes: tuple[str, ...] = ()
    # Shell lines that stand below the notes.
    example: str = ""


_GT_I3D_NOTE = (
    "Ground-truth boxes take the place of the RPN's proposals in training and evaluation "
    "(section 4.2)."
)
_GT_TX_NOTE = (
    _GT_I3D_NOTE + " Training stops at 300000 steps of a schedule of 500000 (section 3.5)."
)
_R3D50_NOTE = (
    "The paper's trunk was pre-trained on Kinetics-400; this file starts from an inflated ImageNet "
    "ResNet-50, and its result may be lower."
)

MODELS = (
    Model(
        name="ava_i3d_i3d_r64",
        title="I3D trunk and I3D head, 64 proposals: the paper's baseline.",
        rows=(
            Row("Table 1, row 1", 21.3),
            Row("Table 3, row 1", 21.3),
            Row("Table 4, column 1", 21.3),
            Row("Table 6, row 1", 21.3),
        ),
        paper_parameters=16.2,
        head=I3D_HEAD,
        r=64,
    ),
    Model(
        name="ava_i3d_i3d_gt_r64",
        title="I3D trunk and I3D head on ground-truth boxes.",
        rows=(Row("Table 1, row 2", 23.4), Row("Table 6, row 2", 23.4)),
        paper_parameters=16.2,
        head=I3D_HEAD,
        r=64,
        groundtruth_boxes=True,
        notes=(_GT_I3D_NOTE,),
    ),
    Model(
        name="ava_i3d_tx_lowres_r64",
        title="I3D trunk and LowRes Tx head, 64 proposals.",
        rows=(Row("Table 1, row 3", 17.8),),
        paper_parameters=13.9,
        head=TX_LOWRES_HEAD,
        r=64,
    ),
    Model(
        name="ava_i3d_tx_highres_r64",
        title="I3D trunk and HighRes Tx head, 64 proposals.",
        rows=(Row("Table 1, row 4", 18.9), Row("Table 3, row 3", 18.9)),
        paper_parameters=19.3,
        head=TX_HIGHRES_HEAD,
        r=64,
    ),
    Model(
        name="ava_i3d_tx_lowres_gt_r64",
        title="I3D trunk and LowRes Tx head on ground-truth boxes.",
        rows=(
            Row("Table 1, row 5", 29.1),
            Row("Table 5, 3 layers and 2 heads", 28.5),
            Row("Table 6, row 3", 28.5),
        ),
        paper_parameters=13.9,
        head=TX_LOWRES_HEAD,
        r=64,
        num_steps=300_000,
        groundtruth_boxes=True,
        notes=(
            _GT_TX_NOTE,
            "The paper prints 29.1 and 28.5 for what reads as one model; it gives 0.45 as the "
            "standard deviation of three trainings.",
            "Table 5's grid, from 2, 3 and 6 layers and heads: add both numbers to the command, "
            "here 6 layers and 3 heads; to those of evaluation and export too.",
        ),
        example="""\
--config_override='[object_detection_ext.protos.video_action_transformer] {
  tx_head { num_layers: 6 num_heads: 3 } }'""",
    ),
    Model(
        name="ava_i3d_tx_highres_gt_r64",
        title="I3D trunk and HighRes Tx head on ground-truth boxes.",
        rows=(Row("Table 1, row 6", 27.6),),
        paper_parameters=19.3,
        head=TX_HIGHRES_HEAD,
        r=64,
        num_steps=300_000,
        groundtruth_boxes=True,
        notes=(_GT_TX_NOTE,),
    ),
    Model(
        name="ava_i3d_i3d_r300",
        title="I3D trunk and I3D head, 300 proposals.",
        rows=(Row("Table 3, row 2", 20.5),),
        paper_parameters=None,
        head=I3D_HEAD,
    ),
    Model(
        name="ava_i3d_tx_highres_r300",
        title="I3D trunk and HighRes Tx head, 300 proposals: the paper's main model.",
        rows=(Row("Table 3, row 4", 24.4), Row("Table 7, Tx-only head", 24.4, 24.30)),
        paper_parameters=None,
        head=TX_HIGHRES_HEAD,
    ),
    Model(
        name="ava_i3d_tx_i3d_highres_r300",
        title="I3D trunk; HighRes Tx head for actions and I3D head for boxes, 300 proposals.",
        rows=(Row("Table 3, row 5", 24.9), Row("Table 7, Tx+I3D head", 24.9, 24.60)),
        paper_parameters=None,
        head=TX_I3D_HEAD,
    ),
    Model(
        name="ava_i3d_tx_i3d_highres_r300_96f",
        title="Tx+I3D on 96 frames: evaluates a model that was trained on 64.",
        rows=(Row("Table 7, Tx+I3D+96f", 25.0, 24.93),),
        paper_parameters=None,
        head=TX_I3D_HEAD,
        num_frames=96,
        trained_as="ava_i3d_tx_i3d_highres_r300",
        notes=(
            "Its records need 96 frames around each keyframe: make them with --num_frames 96. (In "
            "those of 64 frames the edges would be repeated.)",
        ),
    ),
    Model(
        name="ava_i3d_i3d_r64_class_specific",
        title="The baseline with a box regression of each class's own.",
        rows=(Row("Table 4, column 2", 19.2),),
        paper_parameters=None,
        head=I3D_HEAD,
        r=64,
        class_agnostic_boxes=False,
    ),
    Model(
        name="ava_i3d_i3d_r64_no_augmentation",
        title="The baseline without flips and crops.",
        rows=(Row("Table 4, column 3", 16.6),),
        paper_parameters=None,
        head=I3D_HEAD,
        r=64,
        augmentation=False,
    ),
    Model(
        name="ava_i3d_i3d_r64_from_scratch",
        title="The baseline without pre-training.",
        rows=(Row("Table 4, column 4", 19.1),),
        paper_parameters=None,
        head=I3D_HEAD,
        r=64,
        checkpoint=None,
    ),
    Model(
        name="ava_r3d50_tx_lowres_gt_r64",
        title="R3D-50 trunk and LowRes Tx head on ground-truth boxes.",
        rows=(Row("Table 6, row 4", 26.6),),
        paper_parameters=17.7,
        head=TX_LOWRES_HEAD,
        r=64,
        trunk_type="faster_rcnn_r3d50_keras",
        checkpoint=R3D50_CHECKPOINT,
        checkpoint_source=_R3D50_SOURCE,
        num_steps=300_000,
        groundtruth_boxes=True,
        notes=(_GT_TX_NOTE, _R3D50_NOTE),
    ),
    Model(
        name="ava_r3d50_non_local_tx_lowres_gt_r64",
        title="R3D-50 trunk with 5 non-local blocks and LowRes Tx head on ground-truth boxes.",
        rows=(Row("Table 6, row 5", 27.2),),
        paper_parameters=25.1,
        head=TX_LOWRES_HEAD,
        r=64,
        trunk_type="faster_rcnn_r3d50_non_local_keras",
        checkpoint=R3D50_CHECKPOINT,
        checkpoint_source=_R3D50_SOURCE,
        num_steps=300_000,
        groundtruth_boxes=True,
        notes=(_GT_TX_NOTE, _R3D50_NOTE + " The non-local blocks start as identities."),
    ),
    Model(
        name="ava_s3dg_i3d_r64",
        title="S3D-G trunk and its own last layers as head, 64 proposals.",
        rows=(),
        paper_parameters=None,
        head=I3D_HEAD,
        r=64,
        trunk_type="faster_rcnn_s3dg_keras",
        checkpoint=None,
        notes=(
            "No row of the paper. S3D-G is the trunk of the compared ARCN (Table 7, row 3), whose "
            "relation network is not built here.",
            "It trains from scratch: no weights of its structure are known (docs/pretrained.md).",
        ),
    ),
)


def _block(text: str, indent: int) -> str:
    return textwrap.indent(text, " " * indent)


def _batch_norm(model: Model) -> str:
    if model.checkpoint is None:
        text = "# Section 3.5: without pre-training the statistics are trained too.\n"
        return _block(text + "batch_norm_trainable: true", 6)
    text = "# Section 3.5: running mean and variance stay those of the pre-trained trunk.\n"
    return _block(text + "batch_norm_trainable: false", 6)


def _boxes(model: Model) -> str:
    if model.class_agnostic_boxes:
        return _block("# Section 4.5: one box for all classes.\nshare_box_across_classes: true", 8)
    return _block("# Table 4: a box for each class.\nshare_box_across_classes: false", 8)


def _clip(model: Model) -> str:
    if model.num_frames == 64:
        return "  clip { num_frames: 64 fps: 25 }"
    return (
        "  # Table 7, last row; trained with 64.\n"
        f"  clip {{ num_frames: {model.num_frames} fps: 25 }}"
    )


def _num_steps(model: Model) -> str:
    text = ""
    if model.num_steps != 500_000:
        text = "# Section 3.5: stopped early; the schedule below is that of 500000 steps.\n"
    return _block(f"{text}num_steps: {model.num_steps}", 2)


def _pretrained(model: Model) -> str:
    if model.checkpoint is None:
        return ""
    text = (
        f"{model.checkpoint_source}\n"
        f"fine_tune_checkpoint: '{model.checkpoint}'\n"
        "fine_tune_checkpoint_type: 'classification'\n"
        "fine_tune_checkpoint_version: V2"
    )
    return _block(text, 2)


_AUGMENTATION = """\
  # Section 3.5: random flips and crops.
  data_augmentation_options { random_horizontal_flip { } }
  data_augmentation_options {
    random_crop_image {
      min_object_covered: 0.5
      min_aspect_ratio: 0.75
      max_aspect_ratio: 1.33
      min_area: 0.5
      max_area: 1.0
      overlap_thresh: 0.3
      random_coef: 0.3
    }
  }"""

_PROPOSALS = """\
  # Section 4.2: the people of the ground truth, at most R, are the proposals.
  proposals { source: GROUND_TRUTH }"""


def render_config(model: Model, figures: Mapping[str, Mapping]) -> str:
    """A model's pipeline.config.

    Args:
        model: one of `MODELS`.
        figures: of this model, see the module; may lack any.
    """
    fields = {
        "trunk_type": model.trunk_type,
        "batch_norm": _batch_norm(model),
        "r_source": "section 3.1" if model.r == 300 else "section 4.2",
        "r": str(model.r),
        "boxes": _boxes(model),
        "clip": _clip(model),
        "head": model.head,
        "proposals": _PROPOSALS if model.groundtruth_boxes else "",
        "num_steps": _num_steps(model),
        "pretrained": _pretrained(model),
        "augmentation": _AUGMENTATION if model.augmentation else "# No data augmentation.",
        "val_record": "val.record" if model.num_frames == 64 else f"val_{model.num_frames}f.record",
    }
    if not model.augmentation:
        fields["augmentation"] = _block(fields["augmentation"], 2)
    lines = []
    for line in TEMPLATE.read_text(encoding="utf-8").splitlines():
        text = string.Template(line).substitute(fields)
        # A placeholder that stands alone and is empty takes its line with it.
        if text or not line:
            lines.append(text)
    return render_header(model, figures) + "\n" + "\n".join(lines) + "\n"


def render_header(model: Model, figures: Mapping[str, Mapping]) -> str:
    """The comment at the head of a model's pipeline.config; ends with a line break."""
    parts = [
        model.title,
        _command(model),
        _usage(model),
        *(_wrap(note) for note in model.notes),
        textwrap.indent(model.example, "  "),
        _results(model),
        _measured(model, figures),
        "Written by pipeline_configs/generate.py: change ava.config.in or the table there.",
    ]
    text = "\n\n".join(part for part in parts if part)
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())


def _wrap(text: str) -> str:
    return textwrap.fill(text, _WIDTH - 2, break_long_words=False, break_on_hyphens=False)


def _command(model: Model) -> str:
    command = (
        "  python -m object_detection_ext.model_main_tf2 \\\n"
        f"    --pipeline_config_path=pipeline_configs/{model.name}.config"
    )
    folders = "--model_dir=DIR96 --checkpoint_dir=DIR" if model.trained_as else "--model_dir=DIR"
    last_line = f"{command.splitlines()[-1]} {folders}"
    # 2 columns are the comment's.
    separator = " \\\n    " if len(last_line) > _WIDTH - 2 else " "
    return f"{command}{separator}{folders}"


def _usage(model: Model) -> str:
    folders = "Replace DATA by your folder"
    if model.checkpoint:
        folders = "Replace DATA and MODELS by your folders"
    if model.trained_as:
        text = (
            f"evaluates the checkpoints in DIR, which {model.trained_as}.config has trained. "
            "(Training with this file would train on 96 frames, which the paper does not do.) "
        )
    else:
        text = "trains; with --checkpoint_dir=DIR added, it evaluates the checkpoints in DIR. "
    return _wrap(f"{text}{folders}, and run it where label_maps/ is.")


def _results(model: Model) -> str:
    if not model.rows:
        return ""
    lines = ["The paper's results, mAP on AVA v2.1 (not measured here):"]
    for row in model.rows:
        test = f", {row.test:.2f} test" if row.test is not None else ""
        lines.append(f"  {row.place}: {row.val:.1f} validation{test}")
    return "\n".join(lines)


def _measured(model: Model, figures: Mapping[str, Mapping]) -> str:
    lines = []
    if "parameters" in figures:
        paper = f" (the paper prints {model.paper_parameters})" if model.paper_parameters else ""
        lines.append(f"Parameters: {figures['parameters']['value'] / 1e6:.3f} M{paper}.")
    if "multiply_adds" in figures:
        figure = figures["multiply_adds"]
        text = f"FLOPs of a clip: {_giga(figure)} G multiply-adds, all counted ({figure['how']})."
        lines.append(_wrap(text))
    for name in ("training_step", "evaluation_step"):
        if name in figures:
            figure = figures[name]
            kind = name.replace("_", " ").capitalize()
            text = f"{kind}: {figure['seconds']} s, {figure['gib']} GiB ({figure['how']})."
            lines.append(_wrap(text))
    missing = [name.replace("_", " ") for name in FIGURE_NAMES if name not in figures]
    if missing:
        lines.append(f"Not measured yet: {', '.join(missing)}.")
    return "\n".join(lines)


def _giga(figure: Mapping) -> str:
    return f"{figure['value'] / 1e9:.1f}"


def render_table(figures: Mapping[str, Mapping[str, Mapping]]) -> str:
    """The README's table of the models, in Markdown, without a line break at its end."""
    lines = [
        "| rows of the paper | config | parameters, M (paper) | G multiply-adds of a clip "
        "| the paper's val mAP, not ours |",
        "|---|---|---|---|---|",
    ]
    for model in MODELS:
        own = figures.get(model.name, {})
        parameters = "not measured"
        if "parameters" in own:
            parameters = f"{own['parameters']['value'] / 1e6:.3f}"
        if model.paper_parameters:
            parameters += f" ({model.paper_parameters})"
        multiply_adds = _giga(own["multiply_adds"]) if "multiply_adds" in own else "not measured"
        cells = (
            "; ".join(row.place for row in model.rows) or "none",
            f"[{model.name}](pipeline_configs/{model.name}.config)",
            parameters,
            multiply_adds,
            _published(model.rows),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _published(rows: Sequence[Row]) -> str:
    values = list(dict.fromkeys(row.val for row in rows))
    return " and ".join(f"{value:.1f}" for value in values) or "none"


def with_table(readme: str, table: str) -> str | None:
    """A README with the table between its markers, or None if it has no markers."""
    before, begin, rest = readme.partition(TABLE_BEGIN)
    _, end, after = rest.partition(TABLE_END)
    if not end:
        return None
    return f"{before}{begin}\n{table}\n{end}{after}"


def read_figures() -> dict[str, dict[str, dict]]:
    """`figures.json`: by model, then by name.

    Raises:
        ValueError: for a model or a figure that does not exist.
    """
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    unknown = figures.keys() - {model.name for model in MODELS}
    if unknown:
        raise ValueError(f"{FIGURES.name}: there is no model {', '.join(sorted(unknown))}.")
    for name, own in figures.items():
        if own.keys() - set(FIGURE_NAMES):
            raise ValueError(
                f"{FIGURES.name}: {name} has {', '.join(sorted(own.keys() - set(FIGURE_NAMES)))}; "
                f"there are: {', '.join(FIGURE_NAMES)}."
            )
    return figures


def missing_figures(figures: Mapping[str, Mapping[str, Mapping]]) -> dict[str, list[str]]:
    """The figures that models lack, by model."""
    missing = {
        model.name: [name for name in FIGURE_NAMES if name not in figures.get(model.name, {})]
        for model in MODELS
    }
    return {model: names for model, names in missing.items() if names}


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the configs and the README's table; tells what is not measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--print_table", action="store_true", help="only print the README's table; write nothing"
    )
    arguments = parser.parse_args(argv)
    figures = read_figures()
    table = render_table(figures)
    if arguments.print_table:
        print(table)
        return 0
    for model in MODELS:
        path = FOLDER / f"{model.name}.config"
        path.write_text(render_config(model, figures.get(model.name, {})), encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    readme = with_table(README.read_text(encoding="utf-8"), table)
    if readme is None:
        print(f"{README.name} has no '{TABLE_BEGIN}' and '{TABLE_END}': its table is not written.")
    else:
        README.write_text(readme, encoding="utf-8")
        print(f"wrote the table of {README.name}")
    for name, names in missing_figures(figures).items():
        print(f"{name}: not measured: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
