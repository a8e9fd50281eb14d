"""How the ranks of cells by each task's accuracy, and loss, agree with published accuracies.

    python benchmarks/pretext_curve.py --table=nasbench201.csv --data_dir=DIR --out=curve.csv
    python benchmarks/pretext_curve.py --read=docs/results/curve/nasbench201.csv --figure=curve.png

Trains networks of the first cells of a table together (see lockstep.py) on CIFAR-10: for every
task and seed from scratch, with a cosine to the end of each length; lengths double until the time
is up. The file is written anew after every training. docs/results/curve has what came out.
"""

import argparse
import csv
import json
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import lockstep
from configs import sample_nasbench201_cifar10
from unnas_jax.analysis import statistics
from unnas_jax.config import schema
from unnas_jax.data import decoding, open_dataset
from unnas_jax.spaces import complexity
from unnas_jax.spaces.nasbench201 import spec as spec_lib
from unnas_jax.sweep.scores import batches
from unnas_jax.tasks.base import Task, example_shapes

SIDES = {"classification": 16, "colorization": 16, "rotation": 16, "jigsaw": 32}
"""Of images in pixels; the tiles of jigsaws have 12."""

RATES = {"classification": 0.1, "colorization": 0.1, "rotation": 0.05, "jigsaw": 0.05}
"""Learning rates for 256 inputs: the recipes', of rotation and jigsaw by the size of the batch."""

Row = dict[str, Any]
"""`task`, `seed`, `steps`, `inputs`, `cell`, `published`, `accuracy` and `loss` of one network."""

INPUTS = 256
"""Inputs of a batch; rotation and jigsaw make four of an image."""


def task_of(name: str, cell: str, side: int) -> tuple[dict[str, Any], Task]:
    """The unit's config of a sample on CIFAR-10 at a side, and its task."""
    config = sample_nasbench201_cifar10.get_config()
    c: dict[str, Any] = schema.of_unit(config, name, cell).to_dict()
    c["precision"] = "bfloat16" if jax.default_backend() == "gpu" else "float32"
    c["input"].update(crop=side, resize=side, pad=side // 8 if c["input"]["pad"] else 0)
    return c, complexity.task_of(c)


def images_of(data_dir: str, split: str, count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images of a split, (count, side, side, 3) uint8, and their labels."""
    dataset = open_dataset(batches.section("cifar10", data_dir))
    records = dataset.splits[split]
    images, labels = [], []
    for number in np.random.default_rng(0).permutation(len(records))[:count].tolist():
        record = records[number]
        image = decoding.decode(record["image"], apply_exif=dataset.apply_exif)
        parts = image.reshape(side, 32 // side, side, 32 // side, 3).astype(np.float32)
        images.append(np.round(parts.mean((1, 3))).astype(np.uint8))
        labels.append(record["label"])
    return np.stack(images), np.array(labels, np.int32)


class Curve:
    """The trainings of one task, of any length and seed, in compiled pieces of `block` steps."""

    def __init__(self, name: str, cells: list[str], options: argparse.Namespace) -> None:
        """A task's programs and data."""
        side = SIDES[name]
        c, task = task_of(name, cells[0], side)
        dtype = jnp.bfloat16 if c["precision"] == "bfloat16" else jnp.float32
        specs = [spec_lib.parse(cell) for cell in cells]
        self._nets = lockstep.Lockstep(specs, task, options.width, dtype)
        self._inputs = example_shapes(c, task, task_group(name)).inputs
        self.name, self.batch = name, INPUTS // task_group(name)
        self._train = images_of(options.data_dir, "train", options.images, side)
        self._test = images_of(options.data_dir, "test", options.held_out, side)
        nets = self._nets
        self._steps = jax.jit(
            lambda *given: lockstep.steps(nets, *given),
            donate_argnums=0,
        )
        self._evaluate = jax.jit(lambda *given: lockstep.evaluate(nets, *given))

    def run(self, steps: int, seed: int, block: int) -> list[Row]:
        """Trains to the end of a length; a row for every cell, of held-out images."""
        start = time.perf_counter()
        count, rng = len(self._train[0]), np.random.default_rng(1000 + seed)
        epochs = -(-steps * self.batch // count)
        rows = np.concatenate([rng.permutation(count) for _ in range(epochs)])
        rows = rows[: steps * self.batch].reshape(-1, block, self.batch).astype(np.int32)
        rates = RATES[self.name] * 0.5 * (1 + np.cos(np.pi * np.arange(steps) / steps))
        rates = rates.reshape(-1, block).astype(np.float32)
        state = lockstep.begin(self._nets, self._inputs, jnp.int32(seed))
        data = [jax.device_put(x) for x in self._train]
        for some, rate in zip(rows, rates, strict=True):
            state, _ = self._steps(state, *data, some, rate)
        held = np.arange(len(self._test[0]) // self.batch * self.batch, dtype=np.int32)
        sums = self._evaluate(state, *map(jnp.asarray, self._test), held.reshape(-1, self.batch))
        found = {key: np.asarray(value, np.float64) for key, value in sums.items()}
        accuracy, loss = (found[key] / found["count"] for key in ("correct", "loss"))
        print(
            f"{self.name}, seed {seed}, {steps} steps: {accuracy.mean():.4f} in the mean of "
            f"{len(accuracy)} cells, {time.perf_counter() - start:.1f} s",
            flush=True,
        )
        same = {"task": self.name, "seed": seed, "steps": steps, "inputs": steps * INPUTS}
        return [
            {**same, "accuracy": round(a, 5), "loss": round(b, 5)}
            for a, b in zip(accuracy.tolist(), loss.tolist(), strict=True)
        ]


def task_group(name: str) -> int:
    """Inputs that a task makes of an image here."""
    return 4 if name in ("rotation", "jigsaw") else 1


def rank_correlations(rows: Sequence[Row]) -> list[Row]:
    """Spearman's rho with published accuracies by task and length, from the means over seeds.

    Args:
      rows: of networks.

    Returns:
      for each task and length `accuracy` and `loss` (of its negative): rho and the ends of its 95%
      interval (bootstrap over cells).
    """
    groups: dict[tuple[str, int], dict[str, list[Row]]] = {}
    for row in rows:
        group = groups.setdefault((row["task"], row["steps"]), {})
        group.setdefault(row["cell"], []).append(row)
    result = []
    for (task, steps), cells in groups.items():
        found: Row = {"task": task, "steps": steps}
        found["seeds"] = max(map(len, cells.values()))
        published = [seeds[0]["published"] for seeds in cells.values()]
        for kind, sign in (("accuracy", 1.0), ("loss", -1.0)):
            values = [sign * np.mean([seed[kind] for seed in seeds]) for seeds in cells.values()]
            rho = statistics.spearman(values, published)
            found[kind] = [round(float(x), 3) for x in (rho.rho, rho.low, rho.high)]
        result.append(found)
    return result


def read(path: str) -> list[Row]:
    """The rows of a file that this program wrote."""
    with open(path, encoding="utf-8") as file:
        return [
            {
                **row,
                **{key: int(row[key]) for key in ("seed", "steps", "inputs")},
                **{key: float(row[key]) for key in ("published", "accuracy", "loss")},
            }
            for row in csv.DictReader(file)
        ]


def _write(path: pathlib.Path, rows: Sequence[Row]) -> None:
    names = ("task", "seed", "steps", "inputs", "cell", "published", "accuracy", "loss")
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def draw(found: Sequence[Row], path: str) -> None:
    """A picture of `rank_correlations`: by accuracy and by loss, over the length."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, kind in zip(axes, ("accuracy", "loss"), strict=True):
        for number, task in enumerate(RATES):
            rows = sorted((row for row in found if row["task"] == task), key=lambda r: r["steps"])
            values = np.array([row[kind] for row in rows])
            inputs = np.array([row["steps"] * INPUTS for row in rows]) * 1.03 ** (number - 1.5)
            errors = np.abs(values[:, 1:] - values[:, :1]).T
            axis.errorbar(inputs, values[:, 0], errors, marker="o", capsize=3, label=task)
        axis.set(xscale="log", xlabel="training inputs of a network", title=f"by {kind}")
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="Spearman's rho with published accuracy", ylim=(0, 1))
    axes[0].legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)


def _train(options: argparse.Namespace) -> list[Row]:
    start = time.monotonic()
    with open(options.table, encoding="utf-8") as file:
        table = list(csv.DictReader(file))[: options.cells]
    cells = [row["cell"] for row in table]
    known = [{"cell": row["cell"], "published": row["cifar10valid"]} for row in table]
    curves = [Curve(name, cells, options) for name in options.tasks.split(",")]
    rows: list[Row] = []
    steps, taken = options.steps, 0.0
    while time.monotonic() - start + 2 * taken < 60 * options.minutes:
        begun = time.monotonic()
        for seed in range(options.seeds):
            for curve in curves:
                found = curve.run(steps, seed, min(options.block, steps))
                rows += [{**a, **b} for a, b in zip(known, found, strict=True)]
                _write(options.out, rows)
        steps, taken = 2 * steps, time.monotonic() - begun
    return read(options.out)


def main(arguments: list[str] | None = None) -> int:
    """Trains or reads, prints the correlations and draws; returns the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--read", default="", help="rows from before, instead of training")
    parser.add_argument("--figure", default="", help="a picture to draw")
    parser.add_argument("--table", help="CSV with `cell` and `cifar10valid`")
    parser.add_argument("--data_dir", default="", help="of the prepared dataset cifar10")
    parser.add_argument("--out", type=pathlib.Path, help="CSV to write")
    parser.add_argument("--tasks", default="rotation,classification,jigsaw,colorization")
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--images", type=int, default=25_000)
    parser.add_argument("--held_out", type=int, default=3_840)
    parser.add_argument("--steps", type=int, default=256, help="of the shortest length")
    parser.add_argument("--block", type=int, default=64, help="steps of a compiled piece")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args(arguments)
    if not options.read and not (options.table and options.out):
        parser.error("give --read, or --table and --out")
    if unknown := set(options.tasks.split(",")) - set(RATES):
        parser.error(f"--tasks: {unknown.pop()} is none of {', '.join(RATES)}")
    if options.held_out < INPUTS:
        parser.error(f"--held_out={options.held_out}: give {INPUTS} at least, a batch")
    if options.steps % min(options.block, options.steps):
        parser.error(f"--steps={options.steps}: must be a multiple of --block={options.block}")
    for path in filter(None, (options.read, options.table)):
        if not pathlib.Path(path).is_file():
            parser.error(f"{path}: no such file")
    found = rank_correlations(read(options.read) if options.read else _train(options))
    for row in found:
        print(json.dumps(row))
    if options.figure:
        draw(found, options.figure)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
