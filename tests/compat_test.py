# SPDX-License-Identifier: Apache-2.0
"""Every name that `compat` gives back is needed, and what needs it works with it."""

import ast
import importlib.util
import io
import pathlib
import re
import types
import unittest

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageFont

from object_detection_ext import compat

ROOT = pathlib.Path(__file__).resolve().parent.parent
STOCK_PACKAGE = pathlib.Path(importlib.util.find_spec("object_detection").origin).parent


def _source(module: str) -> ast.Module:
    return ast.parse(pathlib.Path(importlib.util.find_spec(module).origin).read_text("utf-8"))


def _run_again(module: str) -> types.ModuleType:
    """Executes a module's source as if for the first time, beside the one already imported."""
    spec = importlib.util.find_spec(module)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    return fresh


def _decode_record() -> None:
    """A tf.Example with a JPEG, through the API's decoder and so through tf-slim's."""
    from object_detection.data_decoders import tf_example_decoder

    picture = io.BytesIO()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(picture, "JPEG")
    feature = {
        "image/encoded": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[picture.getvalue()])
        ),
        "image/format": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"jpeg"])),
    }
    record = tf.train.Example(features=tf.train.Features(feature=feature))
    decoded = tf_example_decoder.TfExampleDecoder().decode(record.SerializeToString())
    assert decoded["image"].shape == (4, 6, 3)


def _slim_tensor_with_shape() -> None:
    from tf_slim.data import tfexample_decoder

    handler = tfexample_decoder.Tensor("value", shape_keys=["rows", "columns"])
    item = handler.tensors_to_item(
        {"value": tf.range(6), "rows": tf.constant(2), "columns": tf.constant(3)}
    )
    assert item.shape == (2, 3)


def _slim_fully_connected() -> None:
    from tf_slim.layers import layers

    with tf.Graph().as_default():
        outputs = layers.legacy_fully_connected(tf.zeros([2, 3, 4]), num_output_units=5)
    assert outputs.shape.as_list() == [2, 3, 5]


def _slim_cluster_score() -> None:
    from tf_slim.losses import metric_learning

    distances = tf.constant([[0.0, 1.0, 5.0], [1.0, 0.0, 5.0], [5.0, 5.0, 0.0]])
    score = metric_learning.compute_gt_cluster_score(distances, tf.constant([1, 1, 2]))
    # Per class, minus the smallest sum of distances to one of its members: -1 for the pair.
    assert float(score) == -1.0


def _average_precision() -> None:
    from object_detection.utils import metrics

    precision, recall = metrics.compute_precision_recall(
        np.array([0.9, 0.8]), np.array([True, False]), num_gt=1
    )
    assert metrics.compute_average_precision(precision, recall) == 1.0


def _average_precision_without_ground_truth() -> None:
    from object_detection.utils import metrics

    assert np.isnan(metrics.compute_average_precision(None, None))


def _stock_test(case: type[unittest.TestCase], name: str) -> None:
    result = unittest.TestResult()
    case(name).run(result)
    assert result.testsRun == 1
    if result.errors:
        raise AttributeError(result.errors[0][1])


def _ops_test() -> None:
    from object_detection.utils import ops_test

    _stock_test(ops_test.GroundtruthFilterTest, "test_filter_groundtruth")


def _center_net_test() -> None:
    from object_detection.meta_architectures import center_net_meta_arch_tf2_test

    _stock_test(
        center_net_meta_arch_tf2_test.CenterNetMetaArchHelpersTest,
        "test_row_col_channel_indices_from_flattened_indices",
    )


def _measure(font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> tuple[int, int]:
    return font.getsize("abcd")


# What stops working without each name; the keys are those of `compat.SHIMS`.
NEEDS = {
    "numpy.float": _average_precision,
    "numpy.int": _center_net_test,
    "numpy.NAN": _average_precision_without_ground_truth,
    "numpy.string_": _ops_test,
    "tensorflow.compat.v1.estimator": lambda: _run_again("object_detection.inputs"),
    "tensorflow.python.ops.control_flow_ops.case": _decode_record,
    "tensorflow.python.ops.control_flow_ops.cond": _decode_record,
    "tensorflow.python.ops.control_flow_ops.while_loop": _slim_cluster_score,
    "tensorflow.python.ops.array_ops.stack": _slim_tensor_with_shape,
    "tensorflow.python.ops.array_ops.unstack": _slim_fully_connected,
    "PIL.ImageFont.ImageFont.getsize": lambda: _measure(ImageFont.load_default_imagefont()),
    "PIL.ImageFont.FreeTypeFont.getsize": lambda: _measure(ImageFont.load_default(12)),
}
SHIMS = {shim.full_name: shim for shim in compat.SHIMS}


def test_every_name_has_a_need() -> None:
    assert SHIMS.keys() == NEEDS.keys()


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_what_needs_the_name_works_with_it_and_not_without(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name in compat.ADDED_AT_IMPORT, "this release has the name: the shim can go"
    NEEDS[name]()
    monkeypatch.delattr(SHIMS[name].owner, SHIMS[name].name)
    with pytest.raises((AttributeError, ImportError), match=SHIMS[name].name):
        NEEDS[name]()


@pytest.mark.parametrize("name", sorted(SHIMS))
def test_the_modules_named_as_readers_read_it(name: str) -> None:
    for module in SHIMS[name].needed_by:
        reads = set()
        for node in ast.walk(_source(module)):
            if isinstance(node, ast.Attribute):
                reads.add(node.attr)
            elif isinstance(node, ast.ImportFrom):
                reads.update(alias.name for alias in node.names)
        assert SHIMS[name].name in reads, module


def test_no_numpy_name_of_the_stock_api_is_missing() -> None:
    missing, seen = {}, 0
    for path in sorted(STOCK_PACKAGE.rglob("*.py")):
        source = path.read_text("utf-8")
        names = set(re.findall(r"\bnp\.([A-Za-z]\w*)", source))
        seen += len(names)
        absent = {name for name in names if not hasattr(np, name)}
        if absent:  # in the code, or only in a comment?
            code = {
                ast.unparse(n) for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Attribute)
            }
            missing.update({name: path.name for name in absent if f"np.{name}" in code})
    assert seen > 500
    assert not missing


def test_applying_again_adds_nothing_and_replaces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    own = object()
    monkeypatch.setattr(np, "float", own)
    assert compat.apply() == ()
    assert np.float is own


def test_applying_gives_a_missing_name_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(np, "float")
    assert compat.apply() == ("numpy.float",)
    assert np.float is float


def test_estimators_are_refused_with_the_way_out() -> None:
    assert tf.compat.v1.estimator.ModeKeys.TRAIN == "train"
    with pytest.raises(AttributeError, match="model_lib_v2"):
        _ = tf.compat.v1.estimator.Estimator


def test_getsize_of_the_bitmap_font_is_six_by_eleven_pixels_per_letter() -> None:
    assert _measure(ImageFont.load_default_imagefont()) == (4 * 6, 11)


def test_getsize_contains_the_ink() -> None:
    font = ImageFont.load_default(24)
    width, height = font.getsize("Agj")
    mask = font.getmask("Agj")
    assert mask.size[0] == width
    # From the line's top to the lowest pixel: the ink and the space above it.
    assert mask.size[1] < height <= sum(font.getmetrics()) + 1


def test_a_missing_desktop_library_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ImportError, match="libGL.so.1.*opencv-python-headless"):
        compat.check_opencv()


def test_tensorflow_first_without_the_keras_switch_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    with pytest.raises(ImportError, match="TF_USE_LEGACY_KERAS=1"):
        _run_again("object_detection_ext")


def test_labels_of_boxes_are_drawn_on_an_array() -> None:
    from object_detection.utils import visualization_utils

    picture = np.full((120, 160, 3), 90, np.uint8)
    visualization_utils.draw_bounding_boxes_on_image_array(
        picture,
        np.array([[0.5, 0.25, 0.9, 0.75]]),
        color="red",
        thickness=2,
        display_str_list_list=[["walk: 97%"]],
    )
    # The rows above the box, whose border begins at row 59, belong to the label alone: red with
    # black letters, nine letters wide.
    label = picture[48:58, 40:80].reshape(-1, 3)
    assert (label == [255, 0, 0]).all(axis=1).mean() > 0.4
    assert (label[:, 0] < 60).mean() > 0.03
    assert (label[:, 1:] == 0).all()
    # Far from the box nothing changed.
    assert (picture[:30] == 90).all()


def test_evaluation_pictures_are_drawn_side_by_side() -> None:
    from object_detection.core import standard_fields
    from object_detection.utils import visualization_utils

    detections = standard_fields.DetectionResultFields
    inputs = standard_fields.InputDataFields
    box = tf.constant([[[0.5, 0.25, 0.9, 0.75]]])
    picture = visualization_utils.draw_side_by_side_evaluation_image(
        {
            inputs.original_image: tf.fill([1, 120, 160, 3], tf.constant(90, tf.uint8)),
            inputs.original_image_spatial_shape: tf.constant([[120, 160]]),
            inputs.true_image_shape: tf.constant([[120, 160, 3]]),
            detections.detection_boxes: box,
            detections.detection_classes: tf.constant([[1]]),
            detections.detection_scores: tf.constant([[0.97]]),
            inputs.groundtruth_boxes: box,
            inputs.groundtruth_classes: tf.constant([[1]]),
            inputs.num_groundtruth_boxes: tf.constant([1]),
        },
        {1: {"id": 1, "name": "walk"}},
    )[0].numpy()
    assert picture.shape == (1, 120, 320, 3)
    for side in (picture[0, :, :160], picture[0, :, 160:]):
        assert (side[48:57, 42:60] != 90).any(axis=-1).all()
        assert (side[:30] == 90).all()
