# SPDX-License-Identifier: Apache-2.0
"""Train, go on, evaluate, export: the stock loops on clips, with a broken one and an empty one."""

import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from object_detection import exporter_lib_v2, model_lib_v2

from object_detection_ext import registration, training
from object_detection_ext.data import clip_packing
from object_detection_ext.tools import visualize
from tests import tiny_pipeline

registration.register()

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PEOPLE = [
    ([0.1, 0.1, 0.7, 0.5], "stand"),
    ([0.1, 0.1, 0.7, 0.5], "watch (a person)"),
    ([0.3, 0.5, 0.9, 0.9], "walk"),
]
_LEVEL = 40  # frame k is the gray level 40 k
_OPTIONS = (
    "[object_detection_ext.protos.video_action_transformer] "
    "{ summaries { training_picture_every_n_steps: 1 } "
    "outputs { attention: true key_embeddings: true } }"
)


def _write_data(folder: pathlib.Path, override: str = "") -> pathlib.Path:
    """Records (one clip is broken, one empty), label map and pipeline.config; returns the last."""
    frames = tiny_pipeline.gray_frames(4, step=_LEVEL)
    train = [
        tiny_pipeline.make_record(frames, {2: _PEOPLE}, video_id="people"),
        tiny_pipeline.make_record([*frames[:3], frames[3][:-9]], {2: _PEOPLE}, video_id="broken"),
        tiny_pipeline.make_record(frames, {2: []}, video_id="empty"),
    ]
    evaluation = [
        tiny_pipeline.make_record(frames, {2: _PEOPLE}, video_id="people"),
        tiny_pipeline.make_record(frames, {2: []}, video_id="empty"),
    ]
    return tiny_pipeline.write_pipeline(
        folder / "pipeline.config",
        override,
        label_map=tiny_pipeline.write_label_map(folder / "label_map.pbtxt"),
        train=tiny_pipeline.write_records(folder / "train.record", train),
        evaluation=tiny_pipeline.write_records(folder / "eval.record", evaluation),
    )


def _checkpoint_value(model_dir: pathlib.Path, name: str):
    path = tf.train.latest_checkpoint(str(model_dir))
    return tf.train.load_variable(path, f"{name}/.ATTRIBUTES/VARIABLE_VALUE")


def _trunk_weights(model_dir: pathlib.Path) -> np.ndarray:
    path = tf.train.latest_checkpoint(str(model_dir))
    (name,) = (
        name
        for name, shape in tf.train.list_variables(path)
        if shape[:4] == [7, 7, 7, 3] and name.startswith("model/") and "OPTIMIZER" not in name
    )
    return tf.train.load_variable(path, name)


class _Trained:
    """What two runs of training left: 2 steps, then on to 4."""

    def __init__(self, folder: pathlib.Path):
        self.config = _write_data(folder, _OPTIONS)
        self.model_dir = folder / "model"
        self.said, self.steps, self.weights = [], [], []
        for total in (2, 4):
            with contextlib.redirect_stderr(io.StringIO()) as said:
                model_lib_v2.train_loop(
                    pipeline_config_path=str(self.config),
                    model_dir=str(self.model_dir),
                    train_steps=total,
                    checkpoint_every_n=3,
                    save_final_config=True,
                )
            self.said.append(said.getvalue())
            self.steps.append(training.checkpointed_step(str(self.model_dir)))
            self.weights.append(_trunk_weights(self.model_dir))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return _Trained(tmp_path_factory.mktemp("training"))


def test_training_ends_at_its_total_and_goes_on_from_there(trained):
    # Neither 2 nor 4 is a multiple of checkpoint_every_n.
    assert trained.steps == [2, 4]
    assert "training: from step 0 to 2" in trained.said[0]
    assert "training: from step 2 to 4" in trained.said[1]
    assert "training: step 3 of 4" in trained.said[1]
    assert "training: step 2 of 4" not in trained.said[1]
    # The optimizer's own count came along.
    assert int(_checkpoint_value(trained.model_dir, "optimizer/iter")) == 4


def test_training_trains(trained):
    first, second = trained.weights
    assert np.isfinite(second).all()
    assert 0 < np.abs(second - first).max() < 1


def test_training_writes_losses_and_its_picture(trained):
    events = tiny_pipeline.read_events(trained.model_dir / "train")
    losses = dict(events.scalars["Loss/total_loss"])
    assert sorted(losses) == [1, 2, 3, 4]
    assert all(np.isfinite(loss) and loss > 0 for loss in losses.values())
    pictures = events.pictures["train_middle_frame_with_groundtruth"]
    assert len(pictures) == 4
    for _, picture in pictures:
        assert picture.shape == (64, 64, 3)
        assert abs(np.median(picture) - 2 * _LEVEL) < 3
    assert "train_input_images" not in events.pictures


def test_saved_pipeline_is_the_one_that_was_given(trained):
    saved = tiny_pipeline.parse((trained.model_dir / "pipeline.config").read_text())
    expected = tiny_pipeline.parse(trained.config.read_text())
    # What the stock loop writes down of its defaults.
    expected.train_config.fine_tune_checkpoint_type = "classification"
    expected.train_config.use_bfloat16 = False
    assert saved == expected


def test_evaluation_writes_metrics_and_pictures_of_the_middle_frame(trained, tmp_path):
    model_lib_v2.eval_continuously(
        pipeline_config_path=str(trained.config),
        model_dir=str(tmp_path),
        checkpoint_dir=str(trained.model_dir),
        wait_interval=300,  # as the stock main has it; the timeout is shorter
        timeout=1,
    )
    events = tiny_pipeline.read_events(tmp_path / "eval")
    for metric in (
        "AvaDetectionBoxes_Precision/mAP@0.5IOU",
        "PascalBoxes_Precision/mAP@0.5IOU",
        "Loss/total_loss",
    ):
        ((step, value),) = events.scalars[metric]
        assert step == 4
        assert np.isfinite(value) and value >= 0, metric
    assert "AvaDetectionBoxes_PerformanceByCategory/AP@0.5IOU/walk" in events.scalars
    ((_, with_people),) = events.pictures["eval_side_by_side_0_0"]
    ((_, empty),) = events.pictures["eval_side_by_side_1_0"]
    for picture in (with_people, empty):
        assert picture.shape == (64, 128, 3)  # detections, then ground truth
    truth = empty[:, 64:].astype(int)
    assert np.abs(truth - 2 * _LEVEL).max() <= 2  # nobody: the bare middle frame
    drawn = np.abs(with_people[:, 64:].astype(int) - 2 * _LEVEL).max(axis=-1) > 30
    assert 0.01 < drawn.mean() < 0.9


def _restored_model(trained: _Trained):
    model = tiny_pipeline.build_model(
        tiny_pipeline.parse(trained.config.read_text()), is_training=False
    )
    _detections(model, _noise(64, 64))  # makes the variables
    path = tf.train.latest_checkpoint(str(trained.model_dir))
    restored = tf.train.Checkpoint(model=model).restore(path)
    restored.expect_partial().assert_existing_objects_matched()
    return model


def _noise(height: int, width: int) -> np.ndarray:
    shape = [tiny_pipeline.NUM_FRAMES, height, width, 3]
    return np.random.default_rng(5).integers(0, 256, shape, np.uint8)


def _detections(model, clip: np.ndarray) -> dict[str, np.ndarray]:
    """Of a clip, uint8 [T, H, W, 3]: eagerly, by the model itself."""
    packed = tf.cast(clip_packing.pack_clip(tf.constant(clip)), tf.float32)[tf.newaxis]
    preprocessed, shapes = model.preprocess(packed)
    detections = model.postprocess(model.predict(preprocessed, shapes), shapes)
    return {name: value.numpy() for name, value in detections.items()}


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The folder of the export and its signature."""
    folder = tmp_path_factory.mktemp("export")
    pipeline = registration.read_pipeline(str(trained.config))
    before = pipeline.SerializeToString()
    exporter_lib_v2.export_inference_graph(
        "clip_tensor", pipeline, str(trained.model_dir), str(folder)
    )
    assert pipeline.SerializeToString() == before, "the caller's pipeline was changed"
    loaded = tf.saved_model.load(str(folder / "saved_model"))
    return folder, loaded.signatures["serving_default"]


def test_saved_model_detects_what_the_checkpoints_model_detects(trained, exported):
    _, detect = exported
    model = _restored_model(trained)
    for size in ((48, 80), (64, 64), (100, 30)):
        clip = _noise(*size)
        actual = detect(input_tensor=tf.constant(clip[np.newaxis]))
        expected = _detections(model, clip)
        assert expected["num_detections"] > 0
        expected["detection_classes"] += 1  # ids of the label map
        for name in (
            "num_detections",
            "detection_boxes",
            "detection_scores",
            "detection_classes",
            "detection_attention",
            "key_embeddings",
        ):
            np.testing.assert_allclose(actual[name], expected[name], atol=1e-5, err_msg=name)


def test_exported_signature_is_one_clip_of_any_size(exported):
    _, detect = exported
    ((name, spec),) = detect.structured_input_signature[1].items()
    assert name == "input_tensor"
    assert spec == tf.TensorSpec([1, 4, None, None, 3], tf.uint8, name="input_tensor")


def test_exported_pipeline_shows_our_options_and_can_be_read_again(trained, exported):
    folder, _ = exported
    text = (folder / "pipeline.config").read_text()
    expected = tiny_pipeline.parse(trained.config.read_text())
    assert tiny_pipeline.parse(text) == expected
    assert "77001" not in text  # the envelope's number
    registration.read_pipeline(str(folder / "pipeline.config"))


def test_pictures_are_of_the_exported_models_attention(trained, exported, tmp_path):
    folder, detect = exported
    summary_path = visualize.run(
        visualize.Options(
            saved_model=str(folder / "saved_model"),
            label_map=str(trained.config.parent / "label_map.pbtxt"),
            output=str(tmp_path),
            records=str(trained.config.parent / "eval.record"),
            score_threshold=0.0,
            max_people=2,
            max_keyframes=1,
        )
    )
    (clip,) = json.loads(pathlib.Path(summary_path).read_text())["clips"]
    frames = (
        np.ones([1, 4, 64, 64, 3], np.uint8)
        * (_LEVEL * np.arange(4, dtype=np.uint8))[:, None, None, None]
    )
    outputs = detect(input_tensor=tf.constant(frames))
    found = {name: values.numpy()[0] for name, values in outputs.items()}
    assert clip["people"] and len(clip["groundtruth"]) == 2
    for person in clip["people"]:
        distance = np.abs(np.clip(found["detection_boxes"], 0, 1) - person["box"]).max(axis=1)
        best = np.abs(found["detection_scores"] - max(person["actions"].values())) < 1e-4
        (detection, *_) = np.flatnonzero((distance < 1e-3) & best)
        for head, weights in enumerate(found["detection_attention"][detection, -1], start=1):
            assert weights.sum() == pytest.approx(1, abs=1e-5)
            peak = person["attention"][f"head {head}"]["peak"]
            assert peak["times_uniform"] == pytest.approx(weights.max() * weights.size, rel=1e-2)
        assert all((tmp_path / name).is_file() for name in person["files"])
    assert len(clip["embeddings"]["variance_of_components"]) == 2


@pytest.mark.slow
def test_killed_training_ends_with_the_same_number_of_steps(tmp_path):
    config = _write_data(tmp_path, "train_config { num_steps: 45 }")
    model_dir = tmp_path / "model"
    command = [
        sys.executable,
        "-m",
        "object_detection_ext.model_main_tf2",
        f"--pipeline_config_path={config}",
        f"--model_dir={model_dir}",
        "--checkpoint_every_n=10",
    ]
    process = subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.DEVNULL)
    try:
        # Checkpoint 1 is of step 0, checkpoint 2 of step 10.
        while not (model_dir / "ckpt-2.index").exists():
            assert process.poll() is None, "training ended by itself"
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    killed_at = training.checkpointed_step(str(model_dir))
    assert 0 < killed_at < 45
    result = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"training: from step {killed_at} to 45" in result.stderr
    assert training.checkpointed_step(str(model_dir)) == 45
    # The skipped clip was reported.
    assert "clip skipped: a frame of" in result.stderr
