# SPDX-License-Identifier: Apache-2.0
"""The conversion from beginning to end: look, plan, run, publish."""

import concurrent.futures
import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from object_detection_ext import files, machine
from object_detection_ext import progress as progress_lib
from object_detection_ext.conversion import manifest as manifest_lib
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.conversion import plan, skips, unit
from object_detection_ext.conversion import staging as staging_lib
from object_detection_ext.data import annotations, video_files, video_reader
from object_detection_ext.evaluation import csv_io

_PROBE_THREADS = 16


@dataclasses.dataclass(frozen=True)
class Split:
    """A split, looked through and planned."""

    options: options_lib.Options
    label_map: Mapping[int, str]
    labels: annotations.Annotations
    skips: Sequence[skips.Skip]
    units: Sequence[plan.Unit]
    staging: staging_lib.Staging

    @property
    def fingerprint(self) -> str:
        """Changes with everything that the records depend on."""
        return manifest_lib.fingerprint(self.units)


def convert(
    splits: Sequence[options_lib.Options],
    *,
    workers: int = 0,
    beam_arguments: Sequence[str] = (),
    command: Sequence[str] = (),
) -> list[dict]:
    """Converts splits and writes their shards and manifests; what is finished is not done again.

    Args:
      splits: each with its own output.
      workers: processes of the local runner; 0 for one for each CPU.
      beam_arguments: for another runner, see `beam_pipeline.run`.
      command: what the manifests say was run.

    Returns:
      The manifests, as written to `P-manifest.json`.

    Raises:
      ConversionError: if an option is out of range, nothing could be converted, a worker failed, or
        under --strict anything had to be left out.
      annotations.AnnotationError: if the annotations or the label map have errors.
    """
    for options in splits:
        options.check()
    if workers < 0:
        raise options_lib.ConversionError(f"--workers must be at least 0, not {workers}.")
    planned = [look_and_plan(options) for options in splits]
    manifests: dict[str, dict] = {}
    todo = []
    for split in planned:
        finished = split.staging.finished_manifest(split.fingerprint)
        if finished is not None:
            print(f"{split.options.shard_pattern}: finished by an earlier run", flush=True)
            manifests[split.options.output] = finished
        else:
            _check_existing(split)
            todo.append(split)
    with contextlib.ExitStack() as stack:
        for split in todo:
            stack.enter_context(split.staging.opened())
        if todo:
            _run(todo, workers or machine.usable_cpus(), beam_arguments)
        for split in todo:
            manifests[split.options.output] = _publish(split, command)
    return [manifests[options.output] for options in splits]


# --- Before the first decode ----------------------------------------------------------------------


def look_and_plan(options: options_lib.Options) -> Split:
    """Reads and checks all that can be checked without decoding, and plans the units.

    Raises:
      ConversionError: if no video can be used, or under --strict if one cannot.
      annotations.AnnotationError: if the annotations or the label map have errors.
    """
    label_map = annotations.read_label_map(options.label_map)
    labels = annotations.read_annotations(
        options.annotations, label_map, skip_unknown_labels=options.skip_unknown_labels
    )
    by_video, skipped = _usable_keyframes(options, labels)
    jobs, missing = _find_videos(options, by_video)
    skipped += missing
    _raise_if_strict(options, skipped)
    units = plan.plan_units(jobs, options, label_map)
    split = Split(options, label_map, labels, skipped, units, staging_lib.Staging(options))
    if not units:
        raise _nothing_converted(options, skipped)
    return split


def _nothing_converted(options, skipped) -> options_lib.ConversionError:
    lines = skips.listing(options.annotations, skipped)
    return options_lib.ConversionError(
        "\n".join([f"No keyframe of {options.annotations} could be converted:", *lines])
    )


def _raise_if_strict(options: options_lib.Options, skipped: Sequence[skips.Skip]) -> None:
    found = skips.surprises(skipped)
    if options.strict and found:
        lines = skips.listing(options.annotations, found)
        raise options_lib.ConversionError(
            "\n".join([f"--strict: {len(found)} keyframes cannot be converted:", *lines])
        )


def _usable_keyframes(options: options_lib.Options, labels: annotations.Annotations):
    """Leaves out what was asked to be left out: (keyframes by video, skips)."""
    excluded = frozenset()
    if options.excluded_timestamps:
        excluded = csv_io.read_excluded_timestamps(options.excluded_timestamps)
    by_video, skipped = {}, []
    for video_id, keyframes in labels.by_video().items():
        kept = []
        for keyframe in keyframes:
            if (video_id, keyframe.timestamp) in excluded:
                reason = f"in {options.excluded_timestamps}"
                skipped += skips.skips_of([keyframe], skips.EXCLUDED, reason)
            elif keyframe.num_skipped and not keyframe.regions:
                # It is not free of people: its people do what the label map does not have.
                reason = "no action of it is in the label map"
                skipped += skips.skips_of([keyframe], skips.UNKNOWN_LABELS, reason)
            else:
                kept.append(keyframe)
        if kept:
            by_video[video_id] = kept
    return by_video, skipped


def _find_videos(options: options_lib.Options, by_video: Mapping[str, list]):
    """Looks for each video and reads its header: (jobs, skips)."""
    index = video_files.index_videos(options.videos)
    progress = progress_lib.Progress("videos", len(by_video), "headers read", tell_end=False)

    def find(video_id):
        try:
            return video_files.find_video(video_id, index, options.videos)
        except video_reader.VideoError as error:
            return error

    jobs, skipped = [], []
    with concurrent.futures.ThreadPoolExecutor(_PROBE_THREADS) as pool:
        for done, (video_id, found) in enumerate(
            zip(by_video, pool.map(find, by_video), strict=True), start=1
        ):
            progress.update(done)
            keyframes = by_video[video_id]
            if isinstance(found, video_reader.VideoError):
                kind = skips.UNREADABLE if video_id in index else skips.MISSING
                skipped += skips.skips_of(keyframes, kind, str(found))
                continue
            if options.strict:
                skipped += _outside_by_header(found, keyframes)
            name = os.path.relpath(found.path, options.videos)
            stamp = files.system_of(found.path).stamp(found.path)
            jobs.append(plan.VideoJob(found, name, stamp, tuple(keyframes)))
    return jobs, skipped


def _outside_by_header(info: video_reader.VideoInfo, keyframes) -> list[skips.Skip]:
    """What is clearly outside: the header's duration is not exact, decoding decides the rest."""
    limit = np.inf if info.duration is None else info.duration + 1.0
    length = "" if info.duration is None else f", which is {info.duration:g} s long"
    found = []
    for keyframe in keyframes:
        if not 0 <= keyframe.timestamp <= limit:
            reason = f"timestamp {keyframe.timestamp:g} s is outside the video{length}"
            found += skips.skips_of([keyframe], skips.OUTSIDE, reason)
    return found


def _check_existing(split: Split) -> None:
    """Raises ConversionError if records of another conversion are there and may not be replaced."""
    existing = split.staging.existing()
    if not existing or split.options.overwrite:
        return
    before = (split.staging.manifest() or {}).get("options", {})
    now = dataclasses.asdict(split.options)
    changed = [
        f"{name} was {before[name]!r} and is {now[name]!r}"
        for name in now
        if name in before and before[name] != now[name] and name != "overwrite"
    ]
    why = "; ".join(changed) or "the annotations, the videos or the program changed since"
    raise options_lib.ConversionError(
        f"{existing[0]} and {len(existing) - 1} more files are there already, from another "
        f"conversion: {why}. Give another --output, or --overwrite to replace them when the new "
        "records are whole."
    )


# --- Conversion -----------------------------------------------------------------------------------


def _run(splits: Sequence[Split], workers: int, beam_arguments: Sequence[str]) -> None:
    """Converts what is not finished.

    Raises:
      ConversionError: if a unit could not be finished.
    """
    from object_detection_ext.conversion import beam_pipeline

    work = []
    for split in splits:
        job = unit.Job(split.options, split.label_map)
        left = [u for u in split.units if split.staging.result(u.index, u.fingerprint) is None]
        for stale in left:
            split.staging.drop_result(stale.index)
        if len(left) < len(split.units):
            done = len(split.units) - len(left)
            print(
                f"{split.options.shard_pattern}: {done} of {len(split.units)} parts finished by an "
                "earlier run",
                flush=True,
            )
        work += [(job, u) for u in left]
    if not work:
        return
    log_path = splits[0].staging.log_path
    try:
        beam_pipeline.run(
            work,
            workers=min(workers, len(work)),
            beam_arguments=beam_arguments,
            log_path=log_path,
            tick=_progress_of(work),
            give_up=_give_up,
        )
    except Exception as error:
        raise options_lib.ConversionError(
            f"A worker failed: {str(error).strip().splitlines()[-1]}\nFinished parts are kept"
            + (f"; details: {log_path}." if log_path else ".")
        ) from error
    problems = [problem for split in splits for problem in split.staging.problems()]
    if problems:
        raise options_lib.ConversionError(
            "\n".join([*problems, "Finished parts are kept: the same command goes on from them."])
        )


def _give_up(reason: str, exit_code: int) -> None:
    """Ends the process, which ends its workers."""
    if "exited" in reason:
        reason += " (137 or -9: killed, often for want of memory; --workers=1 needs the least)"
    print(
        f"error: {reason}. Finished parts are kept: the same command goes on from them.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(exit_code)


def _progress_of(work) -> Callable[[], None]:
    """Returns a function that looks how far the units are, and says so now and then."""
    total = sum(todo.num_keyframes for _, todo in work)
    progress = progress_lib.Progress("records", total, "keyframes")
    waiting = {(job.options.prefix, todo.index): (job, todo) for job, todo in work}
    places = {job.options.prefix: staging_lib.Staging(job.options) for job, _ in work}
    done = 0

    def tick() -> None:
        nonlocal done
        partly = 0
        for key, (job, todo) in list(waiting.items()):
            place = places[job.options.prefix]
            if place.has_result(todo.index):
                done += todo.num_keyframes
                del waiting[key]
            else:
                partly += place.progress(todo.index)
        note = f"{len(work) - len(waiting)}/{len(work)} parts"
        progress.update(done + partly, note)

    return tick


def _publish(split: Split, command: Sequence[str]) -> dict:
    results = [split.staging.result(u.index, u.fingerprint) for u in split.units]
    missing = sum(result is None for result in results)
    if missing:
        raise options_lib.ConversionError(
            f"{split.options.shard_pattern}: {missing} of {len(results)} parts are not finished, "
            "though no worker reported why. The same command goes on from the finished ones."
        )
    manifest = manifest_lib.make(
        split.options, split.labels, split.label_map, split.skips, split.units, results, command
    )
    if not manifest["totals"]["keyframes_kept"]:
        split.staging.discard()
        skipped = [skips.Skip(**skip) for skip in manifest["skipped_keyframes"]]
        raise _nothing_converted(split.options, skipped)
    split.staging.publish(manifest)
    return manifest
