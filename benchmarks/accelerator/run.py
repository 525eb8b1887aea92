# SPDX-License-Identifier: Apache-2.0
r"""Measures the exported programs and PyTorch's model on a GPU: the one command.

    python -m benchmarks.accelerator.run --programs programs --output results --minutes 8

Needs JAX and PyTorch with CUDA, the programs of export.py, no TensorFlow and no network. The parts
(see plan.py) run one after the other, the most important first, each in a process of its own with
its own time limit; one that fails is recorded and the next one runs. results.json is whole after
every measurement, and a second run into the same folder, or with --resume results.json, measures
only what is not done, what failed before last. results.md has the table, which is also printed;
log.txt has all that the parts print.
"""

import argparse
import json
import os
import pathlib
import sys
import time

from benchmarks.accelerator import plan, processes, programs, results, xla_flags

_PROBE = (
    "import json, jax; d = jax.devices()[0]; "
    "print('RESULT ' + json.dumps({'jax': jax.__version__, 'device': d.device_kind}))"
)
_PROBE_SECONDS = 60.0
# A dry run's limits are this much longer: CPUs emulate bfloat16, and compile on few cores.
_CPU_FACTOR = 4.0


class Run:
    """One run of the plan."""

    def __init__(self, arguments: argparse.Namespace):
        self._arguments = arguments
        self._folder = arguments.output
        self._folder.mkdir(parents=True, exist_ok=True)
        self.results = results.Results(self._folder / "results.json")
        self._budget = results.Budget(arguments.minutes * 60.0)
        self._flags = xla_flags.XlaFlags(
            os.environ.get("XLA_FLAGS", ""),
            _cache(arguments.programs) if arguments.device == "gpu" else None,
            arguments.autotune_level,
        )
        self._environment = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "1",
            "PYTHONUNBUFFERED": "1",
            "JAX_TRACEBACK_FILTERING": "off",
        }
        # Peak memory is what is used, whatever is reserved. JAX refuses both of its names together.
        if "XLA_CLIENT_MEM_FRACTION" not in os.environ:
            self._environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")
        if arguments.device == "cpu":
            # A dry run: threads that wait for each other's cores would take all its time.
            self._environment.update(JAX_PLATFORMS="cpu", OMP_NUM_THREADS="1")
        self._exported = set(programs.exported_names(arguments.programs))
        self._flops = _flops_by_part(arguments.programs, arguments.size)

    def probe(self) -> None:
        """Records JAX's version and device; leaves out XLA flags that this version does not know.

        Raises:
            ValueError: if the results at hand were measured on another device, or in another size.
        """
        found: dict[str, str] = {"size": self._arguments.size}
        try:
            self._ask(found)
        except processes.Failure as failure:
            found["probe failed"] = str(failure)[:300]
            if not isinstance(failure, processes.OutOfTime) and self._flags.change_after(failure):
                try:
                    self._ask(found)
                except processes.Failure:
                    pass  # the first one's reason is kept
        self.results.describe({**found, "XLA_FLAGS": self._flags.text or "none"})

    def _ask(self, found: dict[str, str]) -> None:
        processes.run_process(
            [sys.executable, "-c", _PROBE],
            self._log("probe"),
            _PROBE_SECONDS,
            found.update,
            {**self._environment, "XLA_FLAGS": self._flags.text},
        )

    def _log(self, heading: str) -> pathlib.Path:
        # One file: a folder of results is small enough to be copied whole.
        path = self._folder / "log.txt"
        with path.open("a", encoding="utf-8") as file:
            file.write(f"\n== {heading}, {self._budget.left:.0f} s left\n")
        return path

    def run(self, parts: list[plan.Part]) -> None:
        """Runs the parts that are not done, as long as there is time.

        Those that failed before come last: they may fail again, and take as long.
        """
        self.results.data["not_started"] = []
        for part in sorted(parts, key=lambda part: self.results.has_failed(part.name)):
            if self.results.is_done(part.name):
                print(f"{part.name}: done before", flush=True)
                continue
            failure = self._run_part(part)
            if failure is not None and self._is_worth_a_change(part, failure):
                self._run_part(part)
        self.write_table()

    def _is_worth_a_change(self, part: plan.Part, failure: processes.Failure) -> bool:
        """Whether an exported program that gave nothing is to be tried again, with other flags."""
        nothing = not self.results.parts[part.name]["measurements"]
        if part.kind != "xla" or self._arguments.device != "gpu" or not nothing:
            return False
        change = self._flags.change_after(failure)
        if change:
            self.results.describe({f"from {part.name} on": change})
        return bool(change)

    def _run_part(self, part: plan.Part) -> processes.Failure | None:
        """Runs a part, if there is time; gives its failure."""
        program = plan.program_of(part, self._arguments.size) if part.kind == "xla" else None
        if program is not None and program not in self._exported:
            self._finish(part, 0.0, f"{program} is not in {self._arguments.programs}: export it")
            return None
        wanted = part.seconds * (1.0 if self._arguments.device == "gpu" else _CPU_FACTOR)
        seconds = self._budget.limit(wanted, part.least)
        if seconds is None:
            print(f"{part.name}: not started, {self._budget.left:.0f} s left", flush=True)
            self.results.data["not_started"].append(part.name)
            return None
        self.results.start(part.name)
        start, failure = time.monotonic(), None
        try:
            self._measure(part, seconds)
        except processes.Failure as caught:
            failure = caught
        is_cut = isinstance(failure, processes.OutOfTime) and seconds < wanted
        self._finish(part, time.monotonic() - start, str(failure or ""), is_cut)
        return failure

    def _finish(self, part: plan.Part, spent: float, reason: str, is_cut: bool = False) -> None:
        self.results.finish(part.name, spent, reason, is_cut)
        print(f"{part.name}: {reason or 'done'} ({spent:.0f} s)", flush=True)
        self.write_table()

    def _measure(self, part: plan.Part, seconds: float) -> None:
        processes.run_process(
            self._command(part),
            self._log(part.name),
            seconds,
            lambda measurement: self.results.add(part.name, measurement),
            {**self._environment, "XLA_FLAGS": self._flags.text},
        )

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


def _cache(folder: pathlib.Path) -> pathlib.Path | None:
    """Where XLA keeps what it tuned: beside the programs, or nowhere if that is read-only."""
    cache = (folder / "autotuned").resolve()
    try:
        cache.mkdir(exist_ok=True)
    except OSError:
        return None
    return cache


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
    """Runs the plan; exit status 0 if anything was measured, 2 for what cannot be run."""
    arguments = parse()
    try:
        run, parts = prepare(arguments)
    except (ValueError, programs.ProgramError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    run.run(parts)
    print(results.table(run.results))
    return 0 if results.measurements(run.results) else 1


def prepare(arguments: argparse.Namespace) -> tuple[Run, list[plan.Part]]:
    """All that comes before the first part.

    Raises:
        ValueError: for no programs, unknown parts, or results of something else.
    """
    parts = plan.full_plan(tuple(int(batch) for batch in arguments.batches.split(",")))
    if arguments.only:
        parts = [plan.Part.from_name(name) for name in arguments.only.split(",")]
    if not programs.exported_names(arguments.programs):
        raise ValueError(f"{arguments.programs} holds no programs: make them with export.py.")
    run = Run(arguments)
    if arguments.resume:
        print(f"{run.results.take_over(arguments.resume)} parts are done in {arguments.resume}")
    run.probe()
    return run, parts


if __name__ == "__main__":
    sys.exit(main())
