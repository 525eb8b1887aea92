# SPDX-License-Identifier: Apache-2.0
"""A device that XLA cannot compile for is an error before the model is built."""

import pytest
import tensorflow as tf

from object_detection_ext import compilation, errors, registration, static_shapes
from tests import tiny_pipeline

registration.register()

_XLA = "[object_detection_ext.protos.video_action_transformer] { compute { xla: true } }"


@pytest.fixture(autouse=True)
def fresh():
    compilation.check.cache_clear()
    yield
    compilation.check.cache_clear()


def test_this_device_compiles():
    compilation.check()


@pytest.mark.parametrize("on_gpu", [False, True])
def test_device_without_a_compiler_is_an_error_with_the_field(monkeypatch, on_gpu):
    def fail(value):
        raise tf.errors.InternalError(None, None, "libdevice not found at ./libdevice.10.bc\nmore")

    monkeypatch.setattr(compilation, "_exponential", fail)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["a GPU"] * on_gpu)
    with pytest.raises(errors.InputError) as caught:
        tiny_pipeline.build_model(tiny_pipeline.make_pipeline(_XLA), is_training=True)
    message = str(caught.value)
    assert message.startswith(f"{static_shapes.OPTION}: true, but XLA cannot compile for this ")
    assert ("this GPU" if on_gpu else "this CPU") in message
    assert "libdevice not found at ./libdevice.10.bc. Take the option out" in message
    assert "more" not in message


def test_models_without_compiled_steps_do_not_ask(monkeypatch):
    monkeypatch.setattr(compilation, "_exponential", lambda value: pytest.fail("it was asked"))
    tiny_pipeline.build_model(tiny_pipeline.make_pipeline(), is_training=True)
