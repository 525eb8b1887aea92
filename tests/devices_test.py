# SPDX-License-Identifier: Apache-2.0
"""The line on devices, memory growth and GPUs that are not seen, on machines that are not here."""

import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from object_detection_ext import devices
from tests import fake_tensorflow as fakes

A100 = "NVIDIA A100-SXM4-40GB"
NO_VARIABLES: dict[str, str] = {}


def _set_up(tmp_path, tensorflow, environment=NO_VARIABLES, work=devices.TRAINING, **options):
    return devices.set_up(tensorflow, environment, work, root=tmp_path, **options)


# ------------------------------------------------------------------------------------------------
# The line


def test_a_cpu_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.machine, "usable_cpus", lambda: 4)
    assert _set_up(tmp_path, fakes.fake_tensorflow()) == ["devices: CPU, 4 cores; no GPU"]
    monkeypatch.setattr(devices.machine, "usable_cpus", lambda: 1)
    assert _set_up(tmp_path, fakes.fake_tensorflow()) == ["devices: CPU, 1 core; no GPU"]


@pytest.mark.parametrize("work", ["training", "evaluation", "export", "inference"])
def test_one_gpu_whose_memory_grows(tmp_path, work):
    tensorflow = fakes.fake_tensorflow(A100)
    fakes.write_driver(tmp_path)
    lines = _set_up(tmp_path, tensorflow, work=work)
    assert lines == [f"devices: 1 GPU ({A100}); memory grows as needed"]
    assert tensorflow.grown == [A100]


def test_training_uses_all_gpus_and_evaluation_the_first(tmp_path):
    tensorflow = fakes.fake_tensorflow(A100, "NVIDIA L4")
    assert _set_up(tmp_path, tensorflow) == [
        f"devices: 2 GPUs ({A100}, NVIDIA L4); memory grows as needed"
    ]
    # TensorFlow refuses to start GPUs whose memory is not all taken the same way.
    assert tensorflow.grown == [A100, "NVIDIA L4"]
    for work in ("evaluation", "export", "inference"):
        (line,) = _set_up(tmp_path, tensorflow, work=work)
        assert line == (
            f"devices: the first of 2 GPUs ({A100}), as {work} uses one; memory grows as needed"
        )


def test_a_gpu_without_a_name_has_its_number(tmp_path):
    (line,) = _set_up(tmp_path, fakes.fake_tensorflow(""))
    assert line == "devices: 1 GPU (GPU:0); memory grows as needed"


def test_a_tpu(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.machine, "usable_cpus", lambda: 4)
    fakes.write_driver(tmp_path)
    lines = _set_up(tmp_path, fakes.fake_tensorflow(), use_tpu=True)
    assert lines == ["devices: TPU (--use_tpu), and CPU, 4 cores"]


# ------------------------------------------------------------------------------------------------
# Memory growth


@pytest.mark.parametrize(
    ("value", "text"),
    [("true", "memory grows as needed"), ("false", "all memory is taken at once")],
)
def test_the_variable_of_tensorflow_wins_in_both_directions(tmp_path, value, text):
    tensorflow = fakes.fake_tensorflow(A100)
    environment = {"TF_FORCE_GPU_ALLOW_GROWTH": value}
    assert _set_up(tmp_path, tensorflow, environment) == [
        f"devices: 1 GPU ({A100}); {text} (TF_FORCE_GPU_ALLOW_GROWTH={value})"
    ]
    assert tensorflow.grown == []


@pytest.mark.parametrize("value", ["1", "True", "yes", ""])
def test_a_variable_that_tensorflow_does_not_understand_is_warned_of(tmp_path, value):
    """TensorFlow compares with 'true' and 'false', to the letter, and takes what is configured."""
    tensorflow = fakes.fake_tensorflow(A100)
    line, warning = _set_up(tmp_path, tensorflow, {"TF_FORCE_GPU_ALLOW_GROWTH": value})
    assert line.endswith("memory grows as needed")
    assert tensorflow.grown == [A100]
    assert warning == (
        f"warning: TF_FORCE_GPU_ALLOW_GROWTH is {value!r}, which TensorFlow ignores; it can be "
        "'true' or 'false'."
    )


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"started": True}, "memory is taken as it was set when TensorFlow started its GPUs"),
        ({"logical": True}, "memory is divided into the logical devices that this program has set"),
        ({"growth": False}, "all memory is taken at once (as this program has set it)"),
    ],
)
def test_a_program_that_has_decided_already_keeps_its_choice(tmp_path, state, text):
    tensorflow = fakes.fake_tensorflow(A100, **state)
    assert _set_up(tmp_path, tensorflow) == [f"devices: 1 GPU ({A100}); {text}"]
    assert tensorflow.grown == []


@pytest.fixture
def real_context_with_a_gpu(monkeypatch):
    """TensorFlow's own context, not started yet, that has found a GPU."""
    fresh = context.Context()
    fresh._initialize_physical_devices()
    gpu = context.PhysicalDevice("/physical_device:GPU:0", "GPU")
    fresh._physical_devices.append(gpu)
    fresh._visible_device_list.append(gpu)
    fresh._memory_growth_map[gpu] = None
    monkeypatch.setattr(context, "_context", fresh)
    return fresh


def test_tensorflow_itself_is_told_before_it_starts_a_gpu(tmp_path, real_context_with_a_gpu):
    lines = _set_up(tmp_path, tf)
    assert lines == ["devices: 1 GPU (GPU:0); memory grows as needed"]
    assert real_context_with_a_gpu.config.gpu_options.allow_growth
    assert not real_context_with_a_gpu._initialized


def test_tensorflow_itself_is_left_alone_where_its_variable_is_set(
    tmp_path, real_context_with_a_gpu
):
    _set_up(tmp_path, tf, {"TF_FORCE_GPU_ALLOW_GROWTH": "false"})
    assert not real_context_with_a_gpu.config.gpu_options.allow_growth


# ------------------------------------------------------------------------------------------------
# GPUs that are not seen


@pytest.fixture(autouse=True)
def _no_cuda_libraries(monkeypatch):
    monkeypatch.setattr(devices, "_is_installed", lambda package: False)


@pytest.mark.parametrize("present", ["all", "version", "device"])
def test_a_gpu_that_is_not_seen_is_warned_of_with_the_command(tmp_path, present):
    fakes.write_driver(
        tmp_path,
        version=None if present == "device" else fakes.DRIVER_535,
        gpus=0 if present == "version" else 1,
    )
    line, warning = _set_up(tmp_path, fakes.fake_tensorflow())
    assert "no GPU" in line
    assert warning.startswith("warning: this machine has an NVIDIA driver")
    assert "TensorFlow sees no GPU and computes on the CPU" in warning
    assert (" 535.129.03 " in warning) == (present != "device")
    assert ("/dev/nvidia0" in warning.partition("but")[0]) == (present != "version")
    assert ("docker run --gpus all" in warning) == (present == "version")
    assert "make install EXTRAS=dev,gpu" in warning
    assert "pip install 'object-detection-ext[gpu]'" in warning


def test_windows_subsystem_for_linux_has_files_of_its_own(tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/dxg").touch()
    assert devices.find_driver(tmp_path) is None  # of another maker
    library = tmp_path / "usr/lib/wsl/lib/libcuda.so.1"
    library.parent.mkdir(parents=True)
    library.touch()
    assert "make install EXTRAS=dev,gpu" in _set_up(tmp_path, fakes.fake_tensorflow())[1]
    assert devices.find_driver(tmp_path).has_devices


def test_the_control_files_alone_are_no_gpu(tmp_path):
    fakes.write_driver(tmp_path, version=None, gpus=0)
    assert devices.find_driver(tmp_path) is None
    assert len(_set_up(tmp_path, fakes.fake_tensorflow())) == 1


@pytest.mark.parametrize(
    ("text", "version"),
    [(fakes.DRIVER_535, "535.129.03"), (fakes.DRIVER_550_OPEN, "550.54.15"), ("", None)],
)
def test_both_kinds_of_driver_say_their_version(tmp_path, text, version):
    fakes.write_driver(tmp_path, version=text, gpus=2)
    driver = devices.find_driver(tmp_path)
    assert (driver.version, driver.num_gpus) == (version, 2)


@pytest.mark.parametrize("value", ["", "-1", " -1", "-1,0", "NoDevFiles"])
def test_gpus_that_are_hidden_on_purpose_are_no_fault(tmp_path, value):
    fakes.write_driver(tmp_path)
    (line,) = _set_up(tmp_path, fakes.fake_tensorflow(), {"CUDA_VISIBLE_DEVICES": value})
    assert line.endswith(f"no GPU (CUDA_VISIBLE_DEVICES={value!r} hides them)")


@pytest.mark.parametrize(
    ("driver", "tensorflow", "environment", "reasons"),
    [
        ({}, {"is_cuda_build": False}, {}, ["this TensorFlow is built without CUDA"]),
        (
            {"version": fakes.DRIVER_535.replace("535.129.03", "470.57.02")},
            {},
            {},
            ["CUDA libraries are missing", "the driver is 470.57.02, and CUDA 12 needs 525.60.13"],
        ),
        (
            {},
            {},
            {"CUDA_VISIBLE_DEVICES": "3"},
            ["CUDA libraries are missing", "CUDA_VISIBLE_DEVICES is '3'"],
        ),
    ],
)
def test_what_else_it_may_be_is_said(tmp_path, driver, tensorflow, environment, reasons):
    found = devices.find_driver(fakes.write_driver(tmp_path, **driver))
    texts = devices.why_not_seen(fakes.fake_tensorflow(**tensorflow), found, environment)
    assert len(texts) == len(reasons)
    for text, reason in zip(texts, reasons, strict=True):
        assert reason in text


def test_with_the_extra_installed_the_log_of_tensorflow_is_asked(tmp_path):
    driver = devices.find_driver(fakes.write_driver(tmp_path))
    (text,) = devices.why_not_seen(fakes.fake_tensorflow(), driver, {}, has_cuda_libraries=True)
    assert "TF_CPP_MIN_LOG_LEVEL=0" in text


def test_the_extra_of_the_command_brings_what_is_looked_for():
    """TensorFlow's own metadata: the package is one of those of tensorflow[and-cuda]."""
    import importlib.metadata

    root = pathlib.Path(devices.__file__).resolve().parents[1]
    assert '"gpu": ["tensorflow[and-cuda]==' in (root / "setup.py").read_text()
    wanted = importlib.metadata.requires("tensorflow")
    assert any(
        text.startswith(f"{devices._CUDA_PACKAGE} ") and "and-cuda" in text for text in wanted
    )


# ------------------------------------------------------------------------------------------------
# Processes


def test_the_lines_are_printed_once_in_a_process(monkeypatch, capsys):
    monkeypatch.setattr(devices, "_printed", set())
    devices.announce(devices.INFERENCE)
    devices.announce(devices.INFERENCE)
    printed = capsys.readouterr().err
    assert printed.startswith("devices: ")
    assert printed.count("devices:") == 1


def test_importing_it_starts_nothing():
    program = (
        "import sys; from object_detection_ext import devices; "
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
