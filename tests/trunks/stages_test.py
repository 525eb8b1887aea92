# SPDX-License-Identifier: Apache-2.0
"""What every kind of trunk promises (`trunk.Trunk`)."""

import numpy as np
import pytest

from object_detection_ext.trunks import i3d, r3d50, s3dg

# isort: split
import tensorflow as tf

MULTIPLIER = 0.1
TRUNKS = {
    "i3d": i3d.TRUNK,
    "r3d50": r3d50.TRUNK,
    "non_local_r3d50": r3d50.NON_LOCAL_TRUNK,
    "s3dg": s3dg.TRUNK,
}
# What the plain residual network has, the one with non-local blocks has too.
every_trunk = pytest.mark.parametrize(
    "trunk",
    [
        pytest.param(trunk, id=name, marks=[pytest.mark.slow] if name == "r3d50" else [])
        for name, trunk in TRUNKS.items()
    ],
)


def randomize(*layers_with_variables, seed=0):
    """Random biases, gammas and statistics: as built they are zeros and ones, which hide errors."""
    rng = np.random.default_rng(seed)
    for layer in layers_with_variables:
        for path, variable in layer.variables_by_path().items():
            if path.endswith("moving_variance"):
                variable.assign(rng.uniform(0.5, 2, size=variable.shape))
            elif path.endswith("gamma"):
                # Larger ones let a chain of residual blocks grow until softmax is one-hot.
                variable.assign(rng.uniform(0.3, 0.7, size=variable.shape))
            elif not path.endswith("/w"):
                variable.assign(rng.normal(scale=0.3, size=variable.shape))
            elif "self_gating" in path:
                variable.assign(rng.normal(scale=0.2, size=variable.shape))


def make_clip(*shape):
    return tf.random.stateless_uniform([*shape, 3], seed=[0, 1], minval=-1)


@every_trunk
@pytest.mark.parametrize(
    "shape",
    [(9, 37, 50)]
    + [pytest.param(s, marks=pytest.mark.slow) for s in ((8, 32, 48), (96, 16, 17), (1, 1, 1))],
)
def test_strides_and_channels_of_every_endpoint(trunk, shape):
    model = trunk.build(final_endpoint=trunk.endpoints[-1], depth_multiplier=MULTIPLIER)
    endpoints = model.endpoints(tf.zeros([1, *shape, 3]))
    assert tuple(endpoints) == trunk.endpoints
    for endpoint, features in endpoints.items():
        time, space = trunk.strides(endpoint)
        cells = [-(-shape[0] // time), -(-shape[1] // space), -(-shape[2] // space)]
        assert features.shape[:4] == [1, *cells], endpoint
    assert features.shape[4] == model.output_channels


@every_trunk
def test_where_it_ends_by_default(trunk):
    model = trunk.build(depth_multiplier=MULTIPLIER)
    default = trunk.build(final_endpoint=trunk.default_endpoint, depth_multiplier=MULTIPLIER)
    shapes = [{k: v.shape for k, v in m.variables_by_path().items()} for m in (model, default)]
    assert shapes[0] == shapes[1]
    assert (model.temporal_stride, model.spatial_stride) == trunk.strides(trunk.default_endpoint)


@every_trunk
@pytest.mark.parametrize("behind_default", [pytest.param(0, marks=pytest.mark.slow), -4])
def test_trunk_and_tail_are_the_whole_wherever_they_part(trunk, behind_default):
    endpoint = trunk.endpoints[trunk.endpoints.index(trunk.default_endpoint) + behind_default]
    assert endpoint in trunk.endpoints_with_tail()
    options = {"depth_multiplier": MULTIPLIER}
    whole = trunk.build(final_endpoint=trunk.endpoints[-1], **options)
    randomize(whole)
    model = trunk.build(final_endpoint=endpoint, **options)
    tail = trunk.build_tail(endpoint=endpoint, **options)
    assert tail.output_channels == whole.output_channels
    assert not model.variables_by_path().keys() & tail.variables_by_path().keys()
    parts = model.variables_by_path() | tail.variables_by_path()
    assert parts.keys() == whole.variables_by_path().keys()
    for path, variable in whole.variables_by_path().items():
        parts[path].assign(variable)
    clip = make_clip(1, 16, 40, 40)
    np.testing.assert_allclose(tail(model(clip)), whole(clip), rtol=1e-4, atol=1e-5)


@every_trunk
def test_ops_of_a_stage_have_its_name(trunk):
    model = trunk.build(final_endpoint=trunk.endpoints[-1], depth_multiplier=MULTIPLIER)
    graph = tf.function(model).get_concrete_function(tf.TensorSpec([1, 8, 32, 32, 3])).graph
    heavy = {"Conv3D", "MaxPool3D", "BatchMatMulV2"}
    stages = []
    for op in graph.get_operations():
        if op.type in heavy:
            parts = [part for part in op.name.split("/")[:-1] if part in trunk.endpoints]
            assert len(set(parts)) == 1, op.name
            stages.append(parts[0])
    assert list(dict.fromkeys(stages)) == list(trunk.endpoints)


@every_trunk
def test_frozen_statistics_stay_and_gradients_reach_everything_else(trunk):
    model = trunk.build(depth_multiplier=MULTIPLIER)
    randomize(model)
    before = [v.numpy() for v in model.non_trainable_variables]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(make_clip(1, 16, 64, 64), training=True) ** 2)
    gradients = dict(
        zip(
            [v.ref() for v in model.trainable_variables],
            tape.gradient(loss, model.trainable_variables),
            strict=True,
        )
    )
    paths = model.variables_by_path()
    assert len(paths) == len(model.variables)
    for path, variable in paths.items():
        if path.endswith(("moving_mean", "moving_variance")):
            assert variable.ref() not in gradients, path
        elif not path.endswith("phi/b"):  # Softmax does not see it; see the block's own test.
            assert np.any(gradients[variable.ref()].numpy()), path
    for old, now in zip(before, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, now)


@every_trunk
def test_trained_statistics_are_stored_in_training_only(trunk):
    model = trunk.build(depth_multiplier=MULTIPLIER, train_batch_norm=True, batch_norm_momentum=0.5)
    randomize(model)
    before = [v.numpy() for v in model.non_trainable_variables]
    clip = make_clip(1, 8, 48, 48)
    model(clip, training=False)
    for old, now in zip(before, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, now)
    model(clip, training=True)
    for old, now in zip(before, model.non_trainable_variables, strict=True):
        assert np.any(old != now.numpy()), now.name


@every_trunk
def test_batched_is_single_and_shapes_may_be_dynamic(trunk):
    model = trunk.build(depth_multiplier=MULTIPLIER)
    randomize(model)
    clips = make_clip(2, 8, 32, 48)
    dynamic = tf.function(model, input_signature=[tf.TensorSpec([None, None, None, None, 3])])
    singles = tf.concat([dynamic(clips[:1]), dynamic(clips[1:])], axis=0)
    np.testing.assert_allclose(model(clips), singles, rtol=1e-4, atol=1e-5)


@every_trunk
def test_a_regularizer_reaches_every_kernel_and_nothing_else(trunk):
    model = trunk.build(
        depth_multiplier=MULTIPLIER, kernel_regularizer=tf.keras.regularizers.L2(0.5)
    )
    kernels = [v.numpy() for path, v in model.variables_by_path().items() if path.endswith("/w")]
    assert len(model.losses) == len(kernels)
    expected = 0.5 * sum(np.sum(np.square(kernel)) for kernel in kernels)
    np.testing.assert_allclose(sum(model.losses), expected, rtol=1e-5)


@every_trunk
def test_a_checkpoint_restores_every_variable(trunk, tmp_path):
    model, other = (trunk.build(depth_multiplier=MULTIPLIER) for _ in range(2))
    randomize(model)
    path = tf.train.Checkpoint(trunk=model).save(str(tmp_path / "trunk"))
    tf.train.Checkpoint(trunk=other).restore(path).assert_consumed()
    for path, variable in model.variables_by_path().items():
        np.testing.assert_array_equal(variable, other.variables_by_path()[path])


@every_trunk
def test_in_bfloat16_the_features_are_about_the_same(trunk):
    model = trunk.build(depth_multiplier=MULTIPLIER)
    randomize(model)
    policy = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        low = trunk.build(depth_multiplier=MULTIPLIER)
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
    for path, variable in model.variables_by_path().items():
        assert low.variables_by_path()[path].dtype == tf.float32
        low.variables_by_path()[path].assign(variable)
    clip = make_clip(1, 8, 32, 32)
    features, expected = low(clip), model(clip)
    assert features.dtype == tf.bfloat16
    error = np.abs(tf.cast(features, tf.float32) - expected)
    assert np.mean(error) < 0.05 * np.mean(np.abs(expected))


@every_trunk
def test_bad_names_are_errors_that_say_what_would_be_right(trunk):
    wrong = rf"'res9'. It must be one of: {trunk.endpoints[0]}, .*{trunk.endpoints[-1]}"
    with pytest.raises(ValueError, match=wrong):
        trunk.build(final_endpoint="res9")
    with pytest.raises(ValueError, match=wrong):
        trunk.build_tail(endpoint="res9")
    with pytest.raises(ValueError, match=wrong):
        trunk.strides("res9")
    with pytest.raises(ValueError, match=f"no .* stage after '{trunk.endpoints[-1]}', the last"):
        trunk.build_tail(endpoint=trunk.endpoints[-1])
    with pytest.raises(ValueError, match="depth_multiplier must be greater than 0, got 0"):
        trunk.build_tail(endpoint=trunk.default_endpoint, depth_multiplier=0)
