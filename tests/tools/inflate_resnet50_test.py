# SPDX-License-Identifier: Apache-2.0
"""Inflated weights against the 2-D network of `tf.keras.applications` that they come from.

The published values are not at hand: the file is what Keras writes of a ResNet-50 with random
values, among them batch norm statistics and biases that are not trivial.

Shapes: B clips, T frames, H W pixels.
"""

import os

import h5py
import numpy as np
import pytest
from absl import flags

import object_detection_ext  # noqa: F401  (sets the Keras switch, so it comes first)
from object_detection_ext import errors
from object_detection_ext.tools import inflate_resnet50 as tool
from object_detection_ext.trunks import pretrained, r3d50

# isort: split
import tensorflow as tf

CLASSES = 10
# Each end of the clip reaches 9 of the cells of 8 frames: 1 in conv1, 3 in res2, ...
NUM_FRAMES = 19 * 8


def randomize(model, seed=0):
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        shape, kind = tuple(variable.shape), variable.name.rpartition("/")[-1]
        if kind == "kernel:0":
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        elif kind in ("gamma:0", "moving_variance:0"):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, 0.2, shape)
        # Pixels are large; the statistics of the first batch norm are of their size.
        if variable.name == "conv1_bn/moving_variance:0":
            value *= 80.0**2
        elif variable.name in ("conv1_bn/moving_mean:0", "conv1_conv/bias:0"):
            value *= 80.0
        variable.assign(value)


@pytest.fixture(scope="module")
def keras_model():
    model = tf.keras.applications.ResNet50(weights=None, include_top=True, classes=CLASSES)
    randomize(model)
    return model


@pytest.fixture(scope="module")
def source(tmp_path_factory, keras_model):
    path = tmp_path_factory.mktemp("keras") / "resnet50_weights_tf_dim_ordering_tf_kernels.h5"
    keras_model.save_weights(str(path))
    return str(path)


@pytest.fixture(scope="module")
def inflation(tmp_path_factory, source):
    return tool.inflate(source, str(tmp_path_factory.mktemp("inflated")))


def restored(trunk, inflation, *tails):
    variables = pretrained.PretrainedVariables(trunk, *tails)
    checkpoint = tf.train.Checkpoint(feature_extractor=variables)
    checkpoint.restore(inflation.prefix).expect_partial().assert_existing_objects_matched()
    return trunk


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape
    return np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))


@pytest.fixture(scope="module")
def features_2d(source):
    """Keras's network at conv4 and conv5, for images of any size; Keras reads the file."""
    model = tf.keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(None, None, 3)
    )
    model.load_weights(source, by_name=True)
    ends = ("conv4_block6_out", "conv5_block3_out")
    return tf.keras.Model(model.inputs, [model.get_layer(name).output for name in ends])


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        pytest.param(r3d50.TRUNK, (64, 64), marks=pytest.mark.slow),
        pytest.param(r3d50.TRUNK, (75, 97), marks=pytest.mark.slow),
        (r3d50.NON_LOCAL_TRUNK, (64, 64)),
    ],
)
def test_a_still_clip_has_the_features_of_its_frame(features_2d, inflation, kind, size):
    pixels = np.random.default_rng(1).integers(0, 256, (1, *size, 3)).astype(np.uint8)
    keras_input = tf.keras.applications.resnet50.preprocess_input(pixels.astype(np.float32))
    res4_2d, res5_2d = (features.numpy() for features in features_2d(keras_input))

    tail = kind.build_tail(endpoint="res4")
    trunk = restored(kind.build(final_endpoint="res4"), inflation, tail)
    frame = pixels.astype(np.float32) * (2.0 / 255.0) - 1.0
    res4 = trunk(np.repeat(frame[:, np.newaxis], NUM_FRAMES, axis=1))
    res5 = tail(res4)
    assert res4.shape[1] == NUM_FRAMES // 8
    middle = res4.shape[1] // 2
    assert min(np.max(res4_2d), np.max(res5_2d)) > 0.1
    assert relative_error(res4[:, middle].numpy(), res4_2d) < 1e-4
    assert relative_error(res5[:, middle].numpy(), res5_2d) < 1e-4
    # And the ends, which see the padding, do differ.
    assert relative_error(res5[:, 0].numpy(), res5_2d) > 1e-2


def test_kernels_are_repeated_in_time_and_divided(keras_model, inflation):
    trunk = restored(r3d50.R3D50(), inflation)
    variables = trunk.variables_by_path()
    kernel = keras_model.get_layer("conv3_block3_1_conv").kernel.numpy()
    ours = variables["res3/block_2/conv_1/conv_3d/w"].numpy()
    assert ours.shape == (3, *kernel.shape)
    for slice_2d in ours:
        np.testing.assert_allclose(slice_2d, kernel / 3, rtol=1e-6)
    first = keras_model.get_layer("conv1_conv").kernel.numpy()
    ours = variables["conv1/conv_3d/w"].numpy()
    assert ours.shape == (5, *first.shape)
    # Keras's input has blue first.
    np.testing.assert_allclose(ours[4, :, :, 2], 127.5 / 5 * first[:, :, 0], rtol=1e-6)


def test_all_is_counted(inflation, keras_model):
    assert inflation.left_out == ("predictions/bias", "predictions/kernel")
    # 53 convolutions with batch norm; 5 non-local blocks of 3 * 2 + 6 variables.
    assert inflation.num_inflated == 53 * 5
    assert inflation.num_initialized == 5 * 12
    assert inflation.num_values == sum(
        v.shape.num_elements() for v in r3d50.R3D50(final_endpoint="res5").variables
    )


def test_a_whole_model_is_read_as_its_weights(tmp_path, source):
    with h5py.File(source) as weights, h5py.File(tmp_path / "model.h5", "w") as model:
        # How `model.save` nests them.
        for name in weights:
            weights.copy(name, model.require_group("model_weights"))
        model.create_group("optimizer_weights/Adam/conv1_conv/kernel").create_dataset("m", data=1.0)
    expected = tool.read_weights(source)
    found = tool.read_weights(str(tmp_path / "model.h5"))
    assert len(found) == 53 * 6 + 2
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.slow
def test_weights_without_a_classifier(tmp_path, keras_model, monkeypatch):
    base = tf.keras.Model(keras_model.inputs, keras_model.get_layer("conv5_block3_out").output)
    base.save_weights(str(tmp_path / "notop.h5"))
    monkeypatch.setattr(pretrained, "save", lambda variables, directory: directory)
    inflation = tool.inflate(str(tmp_path / "notop.h5"), str(tmp_path / "out"))
    assert inflation.num_inflated == 53 * 5
    assert inflation.left_out == ()
    assert "classifier" not in inflation.summary()


def failure(tmp_path, source):
    """The message; nothing may have been written."""
    output = tmp_path / "out"
    with pytest.raises(errors.InputError) as caught:
        tool.inflate(str(source), str(output))
    assert not output.exists()
    return str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    assert "there is no file" in failure(tmp_path, tmp_path / "weights.h5")
    assert "there is no file" in failure(tmp_path, tmp_path)
    (tmp_path / "weights.h5").write_text("<html>Not found</html>")
    assert "weights.h5 cannot be read as an HDF5 file" in failure(tmp_path, tmp_path / "weights.h5")


def test_a_file_that_is_cut_short(tmp_path, source):
    with open(source, "rb") as file:
        (tmp_path / "weights.h5").write_bytes(file.read(1_000_000))
    assert "weights.h5 cannot be read as an HDF5 file" in failure(tmp_path, tmp_path / "weights.h5")


def test_the_layout_of_keras_3(tmp_path, keras_model):
    keras_model.save_weights(str(tmp_path / "resnet.weights.h5"))
    message = failure(tmp_path, tmp_path / "resnet.weights.h5")
    assert "resnet.weights.h5 has the layout of Keras 3" in message


def test_another_network(tmp_path):
    other = tf.keras.Sequential([tf.keras.layers.Dense(2, name="dense", input_shape=(3,))])
    other.save_weights(str(tmp_path / "dense.h5"))
    message = failure(tmp_path, tmp_path / "dense.h5")
    assert "dense.h5: not the weights of this network, which has 318 variables." in message
    assert "318 missing:\n  conv1_bn/beta [64]\n" in message
    assert "2 left over:\n  dense/bias [2]\n  dense/kernel [3, 2]" in message


def test_all_differences_are_listed(tmp_path, source):
    path = tmp_path / "weights.h5"
    path.write_bytes(open(source, "rb").read())
    with h5py.File(path, "r+") as file:
        del file["conv4_block6_3_conv/conv4_block6_3_conv/bias:0"]
        file.create_dataset("conv4_block7_1_conv/conv4_block7_1_conv/bias:0", data=np.zeros(3))
        del file["conv5_block1_0_bn/conv5_block1_0_bn/gamma:0"]
        file.create_dataset("conv5_block1_0_bn/conv5_block1_0_bn/gamma:0", data=np.zeros(3))
        file["conv1_conv/conv1_conv/kernel:0"][0, 0, 0, 0] = np.nan
    assert failure(tmp_path, path).splitlines()[1:] == [
        "1 missing:",
        "  conv4_block6_3_conv/bias [1024]",
        "1 of another shape:",
        "  conv5_block1_0_bn/gamma [3] instead of [2048]",
        "1 left over:",
        "  conv4_block7_1_conv/bias [3]",
        "1 not finite numbers:",
        "  conv1_conv/kernel",
    ]


def run_main(*arguments):
    values = flags.FlagValues()
    tool.define_flags(values)
    tool.main(values(["inflate_resnet50", *arguments]), values)


@pytest.mark.slow
def test_the_command_writes_the_same_every_time(tmp_path, source, capsys, monkeypatch):
    saved = []

    def save(variables, directory):
        saved.append({path: variable.numpy() for path, variable in variables.by_path.items()})
        return directory + "/ckpt"

    monkeypatch.setattr(pretrained, "save", save)
    for _ in range(2):
        run_main(f"--input={source}", f"--output={tmp_path}")
        tf.random.normal([1])
    one, two = saved
    for path, value in one.items():
        np.testing.assert_array_equal(value, two[path], err_msg=path)
    assert one["res3/non_local_1/theta/w"].std() > 0
    printed = capsys.readouterr().out
    assert "R3D-50 up to res5: 265 variables" in printed
    assert f'fine_tune_checkpoint: "{tmp_path}/ckpt"' in printed


def test_the_command_refuses_to_replace_a_checkpoint(source, inflation, capsys):
    with pytest.raises(SystemExit) as caught:
        run_main(f"--input={source}", f"--output={os.path.dirname(inflation.prefix)}")
    assert caught.value.code == 2
    assert "has a checkpoint already" in capsys.readouterr().err


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        run_main(f"--input={tmp_path}/no", f"--output={tmp_path}/out")
    assert caught.value.code == 2
    assert f"error: --input: there is no file {tmp_path}/no." in capsys.readouterr().err
