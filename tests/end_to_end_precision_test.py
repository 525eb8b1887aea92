# SPDX-License-Identifier: Apache-2.0
"""bfloat16 through the stock loops: train, evaluate, export, detect, in the other precision too.

The precision is asked for by the stock field, `train_config.use_bfloat16`.
"""

import contextlib
import functools
import io
import json

import numpy as np
import pytest
import tensorflow as tf
from object_detection import exporter_lib_v2, model_lib_v2
from tensorflow.core.protobuf import saved_model_pb2

from object_detection_ext import ActionDetector, errors, registration, unused_fields
from object_detection_ext import options as options_lib
from object_detection_ext.checkpoints import files
from object_detection_ext.visualization import drawing
from tests import tiny_pipeline
from tests.serving import fake_servers

registration.register()

pytestmark = pytest.mark.slow

_PEOPLE = [
    ([0.1, 0.1, 0.7, 0.5], "stand"),
    ([0.1, 0.1, 0.7, 0.5], "watch (a person)"),
    ([0.3, 0.5, 0.9, 0.9], "walk"),
]
_STEPS, _FPS = 2, 20.0
_OVERRIDE = (
    tiny_pipeline.SHORT_TRUNK
    + """[object_detection_ext.protos.video_action_transformer] {
      summaries { training_picture_every_n_steps: 1 }
      outputs { attention: true key_embeddings: true }
    }
    train_config {
      use_bfloat16: true
      optimizer { use_moving_average: true }
    }
    eval_config { use_moving_averages: true }"""
)


class _Run:
    """A training in bfloat16, an evaluation of it, and the export, each when it is asked for."""

    def __init__(self, folder):
        self._folder, self.model_dir = folder, folder / "model"
        frames = tiny_pipeline.gray_frames(tiny_pipeline.NUM_FRAMES)
        records = [
            tiny_pipeline.make_record(frames, {2: _PEOPLE}, video_id="people"),
            tiny_pipeline.make_record(frames, {2: []}, video_id="empty"),
        ]
        self.config = tiny_pipeline.write_pipeline(
            folder / "pipeline.config",
            _OVERRIDE,
            label_map=tiny_pipeline.write_label_map(folder / "label_map.pbtxt"),
            train=tiny_pipeline.write_records(folder / "train.record", records),
            evaluation=tiny_pipeline.write_records(folder / "eval.record", records),
        )
        with contextlib.redirect_stderr(io.StringIO()) as said:
            model_lib_v2.train_loop(
                pipeline_config_path=str(self.config),
                model_dir=str(self.model_dir),
                train_steps=_STEPS,
                checkpoint_every_n=_STEPS,
                save_final_config=True,
            )
        self.said = said.getvalue()

    @functools.cached_property
    def evaluated(self):
        """What the evaluation wrote for TensorBoard."""
        model_lib_v2.eval_continuously(
            pipeline_config_path=str(self.config),
            model_dir=str(self.model_dir),
            checkpoint_dir=str(self.model_dir),
            wait_interval=300,
            timeout=1,
        )
        return tiny_pipeline.read_events(self.model_dir / "eval")

    @functools.cached_property
    def exported(self):
        """The folder of the export."""
        exporter_lib_v2.export_inference_graph(
            "clip_tensor",
            tiny_pipeline.parse(self.config.read_text()),
            str(self.model_dir),
            str(self._folder / "exported"),
        )
        return self._folder / "exported"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return _Run(tmp_path_factory.mktemp("bfloat16"))


def test_training_reports_and_writes_what_it_does_in_float32(run):
    assert f"training: step {_STEPS} of {_STEPS}" in run.said
    events = tiny_pipeline.read_events(run.model_dir / "train")
    losses = dict(events.scalars["Loss/total_loss"])
    assert sorted(losses) == [1, 2]
    assert all(np.isfinite(loss) and loss > 0 for loss in losses.values())
    assert len(events.pictures["train_middle_frame_with_groundtruth"]) == 2 * _STEPS


def test_evaluation_writes_metrics_pictures_and_attention(run):
    events = run.evaluated
    assert sorted(events.pictures) == [
        *("eval_attention_0_0", "eval_attention_1_0"),
        *("eval_side_by_side_0_0", "eval_side_by_side_1_0"),
    ]
    for metric in ("AvaDetectionBoxes_Precision/mAP@0.5IOU", "Loss/total_loss"):
        ((step, value),) = events.scalars[metric]
        assert step == _STEPS and np.isfinite(value)


def test_checkpoint_is_float32_with_its_averages_and_optimizer(run):
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run.model_dir)))
    types = reader.get_variable_to_dtype_map()
    assert any("OPTIMIZER_SLOT/optimizer/average" in name for name in types)
    assert any("OPTIMIZER_SLOT/optimizer/ema_base_optimizer/momentum" in name for name in types)
    floats = {name: kind for name, kind in types.items() if kind.is_floating}
    assert set(floats.values()) == {tf.float32}


def test_saved_pipeline_says_the_precision_and_contradicts_itself_nowhere(run):
    for path in (run.model_dir / "pipeline.config", run.exported / "pipeline.config"):
        saved = registration.read_pipeline(str(path))
        assert options_lib.precision_name(saved) == "bfloat16"
        assert saved.Extensions[options_lib.EXTENSION].compute.HasField("precision")
        assert unused_fields.find(saved, trains=True, evaluates=True) == []


def test_exported_model_computes_in_bfloat16_between_inputs_and_outputs_as_ever(run):
    path = run.exported / "saved_model"
    assert json.loads((path / "assets" / "clip.json").read_text())["precision"] == "bfloat16"
    loaded = fake_servers.LoadedModel(str(path))
    detect = loaded.functions["serving_default"]
    ((name, spec),) = detect.structured_input_signature[1].items()
    assert (name, spec.dtype) == ("input_tensor", tf.uint8)
    assert {output.dtype for output in detect.structured_outputs.values()} == {tf.float32}
    kinds = {}
    for function in _functions(path):
        for node in function.node_def:
            kinds.setdefault(node.op, set()).add(node.attr["T"].type)
    assert kinds["Conv3D"] == {tf.bfloat16.as_datatype_enum}
    assert kinds["Softmax"] == {tf.float32.as_datatype_enum}
    assert kinds["CropAndResize"] == {tf.float32.as_datatype_enum}


def _functions(path):
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    return saved.meta_graphs[0].graph_def.library.function


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """2 s of noise."""
    path = tmp_path_factory.mktemp("video") / "noise.mp4"
    noise = np.random.default_rng(0).integers(0, 256, [round(2 * _FPS), 50, 70, 3], np.uint8)
    drawing.write_video(path, iter(noise), _FPS)
    return path


def _scores(detector, video):
    return [keyframe.people[0].score for keyframe in detector(video)]


def test_detector_takes_the_precision_of_an_export_and_either_of_a_checkpoint(run, video):
    options = {"score_threshold": 0.0, "keep_attention": True}
    saved_model = run.exported / "saved_model"
    exported = ActionDetector(saved_model, precision="BFLOAT16", fps=_FPS, **options)
    assert exported.model.precision == "bfloat16"
    with pytest.raises(errors.InputError, match="was exported in bfloat16, .* cannot be float32"):
        ActionDetector(saved_model, precision="float32")
    found = {}
    for name in (None, "float32", "bfloat16"):
        detector = ActionDetector.from_checkpoint(
            run.config, run.model_dir, precision=name, fps=_FPS, **options
        )
        assert detector.model.precision == (name or "bfloat16")
        found[name] = _scores(detector, video)
    assert found[None] == found["bfloat16"] == pytest.approx(_scores(exported, video), abs=1e-6)
    assert found["float32"] == pytest.approx(found["bfloat16"], abs=0.02)
    assert found["float32"] != found["bfloat16"]
    shared = ActionDetector(exported.model, share_trunk=True, **options)
    # Windows of clips so short see mostly what lies beyond them; both_precisions_test has the same.
    assert len(_scores(shared, video)) == len(found["bfloat16"])


def test_training_resumes_in_float32(run):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        model_lib_v2.train_loop(
            pipeline_config_path=str(run.config),
            model_dir=str(run.model_dir),
            train_steps=_STEPS + 1,
            config_override="train_config { use_bfloat16: false }",
        )
    assert f"training: from step {_STEPS} to {_STEPS + 1}" in said.getvalue()
    assert files.step_of_newest(str(run.model_dir)) == _STEPS + 1
