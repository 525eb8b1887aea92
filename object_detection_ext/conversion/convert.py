# SPDX-License-Identifier: Apache-2.0
"""The conversion from beginning to end: look, plan, run, publish."""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence

from object_detection_ext import listing, machine
from object_detection_ext import progress as progress_lib
from object_detection_ext.conversion import earlier, look, unit
from object_detection_ext.conversion import manifest as manifest_lib
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.conversion import staging as staging_lib

# How often the staging folders are looked into; over a network that costs more.
_LOOK_SECONDS, _REMOTE_LOOK_SECONDS = 0.5, 15.0

_GOES_ON = "Finished parts are kept: the same command goes on from them."


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
      faults.AnnotationError: if the annotations or the label map have errors.
    """
    for options in splits:
        options.check()
    if workers < 0:
        raise options_lib.ConversionError(f"--workers must be at least 0, not {workers}.")
    planned = [look.look_and_plan(options) for options in splits]
    manifests: dict[str, dict] = {}
    todo = []
    for split in planned:
        manifest = earlier.finished(split)
        if manifest is not None:
            manifests[split.options.output] = manifest
        else:
            earlier.check_may_replace(split)
            todo.append(split)
    with contextlib.ExitStack() as stack:
        for split in todo:
            at_work = stack.enter_context(split.staging.opened())
            if at_work:
                print(
                    f"{split.options.shard_pattern}: an earlier run was stopped while it "
                    f"converted {_names(at_work)}",
                    flush=True,
                )
        if todo:
            _run(todo, workers or machine.usable_cpus(), beam_arguments)
        for split in todo:
            manifests[split.options.output] = _publish(split, command)
    return [manifests[options.output] for options in splits]


def _run(splits: Sequence[look.Split], workers: int, beam_arguments: Sequence[str]) -> None:
    """Converts what is not finished.

    Raises:
      ConversionError: if a unit could not be finished.
    """
    from object_detection_ext.conversion import beam_pipeline

    work = [pair for split in splits for pair in _work_left(split)]
    if not work:
        return
    if not beam_arguments:
        _tell_idle_cores(splits, workers)
    places = [split.staging for split in splits]
    log_path = places[0].log_path
    try:
        beam_pipeline.run(
            work,
            workers=min(workers, len(work)),
            beam_arguments=beam_arguments,
            log_path=log_path,
            tick=_progress_of(work),
            tick_seconds=_LOOK_SECONDS if all(p.is_local for p in places) else _REMOTE_LOOK_SECONDS,
            give_up=lambda reason, exit_code: _give_up(reason, exit_code, places),
        )
    except Exception as error:
        raise options_lib.ConversionError(
            f"A worker failed: {str(error).strip().splitlines()[-1]}\n{_GOES_ON}"
            + (f" Details: {log_path}." if log_path else "")
        ) from error
    problems = [problem for place in places for problem in place.problems()]
    if problems:
        raise options_lib.ConversionError("\n".join([*problems, _GOES_ON]))


def _work_left(split: look.Split) -> list:
    """Returns the units that no earlier run finished, as `beam_pipeline` takes them."""
    left = [u for u in split.units if split.staging.result(u.index, u.fingerprint) is None]
    for stale in left:
        split.staging.drop_result(stale.index)
    if len(left) < len(split.units):
        done = len(split.units) - len(left)
        print(
            f"{split.options.shard_pattern}: {listing.part(done, len(split.units), 'part')} "
            "finished by an earlier run",
            flush=True,
        )
    job = unit.Job(split.options, split.label_map)
    return [(job, u) for u in left]


def _tell_idle_cores(splits: Sequence[look.Split], workers: int) -> None:
    """Says that some cores have nothing to do, and what would change that."""
    units = sum(len(split.units) for split in splits)
    if units >= workers:
        return
    advice = "a video keeps one core busy, however long it is"
    # More files than these would only be more files.
    useful = sum(len(split.videos) for split in splits)
    if useful > units:
        advice = f"each file keeps one busy: --output PREFIX@N with a larger N uses up to {useful}"
    print(f"records: {workers - units} of {workers} cores idle; {advice}", flush=True)


def _give_up(reason: str, exit_code: int, places: Sequence[staging_lib.Staging]) -> None:
    """Ends the process, which ends its workers."""
    if "exited" in reason:
        at_work = [who for place in places for who in place.at_work()]
        # The others wait for work that nobody will give them.
        fallen = [who for who in at_work if not machine.is_running(who.process)] or at_work
        if fallen:
            reason += f" while it converted {_names(fallen)}"
        reason += (
            ". -9 or 137: killed, often for want of memory; --workers=1 needs the least. -11 or "
            "139: the video's decoder crashed; if it does so again, encode that video anew or take "
            "its rows out"
        )
    print(f"error: {reason}. {_GOES_ON}", file=sys.stderr, flush=True)
    os._exit(exit_code)


def _names(at_work: Sequence[staging_lib.AtWork]) -> str:
    return " or ".join(who.video for who in at_work)


def _progress_of(work) -> Callable[[], None]:
    """Returns a function that looks how far the units are, and says so now and then."""
    total = sum(todo.num_keyframes for _, todo in work)
    progress = progress_lib.Progress("records", total, "keyframes")
    waiting = {(job.options.prefix, todo.index): todo for job, todo in work}
    places = {job.options.prefix: staging_lib.Staging(job.options) for job, _ in work}
    done = 0

    def tick() -> None:
        nonlocal done
        partly = 0
        finished = {prefix: place.finished_units() for prefix, place in places.items()}
        for (prefix, index), todo in list(waiting.items()):
            if index in finished[prefix]:
                done += todo.num_keyframes
                del waiting[prefix, index]
            else:
                partly += places[prefix].progress(index)
        note = f"{len(work) - len(waiting)}/{len(work)} parts"
        progress.update(done + partly, note)

    return tick


def _publish(split: look.Split, command: Sequence[str]) -> dict:
    results = [split.staging.result(u.index, u.fingerprint) for u in split.units]
    missing = sum(result is None for result in results)
    if missing:
        raise options_lib.ConversionError(
            f"{split.options.shard_pattern}: unfinished parts: {missing} of {len(results)}, "
            "though no worker reported why. The same command goes on from the finished ones."
        )
    manifest = manifest_lib.make(
        split.options,
        split.labels,
        split.label_map,
        split.skips,
        split.units,
        results,
        command,
        split.num_thinned,
    )
    if not manifest["totals"]["keyframes_kept"]:
        split.staging.discard()
        raise look.nothing_converted(split.options, manifest_lib.skipped_of(manifest))
    split.staging.publish(manifest)
    return manifest
