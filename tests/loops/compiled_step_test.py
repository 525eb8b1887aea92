# SPDX-License-Identifier: Apache-2.0
"""The compiled training step against the one that is not: losses, variables, momentum.

Random sampling and dropout are off where numbers are compared: XLA draws other numbers.

Shapes: B clips, G ground-truth rows, K classes.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from object_detection_ext import registration

registration.register()

from object_detection import inputs, model_lib_v2  # noqa: E402
from object_detection.builders import optimizer_builder  # noqa: E402
from object_detection.core import standard_fields  # noqa: E402

from object_detection_ext import builders  # noqa: E402
from object_detection_ext.loops import compiled_step  # noqa: E402
from tests import tiny_pipeline  # noqa: E402
from tests.loops import processes  # noqa: E402

_EXTENSION = "[object_detection_ext.protos.video_action_transformer]"
_Input = standard_fields.InputDataFields
_SIZE, _CHANNELS = tiny_pipeline.SIZE, 3 * tiny_pipeline.NUM_FRAMES
# Every anchor and every proposal is a sample.
_NOTHING_RANDOM = f"""
model {{ faster_rcnn {{
  first_stage_minibatch_size: 256
  first_stage_max_proposals: 48
  second_stage_batch_size: 48
  second_stage_balance_fraction: 1.0
}} }}
{_EXTENSION} {{
  tx_head {{ dropout_rate: 0 }}
  summaries {{ training_picture_every_n_steps: 0 }}
  compute {{ xla: true }}
}}
"""


def _batch() -> tuple[dict, dict]:
    """Two clips of noise with 2 and 1 people, padded to 10 rows, as the stock input gives them."""
    rng = np.random.default_rng(0)
    boxes = np.zeros((2, 10, 4), np.float32)
    boxes[0, :2] = [0.1, 0.1, 0.6, 0.5], [0.3, 0.4, 0.9, 0.9]
    boxes[1, 0] = 0.2, 0.2, 0.8, 0.8
    classes = np.zeros((2, 10, 3), np.float32)
    classes[0, :2] = [1, 0, 1], [0, 1, 0]
    classes[1, 0] = 0, 0, 1
    features = {
        _Input.image: tf.constant(rng.uniform(-1, 1, (2, _SIZE, _SIZE, _CHANNELS)), tf.float32),
        _Input.true_image_shape: tf.constant([[_SIZE, _SIZE, _CHANNELS]] * 2),
        inputs.HASH_KEY: tf.constant([1, 2]),
        "source_id": tf.constant(["a", "b"]),
    }
    labels = {
        _Input.num_groundtruth_boxes: tf.constant([2, 1]),
        _Input.groundtruth_boxes: tf.constant(boxes),
        _Input.groundtruth_classes: tf.constant(classes),
        _Input.groundtruth_weights: tf.cast(boxes[..., 2] > 0, tf.float32),
    }
    return features, labels


class _Training:
    """A model with an optimizer. Made eagerly: tracing takes longer than the rest."""

    def __init__(self, override: str, weights: list[np.ndarray] | None = None):
        pipeline = tiny_pipeline.make_pipeline(tiny_pipeline.SHORT_TRUNK + override)
        self.model = tiny_pipeline.build_model(pipeline, is_training=True)
        features, labels = _batch()
        self.model.provide_groundtruth(
            groundtruth_boxes_list=tf.unstack(labels[_Input.groundtruth_boxes]),
            groundtruth_classes_list=tf.unstack(labels[_Input.groundtruth_classes]),
            groundtruth_weights_list=tf.unstack(labels[_Input.groundtruth_weights]),
        )
        self.model.predict(features[_Input.image], features[_Input.true_image_shape])
        # Kept: the model lists them in another order after a step.
        self.variables = list(self.model.variables)
        for variable, value in zip(self.variables, weights or (), strict=bool(weights)):
            variable.assign(value)
        self.step = tf.Variable(0, dtype=tf.int64)
        optimizer = pipeline.train_config.optimizer
        self.optimizer, _ = optimizer_builder.build(optimizer, global_step=self.step)

    def weights(self) -> list[np.ndarray]:
        return [variable.numpy() for variable in self.variables]

    def run(self, step_function, features, labels) -> dict[str, tf.Tensor]:
        losses = step_function(
            self.model,
            features,
            labels,
            False,
            self.optimizer,
            training_step=self.step,
            clip_gradients_value=10.0,
            num_replicas=1,
        )
        self.step.assign_add(1)
        return losses


@pytest.mark.slow
def test_compiled_step_gives_the_same_losses_variables_and_momentum():
    """The whole stock step of a thin model: two steps, so that the second one sees the first's."""
    tf.random.set_seed(0)
    batch = _batch()
    eager = _Training(_NOTHING_RANDOM)
    other = _Training(_NOTHING_RANDOM, eager.weights())
    before = eager.weights()
    expected = [eager.run(model_lib_v2.eager_train_step, *batch) for _ in range(2)]
    function = compiled_step.compiled(model_lib_v2.eager_train_step)
    run = tf.function(lambda *args: other.run(function, *args), autograph=False)
    actual = [run(*batch) for _ in range(2)]

    for theirs, ours in zip(expected, actual, strict=True):
        assert theirs.keys() == ours.keys()
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-6, atol=1e-6)
    assert expected[0]["Loss/BoxClassifierLoss/localization_loss"] > 0.01
    moved = [np.abs(new - old).max() for new, old in zip(eager.weights(), before, strict=True)]
    assert sum(size > 1e-4 for size in moved) > 20
    for theirs, ours in zip(eager.weights(), other.weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    slots = eager.optimizer.variables(), other.optimizer.variables()
    assert len(slots[0]) == len(slots[1]) > 20
    for theirs, ours in zip(*slots, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    _check_operations(run.get_concrete_function(*batch))


def _check_operations(function) -> None:
    """The compiled part has nothing that runs on the host, and all that is expensive."""
    outer = {node.op for node in function.graph.as_graph_def().node}
    (inner,) = (
        part for part in function.graph.as_graph_def().library.function
        if part.attr["_XlaMustCompile"].b
    )  # fmt: skip
    operations = {node.op for node in inner.node_def}
    assert {"Conv3D", "Conv3DBackpropFilterV2", "ResourceApplyKerasMomentum"} <= operations
    # Region proposals are suppressed tile by tile, by plain operations.
    assert "While" in operations or "StatelessWhile" in operations
    assert not [op for op in operations if "NonMaxSuppression" in op]
    assert not operations & {"PyFunc", "EagerPyFunc", "CropAndResize", "Where"}
    assert not outer & {"Conv3D", "NonMaxSuppressionV5"}


# What is around the compiled part.


def _fake_step(calls: list):
    """Stands for the stock step: a weight times the sum of the boxes."""

    def step(model, features, labels, unpad, optimizer, training_step, **kwargs):
        calls.append((set(features), set(labels), unpad, kwargs))
        with tf.GradientTape() as tape:
            boxes = labels[_Input.groundtruth_boxes] * features["scale"]
            loss = model.weight * tf.reduce_sum(boxes)
        (gradient,) = tape.gradient(loss, [model.weight])
        optimizer.apply_gradients([(gradient, model.weight), (None, model.unused)])
        return {"Loss/total_loss": loss}

    return step


class _FakeModel(tf.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.unused = tf.Variable(3.0), tf.Variable(5.0)


def _fake_labels() -> dict:
    return {
        _Input.groundtruth_boxes: tf.ones([1, 2, 4]),
        _Input.groundtruth_weights: tf.ones([1, 2]),
        "name": tf.constant(["x"]),
    }


def test_ground_truth_stays_padded_and_names_stay_outside():
    calls: list = []
    model, optimizer = _FakeModel(), tf.keras.optimizers.legacy.SGD(0.5)
    step = tf.function(compiled_step.compiled(_fake_step(calls)), autograph=False)
    features = {"scale": tf.constant(2.0), "source_id": tf.constant(["a"])}
    losses = step(model, features, _fake_labels(), True, optimizer, training_step=0, num_replicas=1)
    assert losses["Loss/total_loss"].numpy() == 48.0
    assert model.weight.numpy() == 3.0 - 0.5 * 16
    features_seen, labels_seen, unpad, kwargs = calls[0]
    assert features_seen == {"scale"} and "name" not in labels_seen
    assert unpad is False
    assert kwargs == {"num_replicas": 1}


_RATES = {
    "cosine": "cosine_decay_learning_rate { learning_rate_base: 0.1 total_steps: 9 "
    "warmup_learning_rate: 0.01 warmup_steps: 2 }",
    "manual": "manual_step_learning_rate { initial_learning_rate: 0.1 "
    "schedule { step: 1 learning_rate: 0.05 } warmup: true }",
}


@pytest.mark.parametrize("average", ["false", "true"])
@pytest.mark.parametrize(
    ("kind", "rate"), [("momentum", "cosine"), ("adam", "manual"), ("rms_prop", "cosine")]
)
def test_every_optimizer_compiles_to_the_same(kind, rate, average):
    """With schedules of the learning rate, and with moving averages: three steps."""
    optimizer = f"{kind}_optimizer {{ learning_rate {{ {_RATES[rate]} }} }}"
    config = tiny_pipeline.make_pipeline(
        f"train_config {{ optimizer {{ {optimizer} use_moving_average: {average} }} }}"
    ).train_config.optimizer

    def train(wrap) -> list[float]:
        number, model = tf.Variable(0, dtype=tf.int64), _FakeModel()
        optimizer, _ = optimizer_builder.build(config, global_step=number)
        if average == "true":
            optimizer.shadow_copy(model)
        step = wrap(_fake_step([]))

        @tf.function(autograph=False)
        def run():
            features = {"scale": tf.constant(2.0)}
            step(model, features, _fake_labels(), True, optimizer, training_step=number)
            number.assign_add(1)

        for _ in range(3):
            run()
        return [model.weight.numpy(), *(float(v.numpy()) for v in optimizer.variables())]

    plain, compiled = train(lambda step: step), train(compiled_step.compiled)
    assert plain[0] != 3.0
    np.testing.assert_allclose(compiled, plain, rtol=1e-5)


def test_padding_without_weights_is_refused():
    labels = _fake_labels()
    del labels[_Input.groundtruth_weights]
    with pytest.raises(ValueError, match="padding would count as people"):
        compiled_step.compiled(_fake_step([]))(_FakeModel(), {}, labels, True, None, 0)


def test_stock_step_comes_back():
    stock = model_lib_v2.eager_train_step
    with pytest.raises(RuntimeError), compiled_step.installed():
        assert model_lib_v2.eager_train_step is not stock
        raise RuntimeError
    assert model_lib_v2.eager_train_step is stock


@pytest.mark.parametrize("on_gpu", [False, True])
def test_a_cpu_is_warned_with_figures(monkeypatch, capsys, on_gpu):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["a GPU"] * on_gpu)
    compiled_step.announce(use_tpu=False)
    first, *rest = capsys.readouterr().err.splitlines()
    assert "compiled with XLA" in first and "no training pictures" in first
    assert len(rest) == (not on_gpu)
    assert on_gpu or ("warning" in rest[0] and "4.3 s compiled and 1.04 s" in rest[0])


_REPLICAS = """
import json
from tests.loops import tiny_training
import tensorflow as tf
from object_detection import model_lib_v2
from object_detection.core import standard_fields
from object_detection_ext.loops import compiled_step

cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def with_weights(features, labels):
    weights = standard_fields.InputDataFields.groundtruth_weights
    return features, {**labels, weights: tf.ones([2, 1])}

def train(step_function):
    with strategy.scope():
        model = tiny_training.TinyModel()
        optimizer = tf.keras.optimizers.legacy.SGD(0.1, momentum=0.9)
    make = lambda context: tiny_training.make_dataset().map(with_weights)
    data = iter(strategy.distribute_datasets_from_function(make))

    def of_replica(features, labels):
        return step_function(
            model, features, labels, False, optimizer, training_step=0, num_replicas=2,
            clip_gradients_value=0.5,
        )

    @tf.function
    def step():
        losses = strategy.run(of_replica, args=next(data))
        return strategy.reduce("SUM", losses["Loss/total_loss"], axis=None)

    losses = [float(step()) for _ in range(4)]
    return losses + [v.numpy().tolist() for v in model.trainable_variables]

stock = model_lib_v2.eager_train_step
print(json.dumps([train(stock), train(compiled_step.compiled(stock))]))
"""


def test_two_replicas_train_as_without_compilation():
    """The stock step on two devices, in a process of its own: 4 steps, losses and variables."""
    done = subprocess.run(
        [sys.executable, "-c", _REPLICAS],
        cwd=processes.ROOT, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    plain, compiled = json.loads(done.stdout.splitlines()[-1])
    assert len(plain) == 8 and plain[3] < plain[0]
    for theirs, ours in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


# The stock loop on it, and evaluation.


def _write_data(folder: pathlib.Path) -> pathlib.Path:
    frames = tiny_pipeline.gray_frames(4)
    people = {2: [((0.2, 0.2, 0.7, 0.7), "walk"), ((0.2, 0.2, 0.7, 0.7), "stand")]}
    records = [tiny_pipeline.make_record(frames, people, video_id=f"v{n}") for n in range(3)]
    path = tiny_pipeline.write_records(folder / "records", records)
    return tiny_pipeline.write_pipeline(
        folder / "pipeline.config",
        tiny_pipeline.SHORT_TRUNK
        + f"{_EXTENSION} {{ summaries {{ training_picture_every_n_steps: 1 }} "
        "compute { xla: true } } train_input_reader { max_number_of_boxes: 5 }",
        label_map=tiny_pipeline.write_label_map(folder / "label_map.pbtxt"),
        train=path,
        evaluation=path,
    )


@pytest.mark.slow
def test_stock_loop_trains(tmp_path, capsys):
    """With dropout, sampling and reports, as users run it."""
    builders._say_once.cache_clear()
    config, model_dir = _write_data(tmp_path), tmp_path / "model"
    common = {"pipeline_config_path": str(config), "model_dir": str(model_dir)}
    model_lib_v2.train_loop(**common, train_steps=2, checkpoint_every_n=2)
    said = capsys.readouterr().err
    assert "steps are compiled with XLA" in said
    assert "use_static_shapes" in said
    assert "training: step 2 of 2, loss " in said
    events = tiny_pipeline.read_events(model_dir / "train")
    losses = dict(events.scalars["Loss/total_loss"])
    assert set(losses) == {1, 2} and all(0 < loss < 100 for loss in losses.values())
    assert not events.pictures
    assert tf.train.latest_checkpoint(str(model_dir)) == str(model_dir / "ckpt-2")


def test_evaluation_compiles_the_trunk_and_nothing_else():
    """As the stock eval loop traces it, with variables made on the way."""
    features, _ = _batch()
    clips, shapes = features[_Input.image], features[_Input.true_image_shape]

    def build(xla: str):
        override = f"{_EXTENSION} {{ compute {{ xla: {xla} }} }}"
        pipeline = tiny_pipeline.make_pipeline(tiny_pipeline.SHORT_TRUNK + override)
        model = tiny_pipeline.build_model(pipeline, is_training=False)
        run = tf.function(
            lambda *args: model.postprocess(model.predict(*args), shapes), autograph=False
        )
        return model, run, run.get_concrete_function(clips, shapes)

    compiled, run, traced = build("true")
    plain, run_plain, _ = build("false")
    rng = np.random.default_rng(0)
    for variable, twin in zip(compiled.variables, plain.variables, strict=True):
        assert variable.shape == twin.shape
        value = rng.uniform(0.5, 1.5) + rng.uniform(-0.5, 0.5, variable.shape)
        variable.assign(value if "moving_variance" in variable.name else value - 1.0)
        twin.assign(variable)
    ours, theirs = run(clips, shapes), run_plain(clips, shapes)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-4)

    graph = traced.graph.as_graph_def()
    (inner,) = (part for part in graph.library.function if part.attr["_XlaMustCompile"].b)
    assert {"Conv3D", "MaxPool3D"} <= {node.op for node in inner.node_def}
    outer = {node.op for node in graph.node}
    assert {"NonMaxSuppressionV5", "CropAndResize"} <= outer and "Conv3D" not in outer
