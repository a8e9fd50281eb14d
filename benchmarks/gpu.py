"""Everything that a GPU is asked about, within ten minutes: one JSON file and one profile.

    python benchmarks/gpu.py --out=DIR --minutes=9
    python benchmarks/gpu.py --out=DIR --tiny           (toy sizes, on a CPU)

DIR/gpu.json is written anew after every measurement, DIR/profile/ holds the traces. Sections:
`ceilings` (what the card reaches on a copy and on a matrix product), `agreement` (with the CPU's
loss and gradients), `supernet` (the gradients of both passes and the whole step, by task, batch and
form, and of rotation the projected hours), `torch` (the same in eager PyTorch, beside them),
`profile` (where the time goes), `eval_in1k` and `nasbench101` (discrete networks) and
`shared_device` (several processes on one device). The most important come first; at the limit the
process ends, and what it did not come to says "skipped": "time".

Times are medians of several blocks of steps. `mfu` is the share of the card's bfloat16 peak that
the method's own multiply-adds are of (edge by edge; backward is twice the forward pass, for the
alphas once); `hardware_mfu` counts what the form computes. "not tuned" are programs for which XLA
tried out no algorithms on the GPU, which compile sooner; the others are as XLA compiles by default.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import threading
import time

_START = time.monotonic()
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
# PyTorch and other processes need memory of the device, too; read when jax starts.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import itertools  # noqa: E402
import multiprocessing  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable, Iterable, Iterator  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import chips, gpu_networks, gpu_search, gpu_torch  # noqa: E402
from benchmarks.gpu_schedule import (  # noqa: E402
    Clock,
    Compiler,
    Program,
    Report,
    Row,
    one_line,
    run_rounds,
    timed,
)

_TUNING = 0.2  # Of the time, what XLA may take for a tuned program if all are to be tuned.

SECTIONS = (
    "ceilings", "agreement", "supernet", "torch", "profile", "eval_in1k", "nasbench101",
    "shared_device",
)  # fmt: skip


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which the process ends")
    parser.add_argument("--only", default=",".join(SECTIONS), help="some of the sections")
    parser.add_argument("--tiny", action="store_true", help="toy sizes")
    parser.add_argument("--threads", type=int, default=12, help="that compile at once")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(SECTIONS):
        parser.error(f"--only={unknown.pop()}: no such section; use some of {', '.join(SECTIONS)}")
    return options


def _card() -> list[str]:
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return found.stdout.splitlines()


def _about(device: jax.Device, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "card": _card(),
        "peak_bf16_flops": chips.peak_flops(device.device_kind),
        "jax": jax.__version__,
        "python": sys.version.split()[0],
        "cores": len(os.sched_getaffinity(0)),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "sizes": "toy" if options.tiny else "the recipes'",
        "minutes": options.minutes,
        "threads": options.threads,
    }


def _ceilings(tiny: bool, device: jax.Device) -> Row:
    """What the card reaches: a large product in bfloat16, and a copy, on random data."""
    side, count = (64, 2**16) if tiny else (8192, 2**28)

    def product() -> jax.stages.Lowered:
        shape = jax.ShapeDtypeStruct((side, side), jnp.bfloat16)
        return jax.jit(jnp.matmul).lower(shape, shape)

    def scaled() -> jax.stages.Lowered:
        return jax.jit(lambda x: x * 1.5).lower(jax.ShapeDtypeStruct((count,), jnp.float32))

    programs = [Program("product", product), Program("copy", scaled)]

    def measure() -> dict[str, Any]:
        rng = np.random.default_rng(0)  # By NumPy: nothing else is compiled.
        a = jax.device_put(
            rng.standard_normal((side, side), np.float32).astype(jnp.bfloat16), device
        )
        ms = timed(lambda: programs[0].compiled(a, a), jax.block_until_ready, 1.0)["ms"]
        result = {"matmul_tflops": round(2 * side**3 / ms / 1e9, 3)}
        x = jax.device_put(rng.random(count, np.float32), device)
        ms = timed(lambda: programs[1].compiled(x), jax.block_until_ready, 1.0)["ms"]
        return result | {"copy_gb_per_s": round(8 * count / ms / 1e6, 1)}

    return Row(("ceilings",), programs, measure)


def _unless_broken(
    name: str, rounds: Callable[[], Iterable[list[Row]]], report: Report
) -> Iterator[list[Row]]:
    """The rounds of a section up to a mistake in making one, which the report then tells."""
    try:
        yield from rounds()
    except Exception as error:
        report.put(("broken", name), one_line(error))


def _rounds(options: argparse.Namespace, device: jax.Device, report: Report) -> Iterator[list[Row]]:
    """All rows that are asked for, round by round."""
    tiny, peak = options.tiny, chips.peak_flops(device.device_kind)
    searches = gpu_search.Searches(tiny, device)

    def is_quick() -> bool:
        return gpu_search.is_tuning_quick(report.content, _TUNING * 60 * options.minutes)

    def profiles() -> Iterator[list[Row]]:
        traces = options.out / "profile"
        yield [gpu_search.profile(searches, "dense", False, True, traces)]
        if is_quick():
            yield [gpu_search.profile(searches, "dense", True, True, traces)]
        yield [gpu_search.profile(searches, "depthwise", is_quick(), False, traces)]

    counts = (1, 2) if tiny else (1, 2, 4)
    parts: dict[str, Callable[[], Iterable[list[Row]]]] = {
        "supernet": lambda: gpu_search.rounds(searches, peak, is_quick),
        "ceilings": lambda: [[_ceilings(tiny, device)]],
        "agreement": lambda: [[gpu_search.agreement(tiny, device)]],
        "torch": lambda: gpu_torch.rounds(searches),
        "profile": profiles,
        "eval_in1k": lambda: [[], *gpu_networks.evaluations(tiny, device, peak)],
        "nasbench101": lambda: [[], *gpu_networks.units(tiny, device, peak)],
        "shared_device": lambda: [[], [], [gpu_networks.shared_device(tiny, counts)]],
    }
    chosen = [
        _unless_broken(name, rounds, report)
        for name, rounds in parts.items()
        if name in options.only
    ]
    for together in itertools.zip_longest(*chosen, fillvalue=()):
        yield [row for rows in together for row in rows]


def _summary(report: Report) -> None:
    report.put(("rotation_search_hours",), gpu_search.projection(report.content))
    report.put(("nasbench101_unit_hours",), gpu_networks.sweep_hours(report.content))


def _end_at(clock: Clock, report: Report, finished: threading.Event) -> None:
    """Ends the process at the limit, with whatever hangs in it."""
    if finished.wait(max(0.0, clock.left())):
        return
    _summary(report)
    report.put(("ended",), "at the limit")
    print("The time is up.", flush=True)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(0)


def main(arguments: list[str] | None = None, start: float | None = None) -> int:
    """Measures and writes; returns the exit status."""
    options = _options(arguments)
    clock = Clock(60 * options.minutes, time.monotonic() if start is None else start)
    report, finished = Report(options.out / "gpu.json"), threading.Event()
    threading.Thread(target=_end_at, args=(clock, report, finished), daemon=True).start()
    try:
        device = jax.devices()[0]
        report.put(("about",), _about(device, options))
        compiler = Compiler(options.threads)
        run_rounds(_rounds(options, device, report), clock, report, compiler)
        _summary(report)
        report.put(("ended",), f"after {clock.now()} s")
    finally:
        finished.set()
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        # Worker processes find their program in it. It is new: compile times are cold.
        cache = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", cache)
        jax.config.update("jax_compilation_cache_dir", cache)
        status = main(start=_START)
    sys.stdout.flush()
    os._exit(status)  # Threads that still compile are not waited for.
