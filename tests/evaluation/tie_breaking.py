# SPDX-License-Identifier: Apache-2.0
"""Scores without equals in the documented order, for programs whose sorts leave equals anyhow."""

from collections.abc import Sequence

import numpy as np


def distinct_scores(scores: Sequence[float]) -> np.ndarray:
    """Scores in (0, 1) with the same order, float64 [N]; of equals the first has the highest.

    Args:
        scores: of all rows, frame by frame, a frame's as in the file.
    """
    order = sorted(range(len(scores)), key=lambda row: -scores[row])  # keeps the order of equals
    result = np.empty(len(scores))
    result[order] = 1.0 - (np.arange(len(scores)) + 1) / (len(scores) + 2)
    return result
