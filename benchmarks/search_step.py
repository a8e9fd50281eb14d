"""Time, compile time and memory of a search step, in several formulations.

    python benchmarks/search_step.py --config=configs/rot_in1k.py --batch=16 --crop=64
    python benchmarks/search_step.py --only=depthwise,torch --batch=16 --crop=64
    python benchmarks/search_step.py --config=configs/darts_cifar10.py --only=auto --batch=64 \
        --cells=3 --width=16 --against=configs/pcdarts_cifar10.py
    python benchmarks/search_step.py --topology=v5e:1x1 --cells=3 --only=dense,per_edge --quick

`auto` is what the search runs on this machine; `dense` and `depthwise` its two forms by source
state; `per_edge` is the plain definition in JAX; `torch` the same in eager PyTorch, with the same
weights (for rotation, if torch is installed; its loss and alpha gradients are compared first), in
a process of its own, because in one process both libraries' threads would disturb each other, and
as any PyTorch starts (for the others on a CPU, as `launch/local.sh` starts searches, first:
export GLIBC_TUNABLES=$(python -m unnas_jax.core.memory));
`against` what another search runs on this machine, by its own method and of the same size.

The last line is JSON. For each formulation compile_s (cold), cached_s (the same in a new process,
from the persistent cache), step_s (one alpha and one weight step, median), images_per_s (images of
both halves, before the task multiplies them), flops (of a step, as XLA counts them), mfu (their
share of the peak of a known accelerator), peak_bytes (of the gradient function, as XLA plans it)
and its collectives (XLA_FLAGS=--xla_force_host_platform_device_count=4 makes four devices of a
CPU). The formulations take turns, so that a machine whose speed drifts is fair to all. With
--topology nothing runs: the programs are compiled for a TPU slice that need not be here, and
compared by FLOPs, by the cycles that XLA expects, by the bytes that their operations access and by
those of them in HBM (--quick, XLA's least effort, leaves everything there).
"""

import argparse
import concurrent.futures
import contextlib
import importlib.util
import json
import multiprocessing
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from unnas_jax.core import memory  # noqa: E402

if __name__ == "__main__":
    memory.dispatch_at_once()  # As searches do.

import jax  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import chips, turns  # noqa: E402
from unnas_jax.commands import command_line, hlo, slices
from unnas_jax.commands import compile as aot  # noqa: E402
from unnas_jax.config import schema as config
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import compilation, sharding
from unnas_jax.data import Dataset  # noqa: E402
from unnas_jax.methods import registry as methods
from unnas_jax.methods.base import Setting
from unnas_jax.runs import validation
from unnas_jax.tasks import registry  # noqa: E402
from unnas_jax.tasks.base import Task  # noqa: E402

FORMULATIONS = ("auto", "dense", "depthwise", "per_edge", "torch")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--config", default="configs/rot_in1k.py")
    parser.add_argument("--against", metavar="CONFIG", help="time another search's step, too")
    parser.add_argument("--batch", type=int, help="images of a step; default: the config's")
    parser.add_argument("--crop", type=int, help="pixels; default: the config's")
    parser.add_argument("--cells", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--rematerialise", choices=config.REMATERIALISE)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each formulation")
    parser.add_argument(
        "--only", default="auto,per_edge,torch", help="some of " + str(FORMULATIONS)
    )
    parser.add_argument("--topology", help="compile for this TPU slice, e.g. v5e:1x1; run nothing")
    parser.add_argument("--quick", action="store_true", help="with XLA's least effort for it")
    parser.add_argument("--profile", metavar="DIR", help="write a profile of a step of the first")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error(f"--steps={options.steps}: at least 1")
    options.only = options.only.split(",")
    if unknown := set(options.only) - set(FORMULATIONS):
        parser.error(f"--only={unknown.pop()}: no such formulation; use some of {FORMULATIONS}")
    if "torch" in options.only and importlib.util.find_spec("torch") is None:
        print("torch is not installed: that side is left out (pip install '.[torch]')")
        options.only.remove("torch")
    return options


def _config(options: argparse.Namespace, name: str) -> dict[str, Any]:
    loaded = command_line.read_config(options.against if name == "against" else options.config)
    validation.validate(loaded)
    c: dict[str, Any] = loaded.to_dict()
    for section, key, value in (
        ("train", "batch_size", options.batch),
        ("input", "crop", options.crop),
        ("network", "cells", options.cells),
        ("network", "width", options.width),
        ("search", "rematerialise", options.rematerialise),
    ):
        if value is not None:
            c[section][key] = value
    if name in FORMULATIONS and name != "torch":
        c["search"]["formulation"] = name
    return c


def _steps(c: dict[str, Any], task: Task, mesh: Any) -> Any:
    return methods.of_config(c)(Setting(MethodConfig.of(c), task, mesh, 1000))


def _use_cache(directory: str) -> None:
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _compiled(c: dict[str, Any], task: Task) -> tuple[Any, compilation.Compilation]:
    """Compiles the part of a step that costs: the program, and how long that took."""
    mesh = sharding.data_mesh()
    steps = _steps(c, task, mesh)
    purpose = jax.ShapeDtypeStruct((), np.int32, sharding=sharding.replicated(mesh))
    of = "both" if jax.default_backend() == "cpu" else "weights"
    batch = aot.batch_shapes(c, task, mesh)
    lowered = steps.programs.gradients.lower(steps.shapes(), batch, purpose, of=of)
    with compilation.measured() as found:
        program = lowered.compile()
    return program, found


def _cached_seconds(name: str, c: dict[str, Any], task: Task, cache: str) -> float:
    """How long a process takes that finds the program in the cache."""
    _use_cache(cache)
    _, found = _compiled(c, task)
    if not found.cache_hits:
        raise SystemExit(f"{name}: the second compilation did not find the first one's program")
    return found.seconds


def _compilation(name: str, c: dict[str, Any], task: Task, cache: str) -> dict[str, Any]:
    """Compile times, memory and FLOPs of the part of a step that costs."""
    compiled, found = _compiled(c, task)
    other = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=other) as process:
        cached = process.submit(_cached_seconds, name, c, task, cache).result()
    plan, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    return {
        "compile_s": round(found.seconds, 2),
        "cached_s": round(cached, 2),
        "peak_bytes": (
            plan.temp_size_in_bytes + plan.argument_size_in_bytes + plan.output_size_in_bytes
        ),
        "flops": 2 * cost.get("flops", 0.0),  # An alpha and a weight step.
        "collectives": hlo.collectives(compiled.as_text()),
    }


def _step(steps: Any, state: Any, batch: Any) -> Callable[[], float]:
    """A function that takes one alpha and one weight step; how long they took."""
    held = {"state": state}

    def step() -> float:
        start = time.perf_counter()
        held["state"], _ = steps.alpha_step(held["state"], batch, batch)
        held["state"], sums = steps.weight_step(held["state"], batch)
        jax.block_until_ready((held["state"], sums))
        return time.perf_counter() - start

    return step


class _Torch:
    """The supernet and its steps in PyTorch, in a process of its own."""

    def __init__(self, c: dict[str, Any], tensors: Any, classes: int, images: np.ndarray) -> None:
        import torch

        from benchmarks import torch_supernet

        self._model = torch_supernet.of_variables(tensors, classes, c["network"])
        self._run = torch_supernet.rotation_step(self._model, c)
        self._images = torch.tensor(images).permute(0, 3, 1, 2)

    def gradients(self, inputs: np.ndarray, targets: np.ndarray) -> tuple[float, dict[str, Any]]:
        from benchmarks import torch_supernet

        return torch_supernet.loss_and_alpha_gradients(self._model, inputs, targets)

    def step(self) -> float:
        return float(self._run(self._images))


def _torch_step(
    stack: contextlib.ExitStack, c: dict[str, Any], steps: Any, task: Task, batch: Any, mesh: Any
) -> Callable[[], float]:
    """The same step in PyTorch, once both sides agree on a loss and its alpha gradients."""
    from unnas_jax import convert

    if c["task"]["name"] != "rotation":
        raise SystemExit("torch: only rotation is written for it; leave it out with --only")
    state = steps.init()
    variables = jax.device_get(
        {name: getattr(state, name) for name in ("params", "batch_stats", "alphas")}
    )
    tensors = convert.params_to_torch(variables, c)
    images = np.asarray(batch["image"])
    arguments = (c, tensors, task.num_classes, images)
    as_usual = {memory.VARIABLE: ""}
    side = stack.enter_context(turns.started("torch", _Torch, *arguments, variables=as_usual))
    purpose, zero = 0, jax.device_put(np.int32(0), sharding.replicated(mesh))
    _, alphas, _, sums = steps.programs.gradients(state, batch, zero, of="both")
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(c["seed"]), purpose), 0)
    examples = jax.device_get(task.examples(key, jax.device_get(batch), train=True))
    loss, expected = side.turn("gradients", examples.inputs, examples.targets).result
    np.testing.assert_allclose(float(sums["loss"] / sums["count"]), loss, rtol=1e-4)
    for kind, gradient in expected.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(alphas[kind], gradient, rtol=0, atol=5e-3 * scale)
    print("torch computes the same loss and alpha gradients.")
    return lambda: side.turn("step").wall_s


def run(options: argparse.Namespace, c: dict[str, Any], task: Task) -> dict[str, Any]:
    """Times the formulations, and what else is asked for, by turns; returns what is printed."""
    with tempfile.TemporaryDirectory() as cache, contextlib.ExitStack() as stack:
        _use_cache(cache)
        return _timed(options, c, task, cache, stack)


def _timed(
    options: argparse.Namespace,
    c: dict[str, Any],
    task: Task,
    cache: str,
    stack: contextlib.ExitStack,
) -> dict[str, Any]:
    mesh = sharding.data_mesh()
    size, crop = c["train"]["batch_size"], c["input"]["crop"]
    sharding.check_batch_size("train.batch_size", size, mesh)
    rng = np.random.default_rng(0)
    labels = (size, crop, crop) if task.label_maps else (size,)
    batch = sharding.to_devices(
        {
            "image": rng.integers(0, 256, (size, crop, crop, 3), np.uint8),
            "label": rng.integers(0, task.num_classes, labels, np.int32),
        },
        mesh,
    )
    rows: dict[str, dict[str, Any]] = {}
    timed: dict[str, Callable[[], float]] = {}
    for name in [*options.only, *(["against"] if options.against else [])]:
        own = _config(options, name)
        steps = _steps(own, task, mesh)
        if name == "torch":
            rows[name], timed[name] = {}, _torch_step(stack, own, steps, task, batch, mesh)
        else:
            rows[name] = _compilation(name, own, task, cache)
            timed[name] = _step(steps, steps.init(), batch)
    times: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(options.steps + 1):
        for name, step in timed.items():
            seconds = step()
            if turn:  # The first one compiles the small functions.
                times[name].append(seconds)
    if options.profile:
        with jax.profiler.trace(options.profile):
            timed[options.only[0]]()
    kind = jax.devices()[0].device_kind
    peak = chips.peak_flops(kind)
    for name, row in rows.items():
        step_s = statistics.median(times[name])
        row |= {"step_s": round(step_s, 4), "images_per_s": round(2 * size / step_s, 2)}
        if peak and "flops" in row:
            row["mfu"] = round(row["flops"] / step_s / (peak * mesh.size), 4)
        print(f"{name}: {row}")
    return {"backend": jax.default_backend(), "device": kind, "devices": mesh.size, **rows}


def plan(options: argparse.Namespace, c: dict[str, Any], task: Task) -> dict[str, Any]:
    """Compiles the formulations for a slice that is not here; returns what is printed."""
    mesh = slices.mesh_of(options.topology)
    sharding.check_batch_size("train.batch_size", c["train"]["batch_size"], mesh)
    batch = aot.batch_shapes(c, task, mesh)
    rows: dict[str, Any] = {"topology": options.topology, "devices": mesh.size}
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        for name in options.only:
            if name == "torch":
                continue
            programs = _steps(_config(options, name), task, mesh).lower(batch)
            needs = [aot.needs_of(part[0], quick=options.quick) for part in programs.values()]
            rows[name] = {
                key: sum(need[key] for need in needs)
                for key in ("flops", "cycles", "bytes_accessed", "hbm_bytes", "compile_seconds")
            }
            rows[name]["temporaries"] = max(need["temporaries"] for need in needs)
            print(f"{name}: {rows[name]}")
    return rows


def _print(options: argparse.Namespace) -> None:
    c = _config(options, "auto")
    task = registry.create(c, Dataset("random", {}, 1000, ()))
    settings = {
        "config": options.config,
        "batch": c["train"]["batch_size"],
        "crop": c["input"]["crop"],
        "cells": c["network"]["cells"],
        "width": c["network"]["width"],
        "rematerialise": c["search"]["rematerialise"],
    }
    print(json.dumps(settings | (plan if options.topology else run)(options, c, task)))


def main() -> int:
    """Measures and prints; returns the exit status."""
    options = _options()
    with command_line.user_errors() as outcome:
        _print(options)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
