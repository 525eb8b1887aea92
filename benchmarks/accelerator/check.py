# SPDX-License-Identifier: Apache-2.0
r"""Shows that exported programs, compiled by JAX's XLA on the CPU, give TensorFlow's numbers.

    python -m benchmarks.accelerator.check --programs programs [NAME ...]

runs every program that export.py wrote with --reference (and --exact, for the training step) on the
same drawn values, and compares each output with TensorFlow's: the norm of the difference over the
norm of TensorFlow's. New values of variables are compared by what they changed. Exit status 1 if an
output is off by more than the tolerance.
"""

import argparse
import pathlib
import sys
import time

import jax
import numpy as np

from benchmarks.accelerator import programs, xla_programs

_TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
_SEED = 0


def deviation(ours: np.ndarray, reference: np.ndarray, start: np.ndarray | None = None) -> float:
    """The norm of the difference over that of the reference (of its change from `start`)."""
    ours, reference = ours.astype(np.float64), reference.astype(np.float64)
    scale = np.linalg.norm(reference if start is None else reference - start)
    return float(np.linalg.norm(ours - reference) / max(scale, 1e-12))


def check(folder: pathlib.Path, name: str) -> tuple[dict[str, float], float, float]:
    """The deviation of every output, the seconds of compiling and those of a run."""
    text, manifest = programs.read_program(folder, name)
    path = programs.reference_path(folder, name)
    if not path.exists():
        raise programs.ProgramError(f"{path} is missing: export {name} with --reference.")
    reference = np.load(path)
    device = jax.devices("cpu")[0]
    executable = xla_programs.Executable(text, device)
    values = programs.draw_all(manifest.parameters, _SEED)
    arguments = xla_programs.put([values[row.name] for row in manifest.parameters], device)
    start = time.perf_counter()
    results = [np.asarray(result) for result in executable(arguments)]
    seconds = time.perf_counter() - start
    if len(results) != len(manifest.outputs):
        raise programs.ProgramError(
            f"{name} gives {len(results)} outputs, its manifest says {len(manifest.outputs)}."
        )
    deviations = {}
    for output, result in zip(manifest.outputs, results, strict=True):
        if result.shape != output.shape:
            raise programs.ProgramError(
                f"{name}: output {output.name!r} has shape {result.shape}, not {output.shape}."
            )
        old = values[output.updates].astype(np.float64) if output.updates else None
        deviations[output.name] = deviation(result, reference[output.name], old)
    return deviations, executable.compile_seconds, seconds


def report(folder: pathlib.Path, name: str) -> bool:
    """Checks a program, prints what came out; whether all of it is within the tolerance."""
    deviations, compile_seconds, seconds = check(folder, name)
    precision = "bf16" if "-bf16" in name else "fp32"
    worst = max(deviations, key=deviations.get)
    passed = all(value <= _TOLERANCE[precision] for value in deviations.values())
    print(
        f"{name}: {'agrees' if passed else 'DIFFERS'}; worst of {len(deviations)} outputs: "
        f"{deviations[worst]:.1e} ({worst}), median {np.median(list(deviations.values())):.1e}; "
        f"compiled in {compile_seconds:.1f} s, ran in {seconds:.1f} s",
        flush=True,
    )
    for output, value in deviations.items():
        if value > _TOLERANCE[precision]:
            print(f"  {output}: {value:.1e}")
    return passed


def main() -> int:
    """Checks the programs that are named, or all that have a reference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="export.py's folder")
    parser.add_argument("names", nargs="*", help="programs; without: all with a reference")
    arguments = parser.parse_args()
    xla_programs.enable_64_bits()
    names = arguments.names or [
        name
        for name in programs.exported_names(arguments.programs)
        if programs.reference_path(arguments.programs, name).exists()
    ]
    if not names:
        print(f"error: no program in {arguments.programs} has a reference", file=sys.stderr)
        return 2
    print(f"JAX {jax.__version__} on {jax.devices('cpu')[0]}")
    try:
        passed = [report(arguments.programs, name) for name in names]
    except programs.ProgramError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{sum(passed)} of {len(passed)} programs agree")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
