# SPDX-License-Identifier: Apache-2.0
"""What the GPU run measured: one JSON file that is whole at any time, and its table.

Needs the standard library alone.
"""

import json
import os
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# The paper's training on one V100: 3 clips a GPU, section 3.5.
PAPER_CLIPS_PER_SECOND = 2.5
AIM_OVER_PAPER = 10.0
AIM_OVER_PYTORCH = 1.5
_GIB = 2**30
# What must not differ between runs whose results are put together.
_SAME = ("device", "size")


class Results:
    """Measurements by part, in a file that is rewritten after each of them.

    A part is "done" with its measurements, "failed" with the reason, or "interrupted" because the
    minutes were over. One that is "running" when the file is read again was interrupted, too.
    """

    def __init__(self, path: pathlib.Path):
        """Reads the file, if it is there. ValueError for a file of another kind."""
        self._path = path
        self.data: dict[str, Any] = {"about": {}, "parts": {}}
        if path.exists():
            self.data = _read(path)

    @property
    def parts(self) -> dict[str, dict]:
        """{part: {"status", "seconds", "measurements", "reason"}}."""
        return self.data["parts"]

    def take_over(self, path: pathlib.Path) -> int:
        """Adds the parts of an earlier run's file; returns the number of the done ones.

        Raises:
            ValueError: for a file of another kind, or with another device or size.
        """
        earlier = _read(path)
        self.describe({key: earlier["about"][key] for key in _SAME if key in earlier["about"]})
        for name, part in earlier["parts"].items():
            self.parts.setdefault(name, {**part, "from": str(path)})
        self.save()
        return sum(is_done(part) for part in earlier["parts"].values())

    def describe(self, about: Mapping[str, str]) -> None:
        """Adds to what is said of the run.

        Raises:
            ValueError: if the results at hand were measured on another device, or in another size:
                one table cannot hold both.
        """
        for key in _SAME:
            before, now = self.data["about"].get(key), about.get(key)
            if before and now and before != now:
                raise ValueError(
                    f"{self._path}: its results are of {key} {before!r}, not {now!r}; name another "
                    "folder with --output."
                )
        self.data["about"].update(about)
        self.save()

    def is_done(self, name: str) -> bool:
        """Whether a part needs no run."""
        return name in self.parts and is_done(self.parts[name])

    def has_failed(self, name: str) -> bool:
        """Whether a part came to an end of its own, but not a good one."""
        return name in self.parts and self.parts[name].get("status") == "failed"

    def start(self, name: str) -> None:
        """A part begins; until it measures something, what an earlier try measured counts."""
        earlier = self.parts.get(name, {})
        kept = earlier.get("measurements") or earlier.get("earlier", [])
        self.parts[name] = {"status": "running", "measurements": []}
        if kept:
            self.parts[name]["earlier"] = kept
        self.save()

    def add(self, name: str, measurement: Mapping[str, Any]) -> None:
        """A part has measured something."""
        self.parts[name]["measurements"].append(dict(measurement))
        self.save()

    def finish(self, name: str, seconds: float, reason: str = "", is_cut: bool = False) -> None:
        """A part is over; a reason says that it failed, or was cut off for lack of time."""
        part = self.parts.setdefault(name, {"measurements": []})
        status = "interrupted" if is_cut else "failed" if reason else "done"
        part.update(status=status, seconds=round(seconds, 1))
        if reason:
            part["reason"] = reason
        self.save()

    def save(self) -> None:
        """Writes the file beside itself and puts it in place."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(self._path.name + ".partial")
        partial.write_text(json.dumps(self.data, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self._path)


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
        if not isinstance(data["about"], dict) or not isinstance(data["parts"], dict):
            raise TypeError("no object under 'about' and 'parts'")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no results of this benchmark: {error!r}") from error
    return data


def is_done(part: Mapping[str, Any]) -> bool:
    """Whether a part ran to its end."""
    return part.get("status") == "done"


class Budget:
    """The minutes that all parts together may take."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        """Seconds; not below 0."""
        return max(0.0, self._end - self._clock())

    def limit(self, wanted: float, least: float) -> float | None:
        """Seconds that a part may take; None if fewer than `least` are left, so not to start it."""
        return None if self.left < least else min(wanted, self.left)


def measurements(results: Results) -> list[dict[str, Any]]:
    """All measurements, with the part they belong to."""
    return [
        {"part": name, **measurement}
        for name, part in results.parts.items()
        for measurement in part.get("measurements") or part.get("earlier", ())
    ]


def matmul_rate(rows: Iterable[Mapping[str, Any]], dtype: str) -> float | None:
    """The card's best matrix products in this run, FLOP/s; None if not measured."""
    rates = [
        row["flops_per_second"]
        for row in rows
        if row.get("what") == "matmul" and row.get("dtype") == dtype
    ]
    return max(rates, default=None)


def best_rate(rows: Iterable[Mapping[str, Any]], what: str, batch: int, framework: str):
    """The measurement with the most clips a second; None if there is none."""
    fitting = [
        row
        for row in rows
        if (row.get("what"), row.get("batch"), row.get("framework")) == (what, batch, framework)
        and "clips_per_second" in row
    ]
    return max(fitting, key=lambda row: row["clips_per_second"], default=None)


def table(results: Results) -> str:
    """The measurements for people, in Markdown."""
    rows = [row for row in measurements(results) if "error" not in row]
    rate = matmul_rate(rows, "bf16")
    lines = [
        *_about_lines(results, rows),
        "| what | batch | how | ms | clips a second | peak GiB (planned) | share of the bf16 "
        "matmul rate | over PyTorch's best | compile s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    timed = [row for row in rows if "clips_per_second" in row]
    order = {"training": 0, "inference": 1, "trunk": 2}
    timed.sort(key=lambda row: (order.get(row["what"], 3), row["batch"], row["framework"]))
    for row in timed:
        lines.append(_table_line(row, rows, rate))
    lines += _stem_lines(rows)
    lines += ["", *_aim_lines(rows), *_failure_lines(results)]
    return "\n".join(lines) + "\n"


def _about_lines(results: Results, rows: list[dict]) -> list[str]:
    about = dict(results.data["about"])
    for row in rows:
        about.update(row.get("about", {}))
    lines = [f"- {key}: {value}" for key, value in about.items()]
    for row in rows:
        if row.get("what") == "matmul":
            lines.append(
                f"- {row['dtype']} matrix products of {row['size']}: "
                f"{row['flops_per_second'] / 1e12:.3g} TFLOP/s"
            )
        elif row.get("what") == "copy":
            lines.append(f"- copies on the device: {row['bytes_per_second'] / 1e12:.2f} TB/s")
    return [*lines, ""]


def _table_line(row: Mapping[str, Any], rows: list[dict], rate: float | None) -> str:
    best = best_rate(rows, row["what"], row["batch"], "pytorch")
    share = over = "-"
    if rate and row.get("flops"):
        share = f"{row['flops'] / row['seconds'] / rate:.1%}"
    if best and row["framework"] != "pytorch":
        over = f"{row['clips_per_second'] / best['clips_per_second']:.2f}"
    peak = "-"
    if row.get("peak_bytes"):
        peak = f"{row['peak_bytes'] / _GIB:.1f}"
        if row.get("planned_bytes"):
            peak += f" ({row['planned_bytes'] / _GIB:.1f})"
    built = f"{row['compile_seconds']:.0f}" if "compile_seconds" in row else "-"
    return (
        f"| {row['what']} | {row['batch']} | {row['framework']}, {row['variant']} "
        f"| {row['seconds'] * 1e3:.1f} | {row['clips_per_second']:.1f} | {peak} | {share} | {over} "
        f"| {built} |"
    )


def _stem_lines(rows: list[dict]) -> list[str]:
    stems = [row for row in rows if row.get("what") == "stem"]
    if not stems:
        return []
    lines = ["", "| stem | batch | forward, ms | forward and gradient, ms |", "|---|---|---|---|"]
    for row in stems:
        lines.append(
            f"| {row['variant']} | {row['batch']} | {row['forward_seconds'] * 1e3:.2f} "
            f"| {row['gradient_seconds'] * 1e3:.2f} |"
        )
    return lines


def _aim_lines(rows: list[dict]) -> list[str]:
    """How the training step stands to the aims, at every batch that was measured."""
    lines = []
    for batch in sorted({row["batch"] for row in rows if row.get("what") == "training"}):
        ours = best_rate(rows, "training", batch, "xla")
        theirs = best_rate(rows, "training", batch, "pytorch")
        if ours is None:
            continue
        speed = ours["clips_per_second"]
        over_paper = speed / PAPER_CLIPS_PER_SECOND
        line = (
            f"- training, batch {batch}: {over_paper:.1f} times the paper's "
            f"{PAPER_CLIPS_PER_SECOND} clips a second a GPU (aim {AIM_OVER_PAPER:.0f}: "
            f"{_met(over_paper >= AIM_OVER_PAPER)})"
        )
        if theirs:
            over = speed / theirs["clips_per_second"]
            line += (
                f"; {over:.2f} times PyTorch's best, {theirs['variant']} (aim {AIM_OVER_PYTORCH}: "
                f"{_met(over >= AIM_OVER_PYTORCH)})"
            )
        lines.append(line)
    return lines or ["- no exported training step was measured"]


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"


def _failure_lines(results: Results) -> list[str]:
    lines = []
    for name, part in results.parts.items():
        if not is_done(part):
            status = "interrupted" if part["status"] == "running" else part["status"]
            reason = part.get("reason", "the run was ended").strip().splitlines()[-1][:300]
            lines.append(f"- {name}: {status}: {reason}")
    for row in measurements(results):
        if "error" in row:
            lines.append(f"- {row['part']}, {row.get('variant', '')}: {row['error'][:300]}")
        if row.get("finite") is False:
            lines.append(f"- {row['part']}: its results are not finite; its time counts for little")
    not_started = results.data.get("not_started", [])
    if not_started:
        lines.append(f"- not started, for lack of time: {', '.join(not_started)}")
    return ["", "Not measured, or not as meant:", "", *lines] if lines else []
