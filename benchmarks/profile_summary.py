"""Where the time of a profiled step goes: kernels of a `jax.profiler` trace by total time."""

import collections
import gzip
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax

# By part of a kernel's or operation's name, the first that fits.
_KINDS = (
    ("copy", ("memcpy", "copy", "transpose")),
    ("set", ("memset",)),
    ("convolution", ("conv", "cudnn", "wgrad", "dgrad", "fprop", "implicit", "depthwise")),
    ("matrix product", ("gemm", "cublas", "cutlass", "nvjet", "dot", "matmul", "xmma")),
    ("reduction", ("reduce",)),
    ("pooling", ("reduce_window", "select_and_scatter", "scatter")),
    ("elementwise", ("fusion", "loop", "broadcast", "concatenate", "pad", "slice", "wrapped")),
)


def kind(name: str) -> str:
    """What sort of work a kernel does, as far as its name tells."""
    lower = name.lower()
    return next((k for k, parts in _KINDS if any(part in lower for part in parts)), "other")


def record(step: Callable[[], Any], steps: int, raw: pathlib.Path) -> dict[str, Any]:
    """Profiles steps, each finished before the next begins.

    Args:
      step: takes one and waits for it.
      steps: how many.
      raw: the file, .xplane.pb.gz, in which the trace is kept.

    Returns:
      See `summarise`.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # Python's calls are the bulk of a trace.
    options.host_tracer_level = 1
    options.enable_hlo_proto = False
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(steps):
                step()
        found = next(pathlib.Path(folder).rglob("*.xplane.pb"))
        raw.parent.mkdir(parents=True, exist_ok=True)
        with open(found, "rb") as source, gzip.open(raw, "wb") as target:
            shutil.copyfileobj(source, target)
        return summarise(jax.profiler.ProfileData.from_file(str(found)), steps)


def summarise(data: Any, steps: int, top: int = 25) -> dict[str, Any]:
    """A trace's kernels for one step.

    Args:
      data: a `jax.profiler.ProfileData`.
      steps: how many it holds.
      top: how many kernels and operations are listed.

    Returns:
      `kernels` (their number a step), `busy_ms` (their time a step), `wall_ms` (from the first's
      start to the last's end, a step), `by_kind` (milliseconds a step) and two lists of the
      longest, `top_kernels` and `top_operations`: name, milliseconds a step, calls a step.
    """
    events = list(_events(data))
    if not events:
        return {"kernels": 0, "planes": [plane.name for plane in data.planes]}
    by_kernel: dict[str, list[float]] = collections.defaultdict(list)
    by_operation: dict[str, list[float]] = collections.defaultdict(list)
    by_kind: dict[str, float] = collections.defaultdict(float)
    for name, operation, _, duration in events:
        by_kernel[name].append(duration)
        # Numbered operations of one sort are one line.
        by_operation[re.sub(r"[._]\d+", "", operation or name)].append(duration)
        by_kind[kind(f"{operation} {name}")] += duration

    def longest(groups: dict[str, list[float]]) -> list[dict[str, Any]]:
        rows = sorted(groups.items(), key=lambda item: -sum(item[1]))[:top]
        return [
            {
                "name": name[:120],
                "ms": round(sum(values) / steps / 1e6, 4),
                "calls": round(len(values) / steps, 2),
            }
            for name, values in rows
        ]

    busy = sum(duration for *_, duration in events)
    wall = max(s + d for _, _, s, d in events) - min(s for _, _, s, _ in events)
    return {
        "kernels": round(len(events) / steps),
        "busy_ms": round(busy / steps / 1e6, 3),
        "wall_ms": round(wall / steps / 1e6, 3),
        "by_kind": {
            name: round(value / steps / 1e6, 3)
            for name, value in sorted(by_kind.items(), key=lambda item: -item[1])
        },
        "top_kernels": longest(by_kernel),
        "top_operations": longest(by_operation),
    }


def _events(data: Any) -> Iterator[tuple[str, str, float, float]]:
    """(kernel, operation or '', start, duration) of what ran on the accelerator, else on the CPU.

    Times are nanoseconds.
    """
    devices = [plane for plane in data.planes if plane.name.startswith("/device:")]
    lines = [line for plane in devices for line in plane.lines if line.name.startswith("Stream")]
    for line in lines:
        for event in line.events:
            stats = {name: value for name, value in event.stats if isinstance(name, str)}
            yield event.name, str(stats.get("hlo_op", "")), event.start_ns, event.duration_ns
    if lines:
        return
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                stats = {name: value for name, value in event.stats if isinstance(name, str)}
                if "hlo_op" in stats:
                    yield event.name, str(stats["hlo_op"]), event.start_ns, event.duration_ns
