# SPDX-License-Identifier: Apache-2.0
"""The models of the paper's tables: each file reads, builds, trains and evaluates a step.

What each model changes stands here a second time, by hand, as do the numbers of parameters: neither
the generator nor the code can move them unseen.

Shapes: T frames, H W pixels, K classes, N detections.
"""

import importlib
import json
import pathlib
import re
import shlex

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from object_detection import model_lib_v2
from object_detection.builders import optimizer_builder
from object_detection.core import standard_fields
from object_detection.protos import pipeline_pb2

from object_detection_ext import options as options_lib
from object_detection_ext import registration
from object_detection_ext.protos import video_action_transformer_pb2 as vat_pb2
from pipeline_configs import generate
from tests import tiny_pipeline

registration.register()

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_CONFIGS = _ROOT / "pipeline_configs"
_PAPER_MAP = _ROOT / "docs" / "paper_map.md"
_MAIN = "ava_i3d_tx_highres_r300"
_EXTENSION = "[object_detection_ext.protos.video_action_transformer]"
_RENEW = "run `python pipeline_configs/generate.py`"

_Input = standard_fields.InputDataFields
_Detection = standard_fields.DetectionResultFields

# Millions of trainable parameters: (to the third decimal, what the paper prints). From layer
# shapes, biases included, batch norm's beta (with gamma in R3D), 80 classes and background:
#   I3D to Mixed_4f 7,523,264; MaxPool3d_5a_2x2 to Mixed_5c 4,756,720
#   R3D-50 to res4 10,161,984; 2 non-local blocks on 512 and 3 on 1024 channels 7,358,464
#   S3D-G to Mixed_4f 5,407,936; MaxPool3d_5a_2x2 to Mixed_5c 3,700,912
#   RPN, 3x3 to 512, 1x1 to 12 anchors of 2 + 4: 3,871,304 on 832 channels, 4,756,040 on 1024
#   linear layers behind I3D: classes 1024 x 81 + 81 = 83,025; box 1024 x 4 + 4 = 4,100, with a box
#   for each class 1024 x 320 + 320 = 328,000
# I3D + I3D: 7,523,264 + 4,756,720 + 3,871,304 + 83,025 + 4,100 = 16,238,413.
# Tx+I3D: the HighRes model's 19,291,109, less its box layer 256 x 4 + 4, and 4,756,720 + 4,100.
# S3D-G: 5,407,936 + 3,700,912 + 3,871,304 + 83,025 + 4,100 = 13,067,277.
_PARAMETERS = {
    "ava_i3d_i3d_r64": (16.238, 16.2),
    "ava_i3d_i3d_gt_r64": (16.238, 16.2),
    "ava_i3d_tx_lowres_r64": (13.863, 13.9),
    "ava_i3d_tx_highres_r64": (19.291, 19.3),
    "ava_i3d_tx_lowres_gt_r64": (13.863, 13.9),
    "ava_i3d_tx_highres_gt_r64": (19.291, 19.3),
    "ava_i3d_i3d_r300": (16.238, None),
    "ava_i3d_tx_highres_r300": (19.291, None),
    "ava_i3d_tx_i3d_highres_r300": (24.051, None),
    "ava_i3d_tx_i3d_highres_r300_96f": (24.051, None),
    "ava_i3d_i3d_r64_class_specific": (16.562, None),
    "ava_i3d_i3d_r64_no_augmentation": (16.238, None),
    "ava_i3d_i3d_r64_from_scratch": (16.238, None),
    "ava_r3d50_tx_lowres_gt_r64": (17.730, 17.7),
    "ava_r3d50_non_local_tx_lowres_gt_r64": (25.089, 25.1),
    "ava_s3dg_i3d_r64": (13.067, None),
}
_NAMES = sorted(_PARAMETERS)

# What a model's file says otherwise than the main model's; None: nothing.
_R64 = {
    "model.faster_rcnn.first_stage_max_proposals": 64,
    "model.faster_rcnn.second_stage_batch_size": 64,
}
_NO_TX_HEAD = {
    f"options.tx_head.{field}": None
    for field in ("num_heads", "num_layers", "feature_size", "dropout_rate", "query_preprocessor")
}
_I3D_HEAD = {**_NO_TX_HEAD, "options.i3d_head": "set"}
_LOWRES = {"options.tx_head.query_preprocessor": vat_pb2.TxHead.LOW_RES}
_TX_I3D = {
    **_NO_TX_HEAD,
    "options.tx_i3d_head.tx_head.num_heads": 2,
    "options.tx_i3d_head.tx_head.num_layers": 3,
    "options.tx_i3d_head.tx_head.feature_size": 128,
    "options.tx_i3d_head.tx_head.dropout_rate": pytest.approx(0.3),
    "options.tx_i3d_head.tx_head.query_preprocessor": vat_pb2.TxHead.HIGH_RES,
    "options.tx_i3d_head.i3d_head": "set",
}
_GT = {"options.proposals.source": vat_pb2.Proposals.GROUND_TRUTH}
_STOPPED_EARLY = {"train_config.num_steps": 300_000}
_FROM_SCRATCH = {
    "model.faster_rcnn.feature_extractor.batch_norm_trainable": True,
    "train_config.fine_tune_checkpoint": None,
    "train_config.fine_tune_checkpoint_type": None,
    "train_config.fine_tune_checkpoint_version": None,
}
_R3D50 = {
    "model.faster_rcnn.feature_extractor.type": "faster_rcnn_r3d50_keras",
    "train_config.fine_tune_checkpoint": "MODELS/r3d50_imagenet/ckpt",
}
_CROP = "train_config.data_augmentation_options.1.random_crop_image"
_NO_AUGMENTATION = {
    "train_config.data_augmentation_options.0.random_horizontal_flip": None,
    **{
        f"{_CROP}.{field}": None
        for field in (
            "min_object_covered",
            "min_aspect_ratio",
            "max_aspect_ratio",
            "min_area",
            "max_area",
            "overlap_thresh",
            "random_coef",
        )
    },
}
_DIFFERENCES = {
    "ava_i3d_i3d_r64": {**_R64, **_I3D_HEAD},
    "ava_i3d_i3d_gt_r64": {**_R64, **_I3D_HEAD, **_GT},
    "ava_i3d_tx_lowres_r64": {**_R64, **_LOWRES},
    "ava_i3d_tx_highres_r64": _R64,
    "ava_i3d_tx_lowres_gt_r64": {**_R64, **_LOWRES, **_GT, **_STOPPED_EARLY},
    "ava_i3d_tx_highres_gt_r64": {**_R64, **_GT, **_STOPPED_EARLY},
    "ava_i3d_i3d_r300": _I3D_HEAD,
    "ava_i3d_tx_highres_r300": {},
    "ava_i3d_tx_i3d_highres_r300": _TX_I3D,
    "ava_i3d_tx_i3d_highres_r300_96f": {
        **_TX_I3D,
        "options.clip.num_frames": 96,
        "eval_input_reader.0.tf_record_input_reader.input_path.0": (
            "DATA/val_96f.record-?????-of-?????"
        ),
    },
    "ava_i3d_i3d_r64_class_specific": {
        **_R64,
        **_I3D_HEAD,
        "model.faster_rcnn.second_stage_box_predictor.mask_rcnn_box_predictor"
        ".share_box_across_classes": False,
    },
    "ava_i3d_i3d_r64_no_augmentation": {**_R64, **_I3D_HEAD, **_NO_AUGMENTATION},
    "ava_i3d_i3d_r64_from_scratch": {**_R64, **_I3D_HEAD, **_FROM_SCRATCH},
    "ava_r3d50_tx_lowres_gt_r64": {**_R64, **_LOWRES, **_GT, **_STOPPED_EARLY, **_R3D50},
    "ava_r3d50_non_local_tx_lowres_gt_r64": {
        **_R64,
        **_LOWRES,
        **_GT,
        **_STOPPED_EARLY,
        **_R3D50,
        "model.faster_rcnn.feature_extractor.type": "faster_rcnn_r3d50_non_local_keras",
    },
    "ava_s3dg_i3d_r64": {
        **_R64,
        **_I3D_HEAD,
        **_FROM_SCRATCH,
        "model.faster_rcnn.feature_extractor.type": "faster_rcnn_s3dg_keras",
    },
}


def _path(name: str) -> pathlib.Path:
    return _CONFIGS / f"{name}.config"


def _read(name: str, override: str = "") -> pipeline_pb2.TrainEvalPipelineConfig:
    """As training reads it: parsed and checked. The working directory must be the repository's."""
    return registration.read_pipeline(str(_path(name)), override)


def _flat(message, prefix: str) -> dict:
    """Every field that is set, by its path; "set" for a message without fields in it."""
    values = {}
    for field, value in message.ListFields():
        items = {f"{prefix}{field.name}": value}
        if field.is_extension:
            items = {"options": value}
        elif field.label == field.LABEL_REPEATED:
            items = {f"{prefix}{field.name}.{index}": item for index, item in enumerate(value)}
        for path, item in items.items():
            if field.type == field.TYPE_MESSAGE:
                values |= _flat(item, f"{path}.") or {path: "set"}
            else:
                values[path] = item
    return values


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch):
    # Label maps are named from there.
    monkeypatch.chdir(_ROOT)


def test_there_is_a_file_for_each_model():
    names = sorted(path.stem for path in _CONFIGS.glob("ava_*.config"))
    assert names == _NAMES == sorted(model.name for model in generate.MODELS)


@pytest.mark.parametrize("model", generate.MODELS, ids=lambda model: model.name)
def test_file_is_what_the_generator_writes(model):
    figures = generate.read_figures().get(model.name, {})
    assert _path(model.name).read_text("utf-8") == generate.render_config(model, figures), _RENEW


@pytest.mark.parametrize("name", _NAMES)
def test_file_differs_from_the_main_models_in_its_row_only(name):
    main, other = (_flat(_read(each), "") for each in (_MAIN, name))
    differences = {
        path: other.get(path)
        for path in main.keys() | other.keys()
        if main.get(path) != other.get(path)
    }
    assert differences == _DIFFERENCES[name]


def test_main_model_trains_as_the_paper_says():
    """Section 3.5, read from the file by the stock builder."""
    config = _read(_MAIN).train_config
    step = tf.Variable(0, dtype=tf.int64)
    optimizer, (learning_rate,) = optimizer_builder.build(config.optimizer, global_step=step)
    assert type(optimizer).__name__ == "SGD"
    assert optimizer.get_config()["momentum"] == pytest.approx(0.9)
    assert (config.batch_size, config.num_steps) == (30, 500_000)
    # Half of the warm-up, all of it, half of the cosine, its end.
    for number, rate in ((0, 0.01), (500, 0.055), (1000, 0.1), (250_500, 0.05), (500_000, 0.0)):
        step.assign(number)
        assert float(learning_rate()) == pytest.approx(rate, rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("name", _NAMES)
def test_model_has_the_papers_number_of_parameters(name):
    """At full width. Neither T nor H and W nor R has parameters, so clip and R are small."""
    override = (
        "model { faster_rcnn { first_stage_max_proposals: 4 second_stage_batch_size: 4 } } "
        f"{_EXTENSION} {{ clip {{ num_frames: 2 }} }}"
    )
    model = tiny_pipeline.build_model(_read(name, override), is_training=False)
    _provide_groundtruth(model)
    model.predict(tf.zeros([1, 64, 64, 6]), tf.constant([[64, 64, 6]]))
    parameters = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    exact, printed = _PARAMETERS[name]
    assert round(parameters / 1e6, 3) == exact
    if printed is not None:
        assert round(parameters / 1e6, 1) == printed
    (of_table,) = (m.paper_parameters for m in generate.MODELS if m.name == name)
    assert of_table == printed
    figures = generate.read_figures().get(name, {})
    assert figures.get("parameters", {"value": parameters})["value"] == parameters


def _provide_groundtruth(model) -> None:
    model.provide_groundtruth(
        groundtruth_boxes_list=[tf.constant([[0.1, 0.1, 0.6, 0.6]])],
        groundtruth_classes_list=[tf.one_hot([11], 80)],
        groundtruth_weights_list=[tf.ones([1])],
    )


# Thin layers, few proposals, 8 frames of 64x64 pixels.
_SMALL_MODEL = """model { faster_rcnn {
    image_resizer { fixed_shape_resizer { height: 64 width: 64 } }
    first_stage_box_predictor_depth: 8
    first_stage_minibatch_size: 16
    first_stage_max_proposals: 4
    second_stage_batch_size: 4
} }"""
_SMALL_TX_HEAD = "tx_head { feature_size: 8 ffn_size: 8 }"


def _small(name: str) -> pipeline_pb2.TrainEvalPipelineConfig:
    head = _read(name).Extensions[options_lib.EXTENSION].WhichOneof("head")
    small_head = {
        "tx_head": _SMALL_TX_HEAD,
        "tx_i3d_head": f"tx_i3d_head {{ {_SMALL_TX_HEAD} }}",
        "i3d_head": "",
    }[head]
    options = f"clip {{ num_frames: 8 }} trunk {{ depth_multiplier: 0.1 }} {small_head}"
    return _read(name, f"{_SMALL_MODEL} {_EXTENSION} {{ {options} }}")


def _batch() -> tuple[dict, dict]:
    """A clip with two people, as the stock input pipeline hands it to the stock loops."""
    random = np.random.default_rng(0)
    actions = np.zeros([1, 2, 80], np.float32)
    actions[0, 0, [11, 79]] = 1  # stand, watch (a person)
    actions[0, 1, 10] = 1  # sit
    boxes = [[[0.1, 0.1, 0.8, 0.4], [0.2, 0.5, 0.9, 0.9]]]
    features = {
        _Input.image: tf.constant(random.uniform(-1, 1, [1, 64, 64, 24]), tf.float32),
        _Input.true_image_shape: tf.constant([[64, 64, 24]]),
    }
    labels = {
        _Input.groundtruth_boxes: tf.constant(boxes, tf.float32),
        _Input.groundtruth_classes: tf.constant(actions),
        _Input.groundtruth_weights: tf.ones([1, 2]),
        _Input.num_groundtruth_boxes: tf.constant([2]),
    }
    return features, labels


# Each head, each source of proposals and two of the trunks; `make test-all` has the others.
_TRAINED_FAST = (
    "ava_i3d_i3d_r64_class_specific",
    "ava_i3d_tx_i3d_highres_r300",
    "ava_r3d50_non_local_tx_lowres_gt_r64",
)


@pytest.mark.filterwarnings("ignore:.*set_learning_phase")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in _TRAINED_FAST else [pytest.mark.slow])
        for name in _NAMES
    ],
)
def test_model_trains_and_evaluates_a_step(name):
    """The stock training step (eagerly), with the file's own optimizer and clipping; then NMS."""
    pipeline = _small(name)
    model = tiny_pipeline.build_model(pipeline, is_training=True)
    config = pipeline.train_config
    optimizer, _ = optimizer_builder.build(config.optimizer, global_step=tf.Variable(0, tf.int64))
    features, labels = _batch()
    _provide_groundtruth(model)
    model.predict(features[_Input.image], features[_Input.true_image_shape])
    before = [variable.numpy() for variable in model.trainable_variables]
    losses = model_lib_v2.eager_train_step(
        model,
        features,
        dict(labels),
        unpad_groundtruth_tensors=True,
        optimizer=optimizer,
        training_step=tf.constant(0, tf.int64),
        clip_gradients_value=config.gradient_clipping_by_norm,
    )
    assert {"Loss/RPNLoss/localization_loss", "Loss/BoxClassifierLoss/classification_loss"} <= set(
        losses
    )
    assert all(np.isfinite(value) for value in losses.values()), losses
    assert float(losses["Loss/BoxClassifierLoss/classification_loss"]) > 0
    after = [variable.numpy() for variable in model.trainable_variables]
    assert all(np.isfinite(value).all() for value in after)
    moved = [not np.array_equal(old, new) for old, new in zip(before, after, strict=True)]
    assert np.mean(moved) > 0.5
    _evaluate_a_step(model, features, pipeline)


def _evaluate_a_step(model, features, pipeline) -> None:
    model._is_training = False
    tf.keras.backend.set_learning_phase(False)
    shapes = features[_Input.true_image_shape]
    predictions = model.predict(features[_Input.image], shapes)
    detections = model.postprocess(predictions, shapes)
    found = int(detections[_Detection.num_detections][0])
    assert found > 0
    scores = detections[_Detection.detection_scores][0, :found].numpy()
    classes = detections[_Detection.detection_classes][0, :found].numpy()
    boxes = detections[_Detection.detection_boxes][0, :found].numpy()
    assert ((scores >= 0) & (scores <= 1)).all()
    assert ((classes >= 0) & (classes < 80)).all()
    assert ((boxes >= 0) & (boxes <= 1)).all()
    options = pipeline.Extensions[options_lib.EXTENSION]
    if options.proposals.source == vat_pb2.Proposals.GROUND_TRUTH:
        assert predictions["num_proposals"].numpy().tolist() == [2]


@pytest.mark.slow
def test_96_frames_take_the_checkpoint_of_64(tmp_path):
    """Table 7, last row, with 6 and 4 frames: restored as the stock evaluation does it."""
    names = {6: "ava_i3d_tx_i3d_highres_r300_96f", 4: "ava_i3d_tx_i3d_highres_r300"}
    models = {}
    for num_frames, name in names.items():
        pipeline = _small(name)
        pipeline.Extensions[options_lib.EXTENSION].clip.num_frames = num_frames
        models[num_frames] = tiny_pipeline.build_model(pipeline, is_training=True)
        models[num_frames]._is_training = False
        _predict(models[num_frames], num_frames)
    path = tf.train.Checkpoint(model=models[4]).write(str(tmp_path / "ckpt"))
    restored = tf.train.Checkpoint(model=models[6]).read(path)
    restored.assert_existing_objects_matched().assert_consumed()
    for one, other in zip(models[4].variables, models[6].variables, strict=True):
        np.testing.assert_array_equal(one, other)
    # More frames are seen: the result is another.
    few, many = (_predict(models[num_frames], num_frames) for num_frames in (4, 6))
    assert few.shape == many.shape
    assert np.isfinite(many).all()
    assert not np.allclose(few, many)


def _predict(model, num_frames: int) -> np.ndarray:
    """Class logits [R, K + 1] of a clip that gets brighter."""
    levels = tf.repeat(tf.linspace(-1.0, 1.0, num_frames), 3)
    clip = tf.broadcast_to(levels, [1, 64, 64, 3 * num_frames])
    predictions = model.predict(clip, tf.constant([[64, 64, 3 * num_frames]]))
    return predictions["class_predictions_with_background"].numpy()


def test_override_makes_table_5s_grid():
    """The header's example, as a shell takes it."""
    (model,) = (model for model in generate.MODELS if model.example)
    text = _path(model.name).read_text("utf-8")
    commented = "".join(f"#   {line}\n" for line in model.example.splitlines())
    assert commented in text
    (flag,) = shlex.split(model.example)
    pipeline = registration.read_pipeline(
        str(_path(model.name)), flag.removeprefix("--config_override=")
    )
    differences = set(_flat(pipeline, "").items()) ^ set(_flat(_read(model.name), "").items())
    assert differences == {
        ("options.tx_head.num_layers", 3),
        ("options.tx_head.num_layers", 6),
        ("options.tx_head.num_heads", 2),
        ("options.tx_head.num_heads", 3),
    }


def test_header_shows_what_was_measured_and_what_was_not():
    (model,) = (model for model in generate.MODELS if model.name == "ava_i3d_i3d_r64")
    nothing = generate.render_header(model, {})
    assert "Not measured yet: parameters, multiply adds, training step, evaluation step." in nothing
    step = {"seconds": 12.5, "gib": 6.7, "how": "batch 1, on a machine"}
    figures = {
        "parameters": {"value": 16_238_413, "how": "counted"},
        "multiply_adds": {"value": 372_460_000_000, "how": "R = 64"},
        "training_step": step,
        "evaluation_step": {**step, "seconds": 4.75},
    }
    header = generate.render_header(model, figures)
    assert "Not measured" not in header
    assert "Parameters: 16.238 M (the paper prints 16.2)." in header
    assert "372.5 G multiply-adds, all counted (R = 64)." in header
    assert "Training step: 12.5 s, 6.7 GiB (batch 1, on a machine)." in header
    assert "Evaluation step: 4.75 s" in header
    assert "  Table 1, row 1: 21.3 validation\n" in header
    row = generate.render_table({model.name: figures}).splitlines()[2]
    assert "| 16.238 (16.2) | 372.5 | 21.3 |" in row
    assert f"[{model.name}](pipeline_configs/{model.name}.config)" in row


def test_figures_of_unknown_models_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "figures.json"
    monkeypatch.setattr(generate, "FIGURES", path)
    for figures, wrong in (
        ({"ava_i4d": {}}, "ava_i4d"),
        ({_MAIN: {"parametres": {}}}, "parametres"),
    ):
        path.write_text(json.dumps(figures))
        with pytest.raises(ValueError, match=wrong):
            generate.read_figures()


def test_table_stands_between_the_markers():
    readme = f"before\n{generate.TABLE_BEGIN}\nold\n{generate.TABLE_END}\nafter\n"
    expected = f"before\n{generate.TABLE_BEGIN}\n| new |\n{generate.TABLE_END}\nafter\n"
    assert generate.with_table(readme, "| new |") == expected
    assert generate.with_table("no markers", "| new |") is None


def test_no_figure_is_missing():
    assert generate.missing_figures(generate.read_figures()) == {}


def test_readme_has_the_table():
    readme = generate.README.read_text("utf-8")
    table = generate.render_table(generate.read_figures())
    assert readme == generate.with_table(readme, table), _RENEW


_PACKAGE = _ROOT / "object_detection_ext"


def _check_code(reference: str) -> None:
    """`file::name`, the file below the package."""
    file, _, name = reference.partition("::")
    assert (_PACKAGE / file).is_file(), reference
    found = importlib.import_module(
        "object_detection_ext." + file.removesuffix(".py").replace("/", ".")
    )
    for part in name.split("."):
        assert hasattr(found, part), reference
        found = getattr(found, part)


def _check_stock(reference: str) -> None:
    """`object_detection.module.name`."""
    module, _, name = reference.rpartition(".")
    assert hasattr(importlib.import_module(module), name), reference


def _check_field(reference: str, pipeline) -> None:
    """`a.b.c` or `a.b.c: value`, of the pipeline.config or of our options."""
    path, _, value = reference.partition(": ")
    first, *rest = path.split(".")
    message = pipeline
    if first not in pipeline.DESCRIPTOR.fields_by_name:
        message = pipeline.Extensions[options_lib.EXTENSION]
    for name in (first, *rest):
        assert name in message.DESCRIPTOR.fields_by_name, reference
        field, parent = message.DESCRIPTOR.fields_by_name[name], message
        message = getattr(message, name)
        if (
            field.label == field.LABEL_REPEATED
            and field.message_type
            and name != path.split(".")[-1]
        ):
            (message,) = message
    if value:
        field_text = text_format.MessageToString(
            type(parent)(**{name: message}), float_format=".6g"
        ).strip()
        wanted = text_format.MessageToString(
            text_format.Parse(f"{name}: {value}", type(parent)()), float_format=".6g"
        ).strip()
        assert field_text == wanted, reference


def test_paper_map_names_what_exists():
    """Every name in backquotes: code, stock code, a file, or a field with its value."""
    pipeline = _read(_MAIN)
    references = re.findall(r"`([^`]+)`", _PAPER_MAP.read_text("utf-8"))
    references.remove("file::name")  # the introduction's example
    references.remove("object_detection.")
    references.remove("object_detection_ext/")
    assert len(references) > 100
    for reference in references:
        if "::" in reference:
            _check_code(reference)
        elif reference.startswith("object_detection."):
            _check_stock(reference)
        elif (_ROOT / reference.partition(": ")[0]).is_file():
            continue
        else:
            _check_field(reference, pipeline)


def test_paper_map_s_readings_are_all_there():
    text = _PAPER_MAP.read_text("utf-8")
    listed = [int(number) for number in re.findall(r"(?m)^(\d+)\. ", text)]
    assert listed == list(range(1, len(listed) + 1))
    used = {int(number) for number in re.findall(r"reading (\d+)", text)}
    assert used <= set(listed)
    # Those about the paper's figures stand by themselves.
    assert set(listed) - used == {28, 29}


@pytest.mark.parametrize(
    ("reference", "checked_by"),
    [
        ("heads/tx_unit.py::TxUnit.recall", _check_code),
        ("heads/tx_units.py::TxUnit", _check_code),
        ("object_detection.core.losses.Smooth", _check_stock),
        ("train_config.batches", lambda reference: _check_field(reference, _read(_MAIN))),
        ("train_config.batch_size: 32", lambda reference: _check_field(reference, _read(_MAIN))),
        ("tx_head.num_heads: 3", lambda reference: _check_field(reference, _read(_MAIN))),
    ],
)
def test_a_wrong_name_in_the_paper_map_would_be_found(reference, checked_by):
    with pytest.raises(AssertionError, match=re.escape(reference)):
        checked_by(reference)
