# SPDX-License-Identifier: Apache-2.0
"""The range of times between keyframes, and of frames per second, that users give.

A value near zero means nothing, and makes lists of moments that no memory holds.
"""

from collections.abc import Sequence

from object_detection_ext import errors

MIN_SECONDS = 0.001
MIN_FPS, MAX_FPS = 0.001, 1000
# What 0 means: of `--every`, and of `--frames_fps`.
ALL_KEYFRAMES, NO_FOLDERS = "for all keyframes", "where no folder is a video"


def spacing_faults(name: str, seconds: float, at_zero: str = "") -> list[str]:
    """What is wrong with seconds from one keyframe to the next.

    Args:
        name: of the option, for the message.
        seconds: its value.
        at_zero: what 0 means, such as "for all keyframes"; empty where it means nothing.

    Returns:
        One text, or none.
    """
    if MIN_SECONDS <= seconds < float("inf") or (at_zero and seconds == 0):
        return []
    zero = f"0, {at_zero}, or " * bool(at_zero)
    return [f"{name} must be {zero}at least {MIN_SECONDS:g} seconds, not {seconds:g}"]


def fps_faults(name: str, fps: float, at_zero: str = "") -> list[str]:
    """What is wrong with frames per second; arguments and result as of `spacing_faults`."""
    if MIN_FPS <= fps <= MAX_FPS or (at_zero and fps == 0):
        return []
    zero = f"0, {at_zero}, or " * bool(at_zero)
    return [f"{name} must be {zero}{MIN_FPS:g} to {MAX_FPS} frames per second, not {fps:g}"]


def check(faults: Sequence[str], error: type[errors.InputError] = errors.InputError) -> None:
    """Raises an error if there are faults."""
    if faults:
        raise error("; ".join(faults) + ".")
