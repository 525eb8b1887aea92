# SPDX-License-Identifier: Apache-2.0
"""The names of a model's variables are those in the checkpoints that TensorFlow writes of it."""

import pathlib

import pytest
import tensorflow as tf

from object_detection_ext import registration
from object_detection_ext.checkpoints import model_variables
from object_detection_ext.detection import video_feature_extractor
from tests import tiny_pipeline

registration.register()

_CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "pipeline_configs"
_EXTENSION = "[object_detection_ext.protos.video_action_transformer]"
_CLASS_SPECIFIC = (
    "model { faster_rcnn { second_stage_box_predictor { mask_rcnn_box_predictor "
    "{ share_box_across_classes: false } } } }"
)
_HEADS = {
    "tx": tiny_pipeline.SHORT_TRUNK,
    "tx low, given boxes": (
        f"{tiny_pipeline.SHORT_TRUNK} {_EXTENSION} {{ tx_head {{ query_preprocessor: LOW_RES }} "
        "proposals { source: GROUND_TRUTH } }"
    ),
    "i3d, class-specific boxes": f"{_CLASS_SPECIFIC} {_EXTENSION} {{ i3d_head {{ }} }}",
}
_BOTH_HEADS = f"{_EXTENSION} {{ tx_i3d_head {{ tx_head {{ num_layers: 2 feature_size: 8 }} }} }}"
_TRUNKS = ("i3d", "s3dg", "r3d50", "r3d50_non_local")


def _written(pipeline, folder: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes as TensorFlow writes them, of the model as it is run otherwise."""
    model = tiny_pipeline.build_model(pipeline, is_training=True)
    num_frames = model.feature_extractor.num_frames
    model.provide_groundtruth(
        groundtruth_boxes_list=[tf.constant([[0.1, 0.1, 0.6, 0.6]])],
        groundtruth_classes_list=[tf.ones([1, tiny_pipeline.NUM_CLASSES])],
    )
    size = tiny_pipeline.SIZE
    model.predict(
        tf.zeros([1, size, size, 3 * num_frames]), tf.constant([[size, size, 3 * num_frames]])
    )
    prefix = tf.train.Checkpoint(model=model).write(str(folder / "ckpt"))
    return {
        key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): tuple(shape)
        for key, shape in tf.train.list_variables(prefix)
        if key != "_CHECKPOINTABLE_OBJECT_GRAPH"
    }


def _check(override: str, folder: pathlib.Path) -> None:
    pipeline = tiny_pipeline.make_pipeline(override)
    before = pipeline.SerializeToString()
    found = model_variables.of_pipeline(pipeline)
    assert pipeline.SerializeToString() == before
    assert found == _written(pipeline, folder)
    assert found == model_variables.of_checkpoint(str(folder / "ckpt"))
    assert all(name.startswith("model/") for name in found)


@pytest.mark.parametrize("head", _HEADS)
def test_names_and_shapes_are_those_of_the_checkpoint(tmp_path, head):
    _check(_HEADS[head], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("trunk", _TRUNKS)
def test_names_and_shapes_of_every_trunk(tmp_path, trunk):
    kind = f"faster_rcnn_{trunk}_keras"
    feature_extractor = f"model {{ faster_rcnn {{ feature_extractor {{ type: '{kind}' }} }} }}"
    _check(f"{feature_extractor} {_BOTH_HEADS}", tmp_path)


def test_nothing_is_compiled_to_name_variables(monkeypatch):
    """Which takes minutes at full size, at every start and for every checkpoint."""
    xla = "[object_detection_ext.protos.video_action_transformer] { compute { xla: true } }"
    wanted = []
    run = video_feature_extractor._ImageTrunk.call

    def call(self, images, training=None):
        wanted.append(self._compiled is not None)
        return run(self, images, training)

    monkeypatch.setattr(video_feature_extractor._ImageTrunk, "call", call)
    model_variables.of_pipeline(tiny_pipeline.make_pipeline(tiny_pipeline.SHORT_TRUNK + xla))
    assert wanted == [False]


def test_step_and_optimizer_are_not_of_the_model(tmp_path):
    """As the stock loop writes a checkpoint, with the slots of a stock optimizer."""
    weight = tf.Variable([1.0, 2.0])
    optimizer = tf.keras.optimizers.legacy.SGD(0.1, momentum=0.9)
    optimizer.apply_gradients([(tf.ones([2]), weight)])
    checkpoint = tf.train.Checkpoint(
        step=tf.Variable(3), model=tf.train.Checkpoint(weight=weight), optimizer=optimizer
    )
    prefix = checkpoint.save(str(tmp_path / "ckpt"))
    keys = [key for key, _ in tf.train.list_variables(prefix)]
    assert any(".OPTIMIZER_SLOT" in key for key in keys)
    assert model_variables.of_checkpoint(prefix) == {"model/weight": (2,)}
    assert model_variables.key("model/weight") in keys


@pytest.mark.slow
def test_full_size_model_has_the_papers_number_of_parameters():
    """24.051 million, as README's table has it, of a model of 300 proposals and 64 frames."""
    pipeline = registration.parse_pipeline(str(_CONFIGS / "ava_i3d_tx_i3d_highres_r300.config"))
    trainable = {
        name: shape
        for name, shape in model_variables.of_pipeline(pipeline).items()
        if not name.endswith(("moving_mean", "moving_variance"))
    }
    parameters = sum(int(tf.TensorShape(shape).num_elements()) for shape in trainable.values())
    assert round(parameters / 1e6, 3) == 24.051
