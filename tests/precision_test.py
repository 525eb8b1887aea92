# SPDX-License-Identifier: Apache-2.0
"""The names of precisions, and what is said of machines that are slow in bfloat16.

The flags are lines of /proc/cpuinfo of CPUs that can be bought, shortened.
"""

import pathlib
import platform

import pytest

from object_detection_ext import errors, precision
from tests import fake_tensorflow as fakes

_ROOT = pathlib.Path(__file__).resolve().parent.parent
_AVX2 = "processor\t: 0\nflags\t\t: fpu sse avx avx2 fma\n"
_AVX512 = "flags\t\t: fpu avx avx2 fma avx512f avx512_vnni\n"
_COOPER_LAKE = "flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16\n"
_SAPPHIRE_RAPIDS = "flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile\n"
_GRAVITON = "Features\t: fp asimd sve bf16\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("float32", "float32"), ("BFLOAT16", "bfloat16"), ("Bfloat16", "bfloat16")],
)
def test_a_name_counts_in_any_case(name, expected):
    assert precision.checked(name) == expected


@pytest.mark.parametrize("name", ["", "float16", "bf16", "mixed_bfloat16", 16, None, "\x1b[2J"])
def test_another_name_is_refused_with_those_that_there_are(name):
    with pytest.raises(errors.InputError, match="must be float32 or bfloat16, not '") as caught:
        precision.checked(name)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("cpuinfo", [_AVX2, _AVX512])
@pytest.mark.parametrize("architecture", ["x86_64", "AMD64"])
def test_a_cpu_without_the_instructions_is_slow(cpuinfo, architecture):
    reason = precision.why_slow_on_cpu(cpuinfo, architecture)
    assert "no bfloat16 instructions (avx512_bf16, amx_bf16)" in reason
    assert f"{precision.MEASURED_SLOWDOWN} times as long as in float32" in reason


@pytest.mark.parametrize("has_avx512", [False, True])
def test_training_is_advised_against_where_gradients_are_summed_in_bfloat16(has_avx512):
    flags = "avx2 avx512f" if has_avx512 else "avx2"
    reason = precision.why_slow_on_cpu(f"flags : fpu {flags}\n", "x86_64")
    assert ("do not train in it" in reason) != has_avx512


@pytest.mark.parametrize(
    ("cpuinfo", "architecture"),
    [
        (_COOPER_LAKE, "x86_64"),
        (_SAPPHIRE_RAPIDS, "x86_64"),
        # AMX alone, as a virtual machine may show it.
        ("flags : avx2 amx_bf16\n", "x86_64"),
        (_GRAVITON, "aarch64"),
        ("Features : fp asimd\n", "aarch64"),
        (_AVX2, "ppc64le"),
        ("", "x86_64"),
        ("model name : a CPU\n", "x86_64"),
    ],
)
def test_nothing_is_said_of_fast_cpus_and_of_those_that_are_not_known(cpuinfo, architecture):
    assert precision.why_slow_on_cpu(cpuinfo, architecture) is None


def test_the_figure_is_the_documents():
    text = (_ROOT / "docs" / "benchmarks.md").read_text()
    _, _, section = text.partition("\n## Precision\n")
    assert f"**{precision.MEASURED_SLOWDOWN} times**" in section.partition("\n## ")[0]


def _tensorflow(*gpus, capability=None):
    tensorflow = fakes.fake_tensorflow(*gpus)
    tensorflow.config.experimental.get_device_details = lambda gpu: {
        "device_name": gpu.title,
        **({} if capability is None else {"compute_capability": capability}),
    }
    return tensorflow


def _machine(folder, cpuinfo):
    (folder / "proc").mkdir()
    (folder / "proc/cpuinfo").write_text(cpuinfo)
    return {"root": folder, "architecture": "x86_64"}


def test_the_cpu_counts_where_there_is_no_gpu(tmp_path):
    machine = _machine(tmp_path, _AVX2)
    assert "this CPU has no" in precision.why_slow(_tensorflow(), **machine)
    assert precision.why_slow(_tensorflow("NVIDIA A100", capability=(8, 0)), **machine) is None
    assert precision.why_slow(_tensorflow("an unknown one"), **machine) is None
    assert precision.why_slow(_tensorflow(), root=tmp_path / "none", architecture="x86_64") is None


@pytest.mark.parametrize(
    ("capability", "is_slow"), [((7, 0), True), ((7, 5), True), ((8, 0), False), ((9, 0), False)]
)
def test_gpus_before_ampere_are_slow(capability, is_slow):
    reason = precision.why_slow_on_gpus(_tensorflow("Tesla V100", capability=capability))
    assert (reason is not None) == is_slow
    if is_slow:
        version = ".".join(map(str, capability))
        assert f"Tesla V100 (compute capability {version}) has no bfloat16" in reason


def test_the_warning_comes_once(monkeypatch):
    said = []
    monkeypatch.setattr(precision, "_warned", set())
    monkeypatch.setattr(precision, "why_slow", lambda tf: "it is slow")
    for _ in range(2):
        precision.warn_if_slow(_tensorflow(), said.append)
    assert said == ["warning: precision bfloat16: it is slow; float32 is faster here."]
    monkeypatch.setattr(precision, "why_slow", lambda tf: None)
    precision.warn_if_slow(_tensorflow(), said.append)
    assert len(said) == 1


def test_this_machine_is_looked_at(monkeypatch):
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        pytest.skip("no /proc/cpuinfo here")
    expected = precision.why_slow_on_cpu(cpuinfo.read_text(), platform.machine())
    assert precision.why_slow(_tensorflow()) == expected


@pytest.mark.parametrize("wanted", ["float32", "FLOAT32"])
def test_an_export_of_the_wanted_precision_is_taken(wanted):
    precision.check_exported("m", "float32", wanted)


def test_an_export_of_another_precision_is_refused_with_what_to_do():
    with pytest.raises(errors.InputError) as caught:
        precision.check_exported("m/saved_model", "float32", "bfloat16")
    text = str(caught.value)
    assert text.startswith("m/saved_model: the model was exported in float32, which is part of its")
    assert "compute { precision: BFLOAT16 }" in text
    assert "from_checkpoint(..., precision='bfloat16')" in text
    with pytest.raises(errors.InputError, match="m: the model does not say its precision"):
        precision.check_exported("m", None, "float32")
    with pytest.raises(errors.InputError, match="must be float32 or bfloat16, not 'half'"):
        precision.check_exported("m", None, "half")
