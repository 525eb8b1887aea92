# SPDX-License-Identifier: Apache-2.0
"""Which videos are for validation: whole videos, the same ones in every run."""

import glob
import hashlib
import os
import re
from collections.abc import Mapping, Sequence

from object_detection_ext import listing
from object_detection_ext.ava import video_ids
from object_detection_ext.importers import model, placing, video_facts

TRAIN, VAL = "train", "val"
# A line of a data set's list: a name, and a number.
_MARKED = re.compile(r"(?P<name>.*\S)\s+(?P<mark>\d{1,3})")
_TESTING = "2"


def by_fraction(ids: Sequence[str], fraction: float) -> set[str]:
    """Chooses so many of the videos, by their ids alone; at least one, and leaves at least one.

    Raises:
        model.ImportFault: if the fraction is not between 0 and 1, or there are less than 2 videos.
    """
    if not 0 < fraction < 1:
        raise model.ImportFault(f"--val_fraction is {fraction:g}; it must be between 0 and 1.")
    if len(ids) < 2:
        raise model.ImportFault(
            f"--val_fraction: there is {len(ids)} video; whole videos are for training or "
            "for validation, so there must be at least 2."
        )
    count = min(max(1, round(fraction * len(ids))), len(ids) - 1)
    return set(sorted(ids, key=lambda i: hashlib.sha256(i.encode()).digest())[:count])


def by_names(videos: Sequence[placing.PlacedVideo], wanted: Sequence[str]) -> set[str]:
    """Chooses videos by their ids or names, or by lists of these.

    Args:
        videos: all.
        wanted: ids, or text files (patterns too) with one on each line. A number after each is
            J-HMDB's mark: only lines with 2, for testing, count.

    Raises:
        model.ImportFault: if none of the videos has a name of those that are given one by one, or
            all are chosen or none.
    """
    names: set[str] = set()
    for each in wanted:
        files = [path for path in sorted(glob.glob(each)) if os.path.isfile(path)]
        names |= {name for path in files for name in _listed(path)} if files else {each}
    keys = {name: _keys(name) for name in names}
    known = [_keys(video.name) | _keys(video.video_id) for video in videos]
    listed, there = set().union(*keys.values()), set().union(*known)
    chosen = {v.video_id for v, own in zip(videos, known, strict=True) if own & listed}
    missing = [name for name in wanted if name in keys and not keys[name] & there]
    if missing:
        raise model.ImportFault(
            f"--val_videos: there is no video {', '.join(missing)}, nor a file of this name."
        )
    _check_both(len(chosen), len(videos), "--val_videos")
    return chosen


def by_source(
    videos: Sequence[placing.PlacedVideo],
    splits: Mapping[int, tuple[frozenset[str], frozenset[str]]],
    number: int,
) -> tuple[set[str], set[str]]:
    """(training, validation) ids of a split that the annotation file has.

    Raises:
        model.ImportFault: if it has no such split.
    """
    if number not in splits:
        there = ", ".join(map(str, splits)) or "none"
        raise model.ImportFault(f"--split {number}: the file's splits are: {there}.")
    train, test = splits[number]
    chosen = {v.video_id for v in videos if v.name in train}
    held_out = {v.video_id for v in videos if v.name in test}
    _check_both(len(held_out), len(chosen) + len(held_out), f"--split {number}")
    return chosen, held_out


def _check_both(num_val: int, num_videos: int, flag: str) -> None:
    if num_val in (0, num_videos):
        raise model.ImportFault(
            f"{flag}: {listing.part(num_val, num_videos, 'video')} "
            f"{listing.verb(num_val, 'is', 'are')} for validation; there must be some of "
            "both kinds."
        )


def _keys(name: str) -> set[str]:
    stem = video_facts.without_extension(video_ids.same_id(name))
    return {stem, os.path.basename(stem)}


def _listed(path: str) -> list[str]:
    """The names of a list of videos."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise model.ImportFault(f"--val_videos: {path}: cannot be read: {error}.") from error
    found = [match for line in lines if (match := _MARKED.fullmatch(line))]
    if len(found) == sum(map(bool, lines)) and found:
        # J-HMDB's lists: 1 is training, 2 testing, 0 neither. UCF101's: a label, from 1 to 101.
        if {match["mark"] for match in found} <= {"0", "1", _TESTING}:
            found = [match for match in found if match["mark"] == _TESTING]
        return [match["name"] for match in found]
    return [line for line in lines if line]
