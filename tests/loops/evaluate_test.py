# SPDX-License-Identifier: Apache-2.0
"""What surrounds the stock eval loop, with a fake loop."""

import logging

from object_detection_ext.loops import evaluate

_LOGGER = logging.getLogger("tensorflow")


def test_evaluation_does_not_wait_longer_than_its_timeout():
    calls = []

    def stock_eval(*args, **kwargs):
        calls.append((args, kwargs))
        assert _LOGGER.level == logging.INFO
        return "metrics"

    wrapped = evaluate.wrap_eval_continuously(stock_eval)
    assert wrapped("a.config", model_dir="m", wait_interval=300, timeout=0) == "metrics"
    assert wrapped(wait_interval=60, timeout=3600) == "metrics"
    assert calls[0] == (("a.config",), {"model_dir": "m", "wait_interval": 0, "timeout": 0})
    assert calls[1] == ((), {"wait_interval": 60, "timeout": 3600})
