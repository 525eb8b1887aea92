# SPDX-License-Identifier: Apache-2.0
"""The doctor on machines and installations that are not here, on this one, and on a broken one."""

import json
import os
import pathlib
import subprocess
import sys
import types

import pytest
from absl import flags

from object_detection_ext import devices, precision
from object_detection_ext.doctor import system
from object_detection_ext.tools import doctor
from tests import fake_tensorflow as fakes

GIB = 2**30
REQUIREMENTS = [
    "numpy<2.2,>=2.0",
    "protobuf==5.29.6",
    "opencv-python-headless>=4.8",
    "tensorflow[and-cuda]==2.19.1; extra == 'gpu'",
]
VERSIONS = {
    "numpy": "2.1.3",
    "protobuf": "5.29.6",
    "opencv-python-headless": "5.0.0.93",
    "opencv-python": "5.0.0.93",
    "tensorflow": "2.19.1",
}


def _cv2(gui="NONE"):
    text = f"General configuration\n  GUI:                           {gui}\n  QT:   NO\n"
    return types.SimpleNamespace(getBuildInformation=lambda: text)


def _av(without=()):
    codecs = {"h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg"} - set(without)
    return types.SimpleNamespace(
        __version__="18.1.0",
        codecs_available=codecs,
        library_versions={"libavcodec": (62, 28, 102)},
    )


class _Computer:
    """A machine without a fault, whose parts a test replaces."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.modules = {
            "numpy": None,
            "google.protobuf": None,
            "cv2": _cv2(),
            "av": _av(),
            "tensorflow": fakes.fake_tensorflow(),
        }
        self.versions = dict(VERSIONS)
        self.options = {
            "environment": {"TF_ENABLE_ONEDNN_OPTS": "1"},
            "architecture": "x86_64",
            "python": "3.11.7",
            "cpus": 2,
            "folders": {"current folder": str(root)},
        }
        self.free = 100 * 10**9
        self.cpu("sse avx avx2 fma")
        self.write("proc/meminfo", f"MemTotal: {16 * 2**20} kB\nMemAvailable: {12 * 2**20} kB\n")

    def write(self, path, text):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def cpu(self, features):
        self.write("proc/cpuinfo", f"model name\t: A CPU\nflags\t\t: {features}\n")

    def examine(self) -> system.SystemReport:
        def import_module(name):
            if isinstance(self.modules[name], Exception):
                raise self.modules[name]
            return self.modules[name]

        source = system.Machine(
            root=self.root,
            import_module=import_module,
            installed=self.versions.get,
            requirements=self.options.pop("requirements", lambda: (">=3.11,<3.12", REQUIREMENTS)),
            disk_usage=lambda folder: types.SimpleNamespace(free=self.free),
            **self.options,
        )
        return system.examine(source)

    def only_finding(self):
        (finding,) = self.examine().findings
        return finding


@pytest.fixture
def computer(tmp_path) -> _Computer:
    return _Computer(tmp_path)


@pytest.fixture(autouse=True)
def _no_cuda_libraries(monkeypatch):
    monkeypatch.setattr(devices, "_is_installed", lambda package: False)


def test_a_machine_without_a_fault(computer):
    report = computer.examine()
    assert list(report.findings) == []
    assert report.facts["versions"]["protobuf"] == "5.29.6"
    assert report.facts["versions"]["Apache Beam"] == "not installed"
    assert report.facts["cpu"] == {
        "model": "A CPU",
        "cores that may be used": 2,
        "features": ["avx", "avx2", "fma"],
        "not there": ["avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16"],
        "bfloat16": f"slower than float32: {precision.why_slow_on_cpu('flags : avx', 'x86_64')}",
    }
    assert report.facts["devices"] == {"NVIDIA driver": "none", "GPUs of TensorFlow": []}
    assert report.facts["oneDNN"]["on"]
    assert report.facts["memory"]["total"] == 16 * GIB
    assert report.facts["disk"]["current folder"]["free"] == 100 * 10**9
    assert report.facts["ffmpeg"] == {"libavcodec": "62.28.102"}
    assert system.to_text(report).endswith("\n\nNothing wrong was found.")


# ------------------------------------------------------------------------------------------------
# Each fault alone


def _found(computer, severity, code, *parts):
    finding = computer.only_finding()
    assert (finding.severity, finding.code) == (severity, code)
    text = f"{finding.file}: {finding.message} -> {finding.advice}"
    for part in parts:
        assert part in text, text
    return finding


def test_python_of_another_version(computer):
    computer.options["python"] = "3.12.1"
    _found(computer, "error", "python_version", "3.12.1, and this package needs >=3.11,<3.12")


def test_a_version_that_is_not_the_pinned_one(computer):
    computer.versions["protobuf"] = "4.25.3"
    finding = _found(computer, "error", "package_version", "4.25.3, and protobuf==5.29.6 is needed")
    assert finding.value == "4.25.3"


def test_a_package_that_is_missing_and_one_of_an_extra_that_is_not_asked_for(computer):
    del computer.versions["opencv-python-headless"], computer.versions["tensorflow"]
    _found(computer, "error", "package_missing", "opencv-python-headless is not installed", "make")


def test_a_package_that_is_not_installed_itself(computer):
    computer.options["requirements"] = lambda: (None, [])
    _found(computer, "warning", "package_not_installed", "cannot be compared")


def test_opencv_without_the_libraries_of_a_desktop(computer):
    computer.modules["cv2"] = ImportError("libGL.so.1: cannot open shared object file")
    _found(computer, "error", "import_failed", "cv2", "libGL.so.1", "opencv-python-headless")


def test_opencv_with_windows(computer):
    computer.modules["cv2"] = _cv2("QT5")
    _found(computer, "warning", "opencv_not_headless", "QT5", "opencv-python-headless")


@pytest.mark.parametrize("name", ["av", "tensorflow", "google.protobuf", "numpy"])
def test_a_library_that_cannot_be_imported(computer, name):
    computer.modules[name] = RuntimeError("it is broken")
    _found(computer, "error", "import_failed", f"import {name}: RuntimeError: it is broken")


def test_keras_3(computer):
    computer.modules["tensorflow"] = fakes.fake_tensorflow(keras="keras.src.models.model")
    _found(computer, "error", "keras_3", "Keras 2 (tf-keras) only", "TF_USE_LEGACY_KERAS=1")


def test_keras_2_that_is_missing(computer):
    tensorflow = computer.modules["tensorflow"]
    del tensorflow.keras.Model
    _found(computer, "error", "import_failed", "tf.keras")


def test_a_cpu_without_avx_is_said_without_importing_tensorflow(computer):
    """Importing it would end the process with SIGILL."""
    computer.cpu("sse sse2")
    computer.modules["tensorflow"] = AssertionError("TensorFlow was imported")
    _found(computer, "error", "cpu_without_avx", "TensorFlow's packages end at once")


def test_a_cpu_without_avx2(computer):
    computer.cpu("sse avx")
    _found(computer, "warning", "cpu_without_avx2", "slow")


def test_a_cpu_of_arm_has_other_features(computer):
    computer.options["architecture"] = "aarch64"
    computer.options["environment"] = {}
    computer.write("proc/cpuinfo", "Features\t: fp asimd bf16\n")
    report = computer.examine()
    assert list(report.findings) == []
    assert report.facts["cpu"]["features"] == ["asimd", "bf16"]
    assert "bfloat16" not in report.facts["cpu"]


def test_a_cpu_with_bfloat16_instructions(computer):
    computer.cpu("sse avx avx2 fma avx512_bf16")
    assert "bfloat16" not in computer.examine().facts["cpu"]


@pytest.mark.parametrize("environment", [{}, {"TF_ENABLE_ONEDNN_OPTS": "0"}])
def test_onednn_that_is_off(computer, environment):
    computer.options["environment"] = environment
    _found(computer, "warning", "onednn_off", "several times as slow")


def test_a_gpu_that_is_not_seen(computer):
    fakes.write_driver(computer.root)
    _found(
        computer, "warning", "gpu_not_seen", "535.129.03",
        "(/proc/driver/nvidia/version, /dev/nvidia0)", "make install EXTRAS=dev,gpu",
        "pip install 'object-detection-ext[gpu]'", "docs/gpu.md",
    )  # fmt: skip
    computer.options["environment"]["CUDA_VISIBLE_DEVICES"] = "-1"
    report = computer.examine()
    assert list(report.findings) == []
    assert report.facts["devices"]["hidden by"] == "CUDA_VISIBLE_DEVICES='-1'"


def test_a_gpu_that_is_seen(computer):
    fakes.write_driver(computer.root)
    computer.modules["tensorflow"] = fakes.fake_tensorflow("NVIDIA L4")
    report = computer.examine()
    assert list(report.findings) == []
    assert report.facts["devices"]["GPUs of TensorFlow"] == ["NVIDIA L4"]
    assert report.facts["devices"]["memory of GPUs"] == "memory grows as needed"


def test_fewer_gpus_than_the_driver_has(computer):
    fakes.write_driver(computer.root, gpus=2)
    computer.modules["tensorflow"] = fakes.fake_tensorflow("NVIDIA L4")
    _found(computer, "warning", "fewer_gpus_seen", "TensorFlow sees 1 of 2 GPUs")


def test_a_gpu_without_a_driver(computer):
    computer.write("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n")
    computer.write("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n")
    computer.write("sys/bus/pci/devices/0000:01:00.1/vendor", "0x10de\n")  # its sound
    computer.write("sys/bus/pci/devices/0000:01:00.1/class", "0x040300\n")
    computer.write("sys/bus/pci/devices/0000:02:00.0/vendor", "0x1234\n")
    computer.write("sys/bus/pci/devices/0000:02:00.0/class", "0x030000\n")
    _found(computer, "warning", "gpu_without_driver", "1 NVIDIA GPU on the bus, and no driver")


def test_a_variable_of_memory_growth_that_means_nothing(computer):
    computer.modules["tensorflow"] = fakes.fake_tensorflow("NVIDIA L4")
    computer.options["environment"]["TF_FORCE_GPU_ALLOW_GROWTH"] = "1"
    _found(computer, "warning", "memory_growth_variable", "'true' or 'false'", "unset")


@pytest.mark.parametrize(
    ("total", "limit", "severity"),
    [(16, 4, "warning"), (4, None, "warning"), (16, 1, "error"), (1, None, "error")],
)
def test_little_memory_of_the_machine_or_of_the_container(computer, total, limit, severity):
    computer.write("proc/meminfo", f"MemTotal: {total * 2**20} kB\nMemAvailable: 9999999 kB\n")
    if limit:
        computer.write("sys/fs/cgroup/memory.max", f"{limit * GIB}\n")
    _found(computer, severity, "little_memory", f"{min(total, limit or total)}.0 GiB may be used")


@pytest.mark.parametrize("text", ["max\n", "9223372036854771712\n", ""])
def test_a_container_without_a_limit(computer, text):
    computer.write("sys/fs/cgroup/memory.max", text)
    computer.write("sys/fs/cgroup/memory/memory.limit_in_bytes", text)
    assert list(computer.examine().findings) == []


def test_memory_that_others_use(computer):
    computer.write("proc/meminfo", f"MemTotal: {16 * 2**20} kB\nMemAvailable: {2**20} kB\n")
    _found(computer, "warning", "memory_in_use", "1.0 GiB of 16.0 GiB are free")


@pytest.mark.parametrize(("free", "severity"), [(2 * 10**9, "warning"), (10**8, "error")])
def test_little_disk(computer, free, severity):
    computer.free = free
    _found(computer, severity, "little_disk", f"{free / 1e9:.1f} GB are free (current folder)")


def test_a_folder_that_may_not_be_written(computer, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    _found(computer, "warning", "folder_not_writable", "may not be written", "TMPDIR")


def test_a_decoder_that_is_missing(computer):
    computer.modules["av"] = _av(without=["hevc"])
    _found(computer, "warning", "decoder_missing", "no decoder of hevc", "av==18.1.0")


def test_errors_come_first_and_are_counted(computer):
    computer.options["environment"] = {}
    computer.free = 10**8
    computer.cpu("sse avx")
    report = computer.examine()
    assert [finding.severity for finding in report.findings] == ["error", "warning", "warning"]
    text = system.to_text(report)
    assert "\nerror    little_disk: " in text
    assert "\n         -> unset TF_ENABLE_ONEDNN_OPTS" in text
    assert text.endswith("Found 1 error and 2 warnings.")


# ------------------------------------------------------------------------------------------------
# The command line


def _run(arguments, capsys) -> tuple[int, str, str]:
    values = flags.FlagValues()
    doctor.define_flags(values)
    with pytest.raises(SystemExit) as ended:
        doctor.main(values(["doctor", *arguments]), values)
    return ended.value.code, *capsys.readouterr()


def test_this_machine(capsys):
    status, text, _ = _run(["--system", "--json"], capsys)
    result = json.loads(text)
    assert list(result) == ["errors", "warnings", "findings", "system"]
    assert status == (1 if result["errors"] else 0)
    assert list(result["system"]) == [
        "versions", "cpu", "devices", "oneDNN", "memory", "disk", "ffmpeg",
    ]  # fmt: skip
    # Of what the tests themselves need, nothing is wrong.
    codes = {finding["code"] for finding in result["findings"]}
    assert not codes & {"import_failed", "keras_3", "package_missing", "cpu_without_avx"}
    assert result["system"]["versions"]["TensorFlow"] == "2.19.1"


@pytest.mark.parametrize(("free", "status"), [(100 * 10**9, 0), (2 * 10**9, 0), (10**8, 1)])
def test_the_exit_status_says_whether_there_are_errors(computer, monkeypatch, capsys, free, status):
    computer.free = free
    report = computer.examine()
    monkeypatch.setattr(system, "examine", lambda: report)
    ended, text, _ = _run(["--system"], capsys)
    assert ended == status
    assert text.startswith("versions\n  Python ")


def test_with_data_it_is_a_wrong_command_line(capsys):
    status, text, said = _run(["--system", "--videos", "a", "--num_frames=3"], capsys)
    assert (status, text) == (2, "")
    assert said == "error: --system looks at no data: leave out --videos, --num_frames.\n"


def test_a_broken_library_is_named_whatever_was_asked_for(tmp_path):
    """A real process; without PyAV the doctor cannot even read its options for data."""
    (tmp_path / "av.py").write_text("raise ImportError('libavcodec.so.62: cannot open')\n")
    # Its import takes long, and nothing of it is looked at here.
    (tmp_path / "tensorflow.py").write_text("raise ImportError('not in this test')\n")
    root = pathlib.Path(doctor.__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "object_detection_ext.tools.doctor", "--videos", "a", "--json"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{root}"},
        cwd=root, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: a library that the doctor needs is broken: libavcodec.so.62" in done.stderr
    findings = json.loads(done.stdout)["findings"]
    assert [f["file"] for f in findings if f["code"] == "import_failed"] == ["av", "tensorflow"]
