# SPDX-License-Identifier: Apache-2.0
"""Variables by path: merging, loud assignment, and checkpoints that any split can restore."""

import numpy as np
import pytest

from object_detection_ext import (
    compat,  # noqa: F401  (before any object_detection module)
    errors,
)
from object_detection_ext.trunks import i3d, pretrained

# isort: split
import tensorflow as tf
from google.protobuf import text_format
from object_detection import model_lib_v2
from object_detection.protos import train_pb2

MULTIPLIER = 0.1


class Part:
    def __init__(self, **shapes):
        self._variables = {
            path.replace("__", "/"): tf.Variable(tf.zeros(shape)) for path, shape in shapes.items()
        }

    def variables_by_path(self):
        return self._variables


class Model:
    """What the stock restore sees of a detection model."""

    def __init__(self, variables):
        self._variables = variables

    def restore_from_objects(self, fine_tune_checkpoint_type):
        assert fine_tune_checkpoint_type == "classification"
        return {"feature_extractor": self._variables}


def restore(variables, prefix):
    model_lib_v2.load_fine_tune_checkpoint(
        Model(variables),
        prefix,
        "classification",
        train_pb2.CheckpointVersion.V2,
        run_model_on_dummy_input=False,
        input_dataset=None,
        unpad_groundtruth_tensors=False,
    )


def whole_network(seed):
    rng = np.random.default_rng(seed)
    network = i3d.I3D(final_endpoint="Mixed_5c", depth_multiplier=MULTIPLIER)
    for variable in network.variables_by_path().values():
        variable.assign(rng.normal(size=variable.shape))
    return network


def trunk_and_tail(endpoint, first_of_tail):
    trunk = i3d.I3D(final_endpoint=endpoint, depth_multiplier=MULTIPLIER)
    tail = i3d.I3DStages(first=first_of_tail, last="Mixed_5c", depth_multiplier=MULTIPLIER)
    return trunk, tail


def two_variables():
    return pretrained.PretrainedVariables(Part(a__w=[2, 3], a__b=[3]))


def test_a_path_of_two_parts_is_an_error():
    with pytest.raises(ValueError, match="two parts have the same path: a/w"):
        pretrained.PretrainedVariables(Part(a__w=[1], b=[1]), Part(a__w=[1], c=[1]))


@pytest.mark.parametrize(
    ("endpoint", "first_of_tail"),
    [("Mixed_4f", "MaxPool3d_5a_2x2"), ("Mixed_4b", "Mixed_4c"), ("Mixed_5b", "Mixed_5c")],
)
def test_the_stock_restore_fits_any_split(tmp_path, endpoint, first_of_tail):
    source = pretrained.PretrainedVariables(whole_network(0))
    prefix = pretrained.save(source, str(tmp_path / "new" / "folder"))
    target = pretrained.PretrainedVariables(*trunk_and_tail(endpoint, first_of_tail))
    restore(target, prefix)
    assert target.by_path.keys() == source.by_path.keys()
    for path, variable in target.by_path.items():
        np.testing.assert_array_equal(variable, source.by_path[path], err_msg=path)


def test_the_stock_restore_ignores_the_stages_behind_the_trunk(tmp_path):
    source = pretrained.PretrainedVariables(whole_network(1))
    prefix = pretrained.save(source, str(tmp_path))
    trunk, _ = trunk_and_tail("Mixed_3c", "Mixed_4b")
    target = pretrained.PretrainedVariables(trunk)
    restore(target, prefix)
    assert 0 < len(target.by_path) < len(source.by_path)
    for path, variable in target.by_path.items():
        np.testing.assert_array_equal(variable, source.by_path[path], err_msg=path)


def test_the_stock_restore_misses_what_the_file_has_not(tmp_path):
    trunk, tail = trunk_and_tail("Mixed_4f", "MaxPool3d_5a_2x2")
    prefix = pretrained.save(pretrained.PretrainedVariables(trunk), str(tmp_path))
    with pytest.raises(AssertionError, match="not bound"):
        restore(pretrained.PretrainedVariables(trunk, tail), prefix)


def test_values_are_assigned_by_path():
    variables = two_variables()
    values = {"a/b": np.arange(3.0), "a/w": np.arange(6, dtype=np.float16).reshape(2, 3)}
    pretrained.assign(variables, values, "weights.h5")
    np.testing.assert_array_equal(variables.by_path["a/w"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(variables.by_path["a/b"], [0, 1, 2])


def test_the_error_lists_everything_and_nothing_is_assigned():
    variables = pretrained.PretrainedVariables(Part(a=[2], b=[3], c=[4], d=[1], e=[1], f=[1]))
    values = {
        "a": np.ones(2),
        "b": np.ones(4),
        "d": np.array([np.nan]),
        "f": np.array([7]),
        "x/y": np.ones([1, 5]),
    }
    with pytest.raises(errors.InputError) as caught:
        pretrained.assign(variables, values, "some/model.ckpt")
    assert str(caught.value).splitlines() == [
        "some/model.ckpt: not the weights of this network, which has 6 variables.",
        "2 missing:",
        "  c [4]",
        "  e [1]",
        "1 of another shape:",
        "  b [4] instead of [3]",
        "1 left over:",
        "  x/y [1, 5]",
        "2 not finite numbers:",
        "  d",
        "  f",
    ]
    assert not variables.by_path["a"].numpy().any()


def test_a_long_list_is_cut():
    variables = pretrained.PretrainedVariables(Part(**{f"v{i:02d}": [1] for i in range(30)}))
    with pytest.raises(errors.InputError) as caught:
        pretrained.assign(variables, {}, "x")
    lines = str(caught.value).splitlines()
    assert lines[1] == "30 missing:"
    assert lines[-2:] == ["  v19 [1]", "  ... and 10 more"]


def test_save_replaces_a_checkpoint_and_leaves_nothing_else(tmp_path):
    (tmp_path / "ckpt.index").write_text("of another time")
    variables = two_variables()
    variables.by_path["a/b"].assign([1, 2, 3])
    prefix = pretrained.save(variables, str(tmp_path))
    assert prefix == str(tmp_path / "ckpt")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "ckpt.data-00000-of-00001",
        "ckpt.index",
    ]
    target = two_variables()
    restore(target, prefix)
    np.testing.assert_array_equal(target.by_path["a/b"], [1, 2, 3])


@pytest.mark.parametrize("suffix", [".data-00000-of-00001", ".index"])
def test_an_interrupted_save_leaves_no_checkpoint(tmp_path, monkeypatch, suffix):
    pretrained.save(two_variables(), str(tmp_path))
    replace = pretrained.os.replace

    def fail_at_one(source, target):
        if target.endswith(suffix):
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(pretrained.os, "replace", fail_at_one)
    with pytest.raises(OSError, match="disk full"):
        pretrained.save(two_variables(), str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["ckpt.data-00000-of-00001"]


def test_a_checkpoint_that_fits_passes_the_check(tmp_path):
    prefix = pretrained.save(pretrained.PretrainedVariables(whole_network(2)), str(tmp_path))
    trunk, tail = trunk_and_tail("Mixed_4f", "MaxPool3d_5a_2x2")
    pretrained.check_checkpoint(pretrained.PretrainedVariables(trunk, tail), prefix)
    pretrained.check_checkpoint(pretrained.PretrainedVariables(trunk), prefix)


def test_a_checkpoint_of_another_network_is_told(tmp_path):
    prefix = pretrained.save(
        pretrained.PretrainedVariables(Part(a__w=[2, 3], v1__x=[2])), str(tmp_path)
    )
    variables = pretrained.PretrainedVariables(Part(a__w=[2, 4], a__b=[4], v1__x=[2]))
    with pytest.raises(errors.InputError) as caught:
        pretrained.check_checkpoint(variables, prefix)
    assert str(caught.value).splitlines() == [
        f"{prefix}: not the weights of this network, which has 3 variables.",
        "1 missing:",
        "  a/b [4]",
        "1 of another shape:",
        "  a/w [2, 3] instead of [2, 4]",
    ]


def test_dots_in_a_path_survive(tmp_path):
    part = Part(x=[1])
    part._variables = {"v1.5/S.S/w": tf.Variable([1.0]), ".S/..": tf.Variable([2.0])}
    variables = pretrained.PretrainedVariables(part)
    pretrained.check_checkpoint(variables, pretrained.save(variables, str(tmp_path)))


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(errors.InputError, match="no/ckpt cannot be read as a checkpoint"):
        pretrained.check_checkpoint(two_variables(), str(tmp_path / "no" / "ckpt"))


def test_an_output_with_a_checkpoint_is_refused_unless_told(tmp_path):
    pretrained.check_output(str(tmp_path), overwrite=False)
    pretrained.check_output(str(tmp_path / "not there yet"), overwrite=False)
    pretrained.save(two_variables(), str(tmp_path))
    with pytest.raises(errors.InputError, match="has a checkpoint already .*--overwrite"):
        pretrained.check_output(str(tmp_path), overwrite=False)
    pretrained.check_output(str(tmp_path), overwrite=True)
    with pytest.raises(errors.InputError, match="is a file; the checkpoint needs a directory"):
        pretrained.check_output(str(tmp_path / "ckpt.index"), overwrite=True)


def test_the_fields_for_the_pipeline_are_text_format():
    prefix = 'C:\\some "where"/größe/ckpt'
    fields = text_format.Parse(
        pretrained.train_config_fields(prefix).removeprefix("train_config {").removesuffix("}"),
        train_pb2.TrainConfig(),
    )
    assert fields.fine_tune_checkpoint == prefix
    assert fields.fine_tune_checkpoint_type == "classification"
    assert fields.fine_tune_checkpoint_version == train_pb2.CheckpointVersion.V2
    assert len(fields.ListFields()) == 3
