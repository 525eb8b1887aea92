# SPDX-License-Identifier: Apache-2.0
"""The table of checks, and what each needs to be looked at."""

import dataclasses
from collections.abc import Callable, Iterator, Set

from object_detection_ext.doctor import (
    annotation_checks,
    dense_keyframes,
    findings,
    odd_videos,
    pipeline_checks,
    record_checks,
    timestamp_checks,
    video_checks,
)
from object_detection_ext.doctor.examination import Examination
from object_detection_ext.doctor.findings import Finding


@dataclasses.dataclass(frozen=True)
class Check:
    """What is checked, in words; what it needs of `Examination.given`; and the check itself.

    A check that is not `offered` is left out in silence where something for it is missing.
    """

    title: str
    needs: Set[str]
    run: Callable[[Examination], Iterator[Finding]]
    offered: bool = True


CHECKS = (
    Check("rows and boxes", {"annotations"}, annotation_checks.row_problems),
    Check("how files are written", {"annotations"}, annotation_checks.notes),
    Check("action ids", {"annotations", "label_map"}, annotation_checks.unknown_actions),
    Check("duplicates", {"annotations"}, annotation_checks.duplicate_rows),
    Check("one moment in two ways", {"annotations"}, timestamp_checks.nearly_equal),
    Check("dense keyframes", {"annotations"}, dense_keyframes.dense_keyframes),
    Check("x and y swapped", {"annotations", "videos"}, annotation_checks.swapped_axes),
    Check(
        "classes without examples",
        {"annotations", "label_map"},
        annotation_checks.classes_without_examples,
    ),
    Check("overlap of the splits", {"train", "val"}, annotation_checks.overlapping_splits),
    Check(
        "several ids for one video",
        {"annotations", "videos"},
        annotation_checks.videos_with_several_ids,
    ),
    Check(
        "excluded timestamps",
        {"excluded", "annotations"},
        annotation_checks.excluded_timestamps,
        offered=False,
    ),
    Check("missing videos", {"annotations", "videos"}, video_checks.missing_videos),
    Check("unreadable videos", {"annotations", "videos"}, video_checks.unreadable_videos),
    Check("two files with one id", {"annotations", "videos"}, video_checks.ambiguous_videos),
    Check("truncated videos", {"annotations", "videos"}, video_checks.truncated_videos),
    Check(
        "timestamps outside videos", {"annotations", "videos"}, timestamp_checks.outside_timestamps
    ),
    Check("frame numbers as timestamps", {"annotations", "videos"}, timestamp_checks.frame_numbers),
    Check(
        "timestamps that start over", {"annotations", "videos"}, odd_videos.timestamps_start_over
    ),
    Check("parts that are not read", {"annotations", "videos"}, odd_videos.unread_parts),
    Check("sound before the picture", {"annotations", "videos"}, odd_videos.sound_first),
    Check("HDR videos", {"annotations", "videos"}, odd_videos.high_dynamic_range),
    Check("frame rates of videos", {"annotations", "videos"}, video_checks.low_frame_rates),
    Check("videos without annotations", {"train", "val", "videos"}, video_checks.unnamed_videos),
    Check(
        "decoding of keyframes",
        {"annotations", "videos", "samples"},
        video_checks.undecodable_keyframes,
    ),
    Check("pipeline.config", {"pipeline"}, pipeline_checks.own_faults),
    Check("num_classes", {"pipeline", "label_map"}, pipeline_checks.class_count),
    Check("label maps", {"pipeline", "label_map"}, pipeline_checks.label_maps_differ),
    Check("max_number_of_boxes", {"pipeline", "annotations"}, pipeline_checks.too_many_boxes),
    Check("record files", {"records"}, record_checks.files),
    Check("contents of records", {"records"}, record_checks.whole_records),
    Check("frames of records", {"records"}, record_checks.lengths),
    Check("frame rate of records", {"records"}, record_checks.frame_rates),
    Check("labels of records", {"records"}, record_checks.labels),
    Check("number of records", {"records", "annotations"}, record_checks.counts),
    Check("records of both splits", {"both records"}, record_checks.shared_files),
    Check("frame rates of both splits", {"both records"}, record_checks.different_rates),
)


def run(exam: Examination) -> list[Finding]:
    """Runs every check that has what it needs; errors come first."""
    found = [
        finding for check in CHECKS if check.needs <= exam.given for finding in check.run(exam)
    ]
    return sorted(found, key=findings.sort_key)


def not_checked(exam: Examination) -> dict[str, tuple[str, ...]]:
    """Returns the titles of checks that were left out, with what each lacks."""
    left_out = {}
    for check in CHECKS:
        lacks = check.needs - exam.given
        if "pipeline" not in exam.given and lacks & {"records", "both records"}:
            # Record files are named there.
            lacks = lacks - {"records", "both records"} | {"pipeline"}
        if lacks and check.offered:
            left_out[check.title] = tuple(sorted(lacks))
    return left_out
