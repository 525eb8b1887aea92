# SPDX-License-Identifier: Apache-2.0
"""What the command lines of the evaluators share: their options, and how they end."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from object_detection_ext import command_line, errors
from object_detection_ext.ava import box_range
from object_detection_ext.ava.tables import Report
from object_detection_ext.evaluation import protocols
from object_detection_ext.evaluation.selection import NO_GROUND_TRUTH


@dataclass(frozen=True)
class Outcome:
    """What a command line shows of a result.

    Attributes:
        has_map: whether there is a mAP.
        warnings: for people; `text` has them too.
        text: gives the result for people.
        document: gives it in types that JSON has.
    """

    has_map: bool
    warnings: Sequence[str]
    text: Callable[[], str]
    document: Callable[[], object]


def parser(
    name: str,
    description: str,
    protocol_names: Iterable[str],
    default_protocol: str,
    *,
    groundtruth: str = "ground truth (.csv)",
    detections: str = "detections (.csv)",
) -> argparse.ArgumentParser:
    """A parser with the options of all evaluators.

    Args:
        name: of the module.
        description: what it does.
        protocol_names: choices of `--protocol`.
        default_protocol: one of them.
        groundtruth: help of `--groundtruth`.
        detections: help of `--detections`.
    """
    made = argparse.ArgumentParser(
        prog=f"python -m object_detection_ext.evaluation.{name}", description=description
    )
    add = made.add_argument
    add("--labelmap", "-l", required=True, help="label map (.pbtxt)")
    add("--groundtruth", "-g", required=True, help=groundtruth)
    add("--detections", "-d", required=True, help=detections)
    add("--excluded_timestamps", "-e", help="frames to leave out (.csv of video_id,timestamp)")
    add(
        "--protocol",
        choices=protocol_names,
        default=default_protocol,
        help="whose rules hold (docs/evaluation.md; default: %(default)s)",
    )
    add(
        "--box_tolerance",
        type=_box_tolerance,
        default=box_range.BOX_TOLERANCE,
        help=f"{box_range.TOLERANCE_HELP} (default: %(default)s)",
    )
    add("--json", action="store_true", help="print JSON and nothing else")
    return made


def add_time_offset(to: argparse.ArgumentParser) -> None:
    """Adds `--time_offset_seconds`, which `time_offsets.read` takes."""
    to.add_argument(
        "--time_offset_seconds",
        help="what the ground truth's times are ahead of the detections', as with films cut to "
        "AVA's minutes 15 to 30 (900): seconds, or a CSV of video_id,seconds; not for detections "
        "of detect_video --keyframes, which have the ground truth's times",
    )


def _box_tolerance(text: str) -> float | None:
    try:
        return box_range.read_tolerance(text)
    except errors.InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def iou_thresholds(text: str) -> tuple[float, ...]:
    """One or several thresholds, separated by commas: the type of an option."""
    try:
        values = tuple(float(part) for part in text.split(","))
        for value in values:
            protocols.check_iou_threshold(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return values


def run(
    options: argparse.ArgumentParser,
    evaluate: Callable[[argparse.Namespace, Report], Outcome],
    arguments: Sequence[str] | None,
) -> int:
    """Runs a command line.

    Args:
        options: its parser.
        evaluate: takes the options and what is called with lines of progress.
        arguments: of the command line; None: those of the process.

    Returns:
        The exit status: 0, 1 where there is no mAP, or 2 for unusable input.
    """
    with command_line.printing():
        parsed = options.parse_args(arguments)
        try:
            outcome = evaluate(parsed, _say)
        except (ValueError, OSError) as error:
            _say(f"error: {error}")
            return command_line.WRONG_INPUT
        if parsed.json:
            for warning in outcome.warnings:
                _say(f"warning: {warning}")
            print(json.dumps(outcome.document(), indent=2, allow_nan=False))
        else:
            print(outcome.text())
        if not outcome.has_map:
            _say(f"error: {NO_GROUND_TRUTH}")
            return command_line.FAILED
        return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
