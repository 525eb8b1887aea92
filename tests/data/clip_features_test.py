# SPDX-License-Identifier: Apache-2.0
"""Records must be what the stock decoder reads."""

import io

import numpy as np
import pytest
import tensorflow as tf
from object_detection.core import standard_fields
from object_detection.data_decoders import tf_sequence_example_decoder
from object_detection.dataset_tools import seq_example_util
from PIL import Image

from object_detection_ext.ava import annotations
from object_detection_ext.data import clip_features

_LABELS = {1: "stand", 80: "watch (a person)"}
_Fields = standard_fields.InputDataFields


def _jpeg(value):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (value, value, value)).save(buffer, "JPEG")
    return buffer.getvalue()


def _example(regions, num_frames):
    keyframe = annotations.Keyframe("clip.1", 902.0, 1, regions)
    record = clip_features.serialized_example(
        {num_frames // 2: keyframe},
        _LABELS,
        encoded_frames=[_jpeg(10 * i) for i in range(num_frames)],
        frame_times=902.0 + (np.arange(num_frames) - num_frames // 2) * 0.04,
        height=24,
        width=32,
    )
    return tf.train.SequenceExample.FromString(record)


def _stock_example(keyframes, frames, times, source_ids):
    rows = [keyframes[i].regions if i in keyframes else [] for i in range(len(frames))]
    return seq_example_util.make_sequence_example(
        dataset_name="AVA",
        video_id="clip.1",
        encoded_images=frames,
        image_height=240,
        image_width=32,
        image_format="jpeg",
        image_source_ids=source_ids,
        timestamps=[round(1e6 * t) for t in times],
        is_annotated=[int(i in keyframes) for i in range(len(frames))],
        bboxes=[[list(region.box) for region in of] for of in rows],
        label_strings=[[_LABELS[region.action_id].encode() for region in of] for of in rows],
        use_strs_for_source_id=True,
    )


def test_record_is_what_the_stock_writer_makes():
    region = annotations.Region
    keyframes = {
        1: annotations.Keyframe("clip.1", 902.04, 1, [region((0.1, 0.2, 0.5, 0.6), 1, 0, 1)]),
        2: annotations.Keyframe("clip.1", 902.08, 2, []),
        3: annotations.Keyframe(
            "clip.1", 902.12, 3,
            [region((0.0, 1 / 3, 0.5, 1.0), 80, 0, 3), region((0.0, 1 / 3, 0.5, 1.0), 1, 0, 4)],
        ),
    }  # fmt: skip
    # Lengths on both sides of where a length needs one more byte, a time before 0, one beyond 2^31.
    frames = [b"\xff\xd8" + bytes([k]) * size + b"\xd9" for k, size in
              enumerate((0, 124, 125, 16380, 16381, 70000))]  # fmt: skip
    times = [-0.04, 902.04, 902.08, 902.12, 902.16, 5000.123456]
    ids = ["clip.1,-0.04", "clip.1,902.04", "clip.1,902.08", "clip.1,902.12", "clip.1,902.16",
           "clip.1,5000.123456"]  # fmt: skip
    record = clip_features.serialized_example(
        keyframes, _LABELS, encoded_frames=frames, frame_times=times, height=240, width=32
    )
    stock = _stock_example(keyframes, frames, times, ids)
    assert tf.train.SequenceExample.FromString(record) == stock
    assert len(record) == stock.ByteSize()


@pytest.mark.parametrize("num_frames", [1, 4, 5])
def test_stock_decoder_reads_the_record(tmp_path, num_frames):
    regions = [
        annotations.Region((0.1, 0.2, 0.5, 0.6), 1, 0, 1),
        annotations.Region((0.1, 0.2, 0.5, 0.6), 80, 0, 2),
        annotations.Region((0.3, 0.7, 0.9, 1.0), 1, 1, 3),
    ]
    path = tmp_path / "l.pbtxt"
    path.write_text("".join(f"item {{ name: '{n}' id: {i} }}\n" for i, n in _LABELS.items()))
    decoder = tf_sequence_example_decoder.TfSequenceExampleDecoder(str(path))
    tensors = decoder.decode(_example(regions, num_frames).SerializeToString())
    middle = num_frames // 2
    assert [int(v) for v in tensors[_Fields.is_annotated]] == [
        int(i == middle) for i in range(num_frames)
    ]
    counts = tensors[_Fields.num_groundtruth_boxes].numpy()
    assert list(counts) == [3 * (i == middle) for i in range(num_frames)]
    boxes = tensors[_Fields.groundtruth_boxes].numpy()[middle]
    np.testing.assert_allclose(boxes, [region.box for region in regions], atol=1e-6)
    assert list(tensors[_Fields.groundtruth_classes].numpy()[middle]) == [1, 80, 1]
    assert tensors[_Fields.source_id].numpy()[middle] == b"clip.1,0902"
    assert len(set(tensors[_Fields.source_id].numpy())) == num_frames
    assert list(tensors[_Fields.original_image_spatial_shape].numpy()) == [24, 32]
    assert list(tensors[_Fields.image].numpy()) == [_jpeg(10 * i) for i in range(num_frames)]


def test_times_are_in_microseconds():
    example = _example([], 4)
    stamps = example.feature_lists.feature_list[clip_features.IMAGE_TIMESTAMP].feature
    values = [feature.int64_list.value[0] for feature in stamps]
    assert values == [901_920_000, 901_960_000, 902_000_000, 902_040_000]
    context = example.context.feature
    assert context["clip/start/timestamp"].int64_list.value[0] == 901_920_000
    assert context["clip/end/timestamp"].int64_list.value[0] == 902_040_000
    assert context[clip_features.MEDIA_ID].bytes_list.value[0] == b"clip.1"


def test_keyframe_without_people():
    lists = _example([], 3).feature_lists.feature_list
    assert [len(f.float_list.value) for f in lists[clip_features.BOX_XMIN].feature] == [0, 0, 0]
    assert [len(f.bytes_list.value) for f in lists[clip_features.LABEL_STRING].feature] == [0] * 3
    annotated = [f.int64_list.value[0] for f in lists[clip_features.IS_ANNOTATED].feature]
    assert annotated == [0, 1, 0]
