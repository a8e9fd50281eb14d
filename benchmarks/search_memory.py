"""The memory and the processor time of a process that takes two steps of a search.

    python benchmarks/search_memory.py --config=darts_cifar10 --batch=40 --cache=DIR

A step is one alpha and one weight step. The first call with a cache compiles, and its peak is that
of the compiler and of the steps; the second finds the programs there, and its peak is that of the
steps. Images are random. Lines tell the processor seconds and the peak so far; the last is JSON.
"""

import argparse
import json
import pathlib
import resource
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import numpy as np  # noqa: E402

from unnas_jax.commands import command_line  # noqa: E402
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import sharding
from unnas_jax.data import Dataset
from unnas_jax.methods import registry as methods
from unnas_jax.methods.base import Setting
from unnas_jax.runs import validation
from unnas_jax.tasks import registry  # noqa: E402


def _so_far() -> dict[str, float]:
    """Processor seconds and the peak of the memory, which Linux counts in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"cpu_s": round(time.process_time(), 1), "peak_bytes": peak}


def main() -> None:
    """Takes the steps."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--config", default="darts_cifar10")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--cells", type=int, default=3)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--cache", required=True, help="where the compiled programs are kept")
    options = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", options.cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    loaded = command_line.read_config(options.config)
    loaded.train.batch_size = options.batch
    loaded.network.cells, loaded.network.width = options.cells, options.width
    validation.validate(loaded)
    c = loaded.to_dict()
    task = registry.create(c, Dataset("random", {}, 1000, ()))
    mesh, crop = sharding.data_mesh(), c["input"]["crop"]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.batch, crop, crop, 3), np.uint8)
    labels = rng.integers(0, 10, options.batch, np.int32)
    batch = sharding.to_devices({"image": images, "label": labels}, mesh)
    steps = methods.of_config(c)(Setting(MethodConfig.of(c), task, mesh, 1000))
    state = steps.init()
    print(f"first weights: {_so_far()}", flush=True)
    for number in (1, 2):
        state, _ = steps.alpha_step(state, batch, batch)
        state, sums = steps.weight_step(state, batch)
        jax.block_until_ready((state, sums))
        print(f"step {number}: {_so_far()}", flush=True)
    settings = {name: value for name, value in vars(options).items() if name != "cache"}
    print(json.dumps(settings | _so_far()))


if __name__ == "__main__":
    main()
