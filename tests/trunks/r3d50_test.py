# SPDX-License-Identifier: Apache-2.0
"""R3D-50 against Keras's ResNet-50, inflated; the counts of the paper's Table 6.

A 2-D kernel repeated k times in time and divided by k gives on a clip that stands still what the
2-D kernel gives on its one frame, wherever no border in time is in reach. The mapping here is by
hand, to hold a converter against.
"""

import numpy as np
import pytest

from object_detection_ext.trunks import r3d50

# isort: split
import tensorflow as tf

KERAS_ENDPOINTS = {
    "conv1": "conv1_relu",
    "pool1": "pool1_pool",
    "res2": "conv2_block3_out",
    "res3": "conv3_block4_out",
    "res4": "conv4_block6_out",
    "res5": "conv5_block3_out",
}
KERAS_UNITS = {"shortcut": 0, "conv_1": 1, "conv_2": 2, "conv_3": 3}


@pytest.fixture(scope="module")
def keras_network():
    """Keras's network with random weights and statistics, from an image to every endpoint."""
    rng = np.random.default_rng(0)
    network = tf.keras.applications.ResNet50(
        weights=None, include_top=False, input_shape=(None, None, 3)
    )
    for layer in network.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            assert layer.epsilon == r3d50.BATCH_NORM_EPSILON
            size = layer.gamma.shape[0]
            gamma, variance = rng.uniform(0.5, 1, size=size), rng.uniform(0.5, 2, size=size)
            beta, mean = rng.normal(scale=0.2, size=(2, size))
            layer.set_weights([gamma, beta, mean, variance])
        elif isinstance(layer, tf.keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            kernel *= 127.5**-1 if layer.name == "conv1_conv" else 1
            layer.set_weights([kernel, rng.normal(scale=0.2, size=bias.shape)])
    outputs = {ours: network.get_layer(name).output for ours, name in KERAS_ENDPOINTS.items()}
    return tf.keras.Model(network.input, outputs), network


def keras_name(path):
    stage, *unit = path.split("/")
    if not unit:
        return "conv1"
    block = int(unit[0].removeprefix("block_")) + 1
    return f"conv{stage.removeprefix('res')}_block{block}_{KERAS_UNITS[unit[1]]}"


def inflate(model, network):
    variables = model.variables_by_path()
    for path in [path.removesuffix("/conv_3d/w") for path in variables if path.endswith("/w")]:
        kernel, bias = network.get_layer(f"{keras_name(path)}_conv").get_weights()
        gamma, beta, mean, variance = network.get_layer(f"{keras_name(path)}_bn").get_weights()
        if path == "conv1":
            kernel = kernel[:, :, ::-1] * 127.5
        time = variables[f"{path}/conv_3d/w"].shape[0]
        variables[f"{path}/conv_3d/w"].assign(np.stack([kernel / time] * time))
        variables[f"{path}/batch_norm/gamma"].assign(gamma)
        variables[f"{path}/batch_norm/beta"].assign(beta)
        variables[f"{path}/batch_norm/moving_mean"].assign(mean - bias)
        variables[f"{path}/batch_norm/moving_variance"].assign(variance)


# From res5 a cell sees 68 frames to each side.
@pytest.mark.parametrize("shape", [(33, 47), pytest.param((32, 64), marks=pytest.mark.slow)])
def test_inflated_it_is_keras_resnet50(keras_network, shape):
    image = np.random.default_rng(1).uniform(0, 255, size=(1, *shape, 3)).astype(np.float32)
    endpoints, network = keras_network
    theirs = endpoints(tf.keras.applications.resnet50.preprocess_input(image.copy()))
    model = r3d50.R3D50(final_endpoint="res5")
    inflate(model, network)
    clip = np.repeat(image[:, np.newaxis] / 127.5 - 1, 144, axis=1)
    ours = model.endpoints(clip)
    assert set(ours) == {*theirs, "pool2"}
    for name, expected in theirs.items():
        features = ours[name].numpy()
        middle = features[:, features.shape[1] // 2]
        assert middle.shape == expected.shape
        assert np.max(np.abs(middle - expected)) < 2e-5 * np.max(np.abs(expected)), name
    # The clip's ends see its border; so the comparison says something of time.
    assert not np.allclose(ours["res5"][:, 0], theirs["res5"], rtol=1e-2)


# By hand: conv1 +-2 frames; in steps of 2 pool1 +-1; of 4 res2 +-3 and pool2 +-1; of 8 res3 +-2,
# res4 +-3. So a cell's frames lie evenly around its first.
@pytest.mark.parametrize(
    ("endpoint", "first_frame", "reach"),
    [("conv1", 8, 2), ("pool1", 16, 4), ("res2", 16, 16), ("pool2", 32, 20), ("res4", 64, 60)],
)
def test_frames_that_a_cell_sees(endpoint, first_frame, reach):
    model = r3d50.R3D50(final_endpoint=endpoint, depth_multiplier=0.125)
    clip = tf.random.stateless_uniform([1, 128, 32, 32, 3], seed=[0, 1], minval=-1)
    with tf.GradientTape() as tape:
        tape.watch(clip)
        cell = model(clip)[:, first_frame // model.temporal_stride]
    gradient = np.abs(tape.gradient(cell, clip)).max((0, 2, 3, 4))
    (frames,) = np.nonzero(gradient)
    assert (frames[0], frames[-1]) == (first_frame - reach, first_frame + reach)


def count_trainable(layer):
    return sum(int(np.prod(v.shape)) for v in layer.trainable_weights)


def test_parameters(keras_network):
    options = {"kernel_initializer": "zeros"}  # The fastest.
    assert count_trainable(r3d50.TRUNK.build(**options)) == 10_161_984
    assert count_trainable(r3d50.NON_LOCAL_TRUNK.build(**options)) == 10_161_984 + 7_358_464
    # The tail is ResNet-50's conv5 without biases, one kernel of 2048 x 512 being three.
    conv5 = [layer for layer in keras_network[1].layers if layer.name.startswith("conv5")]
    biases = sum(layer.filters for layer in conv5 if isinstance(layer, tf.keras.layers.Conv2D))
    tail = r3d50.TRUNK.build_tail(endpoint="res4", **options)
    assert count_trainable(tail) == sum(map(count_trainable, conv5)) - biases + 2 * 2048 * 512


def test_kernels_inflated_in_time_are_the_published_ones():
    variables = r3d50.R3D50(final_endpoint="res5", depth_multiplier=0.125).variables_by_path()
    inflated = [path for path, v in variables.items() if path.endswith("/w") and v.shape[0] == 3]
    blocks = {"res2": (0, 1, 2), "res3": (0, 2), "res4": (0, 2, 4), "res5": (1,)}
    assert inflated == [
        f"{stage}/block_{block}/conv_1/conv_3d/w" for stage in blocks for block in blocks[stage]
    ]
    assert variables["conv1/conv_3d/w"].shape == [5, 7, 7, 3, 8]


def test_non_local_blocks_stand_behind_every_other_block_and_start_as_identity():
    plain, model = (kind(depth_multiplier=0.125) for kind in (r3d50.R3D50, r3d50.NonLocalR3D50))
    variables = model.variables_by_path()
    blocks = {path.rsplit("/", 2)[0] for path in variables if path.endswith("/theta/w")}
    assert blocks == {
        "res3/non_local_1",
        "res3/non_local_3",
        "res4/non_local_1",
        "res4/non_local_3",
        "res4/non_local_5",
    }
    for path, variable in plain.variables_by_path().items():
        variables[path].assign(variable)
    clip = tf.random.stateless_uniform([1, 8, 48, 48, 3], seed=[0, 2], minval=-1)
    np.testing.assert_array_equal(model(clip), plain(clip))
    variables["res4/non_local_5/out/batch_norm/gamma"].assign(np.ones(128))
    assert not np.allclose(model(clip), plain(clip))


@pytest.mark.parametrize("trunk", [r3d50.TRUNK, r3d50.NON_LOCAL_TRUNK])
def test_trunk_divides_time_by_8_and_space_by_16(trunk):
    assert trunk.default_endpoint == "res4"
    assert trunk.strides("res4") == (8, 16)
    assert trunk.strides("res5") == (8, 32)
    assert trunk.endpoints_with_tail()[-1] == "res4"
    assert trunk.build(depth_multiplier=0.125)(tf.zeros([1, 96, 16, 16, 3])).shape[1] == 12
