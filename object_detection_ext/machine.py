# SPDX-License-Identifier: Apache-2.0
"""What this process may use of the machine."""

import os
import pathlib

_QUOTA_FILE = pathlib.Path("/sys/fs/cgroup/cpu.max")


def usable_cpus() -> int:
    """CPUs that this process may use, by affinity and by the container's quota; at least 1."""
    cpus = len(os.sched_getaffinity(0))
    if _QUOTA_FILE.is_file():
        quota, period = _QUOTA_FILE.read_text().split()
        if quota != "max":
            cpus = min(cpus, max(1, round(int(quota) / int(period))))
    return cpus


def is_running(process: int) -> bool:
    """Whether there is a process with this id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True
