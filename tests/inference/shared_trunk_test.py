# SPDX-License-Identifier: Apache-2.0
"""Stretches of clips, and the windows that are cut out of their feature map.

Shapes: T frames of a clip, n frames of a stretch.
"""

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext import errors, exporting, registration
from object_detection_ext.data import video_reader
from object_detection_ext.inference import clip_model, shared_trunk
from tests import tiny_pipeline
from tests.inference import fake_models

_STRIDE = 4


class _Features:
    """A trunk whose feature map is the frames' brightness, every fourth frame."""

    def __init__(self, num_frames):
        self.steps, self.calls, self.windows = num_frames // _STRIDE, [], []

    def features(self, frames):
        self.calls.append(len(frames))
        cells = frames[::_STRIDE, :1, :1, :1].astype(np.float32)
        size = np.int32(frames.shape[1:3])
        return tf.constant(cells[np.newaxis]), size, size, _STRIDE, self.steps

    def detect(self, window, size, true_size):
        del size, true_size
        self.windows.append(np.rint(window[0, :, 0, 0, 0] / fake_models.STEP).astype(int).tolist())
        score = float(window[0, self.steps // 2, 0, 0, 0]) / 255.0
        return {
            "detection_boxes": tf.constant([[fake_models.BOX]]),
            "detection_scores": tf.constant([[score]]),
            "detection_classes": tf.constant([[1.0]]),
            "num_detections": tf.constant([1.0]),
        }


def _model(fake, num_frames, fps=fake_models.FPS):
    return clip_model.ClipModel(
        None, name="fake", num_frames=num_frames, fps=fps, frame_size=None,
        label_map=fake_models.LABELS, outputs=(), takes_batches=True,
        features=fake.features, detect_in_features=fake.detect,
    )  # fmt: skip


def test_stretches_hold_neighbours_and_no_more_than_asked():
    plan = shared_trunk.plan([0.0, 1.0, 2.0, 3.0, 9.0], 64, 25.0, 3)
    assert [list(starts) for _, starts in plan] == [[0, 25, 50], [0], [0]]
    # 50 + 64 frames, rounded up so that a stride of 8 divides it.
    assert [len(window.times) for window, _ in plan] == [120, 64, 64]
    window, _ = plan[0]
    assert window.keyframes == (32, 57, 82)
    np.testing.assert_allclose(window.times[[32, 57, 82]], [0.0, 1.0, 2.0])
    np.testing.assert_allclose(np.diff(window.times), 1 / 25.0)


def test_clips_that_do_not_touch_share_nothing():
    plan = shared_trunk.plan([0.0, 2.56, 5.11], 64, 25.0, 8)
    assert [list(starts) for _, starts in plan] == [[0], [0, 64]]


def test_windows_are_those_of_their_keyframes(tmp_path):
    path = fake_models.write_video(tmp_path / "v.mp4", 60)
    fake = _Features(8)
    reader = video_reader.FrameReader(path)
    found = list(shared_trunk.results(_model(fake, 8), reader, [0.5, 0.7, 0.9, 2.0, 9.0], 8))
    # Clips begin 4 frames before their keyframe: at frames 6, 10, 14 and 36.
    assert fake.windows == [[6, 10], [10, 14], [14, 18], [36, 40]]
    assert fake.calls == [16, 8]
    assert [time for time, *_ in found] == [0.5, 0.7, 0.9, 2.0, 9.0]
    *usable, (_, detections, picture, problem) = found
    assert detections is None and picture is None and problem.outside
    for time, detections, picture, problem in usable:
        level = round(time * fake_models.FPS) * fake_models.STEP
        assert problem is None and abs(int(picture[0, 0, 0]) - level) < 4
        assert detections["detection_scores"][0] == pytest.approx(level / 255, abs=0.02)


def test_keyframes_between_cells_take_the_nearest(tmp_path):
    path = fake_models.write_video(tmp_path / "v.mp4", 60)
    fake = _Features(8)
    reader = video_reader.FrameReader(path)
    list(shared_trunk.results(_model(fake, 8), reader, [0.5, 0.55, 0.65], 8))
    # Wanted begin at 6, 7 and 9; cells are at 6, 10, 14, ...
    assert fake.windows == [[6, 10], [6, 10], [10, 14]]


def test_going_on_in_the_middle_gives_the_rest_of_the_same(tmp_path):
    path = fake_models.write_video(tmp_path / "v.mp4", 60)
    times = [0.05 * index for index in range(3, 50)]

    def run(start):
        fake = _Features(8)
        found = shared_trunk.results(
            _model(fake, 8), video_reader.FrameReader(path), times, 4, start_seconds=start
        )
        return fake, [(time, d["detection_scores"][0]) for time, d, _, _ in found]

    whole, expected = run(0.0)
    assert len(expected) == len(times)
    for done in (1, 4, 6, 46):
        rest, found = run(times[done])
        assert found == expected[done:]
        assert rest.windows == whole.windows[done:]
        # What is finished costs nothing but the stretch that it goes on in.
        assert len(rest.calls) == len(whole.calls) - done // 4


def test_models_without_the_functions_are_refused():
    model = _model(_Features(8), 8)
    shared_trunk.check(model)
    model.features = None
    with pytest.raises(errors.InputError, match="fake was exported without"):
        shared_trunk.check(model)


def test_a_stretch_of_one_clip_gives_what_the_clip_gives():
    registration.register()
    pipeline = tiny_pipeline.make_pipeline(
        "[object_detection_ext.protos.video_action_transformer] { clip { num_frames: 8 } }"
    )
    model = tiny_pipeline.build_model(pipeline, is_training=False)
    module = exporting.MODULES["clip_tensor"](model)
    clip = np.random.default_rng(1).integers(0, 256, [8, 48, 80, 3], np.uint8)
    (expected,) = clip_model.unbatched(module._detect(tf.constant(clip[np.newaxis])))
    fake = _model(_Features(8), 8)
    # Op by op: a graph takes half a minute to build.
    fake.features = lambda frames: module._features(tf.constant(frames))
    fake.detect_in_features = module._detect_in_features
    (found,) = shared_trunk.detect(fake, clip, np.array([0]))
    assert len(expected["detection_scores"]) > 0
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
    # In a longer stretch the window's cells are others, since they see beyond its ends.
    longer = np.concatenate([clip, clip[::-1]])
    (other,) = shared_trunk.detect(fake, longer, np.array([0]))
    assert np.abs(other["detection_scores"] - expected["detection_scores"]).max() > 1e-4
