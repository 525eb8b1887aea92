# SPDX-License-Identifier: Apache-2.0
"""What a conversion made: a JSON beside the records, and what the user reads at the end."""

import collections
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

import av
import PIL
from av import library_versions

import object_detection_ext
from object_detection_ext import listing
from object_detection_ext.ava import annotations
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.conversion import plan, skips
from object_detection_ext.data import video_info

_MAX_LISTED = 20


def fingerprint(units: Sequence[plan.Unit]) -> str:
    """Returns what changes when any unit's does: of the records."""
    return hashlib.sha256("".join(unit.fingerprint for unit in units).encode()).hexdigest()


def account(
    labels: annotations.Annotations,
    label_map: Mapping[int, str],
    early_skips: Sequence[skips.Skip],
    num_thinned: int = 0,
) -> str:
    """Returns what changes with what a manifest tells beside the records.

    Args:
      labels: the split's annotations.
      label_map: names by action id.
      early_skips: what was left out before anything was decoded.
      num_thinned: keyframes that `--every` leaves out.
    """
    told = [
        sorted(label_map.items()),
        sorted(labels.skipped_labels.items()),
        [keyframe.row for keyframe in labels.keyframes],
        [dataclasses.astuple(skip) for skip in early_skips],
        *([num_thinned] if num_thinned else []),
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def make(
    options: options_lib.Options,
    labels: annotations.Annotations,
    label_map: Mapping[int, str],
    early_skips: Sequence[skips.Skip],
    units: Sequence[plan.Unit],
    results: Sequence[Mapping],
    command: Sequence[str],
    num_thinned: int = 0,
) -> dict:
    """Puts the units' results together.

    Args:
      options: of the split.
      labels: its annotations.
      label_map: names by action id.
      early_skips: what was left out before anything was decoded.
      units: all units of the split.
      results: what each unit staged.
      command: that was run.
      num_thinned: keyframes that `--every` leaves out; they are counted, not listed.
    """
    totals: collections.Counter = collections.Counter()
    rows: collections.Counter = collections.Counter()
    shards, videos, skipped = {}, {}, list(early_skips)
    for result in results:
        totals.update(result["totals"])
        rows.update(result["rows_by_class"])
        shards |= result["shards"]
        videos |= result["videos"]
        skipped += [skips.Skip(**skip) for skip in result["skips"]]
    skipped.sort(key=lambda skip: skip.row)
    totals["videos"] = len(videos)
    if num_thinned:
        totals["keyframes_thinned"] = num_thinned
    for video_id, reasons in _skipped_by_video(skipped).items():
        # A video that was not found, or that nothing was wanted of, is told too.
        entry = videos.setdefault(video_id, {"path": None, "keyframes_kept": 0})
        entry["keyframes_skipped"] = reasons
    return {
        "command": list(command),
        "options": dataclasses.asdict(options),
        "versions": {
            "object_detection_ext": object_detection_ext.__version__,
            "av": av.__version__,
            "ffmpeg": {name: ".".join(map(str, v)) for name, v in library_versions.items()},
            "pillow": PIL.__version__,
        },
        "fingerprint": fingerprint(units),
        "account": account(labels, label_map, early_skips, num_thinned),
        "totals": {"keyframes": len(labels.keyframes), **totals},
        "rows_by_class": {name: rows[name] for name in label_map.values()},
        "skipped_keyframes_by_reason": skips.counts(skipped),
        "skipped_rows_by_unknown_action_id": {
            str(action_id): count for action_id, count in sorted(labels.skipped_labels.items())
        },
        "skipped_keyframes": [dataclasses.asdict(skip) for skip in skipped],
        "videos": dict(sorted(videos.items())),
        "shards": dict(sorted(shards.items())),
    }


def as_result(manifest: Mapping, units: Sequence[plan.Unit]) -> dict:
    """Returns the records of a manifest as the result of one unit, for `make`.

    Args:
      manifest: of the same records.
      units: their plan, with the rows that keyframes have now.
    """
    videos = [video for unit in units for video in unit.videos]
    rows = {
        (v.video_id, keyframe.timestamp): keyframe.row for v in videos for keyframe in v.keyframes
    }
    late = [
        dataclasses.asdict(dataclasses.replace(skip, row=rows[skip.video_id, skip.timestamp]))
        for skip in skipped_of(manifest)
        if (skip.video_id, skip.timestamp) in rows
    ]
    entries = {video.video_id: dict(manifest["videos"][video.video_id]) for video in videos}
    for entry in entries.values():
        entry.pop("keyframes_skipped", None)
    of_split = ("keyframes", "keyframes_thinned", "videos")
    totals = {k: v for k, v in manifest["totals"].items() if k not in of_split}
    return {
        "totals": totals,
        "rows_by_class": manifest["rows_by_class"],
        "skips": late,
        "videos": entries,
        "shards": manifest["shards"],
    }


def skipped_of(manifest: Mapping) -> list[skips.Skip]:
    """Returns all keyframes that a manifest tells as left out."""
    return [skips.Skip(**skip) for skip in manifest.get("skipped_keyframes", ())]


def _skipped_by_video(skipped: Sequence[skips.Skip]) -> dict[str, dict[str, int]]:
    by_video: dict[str, list[skips.Skip]] = {}
    for skip in skipped:
        by_video.setdefault(skip.video_id, []).append(skip)
    return {video_id: skips.counts(of_video) for video_id, of_video in by_video.items()}


def _odd_videos(videos: Mapping[str, Mapping]) -> list[str]:
    """Warnings of what is unusual about videos that were converted."""
    lines = []
    restarted = _counted(videos, "timestamp_restarts")
    if restarted:
        lines.append(
            f"Timestamps start over in {_videos(restarted)}: "
            f"{listing.in_line(restarted, _MAX_LISTED)}. Each part was taken to follow the one "
            "before; check that the annotations count so too."
        )
    unread = _counted(videos, "unread_parts")
    if unread:
        lines.append(
            f"Left out of {_videos(unread)}: {listing.in_line(unread, _MAX_LISTED)} "
            f"{video_info.UNREAD_CONSEQUENCE}."
        )
    resized = _counted(videos, "size_changes")
    if resized:
        lines.append(
            f"Frames change their size in {_videos(resized)}: "
            f"{listing.in_line(resized, _MAX_LISTED)}. All were stretched to the size of the first "
            "one."
        )
    hdr = [f"{i} ({video['hdr']})" for i, video in videos.items() if video.get("hdr")]
    if hdr:
        some = listing.in_line(hdr, _MAX_LISTED)
        lines.append(f"HDR: {_videos(hdr)}, {some}: {video_info.HDR_CONSEQUENCE}.")
    return lines


def _counted(videos: Mapping[str, Mapping], field: str) -> list[str]:
    """The videos that have any of what a field counts, each with its count."""
    counts = {i: video.get(field, 0) for i, video in videos.items()}
    return [f"{i} ({count})" for i, count in counts.items() if count]


def _videos(names: Sequence[str]) -> str:
    return listing.counted(len(names), "video")


def summary(options: options_lib.Options, manifest: Mapping) -> str:
    """Returns what the user reads at the end: counts, what was left out, what comes next."""
    totals = manifest["totals"]
    lines = [
        f"Converted {listing.part(totals['keyframes_kept'], totals['keyframes'], 'keyframe')} with "
        f"{listing.counted(totals['boxes'], 'box', 'boxes')} and "
        f"{listing.counted(totals['rows'], 'action label')}, from "
        f"{listing.counted(totals['videos'], 'video')}."
    ]
    for kind, count in manifest["skipped_keyframes_by_reason"].items():
        lines.append(f"Left out: {listing.counted(count, 'keyframe')}, {kind}.")
    if totals.get("keyframes_thinned"):
        lines.append(
            f"Left out: {listing.counted(totals['keyframes_thinned'], 'keyframe')}, by "
            f"--every {options.every:g}."
        )
    lines += skips.listing(options.annotations, skips.surprises(skipped_of(manifest)))
    damaged = [name for name, video in manifest["videos"].items() if video.get("damaged_frames")]
    if damaged:
        lines.append(
            f"Damaged parts were left out of {_videos(damaged)}; clips near them may show it: "
            f"{listing.in_line(damaged, _MAX_LISTED)}."
        )
    lines += _odd_videos(manifest["videos"])
    if manifest["skipped_rows_by_unknown_action_id"]:
        ids = manifest["skipped_rows_by_unknown_action_id"]
        counts = ", ".join(f"{i} ({listing.counted(count, 'row')})" for i, count in ids.items())
        lines.append(f"Left out rows with action ids that the label map does not have: {counts}.")
    megabytes = sum(shard["bytes"] for shard in manifest["shards"].values()) / 1e6
    lines += [
        f"Records: {options.shard_pattern}, {megabytes:.1f} MB (each video and what was left out: "
        f"{options.prefix}-manifest.json).",
        "Use them in pipeline.config with",
        f'  label_map_path: "{options.label_map}"',
        f'  tf_record_input_reader {{ input_path: "{options.shard_pattern}" }}',
    ]
    return "\n".join(lines)
