# SPDX-License-Identifier: Apache-2.0
"""Video Action Transformer on the TensorFlow Object Detection API.

Importing this package chooses Keras 2 (`tf-keras`), which the Object Detection API needs, and
oneDNN's convolutions. Both choices only work before TensorFlow is imported.
"""

import importlib
import os
import platform
import sys

from object_detection_ext import stock_protos

_KERAS_SWITCH = "TF_USE_LEGACY_KERAS"
_ONEDNN_SWITCH = "TF_ENABLE_ONEDNN_OPTS"

if os.environ.get(_KERAS_SWITCH) not in ("1", "true", "True"):
    if "tensorflow" in sys.modules:
        raise ImportError(
            "tensorflow was imported before object_detection_ext and without "
            f"{_KERAS_SWITCH}=1, so it uses Keras 3, which the Object Detection API cannot work "
            "with. Import object_detection_ext first, or set the environment variable "
            f"{_KERAS_SWITCH}=1 before Python starts."
        )
    os.environ[_KERAS_SWITCH] = "1"

# TensorFlow itself turns oneDNN on only where the CPU has AVX-512 with VNNI. Without it, the 3-D
# convolutions of a training step are several times as slow (docs/benchmarks.md).
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault(_ONEDNN_SWITCH, "1")

stock_protos.install()

__version__ = "0.1.0"
__all__ = ["ActionDetector"]


def __getattr__(name: str):
    # Only who asks for it waits for what it imports. By name: every room depends on this file.
    if name == "ActionDetector":
        return importlib.import_module("object_detection_ext.inference.detector").ActionDetector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
