# SPDX-License-Identifier: Apache-2.0
"""The tool with a tiny SavedModel whose attention and keys are known; end_to_end_test: a real one.

Shapes: T frames, N detections, L layers and M heads, t h w cells, D size of a key.
"""

import json
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from PIL import Image

from object_detection_ext import errors, input_types
from object_detection_ext.data import record_files, video_info
from object_detection_ext.inference import model as model_lib
from object_detection_ext.tools import visualize
from object_detection_ext.visualization import attention, drawing
from tests import command_lines, tiny_pipeline

_LABELS = {1: "stand", 3: "watch (a person)"}
_BOX, _FAR = [0.2, 0.3, 0.8, 0.6], [0.1, 0.7, 0.5, 0.95]
_OPTIONS_NAME = "[object_detection_ext.protos.video_action_transformer]"


def _attention():
    """[N, L, M, t, h, w]: the last layer's head m of detection n has all at cell (m, n, 3 m)."""
    weights = np.full([4, 2, 2, 2, 3, 4], 1 / 24, np.float32)
    weights[:, 1] = 0
    for detection in range(4):
        for head in range(2):
            weights[detection, 1, head, head, detection % 3, 3 * head] = 1
    return weights


def _keys():
    """[L, M, t, h, w, D]: the last layer's first head tells left from right, the second nothing."""
    keys = np.random.default_rng(0).normal(size=[2, 2, 2, 3, 4, 5]).astype(np.float32)
    keys[1] = 0
    keys[1, 0, :, :, 2:] = [1, 2, 0, 0, 1]
    return keys


class _Detector(tf.Module):
    """The same detections for every clip of 4 frames, with what is asked for."""

    def __init__(self, *more):
        super().__init__()
        outputs = {"detection_attention": _attention(), "key_embeddings": _keys()}
        self._more = {name: tf.constant(outputs[name])[None] for name in more}

    @tf.function(input_signature=[tf.TensorSpec([1, 4, None, None, 3], tf.uint8)])
    def detect(self, input_tensor):
        del input_tensor
        return {
            # An unknown action, a person with two actions, another person.
            "detection_boxes": tf.constant([[_BOX, _BOX, _FAR, _BOX]]),
            "detection_scores": tf.constant([[0.95, 0.8, 0.5, 0.6]]),
            "detection_classes": tf.constant([[2.0, 1.0, 1.0, 3.0]]),
            "num_detections": tf.constant([4.0]),
            **self._more,
        }


def _save(folder, *more):
    module = _Detector(*more)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.detect})
    return str(folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visualize")
    _save(folder / "exported" / "saved_model", "detection_attention", "key_embeddings")
    frames = (np.full((48, 64, 3), 100, np.uint8) for _ in range(12))
    drawing.write_video(folder / "clip.mp4", frames, 10)
    tiny_pipeline.write_label_map(folder / "labels.pbtxt", _LABELS)
    people = [(_FAR, "stand"), (_FAR, "watch (a person)")]
    record = tiny_pipeline.make_record(tiny_pipeline.gray_frames(6), {2: people}, video_id="film/a")
    tiny_pipeline.write_records(folder / "eval.record", [record])
    return folder


def _options(files, output, **changes):
    values = {
        "saved_model": str(files / "exported" / "saved_model"),
        "video": str(files / "clip.mp4"),
        "label_map": str(files / "labels.pbtxt"),
        "output": str(output),
        **changes,
    }
    return visualize.Options(**values)


def _summary(options):
    with open(visualize.run(options), encoding="utf-8") as file:
        return json.load(file)


def test_video_to_pictures(files, tmp_path, capsys):
    summary = _summary(_options(files, tmp_path, every=0.5, max_keyframes=2, fps=10.0))
    assert [(clip["video"], clip["seconds"]) for clip in summary["clips"]] == [
        ("clip", 0.0), ("clip", 0.5),
    ]  # fmt: skip
    people = summary["clips"][1]["people"]
    assert [person["actions"] for person in people] == [
        {"stand": 0.8, "watch (a person)": 0.6}, {"stand": 0.5},
    ]  # fmt: skip
    # The attention is that of the detection that gave the person's box: numbers 1 and 2.
    for person, row in zip(people, (1, 2), strict=True):
        maps = person["attention"]
        assert list(maps) == ["mean of heads", "head 1", "head 2"]
        for head, (frame, x) in {"head 1": (1, 0.125), "head 2": (3, 0.875)}.items():
            peak = maps[head]["peak"]
            assert peak == {
                "frame": frame, "y": pytest.approx((row + 0.5) / 3, abs=1e-4), "x": x,
                "times_uniform": 24.0,
            }  # fmt: skip
        assert maps["mean of heads"]["peak"]["times_uniform"] == 12.0
        np.testing.assert_allclose(maps["head 1"]["frame_mass"], [0.5, 0.375, 0.125, 0], atol=1e-6)
        np.testing.assert_allclose(maps["mean of heads"]["frame_mass"], 0.25)
    # Left and right differ in one direction; the second head's keys are all the same.
    parts = summary["clips"][1]["embeddings"]["variance_of_components"]
    np.testing.assert_allclose(parts, [[1, 0, 0], [0, 0, 0]], atol=1e-4)
    names = ["0000_person1_attention", "0000_person2_attention", "0000_embeddings"]
    names += [name.replace("0000", "0.5") for name in names]
    expected = {f"clip_{name}.{kind}" for name in names for kind in ("png", "mp4")}
    assert {path.name for path in tmp_path.iterdir()} == {*expected, "clip_attention.json"}
    assert expected == {
        name
        for clip in summary["clips"]
        for part in (*clip["people"], clip["embeddings"])
        for name in part["files"]
    }
    said = capsys.readouterr().out
    assert "clips of 4 frames at 10 per second" in said
    assert "the first 2 of 3 keyframes (--max_keyframes)" in said
    assert "4 people on 2 keyframes" in said


def test_pictures_show_the_weights_where_they_are(files, tmp_path):
    visualize.run(_options(files, tmp_path, max_people=1, fps=10.0))
    strip = np.asarray(Image.open(tmp_path / "clip_0000_person1_attention.png")).astype(int)
    assert not (tmp_path / "clip_0000_person2_attention.png").exists()
    rows, columns = np.nonzero(np.ptp(strip, axis=-1) > 40)
    # Four frames of 208x156 pixels behind the labels: head 1 is the left end of the third row,
    # head 2 the right end of the last one.
    tile = strip.shape[1] - 4 * (208 + 6)
    third = (rows > strip.shape[0] - 2 * 180) & (rows < strip.shape[0] - 200) & (columns < 500)
    assert third.sum() > 500
    last = rows > strip.shape[0] - 180
    assert last.sum() > 500 and columns[last].min() > tile + 208
    with av.open(str(tmp_path / "clip_0000_person1_attention.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert float(container.streams.video[0].average_rate) == 10
    assert len(frames) == 4
    # The lower left panel is head 1, whose frames are the first two of the four.
    size = frames[0].shape
    panels = [frame[size[0] // 2 + 40 : -40, 20 : size[1] // 3].astype(int) for frame in frames]
    lit = [(np.ptp(panel, axis=-1) > 60).sum() for panel in panels]
    assert lit[0] > 300 and lit[1] > 300 and lit[3] < 30


def test_records_bring_their_ground_truth(files, tmp_path, monkeypatch, capsys):
    filmstrip, drawn = attention.filmstrip, []

    def spy(clip, *arguments, **kwargs):
        drawn.append((clip, kwargs["truth"], kwargs["title"]))
        return filmstrip(clip, *arguments, **kwargs)

    monkeypatch.setattr(attention, "filmstrip", spy)
    options = _options(files, tmp_path, video=None, records=str(files / "eval.reco*"))
    (clip,) = _summary(options)["clips"]
    assert (clip["video"], clip["seconds"], clip["num_frames"]) == ("film/a", 2, 4)
    ((truth),) = clip["groundtruth"]
    np.testing.assert_allclose(truth["box"], _FAR, atol=1e-4)
    assert list(truth["actions"]) == ["stand", "watch (a person)"]
    assert (tmp_path / "film_a_0002_person1_attention.png").is_file()
    for frames, people, _ in drawn:
        # Frame k of the record is the gray level 10 k, and the keyframe is number 2.
        np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [0, 10, 20, 30], atol=1)
        (person,) = people
        np.testing.assert_allclose(person.box, _FAR, atol=1e-6)
    assert [title for _, _, title in drawn] == [
        "film/a at 2 s, person 1 of 2: stand 0.80, watch (a person) 0.60 "
        "(not in the ground truth, white)",
        "film/a at 2 s, person 2 of 2: stand 0.50 (ground truth, white: stand, watch (a person))",
    ]
    assert "2 people on 1 keyframe " in capsys.readouterr().out


def test_captions_compare_with_the_ground_truth():
    person = drawing.DetectedPerson(tuple(_BOX), (("stand", 0.8),))
    frames = np.zeros([4, 8, 8, 3], np.uint8)
    near = drawing.DetectedPerson((0.25, 0.3, 0.8, 0.6), (("walk", None),))
    far = drawing.DetectedPerson(tuple(_FAR), (("sit", None),))
    captions = [
        visualize._caption(person, visualize.Clip("v", 1.0, frames, None, truth))
        for truth in ((), (far, near), (far,))
    ]
    assert captions == [
        "stand 0.80",
        "stand 0.80 (ground truth, white: walk)",
        "stand 0.80 (not in the ground truth, white)",
    ]


def test_nobody_is_said_with_the_best_score(files, tmp_path, capsys):
    summary = _summary(_options(files, tmp_path, score_threshold=0.99, max_keyframes=1))
    assert summary["clips"][0]["people"] == []
    assert "The best score of all was 0.95" in capsys.readouterr().out


def test_models_assets_tell_labels_and_frame_rate(files, tmp_path, capsys):
    assets = files / "exported" / "saved_model" / "assets"
    assets.mkdir(exist_ok=True)
    description = input_types.ClipDescription("clip_tensor", 4, 5.0, 1, 6)
    (assets / "clip.json").write_text(description.to_json())
    tiny_pipeline.write_label_map(assets / "label_map.pbtxt", _LABELS)
    try:
        summary = _summary(_options(files, tmp_path, max_keyframes=1, label_map=None))
        assert summary["clips"][0]["fps"] == 5.0
        assert list(summary["clips"][0]["people"][1]["actions"]) == ["stand"]
        assert "clips of 4 frames at 5 per second" in capsys.readouterr().out
    finally:
        shutil.rmtree(assets)


def test_pipeline_that_is_none_is_named(files, tmp_path):
    path = files / "exported" / "pipeline.config"
    path.write_text("model { nonsense")
    try:
        with pytest.raises(visualize.VisualizationError, match="is no pipeline.config"):
            visualize.run(_options(files, tmp_path))
    finally:
        path.unlink()


def test_placement_follows_resizer_and_trunk():
    pipeline = tiny_pipeline.make_pipeline()  # I3D, 64 x 64 pixels
    assert visualize.placement(None, (4, 48, 64), (1, 4, 4)) == attention.EVEN
    extent, shift = visualize.placement(pipeline, (4, 48, 64), (1, 4, 4))
    # Strides of 4 frames and 16 pixels: the cell's middle is 1.5 and 7.5 before its last one.
    assert extent == (1.0, 1.0) and shift == (1.5 / 4, 7.5 / 16, 7.5 / 16)
    assert visualize.placement(pipeline, (5, 48, 64), (2, 4, 4)).shift[0] == 0
    pipeline.model.faster_rcnn.feature_extractor.type = "faster_rcnn_r3d50_keras"
    assert visualize.placement(pipeline, (8, 48, 64), (1, 4, 4)).shift == (
        -3.5 / 8, -7.5 / 16, -7.5 / 16,
    )  # fmt: skip
    resizer = pipeline.model.faster_rcnn.image_resizer.keep_aspect_ratio_resizer
    resizer.min_dimension, resizer.max_dimension = 50, 100
    grid = (1, 4, 4)
    assert visualize.placement(pipeline, (4, 30, 80), grid).extent == (1.0, 1.0)
    resizer.pad_to_max_dimension = True
    assert visualize.placement(pipeline, (4, 25, 50), grid).extent == (0.5, 1.0)


def test_model_without_attention_is_refused_with_the_command(files, tmp_path):
    path = _save(tmp_path / "plain" / "saved_model")
    with pytest.raises(visualize.VisualizationError) as error:
        visualize.run(_options(files, tmp_path / "out", saved_model=path))
    message = str(error.value)
    assert "returns neither detection_attention nor key_embeddings" in message
    assert "exporter_main_v2 --input_type=clip_tensor" in message
    assert (
        f"--config_override='{_OPTIONS_NAME} "
        "{ outputs { attention: true key_embeddings: true } }'" in message
    )
    assert "--trained_checkpoint_dir=MODEL_DIR" in message
    assert not (tmp_path / "out").exists()
    # What the exporter left beside the model is filled in.
    (tmp_path / "plain" / "checkpoint").mkdir()
    config = tmp_path / "plain" / "pipeline.config"
    config.write_text("model { }")
    with pytest.raises(visualize.VisualizationError) as error:
        visualize.run(_options(files, tmp_path / "out", saved_model=path + "/"))
    assert f"--pipeline_config_path={config}" in str(error.value)
    assert f"--trained_checkpoint_dir={tmp_path / 'plain' / 'checkpoint'}" in str(error.value)
    config.write_text(f"{_OPTIONS_NAME} {{ i3d_head {{ }} }}")
    with pytest.raises(visualize.VisualizationError, match="i3d_head, which has no attention"):
        visualize.run(_options(files, tmp_path / "out", saved_model=path))


def test_model_with_one_output_shows_that_and_says_so(files, tmp_path, capsys):
    path = _save(tmp_path / "keys" / "saved_model", "key_embeddings")
    output = tmp_path / "out"
    summary = _summary(_options(files, output, saved_model=path, max_keyframes=1))
    assert "attention" not in summary["clips"][0]["people"][0]
    assert len(list(output.glob("*_embeddings.*"))) == 2 and not list(output.glob("*person*"))
    assert "no output detection_attention: those pictures are left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"saved_model": "no/model"}, "'no/model' holds no saved_model.pb"),
        ({"label_map": "no.pbtxt"}, "no.pbtxt: "),
        ({"video": None}, "give either --video or --records"),
        ({"records": "some.record"}, "give either --video or --records"),
        ({"video": None, "records": "r", "fps": 10.0}, "--fps is for --video"),
        ({"video": None, "records": "r", "every": 1.0}, "--every is for --video"),
        ({"every": 0.0}, "--every must be at least 0.001"),
        ({"every": 1e-9}, "--every must be at least 0.001 seconds, not 1e-09"),
        ({"score_threshold": 1.5}, r"--score_threshold must be in \[0, 1\], not 1.5"),
        ({"score_threshold": float("nan")}, r"--score_threshold must be in \[0, 1\], not nan"),
        ({"fps": -1.0}, "--fps must be 0.001 to 1000"),
        ({"max_people": 0}, "--max_people must be at least 1, not 0"),
        ({"max_keyframes": 0}, "--max_keyframes must be at least 1, not 0"),
    ],
)
def test_options_out_of_range(files, tmp_path, changes, message):
    with pytest.raises(errors.InputError, match=message):
        visualize.run(_options(files, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_missing_input_is_named_before_the_model_is_loaded(files, tmp_path, monkeypatch):
    def load(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(model_lib, "load_saved_model", load)
    with pytest.raises(video_info.VideoError, match="none.mp4: there is no such"):
        visualize.run(_options(files, tmp_path, video="none.mp4"))
    with pytest.raises(record_files.RecordFileError, match="No record file matches 'none-"):
        visualize.run(_options(files, tmp_path, video=None, records="none-*"))


def test_errors_come_before_tensorflow_is_loaded():
    code = (
        "import sys\n"
        "from object_detection_ext import errors\n"
        "from object_detection_ext.tools import visualize as v\n"
        "try:\n"
        "    v.run(v.Options('no', 'out', video='no.mp4'))\n"
        "except errors.InputError:\n"
        "    print('tensorflow' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "False"


def test_command_line(files, tmp_path, capsys):
    def run(*arguments):
        values = flags.FlagValues()
        visualize.define_flags(values)
        values(["visualize", *arguments])
        visualize.main(["visualize"], values)

    common = [
        f"--saved_model={files / 'exported' / 'saved_model'}",
        f"--label_map={files / 'labels.pbtxt'}",
        f"--output={tmp_path}",
    ]
    with command_lines.ends(capsys, 2, "^error: give either --video or --records"):
        run(*common)
    run(*common, f"--records={files / 'eval.record'}", "--score_threshold=0.7")
    assert "1 person on 1 keyframe (score at least 0.7)" in capsys.readouterr().out
    assert (tmp_path / "records_attention.json").is_file()
