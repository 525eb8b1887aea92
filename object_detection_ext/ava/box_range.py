# SPDX-License-Identifier: Apache-2.0
"""How far boxes may reach outside the frame, and what is said of those that do."""

import math

from object_detection_ext import errors

# How far outside of [0, 1] a box may reach to be cut off, as a part of the frame.
BOX_TOLERANCE = 0.01
# Boxes that reach further are taken for pixels.
PIXELS_FROM = 2
# From about 1e154 on, the areas of boxes are not numbers.
MAX_CORNER = 1e6

# Of the option, where `read_tolerance` reads it.
TOLERANCE_HELP = (
    "how far outside of [0, 1] a box may reach to be cut off, as a part of the frame; more is an "
    "error. 'none' takes boxes as they are, in any unit"
)


def check_tolerance(box_tolerance: float) -> None:
    """Raises InputError unless it is at least 0 and less than 1."""
    if not 0.0 <= box_tolerance < 1.0:
        raise errors.InputError(
            f"--box_tolerance must be at least 0 and less than 1, not {box_tolerance:g}."
        )


def read_tolerance(text: str) -> float | None:
    """A tolerance as users write it; None for `none`, which takes boxes as they are.

    Raises:
        errors.InputError: for anything else that is not at least 0 and less than 1.
    """
    if text.lower() == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value < 1.0:
        raise errors.InputError(
            "--box_tolerance must be at least 0 and less than 1, or 'none' to take boxes as they "
            f"are, not {text!r}."
        )
    return value


def cut_off_text(tolerance: float) -> str:
    """The note about boxes that are cut off."""
    return f"a box up to {tolerance:g} outside of [0, 1], which is cut off at the frame's edge"
