# SPDX-License-Identifier: Apache-2.0
"""The summary against formulas from the published tables, and against the paper's numbers.

Shapes: T frames, t h w cells of the feature map, R proposals, D query size.
"""

import functools
import json
import math
import pathlib

import pytest
from absl import flags

from object_detection_ext import errors, flops, registration
from object_detection_ext import options as options_lib
from object_detection_ext.tools import model_summary as tool

# isort: split
import tensorflow as tf

from tests import tiny_pipeline

CONFIGS = pathlib.Path(__file__).resolve().parent.parent.parent / "pipeline_configs"

# At 64 x 400 x 400: cells of each resolution, as the strides of the I3D paper's figure 3 have it.
CELLS_1, CELLS_2, CELLS_3, CELLS_4 = 32 * 200**2, 32 * 100**2, 32 * 50**2, 16 * 25**2
MEMORY, R, D, L = CELLS_4, 300, 128, 848
# Cells of all tubes: 16 x 7 x 7, halved by MaxPool3d_5a_2x2.
TUBE_CELLS = R * 8 * 4 * 4
RPN = 25 * 25 * (9 * 832 * 512 + 512 * 12 * (2 + 4))


def mixed(cells, in_channels, b0, b1, b2, b3):
    """Multiply-adds of an Inception block, its branches as the I3D paper lists them."""
    return cells * (
        in_channels * b0
        + in_channels * b1[0]
        + 27 * b1[0] * b1[1]
        + in_channels * b2[0]
        + 27 * b2[0] * b2[1]
        + in_channels * b3
    )


I3D_TRUNK = {
    "Conv3d_1a_7x7": CELLS_1 * 7**3 * 3 * 64,
    "Conv3d_2b_1x1": CELLS_2 * 64 * 64,
    "Conv3d_2c_3x3": CELLS_2 * 27 * 64 * 192,
    "Mixed_3b": mixed(CELLS_3, 192, 64, (96, 128), (16, 32), 32),
    "Mixed_3c": mixed(CELLS_3, 256, 128, (128, 192), (32, 96), 64),
    "Mixed_4b": mixed(CELLS_4, 480, 192, (96, 208), (16, 48), 64),
    "Mixed_4c": mixed(CELLS_4, 512, 160, (112, 224), (24, 64), 64),
    "Mixed_4d": mixed(CELLS_4, 512, 128, (128, 256), (24, 64), 64),
    "Mixed_4e": mixed(CELLS_4, 512, 112, (144, 288), (32, 64), 64),
    "Mixed_4f": mixed(CELLS_4, 528, 256, (160, 320), (32, 128), 128),
}
I3D_TAIL = {
    "I3D Mixed_5b": mixed(TUBE_CELLS, 832, 256, (160, 320), (32, 128), 128),
    "I3D Mixed_5c": mixed(TUBE_CELLS, 832, 384, (192, 384), (48, 128), 128),
}
LOCATION = 25 * 25 * (2 * 8 + 8 * 8) + 16 * (1 * 8 + 8 * 8)
HIGHRES_QUERY = R * 49 * L * 128 + R * 49 * 128 * L


def tx_layers():
    """The parts of the paper's Tx head, 2 heads by 3 layers."""
    parts = {}
    for layer, query_channels in ((1, L), (2, 2 * D), (3, 2 * D)):
        key_and_value = 2 * MEMORY * L * D
        parts[f"Tx layer {layer} projections"] = 2 * (key_and_value + R * query_channels * D)
        parts[f"Tx layer {layer} attention products"] = 2 * (2 * R * MEMORY * D)
        parts[f"Tx layer {layer} FFN, layer norm"] = 2 * (2 * R * D * 4 * D)
    return parts


@pytest.fixture(scope="module")
def paper():
    """The summaries of Table 1's models, by parameters; made once."""
    configs = {
        "i3d": "ava_i3d_i3d_r300",
        "lowres": "ava_i3d_tx_lowres_r64",
        "highres": "ava_i3d_tx_highres_r300",
    }
    return {
        name: tool.summarize(
            str(CONFIGS / f"{config}.config"), with_paper_profile=True, proposals=R
        )
        for name, config in configs.items()
    }


def multiply_adds(summary, section):
    return {p.name: p.multiply_adds for p in summary.parts if p.section == section}


def test_trunk_by_stage(paper):
    for summary in paper.values():
        assert multiply_adds(summary, tool.TRUNK) == I3D_TRUNK
    assert math.isclose(sum(I3D_TRUNK.values()), 348e9, rel_tol=2e-3)


def test_rpn(paper):
    for summary in paper.values():
        assert summary.total(tool.RPN).multiply_adds == RPN


def test_i3d_head_and_final_layers(paper):
    assert multiply_adds(paper["i3d"], tool.HEAD) == I3D_TAIL
    final = {"class logits": R * 1024 * 81, "box encodings": R * 1024 * 4}
    assert multiply_adds(paper["i3d"], tool.FINAL) == final


def test_tx_heads_and_final_layers(paper):
    lowres = {"Tx location embedding": LOCATION, **tx_layers()}
    assert multiply_adds(paper["lowres"], tool.HEAD) == lowres
    highres = {**lowres, "Tx query preprocessor": HIGHRES_QUERY}
    assert multiply_adds(paper["highres"], tool.HEAD) == highres
    for name in ("lowres", "highres"):
        final = {"class logits": R * 256 * 81, "box encodings": R * 256 * 4}
        assert multiply_adds(paper[name], tool.FINAL) == final


def test_total_is_the_sum_and_nothing_lies_elsewhere(paper):
    for summary in paper.values():
        sections = (tool.TRUNK, tool.RPN, tool.HEAD, tool.FINAL)
        assert {part.section for part in summary.parts} == set(sections)
        total = sum(summary.total(section).multiply_adds for section in sections)
        assert summary.total().multiply_adds == total
    assert paper["i3d"].total().multiply_adds == (
        sum(I3D_TRUNK.values()) + RPN + sum(I3D_TAIL.values()) + R * 1024 * 85
    )


def test_parameters(paper):
    millions = {name: s.total().trainable_parameters / 1e6 for name, s in paper.items()}
    assert {name: f"{value:.3f}" for name, value in millions.items()} == {
        "i3d": "16.238",
        "lowres": "13.863",
        "highres": "19.291",
    }
    trunk = paper["i3d"].total(tool.TRUNK)
    # A mean and a variance for each beta; no gamma.
    channels = sum(
        (64, 64, 192)
        + (64 + 96 + 128 + 16 + 32 + 32, 128 + 128 + 192 + 32 + 96 + 64)
        + (192 + 96 + 208 + 16 + 48 + 64, 160 + 112 + 224 + 24 + 64 + 64)
        + (128 + 128 + 256 + 24 + 64 + 64, 112 + 144 + 288 + 32 + 64 + 64)
        + (256 + 160 + 320 + 32 + 128 + 128,)
    )
    assert trunk.statistics == 2 * channels
    assert trunk.trainable_parameters == channels + sum(
        macs // cells
        for macs, cells in zip(
            I3D_TRUNK.values(), [CELLS_1] + [CELLS_2] * 2 + [CELLS_3] * 2 + [CELLS_4] * 5,
            strict=True,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "printed"), [("i3d", "6.5"), ("lowres", "33.2"), ("highres", "39.6")]
)
def test_paper_profile_gives_the_printed_number(paper, name, printed):
    summary = paper[name]
    assert f"{summary.paper_profile.flops / 1e9:.1f}" == printed
    assert summary.paper_gflops == ("Table 1", float(printed))


def test_paper_profile_terms_of_the_i3d_head(paper):
    profile = paper["i3d"].paper_profile
    counted = {term.name: term.flops for term in profile.counted}
    assert counted["Conv2D, RPN"] == 2 * RPN
    assert counted["MaxPool, head"] == 4 * R * 16 * 49 * 832
    assert counted["MatMul, final layers"] == 2 * R * 1024 * 85
    assert counted["Mul, preprocessing"] == counted["Sub, preprocessing"] == 64 * 400 * 400 * 3
    corrections = {term.name: term.flops for term in profile.corrections}
    assert corrections["RoI max pool of the whole tube"] == 0
    assert corrections["I3D's average as AvgPool3D"] == -R * 8 * 4 * 4 * 1024
    # All biases and the Mul of batch norm: 2 for each activation of trunk and head.
    normalized = counted["BiasAdd, trunk"] + counted["BiasAdd, head"]
    kernels = counted["Mul, trunk"] + counted["Mul, head"]
    assert corrections["batch norm as a Mul and an Add"] == pytest.approx(
        normalized - kernels, rel=1e-3
    )
    conv3d = sum(I3D_TRUNK.values()) + sum(I3D_TAIL.values())
    assert sum(term.flops for term in profile.left_out) == 2 * conv3d


def test_paper_profile_terms_of_a_tx_head(paper):
    profile = paper["lowres"].paper_profile
    counted = {term.name: term.flops for term in profile.counted}
    assert counted["Softmax, head"] == 5 * 6 * R * MEMORY
    projections_and_ffn = LOCATION + sum(
        macs for name, macs in tx_layers().items() if "attention" not in name
    )
    assert counted["MatMul, head"] == 2 * projections_and_ffn
    corrections = {term.name: term.flops for term in profile.corrections}
    assert corrections["RoI max pool of the whole tube"] == 15 * 4 * R * 49 * L
    left_out = {term.name: term.flops for term in profile.left_out}
    assert left_out["BatchMatMulV2, head"] == 2 * 6 * 2 * R * MEMORY * D


def write_tiny(folder, override=tiny_pipeline.SHORT_TRUNK):
    # A summary needs no data: the label map does not exist.
    path = folder / "pipeline.config"
    return str(
        tiny_pipeline.write_pipeline(
            path, override, label_map="DATA/no_such.pbtxt", train="DATA/none"
        )
    )


def summarize_tiny(tmp_path, **sizes):
    return tool.summarize(write_tiny(tmp_path), **sizes)


def test_heads_grow_with_proposals_and_trunk_with_frames(tmp_path):
    few = summarize_tiny(tmp_path, num_frames=8, proposals=10)
    many = summarize_tiny(tmp_path, num_frames=8, proposals=20)
    long = summarize_tiny(tmp_path, num_frames=16, proposals=10)
    assert many.total(tool.FINAL).multiply_adds == 2 * few.total(tool.FINAL).multiply_adds
    for section in (tool.TRUNK, tool.RPN):
        assert many.total(section) == few.total(section)
    assert long.total(tool.TRUNK).multiply_adds == 2 * few.total(tool.TRUNK).multiply_adds
    assert long.total(tool.RPN) == few.total(tool.RPN)
    attention = "Tx layer 1 attention products"
    one, more_people, more_cells = (
        multiply_adds(summary, tool.HEAD)[attention] for summary in (few, many, long)
    )
    assert one == 2 * 2 * 10 * (4 * 8 * 8) * 16  # heads, products, R, cells, D
    assert more_people == more_cells == 2 * one
    # Parameters do not know the clip.
    assert many.total().trainable_parameters == long.total().trainable_parameters


def test_size_is_the_given_one(tmp_path):
    summary = summarize_tiny(tmp_path, height=32, width=96)
    assert (summary.clip.height, summary.clip.width) == (32, 96)
    first = multiply_adds(summary, tool.TRUNK)["Conv3d_1a_7x7"]
    assert first == 2 * 16 * 48 * 7**3 * 3 * 8  # 8 channels at the least


@pytest.fixture(scope="module")
def both_heads(tmp_path_factory):
    """Both heads on given boxes, by the trunk; made once."""
    head = """[object_detection_ext.protos.video_action_transformer] {
      tx_i3d_head { tx_head { num_layers: 1 feature_size: 16 } }
      proposals { source: GROUND_TRUTH }
    }"""

    @functools.cache
    def summary(kind: str):
        trunk = f"feature_extractor {{ type: 'faster_rcnn_{kind}_keras' }}"
        override = f"model {{ faster_rcnn {{ {trunk} }} }}\n{head}"
        path = write_tiny(tmp_path_factory.mktemp(kind), override)
        return tool.summarize(path, with_paper_profile=kind == "i3d")

    return summary


@pytest.mark.parametrize(
    "kind",
    [
        "i3d",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in ("s3dg", "r3d50", "r3d50_non_local")
        ),
    ],
)
def test_every_trunk_with_both_heads(both_heads, kind):
    summary = both_heads(kind)
    names = {(part.section, part.name) for part in summary.parts}
    assert not [name for name in names if tool.OTHER in name]
    assert {name for section, name in names if section == tool.HEAD} >= {
        "Tx layer 1 attention products",
        "I3D res5" if kind.startswith("r3d50") else "I3D Mixed_5c",
    }
    for part in summary.parts:
        assert part.multiply_adds > 0
        assert part.trainable_parameters > 0 or "attention" in part.name
    assert summary.paper_gflops is None


def test_given_boxes_are_told(both_heads, paper):
    assert "The boxes are given" in tool.to_text(both_heads("i3d"))
    assert "The boxes are given" not in tool.to_text(paper["i3d"])


def test_both_heads_pool_one_tube_in_the_paper(both_heads):
    """A tube of 832 and a frame of 848 channels here; there a tube of 848 for both."""
    profile = both_heads("i3d").paper_profile
    trunk_channels = 25 + 32 + 12 + 12  # Mixed_4f's branches, a tenth of the paper's
    one_frame = 4 * 6 * 49
    counted = {term.name: term.flops for term in profile.counted}
    corrections = {term.name: term.flops for term in profile.corrections}
    # At 4 frames, t is 1.
    assert counted["MaxPool, head"] == one_frame * (2 * trunk_channels + 16)
    assert corrections["RoI max pool of the whole tube"] == -one_frame * trunk_channels


def test_non_local_blocks_attend(both_heads):
    plain, attending = (
        multiply_adds(both_heads(kind), tool.TRUNK)["res4"] for kind in ("r3d50", "r3d50_non_local")
    )
    # 3 blocks on 1 x 4 x 4 cells of 102 channels, 51 inside: theta and out on all cells, phi and g
    # and the other side of attention on 2 x 2.
    cells, fewer, channels, inner = 16, 4, 102, 51
    block = 2 * channels * inner * (cells + fewer) + 2 * cells * fewer * inner
    assert attending - plain == 3 * block


@pytest.mark.slow
def test_traced_parts_are_those_of_the_served_graph(tmp_path):
    """The same model as a tf.function with post-processing, as the exporter has it."""
    # One class: each takes its time in non-maximum suppression.
    short = tiny_pipeline.SHORT_TRUNK + "model { faster_rcnn { num_classes: 1 } }"
    pipeline = tiny_pipeline.make_pipeline(short)
    registration.register()
    model = tiny_pipeline.build_model(pipeline, is_training=False)

    @tf.function
    def detect(images):
        images, shapes = model.preprocess(images)
        return model.postprocess(model.predict(images, shapes), shapes)

    graph = detect.get_concrete_function(tf.TensorSpec([1, 64, 64, 12], tf.float32)).graph
    served = sum(op.multiply_adds for op in flops.count_multiply_adds(graph.outputs))
    summary = tool.summarize(write_tiny(tmp_path, short))
    # Post-processing adds nothing, and leaves nothing unneeded.
    assert summary.total().multiply_adds == served
    own = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    assert summary.total().trainable_parameters == own
    statistics = sum(math.prod(variable.shape) for variable in model.non_trainable_variables)
    assert summary.total().statistics == statistics > 0


def test_detections_on_given_boxes_do_not_need_the_rpn(tmp_path):
    """So an exported model leaves it out, as the summary says."""
    given = "model { faster_rcnn { num_classes: 1 } }" + (
        "[object_detection_ext.protos.video_action_transformer] "
        "{ proposals { source: GROUND_TRUTH } }"
    )
    pipeline = tool.read_pipeline(write_tiny(tmp_path, tiny_pipeline.SHORT_TRUNK + given))
    clip = tool.clip_of(pipeline, "tiny")
    traced = tool.trace(pipeline, clip)
    shapes = [[clip.height, clip.width, 3]]
    with traced.outputs[0].graph.as_default():
        detections = traced.model.postprocess(traced.prediction, tf.constant(shapes))

    def sections(outputs):
        return {
            tool.part_of(op.name, traced.endpoints)[0]
            for op in flops.count_multiply_adds(tf.nest.flatten(outputs))
        }

    assert sections(list(traced.outputs)) - sections(detections) == {tool.RPN}


def run_main(capsys, *arguments):
    values = flags.FlagValues()
    tool.define_flags(values)
    values(["model_summary", *arguments])
    tool.main(["model_summary"], values)
    return capsys.readouterr().out


@pytest.fixture
def tiny_path(tmp_path):
    return write_tiny(tmp_path)


def test_json_holds_what_the_table_prints(capsys, tiny_path):
    path = f"--pipeline_config_path={tiny_path}"
    sizes = ["--num_frames=8", "--size=48", "--proposals=9", "--paper_profile"]
    report = json.loads(run_main(capsys, path, "--json", *sizes))
    text = run_main(capsys, path, *sizes)
    assert report["clip"] == {"num_frames": 8, "height": 48, "width": 48, "proposals": 9}
    assert report["total"]["flops"] == 2 * report["total"]["multiply_adds"]
    assert report["total"]["multiply_adds"] == sum(p["multiply_adds"] for p in report["parts"])
    assert "8 frames of 48 x 48 pixels, 9 proposals" in text
    rows = {line.split("  ")[0]: line for line in text.splitlines() if line}
    for section, numbers in {**report["sections"], "total": report["total"]}.items():
        assert f" {numbers['trainable_parameters']:,} " in rows[section]
        assert rows[section].endswith(f"{numbers['flops'] / 1e9:.3f}")
    profile = report["paper_profile"]
    terms = profile["counted"] + profile["corrections"]
    assert profile["flops"] == sum(term["flops"] for term in terms)
    assert "The paper prints no number for this model." in text
    assert "Conv3D, trunk" in text.partition("leaves out")[2]


def test_text_compares_with_the_paper(paper):
    text = tool.to_text(paper["highres"])
    assert "As the paper counts: 39.6 GFLOPs" in text
    assert "True: 744.2 GFLOPs" in text
    assert "The paper: 39.6 GFLOPs (Table 1), which is at T = 64, 400 x 400 pixels" in text
    assert "another clip" not in text
    clip = tool.Clip(num_frames=64, height=400, width=400, proposals=64)
    smaller = tool.Summary(**{**vars(paper["highres"]), "clip": clip})
    assert "This is another clip" in tool.to_text(smaller)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--proposals=0"], "--proposals: 0; it must be at least 1."),
        (["--num_frames=-3"], "--num_frames: -3; it must be at least 1."),
        (["--size=0"], "--size: 0; it must be at least 1."),
        (["--size=32", "--width=32"], "--size says --width already"),
    ],
)
def test_bad_flags(capsys, tiny_path, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        run_main(capsys, f"--pipeline_config_path={tiny_path}", *arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert f"error: {message}" in error


def test_bad_files(tmp_path, capsys):
    path = tmp_path / "pipeline.config"
    with pytest.raises(SystemExit) as exit_:
        run_main(capsys, f"--pipeline_config_path={path}")
    assert exit_.value.code == 2
    assert f"error: There is no pipeline.config at '{path}'" in capsys.readouterr().err
    path.write_text("model {\n  faster_rcnn { num_clases: 3 }\n}")
    with pytest.raises(errors.InputError, match=r"pipeline.config:2:.*num_clases"):
        tool.read_pipeline(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(errors.InputError, match="not a readable text file"):
        tool.read_pipeline(str(path))
    path.write_text("model { ssd { num_classes: 3 } }")
    with pytest.raises(errors.InputError, match="not a model of clips.*faster_rcnn_i3d_keras"):
        tool.read_pipeline(str(path))
    tiny_pipeline.write_pipeline(
        path, "[object_detection_ext.protos.video_action_transformer] { tx_head { num_heads: 0 } }"
    )
    with pytest.raises(errors.InputError, match="num_heads: 0; it must be at least 1"):
        tool.read_pipeline(str(path))


def test_compiled_models_are_counted_as_others(tmp_path):
    """What is compiled is one operation, in which nothing would be counted."""
    path = str(tiny_pipeline.write_pipeline(tmp_path / "pipeline.config"))
    xla = "[object_detection_ext.protos.video_action_transformer] { compute { xla: true } }"
    assert not tool.read_pipeline(path, xla).Extensions[options_lib.EXTENSION].compute.xla


def test_override_is_merged(tmp_path):
    path = str(tiny_pipeline.write_pipeline(tmp_path / "pipeline.config"))
    override = (
        "[object_detection_ext.protos.video_action_transformer] { tx_head { num_layers: 5 } }"
    )
    options = tool.read_pipeline(path, override).Extensions[options_lib.EXTENSION]
    assert options.tx_head.num_layers == 5
    assert options.tx_head.num_heads == 2
    with pytest.raises(errors.InputError, match="override of the pipeline.config.*layers"):
        tool.read_pipeline(path, override.replace("num_layers", "layers"))


def test_clip_of_other_resizers():
    pipeline = tiny_pipeline.make_pipeline()
    resizer = pipeline.model.faster_rcnn.image_resizer
    resizer.keep_aspect_ratio_resizer.min_dimension = 40
    resizer.keep_aspect_ratio_resizer.max_dimension = 80
    with pytest.raises(
        errors.InputError, match="x.config.*keep_aspect_ratio.*--height and --width"
    ):
        tool.clip_of(pipeline, "x.config", height=48)
    clip = tool.clip_of(pipeline, "x.config", height=48, width=64, num_frames=None)
    assert clip == tool.Clip(num_frames=4, height=48, width=64, proposals=6)
    resizer.keep_aspect_ratio_resizer.pad_to_max_dimension = True
    assert tool.clip_of(pipeline, "x.config", height=48).width == 80
