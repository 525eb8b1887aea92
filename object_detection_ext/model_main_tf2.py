# SPDX-License-Identifier: Apache-2.0
r"""Trains or evaluates a model: register, then the stock main with the stock flags.

python -m object_detection_ext.model_main_tf2 \
        --pipeline_config_path=F --model_dir=DIR [--checkpoint_dir=DIR] ...
"""

from object_detection_ext import registration

registration.register()

from object_detection import model_main_tf2 as stock_main  # noqa: E402

if __name__ == "__main__":
    registration.run(stock_main.main)
