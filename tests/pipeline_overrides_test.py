# SPDX-License-Identifier: Apache-2.0
"""Files that are merged into a pipeline.config: order, report, and what is wrong with them."""

import pathlib
import subprocess
import sys
import types

import pytest
from absl import flags

from object_detection_ext import errors, pipeline_overrides, registration

registration.register()

from object_detection import model_lib_v2  # noqa: E402

from object_detection_ext import pipeline_check, static_shapes  # noqa: E402
from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2  # noqa: E402
from object_detection_ext.tools import model_summary  # noqa: E402
from tests import tiny_pipeline  # noqa: E402

_CONFIGS = pathlib.Path(__file__).parent.parent / "pipeline_configs"
_OVERRIDES = sorted((_CONFIGS / "overrides").glob("*.config"))
_EXTENSION = "[object_detection_ext.protos.video_action_transformer]"


@pytest.fixture
def config(tmp_path) -> str:
    return str(tiny_pipeline.write_pipeline(tmp_path / "my.config"))


def _write(folder, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def _combined(config: str, *paths: str, override: str | None = None):
    """The merged pipeline, and the lines that were printed."""
    lines: list[str] = []
    merged = pipeline_overrides.combined(config, paths, override, lines.append)
    return registration.read_pipeline(config, merged), lines


def _error(config: str, *paths: str, override: str | None = None) -> str:
    with pytest.raises(errors.InputError) as caught:
        pipeline_overrides.combined(config, paths, override, lambda line: None)
    return str(caught.value)


# What holds: the pipeline.config, then the files in their order, then the text.


def test_the_later_one_holds(config, tmp_path):
    first = _write(tmp_path, "first.config", "train_config { batch_size: 5 num_steps: 50 }")
    second = _write(tmp_path, "second.config", "train_config { num_steps: 60 }  # no newline")
    text = "train_config { num_steps: 70 }"
    assert _combined(config, first)[0].train_config.batch_size == 5
    assert _combined(config, first, second)[0].train_config.num_steps == 60
    assert _combined(config, second, first)[0].train_config.num_steps == 50
    pipeline, _ = _combined(config, first, second, override=text)
    assert (pipeline.train_config.batch_size, pipeline.train_config.num_steps) == (5, 70)
    # All else is what it was.
    pipeline.train_config.batch_size, pipeline.train_config.num_steps = 2, 4
    assert pipeline == registration.read_pipeline(config)


def test_nothing_given_is_nothing_merged(config):
    lines: list[str] = []
    assert pipeline_overrides.combined(config, [], None, lines.append) is None
    assert pipeline_overrides.combined(config, (), "", lines.append) is None
    assert not lines


def test_entries_are_added_to_repeated_fields(config, tmp_path):
    path = _write(tmp_path, "more.config", "eval_config { metrics_set: 'coco_detection_metrics' }")
    pipeline, lines = _combined(config, path)
    assert list(pipeline.eval_config.metrics_set) == [
        "ava_detection_metrics",
        "pascal_voc_detection_metrics",
        "coco_detection_metrics",
    ]
    assert lines[1] == '  eval_config.metrics_set: 2 before, 1 added: "coco_detection_metrics"'


# What is printed.


def test_each_change_is_reported_with_both_values_and_counted(config, tmp_path):
    path = _write(
        tmp_path,
        "a.config",
        "train_config { batch_size: 3 num_steps: 4 } model { faster_rcnn { "
        "first_stage_nms_iou_threshold: 0.75 use_static_shapes_for_eval: true } } "
        f"{_EXTENSION} {{ proposals {{ source: GROUND_TRUTH }} }} ",
    )
    _, lines = _combined(config, path, override="train_config { batch_size: 2 }")
    assert lines == [
        f"override: {path} changes 4 fields of {config}:",
        "  model.faster_rcnn.first_stage_nms_iou_threshold: 0.7 -> 0.75",
        "  model.faster_rcnn.use_static_shapes_for_eval: not set (default false) -> true",
        "  train_config.batch_size: 2 -> 3",
        f"  {_EXTENSION}.proposals.source: not set (default RPN) -> GROUND_TRUTH",
        f"override: override of the pipeline.config changes 1 field of {config}:",
        "  train_config.batch_size: 3 -> 2",
    ]


def test_what_changes_nothing_is_said(config, tmp_path):
    same = _write(tmp_path, "same.config", "train_config { batch_size: 2 }")
    empty = _write(tmp_path, "empty.config", "# nothing\n")
    _, lines = _combined(config, same, empty)
    assert lines == [f"override: {path} changes nothing in {config}" for path in (same, empty)]


def test_another_head_takes_the_place_of_the_first_one_and_is_told_so(config, tmp_path):
    path = _write(tmp_path, "head.config", f"{_EXTENSION} {{ i3d_head {{ }} }}")
    pipeline, lines = _combined(config, path)
    options = pipeline.Extensions[vat_pb2.video_action_transformer]
    assert options.WhichOneof("head") == "i3d_head"
    assert lines[1:] == [
        f"  {_EXTENSION}.i3d_head: not set -> {{ }}",
        f"warning: {path}: {_EXTENSION}.i3d_head takes the place of {_EXTENSION}.tx_head; 5 fields "
        "dropped: num_heads: 2, num_layers: 1, feature_size: 16, ffn_size: 16, query_channels: 8",
    ]


def test_stock_oneofs_are_told_too(config, tmp_path):
    adam = "adam_optimizer { learning_rate { constant_learning_rate { learning_rate: 0.5 } } }"
    path = _write(tmp_path, "adam.config", f"train_config {{ optimizer {{ {adam} }} }}")
    _, lines = _combined(config, path)
    (warning,) = (line for line in lines if line.startswith("warning"))
    assert "optimizer.adam_optimizer takes the place of train_config.optimizer.momentum" in warning
    assert "momentum_optimizer_value: 0.9" in warning


def test_long_lists_of_changes_are_cut_and_counted(config, tmp_path):
    fields = "".join(f"weight {{ name: 'a{index}' weight: 2 }} " for index in range(50))
    path = _write(tmp_path, "a.config", f"{_EXTENSION} {{ class_weights {{ {fields} }} }}")
    lines: list[str] = []
    pipeline_overrides.combined(config, [path], None, lines.append)
    assert "0 before, 50 added: " in lines[1] and lines[1].endswith("and 47 more")
    assert max(map(len, lines)) < 400


# What is wrong, before anything is built.


def test_missing_file_is_named_with_one_beside_it(config, tmp_path):
    there = _write(tmp_path, "gpu_bf16.config", "")
    message = _error(config, str(tmp_path / "gpu_bf61.config"))
    assert message.startswith(f"There is no override file at '{tmp_path}/gpu_bf61.config'.")
    assert message.endswith(f"Did you mean '{there}'?")


def test_several_files_in_one_flag(config, tmp_path):
    path = _write(tmp_path, "a.config", "")
    assert "give --config_override_path once for each" in _error(config, f"{path},{path}")


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n\xff\xfe", "model { }".encode("utf-16"), b"model\0"]
)
def test_what_is_not_text_is_named(config, tmp_path, content):
    path = tmp_path / "a.config"
    path.write_bytes(content)
    message = _error(config, str(path))
    assert message.startswith(f"{path}: not a ") and "text file" in message


def test_folder_is_named(config, tmp_path):
    assert _error(config, str(tmp_path)) == (
        f"{tmp_path}: a folder, but the override file must be a file."
    )


def test_byte_order_mark_is_no_part_of_the_text(config, tmp_path):
    path = tmp_path / "a.config"
    path.write_text("train_config { batch_size: 7 }", encoding="utf-8-sig")
    assert _combined(config, str(path))[0].train_config.batch_size == 7


@pytest.mark.parametrize(
    ("line", "column", "words"),
    [
        ("  batchsize: 3", 3, "TrainConfig has no field 'batchsize'. Did you mean batch_size"),
        ("  batch_size: 'three'", 15, "Couldn't parse integer: 'three'"),
        ("  batch_size 3", 14, 'Expected ":"'),
        ("  batch_size: 3 batch_size: 4", 17, 'should not have multiple "batch_size" fields'),
    ],
)
def test_file_line_column_and_text_are_named(config, tmp_path, line, column, words):
    path = _write(tmp_path, "a.config", f"# first\ntrain_config {{\n{line}\n}}\n")
    message = _error(config, path)
    assert message.startswith(f"{path}:3:")
    place, _, rest = message.removeprefix(f"{path}:3:").partition(": ")
    assert abs(int(place) - column) <= len(line)
    assert words in rest
    assert f"\n    {line.strip()}\n" in message


def test_unknown_extension_and_value_have_near_ones(config, tmp_path):
    path = _write(tmp_path, "a.config", "[object_detection_ext.video_action_transformer] { }")
    assert f"Did you mean {_EXTENSION}?" in _error(config, path)
    path = _write(tmp_path, "b.config", "video_action_transformer { }")
    message = _error(config, path)
    assert "TrainEvalPipelineConfig has no field 'video_action_transformer'" in message
    assert f"Did you mean {_EXTENSION}?" in message
    path = _write(tmp_path, "c.config", f"{_EXTENSION} {{ compute {{ precision: BF16 }} }}")
    message = _error(config, path)
    assert message.startswith(f"{path}:1:")
    assert "Precision has no value BF16. Did you mean BFLOAT16?" in message
    path = _write(tmp_path, "d.config", f"{_EXTENSION} {{ proposals {{ source: NOTHING }} }}")
    assert "There are: RPN, GROUND_TRUTH." in _error(config, path)


def test_two_heads_in_one_file_are_a_mistake(config, tmp_path):
    path = _write(tmp_path, "a.config", f"{_EXTENSION} {{\n  tx_head {{ }}\n  i3d_head {{ }}\n}}")
    message = _error(config, path)
    assert message.startswith(f"{path}:3:") and '"tx_head"' in message and '"i3d_head"' in message


def test_brace_of_one_file_is_not_closed_by_the_next(config, tmp_path):
    first = _write(tmp_path, "a.config", "train_config {")
    second = _write(tmp_path, "b.config", "}")
    assert _error(config, first, second).startswith(f"{first}:")


def test_names_that_a_terminal_obeys_are_escaped(config, tmp_path):
    path = _write(tmp_path, "a.config", "train_config {\n  \x1b[31mbatch: 3\n}")
    assert "\x1b" not in _error(config, path)
    path = _write(tmp_path, "b.config", "train_config { fine_tune_checkpoint: '\\033[2J' }")
    lines: list[str] = []
    pipeline_overrides.combined(config, [path], None, lines.append)
    assert not any("\x1b" in line for line in lines)


def test_fault_that_a_file_brings_in_is_found(config, tmp_path):
    path = _write(tmp_path, "a.config", f"{_EXTENSION} {{ clip {{ num_frames: 0 }} }}")
    with pytest.raises(errors.InputError, match=r"clip\.num_frames: 0"):
        _combined(config, path)


# Every program that has --config_override.


def _run(monkeypatch, main, override, values: dict) -> None:
    given = flags.FlagValues()
    pipeline_overrides.define_flag(given)
    for name, value in values.items():
        if name == pipeline_overrides.FLAG:
            given[name].value = value
        else:
            flags.DEFINE_string(name, value, "", flag_values=given)
    given.mark_as_parsed()
    monkeypatch.setattr(registration, "flags", types.SimpleNamespace(FLAGS=given))
    monkeypatch.setattr(registration, "app", types.SimpleNamespace(run=lambda main: main([])))
    registration.run(main, override)


def test_training_and_evaluation_get_the_files(config, tmp_path, monkeypatch, capsys):
    path = _write(tmp_path, "a.config", "train_config { batch_size: 5 }")
    got = {}
    for name in ("train_loop", "eval_continuously"):
        monkeypatch.setattr(
            model_lib_v2, name, lambda name=name, **kwargs: got.update({name: kwargs})
        )

    def stock_main(argv):
        model_lib_v2.train_loop()
        model_lib_v2.eval_continuously()

    override = types.SimpleNamespace(value="train_config { num_steps: 9 }")
    values = {"pipeline_config_path": config, pipeline_overrides.FLAG: [path]}
    _run(monkeypatch, stock_main, override, values)
    for name in ("train_loop", "eval_continuously"):
        read = registration.read_pipeline(config, got[name]["config_override"]).train_config
        assert (read.batch_size, read.num_steps) == (5, 9)
    assert "train_config.batch_size: 2 -> 5" in capsys.readouterr().err


_EXPORTER = """
from object_detection_ext import exporter_main_v2, registration
from object_detection import exporter_lib_v2

def export(input_type, pipeline, *others):
    print(pipeline.train_config.batch_size, pipeline.train_config.num_steps)

exporter_lib_v2.export_inference_graph = export
registration.run(exporter_main_v2.stock_main.main)
"""


def test_exporter_gets_the_files(config, tmp_path):
    """In a process of its own: the stock mains define the same flags."""
    first = _write(tmp_path, "a.config", "train_config { batch_size: 5 }")
    second = _write(tmp_path, "b.config", "train_config { batch_size: 6 num_steps: 8 }")
    arguments = [
        f"--pipeline_config_path={config}",
        f"--trained_checkpoint_dir={tmp_path}",
        f"--output_directory={tmp_path}",
        f"--config_override_path={first}",
        f"--config_override_path={second}",
        "--config_override=train_config { num_steps: 9 }",
    ]
    done = subprocess.run(
        [sys.executable, "-c", _EXPORTER, *arguments],
        cwd=_CONFIGS.parent, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "6 9"
    assert "train_config.batch_size: 5 -> 6" in done.stderr


def test_wrong_file_ends_a_program_with_status_2(config, tmp_path, monkeypatch, capsys):
    path = _write(tmp_path, "a.config", "train_config { batchsize: 5 }")
    values = {"pipeline_config_path": config, pipeline_overrides.FLAG: [path]}
    with pytest.raises(SystemExit) as ended:
        _run(monkeypatch, lambda argv: pytest.fail("the stock main was reached"), None, values)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {path}:1:")


def test_model_summary_has_the_flag():
    values = flags.FlagValues()
    model_summary.define_flags(values)
    values(["", "--pipeline_config_path=a", "--config_override_path=b", "--config_override_path=c"])
    assert values.config_override_path == ["b", "c"]


# The files that the repository has.


@pytest.mark.parametrize("override", _OVERRIDES, ids=lambda path: path.stem)
def test_overrides_go_with_every_config(override, monkeypatch):
    monkeypatch.chdir(_CONFIGS.parent)
    configs = sorted(_CONFIGS.glob("*.config"))
    assert len(configs) > 15
    for config in configs:
        lines: list[str] = []
        merged = pipeline_overrides.combined(str(config), [str(override)], None, lines.append)
        pipeline = registration.parse_pipeline(str(config), merged)
        pipeline.ClearField("train_input_reader")
        pipeline.ClearField("eval_input_reader")
        pipeline_check.check(pipeline, str(config))
        assert static_shapes.is_wanted(pipeline)
        compute = pipeline.Extensions[vat_pb2.video_action_transformer].compute
        assert compute.precision == vat_pb2.Compute.BFLOAT16
        assert not any(line.startswith("warning") for line in lines)


def test_there_are_overrides_for_gpu_and_tpu():
    assert [path.stem for path in _OVERRIDES] == ["gpu_bf16", "tpu"]
