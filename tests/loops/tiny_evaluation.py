# SPDX-License-Identifier: Apache-2.0
"""`tiny_training`, with evaluations of a few values in place of records and metrics.

The stock eval loop builds the tiny model, restores it and opens its event files; what it finds is
given. As a program it is `model_main_tf2` with that:

    python -m tests.loops.tiny_evaluation --pipeline_config_path=F --model_dir=DIR \
            --values=0.1,0.5 [--flag ...]
"""

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from unittest import mock

from absl import flags

from object_detection_ext import registration

registration.register()

import tensorflow as tf  # noqa: E402
from object_detection import inputs, model_lib_v2  # noqa: E402

from tests.loops import tiny_training  # noqa: E402

MEAN_AP = "AvaDetectionBoxes_Precision/mAP@0.5IOU"
SECONDS_OF_A_LONG_ONE = 1000.0
CONFIG = "eval_input_reader { name: 'val' tf_record_input_reader { input_path: 'val-?' } }\n"


@contextlib.contextmanager
def substituted(values: Sequence[float]) -> Iterator[None]:
    """Evaluations find these values, one after the other, while this lasts.

    Args:
        values: mAP of each; at a negative one the evaluation takes long.
    """
    left = iter(values)
    model_builders = model_lib_v2.MODEL_BUILD_UTIL_MAP
    build = model_builders["detection_model_fn_base"]

    def eager_eval_loop(
        detection_model, configs, eval_dataset, use_tpu=False, postprocess_on_cpu=False, *,
        global_step,
    ):  # fmt: skip
        del configs, eval_dataset, use_tpu, postprocess_on_cpu
        tf.keras.backend.set_learning_phase(False)
        detection_model.predict(tf.ones([1, 2, 2, 3]), None)  # its variables are restored now
        value = next(left)
        tf.summary.image("picture", tf.zeros([1, 2, 2, 3]), step=global_step)
        if value < 0:
            time.sleep(SECONDS_OF_A_LONG_ONE)
        metrics = {MEAN_AP: value, "Loss/total_loss": tf.constant(1.0 - value)}
        for name, metric in metrics.items():
            tf.summary.scalar(name, metric, step=global_step)
        return metrics

    # The stock eval loop leaves the summaries of the model to its default.
    names = {"detection_model_fn_base": functools.partial(build, add_summaries=False)}
    with (
        mock.patch.dict(model_builders, names),
        mock.patch.object(model_lib_v2, "eager_eval_loop", eager_eval_loop),
        mock.patch.object(inputs, "eval_input", lambda *args, **kwargs: tf.data.Dataset.range(1)),
    ):
        yield


if __name__ == "__main__":
    from object_detection_ext import model_main_tf2

    _VALUES = flags.DEFINE_list("values", [], "mAP of each evaluation; negative: it takes long.")

    def _main(argv):
        values = [float(value) for value in _VALUES.value]
        with tiny_training.substituted(), substituted(values):
            model_main_tf2.main(argv)

    registration.run(_main, model_main_tf2.OVERRIDE)
