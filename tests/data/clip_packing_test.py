# SPDX-License-Identifier: Apache-2.0
"""A clip as an image: which channel is which frame, and back."""

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext.data import clip_packing


def _clip(num_frames: int = 4) -> np.ndarray:
    """A clip [T, 2, 3, 3] whose every number is another."""
    return np.arange(num_frames * 2 * 3 * 3).reshape(num_frames, 2, 3, 3)


def test_channel_3k_plus_c_is_colour_c_of_frame_k():
    clip = _clip()
    packed = clip_packing.pack_clip(tf.constant(clip))
    assert packed.shape == [2, 3, 12]
    for frame in range(4):
        for colour in range(3):
            np.testing.assert_array_equal(packed[..., 3 * frame + colour], clip[frame, ..., colour])


def test_unpacking_undoes_packing_for_each_clip_of_a_batch():
    clips = np.stack([_clip(), _clip() + 1000])
    packed = tf.stack([clip_packing.pack_clip(tf.constant(clip)) for clip in clips])
    np.testing.assert_array_equal(clip_packing.unpack_clips(packed, 4), clips)


def test_sizes_that_are_only_known_later():
    signature = [tf.TensorSpec([None, None, None, 12], tf.float32)]
    there_and_back = tf.function(
        lambda images: clip_packing.unpack_clips(images, 4), input_signature=signature
    )
    assert there_and_back.get_concrete_function().output_shapes == [None, 4, None, None, 3]
    images = tf.random.uniform([2, 5, 6, 12])
    np.testing.assert_array_equal(there_and_back(images), clip_packing.unpack_clips(images, 4))
    pack = tf.function(
        clip_packing.pack_clip, input_signature=[tf.TensorSpec([4, None, None, 3], tf.float32)]
    )
    # Stock batching needs the number of channels.
    assert pack.get_concrete_function().output_shapes == [None, None, 12]


@pytest.mark.parametrize(("num_frames", "middle"), [(1, 0), (4, 2), (5, 2), (64, 32)])
def test_middle_frame(num_frames, middle):
    assert clip_packing.middle_frame_index(num_frames) == middle
    clip = _clip(num_frames)
    packed = clip_packing.pack_clip(tf.constant(clip))
    np.testing.assert_array_equal(clip_packing.middle_frames(packed), clip[middle])
    np.testing.assert_array_equal(clip_packing.middle_frames(packed[tf.newaxis])[0], clip[middle])


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="8 frames has 24 channels, but the image has 12"):
        clip_packing.unpack_clips(tf.zeros([1, 2, 3, 12]), 8)


def test_stacked_frames_stand_one_below_the_other_and_come_apart_again():
    clips = np.stack([_clip(), _clip() + 1000])
    stacked = tf.stack([clip_packing.stack_frames(tf.constant(clip)) for clip in clips])
    assert stacked.shape == [2, 4 * 2, 3, 3]
    np.testing.assert_array_equal(stacked[1, 2 * 3 : 2 * 3 + 2], clips[1, 3])
    np.testing.assert_array_equal(clip_packing.unstack_frames(stacked, 4), clips)


def test_stacked_frames_of_unknown_size():
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.int64)])
    def there_and_back(clip):
        stacked = clip_packing.stack_frames(clip)
        return clip_packing.unstack_frames(stacked[tf.newaxis], 4)[0]

    np.testing.assert_array_equal(there_and_back(_clip()), _clip())


@pytest.mark.parametrize("shape", [[1, 7, 3, 3], [1, 8, 3, 12]])
def test_what_is_no_stacked_clip_of_t_frames_is_refused(shape):
    with pytest.raises(ValueError, match="stacked clip of 4 frames"):
        clip_packing.unstack_frames(tf.zeros(shape, tf.uint8), 4)


def test_a_batch_that_is_known_stays_known_where_sizes_are_not():
    """The stock code takes batches apart by it."""
    for unpack, shape in (
        (clip_packing.unpack_clips, [2, None, None, 12]),
        (clip_packing.unstack_frames, [2, None, None, 3]),
    ):
        images = tf.function(
            lambda images, unpack=unpack: unpack(images, 4),
            input_signature=[tf.TensorSpec(shape, tf.float32)],
        )
        assert images.get_concrete_function().output_shapes == [2, 4, None, None, 3]
