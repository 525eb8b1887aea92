# SPDX-License-Identifier: Apache-2.0
"""Every stock augmentation step: on colours, on places, or refused; alike in all frames."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from object_detection import inputs
from object_detection.builders import preprocessor_builder
from object_detection.protos import preprocessor_pb2

from object_detection_ext import pipeline_check, registration
from object_detection_ext.data import clip_augmentation, clip_packing, clip_window

registration.register()

_KINDS = [field.name for field in preprocessor_pb2.PreprocessingStep.DESCRIPTOR.oneofs[0].fields]
# Fields without which a step does not run.
_FIELDS = {
    "normalize_image": "original_minval: 0 original_maxval: 255 target_minval: 0 target_maxval: 1",
    "random_downscale_to_target_pixels": "min_target_pixels: 600 max_target_pixels: 1000",
    "random_resize_method": "target_height: 32 target_width: 40",
    "random_scale_crop_and_pad_to_square": "output_size: 64",
    "random_square_crop_by_scale": "num_scales: 3 scale_min: 0.5 scale_max: 1.5",
    "remap_labels": "original_labels: 1 new_label: 2",
    "resize_image": "new_height: 32 new_width: 40",
}
# Stock steps that fail on every image here, be it a clip or not.
_FAIL_ALWAYS = {"convert_class_logits_to_softmax", "ssd_random_crop_pad"}
# They draw noise for every pixel, and so for every frame.
_NOISE = {"random_patch_gaussian", "random_pixel_value_scale"}
_T = 4


def _step(kind: str, fields: str = "") -> preprocessor_pb2.PreprocessingStep:
    return text_format.Parse(f"{kind} {{ {fields} }}", preprocessor_pb2.PreprocessingStep())


def _frame() -> np.ndarray:
    return np.random.default_rng(0).integers(30, 226, (48, 64, 3)).astype(np.float32)


def _augmented(image: np.ndarray, kind: str, draws: int) -> list[np.ndarray]:
    """Draws of a stock step on an image, in a graph as tf.data runs it."""

    def augment(_):
        tensors = {
            "image": tf.constant(image),
            "groundtruth_boxes": tf.constant([[0.2, 0.2, 0.6, 0.7]]),
            "groundtruth_classes": tf.constant([1]),
            "groundtruth_weights": tf.constant([1.0]),
        }
        step = preprocessor_builder.build(_step(kind, _FIELDS.get(kind, "")))
        return inputs.augment_input_data(tensors, [step])["image"]

    return [image.numpy() for image in tf.data.Dataset.range(draws).map(augment)]


_ON_PLACES = [
    kind
    for kind in _KINDS
    if kind
    not in (clip_augmentation.ON_COLOURS | pipeline_check._REFUSED_STEPS.keys() | _FAIL_ALWAYS)
]


@pytest.mark.parametrize("kind", sorted(set(_ON_PLACES) - _NOISE))
def test_steps_on_places_do_the_same_to_all_frames_of_a_packed_clip(kind):
    clip = np.tile(_frame(), (1, 1, _T))
    for augmented in _augmented(clip, kind, draws=3):
        frames = clip_packing.unpack_clips(augmented[np.newaxis], _T)[0]
        np.testing.assert_array_equal(frames, np.broadcast_to(frames[:1], frames.shape))


@pytest.mark.parametrize("kind", sorted(clip_augmentation._CROPS_AND_FLIPS))
def test_crops_and_flips_leave_a_window(kind):
    assert clip_augmentation.sort_steps([_step(kind)]).only_crop_and_flip
    picture = clip_window.coordinate_picture(tf.constant([48, 64])).numpy()
    windows = [clip_window.read_window(part) for part in _augmented(picture, kind, draws=12)]
    seen = {
        (*window.box.numpy(), bool(window.is_upside_down), bool(window.is_mirrored))
        for window in windows
    }
    assert len(seen) > 1


@pytest.mark.parametrize("kind", sorted(set(_ON_PLACES) - clip_augmentation._CROPS_AND_FLIPS))
def test_other_steps_on_pictures_do_not_count_as_crops(kind):
    is_on_labels = kind in clip_augmentation._ON_LABELS
    assert clip_augmentation.sort_steps([_step(kind)]).only_crop_and_flip == is_on_labels


@pytest.mark.parametrize("kind", sorted(clip_augmentation.ON_COLOURS))
def test_steps_on_colours_change_all_frames_alike(kind):
    fields = {"random_rgb_to_gray": "probability: 1.0", "adjust_gamma": "gamma: 2.0"}.get(kind, "")
    clip = np.tile(_frame(), (_T, 1, 1, 1))

    @tf.function
    def change():
        return clip_augmentation.change_colours(tf.constant(clip), [_step(kind, fields)])

    changed = change().numpy()
    assert changed.shape == clip.shape and changed.dtype == np.float32
    assert changed.min() >= 0.0 and changed.max() <= 255.0
    np.testing.assert_array_equal(changed, np.broadcast_to(changed[:1], clip.shape))
    assert np.abs(changed - clip).max() > 0.5
    # Not far from what it was: the stock functions were given the range that they take.
    assert abs(changed.mean() - clip.mean()) < 70.0
    if kind.endswith("gray"):
        np.testing.assert_allclose(changed, changed[..., :1].repeat(3, axis=-1))


def test_colour_steps_keep_frames_apart_and_follow_the_order():
    clip = np.stack([np.full((4, 6, 3), 40.0 * k, np.float32) for k in range(1, _T + 1)])
    steps = [_step("adjust_gamma", "gamma: 2.0"), _step("rgb_to_gray")]
    changed = clip_augmentation.change_colours(tf.constant(clip), steps).numpy()
    for k in range(_T):
        # 0.2989 + 0.5870 + 0.1140
        np.testing.assert_allclose(changed[k], 0.9999 * 255 * (40 * (k + 1) / 255) ** 2, rtol=1e-4)


def test_steps_are_sorted_and_stay_in_order():
    kinds = ["random_adjust_hue", "random_crop_image", "rgb_to_gray", "random_rotation90"]
    steps = clip_augmentation.sort_steps(map(_step, kinds))
    assert [clip_augmentation.kind_of(step) for step in steps.on_colours] == kinds[::2]
    assert [clip_augmentation.kind_of(step) for step in steps.others] == kinds[1::2]
    assert not steps.only_crop_and_flip
    assert clip_augmentation.sort_steps(()).only_crop_and_flip
