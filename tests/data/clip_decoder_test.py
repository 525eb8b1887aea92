# SPDX-License-Identifier: Apache-2.0
"""From a record to clips: which frames, which rows; broken pictures.

Frame k of the records is one gray level, 10 k, so that a decoded clip tells its frames.
"""

import collections

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext.data import clip_decoder, clip_window, random_draws
from tests import tiny_pipeline

_BOX = [0.1, 0.2, 0.5, 0.6]
_OTHER_BOX = [0.3, 0.4, 0.9, 1.0]


@pytest.fixture(scope="module")
def label_map(tmp_path_factory):
    return tiny_pipeline.write_label_map(tmp_path_factory.mktemp("map") / "label_map.pbtxt")


def _clips(record: bytes, label_map, num_frames: int) -> list[dict]:
    decoder = clip_decoder.ClipDecoder(str(label_map), num_frames)
    clips = [decoder.decode_frames(clip) for clip in decoder.keyframes(tf.constant(record))]
    return [{key: value.numpy() for key, value in clip.items()} for clip in clips]


def _frame_numbers(clip: dict) -> list[int]:
    levels = clip["image"].reshape(-1, clip["image"].shape[-1] // 3, 3).mean(axis=(0, 2))
    return [round(level / 10) for level in levels]


@pytest.mark.parametrize(
    ("keyframe", "num_frames", "expected"),
    [
        (4, 4, [2, 3, 4, 5]),
        (4, 5, [2, 3, 4, 5, 6]),
        (0, 4, [0, 0, 0, 1]),
        (1, 6, [0, 0, 0, 1, 2, 3]),
        (7, 4, [5, 6, 7, 7]),
        (7, 5, [5, 6, 7, 7, 7]),
        (3, 1, [3]),
        (3, 12, [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 7]),
    ],
)
def test_clip_is_around_its_keyframe_with_the_edges_repeated(
    label_map, keyframe, num_frames, expected
):
    record = tiny_pipeline.make_record(tiny_pipeline.gray_frames(8), {keyframe: [(_BOX, "stand")]})
    (clip,) = _clips(record, label_map, num_frames)
    assert clip["image"].shape == (64, 64, 3 * num_frames)
    assert clip["image"].dtype == np.uint8
    assert _frame_numbers(clip) == expected


def test_each_annotated_frame_gives_a_clip_with_its_own_people(label_map):
    people = {
        1: [(_BOX, "stand"), (_BOX, "walk")],
        2: [],
        5: [(_OTHER_BOX, "watch (a person)")],
    }
    record = tiny_pipeline.make_record(tiny_pipeline.gray_frames(7), people)
    clips = _clips(record, label_map, 3)
    assert [_frame_numbers(clip) for clip in clips] == [[0, 1, 2], [1, 2, 3], [4, 5, 6]]
    assert [clip["source_id"].decode() for clip in clips] == ["video,1", "video,2", "video,5"]
    assert [clip["num_groundtruth_boxes"] for clip in clips] == [2, 0, 1]
    np.testing.assert_allclose(clips[0]["groundtruth_boxes"], [_BOX, _BOX])
    np.testing.assert_array_equal(clips[0]["groundtruth_classes"], [1, 2])
    assert clips[1]["groundtruth_boxes"].shape == (0, 4)
    np.testing.assert_allclose(clips[2]["groundtruth_boxes"], [_OTHER_BOX])
    np.testing.assert_array_equal(clips[2]["groundtruth_classes"], [3])
    for clip in clips:
        assert len(clip["groundtruth_weights"]) == clip["num_groundtruth_boxes"]
        assert (clip["groundtruth_weights"] == 1).all()


def test_rows_that_the_label_map_does_not_list_are_dropped(tmp_path):
    """As with AVA's map of 60 of the 80 classes, whose ids have gaps."""
    label_map = tiny_pipeline.write_label_map(tmp_path / "map", {1: "stand", 80: "watch"})
    rows = [(_BOX, "walk"), (_OTHER_BOX, "watch"), (_BOX, "run"), (_BOX, "stand")]
    record = tiny_pipeline.make_record(tiny_pipeline.gray_frames(3), {1: rows})
    (clip,) = _clips(record, label_map, 2)
    np.testing.assert_array_equal(clip["groundtruth_classes"], [80, 1])
    np.testing.assert_allclose(clip["groundtruth_boxes"], [_OTHER_BOX, _BOX])
    assert clip["num_groundtruth_boxes"] == 2
    assert clip["groundtruth_weights"].shape == (2,)


def test_record_without_an_annotated_frame_gives_no_clip(label_map):
    record = tiny_pipeline.make_record(tiny_pipeline.gray_frames(3), {})
    assert _clips(record, label_map, 2) == []


def test_only_the_frames_of_the_clip_are_decoded(label_map):
    frames = [b"broken", *tiny_pipeline.gray_frames(5)[1:], b"broken"]
    record = tiny_pipeline.make_record(frames, {3: [(_BOX, "stand")]})
    (clip,) = _clips(record, label_map, 4)
    assert _frame_numbers(clip) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "broken",
    [b"", b"\xff", b"no JPEG at all", b"\xff\xd8 begins only", b"ends only \xff\xd9"],
)
@pytest.mark.parametrize("position", [0, 3])
def test_broken_frames_are_refused(label_map, broken, position):
    decoder = clip_decoder.ClipDecoder(str(label_map), 4)
    frames = tiny_pipeline.gray_frames(4)
    decoder.decode_frames({clip_decoder.ENCODED_FRAMES: tf.constant(frames)})
    frames[position] = broken
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoder.decode_frames({clip_decoder.ENCODED_FRAMES: tf.constant(frames)})


def test_cut_jpeg_is_refused_and_png_is_not(label_map):
    decoder = clip_decoder.ClipDecoder(str(label_map), 2)
    jpeg = tiny_pipeline.gray_frames(1)[0]
    png = tf.io.encode_png(tf.zeros([64, 64, 3], tf.uint8)).numpy()
    decoder.decode_frames({clip_decoder.ENCODED_FRAMES: tf.constant([jpeg, png])})
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoder.decode_frames({clip_decoder.ENCODED_FRAMES: tf.constant([png, jpeg[:-9]])})


def test_frames_of_different_sizes_are_refused(label_map):
    decoder = clip_decoder.ClipDecoder(str(label_map), 2)
    frames = [tiny_pipeline.gray_frames(1)[0], tiny_pipeline.gray_frames(1, size=32)[0]]
    with pytest.raises(tf.errors.InvalidArgumentError):
        # In a graph, as tf.data runs it.
        tf.function(decoder.decode_frames)({clip_decoder.ENCODED_FRAMES: tf.constant(frames)})


def test_choice_of_frames_is_drawn_once_per_clip(label_map):
    choice = clip_decoder.FrameChoice(min_stride=1, max_stride=3, max_jitter=2)
    decoder = clip_decoder.ClipDecoder(str(label_map), 4, choice)
    record = tiny_pipeline.make_record(tiny_pipeline.gray_frames(25), {12: [(_BOX, "stand")]})
    records = tf.data.Dataset.from_tensors(record).repeat(200)
    keyframes = random_draws.with_seeds(tf.data.Dataset.zip((records,)), "test").flat_map(
        decoder.keyframes
    )
    clips = keyframes.map(decoder.decode_frames)
    seen = {tuple(_frame_numbers({"image": clip["image"].numpy()})) for clip in clips}
    assert seen == {
        tuple(12 + jitter + (k - 2) * stride for k in range(4))
        for jitter in range(-2, 3)
        for stride in (1, 2, 3)
    }
    assert choice.reach(4) == (2 * 3 + 2, 1 * 3 + 2)
    # Whatever is drawn, the people are those of the keyframe.
    names = {clip["source_id"].numpy() for clip in keyframes.take(9)}
    assert names == {b"video,12"}


def test_keyframes_come_as_often_as_the_factor_of_their_rarest_action(label_map):
    """Of ids 1, 2 and 3, as 'unlisted' is not in the label map and counts like nothing."""
    decoder = clip_decoder.ClipDecoder(str(label_map), 4, repeat_factors=[9.0, 1.0, 2.5, 3.0])
    people = {
        0: [(_BOX, "stand")],
        1: [(_BOX, "stand"), (_BOX, "walk")],
        2: [(_BOX, "watch (a person)"), (_BOX, "walk"), (_BOX, "unlisted")],
        3: [],
        4: [(_BOX, "unlisted")],
    }
    record = tiny_pipeline.make_record(tiny_pipeline.gray_frames(5), people)
    repeats = 200
    records = tf.data.Dataset.from_tensors(record).repeat(repeats)
    keyframes = random_draws.with_seeds(tf.data.Dataset.zip((records,)), "test").flat_map(
        decoder.keyframes
    )
    names = collections.Counter(keyframe["source_id"].numpy().decode() for keyframe in keyframes)
    exact = {f"video,{index}": times * repeats for index, times in {0: 1, 2: 3, 3: 1, 4: 1}.items()}
    assert {name: names[name] for name in exact} == exact
    # 2 or 3, half of the time each: within 4 standard deviations.
    assert names["video,1"] == pytest.approx(2.5 * repeats, abs=4 * 0.5 * repeats**0.5)


def test_fixed_stride_and_repeated_edges(label_map):
    decoder = clip_decoder.ClipDecoder(str(label_map), 5, clip_decoder.FrameChoice(3, 3))
    record = tiny_pipeline.make_record(tiny_pipeline.gray_frames(9), {4: [(_BOX, "stand")]})
    (keyframe,) = decoder.keyframes(tf.constant(record))
    assert _frame_numbers({"image": decoder.decode_frames(keyframe)["image"].numpy()}) == [
        0,
        1,
        4,
        7,
        8,
    ]


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_part_is_the_part_of_the_whole(kind):
    frame = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    frame = tf.constant(frame.repeat(8, axis=0).repeat(8, axis=1))
    encode = {"jpeg": tf.io.encode_jpeg, "png": tf.io.encode_png}[kind]  # chroma halved
    encoded = encode(frame)
    np.testing.assert_array_equal(clip_decoder.frame_size(encoded), [80, 96])
    size = tf.constant([80, 96])
    whole = clip_decoder.decode_whole(encoded, size).numpy()
    for box in ([0, 0, 80, 96], [17, 33, 40, 31], [5, 0, 75, 96], [79, 95, 1, 1]):
        window = clip_window.Window(tf.constant(box), tf.constant(False), tf.constant(True))
        parts = clip_decoder.decode_parts(tf.stack([encoded]), size, window, 1)
        part = clip_decoder.cut_out(parts.pictures[0], parts.offset, window).numpy()
        top, left, height, width = box
        expected = whole[top : top + height, left : left + width][:, ::-1]
        assert np.abs(part.astype(int) - expected).max() <= 1
    with pytest.raises(tf.errors.InvalidArgumentError, match="differ in size"):
        clip_decoder.decode_whole(encoded, tf.constant([80, 97]))
