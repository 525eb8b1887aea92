# SPDX-License-Identifier: Apache-2.0
"""Train, go on, evaluate, export: the stock loops on clips, with a broken one and an empty one.

Then what the exported model is for: a video's people, clip by clip and with a shared trunk, and
pictures of their attention. exported_models_test has the other heads and input types.

The fast tests' trunk is the first convolutions and one Inception block: graphs of the whole one
take minutes to build, and every_head_test has its gradients.
"""

import contextlib
import functools
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import weakref
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from object_detection import exporter_lib_v2, model_lib_v2

from object_detection_ext import ActionDetector, exporting, registration
from object_detection_ext.ava import label_maps
from object_detection_ext.checkpoints import files
from object_detection_ext.data import clip_packing, video_reader
from object_detection_ext.evaluation import ava_evaluator
from object_detection_ext.tools import visualize
from object_detection_ext.visualization import drawing
from tests import browser, tensorboard_server, tiny_pipeline
from tests.serving import fake_servers

registration.register()

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_PEOPLE = [
    ([0.1, 0.1, 0.7, 0.5], "stand"),
    ([0.1, 0.1, 0.7, 0.5], "watch (a person)"),
    ([0.3, 0.5, 0.9, 0.9], "walk"),
]
_LEVEL = 40  # frame k is the gray level 40 k
# Stretches of video, whose trunk clips share, are multiples of 8 frames.
_NUM_FRAMES = 8
# Of the record's 4 frames, those of the clip around its keyframe.
_IN_CLIP = np.array([0, 0, 0, 1, 2, 3, 3, 3])
_FPS = 20.0
_OPTIONS = (
    tiny_pipeline.SHORT_TRUNK
    + f"""[object_detection_ext.protos.video_action_transformer] {{
      clip {{ num_frames: {_NUM_FRAMES} }} trunk {{ final_endpoint: 'Mixed_3b' }}
      summaries {{ training_picture_every_n_steps: 1 }}
      outputs {{ attention: true key_embeddings: true }}
    }}"""
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
        *(
            tiny_pipeline.make_record(frames, {2: _PEOPLE}, video_id=f"more {number}")
            for number in range(6)
        ),
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


_LOSSES = {
    "Loss/RPNLoss/localization_loss",
    "Loss/RPNLoss/objectness_loss",
    "Loss/BoxClassifierLoss/localization_loss",
    "Loss/BoxClassifierLoss/classification_loss",
    "Loss/regularization_loss",
    "Loss/total_loss",
}
_METRICS = {
    "AvaDetectionBoxes_Precision/mAP@0.5IOU",
    *(
        f"AvaDetectionBoxes_PerformanceByCategory/AP@0.5IOU/{name}"
        for name in tiny_pipeline.ACTIONS.values()
    ),
}


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
            self.steps.append(files.step_of_newest(str(self.model_dir)))
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
    assert _LOSSES <= events.scalars.keys()
    losses = dict(events.scalars["Loss/total_loss"])
    assert sorted(losses) == [1, 2, 3, 4]
    assert all(np.isfinite(loss) and loss > 0 for loss in losses.values())
    pictures = events.pictures["train_middle_frame_with_groundtruth"]
    assert [step for step, _ in pictures] == [0, 0, 1, 1, 2, 2, 3, 3]  # of two clips
    for _, picture in pictures:
        frame = picture[60:380, 20:330]  # below the heading, above the list of actions
        assert abs(np.median(frame) - 2 * _LEVEL) < 3
    assert "train_input_images" not in events.pictures


def test_saved_pipeline_is_the_one_that_was_given(trained):
    saved = tiny_pipeline.parse((trained.model_dir / "pipeline.config").read_text())
    expected = tiny_pipeline.parse(trained.config.read_text())
    # What the stock loop writes down of its defaults.
    expected.train_config.fine_tune_checkpoint_type = "classification"
    expected.train_config.use_bfloat16 = False
    assert saved == expected


class _Evaluated:
    """What an evaluation left; its events stand beside those of the training."""

    def __init__(self, trained: _Trained):
        self.folder = trained.model_dir / "eval"
        # Of each batch: how many batches are still in memory while it is evaluated.
        self.batches_alive: list[int] = []
        frames: list[weakref.ref] = []
        stock = ava_evaluator.AvaDetectionEvaluator.add_eval_dict

        def add_eval_dict(evaluator, eval_dict):
            frames.append(weakref.ref(eval_dict["original_image"]))
            self.batches_alive.append(sum(frame() is not None for frame in frames))
            stock(evaluator, eval_dict)

        with mock.patch.object(ava_evaluator.AvaDetectionEvaluator, "add_eval_dict", add_eval_dict):
            model_lib_v2.eval_continuously(
                pipeline_config_path=str(trained.config),
                model_dir=str(trained.model_dir),
                checkpoint_dir=str(trained.model_dir),
                wait_interval=300,  # as the stock main has it; the timeout is shorter
                timeout=1,
            )


@pytest.fixture(scope="module")
def evaluated(trained):
    return _Evaluated(trained)


@pytest.mark.slow
def test_evaluation_holds_no_pictures(evaluated):
    assert len(evaluated.batches_alive) == 8
    # This batch and, until its names are taken by the next, the one before it.
    assert max(evaluated.batches_alive) <= 2


def test_evaluation_writes_metrics_and_pictures_of_the_middle_frame(evaluated):
    events = tiny_pipeline.read_events(evaluated.folder)
    assert sorted(events.pictures) == [
        *("eval_attention_0_0", "eval_attention_1_0"),
        *("eval_side_by_side_0_0", "eval_side_by_side_1_0"),
    ]
    for metric in (*_METRICS, *_LOSSES, "PascalBoxes_Precision/mAP@0.5IOU"):
        ((step, value),) = events.scalars[metric]
        assert step == 4
        assert np.isfinite(value) and value >= 0, metric
    ((_, with_people),) = events.pictures["eval_side_by_side_0_0"]
    ((_, empty),) = events.pictures["eval_side_by_side_1_0"]
    for picture in (with_people, empty):
        truth, found = np.split(picture, 2, axis=1)  # halves: ground truth, detections
        for frame in (truth[100:400], found[100:400]):
            assert abs(np.median(frame) - 2 * _LEVEL) <= 2
    # The first person stands at the left, at 0.1 of the frame; the other picture shows nobody.
    color = np.array(drawing.person_color(0))
    first_edge = with_people[150:250, 30:45].astype(int)
    assert (np.abs(first_edge - color).max(axis=-1) < 10).any(axis=1).all()
    bare = empty[100:400, 10:340].astype(int)
    assert np.abs(bare - 2 * _LEVEL).max() <= 2


def _shown(page: browser.Browser) -> list[str]:
    """The texts that a page shows and the addresses of its loaded pictures, in shadows too."""
    return page.run(
        """
        const found = [];
        const walk = root => root.querySelectorAll('*').forEach(element => {
          const box = element.getBoundingClientRect();
          if (box.width > 0 && box.height > 0)
            if (element.tagName === 'IMG') {
              if (element.complete && element.naturalWidth > 0) found.push(element.src);
            } else {
              const own = [...element.childNodes].filter(node => node.nodeType === Node.TEXT_NODE);
              found.push(own.map(node => node.data).join('').trim());
            }
          if (element.shadowRoot) walk(element.shadowRoot);
        });
        walk(document);
        return found.filter(text => text);
        """
    )


def _wait_until_shown(page: browser.Browser, *texts: str) -> list[str]:
    """What a page shows as soon as it holds all the texts."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = _shown(page)
        if all(any(text in one for one in found) for text in texts):
            return found
        time.sleep(0.3)
    raise AssertionError(f"{texts} are not all in {found}")


@pytest.mark.slow
def test_tensorboard_shows_scalars_and_pictures(trained, evaluated, tmp_path):
    browser.chromium(), browser.chromedriver()  # skips without them, before the server starts
    with tensorboard_server.TensorBoard(trained.model_dir, tmp_path) as board:
        _check_served_scalars(board)
        _check_served_pictures(board, evaluated)
        with browser.Browser(tmp_path, height=1400) as page:
            _check_pages(board, page, tiny_pipeline.read_events(evaluated.folder).pictures)


def _check_served_scalars(board: tensorboard_server.TensorBoard) -> None:
    tags = board.wait_for("/data/plugin/scalars/tags")
    assert {*_LOSSES, "learning_rate", "steps_per_sec"} <= tags["train"].keys()
    assert _LOSSES | _METRICS <= tags["eval"].keys()
    assert [step for step, _ in board.scalar("train", "Loss/total_loss")] == [1, 2, 3, 4]
    ((step, value),) = board.scalar("eval", "AvaDetectionBoxes_Precision/mAP@0.5IOU")
    assert step == 4 and 0 <= value <= 1


def _check_served_pictures(board: tensorboard_server.TensorBoard, evaluated: _Evaluated) -> None:
    tags = board.wait_for("/data/plugin/images/tags")
    written = tiny_pipeline.read_events(evaluated.folder).pictures
    assert tags["eval"].keys() == written.keys()
    assert tags["train"]["train_middle_frame_with_groundtruth"]["samples"] == 2
    for tag, pictures in written.items():
        for sample, (_, picture) in enumerate(pictures):
            (served,) = board.pictures("eval", tag, sample)
            np.testing.assert_array_equal(served, picture)


def _check_pages(
    board: tensorboard_server.TensorBoard, page: browser.Browser, written: dict
) -> None:
    """Scalars by their names, pictures by their content; `written` is by tag."""
    page.open(f"{board.url}/#scalars&tagFilter=IOU")
    _wait_until_shown(page, *_METRICS)
    page.open("about:blank")  # another fragment alone would not load the page again
    page.open(f"{board.url}/#scalars&tagFilter=Loss")
    _wait_until_shown(page, *_LOSSES)
    page.open("about:blank")
    page.open(f"{board.url}/#images&tagFilter=eval")
    _wait_until_shown(page, *written)
    expected = [picture for pictures in written.values() for _, picture in pictures[:1]]
    end = time.monotonic() + 60
    while time.monotonic() < end:
        urls = {text for text in _shown(page) if "individualImage" in text}
        served = [board.picture(url.removeprefix(board.url)) for url in urls]
        if all(any(np.array_equal(one, picture) for one in served) for picture in expected):
            return
        time.sleep(0.3)
    raise AssertionError(f"of {len(expected)} pictures, not all are among the shown {len(urls)}")


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
    shape = [_NUM_FRAMES, height, width, 3]
    return np.random.default_rng(5).integers(0, 256, shape, np.uint8)


def _detections(model, clip: np.ndarray) -> dict[str, np.ndarray]:
    """Of a clip, uint8 [T, H, W, 3]: eagerly, by the model itself, from pixels as evaluated."""
    resized, _ = model.image_resizer(tf.cast(clip_packing.pack_clip(tf.constant(clip)), tf.float32))
    preprocessed, shapes = model.preprocess(tf.floor(resized + 0.5)[tf.newaxis])
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
    # Loading takes seconds: the detector and the pictures get what was loaded here.
    with mock.patch.object(tf.saved_model, "load", functools.cache(tf.saved_model.load)):
        loaded = tf.saved_model.load(str(folder / "saved_model"))
        yield folder, loaded.signatures["serving_default"]


def test_saved_model_detects_what_the_checkpoints_model_detects(trained, exported):
    _, detect = exported
    model = _restored_model(trained)
    for size in ((48, 80), (64, 64), (101, 30)):
        clips = [_noise(*size), _noise(*size)[::-1]]
        actual = detect(input_tensor=tf.constant(np.stack(clips)))
        for index, clip in enumerate(clips):
            expected = _detections(model, clip)
            assert expected["num_detections"] > 0
            expected["detection_classes"] += 1  # ids of the label map
            assert set(actual) == set(expected)
            for name, value in expected.items():
                np.testing.assert_allclose(actual[name][index], value[0], atol=1e-5, err_msg=name)


def test_exported_signature_is_clips_of_any_size(exported):
    _, detect = exported
    ((name, spec),) = detect.structured_input_signature[1].items()
    assert name == "input_tensor"
    assert spec == tf.TensorSpec([None, 8, None, None, 3], tf.uint8, name="input_tensor")


def test_label_map_and_description_travel_in_the_assets(exported):
    assets = exported[0] / "saved_model" / "assets"
    description = exporting.ClipDescription.from_json((assets / "clip.json").read_text())
    assert description == exporting.ClipDescription("clip_tensor", 8, None, 1, 6, (64, 64))
    assert label_maps.read_label_map(str(assets / "label_map.pbtxt")) == tiny_pipeline.ACTIONS


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
    levels = (_LEVEL * _IN_CLIP).astype(np.uint8)
    frames = np.ones([1, 8, 64, 64, 3], np.uint8) * levels[:, None, None, None]
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


def test_warm_up_request_runs_on_the_signature(exported):
    folder, detect = exported
    request = fake_servers.warmup_request(folder / "saved_model")
    clip = tf.make_ndarray(request.inputs["input_tensor"])
    assert clip.shape == (1, _NUM_FRAMES, 64, 64, 3)
    outputs = detect(input_tensor=tf.constant(clip))
    for name, value in outputs.items():
        # TF Serving batches requests only if all outputs have the batch in front.
        assert value.shape[0] == 1 and np.isfinite(value).all(), name


_DETECTOR_OPTIONS = {"score_threshold": 0.0, "keep_attention": True}


@pytest.fixture(scope="module")
def detector(exported):
    return ActionDetector(exported[0] / "saved_model", fps=_FPS, **_DETECTOR_OPTIONS)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """3 s of noise."""
    path = tmp_path_factory.mktemp("video") / "noise.mp4"
    noise = np.random.default_rng(0).integers(0, 256, [round(3 * _FPS), 50, 70, 3], np.uint8)
    drawing.write_video(path, iter(noise), _FPS)
    return path


def _assert_same_people(actual, expected):
    assert [keyframe.time for keyframe in actual] == [keyframe.time for keyframe in expected]
    for found, wanted in zip(actual, expected, strict=True):
        assert len(found.people) == len(wanted.people) > 0
        for person, other in zip(found.people, wanted.people, strict=True):
            assert person.scores == pytest.approx(other.scores, abs=1e-5)
            np.testing.assert_allclose(person.box, other.box, atol=1e-5)
            np.testing.assert_allclose(person.attention, other.attention, atol=1e-5)


@pytest.mark.slow
def test_detector_gives_what_signature_and_checkpoint_give(trained, exported, detector, video):
    keyframes = list(detector(video))
    reader = video_reader.ClipReader(video, num_frames=_NUM_FRAMES, fps=_FPS)
    for keyframe, clip in zip(keyframes, reader.clips([0.0, 1.0, 2.0]), strict=True):
        outputs = exported[1](input_tensor=tf.constant(np.stack(clip.frames)[np.newaxis]))
        best = float(outputs["detection_scores"][0, 0])
        assert keyframe.people[0].score == pytest.approx(best, abs=1e-6)
    restored = ActionDetector.from_checkpoint(
        trained.config, trained.model_dir, fps=_FPS, **_DETECTOR_OPTIONS
    )
    _assert_same_people(list(restored(video)), keyframes)


def test_exported_trunk_on_a_stretch_of_one_clip_gives_what_the_clip_gives(detector, video):
    shared = ActionDetector(detector.model, share_trunk=True, **_DETECTOR_OPTIONS)
    # Clips of 0.4 s, a second apart, do not touch.
    _assert_same_people(list(shared(video)), list(detector(video)))


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
    killed_at = files.step_of_newest(str(model_dir))
    assert 0 < killed_at < 45
    result = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"training: from step {killed_at} to 45" in result.stderr
    assert files.step_of_newest(str(model_dir)) == 45
    # The skipped clip was reported.
    assert "clip skipped: a frame of" in result.stderr
