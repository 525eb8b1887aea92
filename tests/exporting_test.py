# SPDX-License-Identifier: Apache-2.0
"""The inputs of exported models, and what is refused; exported_models_test really exports.

The modules are called op by op, without building a graph.

Shapes: B clips, T frames, H W pixels, G boxes.
"""

import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from object_detection import exporter_lib_v2

from object_detection_ext import errors, exporting, registration
from object_detection_ext.checkpoints import files
from tests import tiny_pipeline
from tests.checkpoints import trained
from tests.data.picture_size_test import jpeg_bomb, png_bomb

registration.register()

_T = tiny_pipeline.NUM_FRAMES
_BOXES = np.float32([[0.1, 0.1, 0.7, 0.5], [0.3, 0.5, 0.9, 0.9]])
_NAMES = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")


@pytest.fixture(scope="module")
def model():
    pipeline = tiny_pipeline.make_pipeline(tiny_pipeline.SHORT_TRUNK)
    return tiny_pipeline.build_model(pipeline, is_training=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> pathlib.Path:
    """A folder with a checkpoint of the tiny model with moving averages."""
    folder = tmp_path_factory.mktemp("written")
    trained.write(tiny_pipeline.make_pipeline(tiny_pipeline.SHORT_TRUNK), folder, "averages")
    return folder


@pytest.fixture
def training(tmp_path, written) -> pathlib.Path:
    """The folder of a training with ckpt-1 and ckpt-2."""
    folder = tmp_path / "model"
    shutil.copytree(written, folder)
    _copy_checkpoint(folder / "ckpt-1", folder / "ckpt-2")
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "ckpt-2"\n'
        'all_model_checkpoint_paths: "ckpt-1"\nall_model_checkpoint_paths: "ckpt-2"\n'
    )
    return folder


def _copy_checkpoint(source: pathlib.Path, target: pathlib.Path) -> None:
    target.parent.mkdir(exist_ok=True)
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copy(f"{source}{suffix}", f"{target}{suffix}")


def _clips(batch: int = 2, height: int = 48, width: int = 80) -> np.ndarray:
    shape = [batch, _T, height, width, 3]
    return np.random.default_rng(3).integers(0, 256, shape, np.uint8)


def _detect(model, input_type: str, *inputs, **options) -> dict[str, np.ndarray]:
    module = exporting.MODULES[input_type](model, **options)
    detections = module._detect(*(tf.constant(each) for each in inputs))
    return {name: detections[name].numpy() for name in _NAMES}


def _assert_same(actual, expected):
    assert expected["num_detections"].min() > 0
    for name in _NAMES:
        np.testing.assert_allclose(actual[name], expected[name], atol=1e-5, err_msg=name)


def test_batch_of_clips_gives_what_each_clip_gives(model):
    clips = _clips()
    each = [_detect(model, "clip_tensor", clip[np.newaxis]) for clip in clips]
    assert np.abs(each[0]["detection_boxes"] - each[1]["detection_boxes"]).max() > 1e-3
    expected = {name: np.concatenate([one[name] for one in each]) for name in _NAMES}
    _assert_same(_detect(model, "clip_tensor", clips), expected)


def test_pixels_are_those_of_the_stock_preprocessing_rounded(model):
    (clip,) = _clips(1)
    images, shapes = exporting.MODULES["clip_tensor"](model)._stacked(
        tf.constant(clip[np.newaxis]), lambda frame: frame
    )
    assert images.dtype == tf.uint8 and images.shape == [1, _T * 64, 64, 3]
    np.testing.assert_array_equal(shapes, [[64, 64, 3 * _T]])
    for index, frame in enumerate(clip):
        stock, _ = model.preprocess(tf.cast(frame, tf.float32)[tf.newaxis])
        pixels = (stock[0] + 1.0) * 127.5
        actual = tf.cast(images[0, index * 64 : (index + 1) * 64], tf.float32)
        assert np.abs(actual - pixels).max() < 0.501


def test_padding_resizer_tells_the_true_shape():
    pipeline = tiny_pipeline.make_pipeline(
        "model { faster_rcnn { image_resizer { keep_aspect_ratio_resizer { min_dimension: 32 "
        "max_dimension: 64 pad_to_max_dimension: true } } } }"
    )
    model = tiny_pipeline.build_model(pipeline, is_training=False)
    images, shapes = exporting.MODULES["clip_tensor"](model)._stacked(
        tf.constant(_clips(2, 20, 40)), lambda frame: frame
    )
    assert images.shape == [2, _T * 64, 64, 3]
    np.testing.assert_array_equal(shapes, [[32, 64, 3 * _T]] * 2)
    assert images.numpy()[0, :32].any() and not images.numpy()[0, 32:64].any()


def test_encoded_frames_give_what_pixels_give(model):
    clips = _clips()
    encoded = [[tiny_pipeline.encode_png(frame) for frame in clip] for clip in clips]
    _assert_same(_detect(model, "encoded_clip", encoded), _detect(model, "clip_tensor", clips))


@pytest.mark.parametrize(
    ("annotated", "stride", "wanted"),
    [(5, 1, [3, 4, 5, 6]), (6, 1, [4, 5, 6, 6]), (0, 1, [0, 0, 0, 1]), (4, 2, [0, 2, 4, 6])],
)
def test_sequence_example_gives_the_clip_around_its_annotated_frame(
    model, annotated, stride, wanted
):
    frames = np.random.default_rng(4).integers(0, 256, [7, 64, 64, 3], np.uint8)
    record = tiny_pipeline.make_record(
        [tiny_pipeline.encode_png(frame) for frame in frames], {annotated: [(_BOXES[0], "walk")]}
    )
    _assert_same(
        _detect(model, "tf_sequence_example", [record], record_stride=stride),
        _detect(model, "clip_tensor", frames[wanted][np.newaxis]),
    )


def test_sequence_example_without_annotation_gives_its_middle(model):
    frames = np.random.default_rng(4).integers(0, 256, [7, 64, 64, 3], np.uint8)
    record = tiny_pipeline.make_record([tiny_pipeline.encode_png(frame) for frame in frames], {})
    _assert_same(
        _detect(model, "tf_sequence_example", [record]),
        _detect(model, "clip_tensor", frames[[1, 2, 3, 4]][np.newaxis]),
    )


def test_sequence_example_without_frames_is_an_error(model):
    record = tf.train.SequenceExample()
    record.feature_lists.feature_list["image/encoded"].SetInParent()
    with pytest.raises(tf.errors.InvalidArgumentError, match="has no frames"):
        _detect(model, "tf_sequence_example", [record.SerializeToString()])


def test_broken_frame_is_an_error(model):
    encoded = [[tiny_pipeline.encode_png(frame) for frame in clip] for clip in _clips()]
    encoded[1][2] = b"no picture"
    with pytest.raises(tf.errors.InvalidArgumentError, match="image file format"):
        _detect(model, "encoded_clip", encoded)


@pytest.mark.parametrize("input_type", ["encoded_clip", "tf_sequence_example"])
@pytest.mark.parametrize("bomb", [jpeg_bomb, png_bomb])
def test_frames_of_too_many_pixels_are_refused_before_they_are_decoded(model, input_type, bomb):
    frames = [tiny_pipeline.encode_png(frame) for frame in _clips(1)[0]]
    frames[3] = bomb(65000, 65000)
    given = [frames]
    if input_type == "tf_sequence_example":
        given = [tiny_pipeline.make_record(frames, {2: []})]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)max_frame_pixels.*65000, 65000"):
        _detect(model, input_type, given)


def test_limit_of_pixels_is_the_pipelines(model):
    encoded = [[tiny_pipeline.encode_png(frame) for frame in clip] for clip in _clips()]
    _detect(model, "encoded_clip", encoded, max_frame_pixels=48 * 80)
    with pytest.raises(tf.errors.InvalidArgumentError, match="max_frame_pixels"):
        _detect(model, "encoded_clip", encoded, max_frame_pixels=48 * 80 - 1)
    option = (
        "[object_detection_ext.protos.video_action_transformer] { clip { max_frame_pixels: 7 } }"
    )
    with exporting._with_assets(tiny_pipeline.make_pipeline(option), "encoded_clip"):
        module = exporter_lib_v2.DETECTION_MODULE_MAP["encoded_clip"]
        assert module.keywords["max_frame_pixels"] == 7


def test_boxes_of_each_clip_are_its_own(model):
    clips = _clips()
    boxes = np.stack([_BOXES, np.concatenate([_BOXES[:1] / 2, np.zeros([1, 4], np.float32)])])
    each = [
        _detect(model, "clip_and_boxes", clip[np.newaxis], own[np.newaxis])
        for clip, own in zip(clips, boxes, strict=True)
    ]
    expected = {name: np.concatenate([one[name] for one in each]) for name in _NAMES}
    _assert_same(_detect(model, "clip_and_boxes", clips, boxes), expected)


@pytest.mark.parametrize(
    ("input_type", "specs"),
    [
        ("clip_tensor", {"input_tensor": ([None, _T, None, None, 3], tf.uint8)}),
        ("encoded_clip", {"input_tensor": ([None, _T], tf.string)}),
        ("tf_sequence_example", {"input_tensor": ([None], tf.string)}),
        (
            "clip_and_boxes",
            {
                "input_tensor": ([None, _T, None, None, 3], tf.uint8),
                "boxes": ([None, None, 4], tf.float32),
            },
        ),
    ],
)
def test_signatures(model, input_type, specs):
    module = exporting.MODULES[input_type](model)
    actual = {spec.name: (spec.shape.as_list(), spec.dtype) for spec in module._signature()}
    assert actual == specs


def test_missing_label_map_is_said_and_leaves_no_trace_in_the_stock_map(training, capsys):
    pipeline = tiny_pipeline.make_pipeline(tiny_pipeline.SHORT_TRUNK)
    seen = []

    def stock_export(input_type, pipeline, *args):
        seen.append(exporter_lib_v2.DETECTION_MODULE_MAP[input_type].keywords["assets"].keys())
        raise KeyError("stops here")

    with pytest.raises(KeyError, match="stops here"):
        exporting.wrap_export(stock_export)("clip_tensor", pipeline, str(training), "out")
    assert seen == [{"clip_description"}]
    assert "names no label map" in capsys.readouterr().out
    assert exporter_lib_v2.DETECTION_MODULE_MAP["clip_tensor"] is exporting.MODULES["clip_tensor"]


@pytest.mark.parametrize(
    ("resizer", "frame_size", "short_side"),
    [
        ("fixed_shape_resizer { height: 48 width: 64 }", (48, 64), None),
        ("keep_aspect_ratio_resizer { min_dimension: 32 max_dimension: 64 }", None, 32),
        (
            "keep_aspect_ratio_resizer { min_dimension: 32 max_dimension: 64 "
            "pad_to_max_dimension: true }",
            (64, 64),
            32,
        ),
        ("identity_resizer { }", None, None),
    ],
)
def test_size_of_frames_is_described(resizer, frame_size, short_side):
    pipeline = tiny_pipeline.make_pipeline()
    pipeline.model.faster_rcnn.image_resizer.Clear()
    text_format.Parse(resizer, pipeline.model.faster_rcnn.image_resizer)
    description = exporting.describe(pipeline, "clip_tensor")
    assert (description.frame_size, description.short_side) == (frame_size, short_side)


def test_clips_and_images_are_not_mixed_up(tmp_path):
    ours = tiny_pipeline.make_pipeline()
    with pytest.raises(errors.InputError, match="'image_tensor' does not fit.*clip_tensor"):
        exporter_lib_v2.export_inference_graph("image_tensor", ours, str(tmp_path), "out")
    stock = text_format.Parse("model { ssd { } }", type(ours)())
    with pytest.raises(errors.InputError, match="'clip_tensor' does not fit.*images"):
        exporter_lib_v2.export_inference_graph("clip_tensor", stock, str(tmp_path), "out")


def test_model_on_groundtruth_boxes_takes_boxes(tmp_path):
    override = (
        "[object_detection_ext.protos.video_action_transformer] "
        "{ proposals { source: GROUND_TRUTH } }"
    )
    pipeline = tiny_pipeline.make_pipeline(override)
    with pytest.raises(errors.InputError, match="takes boxes as an input: clip_and_boxes"):
        exporter_lib_v2.export_inference_graph("clip_tensor", pipeline, str(tmp_path), "out")
    with pytest.raises(errors.InputError, match="no checkpoint"):  # the type is right
        exporter_lib_v2.export_inference_graph("clip_and_boxes", pipeline, str(tmp_path), "out")


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(errors.InputError, match=f"no checkpoint in '{tmp_path}'"):
        exporter_lib_v2.export_inference_graph(
            "clip_tensor", tiny_pipeline.make_pipeline(), str(tmp_path), str(tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()


def test_pipeline_is_checked_first(tmp_path):
    wrong = tiny_pipeline.make_pipeline("model { faster_rcnn { number_of_stages: 3 } }")
    with pytest.raises(errors.InputError, match="number_of_stages: 3"):
        exporter_lib_v2.export_inference_graph("clip_tensor", wrong, str(tmp_path), "out")


def _exported_from(path, override: str = "") -> tuple[str, object]:
    """The checkpoint that the stock exporter would take, and the pipeline that it would write."""
    seen = []

    def stock_export(input_type, pipeline, trained_checkpoint_dir, output_directory):
        stock = tf.train.CheckpointManager(
            tf.train.Checkpoint(), trained_checkpoint_dir, max_to_keep=1
        )
        seen.extend((stock.latest_checkpoint, pipeline))
        raise KeyError("stops here")

    pipeline = tiny_pipeline.make_pipeline(tiny_pipeline.SHORT_TRUNK + override)
    with pytest.raises(KeyError, match="stops here"):
        exporting.wrap_export(stock_export)("clip_tensor", pipeline, str(path), "out")
    return tuple(seen)


def test_folder_best_and_prefix_are_exported(training):
    assert _exported_from(training)[0] == f"{training}/ckpt-2"
    assert _exported_from(training / "ckpt-1")[0] == f"{training}/ckpt-1"
    _copy_checkpoint(training / "ckpt-1", training / "best/ckpt-7")
    assert _exported_from(training / "best")[0] == f"{training}/best/ckpt-7"


def test_damaged_newest_checkpoint_is_passed_over(training, capsys):
    with open(training / "ckpt-2.data-00000-of-00001", "r+b") as file:
        file.truncate(1000)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in training.iterdir())
    assert _exported_from(training)[0] == f"{training}/ckpt-1"
    assert f"WARNING: The checkpoint '{training}/ckpt-2' is damaged" in capsys.readouterr().err
    # Folders that cannot be written to are exported too.
    assert sorted((path.name, path.stat().st_mtime_ns) for path in training.iterdir()) == before


def test_averages_are_exported_and_the_config_says_so(training):
    override = trained.optimizer("averages") + "eval_config { use_moving_averages: true }"
    checkpoint, pipeline = _exported_from(training, override)
    assert checkpoint != f"{training}/ckpt-2"
    assert not pipeline.eval_config.use_moving_averages


def test_exported_models_are_not_compiled_and_it_is_said(training, capsys):
    xla = "[object_detection_ext.protos.video_action_transformer] { compute { xla: true } }"
    _, pipeline = _exported_from(training, xla)
    assert not exporting.options_lib.carried_by(pipeline.model.faster_rcnn).compute.xla
    said = "export: [object_detection_ext.protos.video_action_transformer].compute.xla is left out"
    assert said in capsys.readouterr().err
    _exported_from(training)
    assert said not in capsys.readouterr().err


def _refused(path, override: str = "") -> str:
    def stock_export(*args):
        pytest.fail("work has started")

    pipeline = tiny_pipeline.make_pipeline(tiny_pipeline.SHORT_TRUNK + override)
    with pytest.raises(errors.InputError) as info:
        exporting.wrap_export(stock_export)("clip_tensor", pipeline, str(path), "out")
    return str(info.value)


def test_checkpoint_of_another_model_is_refused_before_work_starts(training):
    message = _refused(training, "model { faster_rcnn { num_classes: 7 } }")
    assert (
        f"'{training}/ckpt-2' does not belong to the model of the pipeline.config in use" in message
    )
    assert "num_classes: 3 in the checkpoint, 7 in the pipeline.config in use" in message


def test_checkpoint_that_diverged_is_refused_before_work_starts(training, written):
    reader = tf.train.load_checkpoint(str(written))
    keys = sorted(reader.get_variable_to_shape_map())
    values = [reader.get_tensor(key) for key in keys]
    weights = [key.startswith("model/") and ".OPTIMIZER" not in key for key in keys]
    tf.raw_ops.SaveV2(
        prefix=f"{training}/ckpt-2",
        tensor_names=keys,
        shape_and_slices=[""] * len(keys),
        tensors=[np.nan * v if w else v for v, w in zip(values, weights, strict=True)],
    )
    message = _refused(training)
    total = len(keys) - 1  # the object graph is no variable
    assert f"'{training}/ckpt-2' cannot be used: 62 of its {total} variables have NaN" in message
    assert f"The newest checkpoint beside it without such values is '{training}/ckpt-1'" in message
    assert files.read(f"{training}/ckpt-1").non_finite == ()
