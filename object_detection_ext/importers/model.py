# SPDX-License-Identifier: Apache-2.0
"""What every importer returns: videos with marked people, as the annotation file has them."""

import collections
import dataclasses
import pathlib
from collections.abc import Hashable, Mapping, Sequence

from object_detection_ext import errors

# How many faults of one kind a message lists.
MAX_LISTED = 20

# Frames of the longest video: more than a day at 120 a second.
MAX_FRAMES = 20_000_000

PIXELS, PERCENT, FRACTION = "pixels", "percent", "fraction"


class ImportFault(errors.InputError):
    """An annotation file that cannot be used; the message names the file, the place and why."""


@dataclasses.dataclass(slots=True)
class Mark:
    """One person on one frame.

    Attributes:
        box: (x1, y1, x2, y2), x to the right and y down, in the unit of its video.
        actions: names of what the person does; empty if nothing is marked.
        where: of the file, for messages: a line number or a few words.
        frame: counted from 0; None if `seconds` says the moment.
        seconds: from the start of the video; None if `frame` says the moment.
        person: the same for the same person on other frames of the video; None if unknown.
        rotation: degrees clockwise around the upper left corner, of which `box` is the unrotated
            rectangle.
    """

    box: tuple[float, float, float, float]
    actions: tuple[str, ...]
    where: int | str
    frame: int | None = None
    seconds: float | None = None
    person: Hashable | None = None
    rotation: float = 0.0

    @property
    def place(self) -> str:
        """`where` in words."""
        return f"line {self.where}" if isinstance(self.where, int) else self.where


@dataclasses.dataclass(slots=True)
class SourceVideo:
    """A video as the annotation file describes it.

    Attributes:
        name: as the file has it, with or without folder and extension.
        file: the annotation file, for messages.
        unit: of the marks' boxes: PIXELS, PERCENT or FRACTION.
        width: in pixels as shown; None if the file does not say.
        height: as `width`.
        num_frames: of the whole video; None if the file does not say.
        count_may_be_less: whether the video may have more frames than `num_frames`.
        rate: frames per second at which the file counts, where it has a rate of its own, whatever
            the video's; None if its frames are those of the video.
        marks: the people.
        listed: the frames that were looked through, with people or without; None if unknown.
    """

    name: str
    file: str
    unit: str = PIXELS
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    count_may_be_less: bool = False
    rate: float | None = None
    marks: list[Mark] = dataclasses.field(default_factory=list)
    listed: Sequence[int] | None = None


@dataclasses.dataclass(slots=True)
class Source:
    """Everything an importer found.

    Attributes:
        videos: in the file's order.
        labels: action names in the file's order, also those without an example.
        notes: what was changed or left out, in words, with its number.
        splits: by number, the training and the validation videos' names, where the file has them.
    """

    videos: list[SourceVideo] = dataclasses.field(default_factory=list)
    labels: list[str] = dataclasses.field(default_factory=list)
    notes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    splits: Mapping[int, tuple[frozenset[str], frozenset[str]]] = dataclasses.field(
        default_factory=dict
    )

    def add_labels(self, names) -> None:
        """Adds action names that are not there yet."""
        known = set(self.labels)
        for name in names:
            if name not in known:
                known.add(name)
                self.labels.append(name)


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How importers read.

    Attributes:
        attributes: names of the attributes that hold actions; empty chooses by their kind.
        person_attribute: of VIA, the attribute that says who a person is.
        first_frame: of COCO, the number of a video's first frame.
    """

    attributes: tuple[str, ...] = ()
    person_attribute: str | None = None
    first_frame: int = 0


def read_bytes(path: str) -> bytes:
    """Reads an annotation file.

    Raises:
        ImportFault: if it cannot be read, or is empty.
    """
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImportFault(f"{path}: the annotation file cannot be read: {reason}.") from error
    if not content:
        raise ImportFault(f"{path}: the annotation file is empty.")
    return content


def raise_faults(faults: Sequence[str], title: str) -> None:
    """Raises an error that lists faults, the first 20 in words, if there are any.

    Raises:
        ImportFault: if there is one.
    """
    if not faults:
        return
    lines = [f"{title} ({len(faults)}):", *(f"  {fault}" for fault in faults[:MAX_LISTED])]
    if len(faults) > MAX_LISTED:
        lines.append(f"  ... and {len(faults) - MAX_LISTED} more")
    raise ImportFault("\n".join(lines))
