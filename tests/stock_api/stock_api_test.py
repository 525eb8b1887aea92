# SPDX-License-Identifier: Apache-2.0
"""The Object Detection API's own tests, run on these versions of TensorFlow, NumPy and Pillow.

They are the proof that the API works here with `compat`. They run in this process, from the
installed package, unchanged; each module's number of tests and its skips are asserted, so that a
run in which nothing ran cannot pass.
"""

import importlib
import unittest
from typing import NamedTuple

import pytest


class StockModule(NamedTuple):
    """A test module of the API.

    Attributes:
      name: the module, below `object_detection`.
      passed: the number of tests that pass in `make test`.
      skipped: the number of those that the API itself skips under TensorFlow 2.
      slow_passed: the number of tests that only `make test-all` runs.
      slow_names: the beginnings of the names of the slow ones.
      is_slow: whether only `make test-all` runs any of them.
    """

    name: str
    passed: int
    skipped: int = 0
    slow_passed: int = 0
    slow_names: tuple[str, ...] = ()
    is_slow: bool = False


MODULES = (
    StockModule(
        "builders.model_builder_tf2_test",
        passed=22,
        slow_passed=1,
        slow_names=("test_create_ssd_models_from_config",),
    ),
    StockModule("builders.optimizer_builder_tf2_test", passed=4),
    StockModule(
        "utils.ops_test",
        is_slow=True,
        passed=81,
        skipped=5,
        slow_passed=7,
        slow_names=("test_position_sensitive",),
    ),
    StockModule("exporter_lib_tf2_test", passed=11),
    StockModule("inputs_test", passed=34, skipped=24),
    StockModule("utils.object_detection_evaluation_test", passed=15, skipped=4),
    StockModule("eval_util_test", passed=8, skipped=13),
    StockModule(
        "meta_architectures.faster_rcnn_meta_arch_test",
        is_slow=True,
        passed=8,
        skipped=3,
        slow_passed=34,
        slow_names=(
            "test_loss_first_stage",
            "test_loss_full_zero",
            "test_output_final",
            "test_predict",
            "test_postprocess_first",
            "test_postprocess_second_stage_only_inference_mode_with",
            "test_loss_with_hard_mining",
            # Modes 0 and 3 are left: shapes that are not static, and static ones with padding.
            "test_postprocess_second_stage_only_inference_mode1",
            "test_postprocess_second_stage_only_inference_mode2",
            "test_raw_detection_boxes",
        ),
    ),
)


def _cases(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    """The tests of a suite, without the pseudo-test that tf.test.TestCase brings along."""
    cases = []
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            cases.extend(_cases(item))
        elif not item.id().endswith(".test_session"):
            cases.append(item)
    return cases


def _method(case: unittest.TestCase) -> str:
    return case.id().split(" ")[0].rsplit(".", 1)[-1]


def _run(module: StockModule, slow: bool) -> unittest.TestResult:
    loaded = unittest.defaultTestLoader.loadTestsFromModule(
        importlib.import_module(f"object_detection.{module.name}")
    )
    result = unittest.TestResult()
    chosen = [
        case
        for case in _cases(loaded)
        if slow == _method(case).startswith(module.slow_names or "?")
    ]
    unittest.TestSuite(chosen).run(result)
    return result


def _check(result: unittest.TestResult, passed: int, skipped: int) -> None:
    broken = [f"{case.id()}\n{trace}" for case, trace in result.errors + result.failures]
    assert not broken, "\n".join(broken)
    counts = {"passed": result.testsRun - len(result.skipped), "skipped": len(result.skipped)}
    assert counts == {"passed": passed, "skipped": skipped}, result.skipped


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(module, id=module.name, marks=[pytest.mark.slow] if module.is_slow else [])
        for module in MODULES
    ],
)
def test_stock_tests_pass(module: StockModule) -> None:
    _check(_run(module, slow=False), module.passed, module.skipped)


@pytest.mark.slow
@pytest.mark.parametrize("module", [m for m in MODULES if m.slow_names], ids=lambda m: m.name)
def test_slow_stock_tests_pass(module: StockModule) -> None:
    _check(_run(module, slow=True), module.slow_passed, 0)
