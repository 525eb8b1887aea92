# SPDX-License-Identifier: Apache-2.0
"""Exported programs: what they are called, what their parameters are, how these are drawn.

Needs the standard library and NumPy: the machine that times the programs has no TensorFlow, and
the one that exports them no JAX. Values are drawn by rule, so that no weights travel: the exporter
and the CPU check draw with NumPy and get the same numbers, a GPU draws its own.
"""

import dataclasses
import gzip
import json
import pathlib
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

SUFFIX = ".mlir.gz"

# What draws a parameter; the manifest names one for each.
NORMAL = "normal"  # mean, std
UNIFORM = "uniform"  # low, high
CONSTANT = "constant"  # value
INTEGERS = "integers"  # from low, below high
BOXES = "boxes"  # [B, G, 4] normalized [ymin, xmin, ymax, xmax]; the first `rows` of each clip
ROWS = "rows"  # [B, G]: 1 for the first `rows`, 0 for padding
K_HOT = "k_hot"  # [B, G, K]: one or two classes for each of the first `rows`
VALUES = "values"  # a list of them: small constants that the function captured
DRAWS = (NORMAL, UNIFORM, CONSTANT, INTEGERS, BOXES, ROWS, K_HOT, VALUES)


class ProgramError(Exception):
    """A program or its manifest that cannot be used; the text says which and why."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a program.

    Attributes:
        name: unique in the program: an argument's name, or a variable's.
        shape: of the array.
        dtype: NumPy's name of it.
        role: "input" (changes with each call), "weight" (trained), "statistic" (not trained),
            "state" (the optimizer's) or "constant" (a few numbers).
        draw: one of `DRAWS` under "kind", and its numbers.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str
    draw: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        """Size of the array."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class Output:
    """A result of a program.

    Attributes:
        name: unique in the program.
        shape: of the array.
        dtype: NumPy's name of it.
        updates: the parameter whose new value it is; empty for a result proper.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    updates: str = ""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What is known of a program.

    Attributes:
        name: of the program and its files.
        part: "trunk", "inference" (to boxes and scores of all proposals), "detections" (to those
            that are left of them) or "training".
        size: "full" or "tiny".
        batch: clips in a call.
        precision: "fp32" or "bf16".
        exact: whether nothing in it is random, so that two runs give the same numbers.
        multiply_adds: of one clip's forward pass.
        parameters: in the program's order.
        outputs: in the program's order.
        versions: of what exported it.
    """

    name: str
    part: str
    size: str
    batch: int
    precision: str
    exact: bool
    multiply_adds: float
    parameters: tuple[Parameter, ...]
    outputs: tuple[Output, ...]
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def flops(self) -> float:
        """Floating-point operations of a call.

        Two for each multiply-add; training counts three forward passes: one forward, one for the
        gradients of the activations, one for those of the weights.
        """
        passes = 3 if self.part == "training" else 1
        return 2.0 * self.multiply_adds * self.batch * passes

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> "Manifest":
        """The manifest of a file.

        Raises:
            ProgramError: for a text that is not a manifest.
        """
        try:
            fields = json.loads(text)
            fields["parameters"] = tuple(
                Parameter(**{**row, "shape": tuple(row["shape"])}) for row in fields["parameters"]
            )
            fields["outputs"] = tuple(
                Output(**{**row, "shape": tuple(row["shape"])}) for row in fields["outputs"]
            )
            manifest = cls(**fields)
        except (ValueError, TypeError, KeyError) as error:
            raise ProgramError(f"{source} is no manifest of a program: {error}") from error
        manifest.check(source)
        return manifest

    def check(self, source: str) -> None:
        """Whether parameters and outputs agree.

        Raises:
            ProgramError: for a name that is there twice, an update of another shape or of no
                parameter, or a way of drawing that does not exist.
        """
        by_name = {}
        for parameter in self.parameters:
            if by_name.setdefault(parameter.name, parameter) is not parameter:
                raise ProgramError(f"{source}: two parameters are called {parameter.name!r}.")
            if parameter.draw.get("kind") not in DRAWS:
                raise ProgramError(
                    f"{source}: {parameter.name!r} is drawn by {parameter.draw.get('kind')!r}; it "
                    f"must be one of: {', '.join(DRAWS)}."
                )
        for output in self.outputs:
            if not output.updates:
                continue
            target = by_name.get(output.updates)
            if target is None:
                raise ProgramError(f"{source}: output {output.name!r} updates no parameter.")
            if (target.shape, target.dtype) != (output.shape, output.dtype):
                raise ProgramError(
                    f"{source}: output {output.name!r}, {output.dtype} {output.shape}, cannot "
                    f"update {target.name!r}, {target.dtype} {target.shape}."
                )

    def next_arguments(self, arguments: list, results: list) -> list:
        """The arguments of the next call: those of this one with what it updated.

        Args:
            arguments: one for each parameter.
            results: one for each output.
        """
        places = {parameter.name: place for place, parameter in enumerate(self.parameters)}
        arguments = list(arguments)
        for output, result in zip(self.outputs, results, strict=True):
            if output.updates:
                arguments[places[output.updates]] = result
        return arguments


def program_name(part: str, size: str, batch: int, precision: str, exact: bool = False) -> str:
    """The name of a program and its files, such as "training-full-b3-bf16"."""
    return f"{part}-{size}-b{batch}-{precision}" + ("-exact" if exact else "")


def manifest_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Where a program's manifest is."""
    return folder / f"{name}.json"


def program_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Where a program's text is."""
    return folder / f"{name}{SUFFIX}"


def reference_path(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Where TensorFlow's results are; they stay on the machine that exported."""
    return folder / "reference" / f"{name}.npz"


def read_program(folder: pathlib.Path, name: str) -> tuple[str, Manifest]:
    """A program's StableHLO text and its manifest.

    Raises:
        ProgramError: if either is missing or damaged.
    """
    path, manifest = program_path(folder, name), manifest_path(folder, name)
    try:
        text = gzip.decompress(path.read_bytes()).decode()
        fields = manifest.read_text("utf-8")
    except FileNotFoundError as error:
        raise ProgramError(f"{error.filename} is missing: export it with export.py.") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ProgramError(f"{path} cannot be read: {error}") from error
    return text, Manifest.from_json(fields, str(manifest))


def exported_names(folder: pathlib.Path) -> list[str]:
    """The programs in a folder."""
    names = (path.name.removesuffix(SUFFIX) for path in folder.glob(f"*{SUFFIX}"))
    return sorted(name for name in names if manifest_path(folder, name).is_file())


_PACKED_BOOLEANS = re.compile(r'dense<"0x([0-9A-Fa-f]+)"> : tensor<((?:\d+x)+)i1>')


def with_wide_booleans(text: str) -> str:
    """The program with boolean constants as one byte each.

    MLIR wrote them with 8 to a byte up to TensorFlow 2.19's version, and reads a byte each since.
    """

    def widen(match: re.Match) -> str:
        number = int(np.prod([int(size) for size in match[2].split("x")[:-1]]))
        packed = np.frombuffer(bytes.fromhex(match[1]), np.uint8)
        if packed.size != -(-number // 8):
            return match[0]  # not packed
        wide = np.unpackbits(packed, count=number, bitorder="little").tobytes().hex().upper()
        return f'dense<"0x{wide}"> : tensor<{match[2]}i1>'

    return _PACKED_BOOLEANS.sub(widen, text)


# Ops that name code of one device or talk to the host, and shapes that are not known.
_BOUND_TO_A_DEVICE = re.compile(
    r"(?:stablehlo|mhlo|chlo)\.(?:custom_call|infeed|outfeed|send|recv|composite)\b|"
    r"tensor<(?:\d+x)*\?[^>]*>"
)


def check_portable(text: str, name: str) -> None:
    """Whether a program exported on a CPU can be compiled for any device.

    Raises:
        ProgramError: if it calls something outside the program, or has a shape that is not static.
    """
    found = sorted(set(_BOUND_TO_A_DEVICE.findall(text)))
    if found:
        raise ProgramError(f"{name} is bound to the device that exported it: {', '.join(found)}.")


def draw_all(parameters: Iterable[Parameter], seed: int) -> dict[str, np.ndarray]:
    """Every parameter's value by NumPy, see `draw`."""
    return {parameter.name: draw(parameter, seed) for parameter in parameters}


def draw(parameter: Parameter, seed: int) -> np.ndarray:
    """The value of a parameter: depends on its name, its rule and the seed, and on nothing else.

    Raises:
        ProgramError: for a rule that does not exist.
    """
    rng = np.random.default_rng([seed, zlib.crc32(parameter.name.encode())])
    rule, shape = parameter.draw, parameter.shape
    match rule["kind"]:
        case "normal":
            value = rng.normal(rule["mean"], rule["std"], shape)
        case "uniform":
            value = rng.uniform(rule["low"], rule["high"], shape)
        case "constant":
            value = np.full(shape, rule["value"])
        case "integers":
            value = rng.integers(rule["low"], rule["high"], shape)
        case "boxes":
            value = _boxes(rng.uniform(size=shape), int(rule["rows"]))
        case "rows":
            value = np.broadcast_to(np.arange(shape[-1]) < rule["rows"], shape)
        case "k_hot":
            value = _k_hot(rng.integers(0, shape[-1], (*shape[:-1], 2)), shape, int(rule["rows"]))
        case "values":
            value = np.reshape(rule["values"], shape)
        case kind:
            raise ProgramError(f"{parameter.name!r} is drawn by {kind!r}, which does not exist.")
    return np.asarray(value).astype(parameter.dtype)


def _boxes(numbers: np.ndarray, rows: int) -> np.ndarray:
    """Boxes from numbers in [0, 1): corners in the upper left half, sides of 0.2 to 0.5."""
    corner = numbers[..., :2] * 0.5
    boxes = np.concatenate([corner, corner + 0.2 + 0.3 * numbers[..., 2:]], axis=-1)
    boxes[..., rows:, :] = 0.0
    return boxes


def _k_hot(classes: np.ndarray, shape: tuple[int, ...], rows: int) -> np.ndarray:
    """[B, G, K] with the one or two classes of [B, G, 2] for each of the first rows."""
    hot = np.zeros(shape)
    for index in range(classes.shape[-1]):
        np.put_along_axis(hot, classes[..., index : index + 1], 1.0, axis=-1)
    hot[..., rows:, :] = 0.0
    return hot
