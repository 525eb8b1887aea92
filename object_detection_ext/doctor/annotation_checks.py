# SPDX-License-Identifier: Apache-2.0
"""Checks of the annotations' rows, with the label map and the videos' sizes where there are any.

Shapes: N rows of a split. Boxes here are x1, y1, x2, y2 as the file has them.
"""

from collections.abc import Iterator

import numpy as np

from object_detection_ext import files, listing
from object_detection_ext.ava import faults, label_maps, timestamps
from object_detection_ext.ava.exclusion import Exclusion
from object_detection_ext.doctor import annotation_rows, findings, video_probing
from object_detection_ext.doctor.examination import Examination
from object_detection_ext.doctor.findings import ERROR, WARNING, Finding

NO_NUMBER = annotation_rows.NO_NUMBER

# Boxes are taken for pixels where most lie outside [0, 1] by more than rounding explains.
_PIXELS_FROM = 2.0
# Shapes are judged only from as many boxes.
_MIN_BOXES_FOR_SHAPE = 10
# And of about as many videos, since a frame of each is decoded for its true size.
_VIDEOS_FOR_SHAPE = 32
# Height / width in true pixels, in the median: people who stand or sit are from 1 (a close-up) to
# about 4. Below the first they lie, or x and y are swapped; then swapping gives at least the other.
_LYING_BELOW, _UPRIGHT_FROM = 0.7, 1.2
# As many of the boxes with x1 >= x2 or y1 >= y2 point to x, y, width, height.
_WIDTH_HEIGHT_SHARE = 0.2
# Seconds to a keyframe within which an excluded moment was meant for it.
_NEAR_SECONDS = 0.5
# Characters of a malformed row that are shown.
_MAX_SHOWN = 60


def row_problems(exam: Examination) -> Iterator[Finding]:
    """What is wrong with rows by themselves: columns, numbers, boxes."""
    for split in exam.splits.values():
        if not split.num_rows:
            advice = "each row is video_id,timestamp,x1,y1,x2,y2,action_id,person_id"
            yield Finding("no_rows", ERROR, split.path, "the file has no rows", advice, count=0)
        pixels = _boxes_in_pixels(split, exam)
        if pixels is not None:
            yield pixels
        for group in split.problems:
            if pixels is None or group.problem.code != faults.RANGE:
                yield _of_group(split, group)


def notes(exam: Examination) -> Iterator[Finding]:
    """What the readers take and change, such as boxes that reach outside of the frame."""
    for split in exam.splits.values():
        for note in split.notes:
            yield finding_of(note, split.path)


def finding_of(note: faults.Note, path: str) -> Finding:
    """The finding about what was changed in reading a file."""
    return Finding(
        note.code, WARNING, path, str(note),
        "every tool here reads the file so; look whether it is meant so",
        count=note.count or 1, unit="rows" if note.count else "files",
        rows=(note.line,) if note.line else (), value=note.value,
    )  # fmt: skip


def _of_group(split: annotation_rows.SplitRows, group: annotation_rows.ProblemGroup) -> Finding:
    problem, fault, advice = group.problem, group.problem.fault, group.problem.advice
    if problem.code == faults.RANGE:
        boxes = split.corners[split.has_box]
        if len(boxes) and -0.1 <= boxes.min() and boxes.max() <= 1.1:
            advice += "; a larger --box_tolerance cuts the box off at the frame's edge"
    elif problem.code == faults.ORDER and _looks_like_width_height(split):
        advice += (
            "; the file looks like x,y,width,height (every sum is inside the frame): write "
            "x,y,x+width,y+height"
        )
    elif problem.code == faults.COLUMNS:
        fault += f": {problem.value[:_MAX_SHOWN]!r}"
        for mark, name in ((";", "semicolons"), ("\t", "tabs")):
            if mark in problem.value:
                advice += f"; the columns of this file are separated by {name}, not commas"
    return Finding(
        problem.code, ERROR, split.path, fault, advice,
        count=group.count, rows=tuple(group.rows), value=problem.value,
    )  # fmt: skip


def _looks_like_width_height(split: annotation_rows.SplitRows) -> bool:
    if not split.has_box.any():
        return False
    x, y, width, height = split.corners[split.has_box].T
    unordered = (x >= width) | (y >= height)
    inside = (x + width <= 1.01) & (y + height <= 1.01)
    return unordered.mean() >= _WIDTH_HEIGHT_SHARE and bool(inside.all())


def _boxes_in_pixels(split: annotation_rows.SplitRows, exam: Examination) -> Finding | None:
    """Returns one finding where most boxes are not normalized, else None."""
    largest = np.where(split.has_box, np.abs(split.corners).max(axis=1, initial=0.0), 0.0)
    outside = largest > 1.0
    boxes = int(split.has_box.sum())
    if outside.sum() * 2 <= boxes or np.median(largest[outside]) < _PIXELS_FROM:
        return None
    index = int(np.flatnonzero(outside)[0])
    box = ",".join(f"{value:g}" for value in split.corners[index])
    video_id = split.video_ids[split.video[index]]
    info = exam.info(video_id)
    height, width = video_probing.shown_size(info) if info else (0, 0)
    size = f" ({video_id} has {width} x {height} pixels)" if info else ""
    what, remedy = "in pixels", f"divide x by the video's width and y by its height{size}"
    if largest.max() <= 100.0 < min(width, height) / 2:
        what, remedy = "in percent", "divide x and y by 100"
    return Finding(
        "boxes_in_pixels", ERROR, split.path,
        f"{listing.part(int(outside.sum()), boxes, 'box', 'boxes')} "
        f"{listing.verb(int(outside.sum()), 'looks', 'look')} as if "
        f"{listing.verb(int(outside.sum()), 'it was', 'they were')} {what}: the first is "
        f"{box}, the largest number {largest.max():g}",
        f"boxes are normalized to [0, 1]: {remedy}",
        count=int(outside.sum()), rows=split.rows_of(outside), value=box,
    )  # fmt: skip


def swapped_axes(exam: Examination) -> Iterator[Finding]:
    """Boxes of lying people that stand up when x and y are swapped."""
    for split in exam.splits.values():
        x1, y1, x2, y2 = split.corners.T
        height, width = _sampled_sizes(split, exam)[split.video].T
        usable = (x2 > x1) & (y2 > y1) & (split.corners.max(axis=1, initial=0) <= 1.0)
        usable &= ~np.isnan(width)
        if usable.sum() < _MIN_BOXES_FOR_SHAPE:
            continue
        tall = (y2 - y1)[usable] / (x2 - x1)[usable]
        aspect = width[usable] / height[usable]
        given = float(np.median(tall / aspect))
        swapped = float(np.median(1.0 / tall / aspect))
        if given < _LYING_BELOW and swapped >= _UPRIGHT_FROM:
            yield Finding(
                "axes_swapped", WARNING, split.path,
                f"the boxes are those of lying people: {given:.2f} times as high as wide in pixels "
                f"(median of {int(usable.sum()):,}); with x and y swapped it is {swapped:.2f}",
                "the columns are x1,y1,x2,y2, x to the right and y down; if the file has "
                "y1,x1,y2,x2, swap them (look at --contact_sheet)",
                count=int(usable.sum()), rows=split.rows_of(usable), value=f"{given:.2f}",
            )  # fmt: skip


def _sampled_sizes(split: annotation_rows.SplitRows, exam: Examination) -> np.ndarray:
    """Returns height and width in pixels of some videos, float64 [V, 2], NaN for the others."""
    sizes = np.full((len(split.video_ids), 2), np.nan)
    infos = [(index, exam.info(video_id)) for index, video_id in enumerate(split.video_ids)]
    infos = [(index, info) for index, info in infos if info is not None]
    for index, info in infos[:: max(1, len(infos) // _VIDEOS_FOR_SHAPE)]:
        sizes[index] = video_probing.shown_size(info)
    return sizes


def unknown_actions(exam: Examination) -> Iterator[Finding]:
    """Action ids that the label map does not have, and whether they are off by one."""
    known = set(exam.label_map)
    for split in exam.splits.values():
        ids, counts = np.unique(split.action[split.action != NO_NUMBER], return_counts=True)
        used = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        unknown = sorted(set(used) - known)
        if not unknown:
            continue
        shift = _shift(set(used), known)
        wrong = np.isin(split.action, unknown)
        rows, count = split.rows_of(wrong), int(wrong.sum())
        items = tuple(f"{i} ({listing.counted(used[i], 'row')})" for i in unknown)
        listed = findings.in_words(items)
        message = f"action ids that the label map does not have: {listed}"
        advice = f"{exam.label_map_path} has {label_maps.id_ranges(exam.label_map)}"
        code = "action_id_unknown"
        if shift:
            code = "action_ids_off_by_one"
            message = (
                f"action ids are off by one: {listed} {listing.verb(len(unknown), 'is', 'are')} "
                f"not in the label map, but every id {'+' if shift > 0 else '-'} 1 is"
            )
            advice += f"; {'add' if shift > 0 else 'subtract'} 1 {'to' if shift > 0 else 'from'} "
            advice += "every action_id of the file"
            if max(known) not in used and 0 in used:
                message += f"; 0 occurs, and the highest id, {max(known)}, never does"
        elif 0 in unknown:
            advice += "; 0 is the background and stands for no action"
        else:
            advice += "; create_ava_records --skip_unknown_labels leaves such rows out"
        yield Finding(
            code, ERROR, split.path, message, advice,
            count=count, rows=rows, value=str(int(split.action[np.flatnonzero(wrong)[0]])),
            items=items,
        )  # fmt: skip


def _shift(used: set[int], known: set[int]) -> int:
    """Returns what added to every id makes all of them known: 1, -1, or 0 if neither does."""
    # One id that is unknown says too little, but for 0, which no label map can have.
    if len(used) < 2 and 0 not in used:
        return 0
    for shift in (1, -1):
        if all(action + shift in known for action in used):
            return shift
    return 0


def duplicate_rows(exam: Examination) -> Iterator[Finding]:
    """Rows that say again what a row before them said."""
    for split in exam.splits.values():
        columns = [split.keyframes.of_row, split.corners, split.action]
        boxes = np.column_stack(columns)[split.has_box]
        rows = split.row[split.has_box]
        again = annotation_rows.repeated(boxes, rows)
        people = np.column_stack([boxes, split.person[split.has_box]])
        same_person = annotation_rows.repeated(people, rows)
        for code, mask, what in (
            ("duplicate_row", same_person, "rows that stand in the file twice"),
            ("duplicate_box", again & ~same_person, "the same box with the same action again, as "
             "another person"),
        ):  # fmt: skip
            if not mask.any():
                continue
            where = np.flatnonzero(mask)
            example = split.row == rows[where[0]]
            value = _row_text(split, int(np.flatnonzero(example)[0]))
            yield Finding(
                code, WARNING, split.path, f"{what}; the first is {value}",
                "keep one: in the evaluation the second is a person whom no detection can find",
                count=len(where), rows=tuple(rows[where[: findings.MAX_ROWS]].tolist()),
                value=value,
            )  # fmt: skip


def _row_text(split: annotation_rows.SplitRows, index: int) -> str:
    box = ",".join(f"{value:g}" for value in split.corners[index])
    name = timestamps.frame_name(split.video_ids[split.video[index]], split.seconds[index])
    return ",".join((name, box, str(split.action[index])))


def classes_without_examples(exam: Examination) -> Iterator[Finding]:
    """Classes of the label map that no row of a split has."""
    for split in exam.splits.values():
        counts = rows_by_class(split, exam.label_map)
        empty = [i for i, count in counts.items() if not count]
        if not split.has_box.any():
            yield Finding(
                "no_boxes", WARNING, split.path,
                f"no row has a box: nobody is on any of its "
                f"{listing.counted(len(split.keyframes), 'keyframe')}",
                "look whether columns were lost; rows of two columns are keyframes without people",
                count=len(split.keyframes), unit="keyframes",
            )  # fmt: skip
        if not empty or len(empty) == len(counts):
            continue
        listed = tuple(f"{i} {exam.label_map[i]!r}" for i in empty)
        consequence = {
            "train": "the model cannot learn them: add examples, or take them out of the label map",
            "val": "their average precision cannot be measured: add examples",
        }[split.split]
        yield Finding(
            "class_without_examples", WARNING, split.path,
            f"no row for {listing.part(len(empty), len(counts), 'class', 'classes')}: "
            f"{findings.in_words(listed)}",
            consequence,
            count=len(empty), unit="classes", value=str(empty[0]), items=listed,
        )  # fmt: skip


def rows_by_class(split: annotation_rows.SplitRows, label_map: dict[int, str]) -> dict[int, int]:
    """Returns the number of rows for each id of the label map."""
    ids, counts = np.unique(split.action, return_counts=True)
    found = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    return {action: found.get(action, 0) for action in sorted(label_map)}


def overlapping_splits(exam: Examination) -> Iterator[Finding]:
    """Videos that are in the training and in the validation annotations, if by other ids."""
    train, val = exam.splits["train"], exam.splits["val"]
    of_file = {path: ids[0] for path, ids in _ids_by_file(train, exam).items()}
    both = {video_id: video_id for video_id in set(train.video_ids) & set(val.video_ids)}
    for path, ids in _ids_by_file(val, exam).items():
        for video_id in ids:
            if path in of_file:
                both.setdefault(video_id, f"{video_id} (there {of_file[path]}: {path})")
    if both:
        numbers = {video_id: index for index, video_id in enumerate(val.video_ids)}
        shared = np.isin(val.video, [numbers[video_id] for video_id in both])
        items = tuple(both[video_id] for video_id in sorted(both))
        yield Finding(
            "split_overlap", ERROR, val.path,
            f"videos that {train.path} has too: {findings.in_words(items)}",
            "a video belongs to one split, or the mAP tells what was learned by heart",
            count=len(both), unit="videos", rows=val.rows_of(shared), value=min(both),
            items=items,
        )  # fmt: skip


def videos_with_several_ids(exam: Examination) -> Iterator[Finding]:
    """Files that rows of one split name by different ids, such as v1 and v1.mp4."""
    for split in exam.splits.values():
        several = {p: ids for p, ids in _ids_by_file(split, exam).items() if len(ids) > 1}
        if not several:
            continue
        numbers = {video_id: index for index, video_id in enumerate(split.video_ids)}
        mask = np.isin(split.video, [numbers[i] for ids in several.values() for i in ids[1:]])
        items = tuple(f"{' and '.join(ids)} ({path})" for path, ids in several.items())
        yield Finding(
            "video_ids_differ", ERROR, split.path,
            f"several ids for one video file: {findings.in_words(items)}",
            "write one id in all rows of a video: who is marked under one id would be background "
            "under another; create_ava_records refuses it",
            count=len(several), unit="videos", rows=split.rows_of(mask),
            value=next(iter(several.values()))[1], items=items,
        )  # fmt: skip


def _ids_by_file(split: annotation_rows.SplitRows, exam: Examination) -> dict[str, list[str]]:
    """Returns the ids of each video file that could be found, by its path without links."""
    found: dict[str, list[str]] = {}
    for video_id in sorted(split.video_ids):
        info = exam.info(video_id)
        if info is not None:
            found.setdefault(files.real_path(info.path), []).append(video_id)
    return found


def excluded_timestamps(exam: Examination) -> Iterator[Finding]:
    """Excluded keyframes that the annotations do not have: those of validation, if both are given.

    AVA has a list for each.
    """
    path, excluded = exam.excluded
    val = exam.splits.get("val") or exam.splits["train"]
    annotated = set(val.video_ids)
    # Of a video that is annotated, AVA's list also names keyframes without a row.
    yield from _unmet(path, excluded, val)
    strangers = sorted(frame for frame in excluded if frame[0] not in annotated)
    if strangers:
        videos = sorted({video_id for video_id, _ in strangers})
        yield Finding(
            "excluded_video_unknown", WARNING, path,
            f"videos that {val.path} does not have: {findings.in_words(videos)}",
            "name videos of these annotations; these timestamps exclude nothing",
            count=len(strangers), unit="timestamps", value=videos[0], items=tuple(videos),
        )  # fmt: skip


def _unmet(path: str, excluded, val: annotation_rows.SplitRows) -> Iterator[Finding]:
    """Excluded moments of annotated videos that meet no keyframe, but nearly."""
    frames = val.frames()
    annotated = set(val.video_ids)
    exclusion = Exclusion((frame for frame in excluded if frame[0] in annotated), frames)
    if not exclusion.unmet:
        return
    moments = timestamps.Moments(frames)
    # AVA's list also names keyframes without a row, a second and more from the others.
    near = [
        frame for frame in exclusion.unmet
        if abs(moments.nearest(frame)[1] - frame[1]) < _NEAR_SECONDS
    ]  # fmt: skip
    if near or not exclusion.left_out:
        unmet = near or exclusion.unmet
        yield Finding(
            "excluded_timestamp_unmet", WARNING, path, exclusion.message(),
            f"write each as {val.path} has it; these timestamps exclude nothing",
            count=len(unmet), unit="timestamps", value=timestamps.frame_name(*unmet[0]),
            items=tuple(timestamps.frame_name(*frame) for frame in unmet),
        )  # fmt: skip
