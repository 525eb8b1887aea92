# SPDX-License-Identifier: Apache-2.0
r"""Measures one part of the GPU run, in a process of its own; run.py starts it.

    python -m benchmarks.accelerator.part xla:training:b3:bf16 --programs programs --device gpu

prints each measurement as a line of JSON after "RESULT ", when it has it.
"""

import argparse
import functools
import gc
import json
import os
import pathlib
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.accelerator import plan, processes, programs

_WARMUPS = 2
_REPEATS = 20
_LEAST_REPEATS = 10
_SEED = 1


def emit(**measurement: Any) -> None:
    """Hands a measurement to run.py."""
    print(processes.RESULT + json.dumps(measurement), flush=True)


def timed(run: Callable[[], Any], wait: Callable[[Any], Any], seconds: float) -> dict[str, Any]:
    """The median of single calls, each waited for, and the mean of calls in a row.

    Args:
        run: starts the work and gives its result.
        wait: waits for a result.
        seconds: after which no further repeat is started, once there are a few.
    """
    for _ in range(_WARMUPS):
        wait(run())
    single, start = [], time.perf_counter()
    while len(single) < _REPEATS:
        begin = time.perf_counter()
        wait(run())
        single.append(time.perf_counter() - begin)
        spent = time.perf_counter() - start
        if spent > seconds and len(single) >= (_LEAST_REPEATS if spent < 2 * seconds else 3):
            break
    begin = time.perf_counter()
    for _ in range(len(single)):
        result = run()
    wait(result)
    return {
        "seconds": statistics.median(single),
        "least_seconds": min(single),
        "most_seconds": max(single),
        "seconds_in_a_row": (time.perf_counter() - begin) / len(single),
        "repeats": len(single),
    }


def guarded(variant: str, measure: Callable[[], None], **about: Any) -> None:
    """Runs a measurement; what goes wrong is one, too."""
    try:
        measure()
    except Exception as error:  # out of memory, a compiler's failure: recorded, and the next one
        traceback.print_exc()
        emit(variant=variant, error=described(error), **about)


def described(error: Exception) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def measure_xla(part: plan.Part, arguments: argparse.Namespace) -> None:
    """An exported program: compiled, then called with its own updates as the next arguments."""
    import jax

    from benchmarks.accelerator import xla_programs

    xla_programs.enable_64_bits()
    name = plan.program_of(part, arguments.size)
    text, manifest = programs.read_program(arguments.programs, name)
    device = jax.devices(arguments.device)[0]
    executable = xla_programs.Executable(text, device)
    emit(what="compile", program=name, compile_seconds=executable.compile_seconds)
    state = {"arguments": xla_programs.draw_for(manifest.parameters, _SEED, device)}

    def run():
        results = executable(state["arguments"])
        state["arguments"] = manifest.next_arguments(state["arguments"], results)
        return results

    times = timed(run, jax.block_until_ready, arguments.seconds)
    results = jax.block_until_ready(run())
    stats = device.memory_stats() or {}
    planned = executable.memory()
    emit(
        what=part.what,
        batch=part.batch,
        framework="xla",
        variant=part.precision + (", TF32" if part.precision == "fp32" else ""),
        program=name,
        **times,
        clips_per_second=part.batch / times["seconds"],
        flops=manifest.flops,
        compile_seconds=executable.compile_seconds,
        peak_bytes=stats.get("peak_bytes_in_use", 0),
        planned=planned,
        planned_bytes=sum(planned.values()),
        finite=all(bool(np.isfinite(result).all()) for result in _numbers(results)),
    )


def _numbers(results: list) -> Iterator[np.ndarray]:
    """The float32 results on the host: on a GPU, JAX would compile two programs for each shape."""
    for result in results:
        if result.dtype == np.float32:
            yield np.asarray(result)


def measure_stem(part: plan.Part, arguments: argparse.Namespace) -> None:
    """The first convolution as it is and by blocks, in bf16: forward, and also the gradient."""
    import jax
    import jax.numpy as jnp

    from benchmarks.accelerator import stem

    device = jax.devices(arguments.device)[0]
    frames, size = (64, 400) if arguments.size == "full" else (8, 32)
    with jax.default_device(device):
        clips = jax.random.bits(
            jax.random.key(_SEED), (part.batch, frames, size, size, 3), jnp.uint8
        )
        kernel = jax.random.normal(jax.random.key(2), (7, 7, 7, 3, 64)) * 0.03
        cotangent = jnp.ones((part.batch, frames // 2, size // 2, size // 2, 64), jnp.bfloat16)
    for name, convolve in (
        ("7x7x7 on 3 channels", stem.plain_convolution),
        ("4x4x4 on 24 channels", stem.block_convolution),
    ):

        def forward(clips, kernel, convolve=convolve):
            pixels = clips.astype(jnp.bfloat16) * (2.0 / 255.0) - 1.0
            return jax.nn.relu(convolve(pixels.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)))

        def gradient(clips, kernel, cotangent, forward=forward):
            _, pull = jax.vjp(lambda kernel: forward(clips, kernel), kernel)
            return pull(cotangent)[0]

        def measure(name=name, forward=forward, gradient=gradient):
            forward, gradient = jax.jit(forward), jax.jit(gradient)
            wait, seconds = jax.block_until_ready, arguments.seconds
            ahead = timed(lambda: forward(clips, kernel), wait, seconds)
            both = timed(lambda: gradient(clips, kernel, cotangent), wait, seconds)
            emit(
                what="stem",
                batch=part.batch,
                framework="xla",
                variant=name,
                forward_seconds=ahead["seconds"],
                gradient_seconds=both["seconds"],
            )

        guarded(name, measure, what="stem", batch=part.batch)


def measure_card(part: plan.Part, arguments: argparse.Namespace) -> None:
    """The device's own rates: matrix products and copies, on random numbers, by PyTorch."""
    import torch

    device = _torch_device(arguments)
    about = {"torch": torch.__version__, "cuda": str(torch.version.cuda)}
    if device.type == "cuda":
        about["memory"] = f"{torch.cuda.get_device_properties(device).total_memory / 2**30:.0f} GiB"
    emit(what="software", about=about)
    size = 8192 if arguments.size == "full" else 256

    def wait(result):
        return _torch_wait(device)

    for name, dtype, tf32 in (
        ("bf16", torch.bfloat16, True),
        ("tf32", torch.float32, True),
        ("fp32", torch.float32, False),
    ):

        def measure(name=name, dtype=dtype, tf32=tf32):
            torch.backends.cuda.matmul.allow_tf32 = tf32
            a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
            times = timed(lambda: a @ b, wait, arguments.seconds)
            seconds = times["seconds_in_a_row"]
            emit(
                what="matmul",
                dtype=name,
                size=size,
                **times,
                flops_per_second=2.0 * size**3 / seconds,
            )

        guarded(name, measure, what="matmul")

    def copy():
        source = torch.empty(2**31 if arguments.size == "full" else 2**20, device=device)
        target = torch.empty_like(source)
        times = timed(lambda: target.copy_(source), wait, arguments.seconds)
        number = 2 * source.numel() * source.element_size()  # read and written
        emit(what="copy", **times, bytes_per_second=number / times["seconds_in_a_row"])

    guarded("copy", copy, what="copy")


def _torch_device(arguments: argparse.Namespace):
    import torch

    return torch.device("cuda" if arguments.device == "gpu" else "cpu")


def _torch_wait(device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()


def measure_torch(part: plan.Part, arguments: argparse.Namespace) -> None:
    """PyTorch's model in every variant: bf16 autocast and TF32, both memory layouts."""
    variants = [(True, True), (True, False), (False, True), (False, False)]
    compiles = part.kind == "torch_compile"
    for is_bf16, channels_last in variants[:2] if compiles else variants:
        variant = ("bf16" if is_bf16 else "fp32, TF32") + (
            ", channels_last_3d" if channels_last else ""
        )
        variant += ", torch.compile" if compiles else ", eager"
        about = {"what": part.what, "batch": part.batch, "framework": "pytorch"}
        measure = functools.partial(
            _measure_torch_variant, part, arguments, is_bf16, channels_last, variant, about
        )
        guarded(variant, measure, **about)


def _measure_torch_variant(
    part: plan.Part,
    arguments: argparse.Namespace,
    is_bf16: bool,
    channels_last: bool,
    variant: str,
    about: dict[str, Any],
) -> None:
    import torch

    from benchmarks.accelerator import torch_model

    device, compiles = _torch_device(arguments), part.kind == "torch_compile"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(_SEED)
    if device.type == "cuda":
        gc.collect()  # of what the variant before held
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    options = torch_model.Options() if arguments.size == "full" else torch_model.TINY
    model = torch_model.Detector(options).to(device)
    model.train(part.what == "training")
    start = time.perf_counter()
    run = _torch_run(model, part, device, is_bf16, channels_last, compiles)
    run()
    _torch_wait(device)
    first = time.perf_counter() - start
    times = timed(run, lambda result: _torch_wait(device), arguments.seconds)
    emit(
        **about,
        variant=variant,
        **times,
        clips_per_second=part.batch / times["seconds"],
        flops=arguments.flops.get(part.what, 0.0) * part.batch,
        compile_seconds=first,
        peak_bytes=torch.cuda.max_memory_allocated() if device.type == "cuda" else 0,
    )


def _torch_run(model, part: plan.Part, device, is_bf16, channels_last, compiles):
    import torch

    from benchmarks.accelerator import torch_step

    options = model.options
    shape = (part.batch, options.frames * options.height, options.width, 3)
    stacked = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    dtype = torch.bfloat16 if is_bf16 else torch.float32
    if compiles:
        for name in ("trunk", "rpn", "head"):
            setattr(model, name, torch.compile(getattr(model, name)))
        for name in ("first_stage_loss", "second_stage_loss"):
            setattr(model, name, torch.compile(getattr(model, name)))
    if part.what == "training":
        step = torch_step.make_step(model, torch_step.make_optimizer(model), is_bf16)
        truth = torch_step.random_groundtruth(options, part.batch, device)
        return lambda: step(model.clips(stacked, dtype, channels_last), *truth)
    forward = model.scored_proposals if part.what == "inference" else model.trunk

    def run():
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
            return forward(model.clips(stacked, dtype, channels_last))

    return run


MEASURES = {
    "card": measure_card,
    "xla": measure_xla,
    "torch": measure_torch,
    "torch_compile": measure_torch,
    "stem": measure_stem,
}


def main() -> None:
    """Measures the part that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part")
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--seconds", type=float, default=4.0, help="of repeats of a measurement")
    parser.add_argument("--flops", type=json.loads, default={}, help="of a clip, by part, in JSON")
    arguments = parser.parse_args()
    part = plan.Part.from_name(arguments.part)
    processes.end_with_parent()
    try:
        MEASURES[part.kind](part, arguments)
    except Exception as error:
        traceback.print_exc()
        print(described(error), flush=True)
        sys.stdout.flush()
        # At once: what a library says at its end is no reason, and it may hang.
        os._exit(1)


if __name__ == "__main__":
    main()
