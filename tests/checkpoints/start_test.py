# SPDX-License-Identifier: Apache-2.0
"""Where a training starts: what fits is restored, what does not is refused with its field.

Models of one's own are compared by what they predict, class by class, so that these tests do not
depend on which column of a layer is which class.

Shapes: R proposals, K classes.
"""

import contextlib
import functools
import io
import pathlib
import re
import shutil
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from object_detection import model_lib_v2
from object_detection.protos import pipeline_pb2, train_pb2

from object_detection_ext import errors, pipeline_check, registration
from object_detection_ext.checkpoints import class_names, model_variables, start
from object_detection_ext.trunks import i3d, pretrained
from tests import tiny_pipeline

registration.register()

_EXTENSION = "[object_detection_ext.protos.video_action_transformer]"
_THIN = 0.1  # the tiny pipeline's depth multiplier


@pytest.fixture(autouse=True, scope="module")
def variables_of_a_model_once():
    """Most models here have the same variables."""
    stock = model_variables.of_pipeline
    found = functools.lru_cache(
        lambda text: stock(pipeline_pb2.TrainEvalPipelineConfig.FromString(text))
    )

    def of_pipeline(pipeline):
        model = pipeline_pb2.TrainEvalPipelineConfig()
        model.CopyFrom(pipeline)
        for other in ("train_config", "train_input_reader", "eval_input_reader"):
            model.ClearField(other)
        return found(model.SerializeToString())

    with mock.patch.object(model_variables, "of_pipeline", of_pipeline):
        yield


@pytest.fixture
def without_table(monkeypatch):
    """Big models are not built for a table that is not looked at."""
    monkeypatch.setattr(model_variables, "of_pipeline", lambda pipeline: {})


def _pipeline(path, more: str = ""):
    return tiny_pipeline.make_pipeline(
        f"train_config {{ fine_tune_checkpoint: '{path}' "
        f"fine_tune_checkpoint_type: 'classification' fine_tune_checkpoint_version: V2 }} {more}"
    )


def _fault(pipeline) -> str:
    with pytest.raises(pipeline_check.PipelineError) as caught:
        start.check(pipeline, "my.config")
    message = str(caught.value)
    assert message.startswith("my.config: train_config.fine_tune_checkpoint")
    return message


@pytest.fixture(scope="module")
def whole_i3d(tmp_path_factory) -> str:
    """All of a thin I3D, as the converter writes it."""
    trunk = i3d.I3D(final_endpoint="Mixed_5c", depth_multiplier=_THIN)
    folder = str(tmp_path_factory.mktemp("i3d"))
    return pretrained.save(pretrained.PretrainedVariables(trunk), folder)


@pytest.mark.parametrize(
    "options",
    ["tx_head { }", "i3d_head { }", "tx_i3d_head { }", "trunk { final_endpoint: 'Mixed_4b' }"],
)
def test_checkpoint_of_the_whole_network_fits_every_head_and_endpoint(
    whole_i3d, options, without_table
):
    pipeline = _pipeline(whole_i3d, f"{_EXTENSION} {{ {options} }}")
    before = pipeline.SerializeToString()
    start.check(pipeline, "my.config")
    assert pipeline.SerializeToString() == before


def test_no_checkpoint_is_needed_and_stock_models_are_left_alone():
    start.check(tiny_pipeline.make_pipeline(), "my.config")
    stock = _pipeline("nowhere")
    stock.model.faster_rcnn.feature_extractor.type = "faster_rcnn_resnet50_keras"
    start.check(stock, "my.config")


def test_missing_checkpoint():
    fault = _fault(_pipeline("MODELS/i3d/ckpt"))
    assert "there is no checkpoint 'MODELS/i3d/ckpt'" in fault
    assert "convert_i3d_checkpoint" in fault and "take the field out" in fault


def test_folder_without_a_checkpoint(tmp_path):
    assert f"there is no checkpoint '{tmp_path}'" in _fault(_pipeline(tmp_path))


def test_checkpoint_of_tensorflow_1(tmp_path):
    path = str(tmp_path / "model.ckpt")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.get_variable("RGB/inception_i3d/w", initializer=1.0, use_resource=False)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, path)
    fault = _fault(_pipeline(path))
    assert "is a checkpoint of TensorFlow 1" in fault and "convert_i3d_checkpoint" in fault


def test_version(whole_i3d):
    pipeline = _pipeline(whole_i3d)
    pipeline.train_config.ClearField("fine_tune_checkpoint_version")
    fault = _fault(pipeline)
    assert fault.startswith("my.config: train_config.fine_tune_checkpoint_version: set V2")


def test_network_of_another_width(whole_i3d):
    fault = _fault(_pipeline(whole_i3d, f"{_EXTENSION} {{ trunk {{ depth_multiplier: 0.5 }} }}"))
    assert "does not fit feature_extractor.type" in fault and "missing" not in fault
    assert re.search(r"\d+ of another shape", fault)
    assert "Conv3d_1a_7x7/conv_3d/w [7, 7, 7, 3, 8] instead of [7, 7, 7, 3, 32]" in fault


def test_another_network(whole_i3d):
    other = "model { faster_rcnn { feature_extractor { type: 'faster_rcnn_r3d50_keras' } } }"
    fault = _fault(_pipeline(whole_i3d, other))
    assert "does not fit feature_extractor.type 'faster_rcnn_r3d50_keras'" in fault
    assert re.search(r"\d+ missing:\n +conv1/", fault)


def test_trunk_without_the_layers_of_the_i3d_head(tmp_path, without_table):
    trunk = i3d.I3D(depth_multiplier=_THIN)
    path = pretrained.save(pretrained.PretrainedVariables(trunk), str(tmp_path))
    start.check(_pipeline(path), "my.config")
    fault = _fault(_pipeline(path, f"{_EXTENSION} {{ i3d_head {{ }} }}"))
    assert "48 missing" in fault and "Mixed_5b/Branch_0/Conv3d_0a_1x1/conv_3d/w" in fault


def _with_a_hole(variables: dict[str, tf.Variable]) -> None:
    """One number in the last variable that is not one."""
    variable = variables[max(variables)]
    flat = variable.numpy().reshape(-1)
    flat[-1] = np.nan
    variable.assign(flat.reshape(variable.shape))


def test_pretrained_trunk_with_numbers_that_are_not_finite(tmp_path):
    trunk = pretrained.PretrainedVariables(i3d.I3D(depth_multiplier=_THIN))
    _with_a_hole(trunk.by_path)
    fault = _fault(_pipeline(pretrained.save(trunk, str(tmp_path))))
    assert f"1 not finite numbers:\n  {max(trunk.by_path)}" in fault


def test_pretrained_trunk_is_in_the_table(whole_i3d, capsys):
    start.check(_pipeline(whole_i3d, f"{_EXTENSION} {{ i3d_head {{ }} }}"), "my.config")
    table = capsys.readouterr().err
    assert f"starts from '{whole_i3d}' (fine_tune_checkpoint_type 'classification')" in table
    rows = {line[:14].strip(): line[14:].split() for line in table.splitlines()[2:]}
    assert rows["trunk"] == ["180", "0", "0", "0"]
    assert rows["I3D head"] == ["48", "0", "0", "0"]
    assert rows["RPN"] == ["0", "0", "6", "0"]
    assert rows["class layer"] == ["0", "0", "2", "0"]


# Models of one's own.

_CLASS_SPECIFIC = (
    "model { faster_rcnn { second_stage_box_predictor { mask_rcnn_box_predictor "
    "{ share_box_across_classes: false } } } }"
)
_FOUR_CLASSES = "model { faster_rcnn { num_classes: 4 } }"
_OLD = {1: "stand", 2: "walk", 3: "sit"}
_NEW = {1: "walk", 2: "jump", 3: "sit", 4: "stand"}
_TX = "tx_head { num_layers: 2 feature_size: 8 ffn_size: 8 query_channels: 4 }"
_TX_OPTIONS = f"{_EXTENSION} {{ {_TX} }}"
_NUM_PROPOSALS = 6


def _own_pipeline(override: str, label_map: pathlib.Path | None, path: str = "", kind: str = ""):
    pipeline = tiny_pipeline.make_pipeline(
        f"{tiny_pipeline.SHORT_TRUNK} {override}", label_map=label_map
    )
    if path:
        config = pipeline.train_config
        config.fine_tune_checkpoint, config.fine_tune_checkpoint_type = path, kind
        config.fine_tune_checkpoint_version = train_pb2.CheckpointVersion.V2
    return pipeline


def _predict(model) -> dict[str, np.ndarray]:
    """Numbers for given boxes in a clip: logits [R, K + 1], boxes [R, Kb, 4], objectness."""
    num_frames, size = model.feature_extractor.num_frames, tiny_pipeline.SIZE
    rng = np.random.default_rng(5)
    frame = rng.uniform(-1, 1, [1, size, size, 3]).astype(np.float32)
    low = rng.uniform(0, 0.4, [1, _NUM_PROPOSALS, 2])
    boxes = np.concatenate([low, low + 0.5], axis=-1).astype(np.float32)
    predictions = model.predict(
        tf.tile(frame, [1, 1, 1, num_frames]),
        tf.constant([[size, size, 3 * num_frames]]),
        proposal_boxes=tf.constant(boxes),
    )
    return {
        "logits": predictions["class_predictions_with_background"].numpy(),
        "boxes": predictions["refined_box_encodings"].numpy(),
        "objectness": predictions["rpn_objectness_predictions_with_background"].numpy(),
    }


def _build(pipeline, seed: int):
    """A model whose variables are noise, as if it were trained."""
    model = tiny_pipeline.build_model(pipeline, is_training=False)
    _predict(model)  # makes the variables
    rng = np.random.default_rng(seed)
    for name, variable in sorted(model_variables.of_model(model).items()):
        low, high = (0.5, 1.5) if "variance" in name or "gamma" in name else (-0.5, 0.5)
        variable.assign(rng.uniform(low, high, variable.shape))
    return model


def _save(model, folder: pathlib.Path, label_map: pathlib.Path | None) -> str:
    """Writes a checkpoint as a training does: optimizer and step are beside the model."""
    if label_map is not None:
        class_names.keep(_own_pipeline("", label_map), str(folder))
    weight = tf.Variable(1.0)
    optimizer = tf.keras.optimizers.legacy.SGD(0.1, momentum=0.9)
    optimizer.apply_gradients([(tf.constant(1.0), weight)])
    checkpoint = tf.train.Checkpoint(
        step=tf.Variable(3, dtype=tf.int64), model=model, optimizer=optimizer
    )
    return checkpoint.save(str(folder / "ckpt"))


class _Old:
    """A trained model: what it predicts, and its checkpoint."""

    def __init__(self, folder: pathlib.Path, override: str = ""):
        self.label_map = tiny_pipeline.write_label_map(folder / "old.pbtxt", _OLD)
        model = _build(_own_pipeline(f"{_TX_OPTIONS} {override}", self.label_map), seed=1)
        self.path = _save(model, folder / "model", self.label_map)
        self.predicted = _predict(model)
        self.values = _values(model)


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> _Old:
    return _Old(tmp_path_factory.mktemp("old"))


def _load(model, path: str, kind: str) -> str:
    """Calls what the stock loop calls, without its dummy computation; returns what is printed."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        model_lib_v2.load_fine_tune_checkpoint(model, path, kind, 2, False, None, True)
    return said.getvalue()


def _started(pipeline):
    """The model of a pipeline after its start, its numbers before, and the table of it."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        start.check(pipeline, "my.config")
    model = _build(pipeline, seed=2)
    before = _values(model)
    config = pipeline.train_config
    # Without a training loop, as in a notebook, nobody has printed it before.
    assert said.getvalue() == _load(
        model, config.fine_tune_checkpoint, config.fine_tune_checkpoint_type
    )
    return model, before, said.getvalue()


def _values(model) -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in model_variables.of_model(model).items()}


def test_other_classes_predict_what_the_same_names_did(old, tmp_path):
    label_map = tiny_pipeline.write_label_map(tmp_path / "new.pbtxt", _NEW)
    override = f"{_TX_OPTIONS} {_FOUR_CLASSES}"
    model, before, said = _started(_own_pipeline(override, label_map, old.path, "detection"))
    found = _predict(model)
    for what in ("boxes", "objectness"):
        np.testing.assert_allclose(found[what], old.predicted[what], rtol=1e-5, atol=1e-5)
    ids = {name: number for number, name in _NEW.items()}
    same = [0, *(ids[name] for name in _OLD.values())]  # background, then as in the old model
    np.testing.assert_allclose(
        found["logits"][:, same], old.predicted["logits"], rtol=1e-4, atol=1e-4
    )
    (bias,) = (name for name in before if name.endswith("_class_predictor_layers/1/bias"))
    assert _values(model)[bias][ids["jump"]] == before[bias][ids["jump"]]
    assert "Classes by name: 3 taken over, 1 new ('jump'), 0 dropped." in said
    assert "class layer         0        2    0         0" in said


def test_boxes_of_classes_predict_what_the_same_names_did(tmp_path):
    old = _Old(tmp_path, _CLASS_SPECIFIC)
    new = {1: "sit", 2: "stand"}
    label_map = tiny_pipeline.write_label_map(tmp_path / "new.pbtxt", new)
    override = f"{_TX_OPTIONS} {_CLASS_SPECIFIC} model {{ faster_rcnn {{ num_classes: 2 }} }}"
    model, _, said = _started(_own_pipeline(override, label_map, old.path, "detection"))
    found = _predict(model)
    old_ids = {name: number for number, name in _OLD.items()}
    for number, name in new.items():
        np.testing.assert_allclose(
            found["boxes"][:, number - 1],
            old.predicted["boxes"][:, old_ids[name] - 1],
            rtol=1e-4,
            atol=1e-4,
        )
        np.testing.assert_allclose(
            found["logits"][:, number],
            old.predicted["logits"][:, old_ids[name]],
            rtol=1e-4,
            atol=1e-4,
        )
    assert "Classes by name: 2 taken over, 0 new, 1 dropped ('walk')." in said


def test_more_frames_take_over_everything(old):
    override = f"{_EXTENSION} {{ clip {{ num_frames: 8 }} {_TX} }}"
    model, _, said = _started(_own_pipeline(override, old.label_map, old.path, "full"))
    values = _values(model)
    assert values.keys() == old.values.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(value, old.values[name], err_msg=name)
    assert f"all                {len(values)}        0    0         0" in said


def test_another_precision_takes_over_everything(old):
    override = f"{_TX_OPTIONS} train_config {{ use_bfloat16: true }}"
    model, _, said = _started(_own_pipeline(override, old.label_map, old.path, "full"))
    assert model._mask_rcnn_box_predictor.action_head.compute_dtype == "bfloat16"
    assert f"all                {len(old.values)}        0    0         0" in said
    values = _values(model)
    assert values.keys() == old.values.keys()
    for name, value in values.items():
        np.testing.assert_array_equal(value, old.values[name])


def test_classes_in_another_order_take_over_everything_by_name(old, tmp_path):
    """The sizes agree, the ids do not."""
    label_map = tiny_pipeline.write_label_map(
        tmp_path / "new.pbtxt", {1: "walk", 2: "sit", 3: "stand"}
    )
    pipeline = _own_pipeline(_TX_OPTIONS, label_map, old.path, "full")
    found = _predict(_started(pipeline)[0])["logits"]
    np.testing.assert_allclose(
        found[:, [0, 3, 1, 2]], old.predicted["logits"], rtol=1e-4, atol=1e-4
    )


def test_more_layers_of_the_head_take_over_what_fits(old):
    override = f"{_EXTENSION} {{ {_TX.replace('num_layers: 2', 'num_layers: 3')} }}"
    model, before, said = _started(_own_pipeline(override, old.label_map, old.path, "detection"))
    for name, value in _values(model).items():
        source = before if "/units/2/" in name else old.values
        np.testing.assert_array_equal(value, source[name], err_msg=name)
    assert "Tx head            68        0   28         0" in said
    assert "New in the Tx head: units/2/0/attention_norm, " in said


@pytest.mark.slow
def test_another_head_takes_over_what_fits(old):
    override = f"{_EXTENSION} {{ tx_i3d_head {{ {_TX} }} }}"
    model, before, said = _started(_own_pipeline(override, old.label_map, old.path, "detection"))
    for name, value in _values(model).items():
        # The I3D head regresses the boxes, from features of its own.
        is_new = "/i3d_head/" in name or "/_box_head/" in name
        expected = before[name] if is_new else old.values[name.replace("/tx_head/", "/")]
        np.testing.assert_array_equal(value, expected, err_msg=name)
    assert "I3D head            0        0  216         0" in said
    assert "Tx head            68        0    0         0" in said
    assert "New: the box layer (it gets the features of the I3D head" in said


@pytest.mark.parametrize(
    ("override", "cause"),
    [
        (_FOUR_CLASSES, "num_classes is 4 here and 3 in it"),
        (
            f"{_EXTENSION} {{ tx_head {{ num_layers: 3 }} }}",
            "tx_head.num_layers is 3 here and 2 in it",
        ),
    ],
)
def test_full_refuses_another_model(old, override, cause):
    label_map = old.label_map
    fault = _fault(_own_pipeline(f"{_TX_OPTIONS} {override}", label_map, old.path, "full"))
    assert f"'{old.path}': it is of another model ({cause})" in fault
    assert "Set 'detection'" in fault and "model/_mask_rcnn_box_predictor/" in fault


def test_detection_refuses_another_trunk(old):
    override = f"{_TX_OPTIONS} {_EXTENSION} {{ trunk {{ depth_multiplier: 0.3 }} }}"
    fault = _fault(_own_pipeline(override, old.label_map, old.path, "detection"))
    assert (
        "its trunk is of another network" in fault and "12 variables have another shape:" in fault
    )


def _copied(old: _Old, folder: pathlib.Path) -> str:
    """The checkpoint without what stands beside it."""
    for path in pathlib.Path(old.path).parent.glob("ckpt-1.*"):
        shutil.copy(path, folder)
    return str(folder / "ckpt-1")


def test_checkpoint_without_names_of_classes(tmp_path, old):
    path = _copied(old, tmp_path)
    pipeline = _own_pipeline(_TX_OPTIONS, old.label_map, path, "detection")
    model, before, said = _started(pipeline)
    assert "Classes: none is taken over, all start new: the names in the checkpoint" in said
    (kernel,) = (name for name in before if name.endswith("_class_predictor_layers/1/kernel"))
    np.testing.assert_array_equal(_values(model)[kernel], before[kernel])
    assert "Classes: all taken over by their ids, not by name: the names in the check" in _load(
        model, path, "full"
    )
    np.testing.assert_array_equal(_values(model)[kernel], old.values[kernel])


def test_checkpoint_with_numbers_that_are_not_finite(tmp_path, old):
    model = _build(_own_pipeline(_TX_OPTIONS, old.label_map), seed=1)
    _with_a_hole(model_variables.of_model(model))
    path = _save(model, tmp_path, old.label_map)
    fault = _fault(_own_pipeline(_TX_OPTIONS, old.label_map, path, "full"))
    assert "1 of its 90 variables hold numbers that are not finite, such as model/" in fault


def test_damaged_checkpoint(tmp_path, old):
    path = _copied(old, tmp_path)
    (data,) = tmp_path.glob("*.data-*")
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    fault = _fault(_own_pipeline(_TX_OPTIONS, old.label_map, path, "full"))
    assert f"'{path}': it is damaged: " in fault
    with pytest.raises(errors.InputError, match=f"'{path}': it is damaged: "):
        _load(_build(_own_pipeline(_TX_OPTIONS, old.label_map), seed=2), path, "full")


def test_path_that_is_almost_right(old):
    folder = str(pathlib.Path(old.path).parent)
    for path in (folder, f"{old.path}.index", f"{old.path}.data-00000-of-00001"):
        fault = _fault(_own_pipeline(_TX_OPTIONS, old.label_map, path, "full"))
        assert f"Did you mean '{old.path}'?" in fault


def test_type_that_does_not_exist(old):
    fault = _fault(_own_pipeline(_TX_OPTIONS, old.label_map, old.path, "fine_tune"))
    assert "_type: 'fine_tune' does not exist. There are: classification, detection, full." in fault


def test_type_that_does_not_go_with_the_checkpoint(old, whole_i3d):
    def fault(path, kind):
        return _fault(_own_pipeline(_TX_OPTIONS, old.label_map, path, kind))

    assert "holds no trunk" in fault(old.path, "classification")
    assert "holds no detector, as fine_tune_checkpoint_type 'full' needs" in fault(
        whole_i3d, "full"
    )


@pytest.mark.parametrize(("from_detection", "fits"), [(False, False), (True, True)])
def test_type_that_is_not_set_is_the_stock_default(old, from_detection, fits):
    pipeline = _own_pipeline(_TX_OPTIONS, old.label_map, old.path, "")
    pipeline.train_config.from_detection_checkpoint = from_detection
    if fits:
        start.check(pipeline, "my.config")
    else:
        assert "'classification' needs" in _fault(pipeline)


def test_stock_restore_of_a_model_with_other_classes(old, tmp_path):
    """As in notebooks that take a model apart: all but the layers that depend on the classes."""
    label_map = tiny_pipeline.write_label_map(tmp_path / "new.pbtxt", _NEW)
    model = _build(_own_pipeline(f"{_TX_OPTIONS} {_FOUR_CLASSES}", label_map), seed=2)
    objects = model.restore_from_objects("detection")
    model_lib_v2.validate_tf_v2_checkpoint_restore_map(objects)
    status = tf.train.Checkpoint(**objects).restore(old.path).expect_partial()
    status.assert_existing_objects_matched()
    for name, value in _values(model).items():
        taken = np.array_equal(value, old.values[name])
        assert taken == ("/_class_head/" not in name), name
    assert model.restore_from_objects("full") == {"model": model}


def test_start_on_several_devices_fills_all_of_them(old):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    pipeline = _own_pipeline(f"{_TX_OPTIONS} {_FOUR_CLASSES}", old.label_map, old.path, "detection")
    with strategy.scope():
        model = _started(pipeline)[0]
        variables = model_variables.of_model(model)
        assert all(isinstance(v, tf.distribute.DistributedValues) for v in variables.values())
    (kernel,) = (v for n, v in variables.items() if n.endswith("_class_predictor_layers/1/kernel"))
    (stored,) = (v for n, v in old.values.items() if n.endswith("_predictor_layers/1/kernel"))
    for copy in strategy.experimental_local_results(kernel):
        np.testing.assert_array_equal(copy.numpy()[:, :4], stored)


# The training loop around it.


class _StockLoop:
    """Stands for the stock loop: notes what it was called with, and whether tables are printed."""

    def __init__(self):
        self.calls = []

    def __call__(self, **kwargs):
        self.calls.append({**kwargs, "is_checked": start._is_checked.get()})


def _train(tmp_path, pipeline, loop, override=None):
    train_loop = start.wrap_train_loop(loop, read_pipeline=lambda path, override: pipeline)
    train_loop(
        pipeline_config_path="my.config",
        model_dir=str(tmp_path / "model"),
        config_override=override,
        train_steps=3,
    )


def test_training_that_starts_keeps_its_label_map(tmp_path, old):
    loop = _StockLoop()
    _train(tmp_path, _own_pipeline("", old.label_map, old.path, "full"), loop, "a")
    (call,) = loop.calls
    assert call == {
        "pipeline_config_path": "my.config",
        "model_dir": str(tmp_path / "model"),
        "config_override": "a",
        "train_steps": 3,
        "is_checked": True,
        "save_final_config": True,
    }
    kept = tmp_path / "model" / class_names.KEPT_LABEL_MAP
    assert kept.read_bytes() == old.label_map.read_bytes()
    assert not start._is_checked.get()


def test_config_that_the_user_keeps_in_the_folder_is_left_alone(tmp_path, old):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pipeline.config").write_text("# mine")
    loop = _StockLoop()
    _train(tmp_path, _own_pipeline("", old.label_map, old.path, "full"), loop)
    assert "save_final_config" not in loop.calls[0]


def test_training_that_resumes_starts_from_nothing_else(tmp_path, old):
    """What it started from may be gone, and its table would be wrong."""
    tf.train.CheckpointManager(
        tf.train.Checkpoint(model=tf.train.Checkpoint(weight=tf.Variable(1.0))),
        str(tmp_path / "model"),
        max_to_keep=1,
    ).save()
    assert start.resumes(str(tmp_path / "model"))
    pipeline = _own_pipeline("", old.label_map, "nowhere/ckpt-1", "full")
    loop = _StockLoop()
    _train(tmp_path, pipeline, loop, "train_config { num_steps: 7 }")
    (call,) = loop.calls
    config = tiny_pipeline.make_pipeline(call["config_override"]).train_config
    assert (config.num_steps, config.fine_tune_checkpoint) == (7, "")
    assert not (tmp_path / "model" / class_names.KEPT_LABEL_MAP).exists()


def test_training_does_not_resume_with_other_classes(tmp_path, old):
    """A label map that was changed in place gives the ids of the same config other names."""
    pipeline = _own_pipeline("", old.label_map)
    _save(tf.train.Checkpoint(weight=tf.Variable(1.0)), tmp_path / "model", old.label_map)
    loop = _StockLoop()
    _train(tmp_path, pipeline, loop)
    # A config that names no start is saved as it is.
    assert loop.calls[0]["config_override"] is None
    label_map = tiny_pipeline.write_label_map(tmp_path / "new.pbtxt", {**_OLD, 2: "jump"})
    with pytest.raises(errors.InputError, match="my.config: .*2 is 'jump' and was 'walk'"):
        _train(tmp_path, _own_pipeline("", label_map), loop)
    assert len(loop.calls) == 1


def test_checkpoint_from_before_the_first_step_is_no_model(tmp_path, old, capsys):
    """The stock loop saves one before a model that starts from random weights is built."""
    tf.train.CheckpointManager(
        tf.train.Checkpoint(step=tf.Variable(0)), str(tmp_path / "model"), max_to_keep=1
    ).save()
    assert not start.resumes(str(tmp_path / "model"))
    pipeline = _own_pipeline(_TX_OPTIONS, old.label_map, old.path, "full")
    loop = _StockLoop()
    _train(tmp_path, pipeline, loop)
    assert loop.calls[0]["config_override"] is None
    assert "Training starts from" in capsys.readouterr().err
    pipeline = _own_pipeline(_TX_OPTIONS, old.label_map, "nowhere/ckpt-1", "full")
    with pytest.raises(errors.InputError, match="there is no checkpoint 'nowhere/ckpt-1'"):
        _train(tmp_path, pipeline, _StockLoop())


def test_training_does_not_start_from_its_own_folder(tmp_path, old):
    path = str(tmp_path / "elsewhere" / ".." / "model" / "ckpt-1")
    loop = _StockLoop()
    with pytest.raises(errors.InputError, match="Set another --model_dir"):
        _train(tmp_path, _own_pipeline("", old.label_map, path, "full"), loop)
    assert loop.calls == []


def test_table_is_printed_by_the_check_only_in_a_training(tmp_path, old, capsys):
    pipeline = _own_pipeline(_TX_OPTIONS, old.label_map, old.path, "full")
    model = _build(pipeline, seed=2)

    def loop(**kwargs):
        model_lib_v2.load_fine_tune_checkpoint(model, old.path, "full", 2, False, None, True)

    _train(tmp_path, pipeline, loop)
    assert capsys.readouterr().err == ""
    np.testing.assert_array_equal(_predict(model)["logits"], old.predicted["logits"])


def test_models_of_others_are_trained_as_ever(tmp_path):
    stock = _pipeline("nowhere")
    stock.model.faster_rcnn.feature_extractor.type = "faster_rcnn_resnet50_keras"
    loop = _StockLoop()
    _train(tmp_path, stock, loop)
    (call,) = loop.calls
    assert call["config_override"] is None and not (tmp_path / "model").exists()
    seen = []
    load = start.wrap_load_fine_tune_checkpoint(lambda *args: seen.append(args))
    load(tf.Module(), "a", "detection", 2, True, "data", False)
    assert [args[1:] for args in seen] == [("a", "detection", 2, True, "data", False)]
