# SPDX-License-Identifier: Apache-2.0
"""Records must be what the stock decoder reads."""

import io

import numpy as np
import pytest
from object_detection.core import standard_fields
from object_detection.data_decoders import tf_sequence_example_decoder
from PIL import Image

from object_detection_ext.data import annotations, clip_features

_LABELS = {1: "stand", 80: "watch (a person)"}
_Fields = standard_fields.InputDataFields


def _jpeg(value):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (value, value, value)).save(buffer, "JPEG")
    return buffer.getvalue()


def _example(regions, num_frames):
    keyframe = annotations.Keyframe("clip.1", 902.0, 1, regions)
    return clip_features.make_example(
        {num_frames // 2: keyframe},
        _LABELS,
        encoded_frames=[_jpeg(10 * i) for i in range(num_frames)],
        frame_times=902.0 + (np.arange(num_frames) - num_frames // 2) * 0.04,
        height=24,
        width=32,
    )


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
