# SPDX-License-Identifier: Apache-2.0
"""The parts of the GPU run, the most important first, and what each may take.

Needs the standard library alone.
"""

import dataclasses
from collections.abc import Iterator

KINDS = ("card", "xla", "torch", "torch_compile", "stem")
WHATS = ("training", "inference", "trunk")


@dataclasses.dataclass(frozen=True)
class Part:
    """One process of the run.

    Attributes:
        kind: "card" (the device's own rates), "xla" (an exported program), "torch" (PyTorch,
            eager), "torch_compile" or "stem".
        what: "training", "inference" or "trunk"; empty for card and stem.
        batch: clips in a call; 0 for card.
        precision: of an exported program; PyTorch's parts measure all theirs.
        seconds: that it may take.
        least: seconds that must be left to start it.
    """

    kind: str
    what: str = ""
    batch: int = 0
    precision: str = ""
    seconds: float = 60.0
    least: float = 20.0

    @property
    def name(self) -> str:
        """Unique in a plan, such as "xla:training:b3:bf16"."""
        batch = f"b{self.batch}" if self.batch else ""
        return ":".join(filter(None, (self.kind, self.what, batch, self.precision)))

    @classmethod
    def from_name(cls, name: str) -> "Part":
        """The part of a name. ValueError for a name of no part."""
        fields = {}
        kind, *rest = name.split(":")
        if kind not in KINDS:
            raise ValueError(f"{name!r} is no part: it must begin with one of: {', '.join(KINDS)}.")
        for field in rest:
            if field in WHATS:
                fields["what"] = field
            elif field in ("bf16", "fp32"):
                fields["precision"] = field
            elif field[:1] == "b" and field[1:].isdigit():
                fields["batch"] = int(field[1:])
            else:
                raise ValueError(f"{name!r} is no part: what is {field!r}?")
        seconds = 180.0 if kind in ("xla", "torch_compile") else 60.0
        return cls(kind, **fields, seconds=seconds)


def full_plan(batches: tuple[int, ...] = (3, 8, 16, 1)) -> list[Part]:
    """All parts, the most important first.

    The paper's batch is 3 clips a GPU; with `batches` its first stands for it. PyTorch's step comes
    before the exported one, whose compilation may take minutes, and may have to be done twice: see
    run.py. In 8 minutes the three are done even then.
    """
    first, *others = batches
    parts = [
        Part("card", seconds=40),
        Part("torch", "training", first, seconds=80),
        _xla("training", first, seconds=200),
        Part("torch_compile", "training", first, seconds=150, least=60),
    ]
    for batch in others[:1]:
        parts += [_xla("training", batch), Part("torch", "training", batch, seconds=60)]
    parts += [
        _xla("inference", first, seconds=150),
        Part("torch", "inference", first, seconds=45),
        _xla("trunk", first, seconds=120),
        Part("torch", "trunk", first, seconds=45),
        Part("stem", batch=first, seconds=45),
        _xla("training", first, "fp32"),
    ]
    parts += _rest(others, set(parts))
    return parts


def _xla(what: str, batch: int, precision: str = "bf16", seconds: float = 180) -> Part:
    return Part("xla", what, batch, precision, seconds=seconds, least=45 if batch else 30)


def _rest(others: list[int], planned: set[Part]) -> Iterator[Part]:
    """The other batches, training first."""
    for what in WHATS:
        for batch in others:
            for part in (_xla(what, batch), Part("torch", what, batch, seconds=60)):
                if part not in planned:
                    yield part


def program_of(part: Part, size: str) -> str:
    """The exported program that an "xla" part runs."""
    return f"{part.what}-{size}-b{part.batch}-{part.precision}"
