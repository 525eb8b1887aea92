# SPDX-License-Identifier: Apache-2.0
"""Compiles and runs exported programs with JAX's own XLA client; needs JAX and no TensorFlow.

Tried with JAX 0.11.2 (CPU). The client's methods were renamed between versions: what is used is
looked up by the names of JAX 0.4.30 to 0.11, and a version that has none of them is an error that
says so.
"""

import functools
import io
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator import programs


class Executable:
    """A compiled program on one device."""

    def __init__(self, text: str, device: jax.Device, options: Mapping[str, Any] | None = None):
        """Compiles.

        Args:
            text: StableHLO.
            device: where it runs.
            options: XLA's own, by the names of DebugOptions; see JAX's `compiler_options`.

        Raises:
            programs.ProgramError: if this version of JAX has no way to do it that is known here.
        """
        self._device = device
        start = time.perf_counter()
        self._loaded = _compile(text, device, dict(options or {}))
        self.compile_seconds = time.perf_counter() - start

    def __call__(self, arguments: Sequence[jax.Array]) -> list[jax.Array]:
        """The program's outputs; does not wait for them."""
        results = self._loaded.execute_sharded(list(arguments))
        return [arrays[0] for arrays in results.disassemble_into_single_device_arrays()]

    def memory(self) -> dict[str, int]:
        """What XLA planned, in bytes; empty where this version does not say."""
        try:
            stats = self._loaded.get_compiled_memory_stats()
        except Exception:  # of any kind: a figure less
            return {}
        names = ("temp_size_in_bytes", "argument_size_in_bytes", "output_size_in_bytes")
        return {name: getattr(stats, name) for name in names if hasattr(stats, name)}


def _compile(text: str, device: jax.Device, options: dict[str, Any]) -> Any:
    from jax._src.lib import xla_client

    compile_options = xla_client.CompileOptions()
    compile_options.num_replicas = compile_options.num_partitions = 1
    build = compile_options.executable_build_options
    build.num_replicas = build.num_partitions = 1
    compile_options.device_assignment = xla_client.DeviceAssignment.create(np.array([[device.id]]))
    if options:
        compile_options.env_option_overrides = list(options.items())
    client = device.client
    module = _parsed(text)
    if hasattr(client, "compile_and_load"):
        devices = xla_client.DeviceList((device,))
        return client.compile_and_load(module, devices, compile_options)
    if hasattr(client, "compile"):
        return client.compile(module, compile_options)
    raise programs.ProgramError(
        f"JAX {jax.__version__}: its client has neither compile_and_load nor compile; "
        "use a version from 0.4.30 to 0.11."
    )


def _parsed(text: str) -> bytes:
    """The module as bytecode, which the client takes in every version.

    Raises:
        programs.ProgramError: if this version of StableHLO cannot read it.
    """
    from jax._src.interpreters import mlir
    from jax._src.lib.mlir import ir

    with mlir.make_ir_context():
        try:
            try:
                module = ir.Module.parse(text)
            except Exception:
                module = ir.Module.parse(programs.with_wide_booleans(text))
        except Exception as error:
            raise programs.ProgramError(
                f"JAX {jax.__version__} cannot read the program: {error}"
            ) from error
        buffer = io.BytesIO()
        module.operation.write_bytecode(buffer)
        return buffer.getvalue()


def put(values: Sequence[np.ndarray], device: jax.Device) -> list[jax.Array]:
    """NumPy arrays on the device."""
    return [jax.device_put(value, device) for value in values]


def draw_for(
    parameters: Sequence[programs.Parameter], seed: int, device: jax.Device
) -> list[jax.Array]:
    """Every parameter by its rule.

    Weights are drawn by NumPy: JAX would compile a program for each of a hundred shapes. Pixels,
    nearly all of the bytes, are drawn on the device, with other numbers than NumPy's.
    """
    with jax.default_device(device):
        return [
            _pixels(seed, parameter.shape)
            if parameter.dtype == "uint8" and parameter.draw["kind"] == programs.INTEGERS
            else jax.device_put(programs.draw(parameter, seed), device)
            for parameter in parameters
        ]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _pixels(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.bits(jax.random.key(seed), shape, jnp.uint8)


def enable_64_bits() -> None:
    """Programs have int64 parameters (the step); without this JAX would make them int32."""
    jax.config.update("jax_enable_x64", True)
