# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in the published form, converted, against the slim I3D of the installed API.

The published values are not at hand: the names and shapes are the published ones, the values are
random, of a size that keeps the features alive.

Shapes: B clips, T frames, H W pixels, C channels.
"""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

from object_detection_ext import errors, registration
from object_detection_ext.tools import convert_i3d_checkpoint as tool
from object_detection_ext.trunks import i3d, pretrained

# isort: split
import tensorflow as tf
from object_detection import model_lib_v2
from object_detection.protos import train_pb2

from tests import slim_networks, tiny_pipeline

PREFIX = "RGB/inception_i3d/"
LOGITS = "Logits/Conv3d_0c_1x1/conv_3d/"
FIRST_KERNEL = "Conv3d_1a_7x7/conv_3d/w"


def published_values(seed=0, classes=400):
    """{path: array}, batch norm's as [1, 1, 1, 1, C], as Sonnet writes it."""
    rng = np.random.default_rng(seed)
    values = {}
    for path, variable in i3d.I3D(final_endpoint="Mixed_5c").variables_by_path().items():
        shape = tuple(variable.shape)
        if path.endswith("/w"):
            scale = np.sqrt(2 / np.prod(shape[:-1]))
            values[path] = (scale * rng.standard_normal(shape, np.float32)).astype(np.float32)
        elif path.endswith("moving_variance"):
            values[path] = rng.uniform(0.5, 2, (1, 1, 1, 1, *shape)).astype(np.float32)
        else:
            values[path] = rng.normal(0, 0.3, (1, 1, 1, 1, *shape)).astype(np.float32)
    values[LOGITS + "w"] = np.zeros([1, 1, 1, 1024, classes], np.float32)
    values[LOGITS + "b"] = np.zeros([classes], np.float32)
    return values


def write_checkpoint(path, values, prefix=PREFIX):
    """A TF1 checkpoint, by the TF1 saver."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        feeds = {}
        for name, value in values.items():
            initial = tf.compat.v1.placeholder(value.dtype, value.shape)
            tf.compat.v1.Variable(initial, name=prefix + name, use_resource=False)
            feeds[initial] = value
        session.run(tf.compat.v1.global_variables_initializer(), feeds)
        tf.compat.v1.train.Saver().save(session, str(path))
    return str(path)


@pytest.fixture(scope="module")
def source_values():
    return published_values()


@pytest.fixture(scope="module")
def source(tmp_path_factory, source_values):
    return write_checkpoint(tmp_path_factory.mktemp("rgb") / "model.ckpt", source_values)


@pytest.fixture(scope="module")
def conversion(tmp_path_factory, source):
    return tool.convert(source, str(tmp_path_factory.mktemp("converted")))


def test_the_checkpoint_of_these_tests_has_the_published_names_and_shapes(
    shared_dir, source, source_values
):
    published = json.loads((shared_dir / "reference/kinetics_i3d_variables.json").read_text())
    ours = {
        PREFIX + path: [value.shape[-1]] if "batch_norm" in path else list(value.shape)
        for path, value in source_values.items()
    }
    assert ours == published
    assert tf.train.load_checkpoint(source).get_variable_to_shape_map().keys() == published.keys()


def slim_name(path):
    path = path.replace("Mixed_5b/Branch_2/Conv3d_0a_3x3", "Mixed_5b/Branch_2/Conv3d_0b_3x3")
    path = path.replace("conv_3d/w", "weights").replace("batch_norm/", "BatchNorm/")
    return "InceptionV1/" + path.replace("Conv3d", "Conv2d")


@pytest.fixture(scope="module")
def slim_module():
    """The API's slim I3D."""
    with slim_networks.modules() as (_, module):
        yield module


@pytest.fixture(scope="module")
def slim_features(slim_module, source_values):
    """From a clip to the slim I3D's features at Mixed_4f and Mixed_5c, with the source's values."""
    import tf_slim as slim

    with tf.Graph().as_default() as graph:
        clips = tf.compat.v1.placeholder(tf.float32, [None, None, None, None, 3])
        with (
            slim.arg_scope(slim_module.i3d_arg_scope()),
            slim.arg_scope([slim.batch_norm], is_training=False),
        ):
            _, endpoints = slim_module.i3d_base(clips, final_endpoint="Mixed_5c")
        variables = {v.op.name: v for v in tf.compat.v1.global_variables()}
    values = {slim_name(p): v for p, v in source_values.items() if not p.startswith("Logits/")}
    assert variables.keys() == values.keys()
    session = tf.compat.v1.Session(graph=graph)
    # Runs the initializers with the checkpoint's values in place of random ones.
    session.run(
        [variable.initializer for variable in variables.values()],
        {v.initializer.inputs[1]: values[n].reshape(v.shape) for n, v in variables.items()},
    )
    fetches = [endpoints["Mixed_4f"], endpoints["Mixed_5c"]]
    yield lambda clip: session.run(fetches, {clips: clip})
    session.close()


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape
    return np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))


@pytest.mark.parametrize("shape", [(1, 16, 64, 64, 3), (2, 9, 37, 50, 3)])
def test_a_restored_network_has_the_features_of_the_source(slim_features, conversion, shape):
    clip = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    at_4f, at_5c = slim_features(clip)
    trunk = i3d.I3D()
    tail = i3d.I3DStages(first="MaxPool3d_5a_2x2", last="Mixed_5c")
    variables = pretrained.PretrainedVariables(trunk, tail)
    checkpoint = tf.train.Checkpoint(feature_extractor=variables)
    checkpoint.restore(conversion.prefix).expect_partial().assert_existing_objects_matched()
    features = trunk(clip)
    assert min(np.max(at_4f), np.max(at_5c)) > 0.1
    assert relative_error(features.numpy(), at_4f) < 1e-5
    assert relative_error(tail(features).numpy(), at_5c) < 1e-5


def load_by_the_stock_loop(model, prefix):
    """What `model_lib_v2.train_loop` does with the three fields of the pipeline.config."""
    model_lib_v2.load_fine_tune_checkpoint(
        model,
        prefix,
        "classification",
        train_pb2.CheckpointVersion.V2,
        run_model_on_dummy_input=False,
        input_dataset=None,
        unpad_groundtruth_tensors=False,
    )


@pytest.mark.parametrize(
    ("head", "num_variables"),
    [
        ("i3d_head { }", 4 * 57),
        ("tx_head { num_heads: 1 num_layers: 1 feature_size: 16 ffn_size: 16 }", 4 * 45),
    ],
)
def test_a_detector_that_the_stock_loop_restores_has_them_too(
    slim_features, conversion, head, num_variables
):
    registration.register()
    pipeline = tiny_pipeline.make_pipeline(
        "[object_detection_ext.protos.video_action_transformer] "
        f"{{ trunk {{ depth_multiplier: 1.0 }} {head} }}"
    )
    model = tiny_pipeline.build_model(pipeline, is_training=True)
    pixels = np.random.default_rng(2).integers(0, 256, [1, tiny_pipeline.NUM_FRAMES, 64, 64, 3])
    clip = (pixels * (2.0 / 255.0) - 1.0).astype(np.float32)
    packed = pixels.transpose(0, 2, 3, 1, 4).reshape([1, 64, 64, 3 * tiny_pipeline.NUM_FRAMES])
    images, true_shapes = model.preprocess(tf.constant(packed, tf.float32))
    model.provide_groundtruth([tf.constant([[0.1, 0.1, 0.9, 0.9]])], [tf.constant([[1.0, 0, 0]])])
    model.predict(images, true_shapes)  # Makes the variables.

    load_by_the_stock_loop(model, conversion.prefix)

    extractor = model._feature_extractor
    assert len(extractor.classification_backbone.by_path) == num_variables
    at_4f, at_5c = slim_features(clip)
    features = model._feature_extractor_for_proposal_features(images, training=False)
    assert relative_error(features.numpy(), at_4f) < 1e-5
    if num_variables == 4 * 57:
        assert relative_error(extractor._tail(features).numpy(), at_5c) < 1e-5


def test_every_value_arrives(conversion, source_values):
    target = pretrained.PretrainedVariables(i3d.I3D(final_endpoint="Mixed_5c"))
    tf.train.Checkpoint(feature_extractor=target).restore(conversion.prefix).expect_partial()
    assert target.by_path.keys() | {LOGITS + "w", LOGITS + "b"} == source_values.keys()
    for path, variable in target.by_path.items():
        np.testing.assert_array_equal(variable.numpy(), source_values[path].reshape(variable.shape))
    assert conversion.num_variables == 228
    assert conversion.num_values == sum(v.numpy().size for v in target.by_path.values())
    assert conversion.left_out == (PREFIX + LOGITS + "b", PREFIX + LOGITS + "w")


def test_kinetics_600_has_no_prefix_and_batch_norm_may_be_flat(
    tmp_path, source, source_values, monkeypatch
):
    values = {
        path: value.reshape(-1) if "batch_norm" in path else value
        for path, value in source_values.items()
        if not path.startswith("Logits/")
    }
    values[LOGITS + "b"] = np.zeros([600], np.float32)
    monkeypatch.setattr(tool, "read_checkpoint", lambda prefix: values)
    conversion = tool.convert(source, str(tmp_path))
    target = pretrained.PretrainedVariables(i3d.I3D(final_endpoint="Conv3d_2c_3x3"))
    tf.train.Checkpoint(feature_extractor=target).restore(conversion.prefix).expect_partial()
    for path, variable in target.by_path.items():
        np.testing.assert_array_equal(variable, values[path])
    assert conversion.left_out == (LOGITS + "b",)


def failure(tmp_path, source):
    """The message; nothing may have been written."""
    output = tmp_path / "out"
    with pytest.raises(errors.InputError) as caught:
        tool.convert(str(source), str(output))
    assert not output.exists()
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".index", ".meta", ".data-00000-of-00001"])
def test_no_such_file(tmp_path, suffix):
    message = failure(tmp_path, tmp_path / f"model.ckpt{suffix}")
    assert f"there is no checkpoint {tmp_path}/model.ckpt. It consists of" in message


def test_a_directory_is_answered_with_what_is_in_it(tmp_path, source):
    folder = os.path.dirname(source)
    assert f"is a directory, not a checkpoint. Did you mean {source}?" in failure(tmp_path, folder)
    assert "It has no checkpoint." in failure(tmp_path, tmp_path)


def test_a_damaged_checkpoint(tmp_path, source):
    for suffix in (".index", ".data-00000-of-00001"):
        shutil.copy(source + suffix, tmp_path / ("model.ckpt" + suffix))
    with open(tmp_path / "model.ckpt.data-00000-of-00001", "r+b") as file:
        file.truncate(1000)
    assert "model.ckpt cannot be read as a checkpoint" in failure(tmp_path, tmp_path / "model.ckpt")
    (tmp_path / "model.ckpt.data-00000-of-00001").unlink()
    assert "model.ckpt cannot be read as a checkpoint" in failure(tmp_path, tmp_path / "model.ckpt")
    (tmp_path / "model.ckpt.index").write_text("<html>Not found</html>")
    assert "model.ckpt cannot be read as a checkpoint" in failure(tmp_path, tmp_path / "model.ckpt")


def test_an_object_based_checkpoint(tmp_path, conversion):
    assert "is an object-based (TF2) checkpoint" in failure(tmp_path, conversion.prefix)


@pytest.mark.parametrize("prefix", ["Flow/inception_i3d/", "RGB/inception_i3d/", ""])
def test_optical_flow(tmp_path, prefix):
    values = {FIRST_KERNEL: np.zeros([7, 7, 7, 2, 64], np.float32)}
    source = write_checkpoint(tmp_path / "model.ckpt", values, prefix)
    message = failure(tmp_path, source)
    assert "is I3D for optical flow, whose frames have 2 channels" in message


def test_another_network(tmp_path):
    values = {"resnet/w": np.zeros([3, 3, 8], np.float32), "global_step": np.array(7)}
    message = failure(tmp_path, write_checkpoint(tmp_path / "model.ckpt", values, prefix=""))
    assert "model.ckpt: not the weights of this network, which has 228 variables." in message
    assert "228 missing:\n  Conv3d_1a_7x7/batch_norm/beta [64]\n" in message
    assert "and 208 more" in message
    assert "2 left over:\n  global_step []\n  resnet/w [3, 3, 8]" in message


def test_all_differences_are_listed(tmp_path, source, source_values, monkeypatch):
    values = dict(source_values)
    del values["Mixed_3b/Branch_0/Conv3d_0a_1x1/conv_3d/w"]
    values["Conv3d_2b_1x1/conv_3d/w/Momentum"] = np.zeros([2], np.float32)
    values["Conv3d_2b_1x1/batch_norm/beta"] = np.zeros([2, 1, 1, 1, 32], np.float32)
    values["Conv3d_2c_3x3/batch_norm/beta"] = np.zeros([1, 1, 1, 1, 64], np.float32)
    values["Mixed_5c/Branch_3/Conv3d_0b_1x1/batch_norm/beta"] = np.full(
        [1, 1, 1, 1, 128], np.inf, np.float32
    )
    values = {PREFIX + path: value for path, value in values.items()}
    monkeypatch.setattr(tool, "read_checkpoint", lambda prefix: values)
    message = failure(tmp_path, source)
    assert message.splitlines()[0].startswith(f"{source}: not the weights of this network")
    assert message.splitlines()[1:] == [
        "1 missing:",
        "  Mixed_3b/Branch_0/Conv3d_0a_1x1/conv_3d/w [1, 1, 1, 192, 64]",
        "2 of another shape:",
        "  Conv3d_2b_1x1/batch_norm/beta [2, 1, 1, 1, 32] instead of [64]",
        "  Conv3d_2c_3x3/batch_norm/beta [64] instead of [192]",
        "1 left over:",
        "  Conv3d_2b_1x1/conv_3d/w/Momentum [2]",
        "1 not finite numbers:",
        "  Mixed_5c/Branch_3/Conv3d_0b_1x1/batch_norm/beta",
    ]


def run_main(*arguments):
    values = flags.FlagValues()
    tool.define_flags(values)
    tool.main(values(["convert_i3d_checkpoint", *arguments]), values)


def test_the_command_refuses_to_replace_a_checkpoint(tmp_path, source, capsys):
    # Any file of the checkpoint names it.
    arguments = [f"--input={source}.index", f"--output={tmp_path}"]
    run_main(*arguments)
    first = (tmp_path / "ckpt.index").stat().st_mtime_ns
    printed = capsys.readouterr().out
    assert "I3D up to Mixed_5c: 228 variables, 12,294,544 values" in printed
    assert f'fine_tune_checkpoint: "{tmp_path}/ckpt"' in printed
    with pytest.raises(SystemExit) as caught:
        run_main(*arguments)
    assert caught.value.code == 2
    assert "has a checkpoint already" in capsys.readouterr().err
    assert (tmp_path / "ckpt.index").stat().st_mtime_ns == first
    run_main(*arguments, "--overwrite")
    assert (tmp_path / "ckpt.index").stat().st_mtime_ns > first


def test_the_program_ends_with_status_2_and_a_message(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", tool.__name__, f"--input={tmp_path}/no", f"--output={tmp_path}/out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"error: --input: there is no checkpoint {tmp_path}/no." in done.stderr
    assert "Traceback" not in done.stderr
