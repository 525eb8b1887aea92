# SPDX-License-Identifier: Apache-2.0
r"""Exports a SavedModel: register, then the stock main with the stock flags.

python -m object_detection_ext.exporter_main_v2 --input_type=clip_tensor \
        --pipeline_config_path=F --trained_checkpoint_dir=DIR --output_directory=DIR

Beside the stock `--config_override` there is `--config_override_path` (see pipeline_overrides.py).
"""

from object_detection_ext import registration

registration.register()

from object_detection import exporter_main_v2 as stock_main  # noqa: E402

from object_detection_ext import pipeline_overrides  # noqa: E402

pipeline_overrides.define_flag()

if __name__ == "__main__":
    registration.run(stock_main.main)
