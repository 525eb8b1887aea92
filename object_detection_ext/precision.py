# SPDX-License-Identifier: Apache-2.0
"""The precision that trunk and head compute in, and whether this machine is fast in bfloat16.

Nothing here imports TensorFlow: what looks at the machine takes what it looks at as arguments.
"""

import pathlib
import platform
from collections.abc import Callable
from types import ModuleType

from object_detection_ext import errors, printable

FLOAT32, BFLOAT16 = "float32", "bfloat16"
NAMES = (FLOAT32, BFLOAT16)

# Instructions that multiply bfloat16 numbers, as /proc/cpuinfo calls them on x86.
CPU_FLAGS = ("avx512_bf16", "amx_bf16")
_EXTENSION = "object_detection_ext.protos.video_action_transformer"
# Without it oneDNN leaves bfloat16 to TensorFlow's own kernels.
_ONEDNN_FLAG = "avx512f"
_X86 = ("x86_64", "AMD64", "i686")
# The first compute capability (Ampere's) that multiplies bfloat16 numbers.
_OLDEST_CAPABILITY = (8, 0)
# Of the trunk on a CPU that has AVX2 only (docs/benchmarks.md, "Precision").
MEASURED_SLOWDOWN = "32"

_warned: set[str] = set()


def checked(name: str) -> str:
    """The precision of this name, in any case.

    Raises:
        errors.InputError: if there is none.
    """
    if not isinstance(name, str) or name.lower() not in NAMES:
        shown = printable.in_one_line(str(name))
        raise errors.InputError(f"precision must be {' or '.join(NAMES)}, not {shown!r}.")
    return name.lower()


def check_exported(path: str, exported: str | None, wanted: str) -> None:
    """Checks that an exported model has the precision that is wanted of it.

    Args:
        path: of the SavedModel, for messages.
        exported: its precision; None if it does not say.
        wanted: a precision's name, in any case.

    Raises:
        errors.InputError: if it has another, which cannot be changed any more.
    """
    wanted = checked(wanted)
    if exported is None:
        raise errors.InputError(
            f"{path}: the model does not say its precision, so that {wanted} cannot be promised; "
            "leave precision out."
        )
    if exported != wanted:
        raise errors.InputError(
            f"{path}: the model was exported in {exported}, which is part of its graph, so that "
            f"precision cannot be {wanted} any more. Export the checkpoint again, with "
            f"exporter_main_v2 --config_override '[{_EXTENSION}] {{ compute {{ precision: "
            f"{wanted.upper()} }} }}', or use the checkpoint itself: "
            f"ActionDetector.from_checkpoint(..., precision={wanted!r})."
        )


def cpu_flags(cpuinfo: str) -> set[str]:
    """The flags of all CPUs in the text of /proc/cpuinfo; empty if it does not list them."""
    flags = set()
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            flags |= set(value.split())
    return flags


def why_slow_on_cpu(cpuinfo: str, architecture: str) -> str | None:
    """Why bfloat16 is slow on this CPU; None if it is not, or if that cannot be known.

    Args:
        cpuinfo: the text of /proc/cpuinfo, empty where there is none.
        architecture: as `platform.machine` has it.
    """
    flags = cpu_flags(cpuinfo) if architecture in _X86 else set()
    if not flags or flags & set(CPU_FLAGS):
        return None
    reason = (
        f"this CPU has no bfloat16 instructions ({', '.join(CPU_FLAGS)}) and emulates them; on "
        f"such a CPU the I3D trunk took {MEASURED_SLOWDOWN} times as long as in float32 "
        "(docs/benchmarks.md)"
    )
    if _ONEDNN_FLAG not in flags:
        reason += (
            "; without AVX-512 TensorFlow also sums the gradients of convolutions in bfloat16, so "
            "do not train in it"
        )
    return reason


def why_slow_on_gpus(tf: ModuleType) -> str | None:
    """Why bfloat16 is slow on one of the visible GPUs; None if it is not, or is not known.

    Args:
        tf: TensorFlow.
    """
    for gpu in tf.config.get_visible_devices("GPU"):
        try:
            details = tf.config.experimental.get_device_details(gpu)
        except (ValueError, tf.errors.OpError):
            continue
        capability = details.get("compute_capability")
        if capability is not None and tuple(capability) < _OLDEST_CAPABILITY:
            return (
                f"{details.get('device_name', gpu.name)} (compute capability "
                f"{'.'.join(map(str, capability))}) has no bfloat16 instructions, which begin with "
                f"{'.'.join(map(str, _OLDEST_CAPABILITY))} (Ampere): TensorFlow converts to "
                "float32 and back around every operation"
            )
    return None


def why_slow(
    tf: ModuleType,
    root: pathlib.Path = pathlib.Path("/"),
    architecture: str | None = None,
) -> str | None:
    """Why bfloat16 is slow where TensorFlow computes; None if it is not, or is not known.

    Args:
        tf: TensorFlow.
        root: of the file system.
        architecture: of the CPU; None for this machine's.
    """
    if tf.config.get_visible_devices("GPU"):
        return why_slow_on_gpus(tf)
    try:
        cpuinfo = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return None
    return why_slow_on_cpu(cpuinfo, architecture or platform.machine())


def warn_if_slow(tf: ModuleType, say: Callable[[str], None]) -> None:
    """Says once in a process why bfloat16 is slow where it computes, if it is.

    Args:
        tf: TensorFlow.
        say: takes the warning.
    """
    reason = why_slow(tf)
    # Models are built again for each part of a training.
    if reason and reason not in _warned:
        _warned.add(reason)
        say(f"warning: precision bfloat16: {reason}; float32 is faster here.")
