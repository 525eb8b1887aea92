# SPDX-License-Identifier: Apache-2.0
"""Where records are until all of them are whole.

`PREFIX.incomplete/` holds the finished shards of an unfinished conversion, each unit's result, and
what is being written, under names of its own. Only when everything is there do the shards get their
final names, and `PREFIX-manifest.json` last of all. So a half-written shard is never taken for a
whole one, records of an earlier conversion stay until new ones replace them, and a killed run goes
on where it was.

Paths may be local or anything that TensorFlow can write to (`gs://...`).
"""

import contextlib
import fcntl
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from object_detection_ext import files, json_text
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.data import record_writer

_TEMPORARY, _PROGRESS, _PROBLEM, _STOP = ".being-written-", ".progress", ".problem", "stop"
_MANIFEST = "manifest.json"
_UNIT_RESULT = re.compile(r"unit-(?P<index>\d+)\.json")


class AtWork(NamedTuple):
    """A video that is being converted, in words, and the id of the process that does it."""

    video: str
    process: int


class Staging:
    """The files of one split's conversion."""

    def __init__(self, options: options_lib.Options):
        """Names the files; touches none."""
        self._options = options
        self.folder = f"{options.prefix}.incomplete"
        self.manifest_path = f"{options.prefix}-{_MANIFEST}"
        self.is_local = files.is_local(options.prefix)
        self._files = files.system_of(options.prefix)

    # --- The whole conversion ---------------------------------------------------------------------

    @contextlib.contextmanager
    def opened(self) -> Iterator[Sequence[AtWork]]:
        """Makes the folder for one run, which removes what a killed one left half-written.

        Yields:
          What the killed run was at.

        Raises:
          ConversionError: if another run is at work there (seen on local disks only).
        """
        self._files.makedirs(self.folder)
        with self._locked() if self.is_local else contextlib.nullcontext():
            at_work = self.at_work()
            for name in self._files.listdir(self.folder):
                if _TEMPORARY in name or name.endswith((_PROGRESS, _PROBLEM, _STOP)):
                    self._files.remove(self._path(name))
            yield at_work

    @contextlib.contextmanager
    def _locked(self):
        with open(self._path("lock"), "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise options_lib.ConversionError(
                    f"Another conversion is writing {self._options.shard_pattern} at this moment. "
                    "Wait for it, or give another --output."
                ) from None
            yield

    def existing(self) -> list[str]:
        """Returns the final files that are there: shards of this prefix, of any number; manifest.

        Readers match shards by `PREFIX-?????-of-?????`: those of another number are in the way too.
        """
        folder, base = os.path.split(self._options.prefix)
        shard = re.compile(re.escape(base) + r"-\d{5}-of-\d{5}")
        names = []
        if self._files.exists(folder or "."):
            names = sorted(n for n in self._files.listdir(folder or ".") if shard.fullmatch(n))
        return [self._final(name) for name in names] + [
            p for p in [self.manifest_path] if self._files.exists(p)
        ]

    def manifest(self) -> dict | None:
        """Returns the manifest of a finished conversion, None if there is none."""
        return self._read(self.manifest_path)

    def finished_manifest(self, fingerprint: str) -> dict | None:
        """Returns the manifest of a finished conversion with this fingerprint, its files whole."""
        manifest = self.manifest()
        if manifest is None or manifest.get("fingerprint") != fingerprint:
            return None
        shards = manifest["shards"].items()
        whole = all(self._size(self._final(name)) == shard["bytes"] for name, shard in shards)
        return manifest if whole else None

    def is_publishing(self, fingerprint: str) -> bool:
        """Whether a run of the conversion with this fingerprint began to give final names."""
        return (self._read(self._path(_MANIFEST)) or {}).get("fingerprint") == fingerprint

    def rewrite_manifest(self, manifest: Mapping) -> None:
        """Replaces the manifest of finished records."""
        self._write(self.manifest_path, manifest)

    def publish(self, manifest: Mapping) -> None:
        """Gives everything its final name; goes on where an earlier try was stopped."""
        # With the manifest here, shards that are not may already have their final names.
        self._write(self._path(_MANIFEST), manifest)
        count = self._options.num_shards
        names = [os.path.basename(self._options.shard_path(index)) for index in range(count)]
        left = [name for name in names if self._files.exists(self._path(name))]
        # Records of another conversion go before the first of the new ones comes, their manifest
        # first of all: never do both stand together, or some under a manifest that is not theirs.
        for path in reversed(self.existing()):
            if os.path.basename(path) not in names or os.path.basename(path) in left:
                self._files.remove(path)
        for name in left:
            self._files.rename(self._path(name), self._final(name))
        self._files.rename(self._path(_MANIFEST), self.manifest_path)
        self._files.rmtree(self.folder)

    def discard(self) -> None:
        """Removes the folder with all that is in it."""
        if self._files.exists(self.folder):
            self._files.rmtree(self.folder)

    # --- Units ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def shard_writers(self, shards: Sequence[int]):
        """Opens a unit's shards under temporary names; they get staged ones when the body succeeds.

        Yields:
          A function that writes a record to the shard at an index of `shards`.

        Raises:
          OSError: if a shard is shorter than what was written, as on a full disk.
        """
        staged = [self._path(os.path.basename(self._options.shard_path(i))) for i in shards]
        temporary = [f"{path}{_TEMPORARY}{uuid.uuid4().hex}" for path in staged]
        try:
            with contextlib.ExitStack() as stack:
                writers = [
                    stack.enter_context(record_writer.RecordWriter(path)) for path in temporary
                ]
                yield lambda index, record: writers[index].write(record)
            for path, writer in zip(temporary, writers, strict=True):
                if self._size(path) != writer.num_bytes:
                    raise OSError(
                        f"{path} has {self._size(path)} bytes in place of {writer.num_bytes}"
                    )
            for source, target in zip(temporary, staged, strict=True):
                self._files.rename(source, target)
        finally:
            for path in temporary:
                if self._files.exists(path):
                    self._files.remove(path)

    def shard_sizes(self, shards: Sequence[int]) -> dict[str, int]:
        """Returns the bytes of staged shards by their names."""
        names = [os.path.basename(self._options.shard_path(index)) for index in shards]
        return {name: self._size(self._path(name)) for name in names}

    def write_result(self, index: int, result: Mapping) -> None:
        """Says that a unit is finished."""
        self._write(self._path(f"unit-{index:05d}.json"), result)

    def result(self, index: int, fingerprint: str) -> dict | None:
        """Returns the result of a finished unit with this fingerprint, its shards whole."""
        found = self._read(self._path(f"unit-{index:05d}.json"))
        if found is None or found.get("fingerprint") != fingerprint:
            return None
        published = self._files.exists(self._path(_MANIFEST))
        for name, shard in found["shards"].items():
            staged = self._size(self._path(name)) == shard["bytes"]
            final = published and self._size(self._final(name)) == shard["bytes"]
            if not staged and not final:
                return None
        return found

    def finished_units(self) -> set[int]:
        """Returns the numbers of units that have a result, without a look at their shards."""
        matches = map(_UNIT_RESULT.fullmatch, self._files.listdir(self.folder))
        return {int(match["index"]) for match in matches if match}

    def drop_result(self, index: int) -> None:
        """Forgets a unit's result, such as one of another plan."""
        path = self._path(f"unit-{index:05d}.json")
        if self._files.exists(path):
            self._files.remove(path)

    def write_problem(self, index: int, problem: str) -> None:
        """Says why a unit could not be finished; tells all workers to begin nothing more."""
        self._write(self._path(f"unit-{index:05d}{_PROBLEM}"), {"problem": problem})
        self._write(self._path(_STOP), {})

    def problems(self) -> list[str]:
        """Returns why units could not be finished, in words."""
        names = sorted(n for n in self._files.listdir(self.folder) if n.endswith(_PROBLEM))
        return [self._read(self._path(name))["problem"] for name in names]

    def stopped(self) -> bool:
        """Whether a worker failed, so that the others need not go on."""
        return self._files.exists(self._path(_STOP))

    def write_progress(self, index: int, keyframes: int, video: str) -> None:
        """Says how far this process is with a unit, and at which video, in words."""
        content = {"keyframes": keyframes, "video": video, "process": os.getpid()}
        with self._files.open(self._path(f"unit-{index:05d}{_PROGRESS}"), "w") as file:
            file.write(json.dumps(content))

    def progress(self, index: int) -> int:
        """Returns how many keyframes of an unfinished unit are done, 0 if that is not known.

        On local disks only, where a look is cheap.
        """
        found = self._progress(f"unit-{index:05d}{_PROGRESS}") if self.is_local else None
        return found["keyframes"] if found else 0

    def at_work(self) -> list[AtWork]:
        """Returns the videos that are being converted, or were when a run was stopped."""
        finished = {f"unit-{index:05d}{_PROGRESS}" for index in self.finished_units()}
        names = sorted(n for n in self._files.listdir(self.folder) if n.endswith(_PROGRESS))
        found = [self._progress(name) for name in names if name not in finished]
        return [AtWork(each["video"], each["process"]) for each in found if each]

    def _progress(self, name: str) -> dict | None:
        try:
            return self._read(self._path(name))
        except files.errors():
            return None  # it was removed meanwhile

    @property
    def log_path(self) -> str | None:
        """Where local workers write what they have to say."""
        return self._path("workers.log") if self.is_local else None

    # --- Files ------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _final(self, name: str) -> str:
        return os.path.join(os.path.dirname(self._options.prefix), name)

    def _size(self, path: str) -> int:
        return self._files.size(path) if self._files.exists(path) else -1

    def _read(self, path: str) -> dict | None:
        if not self._files.exists(path):
            return None
        with self._files.open(path, "r") as file:
            try:
                return json_text.parsed(file.read())
            except ValueError:
                return None  # not ours, or damaged: as good as none

    def _write(self, path: str, content: Mapping) -> None:
        temporary = f"{path}{_TEMPORARY}{uuid.uuid4().hex}"
        with self._files.open(temporary, "w") as file:
            file.write(json.dumps(content, indent=1) + "\n")
        self._files.rename(temporary, path)
