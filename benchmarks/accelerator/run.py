# SPDX-License-Identifier: Apache-2.0
r"""Measures the exported programs and PyTorch's model on a GPU: the one command.

    python -m benchmarks.accelerator.run --programs programs --output results --minutes 8

Needs JAX and PyTorch with CUDA, the programs of export.py, no TensorFlow and no network. The parts
(see plan.py) run one after the other, the most important first, each in a process of its own with
its own time limit; one that fails is recorded and the next one runs. results.json is whole after
every measurement, and a second run into the same folder, or with --resume results.json, measures
only what is not done. At the end results.md has the table, which is also printed.
"""

import argparse
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping

from benchmarks.accelerator import plan, programs, results
from benchmarks.accelerator.part import RESULT

_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
_PROBE = (
    "import json, jax; d = jax.devices()[0]; "
    "print('RESULT ' + json.dumps({'jax': jax.__version__, 'device': d.device_kind}))"
)
_PROBE_TORCH = (
    "import json, torch; print('RESULT ' + json.dumps({'torch': torch.__version__, "
    "'cuda': str(torch.version.cuda)}))"
)


_AUTOTUNE_LEVEL = "--xla_gpu_autotune_level"


class Failure(Exception):
    """A part that did not run to its end; the text says why."""


class OutOfTime(Failure):
    """It was ended at its limit."""


def run_process(
    command: list[str],
    log: pathlib.Path,
    seconds: float,
    receive: Callable[[dict], object],
    environment: Mapping[str, str],
) -> None:
    """Runs a command and hands each of its measurements to `receive`.

    Args:
        command: of the process; it and all that it started are ended at the limit.
        log: gets all that it prints.
        seconds: the limit.
        receive: called with each measurement.
        environment: of the process.

    Raises:
        Failure: at the limit, or for another exit status than 0.
    """
    deadline = time.monotonic() + seconds
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=_ROOT,
        env=environment,
        start_new_session=True,
    )
    lines: queue.Queue = queue.Queue()
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    try:
        with log.open("a", encoding="utf-8") as file:
            last = _drain(lines, deadline, file, receive)
        status = process.wait(timeout=max(deadline - time.monotonic(), 1.0))
    except (queue.Empty, subprocess.TimeoutExpired):
        raise OutOfTime(f"stopped after {seconds:.0f} s, its limit") from None
    finally:
        _end(process)
    if status:
        raise Failure(f"exit status {status}: {last}")


def _read(stream, lines: queue.Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _drain(lines: queue.Queue, deadline: float, log, receive) -> str:
    """Reads to the end of the output; returns its last line. queue.Empty at the deadline."""
    last = ""
    while True:
        line = lines.get(timeout=max(deadline - time.monotonic(), 0.01))
        if line is None:
            return last
        if line.startswith(RESULT):
            receive(json.loads(line.removeprefix(RESULT)))
            continue
        log.write(line)
        log.flush()
        last = line.strip() or last


def _end(process: subprocess.Popen) -> None:
    """Ends a process and those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


class Run:
    """One run of the plan."""

    def __init__(self, arguments: argparse.Namespace):
        self._arguments = arguments
        self._folder = arguments.output
        self._folder.mkdir(parents=True, exist_ok=True)
        self.results = results.Results(self._folder / "results.json")
        self._budget = results.Budget(arguments.minutes * 60.0)
        self._environment = {
            **os.environ,
            # Peak memory is what is used, whatever is reserved; the rest is left to the autotuner.
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
            "TF_CPP_MIN_LOG_LEVEL": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        }
        if arguments.device == "cpu":
            # A dry run: threads that wait for each other's cores would take all its time.
            self._environment.update(JAX_PLATFORMS="cpu", OMP_NUM_THREADS="1")
        self._flops = _flops_by_part(arguments.programs, arguments.size)

    def probe(self) -> None:
        """Records versions and device; drops XLA flags that this version does not know."""
        about = self.results.data["about"]
        own = self._environment.get("XLA_FLAGS", "")
        tuned = [f"--xla_gpu_per_fusion_autotune_cache_dir={self._autotune_folder()}"]
        if self._arguments.autotune_level is not None:
            tuned.append(f"{_AUTOTUNE_LEVEL}={self._arguments.autotune_level}")
        for flags in (tuned, tuned[1:], []):
            self._environment["XLA_FLAGS"] = " ".join(filter(None, [own, *flags]))
            if self._ask(_PROBE, about):
                about["XLA_FLAGS"] = self._environment["XLA_FLAGS"] or "none"
                break
        self._ask(_PROBE_TORCH, about)
        self.results.save()

    def _autotune_folder(self) -> pathlib.Path:
        # Convolutions of one shape are tuned once for all programs.
        folder = (self._folder / "autotuned").resolve()
        folder.mkdir(exist_ok=True)
        return folder

    def _ask(self, program: str, about: dict) -> bool:
        try:
            run_process(
                [sys.executable, "-c", program],
                self._folder / "probe.log",
                60.0,
                about.update,
                self._environment,
            )
        except Failure as failure:
            about["probe failed"] = str(failure)[:300]
            return False
        return True

    def run(self, parts: list[plan.Part]) -> None:
        """Runs the parts that are not done, as long as there is time."""
        for part in parts:
            if self.results.is_done(part.name):
                print(f"{part.name}: done before", flush=True)
                continue
            if self._run_part(part) and self._stop_tuning(part):
                self._run_part(part)

    def _stop_tuning(self, part: plan.Part) -> bool:
        """Whether a program whose compilation took too long is to be tried without tuning.

        From then on no program is tuned: the others would take as long.
        """
        flags = self._environment.get("XLA_FLAGS", "")
        on_gpu = self._arguments.device == "gpu"
        if part.kind != "xla" or not on_gpu or _AUTOTUNE_LEVEL in flags:
            return False
        self._environment["XLA_FLAGS"] = f"{flags} {_AUTOTUNE_LEVEL}=0".strip()
        self.results.data["about"]["tuning"] = f"none from {part.name} on, which took too long"
        return True

    def _run_part(self, part: plan.Part) -> bool:
        """Runs a part, if there is time; whether it was ended at its limit with nothing timed."""
        seconds = self._budget.limit(part.seconds, part.least)
        if seconds is None:
            print(f"{part.name}: not started, {self._budget.left:.0f} s left", flush=True)
            return False
        self.results.start(part.name)
        start, reason, is_late = time.monotonic(), "", False
        try:
            run_process(
                self._command(part),
                self._folder / f"{part.name.replace(':', '-')}.log",
                seconds,
                lambda measurement: self.results.add(part.name, measurement),
                self._environment,
            )
        except Failure as failure:
            reason, is_late = str(failure), isinstance(failure, OutOfTime)
        spent = time.monotonic() - start
        self.results.finish(part.name, spent, reason)
        print(f"{part.name}: {reason or 'done'} ({spent:.0f} s)", flush=True)
        self.write_table()
        return is_late and not self.results.parts[part.name]["measurements"]

    def _command(self, part: plan.Part) -> list[str]:
        arguments = self._arguments
        return [
            *(sys.executable, "-m", "benchmarks.accelerator.part", part.name),
            *("--programs", str(arguments.programs.resolve()), "--device", arguments.device),
            *("--size", arguments.size, "--seconds", str(arguments.seconds)),
            *("--flops", json.dumps(self._flops)),
        ]

    def write_table(self) -> None:
        """Writes results.md again."""
        (self._folder / "results.md").write_text(results.table(self.results), encoding="utf-8")


def _flops_by_part(folder: pathlib.Path, size: str) -> dict[str, float]:
    """Of one clip: what the exported programs say, for PyTorch's model of the same work."""
    flops = {}
    for name in programs.exported_names(folder):
        _, manifest = programs.read_program(folder, name)
        if manifest.size == size:
            flops[manifest.part] = manifest.flops / manifest.batch
    return flops


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    out = os.environ.get("OUT")
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="export.py's folder")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=out,
        required=out is None,
        help="folder for the results (default: $OUT)",
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts")
    parser.add_argument("--seconds", type=float, default=4.0, help="of repeats of a measurement")
    parser.add_argument("--batches", default="3,8,16,1", help="the most important first")
    parser.add_argument("--only", default="", help="parts by name, with commas; default: all")
    parser.add_argument("--resume", type=pathlib.Path, help="results.json of an earlier run")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--autotune_level", type=int, help="XLA's, 0 to 4; default: its own")
    return parser.parse_args(argv)


def main() -> int:
    """Runs the plan; exit status 0 if anything was measured."""
    arguments = parse()
    run = Run(arguments)
    if arguments.resume:
        print(f"{run.results.take_over(arguments.resume)} parts are done in {arguments.resume}")
    parts = plan.full_plan(tuple(int(batch) for batch in arguments.batches.split(",")))
    if arguments.only:
        parts = [plan.Part.from_name(name) for name in arguments.only.split(",")]
    run.probe()
    run.run(parts)
    run.write_table()
    print(results.table(run.results))
    return 0 if results.measurements(run.results) else 1


if __name__ == "__main__":
    sys.exit(main())
