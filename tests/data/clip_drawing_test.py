# SPDX-License-Identifier: Apache-2.0
"""Drawn first and decoded for the part gives what the stock transformation makes of whole clips.

To have one draw for both, the stock transformation gets the packed clip with the picture of
coordinates behind it.
"""

import numpy as np
import pytest
import tensorflow as tf
from object_detection import inputs
from object_detection.core import standard_fields
from object_detection.utils import config_util, shape_utils

from object_detection_ext import registration
from object_detection_ext.data import (
    clip_decoder,
    clip_drawing,
    clip_packing,
    clip_window,
    stock_transform,
)
from tests import tiny_pipeline

registration.register()

_Fields = standard_fields.InputDataFields
_T, _H, _W = 4, 120, 168

_CROPS = """train_config {
  data_augmentation_options { random_horizontal_flip { } }
  data_augmentation_options { random_vertical_flip { } }
  data_augmentation_options { random_crop_image {
    min_object_covered: 0.5 min_aspect_ratio: 0.5 max_aspect_ratio: 2.0
    min_area: 0.2 max_area: 1.0 random_coef: 0.2
  } }
}"""


def _transform(override: str, monkeypatch) -> stock_transform.StockTransform:
    """That of `inputs.train_input`."""
    pipeline = tiny_pipeline.make_pipeline()
    del pipeline.train_config.data_augmentation_options[:]
    pipeline.MergeFrom(tiny_pipeline.parse(override))
    configs = config_util.create_configs_from_pipeline_proto(pipeline)
    model = tiny_pipeline.build_model(pipeline, is_training=True)
    monkeypatch.setitem(
        inputs.INPUT_BUILDER_UTIL_MAP,
        "dataset_build",
        lambda *args, transform_input_data_fn, **kwargs: transform_input_data_fn,
    )
    function = inputs.train_input(
        configs["train_config"], configs["train_input_config"], configs["model"], model=model
    )
    return stock_transform.open_transform(function)


def _jpegs() -> list[bytes]:
    """Smooth colourful frames, chroma halved as cameras do."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (_T, _H // 24, _W // 24, 3)).astype(np.float32)
    frames = tf.image.resize(coarse, [_H, _W], "bicubic")
    return [
        tf.io.encode_jpeg(tf.saturate_cast(frame, tf.uint8), quality=92).numpy() for frame in frames
    ]


def _keyframe() -> dict[str, tf.Tensor]:
    return {
        _Fields.source_id: tf.constant("clip"),
        _Fields.original_image_spatial_shape: tf.constant([_H, _W]),
        _Fields.groundtruth_boxes: tf.constant([[0.3, 0.3, 0.6, 0.7], [0.1, 0.5, 0.5, 0.9]]),
        _Fields.groundtruth_classes: tf.constant([1, 2]),
        _Fields.groundtruth_weights: tf.constant([1.0, 1.0]),
        _Fields.num_groundtruth_boxes: tf.constant(2),
    }


def _both_ways(transform, encoded) -> tf.data.Dataset:
    """(what `Drawing` makes, what the stock code makes of the packed clip), of the same draws."""
    drawing = clip_drawing.Drawing(_T, transform)
    resizer = transform.build_resizer()

    def half_pixel(picture):
        # TensorFlow's own, of the convention that OpenCV has.
        options = transform.image_resizer.fixed_shape_resizer
        size = tf.stack([options.height, options.width])
        resized = tf.image.resize(picture, size)
        return [resized, tf.shape(resized)]

    size = tf.constant([_H, _W])
    whole = tf.stack([tf.io.decode_jpeg(jpeg, channels=3) for jpeg in encoded])
    image = tf.concat(
        [
            tf.cast(clip_packing.pack_clip(whole), tf.float32),
            clip_window.coordinate_picture(size),
        ],
        axis=-1,
    )

    def draw(_):
        windows = []

        def preprocess(pictures):
            windows.append(clip_window.read_window(pictures[0, ..., -3:]))
            resize = half_pixel if drawing.resizes_bytes else resizer
            return shape_utils.resize_images_and_return_shapes(pictures[..., :-3], resize)

        rewired = transform.rewired(transform.steps.others, preprocess)
        features, labels = rewired({**_keyframe(), _Fields.image: image})
        packed = features.pop(_Fields.image)
        drawn = clip_drawing.Drawn(features, labels, tf.constant(encoded), size, *windows)
        return drawing.finish(*drawing.decode(drawn)), (packed, *windows)

    return tf.data.Dataset.range(12).map(draw)


@pytest.mark.parametrize(
    "resizer",
    [
        "fixed_shape_resizer { height: 64 width: 48 }",
        *(
            pytest.param(f"fixed_shape_resizer {{ {size} }}", marks=pytest.mark.slow)
            for size in (
                "height: 200 width: 240",
                "height: 96 width: 96 resize_method: BICUBIC",
                "height: 80 width: 80 resize_method: AREA",
            )
        ),
        "keep_aspect_ratio_resizer { min_dimension: 60 max_dimension: 100 }",
    ],
)
def test_pixels_are_those_of_the_stock_transformation(resizer, monkeypatch):
    override = f"{_CROPS} model {{ faster_rcnn {{ image_resizer {{ {resizer} }} }} }}"
    windows = set()
    for (features, _), (packed, window) in _both_ways(_transform(override, monkeypatch), _jpegs()):
        stacked = features[_Fields.image]
        assert stacked.dtype == tf.uint8
        clip = clip_packing.unstack_frames(stacked[tf.newaxis], _T)[0].numpy().astype(float)
        # The stock code rounds nowhere; a bicubic resizer leaves the range.
        expected = np.clip(clip_packing.unpack_clips(packed[tf.newaxis], _T)[0], 0, 255)
        assert clip.shape == expected.shape
        assert np.abs(clip - expected).max() <= 2.0
        assert np.abs(clip - expected).mean() <= 0.4
        windows.add((*window.box.numpy(), bool(window.is_upside_down), bool(window.is_mirrored)))
    assert len(windows) > 6


def test_draw_gives_the_stock_labels_and_decode_the_pictures(monkeypatch):
    override = """
      model { faster_rcnn { image_resizer { keep_aspect_ratio_resizer {
        min_dimension: 60 max_dimension: 60 pad_to_max_dimension: true } } } }
      train_config { retain_original_images: true
        data_augmentation_options { random_horizontal_flip { probability: 1.0 } } }"""
    drawing = clip_drawing.Drawing(_T, _transform(override, monkeypatch))
    encoded = _jpegs()
    keyframe = {**_keyframe(), clip_decoder.ENCODED_FRAMES: tf.constant(encoded)}

    @tf.function
    def run():
        drawn = drawing.draw(keyframe, tf.constant([_H, _W]))
        return drawn, drawing.finish(*drawing.decode(drawn))

    drawn, (features, labels) = run()
    np.testing.assert_array_equal(drawn.window.box, [0, 0, _H, _W])
    assert bool(drawn.window.is_mirrored) and not bool(drawn.window.is_upside_down)
    # Padded to a square on the right side and below: 168 pixels become 60, 120 become 43.
    assert features[_Fields.image].shape == [_T * 60, 60, 3]
    np.testing.assert_array_equal(features[_Fields.true_image_shape], [43, 60, 3 * _T])
    assert not features[_Fields.image][43:60].numpy().any()
    assert features[_Fields.original_image].shape == [60, 60, 3]
    boxes = labels[_Fields.groundtruth_boxes][:2].numpy()
    mirrored = np.array([[0.3, 0.3, 0.6, 0.7], [0.1, 0.1, 0.5, 0.5]])
    # Normalized by the padded picture.
    np.testing.assert_allclose(boxes, mirrored * [43 / 60, 1, 43 / 60, 1], atol=0.01)


def test_frames_of_another_size_are_refused_wherever_the_window_is(monkeypatch):
    drawing = clip_drawing.Drawing(_T, _transform("", monkeypatch))
    large = tf.io.encode_jpeg(tf.zeros([_H + 16, _W, 3], tf.uint8)).numpy()
    keyframe = {
        **_keyframe(),
        clip_decoder.ENCODED_FRAMES: tf.constant([*_jpegs()[:3], large]),
    }
    drawn = tf.function(drawing.draw)(keyframe, tf.constant([_H, _W]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="differ in size"):
        tf.function(drawing.decode)(drawn)
