"""Time, compile time and memory of a search step, as the search runs it and edge by edge.

    python benchmarks/search_step.py --config=configs/rot_in1k.py --batch=16 --crop=64 --cells=3

The last line is JSON: for each formulation compile_s (cold), cached_s (from the persistent
cache), step_s (one alpha and one weight step, median), images_per_s (images of both halves,
before the task multiplies them) and peak_bytes (XLA's figure for the gradient function).
The formulations take turns, so that a machine whose speed drifts is fair to both.
"""

import argparse
import functools
import json
import os
import pathlib
import runpy
import statistics
import sys
import tempfile
import time
from typing import Any

# Before jax is imported: a cold cache, which the second compilation then finds warm.
_CACHE = tempfile.TemporaryDirectory()
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import per_edge  # noqa: E402
from unnas_jax import bilevel, config, precision, sharding  # noqa: E402
from unnas_jax.data import Dataset  # noqa: E402
from unnas_jax.tasks import registry  # noqa: E402
from unnas_jax.tasks.base import Task  # noqa: E402


class PerEdge:
    """The plain formulation with the interface of a linen module."""

    def __init__(self, c: dict[str, Any], task: Task) -> None:
        head = task.head(precision.compute_dtype(c["precision"]))
        self._dtype = precision.compute_dtype(c["precision"])
        self._run = functools.partial(
            per_edge.supernet,
            **c["network"],
            head_apply=lambda params, x: head.apply({"params": params}, x, True),
            single_reduction=task.single_reduction,
        )

    def apply(
        self, variables: Any, inputs: jax.Array, alphas: Any, *, train: bool, mutable: Any = None
    ) -> Any:
        """Like `linen.Module.apply`."""
        outputs, batch_stats = self._run(
            variables["params"],
            variables["batch_stats"],
            inputs.astype(self._dtype),
            alphas,
            train=train,
        )
        return (outputs, {"batch_stats": batch_stats}) if mutable else outputs


def _load(path: str) -> dict[str, Any]:
    loaded = runpy.run_path(path)["get_config"]()
    config.validate(loaded)
    values: dict[str, Any] = loaded.to_dict()
    return values


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="configs/rot_in1k.py")
    parser.add_argument("--batch", type=int, help="images of a step; default: the config's")
    parser.add_argument("--crop", type=int, help="pixels; default: the config's")
    parser.add_argument("--cells", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each formulation")
    parser.add_argument("--only", choices=["search", "per_edge"])
    options = parser.parse_args()
    c = _load(options.config)
    for section, key, value in (
        ("train", "batch_size", options.batch),
        ("input", "crop", options.crop),
        ("network", "cells", options.cells),
        ("network", "width", options.width),
    ):
        if value is not None:
            c[section][key] = value

    task = registry.create(c, Dataset("random", {}, 1000, ()))
    mesh = sharding.data_mesh()
    size, crop = c["train"]["batch_size"], c["input"]["crop"]
    rng = np.random.default_rng(0)
    batch = sharding.to_devices(
        {
            "image": rng.integers(0, 256, (size, crop, crop, 3), np.uint8),
            "label": rng.integers(0, task.num_classes, (size,), np.int32),
        },
        mesh,
    )

    def measured(network: Any) -> tuple[Any, Any, dict[str, Any]]:
        steps = bilevel.build_steps(c, task, mesh, 1000, network)
        state = steps.init()
        arguments = (state, batch, jax.device_put(np.int32(0), sharding.replicated(mesh)))
        of = "both" if jax.default_backend() == "cpu" else "weights"
        lowered = steps.gradients.lower(*arguments, of=of)
        start = time.perf_counter()
        compiled = lowered.compile()
        row: dict[str, Any] = {"compile_s": time.perf_counter() - start}
        jax.clear_caches()
        lowered = steps.gradients.lower(*arguments, of=of)
        start = time.perf_counter()
        lowered.compile()
        row["cached_s"] = time.perf_counter() - start
        memory = compiled.memory_analysis()
        row["peak_bytes"] = (
            memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
        )
        return steps, state, row

    formulations = {"search": None, "per_edge": PerEdge(c, task)}
    if options.only:
        formulations = {options.only: formulations[options.only]}
    runs = {name: measured(network) for name, network in formulations.items()}
    states = {name: state for name, (_, state, _) in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(options.steps + 1):
        for name, (steps, _, _) in runs.items():
            start = time.perf_counter()
            states[name], _ = steps.alphas(states[name], batch, batch)
            states[name], sums = steps.weights(states[name], batch)
            jax.block_until_ready((states[name], sums))
            if turn:  # The first one compiles the small functions.
                times[name].append(time.perf_counter() - start)
    result: dict[str, Any] = {
        "config": options.config,
        "batch": size,
        "crop": crop,
        "cells": c["network"]["cells"],
        "width": c["network"]["width"],
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
    }
    for name, (_, _, row) in runs.items():
        step = statistics.median(times[name])
        result[name] = {
            **{key: round(value, 3) for key, value in row.items()},
            "step_s": round(step, 4),
            "images_per_s": round(2 * size / step, 2),
        }
        print(f"{name}: {result[name]}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
