# SPDX-License-Identifier: Apache-2.0
"""The files that every evaluator reads: ground truth, detections, moments to leave out."""

import dataclasses
import sys

from object_detection_ext.ava import faults, tables, time_offsets
from object_detection_ext.ava.box_range import BOX_TOLERANCE
from object_detection_ext.ava.tables import AvaRows, Report
from object_detection_ext.ava.timestamps import Frame


@dataclasses.dataclass(frozen=True)
class Tables:
    """What the files hold; `excluded` are frames to leave out."""

    ground_truth: AvaRows
    detections: AvaRows
    excluded: frozenset[Frame]


def read(
    groundtruth: str,
    detections: str,
    excluded_timestamps: str | None = None,
    report: Report | None = None,
    *,
    box_tolerance: float | None = BOX_TOLERANCE,
    time_offset_seconds: str | None = None,
) -> Tables:
    """Reads them.

    Args:
        groundtruth: path of a CSV.
        detections: path of a CSV.
        excluded_timestamps: path of a CSV; None or empty for no file.
        report: called with lines of progress.
        box_tolerance: as of `tables.read_csv`, for both.
        time_offset_seconds: what the ground truth's times are ahead of the detections', as
            `time_offsets.read` takes it.

    Raises:
        errors.InputError: what the readers raise.
    """
    offsets = time_offsets.read(time_offset_seconds)
    excluded = frozenset()
    if excluded_timestamps:
        notes = faults.Notes()
        excluded = tables.read_excluded_timestamps(excluded_timestamps, notes)
        for line in notes.messages(excluded_timestamps):
            print(f"note: {line}", file=sys.stderr, flush=True)
    found = tables.read_csv(detections, report, box_tolerance=box_tolerance)
    if offsets:
        found = dataclasses.replace(found, frames=offsets.moved(found.frames))
    return Tables(tables.read_ground_truth(groundtruth, report, box_tolerance), found, excluded)
