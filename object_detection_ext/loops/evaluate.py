# SPDX-License-Identifier: Apache-2.0
"""Surrounds the stock eval loop: signs of life, an end to waiting."""

import functools
from collections.abc import Callable

from object_detection_ext.loops.messages import heartbeat, info_logs


def wrap_eval_continuously(stock_eval: Callable) -> Callable:
    """Surrounds `model_lib_v2.eval_continuously`; same arguments."""

    @functools.wraps(stock_eval)
    def eval_continuously(*args, wait_interval=180, timeout=3600, **kwargs):
        # The stock loop sleeps wait_interval before it starts to count the timeout.
        with heartbeat("evaluating, or waiting for the next checkpoint"), info_logs():
            return stock_eval(
                *args, wait_interval=min(wait_interval, timeout), timeout=timeout, **kwargs
            )

    return eval_continuously
