# SPDX-License-Identifier: Apache-2.0
"""Which devices TensorFlow computes on, how it takes their memory, and GPUs that it does not see.

TensorFlow takes the whole memory of every GPU when it first uses one, so that an evaluation beside
a training finds none left. Here memory grows as needed. TensorFlow's own environment variable,
TF_FORCE_GPU_ALLOW_GROWTH, still decides where it is set, in both directions.

Nothing here imports TensorFlow or starts a device: what looks at the machine takes the module, the
environment and the root of the file system as arguments.
"""

import dataclasses
import importlib.metadata
import os
import pathlib
import re
import sys
from collections.abc import Mapping
from types import ModuleType

from object_detection_ext import listing, machine

GROWTH_VARIABLE = "TF_FORCE_GPU_ALLOW_GROWTH"
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
INSTALL_COMMAND = (
    "make install EXTRAS=dev,gpu (in a checkout), or pip install 'object-detection-ext[gpu]'"
)
# The one of TensorFlow's CUDA libraries that nothing else installs.
_CUDA_PACKAGE = "nvidia-cudnn-cu12"
# The first driver that runs programs of CUDA 12 (NVIDIA's table of minor version compatibility).
_OLDEST_DRIVER = (525, 60, 13)

TRAINING, EVALUATION, EXPORT, INFERENCE = "training", "evaluation", "export", "inference"

_printed: set[str] = set()


@dataclasses.dataclass(frozen=True)
class Driver:
    """NVIDIA's driver, as its files show it.

    Attributes:
        version: such as "535.129.03"; None if its file is missing or says something else.
        files: the files that were found.
        num_gpus: how many GPUs have a device file here; None under WSL, which has one for all.
    """

    version: str | None
    files: tuple[str, ...]
    num_gpus: int | None

    @property
    def has_devices(self) -> bool:
        """Whether a process may reach a GPU. In a container without GPUs it may not."""
        return self.num_gpus is None or self.num_gpus > 0


def find_driver(root: pathlib.Path = pathlib.Path("/")) -> Driver | None:
    """NVIDIA's driver; None if none of its files is there.

    Args:
        root: of the file system.
    """
    version_file = root / "proc/driver/nvidia/version"
    gpus = sorted(
        path for path in root.glob("dev/nvidia*") if re.fullmatch(r"nvidia\d+", path.name)
    )
    wsl = [root / "usr/lib/wsl/lib/libcuda.so.1"] if (root / "dev/dxg").exists() else []
    found = [path for path in (version_file, *gpus, *wsl) if path.exists()]
    if not found:
        return None
    is_wsl = bool(wsl) and wsl[0] in found
    return Driver(
        _driver_version(version_file),
        tuple("/" + str(path.relative_to(root)) for path in found),
        None if is_wsl and not gpus else len(gpus),
    )


def _driver_version(path: pathlib.Path) -> str | None:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return None
    match = re.search(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)*)\s", text, re.MULTILINE)
    return match[1] if match else None


@dataclasses.dataclass(frozen=True)
class Devices:
    """What TensorFlow sees.

    Attributes:
        gpus: names of the visible GPUs.
        num_physical_gpus: of all that TensorFlow finds.
        cpus: that this process may use.
    """

    gpus: tuple[str, ...]
    num_physical_gpus: int
    cpus: int


def find_devices(tf: ModuleType) -> Devices:
    """The devices; starts none of them.

    Args:
        tf: TensorFlow.
    """
    gpus = tf.config.get_visible_devices("GPU")
    return Devices(
        tuple(_gpu_name(tf, gpu) for gpu in gpus),
        len(tf.config.list_physical_devices("GPU")),
        machine.usable_cpus(),
    )


def _gpu_name(tf: ModuleType, gpu) -> str:
    try:
        name = tf.config.experimental.get_device_details(gpu).get("device_name")
    except (ValueError, tf.errors.OpError):
        name = None
    return name or gpu.name.removeprefix("/physical_device:")


def set_memory_growth(tf: ModuleType, environment: Mapping[str, str]) -> tuple[str, str | None]:
    """Lets the memory of the visible GPUs grow, unless the user has decided otherwise.

    Must be called before TensorFlow starts the GPUs: afterwards nothing changes any more.

    Args:
        tf: TensorFlow.
        environment: of the process.

    Returns:
        (how memory is taken, a warning or None).
    """
    warning = None
    wanted = environment.get(GROWTH_VARIABLE)
    if wanted in ("true", "false"):
        # TensorFlow reads the variable itself.
        return f"{_growth_text(wanted == 'true')} ({GROWTH_VARIABLE}={wanted})", None
    if wanted is not None:
        warning = (
            f"{GROWTH_VARIABLE} is {wanted!r}, which TensorFlow ignores; it can be 'true' or "
            "'false'."
        )
    return _grow(tf), warning


def _grow(tf: ModuleType) -> str:
    gpus = tf.config.get_visible_devices("GPU")
    given = [tf.config.experimental.get_memory_growth(gpu) for gpu in gpus]
    if False in given:
        return f"{_growth_text(False)} (as this program has set it)"
    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        return "memory is taken as it was set when TensorFlow started its GPUs"
    except ValueError:
        return "memory is divided into the logical devices that this program has set"
    return _growth_text(True)


def _growth_text(grows: bool) -> str:
    return "memory grows as needed" if grows else "all memory is taken at once"


def why_not_seen(
    tf: ModuleType,
    driver: Driver,
    environment: Mapping[str, str],
    *,
    has_cuda_libraries: bool | None = None,
) -> list[str]:
    """Why TensorFlow may not see the GPU of a driver, each with what to do.

    Args:
        tf: TensorFlow.
        driver: of the machine.
        environment: of the process.
        has_cuda_libraries: whether those of the extra [gpu] are installed; None looks.
    """
    if has_cuda_libraries is None:
        has_cuda_libraries = _is_installed(_CUDA_PACKAGE)
    reasons = []
    if not driver.has_devices:
        reasons.append(
            "the driver is loaded, but no device such as /dev/nvidia0 is here: start a container "
            "with its GPUs (docker run --gpus all ...)"
        )
    if not tf.sysconfig.get_build_info().get("is_cuda_build", False):
        reasons.append(
            "this TensorFlow is built without CUDA; the one for Linux on x86_64 is built with it: "
            f"{INSTALL_COMMAND}"
        )
    elif not has_cuda_libraries:
        reasons.append(f"TensorFlow's CUDA libraries are missing: {INSTALL_COMMAND}")
    if driver.version and _numbers(driver.version) < _OLDEST_DRIVER:
        reasons.append(
            f"the driver is {driver.version}, and CUDA 12 needs "
            f"{'.'.join(map(str, _OLDEST_DRIVER))} or later: install a newer driver"
        )
    if visible := environment.get(VISIBLE_VARIABLE):
        reasons.append(f"{VISIBLE_VARIABLE} is {visible!r}: take it away, or name a GPU")
    if not reasons:
        reasons.append(
            "the CUDA libraries are installed; TensorFlow's own log says why it cannot use them "
            "(TF_CPP_MIN_LOG_LEVEL=0). To install them again: " + INSTALL_COMMAND
        )
    return reasons


def are_hidden(environment: Mapping[str, str]) -> bool:
    """Whether the user hides all GPUs from CUDA, which is no fault."""
    visible = environment.get(VISIBLE_VARIABLE)
    # CUDA takes the numbers before the first one that is wrong.
    return visible is not None and visible.strip().split(",")[0] in ("", "-1", "NoDevFiles")


def warn_of_unseen_gpus(
    tf: ModuleType, devices: Devices, driver: Driver | None, environment: Mapping[str, str], **given
) -> str | None:
    """What to say of an NVIDIA GPU that TensorFlow does not see; None if all is well.

    Args:
        tf: TensorFlow.
        devices: that it sees.
        driver: of the machine; None if it has none.
        environment: of the process.
        **given: as in `why_not_seen`.
    """
    if driver is None or devices.num_physical_gpus or are_hidden(environment):
        return None
    reasons = why_not_seen(tf, driver, environment, **given)
    version = f" {driver.version}" if driver.version else ""
    return (
        f"this machine has an NVIDIA driver{version} ({', '.join(driver.files)}), but TensorFlow "
        f"sees no GPU and computes on the CPU: {'; '.join(reasons)}. "
        "(docs/gpu.md; python -m object_detection_ext.tools.doctor --system shows more.)"
    )


def describe(
    devices: Devices,
    growth: str,
    environment: Mapping[str, str],
    *,
    work: str = TRAINING,
    use_tpu: bool = False,
) -> str:
    """One line: the devices that are used, and how their memory is taken.

    Args:
        devices: that TensorFlow sees.
        growth: from `set_memory_growth`.
        environment: of the process.
        work: TRAINING uses all GPUs, the others use the first.
        use_tpu: whether the work goes to a TPU.
    """
    cpu = f"CPU, {listing.counted(devices.cpus, 'core')}"
    count = len(devices.gpus)
    if use_tpu:
        return f"devices: TPU (--use_tpu), and {cpu}"
    if not count:
        hidden = ""
        if are_hidden(environment):
            hidden = f" ({VISIBLE_VARIABLE}={environment[VISIBLE_VARIABLE]!r} hides them)"
        return f"devices: {cpu}; no GPU{hidden}"
    if count == 1:
        text = f"1 GPU ({devices.gpus[0]})"
    elif work == TRAINING:
        text = f"{count} GPUs ({', '.join(devices.gpus)})"
    else:
        text = f"the first of {count} GPUs ({devices.gpus[0]}), as {work} uses one"
    return f"devices: {text}; {growth}"


def set_up(
    tf: ModuleType,
    environment: Mapping[str, str],
    work: str,
    *,
    use_tpu: bool = False,
    root: pathlib.Path = pathlib.Path("/"),
) -> list[str]:
    """Sets memory growth; returns the line on devices, and warnings.

    Args:
        tf: TensorFlow, before it has started a GPU.
        environment: of the process.
        work: TRAINING, EVALUATION, EXPORT or INFERENCE.
        use_tpu: whether the work goes to a TPU.
        root: of the file system.
    """
    devices = find_devices(tf)
    growth, warning = set_memory_growth(tf, environment)
    lines = [describe(devices, growth, environment, work=work, use_tpu=use_tpu)]
    if warning and devices.gpus:
        lines.append(f"warning: {warning}")
    unseen = None
    if not use_tpu:
        unseen = warn_of_unseen_gpus(tf, devices, find_driver(root), environment)
    return lines + ([f"warning: {unseen}"] if unseen else [])


def announce(work: str, *, use_tpu: bool = False) -> None:
    """Sets up this process and prints what `set_up` returns, each line once in a process.

    Args:
        work: TRAINING, EVALUATION, EXPORT or INFERENCE.
        use_tpu: whether the work goes to a TPU.
    """
    import tensorflow as tf

    for line in set_up(tf, os.environ, work, use_tpu=use_tpu):
        if line not in _printed:
            _printed.add(line)
            print(line, file=sys.stderr, flush=True)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
