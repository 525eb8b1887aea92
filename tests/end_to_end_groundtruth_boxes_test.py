# SPDX-License-Identifier: Apache-2.0
"""An I3D-head model on ground-truth boxes: from pretrained weights through the stock loops."""

import numpy as np
import pytest
import tensorflow as tf
from object_detection import exporter_lib_v2, model_lib_v2

from object_detection_ext import errors, registration
from object_detection_ext.checkpoints import files
from object_detection_ext.inference.detector import ActionDetector
from object_detection_ext.trunks import i3d, pretrained
from tests import tiny_pipeline

registration.register()

_PEOPLE = [
    ([0.1, 0.1, 0.7, 0.5], "stand"),
    ([0.1, 0.1, 0.7, 0.5], "watch (a person)"),
    ([0.3, 0.5, 0.9, 0.9], "walk"),
]
_BOXES = np.float32([[0.1, 0.1, 0.7, 0.5], [0.3, 0.5, 0.9, 0.9]])


class _Run:
    """Trained 2 steps from a checkpoint of the whole I3D, evaluated, exported."""

    def __init__(self, folder):
        frames = tiny_pipeline.gray_frames(4, step=40)
        records = [
            tiny_pipeline.make_record(frames, {2: _PEOPLE}, video_id="people"),
            tiny_pipeline.make_record(frames, {2: []}, video_id="empty"),
        ]
        path = tiny_pipeline.write_records(folder / "clips.record", records)
        excluded, types = folder / "excluded.csv", folder / "types.pbtxt"
        excluded.write_text("empty,0002\n")
        types.write_text(
            "label { name: 'stand' label_id: 1 label_type: POSE }"
            "label { name: 'walk' label_id: 2 label_type: POSE }"
        )
        self.source = i3d.I3D(final_endpoint="Mixed_5c", depth_multiplier=0.1)
        weights = pretrained.save(
            pretrained.PretrainedVariables(self.source), str(folder / "pretrained")
        )
        self.config = tiny_pipeline.write_pipeline(
            folder / "pipeline.config",
            f"""train_config {{
              fine_tune_checkpoint: '{weights}' fine_tune_checkpoint_type: 'classification'
              fine_tune_checkpoint_version: V2
              optimizer {{ momentum_optimizer {{ learning_rate {{ constant_learning_rate {{
                learning_rate: 1e-9 }} }} }} }}
            }}
            model {{ faster_rcnn {{ feature_extractor {{ batch_norm_trainable: false }} }} }}
            [object_detection_ext.protos.video_action_transformer] {{
              i3d_head {{ }} proposals {{ source: GROUND_TRUTH }}
              evaluation {{
                protocol: MMACTION2 iou_threshold: [0.5, 0.75]
                excluded_timestamps_path: '{excluded}' label_types_path: '{types}'
              }}
            }}""",
            label_map=tiny_pipeline.write_label_map(folder / "label_map.pbtxt"),
            train=path,
            evaluation=path,
        )
        self.model_dir = folder / "model"
        common = {
            "pipeline_config_path": str(self.config),
            "model_dir": str(self.model_dir),
        }
        model_lib_v2.train_loop(**common, train_steps=2, checkpoint_every_n=2)
        model_lib_v2.eval_continuously(**common, checkpoint_dir=str(self.model_dir), timeout=1)
        exporter_lib_v2.export_inference_graph(
            "clip_and_boxes",
            registration.read_pipeline(str(self.config)),
            str(self.model_dir),
            str(folder / "exported"),
        )
        self.saved_model = folder / "exported" / "saved_model"
        loaded = tf.saved_model.load(str(self.saved_model))
        self.detect = loaded.signatures["serving_default"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return _Run(tmp_path_factory.mktemp("groundtruth_boxes"))


def _restored_model(run: _Run):
    model = tiny_pipeline.build_model(
        tiny_pipeline.parse(run.config.read_text()), is_training=False
    )
    images, shapes = model.preprocess(tf.zeros([1, 64, 64, 12]))
    model.predict(images, shapes, proposal_boxes=_BOXES[np.newaxis])  # makes the variables
    path = tf.train.latest_checkpoint(str(run.model_dir))
    restored = tf.train.Checkpoint(model=model).restore(path)
    restored.expect_partial().assert_existing_objects_matched()
    return model


@pytest.mark.slow
def test_training_starts_from_the_pretrained_trunk_and_tail(run):
    assert files.step_of_newest(str(run.model_dir)) == 2
    restored = _restored_model(run).feature_extractor.classification_backbone.by_path
    source = run.source.variables_by_path()
    assert restored.keys() == source.keys()
    assert any(path.startswith("Mixed_5c") for path in restored)
    for path, variable in source.items():
        # The learning rate is next to nothing.
        np.testing.assert_allclose(restored[path], variable, atol=1e-5, err_msg=path)


@pytest.mark.slow
def test_evaluation_has_metrics_and_losses(run):
    events = tiny_pipeline.read_events(run.model_dir / "eval")
    for metric in (
        "AvaDetectionBoxes_Precision/mAP@0.5IOU",
        "Loss/total_loss",
        "Loss/BoxClassifierLoss/classification_loss",
    ):
        ((step, value),) = events.scalars[metric]
        assert step == 2 and np.isfinite(value) and value >= 0, metric
    for metric in (
        "AvaDetectionBoxes_Precision/mAP@0.75IOU",
        "AvaDetectionBoxes_PerformanceByGroup/mAP@0.5IOU/POSE",
        "AvaDetectionBoxes_Localization/AP@0.5IOU",
        "AvaDetectionBoxes_Localization/AP@0.75IOU",
    ):
        ((_, value),) = events.scalars[metric]
        assert 0 <= value <= 1, metric
    # Every person is a proposal, and next to nothing was learned that would move the boxes away.
    ((_, precision),) = events.scalars["PascalBoxes_Precision/mAP@0.5IOU"]
    assert precision > 0


@pytest.mark.slow
def test_action_detector_gives_what_the_saved_model_gives(run):
    frames = np.random.default_rng(6).integers(0, 256, [2, 64, 64, 3], np.uint8)
    clip = frames[[0, 0, 0, 1]]  # the keyframe at 0 s: the first frame is repeated
    expected = run.detect(
        input_tensor=tf.constant(clip[np.newaxis]), boxes=tf.constant(_BOXES[np.newaxis])
    )
    best = int(np.argmax(expected["detection_scores"][0]))
    options = {"person_boxes": lambda picture: _BOXES, "score_threshold": 0.0}
    for detector in (
        ActionDetector(run.saved_model, **options),
        ActionDetector.from_checkpoint(run.config, run.model_dir, **options),
    ):
        found = next(detector(frames, source_fps=detector.model.fps))
        assert found.people[0].score == pytest.approx(
            float(expected["detection_scores"][0, best]), abs=1e-5
        )
        np.testing.assert_allclose(
            found.people[0].box, expected["detection_boxes"][0, best], atol=1e-5
        )
    with pytest.raises(errors.InputError, match="takes boxes as an input"):
        ActionDetector.from_checkpoint(run.config, run.model_dir)
