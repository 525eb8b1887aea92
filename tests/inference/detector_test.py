# SPDX-License-Identifier: Apache-2.0
"""ActionDetector on every kind of source, with a model that reads its answer off the pixels.

Frame i of the test video has the brightness 4 i, at 20 frames a second: at t seconds the first
person's surest action has the score 80 t / 255.
"""

import av
import numpy as np
import pytest
from PIL import Image

import object_detection_ext
from object_detection_ext import errors
from object_detection_ext.data import video_reader
from object_detection_ext.inference import annotated_video
from object_detection_ext.inference.detector import ActionDetector
from tests.inference import fake_models

_DESCRIPTION = {"fps": fake_models.FPS, "frame_size": [48, 64]}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    fake_models.save(fake_models.Detector(), folder / "model", _DESCRIPTION)
    fake_models.write_video(folder / "clip.mp4")
    return folder


@pytest.fixture(scope="module")
def detector(files):
    return ActionDetector(files / "model", score_threshold=0.2)


def _scores(keyframes):
    return [max((p.score for p in keyframe.people), default=0.0) for keyframe in keyframes]


def test_three_lines(files, detector):
    assert object_detection_ext.ActionDetector is ActionDetector
    keyframes = list(detector(files / "clip.mp4", every_seconds=1.0))
    assert [keyframe.time for keyframe in keyframes] == [0.0, 1.0, 2.0]
    assert {keyframe.video for keyframe in keyframes} == {"clip"}
    nobody, one, two = keyframes
    assert nobody.people == () and nobody.frame is None
    # Rows that nearly cover each other are one person; action 2 is not in the label map.
    np.testing.assert_allclose(one.boxes, [fake_models.BOX])
    assert list(one.actions[0]) == ["stand", "hand wave"]
    np.testing.assert_allclose(list(one.actions[0].values()), np.array([80, 72]) / 255, atol=0.02)
    np.testing.assert_allclose(two.boxes, [fake_models.BOX, fake_models.FAR])
    assert list(two.actions[1]) == ["stand"]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_change_nothing(files, detector, batch_size):
    batched = ActionDetector(detector.model, score_threshold=0.2, batch_size=batch_size)
    expected = _scores(detector(files / "clip.mp4", 0.4))
    assert _scores(batched(files / "clip.mp4", 0.4)) == pytest.approx(expected)
    assert len(expected) == 8


def test_every_kind_of_source_gives_the_same(files, detector, tmp_path):
    frames = fake_models.frames()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    expected = _scores(detector(files / "clip.mp4", 0.5))
    for source, options in (
        (np.stack(frames), {"source_fps": 20.0}),
        (iter(frames), {"source_fps": 20.0}),
        (((i / 20.0, frame) for i, frame in enumerate(frames)), {}),
        (tmp_path, {"source_fps": 20.0}),
    ):
        found = list(detector(source, 0.5, **options))
        assert [k.time for k in found] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
        assert _scores(found) == pytest.approx(expected, abs=0.02)
    assert found[0].video == tmp_path.name
    assert next(iter(detector(iter(frames), source_fps=20.0, name="mine"))).video == "mine"


def test_keyframes_from_a_time_on(files, detector):
    times = [k.time for k in detector(files / "clip.mp4", 0.5, start_seconds=1.2)]
    assert times == [1.5, 2.0, 2.5]


def test_video_shorter_than_a_clip_repeats_its_ends(detector, tmp_path):
    path = fake_models.write_video(tmp_path / "short.mp4", 2)
    assert [keyframe.time for keyframe in detector(path)] == [0.0]


def test_frames_are_kept_when_asked_for_and_shrunk_when_large(files, detector):
    keep = ActionDetector(detector.model, keep_frames=True)
    assert next(iter(keep(files / "clip.mp4"))).frame.shape == (48, 64, 3)
    large = np.zeros([8, 73, 146, 3], np.uint8)
    large[:, ::2] = 200  # lines that sampling would take or leave
    shown = next(iter(keep(large, source_fps=20.0))).frame
    assert shown.shape == (48, 96, 3)
    assert 60 < shown.min() and shown.max() < 140
    kept = ActionDetector(detector.model, keep_frames=True, short_side=0)
    assert next(iter(kept(large, source_fps=20.0))).frame.shape == (73, 146, 3)
    tiny = ActionDetector(detector.model, keep_frames=True, short_side=24)
    assert next(iter(tiny(files / "clip.mp4"))).frame.shape == (24, 32, 3)


def test_large_frames_of_a_model_that_keeps_the_aspect_ratio_are_shrunk(tmp_path):
    path = fake_models.save(
        fake_models.Detector(), tmp_path / "model", {"frame_size": None, "short_side": 40}
    )
    keep = ActionDetector(path, keep_frames=True)
    large = np.zeros([8, 120, 180, 3], np.uint8)
    assert next(iter(keep(large, source_fps=20.0))).frame.shape == (40, 60, 3)


def test_people_are_tracked_when_asked_for(files, detector):
    tracking = ActionDetector(detector.model, score_threshold=0.2, track=True)
    tracks = [[p.track for p in k.people] for k in tracking(files / "clip.mp4", 0.5)]
    assert tracks == [[], [], [1], [1, 2], [1, 2], [1, 2]]


def test_attention_is_that_of_the_persons_own_row(files, detector, tmp_path):
    path = fake_models.save(fake_models.Detector(attention=True), tmp_path / "model", _DESCRIPTION)
    attentive = ActionDetector(path, score_threshold=0.2, keep_attention=True)
    *_, last = attentive(files / "clip.mp4", 1.0)
    first, second = (person.attention for person in last.people)
    assert first.shape == (1, 1, 2, 2, 2)
    assert first[0, 0, 1, 0, 0] == 1.0 and first.sum() == 1.0
    np.testing.assert_allclose(second, 1 / 8)
    # Not views, which would keep the attention of all detections in memory.
    assert first.base is None and second.base is None
    with pytest.raises(errors.InputError, match=r"has no attention: export it again.*attention"):
        ActionDetector(detector.model, keep_attention=True)


def test_annotated_video(files, detector, tmp_path):
    keyframes = detector.annotate(files / "clip.mp4", tmp_path / "out.mp4")
    assert len(keyframes) == 3
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 60 and frames[0].shape == (360, 480, 3)
    # Until 0.5 s the nearest keyframe is the empty one, then the box of 1 s shows.
    assert _has_box(frames[12]) and _has_box(frames[59]) and not _has_box(frames[5])


def test_annotated_video_shows_attention(files, detector, tmp_path):
    path = fake_models.save(fake_models.Detector(attention=True), tmp_path / "model", _DESCRIPTION)
    attentive = ActionDetector(path, score_threshold=0.2, keep_attention=True)
    attentive.annotate(files / "clip.mp4", tmp_path / "out.mp4", 0.5)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    # Away from boxes and labels: gray without people, coloured with them.
    corner = [frame[5:20, 5:20].astype(int) for frame in frames]
    assert np.abs(corner[2][..., 0] - corner[2][..., 2]).max() < 12
    assert np.abs(corner[59][..., 0] - corner[59][..., 2]).max() > 15


def test_annotated_video_shows_nobody_far_from_keyframes(detector, tmp_path):
    fake_models.write_video(tmp_path / "v.mp4", 60)
    # At 2.9 s somebody is there; up to 1.9 s nothing is known.
    keyframes = [k for k in detector(tmp_path / "v.mp4", 2.9) if k.people]
    detector.annotate(tmp_path / "v.mp4", tmp_path / "out.mp4", keyframes=keyframes)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [_has_box(frames[i]) for i in (0, 30, 36, 40, 58)] == [False] * 3 + [True] * 2


def test_picture_is_that_of_the_clearest_keyframe_and_written_once(
    files, detector, tmp_path, monkeypatch
):
    keyframes = list(detector(files / "clip.mp4", 0.5))
    saved = []
    real = Image.Image.save
    monkeypatch.setattr(
        Image.Image, "save", lambda *args, **kw: (saved.append(args), real(*args, **kw))
    )
    annotated_video.write(
        str(files / "clip.mp4"), str(tmp_path / "o.mp4"), keyframes, str(tmp_path / "o.png")
    )
    assert len(saved) == 1
    # 2.5 s is the brightest: frame 50, of brightness 200.
    assert abs(int(np.asarray(Image.open(tmp_path / "o.png"))[300, 20, 0]) - 200) < 4


def test_what_was_detected_for_an_annotated_video_holds_little(files, detector, tmp_path):
    path = fake_models.save(fake_models.Detector(attention=True), tmp_path / "model", _DESCRIPTION)
    attentive = ActionDetector(path, score_threshold=0.2, keep_attention=True)
    keyframes = attentive.annotate(files / "clip.mp4", tmp_path / "out.mp4")
    assert keyframes[2].attention_map.shape == (2, 2)
    assert all(person.attention is None for k in keyframes for person in k.people)


@pytest.fixture(scope="module")
def box_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes")
    description = {**_DESCRIPTION, "input_type": "clip_and_boxes"}
    return fake_models.save(fake_models.BoxModel(), folder / "model", description)


def test_people_of_a_detector_of_ones_own(files, box_model):
    seen = []

    def right_half_of_bright_pictures(picture):
        seen.append(picture.shape)
        return [[0.0, 0.5, 1.0, 1.0]] if picture.mean() > 100 else []

    detector = ActionDetector(
        box_model, person_boxes=right_half_of_bright_pictures, score_threshold=0.2, batch_size=2
    )
    for source, options in (
        (files / "clip.mp4", {}),
        (iter(fake_models.frames()), {"source_fps": 20.0}),
    ):
        found = list(detector(source, 0.5, **options))
        assert [keyframe.time for keyframe in found] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
        assert [len(keyframe.people) for keyframe in found] == [0, 0, 0, 1, 1, 1]
        np.testing.assert_allclose(found[4].boxes, [[0.0, 0.5, 1.0, 1.0]])
        assert found[4].people[0].score == pytest.approx(160 / 255, abs=0.02)
    assert seen == [(48, 64, 3)] * 12


def test_keyframes_are_those_of_the_file_of_boxes(files, box_model, tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text("clip,2.2,0.1,0.2,0.3,0.8\nclip,1.05,0.5,0.5,0.7,1.0\n")
    detector = ActionDetector(box_model, person_boxes=path, score_threshold=0.2)
    found = list(detector(files / "clip.mp4"))
    assert [keyframe.time for keyframe in found] == [1.05, 2.2]
    np.testing.assert_allclose(found[0].boxes, [[0.5, 0.5, 1.0, 0.7]], atol=1e-6)
    np.testing.assert_allclose(found[1].boxes, [[0.2, 0.1, 0.8, 0.3]], atol=1e-6)
    with pytest.raises(errors.InputError, match="boxes of a file are for video files"):
        detector(fake_models.frames(), source_fps=20.0)


def test_boxes_and_models_that_do_not_fit(detector, box_model):
    with pytest.raises(errors.InputError, match="give them as person_boxes"):
        ActionDetector(box_model)
    with pytest.raises(errors.InputError, match="takes no person_boxes; export it with"):
        ActionDetector(detector.model, person_boxes=lambda picture: [])


def _has_box(frame):
    """Tells whether the left edge of the box stands out against the gray beside it."""
    edge = frame[200:280, round(0.3 * 480) - 1 : round(0.3 * 480) + 3].astype(int)
    return bool(np.abs(edge[..., 0] - edge[..., 2]).max() > 60)


def test_damaged_parts_are_left_out_and_told(files, detector, monkeypatch, capsys):
    def clips(self, times):
        frames = [np.zeros([8, 8, 3], np.uint8)] * 4
        yield video_reader.Clip(0.0, frames, np.zeros(4))
        yield video_reader.Clip(1.0, (), np.empty(0), "the video is damaged around 1 s")
        yield video_reader.Clip(2.0, frames, np.zeros(4))
        yield video_reader.Clip(3.0, (), np.empty(0), "beyond the end", outside=True)

    monkeypatch.setattr(video_reader.ClipReader, "clips", clips)
    assert [k.time for k in detector(files / "clip.mp4")] == [0.0, 2.0]
    assert capsys.readouterr().out == (
        "detection: clip: left out: the video is damaged around 1 s\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score_threshold": 1.5}, r"score_threshold must be in \[0, 1\], not 1.5"),
        ({"fps": 0.0}, "fps must be 0.001 to 1000"),
        ({"short_side": -1}, "short_side must be at least 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"clips_per_stretch": 0}, "clips_per_stretch must be at least 1"),
        ({"share_trunk": True}, "was exported without what sharing"),
        ({"share_trunk": True, "batch_size": 2}, "exclude each other"),
        ({"fps": 25.0}, "this one is loaded already"),
        (
            {"precision": "float32"},
            "label_map, fps, num_frames and precision are for a model that is loaded here; this "
            "one is loaded already",
        ),
    ],
)
def test_options_out_of_range(detector, options, message):
    with pytest.raises(errors.InputError, match=message):
        ActionDetector(detector.model, **options)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("none.mp4", {}, "none.mp4: there is no such video"),
        ("clip.mp4", {"every_seconds": 0.0}, "every_seconds must be at least 0.001"),
        ("clip.mp4", {"every_seconds": 1e-9}, "every_seconds must be at least 0.001 .* not 1e-09"),
        (np.zeros([4, 8, 8, 3], np.uint8), {"source_fps": 1e-9}, "source_fps must be 0.001 to"),
        (np.zeros([4, 8, 8, 3], np.uint8), {}, "Give source_fps, the source's frames per second"),
        (np.zeros([4, 8, 8], np.uint8), {"source_fps": 5.0}, "must be uint8"),
        ([], {"source_fps": 5.0}, "no frames"),
        (1.5, {}, "1.5 is no video, folder"),
        (None, {}, "None is no video, folder"),
    ],
)
def test_sources_that_are_none(detector, source, options, message):
    with pytest.raises(errors.InputError, match=message):
        list(detector(source, **options))


def test_folder_without_pictures(detector, tmp_path):
    with pytest.raises(errors.InputError, match="no pictures in this folder"):
        list(detector(tmp_path, source_fps=5.0))
