# SPDX-License-Identifier: Apache-2.0
"""Loading models, and what is said of those that do not fit."""

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext import devices, errors, options, precision, registration
from object_detection_ext.ava import faults
from object_detection_ext.inference import model as model_lib
from object_detection_ext.inference.detector import ActionDetector
from tests import tiny_pipeline
from tests.inference import fake_models

_DESCRIPTION = {"fps": 12.5, "frame_size": [48, 64]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return fake_models.save(fake_models.Detector(), folder / "saved_model", _DESCRIPTION)


def _clips(batch, num_frames=fake_models.NUM_FRAMES):
    return np.zeros([batch, num_frames, 8, 8, 3], np.uint8)


def test_assets_are_all_that_is_needed(saved):
    model = model_lib.load_saved_model(saved)
    assert (model.num_frames, model.fps, model.frame_size) == (4, 12.5, (48, 64))
    assert model.label_map == fake_models.LABELS
    assert model.takes_batches and "detection_attention" not in model.outputs
    assert model_lib.load_saved_model(saved, fps=30.0).fps == 30.0


def test_each_clip_has_its_own_detections(saved):
    clips = _clips(3)
    clips[1] += 51
    clips[2] += 255
    found = model_lib.load_saved_model(saved)(clips)
    assert [clip["detection_scores"][0] for clip in found] == pytest.approx([0.0, 0.2, 1.0])
    assert found[0]["detection_boxes"].shape == (5, 4)
    assert found[0]["detection_classes"].tolist() == [1, 3, 1, 3, 2]


def test_model_of_single_clips_is_called_for_each(tmp_path):
    path = fake_models.save(fake_models.Detector(batch=1), tmp_path / "one", {})
    model = model_lib.load_saved_model(path)
    clips = _clips(2)
    clips[1] += 51
    assert not model.takes_batches
    assert [c["detection_scores"][0] for c in model(clips)] == pytest.approx([0.0, 0.2])


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (_clips(1, 3), "takes clips of 4 frames, not of 3"),
        (_clips(1).astype(np.float32), "must be uint8"),
        (_clips(1)[0], "must be uint8"),
    ],
)
def test_clips_that_do_not_fit(saved, clips, message):
    with pytest.raises(errors.InputError, match=message):
        model_lib.load_saved_model(saved)(clips)


def test_open_clip_length(saved, tmp_path):
    path = fake_models.save(fake_models.OpenLengthModel(), tmp_path / "open", {})
    with pytest.raises(model_lib.ModelError, match="give it as num_frames"):
        model_lib.load_saved_model(path)
    (found,) = model_lib.load_saved_model(path, num_frames=7)(_clips(1, 7))
    assert found["detection_scores"] == pytest.approx([0.7])
    with pytest.raises(model_lib.ModelError, match="clips of 4 frames, but num_frames is 7"):
        model_lib.load_saved_model(saved, num_frames=7)


def test_models_that_take_no_clips(tmp_path):
    path = fake_models.save(fake_models.ImageModel(), tmp_path / "image", {})
    with pytest.raises(model_lib.ModelError, match=r"must take input_tensor uint8 \[B, T"):
        model_lib.load_saved_model(path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"nothing")
    labels = fake_models.write_label_map(tmp_path / "l.pbtxt")
    with pytest.raises(model_lib.ModelError, match="cannot be loaded as a SavedModel"):
        model_lib.load_saved_model(str(tmp_path / "broken"), label_map=labels)
    with pytest.raises(model_lib.ModelError, match="holds no saved_model.pb"):
        model_lib.load_saved_model(str(tmp_path / "none"))


def test_model_on_another_machine():
    with pytest.raises(model_lib.ModelError, match="gs://b/m: copy the exported model"):
        model_lib.load_saved_model("gs://b/m")


def test_label_map_is_needed_and_read(tmp_path, capsys):
    path = fake_models.save(fake_models.Detector(), tmp_path / "bare")
    with pytest.raises(model_lib.ModelError, match="holds no label map; give one: label_map"):
        model_lib.load_saved_model(path)
    (tmp_path / "bad.pbtxt").write_text("hello")
    with pytest.raises(faults.AnnotationError, match="not a label map"):
        model_lib.load_saved_model(path, label_map=str(tmp_path / "bad.pbtxt"))
    given = model_lib.load_saved_model(
        path, label_map=fake_models.write_label_map(tmp_path / "l.pbtxt")
    )
    assert given.label_map == fake_models.LABELS
    assert given.fps == 25.0
    assert "does not tell its frame rate" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_broken_description_is_named(tmp_path, text):
    path = fake_models.save(fake_models.Detector(), tmp_path / "m", {})
    (tmp_path / "m" / "assets" / "clip.json").write_text(text)
    with pytest.raises(errors.InputError, match="clip.json: not a clip description"):
        model_lib.load_saved_model(path)


_GIVEN = [np.array([[0.1, 0.1, 0.5, 0.5], [0.2, 0.3, 0.9, 0.8], [0.0, 0.0, 1.0, 1.0]]),
          np.zeros([0, 4]), np.array([[0.4, 0.4, 0.6, 0.6]])]  # fmt: skip


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("max_boxes", [2, 8])
def test_given_boxes_go_to_their_clips_whatever_their_number(tmp_path, batch, max_boxes):
    module = fake_models.BoxModel(batch, attention=True)
    path = fake_models.save(module, tmp_path / "m", {"max_boxes": max_boxes})
    model = model_lib.load_saved_model(path)
    assert model.takes_boxes and model.takes_batches == (batch is None)
    clips = _clips(3)
    clips += np.array([10, 80, 200], np.uint8).reshape([3, 1, 1, 1, 1])
    found = model(clips, _GIVEN)
    for clip, given, detections in zip(clips, _GIVEN, found, strict=True):
        np.testing.assert_allclose(detections["detection_boxes"], given, atol=1e-6)
        expected = np.full(len(given), clip[2].mean() / 255)
        np.testing.assert_allclose(detections["detection_scores"], expected, atol=1e-5)
        assert detections["detection_classes"].tolist() == [1] * len(given)
    assert found[0]["detection_attention"].shape == (3, 1, 1, 2, 2, 2)
    assert found[0]["key_embeddings"].shape == (1, 1, 2, 2, 2, 3)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (None, "needs the people's boxes"),
        ([np.zeros([1, 4])], "2 clips, but boxes of 1"),
        ([np.zeros([1, 5])] * 2, r"must be \[G, 4\], not \[1, 5\]"),
        ([np.array([[10, 10, 50, 50]])] * 2, r"normalized to \[0, 1\], not \[10.0, 10.0"),
        ([np.array([[0, 0, 0.5, np.nan]])] * 2, r"normalized to \[0, 1\], not"),
    ],
)
def test_boxes_that_do_not_fit(tmp_path, boxes, message):
    path = fake_models.save(fake_models.BoxModel(), tmp_path / "m", {})
    with pytest.raises(errors.InputError, match=message):
        model_lib.load_saved_model(path)(_clips(2), boxes)


def test_boxes_for_a_model_with_proposals_of_its_own(saved):
    with pytest.raises(errors.InputError, match="takes no boxes"):
        model_lib.load_saved_model(saved)(_clips(1), _GIVEN[:1])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_exported_model_that_diverged_is_refused(tmp_path, value):
    detector = fake_models.Detector()
    detector.weight, detector.bias = tf.Variable([1.0, value]), tf.Variable(0.0)
    path = fake_models.save(detector, tmp_path / "m", {})
    with pytest.raises(model_lib.ModelError) as info:
        model_lib.load_saved_model(path)
    assert f"{path}: the model cannot be used: 1 of its 2 variables has NaN" in str(info.value)
    assert "values: weight." in str(info.value)


@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001"])
def test_exported_model_with_damaged_variables_is_named(tmp_path, name):
    detector = fake_models.Detector()
    detector.weight = tf.Variable(tf.ones([100]))
    path = fake_models.save(detector, tmp_path / "m", {})
    damaged = tmp_path / "m/variables" / name
    damaged.write_bytes(damaged.read_bytes()[:50])
    with pytest.raises(errors.InputError, match=f"{damaged} is cut off or damaged"):
        model_lib.load_saved_model(path)


@pytest.mark.slow
def test_checkpoint_gives_what_its_model_gives(tmp_path):
    registration.register()
    config = tiny_pipeline.write_pipeline(
        tmp_path / "pipeline.config",
        "[object_detection_ext.protos.video_action_transformer] { clip { fps: 10 } }",
        label_map=tiny_pipeline.write_label_map(tmp_path / "l.pbtxt"),
        train=tmp_path / "train.record",
        evaluation=tmp_path / "eval.record",
    )
    for name in ("train.record", "eval.record"):
        people = {2: [([0.1, 0.1, 0.5, 0.5], "walk")]}
        record = tiny_pipeline.make_record(tiny_pipeline.gray_frames(4), people)
        tiny_pipeline.write_records(tmp_path / name, [record])
    with pytest.raises(errors.InputError, match="There is no checkpoint in"):
        model_lib.load_checkpoint(str(config), str(tmp_path))
    model = tiny_pipeline.build_model(registration.read_pipeline(str(config)), is_training=False)
    images, shapes = model.preprocess(tf.zeros([1, 64, 64, 12]))
    expected = model.postprocess(model.predict(images, shapes), shapes)
    tf.train.Checkpoint(model=model).save(str(tmp_path / "ckpt"))
    loaded = model_lib.load_checkpoint(str(config), str(tmp_path))
    assert (loaded.num_frames, loaded.fps, loaded.frame_size) == (4, 10.0, (64, 64))
    assert loaded.label_map == tiny_pipeline.ACTIONS
    (found,) = loaded(np.zeros([1, 4, 64, 64, 3], np.uint8))
    count = int(expected["num_detections"][0])
    np.testing.assert_allclose(
        found["detection_scores"], expected["detection_scores"][0, :count], atol=1e-5
    )
    with pytest.raises(errors.InputError, match="num_classes: 3 in the checkpoint, 7 in"):
        model_lib.load_checkpoint(
            str(config),
            str(tmp_path / "ckpt-1"),
            config_override="model { faster_rcnn { num_classes: 7 } }",
        )
    classes = tmp_path / "classes.config"
    classes.write_text("model { faster_rcnn { num_classes: 7 } }")
    with pytest.raises(errors.InputError, match="num_classes: 3 in the checkpoint, 8 in"):
        ActionDetector.from_checkpoint(
            config,
            tmp_path / "ckpt-1",
            config_override="model { faster_rcnn { num_classes: 8 } }",
            config_override_paths=[classes],
        )
    with pytest.raises(errors.InputError, match="num_classes: 3 in the checkpoint, 7 in"):
        ActionDetector.from_checkpoint(config, tmp_path / "ckpt-1", config_override_paths=[classes])
    given = model_lib.load_checkpoint(str(config), str(tmp_path / "ckpt-1"), takes_boxes=True)
    assert given.takes_boxes
    box = np.array([[0.1, 0.1, 0.6, 0.5]])
    one, nobody = given(np.zeros([2, 4, 64, 64, 3], np.uint8), [box, np.zeros([0, 4])])
    assert len(one["detection_scores"]) and not len(nobody["detection_scores"])


def test_devices_are_set_up_before_a_model_is_loaded(tmp_path, monkeypatch):
    """Loading starts the GPUs; afterwards their memory is taken."""
    works = []

    def announce(work):
        works.append(work)
        raise KeyboardInterrupt

    monkeypatch.setattr(devices, "announce", announce)
    monkeypatch.setattr(tf.saved_model, "load", lambda path: pytest.fail("it was loaded"))
    (tmp_path / "saved_model.pb").touch()
    label_map = tiny_pipeline.write_label_map(tmp_path / "l.pbtxt", {1: "stand"})
    with pytest.raises(KeyboardInterrupt):
        model_lib.load_saved_model(str(tmp_path), label_map=str(label_map))
    with pytest.raises(KeyboardInterrupt):
        model_lib.load_checkpoint("no.config", "no folder")
    assert works == [devices.INFERENCE, devices.INFERENCE]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_frames": 64}, "num_frames is 64, but the model takes 4 frames"),
        ({"input_type": "clip_and_boxes"}, "input_type is clip_and_boxes, but .* of clip_tensor"),
        ({"input_type": "encoded_clip"}, "input_type is encoded_clip, but"),
    ],
)
def test_description_of_another_model_is_refused(tmp_path, changes, message):
    path = fake_models.save(fake_models.Detector(), tmp_path / "m", {**_DESCRIPTION, **changes})
    with pytest.raises(errors.InputError, match=f"clip.json: {message}.*; export the model again"):
        model_lib.load_saved_model(path)


@pytest.mark.parametrize("damage", ['"frame_size": [-1, -1]', '"fps": 0', '"a": ' + "[" * 100_000])
def test_damaged_description_is_refused(tmp_path, damage):
    path = fake_models.save(fake_models.Detector(), tmp_path / "m", _DESCRIPTION)
    file = tmp_path / "m" / "assets" / "clip.json"
    file.write_text(file.read_text().rstrip().removesuffix("}") + f", {damage} }}")
    with pytest.raises(errors.InputError, match="clip.json: not a clip description: .{,200}$"):
        model_lib.load_saved_model(path)


def test_precision_of_an_export_is_known_and_kept(tmp_path, saved, monkeypatch, capsys):
    monkeypatch.setattr(precision, "_warned", set())
    monkeypatch.setattr(precision, "why_slow", lambda tf: "it is slow")
    path = fake_models.save(fake_models.Detector(), tmp_path / "m", {"precision": "bfloat16"})
    assert model_lib.load_saved_model(path, precision="BFLOAT16").precision == "bfloat16"
    assert "warning: precision bfloat16: it is slow" in capsys.readouterr().err
    assert model_lib.load_saved_model(saved).precision == "float32"
    assert "bfloat16" not in capsys.readouterr().err
    monkeypatch.setattr(tf.saved_model, "load", lambda path: pytest.fail("it was loaded"))
    with pytest.raises(errors.InputError, match="was exported in bfloat16, .* cannot be float32"):
        model_lib.load_saved_model(path, precision="float32")
    (tmp_path / "m" / "assets" / "clip.json").unlink()
    with pytest.raises(errors.InputError, match="does not say its precision"):
        model_lib.load_saved_model(path, precision="bfloat16")
    for load, arguments in ((model_lib.load_checkpoint, ("no.config", "none")),
                            (model_lib.load_saved_model, (path,))):  # fmt: skip
        with pytest.raises(errors.InputError, match="must be float32 or bfloat16, not ''"):
            load(*arguments, precision="")


def test_precision_that_is_asked_for_wins_and_a_contradiction_is_said(tmp_path, capsys):
    registration.register()
    config = tiny_pipeline.write_pipeline(
        tmp_path / "pipeline.config",
        "train_config { use_bfloat16: true } "
        "[object_detection_ext.protos.video_action_transformer] { compute { precision: FLOAT32 } }",
    )
    pipeline = model_lib._read_pipeline(str(config), None, None)
    assert options.precision_name(pipeline) == "float32"
    assert "no effect: train_config.use_bfloat16: true: " in capsys.readouterr().err
    pipeline = model_lib._read_pipeline(str(config), None, "bfloat16")
    assert options.precision_name(pipeline) == "bfloat16"
    assert capsys.readouterr().err == ""
