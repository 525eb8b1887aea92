# SPDX-License-Identifier: Apache-2.0
r"""Trains or evaluates a model: register, then the stock main with the stock flags.

python -m object_detection_ext.model_main_tf2 \
        --pipeline_config_path=F --model_dir=DIR [--checkpoint_dir=DIR] ...

One flag more than the stock main has, as the stock exporter has it:
        --config_override="train_config { num_steps: 100 }"
"""

from absl import flags

from object_detection_ext import registration

registration.register()

from object_detection import model_main_tf2 as stock_main  # noqa: E402

_OVERRIDE = flags.DEFINE_string(
    "config_override", None, "Text proto that is merged into the pipeline.config."
)

if __name__ == "__main__":
    registration.run(stock_main.main, _OVERRIDE)
