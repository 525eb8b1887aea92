# SPDX-License-Identifier: Apache-2.0
"""What an earlier run left: taken as it is, told anew, gone on with, replaced, or kept."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from object_detection_ext import listing
from object_detection_ext.conversion import look, plan, skips
from object_detection_ext.conversion import manifest as manifest_lib
from object_detection_ext.conversion import options as options_lib


def finished(split: look.Split) -> dict | None:
    """Returns the manifest of a split that an earlier run finished, None if none did.

    Where the records are those of this split but the manifest would tell something else beside
    them (rows have other numbers, a missing video's rows are gone), it alone is written anew.
    """
    found = split.staging.finished_manifest(split.fingerprint)
    if found is None:
        return None
    print(f"{split.options.shard_pattern}: finished by an earlier run", flush=True)
    account = manifest_lib.account(split.labels, split.label_map, split.skips, split.num_thinned)
    if found.get("account") == account:
        return found
    result = manifest_lib.as_result(found, split.units)
    now = manifest_lib.make(
        split.options,
        split.labels,
        split.label_map,
        split.skips,
        split.units,
        [result],
        (),
        split.num_thinned,
    )
    # How the records were made has not changed.
    now |= {name: found[name] for name in ("command", "versions")}
    split.staging.rewrite_manifest(now)
    print(
        f"{split.staging.manifest_path}: written anew, for rows or what is left out changed since",
        flush=True,
    )
    return now


def check_may_replace(split: look.Split) -> None:
    """Looks whether records are in the way, before anything is converted.

    They are not if an earlier run of this conversion was stopped while it gave shards their names,
    or if it left out videos that can be read now, and nothing else changed.

    Raises:
      ConversionError: if records of another conversion are there and may not be replaced.
    """
    existing = split.staging.existing()
    if not existing or split.options.overwrite or split.staging.is_publishing(split.fingerprint):
        return
    before = split.staging.manifest() or {}
    repaired = _repaired_videos(split, before)
    if repaired:
        print(
            f"{split.options.shard_pattern}: converting again, with videos that an earlier run "
            f"left out: {listing.in_line(repaired)}",
            flush=True,
        )
        return
    now = dataclasses.asdict(split.options)
    options = before.get("options", {})
    changed = [
        f"{name} was {options[name]!r} and is {now[name]!r}"
        for name in now
        if name in options and options[name] != now[name] and name != "overwrite"
    ]
    why = "; ".join(changed) or "the annotations, the videos or the program changed since"
    raise options_lib.ConversionError(
        f"There are files already, from another conversion: {listing.in_line(existing, 1)}: "
        f"{why}. Give another --output, or --overwrite to replace them when the new "
        "records are whole."
    )


def _repaired_videos(split: look.Split, before: Mapping) -> Sequence[str]:
    """Returns ids of videos that an earlier run left out, if nothing but these changed since."""
    left_out = {skip.video_id for skip in skips.surprises(manifest_lib.skipped_of(before))}
    videos_before, repaired = [], []
    for video in split.videos:
        old = _as_before(video, before["videos"], split) if video.video_id in left_out else video
        if old is not None:
            videos_before.append(old)
        if old != video:
            repaired.append(video.video_id)
    units = plan.plan_units(videos_before, split.options, split.label_map)
    same_otherwise = manifest_lib.fingerprint(units) == before.get("fingerprint")
    return sorted(repaired) if same_otherwise else ()


def _as_before(video: plan.VideoJob, entries: Mapping, split: look.Split) -> plan.VideoJob | None:
    """Returns a video with the file that it had in an earlier run's manifest, None if it had none.

    Such a video was read then, but not to its end.
    """
    entry = entries.get(video.video_id, {})
    if entry.get("path") is None:
        return None
    name = os.path.relpath(entry["path"], split.options.videos)
    return dataclasses.replace(video, name=name, stamp=entry.get("stamp", ""))
