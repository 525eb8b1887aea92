# SPDX-License-Identifier: Apache-2.0
"""I3D against the slim I3D of the installed API, and against the published checkpoint's variables.

The slim network calls its convolutions Conv2d_* and Mixed_5b's last one of Branch_2 by the regular
name; everything else is the same structure.
"""

import functools
import json
import pathlib

import numpy as np
import pytest

from object_detection_ext.trunks import i3d
from tests import slim_networks

# isort: split
import tensorflow as tf

REFERENCE = (
    pathlib.Path(__file__).resolve().parents[3]
    / "shared"
    / "reference"
    / "kinetics_i3d_variables.json"
)
MULTIPLIER = 0.125
SLIM_NAMES = {"conv_3d/w": "weights", "batch_norm/": "BatchNorm/"}


def slim_name(path):
    path = path.replace("Mixed_5b/Branch_2/Conv3d_0a_3x3", "Mixed_5b/Branch_2/Conv3d_0b_3x3")
    for ours, theirs in SLIM_NAMES.items():
        path = path.replace(ours, theirs)
    return "InceptionV1/" + path.replace("Conv3d", "Conv2d")


@pytest.fixture(scope="module")
def s3dg():
    with slim_networks.modules() as modules:
        yield modules


def run_slim(modules, values, clip, is_training):
    s3dg_module, i3d_module = modules
    base = functools.partial(
        # What `i3d_base` calls, with the channels of our depth multiplier.
        s3dg_module.s3dg_base,
        first_temporal_kernel_size=7,
        temporal_conv_startat="Conv2d_2c_3x3",
        gating_startat=None,
        final_endpoint="Mixed_5c",
        min_depth=8,
        depth_multiplier=MULTIPLIER,
    )
    return slim_networks.run(base, i3d_module.i3d_arg_scope(), values, clip, is_training)


def random_model(seed, **options):
    rng = np.random.default_rng(seed)
    model = i3d.I3D(final_endpoint="Mixed_5c", depth_multiplier=MULTIPLIER, **options)
    for path, variable in model.variables_by_path().items():
        if path.endswith("moving_variance"):
            variable.assign(rng.uniform(0.5, 2, size=variable.shape))
        elif not path.endswith("/w"):
            variable.assign(rng.normal(scale=0.3, size=variable.shape))
    return model


def values_for_slim(model):
    return {slim_name(path): v.numpy() for path, v in model.variables_by_path().items()}


def relative_error(ours, theirs):
    return np.max(np.abs(ours - theirs)) / np.max(np.abs(theirs))


@pytest.mark.parametrize(
    "shape", [pytest.param((1, 16, 32, 32, 3), marks=pytest.mark.slow), (2, 9, 37, 50, 3)]
)
def test_every_endpoint_is_that_of_the_slim_i3d(s3dg, shape):
    model = random_model(0)
    clip = np.random.default_rng(1).uniform(-1, 1, size=shape).astype(np.float32)
    theirs, _ = run_slim(s3dg, values_for_slim(model), clip, is_training=False)
    ours = model.endpoints(clip)
    assert tuple(ours) == i3d.VALID_ENDPOINTS
    for name, features in ours.items():
        slim_endpoint = name.replace("Conv3d", "Conv2d").replace("MaxPool3d", "MaxPool")
        assert np.max(np.abs(features)) > 0
        assert relative_error(features.numpy(), theirs[slim_endpoint]) < 1e-5, name
    np.testing.assert_array_equal(model(clip), ours["Mixed_5c"])


@pytest.mark.slow
def test_training_batch_norm_is_that_of_the_slim_i3d(s3dg):
    model = random_model(2, train_batch_norm=True)
    clip = np.random.default_rng(3).uniform(-1, 1, size=(2, 16, 32, 32, 3)).astype(np.float32)
    theirs, variables = run_slim(s3dg, values_for_slim(model), clip, is_training=True)
    ours = model.endpoints(clip, training=True)
    assert relative_error(ours["Mixed_4f"].numpy(), theirs["Mixed_4f"]) < 1e-4
    for path, variable in model.variables_by_path().items():
        assert relative_error(variable.numpy(), variables[slim_name(path)]) < 1e-5, path


@pytest.mark.skipif(not REFERENCE.exists(), reason="the list of published variables is not here")
def test_variables_are_those_of_the_published_checkpoint():
    prefix = "RGB/inception_i3d/"
    published = {
        name.removeprefix(prefix): tuple(shape)
        for name, shape in json.loads(REFERENCE.read_text()).items()
        if not name.startswith(prefix + "Logits/")
    }
    assert len(published) == 4 * 57
    model = i3d.I3D(final_endpoint="Mixed_5c")
    ours = {path: tuple(v.shape) for path, v in model.variables_by_path().items()}
    assert ours == published
    # The variables' own names say the same, for checkpoints that go by name.
    assert {v.name.removeprefix("inception_i3d/").removesuffix(":0") for v in model.weights} == set(
        published
    )


def test_parameters_to_mixed_4f():
    model = i3d.I3D()
    count = sum(int(np.prod(v.shape)) for v in model.trainable_weights)
    # Kernels and betas; the moving statistics (2 x 4,992) are not parameters.
    assert count == 7_523_264
    assert sum(int(np.prod(v.shape)) for v in model.non_trainable_weights) == 2 * 4_992


@pytest.mark.parametrize("endpoint", i3d.VALID_ENDPOINTS)
def test_strides_and_channels_of_every_endpoint(endpoint):
    model = i3d.I3D(final_endpoint=endpoint, depth_multiplier=0.1)
    features = model(tf.zeros([1, 9, 40, 56, 3]))
    time, space = i3d.endpoint_strides(endpoint)
    assert (time, space) == (model.temporal_stride, model.spatial_stride)
    cells = [-(-9 // time), -(-40 // space), -(-56 // space)]
    assert features.shape == [1, *cells, i3d.endpoint_channels(endpoint, 0.1)]
    assert features.shape[-1] == model.output_channels


def test_the_papers_trunk_divides_time_by_4_and_space_by_16():
    assert i3d.endpoint_strides("Mixed_4f") == (4, 16)
    assert i3d.endpoint_channels("Mixed_4f") == 832
    assert i3d.endpoint_channels("Mixed_5c") == 1024


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"final_endpoint": "Mixed_9z"}, "'Mixed_9z'.*one of: Conv3d_1a_7x7, .*Mixed_5c"),
        ({"depth_multiplier": 0.0}, "depth_multiplier must be greater than 0, got 0.0"),
        ({"depth_multiplier": float("nan")}, "greater than 0, got nan"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        i3d.I3D(**options)


def test_stages_in_the_wrong_order_are_an_error():
    with pytest.raises(ValueError, match="'Mixed_3b' comes before 'Mixed_5b'"):
        i3d.I3DStages(first="Mixed_5b", last="Mixed_3b")


@pytest.mark.parametrize("shape", [(8, 32, 32, 3), (1, 8, 32, 32, 4)])
def test_a_clip_of_another_shape_is_an_error(shape):
    with pytest.raises(ValueError, match=r"\[B, T, H, W, 3\]"):
        i3d.I3D(depth_multiplier=MULTIPLIER, final_endpoint="Conv3d_1a_7x7")(tf.zeros(shape))
