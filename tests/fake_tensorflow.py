# SPDX-License-Identifier: Apache-2.0
"""Machines with GPUs that there are none of here: TensorFlow as it sees them, and driver files."""

import pathlib
import types

DRIVER_535 = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n"
    "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
)
DRIVER_550_OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (x)\n"
)


def write_driver(
    root: pathlib.Path, *, version: str | None = DRIVER_535, gpus: int = 1
) -> pathlib.Path:
    """Writes the files of an NVIDIA driver below `root`, which it returns."""
    (root / "dev").mkdir(parents=True, exist_ok=True)
    for name in ["nvidiactl", "nvidia-uvm", *(f"nvidia{number}" for number in range(gpus))]:
        (root / "dev" / name).touch()
    if version is not None:
        folder = root / "proc/driver/nvidia"
        folder.mkdir(parents=True)
        (folder / "version").write_text(version)
    return root


def fake_tensorflow(
    *gpu_names: str,
    started: bool = False,
    logical: bool = False,
    growth: bool | None = None,
    is_cuda_build: bool = True,
    keras: str = "tf_keras.src.engine.training",
) -> types.SimpleNamespace:
    """What `devices` and the doctor use of TensorFlow, on a machine with these GPUs.

    Args:
        *gpu_names: of the GPUs that it sees.
        started: whether it has started them already.
        logical: whether the program has made logical devices of them.
        growth: what the program has set; None for nothing.
        is_cuda_build: whether it is built with CUDA.
        keras: the module of `tf.keras.Model`.

    Returns:
        The module; its `grown` lists the GPUs whose memory grows.
    """
    gpus = [
        types.SimpleNamespace(name=f"/physical_device:GPU:{number}", device_type="GPU", title=title)
        for number, title in enumerate(gpu_names)
    ]
    grown: list[str] = []

    def set_memory_growth(gpu, enable):
        if started:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        if logical:
            raise ValueError("Cannot set memory growth on device when virtual devices configured")
        assert enable is True
        grown.append(gpu.title)

    def starts_devices(*_):
        raise AssertionError("this starts the GPUs")

    def devices_of(kind):
        return gpus if kind == "GPU" else []

    experimental = types.SimpleNamespace(
        get_device_details=lambda gpu: {"device_name": gpu.title} if gpu.title else {},
        get_memory_growth=lambda gpu: growth,
        set_memory_growth=set_memory_growth,
    )
    config = types.SimpleNamespace(
        experimental=experimental,
        get_visible_devices=devices_of,
        list_physical_devices=devices_of,
        list_logical_devices=starts_devices,
    )
    return types.SimpleNamespace(
        config=config,
        errors=types.SimpleNamespace(OpError=RuntimeError),
        grown=grown,
        keras=types.SimpleNamespace(Model=type("Model", (), {"__module__": keras})),
        sysconfig=types.SimpleNamespace(get_build_info=lambda: {"is_cuda_build": is_cuda_build}),
    )
