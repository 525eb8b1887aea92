# SPDX-License-Identifier: Apache-2.0
"""What every test has: Keras 2, the API's missing names, quiet logs, seeds, the optional data."""

import os
import pathlib
import random
import warnings
from collections.abc import Iterator

# Before TensorFlow is imported: errors only.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from object_detection_ext import compat  # noqa: I001  (sets the Keras switch, so it comes first)
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl import logging as absl_logging

from object_detection_ext import machine

ROOT = pathlib.Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    del config
    assert compat.SHIMS
    # TensorFlow looks at the affinity only, and with a thread for each core of a large host a small
    # container spends its quota on switching.
    tf.config.threading.set_intra_op_parallelism_threads(machine.usable_cpus())
    tf.config.threading.set_inter_op_parallelism_threads(machine.usable_cpus())
    absl_logging.set_verbosity(absl_logging.ERROR)
    # Tests that ask absl for a temporary folder need parsed flags; pytest's are not absl's.
    flags.FLAGS(["pytest"])


@pytest.fixture(autouse=True)
def seeds() -> int:
    """Every test starts from the same random state; returns the seed."""
    seed = 0
    random.seed(seed)
    np.random.seed(seed)
    tf.random.set_seed(seed)
    return seed


@pytest.fixture(autouse=True)
def learning_phase() -> Iterator[None]:
    """No test leaves Keras in training mode, in which the stock loop puts the whole process."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        tf.keras.backend.set_learning_phase(False)


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """The folder of reference data beside the repository; the test skips where there is none."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"optional reference data: no folder {folder}")
    return folder
