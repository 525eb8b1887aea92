# SPDX-License-Identifier: Apache-2.0
"""XLA's flags for the GPU run: the user's and some of its own, fewer where these do harm.

Needs the standard library alone.
"""

import pathlib

from benchmarks.accelerator import processes

_LEVEL = "--xla_gpu_autotune_level"
# Matrix products are a small part of the work; to tune XLA's own kernels for 200 of them takes
# minutes of compilation. The vendor's library does them.
_NO_TRITON = "--xla_gpu_enable_triton_gemm=false"


class XlaFlags:
    """The flags, which change after a failure.

    Args:
        users: XLA_FLAGS as the user has it.
        cache: folder in which tuned convolutions are kept for the next program, or None.
        level: of autotuning, 0 to 4; None leaves it to XLA and to `change_after`.
    """

    def __init__(self, users: str, cache: pathlib.Path | None, level: int | None = None):
        self._users = users.split()
        self._level = [] if level is None else [f"{_LEVEL}={level}"]
        self._own = [_NO_TRITON]
        if cache is not None:
            self._own.append(f"--xla_gpu_per_fusion_autotune_cache_dir={cache}")

    @property
    def text(self) -> str:
        """For the environment."""
        return " ".join([*self._own, *self._level, *self._users])

    def change_after(self, failure: processes.Failure) -> str:
        """Changes what may have been the reason of a failure; says what, empty for nothing.

        A program that compiles for too long is not tuned; nor are those after it, which would take
        as long. After another failure, except for lack of memory, this run's own flags are left
        out.
        """
        if isinstance(failure, processes.OutOfTime):
            if self._level or any(flag.startswith(_LEVEL) for flag in self._users):
                return ""
            self._level = [f"{_LEVEL}=0"]
            return "no autotuning"
        if processes.is_out_of_memory(str(failure)) or not self._own:
            return ""
        left_out, self._own = " ".join(self._own), []
        return f"without {left_out}"
