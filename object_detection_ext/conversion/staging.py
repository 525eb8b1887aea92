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
import uuid
from collections.abc import Iterator, Mapping, Sequence

from object_detection_ext import files
from object_detection_ext.conversion import options as options_lib
from object_detection_ext.data import record_writer

_TEMPORARY, _PROGRESS, _PROBLEM, _STOP = ".being-written-", ".progress", ".problem", "stop"
_MANIFEST = "manifest.json"


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
    def opened(self) -> Iterator[None]:
        """Makes the folder for one run, which removes what a killed one left half-written.

        Raises:
          ConversionError: if another run is at work there (seen on local disks only).
        """
        self._files.makedirs(self.folder)
        with self._locked() if self.is_local else contextlib.nullcontext():
            for name in self._files.listdir(self.folder):
                if _TEMPORARY in name or name.endswith((_PROGRESS, _PROBLEM, _STOP)):
                    self._files.remove(self._path(name))
            yield

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
        """Returns the final files that are there: shards with this prefix and number, manifest."""
        return sorted(self._files.glob(self._options.shard_pattern)) + [
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
        folder = os.path.dirname(self._options.prefix)
        whole = all(
            self._size(os.path.join(folder, name)) == shard["bytes"]
            for name, shard in manifest["shards"].items()
        )
        return manifest if whole else None

    def publish(self, manifest: Mapping) -> None:
        """Gives everything its final name; goes on where an earlier try was stopped."""
        # With the manifest here, shards that are not may already have their final names.
        self._write(self._path(_MANIFEST), manifest)
        for index in range(self._options.num_shards):
            final = self._options.shard_path(index)
            staged = self._path(os.path.basename(final))
            if self._files.exists(staged):
                self._files.rename(staged, final)
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
            final = os.path.join(os.path.dirname(self._options.prefix), name)
            if not staged and not (published and self._size(final) == shard["bytes"]):
                return None
        return found

    def has_result(self, index: int) -> bool:
        """Whether a unit is finished, without a look at its shards."""
        return self._files.exists(self._path(f"unit-{index:05d}.json"))

    def drop_result(self, index: int) -> None:
        """Forgets a unit's result, such as one of another plan."""
        if self.has_result(index):
            self._files.remove(self._path(f"unit-{index:05d}.json"))

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

    def write_progress(self, index: int, keyframes: int) -> None:
        """Says how far an unfinished unit is; on local disks only, where it is cheap."""
        if self.is_local:
            with open(self._path(f"unit-{index:05d}{_PROGRESS}"), "w") as file:
                file.write(str(keyframes))

    def progress(self, index: int) -> int:
        """Returns how many keyframes of an unfinished unit are done, as far as it is known."""
        with contextlib.suppress(OSError, ValueError):
            if self.is_local:
                with open(self._path(f"unit-{index:05d}{_PROGRESS}")) as file:
                    return int(file.read())
        return 0

    @property
    def log_path(self) -> str | None:
        """Where local workers write what they have to say."""
        return self._path("workers.log") if self.is_local else None

    # --- Files ------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _size(self, path: str) -> int:
        return self._files.size(path) if self._files.exists(path) else -1

    def _read(self, path: str) -> dict | None:
        if not self._files.exists(path):
            return None
        with self._files.open(path, "r") as file:
            try:
                return json.loads(file.read())
            except ValueError:
                return None  # not ours, or damaged: as good as none

    def _write(self, path: str, content: Mapping) -> None:
        temporary = self._path(f"{os.path.basename(path)}{_TEMPORARY}{uuid.uuid4().hex}")
        with self._files.open(temporary, "w") as file:
            file.write(json.dumps(content, indent=1) + "\n")
        self._files.rename(temporary, path)
