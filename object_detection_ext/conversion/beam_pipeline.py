# SPDX-License-Identifier: Apache-2.0
"""Units on Apache Beam.

Only plans and short answers go through Beam; frames never do. The default is Beam's local runner
with a process for each core. Any other runner takes the same pipeline.
"""

import contextlib
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.runners.portability import fn_api_runner
from apache_beam.transforms import environments

from object_detection_ext.conversion import plan, unit, worker

_POLL_SECONDS = 0.5
_EXIT_INTERRUPTED = 130


Work = tuple[unit.Job, plan.Unit]


class _ConvertUnit(beam.DoFn):
    """A unit to its output's prefix and its number, when it is done with, well or not."""

    def process(self, work: Work) -> Iterable[tuple[str, int]]:
        job, todo = work
        unit.convert(job, todo)
        yield job.options.prefix, todo.index


def construct_pipeline(pipeline: beam.Pipeline, work: Sequence[Work]) -> beam.PCollection:
    """Adds the conversion to a pipeline.

    Args:
      pipeline: runs anywhere; workers must reach the videos and the output folder by their paths.
      work: the units, each with what its split shares.

    Returns:
      (prefix of the output, number of the unit) of each unit that was tried. What became of it
      stands in the staging folder.
    """
    return (
        pipeline
        | "Units" >> beam.Create(work, reshuffle=False)
        # Without it, a runner would keep all units in one worker.
        | "ToWorkers" >> beam.Reshuffle()
        | "Convert" >> beam.ParDo(_ConvertUnit())
    )


def run(
    work: Sequence[Work],
    *,
    workers: int,
    beam_arguments: Sequence[str],
    log_path: str | None,
    tick: Callable[[], None],
    tick_seconds: float,
    give_up: Callable[[str, int], None],
) -> None:
    """Converts units and waits for the end.

    Args:
      work: see `construct_pipeline`.
      workers: processes of the local runner.
      beam_arguments: `--runner=...` and whatever else Beam takes; empty for the local runner.
      log_path: where local workers write what they have to say; None for stderr.
      tick: is called meanwhile, and once more at the end.
      tick_seconds: from one call to the next.
      give_up: ends this process with a message and an exit code, when a worker was killed or the
        user interrupts: the runner itself would wait for its workers' answers, for ever.

    Raises:
      Exception: what the runner raises, if a worker met what it did not expect.
    """
    failure: list[BaseException] = []
    finished = threading.Event()

    def run_it():
        try:
            with _pipeline(workers, beam_arguments, log_path) as pipeline:
                construct_pipeline(pipeline, work)
        except BaseException as error:
            failure.append(error)
        finished.set()

    with _watched_workers() as killed:
        threading.Thread(target=run_it, daemon=True).start()
        next_tick = 0.0
        try:
            while not finished.wait(_POLL_SECONDS):
                if killed:
                    give_up(killed[0], 1)
                if time.monotonic() >= next_tick:
                    tick()
                    next_tick = time.monotonic() + tick_seconds
        except KeyboardInterrupt:
            give_up("Interrupted", _EXIT_INTERRUPTED)
    if failure:
        raise failure[0]
    tick()


def _pipeline(workers: int, beam_arguments: Sequence[str], log_path: str | None) -> beam.Pipeline:
    options = pipeline_options.PipelineOptions([*beam_arguments])
    if options.view_as(pipeline_options.StandardOptions).runner is not None:
        return beam.Pipeline(options=options)
    # Not the runner that Beam would choose: that one fetches a program from the internet first.
    options.view_as(pipeline_options.DirectOptions).direct_num_workers = workers
    environment = None
    if workers > 1:
        command = f"exec {shlex.quote(sys.executable)} -m {worker.__name__}"
        if log_path is not None:
            command += f" >>{shlex.quote(os.path.abspath(log_path))} 2>&1"
        environment = environments.SubprocessSDKEnvironment.from_command_string(command)
    return beam.Pipeline(runner=fn_api_runner.FnApiRunner(environment), options=options)


@contextlib.contextmanager
def _watched_workers():
    """Notes when a local worker process dies: its thread in this process says so by an error."""
    killed: list[str] = []
    stock_hook = threading.excepthook

    def note(arguments):
        text = str(arguments.exc_value)
        if "Worker subprocess exited" in text:
            killed.append(text)
        elif not killed:
            # The channels to a dead worker complain as well; what else fails shows itself as ever.
            time.sleep(_POLL_SECONDS)
            if not killed:
                stock_hook(arguments)

    threading.excepthook = note
    try:
        yield killed
    finally:
        threading.excepthook = stock_hook
