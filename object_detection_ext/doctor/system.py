# SPDX-License-Identifier: Apache-2.0
"""The machine and the installation: what there is, and what is wrong with it.

Imports nothing that may be broken: each library is imported when it is looked at, and a failure is
a finding. What is read of the machine comes from a `Machine`, whose parts tests replace.
"""

import dataclasses
import importlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from object_detection_ext import devices, listing, machine, precision
from object_detection_ext.doctor.findings import ERROR, WARNING, Finding

_DISTRIBUTION = "object-detection-ext"
# Shown, in this order; what else is wrong with a version is a finding.
_SHOWN = {
    "this package": _DISTRIBUTION,
    "TensorFlow": "tensorflow",
    "tf-keras (Keras 2)": "tf-keras",
    "Object Detection API": "tf-models-research-object-detection",
    "protobuf": "protobuf",
    "NumPy": "numpy",
    "PyAV": "av",
    "OpenCV, headless": "opencv-python-headless",
    "OpenCV": "opencv-python",
    "Apache Beam": "apache-beam",
}
# Libraries with parts in C, or with an order of imports, that may be installed and not work.
_IMPORTED = ("numpy", "google.protobuf", "cv2", "av", "tensorflow")
_CPU_FEATURES = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", *precision.CPU_FLAGS)
_ARM_FEATURES = ("asimd", "bf16", "sve")
_X86 = ("x86_64", "AMD64", "i686")
_DECODERS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")
_GIB, _GB = 2**30, 10**9
# A training step of a full-size model, batch 1, takes 6.7 GiB (docs/benchmarks.md).
_MEMORY_OF_A_STEP, _LEAST_MEMORY = 8 * _GIB, 2 * _GIB
# Checkpoints of a full-size model with its optimizer take 0.16 GB each, of which seven are kept.
_DISK_OF_A_TRAINING, _LEAST_DISK = 5 * _GB, _GB // 2
_WIDTH = 100
_INSTALL = "make install (in a checkout), or pip install -c constraints.txt ."
_HEADLESS = "pip install --force-reinstall --no-deps opencv-python-headless"


def _installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements() -> tuple[str | None, list[str]]:
    """(the Python that this package wants, its requirements); nothing if it is not installed."""
    try:
        metadata = importlib.metadata.metadata(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return None, []
    return metadata["Requires-Python"], importlib.metadata.requires(_DISTRIBUTION) or []


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where everything is read from.

    Attributes:
        root: of the file system, for /proc, /sys and /dev.
        environment: variables of the process.
        architecture: as `platform.machine` has it.
        python: version of the interpreter.
        cpus: that this process may use.
        folders: of which the free disk is looked at, by what they are for.
        import_module: gives a module, or raises.
        installed: the version of a distribution, None if it is not installed.
        requirements: (specifier of Python's version or None, requirements of this package).
        disk_usage: of a folder: an object with `free`, in bytes.
    """

    root: pathlib.Path = pathlib.Path("/")
    environment: Mapping[str, str] = dataclasses.field(default_factory=lambda: os.environ)
    architecture: str = dataclasses.field(default_factory=platform.machine)
    python: str = dataclasses.field(default_factory=platform.python_version)
    cpus: int = dataclasses.field(default_factory=machine.usable_cpus)
    folders: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {
            "current folder": os.getcwd(),
            "temporary files": tempfile.gettempdir(),
        }
    )
    import_module: Callable[[str], ModuleType] = importlib.import_module
    installed: Callable[[str], str | None] = _installed_version
    requirements: Callable[[], tuple[str | None, list[str]]] = _requirements
    disk_usage: Callable[[str], Any] = shutil.disk_usage

    def text_of(self, path: str) -> str:
        """The text of a file below the root; nothing if it cannot be read."""
        try:
            return (self.root / path).read_text(errors="replace")
        except OSError:
            return ""

    @property
    def is_x86(self) -> bool:
        """Whether the CPU is one of Intel's or AMD's."""
        return self.architecture in _X86


@dataclasses.dataclass(frozen=True)
class SystemReport:
    """What there is, by topic and name, and what is wrong; errors first."""

    facts: Mapping[str, Mapping[str, Any]]
    findings: Sequence[Finding]

    def count(self, severity: str) -> int:
        """How many findings have this severity."""
        return sum(finding.severity == severity for finding in self.findings)


Part = tuple[dict[str, Any], list[Finding]]


def examine(source: Machine | None = None) -> SystemReport:
    """Looks at everything.

    Args:
        source: the machine; None for this one.
    """
    source = source or Machine()
    cpu, found = _look_at_cpu(source)
    modules, broken = _import_all(source)
    found += broken
    facts = {"versions": {}, "cpu": cpu}
    parts = {
        "versions": _look_at_versions(source),
        "devices": _look_at_devices(source, modules.get("tensorflow")),
        "oneDNN": _look_at_onednn(source, modules.get("tensorflow")),
        "memory": _look_at_memory(source),
        "disk": _look_at_disk(source),
        "ffmpeg": _look_at_ffmpeg(modules.get("av")),
    }
    for topic, (own, wrong) in parts.items():
        facts[topic] = own
        found += wrong
    found += _look_at_keras(modules.get("tensorflow")) + _look_at_opencv(modules.get("cv2"))
    # Sorting keeps the order of equals.
    return SystemReport(facts, sorted(found, key=lambda finding: finding.severity != ERROR))


def _fault(severity: str, code: str, about: str, message: str, advice: str, **more) -> Finding:
    return Finding(code, severity, about, message, advice, unit="faults", **more)


def _import_all(source: Machine) -> tuple[dict[str, ModuleType], list[Finding]]:
    modules, found = {}, []
    for name in _IMPORTED:
        if name == "tensorflow" and source.is_x86 and "avx" not in _cpu_flags(source):
            continue  # it would end this process; `_look_at_cpu` has said why
        try:
            modules[name] = source.import_module(name)
        except Exception as error:  # whatever a broken installation raises
            advice = _HEADLESS if name == "cv2" else _INSTALL
            message = f"import {name}: {type(error).__name__}: {error}"
            found.append(_fault(ERROR, "import_failed", name, message, advice))
    return modules, found


def _look_at_versions(source: Machine) -> Part:
    facts = {"Python": f"{source.python} ({sys.executable})"}
    for title, distribution in _SHOWN.items():
        facts[title] = source.installed(distribution) or "not installed"
    wanted_python, requirements = source.requirements()
    if not requirements:
        message = "its metadata is not there, so versions cannot be compared with its requirements"
        return facts, [_fault(WARNING, "package_not_installed", _DISTRIBUTION, message, _INSTALL)]
    found = list(_wrong_versions(source, requirements))
    from packaging.specifiers import SpecifierSet

    if wanted_python and source.python not in SpecifierSet(wanted_python, prereleases=True):
        message = f"Python is {source.python}, and this package needs {wanted_python}"
        advice = "make PYTHON=/path/to/python3.11 install"
        found.insert(0, _fault(ERROR, "python_version", "Python", message, advice))
    return facts, found


def _wrong_versions(source: Machine, requirements: Sequence[str]) -> Iterator[Finding]:
    from packaging.requirements import Requirement

    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = source.installed(requirement.name)
        if version is None:
            message = f"{requirement.name} is not installed"
            yield _fault(ERROR, "package_missing", requirement.name, message, _INSTALL)
        elif not requirement.specifier.contains(version, prereleases=True):
            message = f"it is {version}, and {requirement.name}{requirement.specifier} is needed"
            yield _fault(
                ERROR, "package_version", requirement.name, message, _INSTALL, value=version
            )


def _cpu_flags(source: Machine) -> set[str]:
    return precision.cpu_flags(source.text_of("proc/cpuinfo"))


def _look_at_cpu(source: Machine) -> Part:
    flags = _cpu_flags(source)
    known = _CPU_FEATURES if source.is_x86 else _ARM_FEATURES
    lines = source.text_of("proc/cpuinfo").splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    facts = {
        "model": next(models, source.architecture),
        "cores that may be used": source.cpus,
        "features": [name for name in known if name in flags],
        "not there": [name for name in known if name not in flags],
    }
    why_slow = precision.why_slow_on_cpu(source.text_of("proc/cpuinfo"), source.architecture)
    if why_slow:
        facts["bfloat16"] = f"slower than float32: {why_slow}"
    if not source.is_x86 or not flags:
        return facts, []
    if "avx" not in flags:
        message = "the CPU has no AVX, and TensorFlow's packages end at once without it"
        advice = "use another machine; a virtual machine may hide what its CPU has"
        return facts, [_fault(ERROR, "cpu_without_avx", "CPU", message, advice)]
    if "avx2" not in flags:
        message = "the CPU has no AVX2: convolutions are several times as slow"
        advice = "a virtual machine may hide what its CPU has"
        return facts, [_fault(WARNING, "cpu_without_avx2", "CPU", message, advice)]
    return facts, []


def _look_at_devices(source: Machine, tf: ModuleType | None) -> Part:
    driver, found = devices.find_driver(source.root), []
    facts: dict[str, Any] = {"NVIDIA driver": _driver_text(driver)}
    on_the_bus = _nvidia_gpus_on_the_bus(source)
    if on_the_bus and driver is None:
        message = f"{listing.counted(on_the_bus, 'NVIDIA GPU')} on the bus, and no driver"
        advice = (
            "install NVIDIA's driver (docs/gpu.md); in a container, give it the GPUs of its host "
            "(docker run --gpus all ...)"
        )
        found.append(_fault(WARNING, "gpu_without_driver", "GPU", message, advice))
    if tf is None:
        return facts, found
    seen = devices.find_devices(tf)
    facts["GPUs of TensorFlow"] = list(seen.gpus)
    growth, wrong = devices.set_memory_growth(tf, source.environment)
    if seen.gpus:
        facts["memory of GPUs"] = growth
    if devices.are_hidden(source.environment):
        value = source.environment[devices.VISIBLE_VARIABLE]
        facts["hidden by"] = f"{devices.VISIBLE_VARIABLE}={value!r}"
    if wrong:
        advice = f"unset {devices.GROWTH_VARIABLE}: memory grows by default"
        found.append(_fault(WARNING, "memory_growth_variable", "environment", wrong, advice))
    if devices.warn_of_unseen_gpus(tf, seen, driver, source.environment):
        message = f"{facts['NVIDIA driver']}, but TensorFlow sees no GPU and computes on the CPU"
        reasons = devices.why_not_seen(tf, driver, source.environment)
        advice = "; ".join(reasons) + " (docs/gpu.md)"
        found.append(_fault(WARNING, "gpu_not_seen", "GPU", message, advice))
    elif driver and driver.num_gpus and 0 < seen.num_physical_gpus < driver.num_gpus:
        message = f"TensorFlow sees {seen.num_physical_gpus} of {driver.num_gpus} GPUs"
        advice = (
            f"compare with {devices.VISIBLE_VARIABLE} and nvidia-smi; very old GPUs do not count"
        )
        found.append(_fault(WARNING, "fewer_gpus_seen", "GPU", message, advice))
    return facts, found


def _driver_text(driver: devices.Driver | None) -> str:
    if driver is None:
        return "none"
    return f"{driver.version or 'of unknown version'} ({', '.join(driver.files)})"


def _nvidia_gpus_on_the_bus(source: Machine) -> int:
    """How many display or compute controllers of NVIDIA the PCI bus has."""
    count = 0
    for folder in (source.root / "sys/bus/pci/devices").glob("*"):
        place = folder.relative_to(source.root)
        is_nvidia = source.text_of(f"{place}/vendor").strip() == "0x10de"
        count += is_nvidia and source.text_of(f"{place}/class").startswith("0x03")
    return count


def _look_at_onednn(source: Machine, tf: ModuleType | None) -> Part:
    value = source.environment.get("TF_ENABLE_ONEDNN_OPTS")
    is_on = (value or "").lower() in ("1", "true")
    facts = {"on": is_on, "TF_ENABLE_ONEDNN_OPTS": value}
    if is_on or not source.is_x86 or tf is None:
        return facts, []
    message = "oneDNN is off: the 3-D convolutions of a training step are several times as slow"
    advice = "unset TF_ENABLE_ONEDNN_OPTS: this package turns it on"
    return facts, [_fault(WARNING, "onednn_off", "environment", message, advice)]


def _look_at_keras(tf: ModuleType | None) -> list[Finding]:
    if tf is None:
        return []
    try:
        # Keras 2 beside this TensorFlow is a package of another name. (It has no `__version__`.)
        package = tf.keras.Model.__module__.partition(".")[0]
    except Exception as error:  # tf-keras is missing, or of another TensorFlow
        message = f"tf.keras: {type(error).__name__}: {error}"
        return [_fault(ERROR, "import_failed", "tf.keras", message, _INSTALL)]
    if package == "tf_keras":
        return []
    message = "tf.keras is Keras 3, and the Object Detection API works with Keras 2 (tf-keras) only"
    advice = "import object_detection_ext before tensorflow, or set TF_USE_LEGACY_KERAS=1"
    return [_fault(ERROR, "keras_3", "tf.keras", message, advice)]


def _look_at_opencv(cv2: ModuleType | None) -> list[Finding]:
    """OpenCV with windows needs the libraries of a desktop, which servers do not have."""
    if cv2 is None:
        return []
    lines = [line.split(":", 1) for line in cv2.getBuildInformation().splitlines() if ":" in line]
    kinds = [value.strip() for name, value in lines if name.strip() == "GUI"]
    if not kinds or kinds[0] in ("", "NONE"):
        return []
    message = (
        f"it is the build with windows ({kinds[0]}), which fails on machines without a desktop"
    )
    return [_fault(WARNING, "opencv_not_headless", "cv2", message, _HEADLESS)]


def _look_at_memory(source: Machine) -> Part:
    sizes = {}
    for line in source.text_of("proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            sizes[name] = int(value.split()[0]) * 1024
    total, available = sizes.get("MemTotal"), sizes.get("MemAvailable")
    limit = _memory_limit(source)
    usable = min(size for size in (total, limit, float("inf")) if size is not None)
    facts = {"total": total, "available": available, "limit of the container": limit}
    advice = "train with smaller clips or frames, on fewer cores, or on a machine with more"
    if usable < _MEMORY_OF_A_STEP:
        severity = ERROR if usable < _LEAST_MEMORY else WARNING
        message = (
            f"{_gib(usable)} may be used; a training step of a full-size model takes about 7 GiB"
        )
        return facts, [_fault(severity, "little_memory", "memory", message, advice)]
    if available is not None and available < _LEAST_MEMORY:
        message = f"{_gib(available)} of {_gib(total)} are free"
        return facts, [_fault(WARNING, "memory_in_use", "memory", message, "end other programs")]
    return facts, []


def _memory_limit(source: Machine) -> int | None:
    """Of the container, by either version of control groups; None for none."""
    for path in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = source.text_of(path).strip()
        if text.isdigit() and int(text) < 2**60:  # version 1 writes a huge number for none
            return int(text)
    return None


def _look_at_disk(source: Machine) -> Part:
    facts, found = {}, []
    for purpose, folder in source.folders.items():
        try:
            free = source.disk_usage(folder).free
        except OSError as error:
            advice = "give a folder that is there (TMPDIR for temporary files)"
            found.append(_fault(ERROR, "folder_not_readable", folder, str(error), advice))
            continue
        facts[purpose] = {"folder": folder, "free": free, "writable": os.access(folder, os.W_OK)}
        if not facts[purpose]["writable"]:
            message = f"the folder ({purpose}) may not be written"
            advice = "work in another folder (TMPDIR for temporary files)"
            found.append(_fault(WARNING, "folder_not_writable", folder, message, advice))
        if free < _DISK_OF_A_TRAINING:
            severity = ERROR if free < _LEAST_DISK else WARNING
            message = f"{free / _GB:.1f} GB are free ({purpose})"
            advice = (
                "free some: records take what the doctor estimates from the videos, a training of "
                "a full-size model keeps over 1 GB of checkpoints"
            )
            found.append(_fault(severity, "little_disk", folder, message, advice))
    return facts, found


def _look_at_ffmpeg(av: ModuleType | None) -> Part:
    if av is None:
        return {}, []
    facts = {
        name: ".".join(map(str, version)) for name, version in sorted(av.library_versions.items())
    }
    missing = [name for name in _DECODERS if name not in av.codecs_available]
    if not missing:
        return facts, []
    message = f"no decoder of {', '.join(missing)}: such videos cannot be read"
    advice = f"pip install --force-reinstall --no-deps av=={av.__version__} (its wheels have them)"
    return facts, [_fault(WARNING, "decoder_missing", "av", message, advice)]


def _gib(size: float) -> str:
    return f"{size / _GIB:.1f} GiB"


# --- For people -----------------------------------------------------------------------------------


def to_text(report: SystemReport) -> str:
    """The report for a terminal."""
    lines = []
    for topic, facts in report.facts.items():
        lines.append(topic)
        width = max(map(len, facts), default=0)
        lines += [f"  {name:<{width}}  {_fact_text(value)}" for name, value in facts.items()]
    for finding in report.findings:
        lines.append("")
        lines.append(f"{finding.severity:<9}{finding.code}: {finding.file}")
        lines += _wrap(finding.message, " " * 9)
        lines += _wrap(f"-> {finding.advice}", " " * 9)
    counts = ((report.count(ERROR), "error"), (report.count(WARNING), "warning"))
    texts = [listing.counted(count, word) for count, word in counts if count]
    verdict = f"Found {' and '.join(texts)}." if texts else "Nothing wrong was found."
    return "\n".join([*lines, "", verdict])


def _fact_text(value) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value > _GB // 1000:
        return _gib(value)
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, Mapping):
        return f"{value['free'] / _GB:.1f} GB free in {value['folder']}"
    return str(value)


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


# --- For machines ---------------------------------------------------------------------------------


def to_json(report: SystemReport) -> str:
    """The report as JSON: sizes in bytes; keys stay from version to version."""
    result = {
        "errors": report.count(ERROR),
        "warnings": report.count(WARNING),
        "findings": [finding.to_dict() for finding in report.findings],
        "system": {topic: dict(facts) for topic, facts in report.facts.items()},
    }
    return json.dumps(result, indent=1)


def run(as_json: bool) -> int:
    """Prints the report on this machine; returns the exit status, 1 with errors.

    Args:
        as_json: whether to print JSON.
    """
    # TensorFlow's own log would stand between the lines.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    report = examine()
    print(to_json(report) if as_json else to_text(report))
    return 1 if report.count(ERROR) else 0
