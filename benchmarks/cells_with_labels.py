"""Trains cells of searches, and random cells of their size, with labels on small CIFAR-10 images.

    python benchmarks/cells_with_labels.py --data_dir=DIR --nodes=2 --out=cells.csv \
        runs/rot_0/genotype.json runs/rot_1/genotype.json darts_v2
    python benchmarks/cells_with_labels.py --read=docs/results/search/cells.csv

Every cell is a path through the same single-path network, so that one program trains all of them;
it begins with the weights of its seed, and sees the same images in the same order as the others.
Cells with the name `random of NAME` are drawn with that cell's size, see `--twins`. Rows are added
to the file as trainings end; the same command again goes on where it was stopped. `--read` compares
groups of names without their ends `_NUMBER`, each with the random cells of its sizes.
"""

import argparse
import csv
import json
import os
import pathlib
import re
import time
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import pretext_curve
from configs import darts_cifar10, eval_cifar10
from unnas_jax.commands.story import random_cells
from unnas_jax.spaces import complexity, single_path
from unnas_jax.spaces.darts import published
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.tasks.base import Examples, evaluated, example_shapes

SIDE, BATCH, BLOCK = 16, 64, 40
"""Of images in pixels; images of a step; steps of a compiled piece."""

Row = dict[str, Any]
"""`name`, `seed`, `skips` of the normal cell, `parameters` of the network, `steps`, held-out `loss`
and `accuracy`, and the `genotype` as JSON."""

NAMES = ("name", "seed", "skips", "parameters", "steps", "loss", "accuracy", "genotype")


class Trainer:
    """One program for all cells with so many nodes."""

    def __init__(self, options: argparse.Namespace) -> None:
        """The network, its program and the images."""
        config = darts_cifar10.get_config()
        network = config.network
        network.nodes, network.cells, network.width = options.nodes, options.cells, options.width
        network.affine = True  # A cell from scratch has scale and bias.
        config.input.update(crop=SIDE, resize=SIDE, pad=SIDE // 8, cutout=0)
        config.dataset.data_dir = options.data_dir
        c = config.to_dict()
        self.task = complexity.task_of(c)
        self._paths = single_path.of_config(c).build(c, self.task)
        self._shapes = example_shapes(c, self.task)
        self._steps, self._images = options.steps, options.images
        rates = optax.cosine_decay_schedule(0.05, options.steps)
        self._tx = optax.chain(
            optax.clip_by_global_norm(5.0),
            optax.add_decayed_weights(3e-4),
            optax.sgd(rates, momentum=0.9),
        )
        self._train = jax.jit(self._block, donate_argnums=0)
        self._test = jax.jit(self._sums)
        self._data = pretext_curve.images_of(options.data_dir, "train", options.images, SIDE)
        self._held = pretext_curve.images_of(options.data_dir, "test", options.held_out, SIDE)

    def _examples(self, images: Any, labels: Any, key: Any, *, train: bool) -> Examples:
        batch = {"image": images, "label": labels}
        return self.task.examples(key, batch, train=train)

    def _block(self, state: Any, path: Any, images: Any, labels: Any, rows: Any, key: Any) -> Any:
        def step(state: Any, given: Any) -> Any:
            variables, opt = state
            chosen, number = given
            own = jax.random.fold_in(key, number)
            examples = self._examples(images[chosen], labels[chosen], own, train=True)

            def loss(params: Any) -> Any:
                outputs, statistics = self._paths.apply(
                    {**variables, "params": params}, examples.inputs, path, train=True
                )
                sums = self.task.score(outputs, examples, train=True)
                return sums["loss"] / sums["count"], statistics

            (value, statistics), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
            updates, opt = self._tx.update(grads, opt, variables["params"])
            params = optax.apply_updates(variables["params"], updates)
            return ({"params": params, "batch_stats": statistics}, opt), value

        rows, numbers = rows
        return jax.lax.scan(step, state, (rows, numbers))

    def _sums(self, variables: Any, path: Any, images: Any, labels: Any) -> Any:
        examples = self._examples(images, labels, jax.random.key(0), train=False)
        outputs, _ = self._paths.apply(variables, examples.inputs, path, train=False)
        return evaluated(self.task, outputs, examples)

    def run(self, cell: Genotype, seed: int) -> tuple[float, float]:
        """Trains a cell from scratch; loss and accuracy on held-out images."""
        path, key = self._paths.of(cell), jax.random.key(seed)
        variables = self._paths.init(jax.random.fold_in(key, 0), self._shapes.inputs)
        state = (dict(variables), self._tx.init(variables["params"]))
        rng = np.random.default_rng(seed)
        epochs = -(-self._steps * BATCH // self._images)
        rows = np.concatenate([rng.permutation(self._images) for _ in range(epochs)])
        rows = rows[: self._steps * BATCH].reshape(-1, BLOCK, BATCH).astype(np.int32)
        data = tuple(map(jnp.asarray, self._data))
        for k, block in enumerate(rows):
            numbers = np.arange(k * BLOCK, (k + 1) * BLOCK, dtype=np.int32)
            state, _ = self._train(state, path, *data, (block, numbers), jax.random.fold_in(key, 1))
        sums = {"loss": 0.0, "correct": 0.0, "count": 0.0}
        for first in range(0, len(self._held[0]) // BATCH * BATCH, BATCH):
            images, labels = (x[first : first + BATCH] for x in self._held)
            found = self._test(state[0], path, images, labels)
            sums = {name: total + float(found[name]) for name, total in sums.items()}
        return sums["loss"] / sums["count"], sums["correct"] / sums["count"]


def _config(options: argparse.Namespace, cell: Genotype) -> dict[str, Any]:
    """The config of a training of a cell alone, for its size."""
    config = eval_cifar10.get_config(str(cell))
    config.network.update(cells=options.cells, width=str(options.width), auxiliary_weight=0.0)
    config.input.update(crop=SIDE, resize=SIDE)
    config.dataset.data_dir = options.data_dir
    result: dict[str, Any] = config.to_dict()
    return result


def _parameters(options: argparse.Namespace, cell: Genotype) -> int:
    return int(complexity.of_config(_config(options, cell))["parameters"])


def _named(options: argparse.Namespace) -> list[tuple[str, Genotype]]:
    """Names and cells: those given, and their random ones."""
    result = []
    for text in options.cell:
        name = pathlib.Path(text).parent.name if os.path.exists(text) else text
        cell = published.resolve(text)
        result.append((name, cell))
        drawn = random_cells(_config(options, cell), cell, options.twins, zlib.crc32(name.encode()))
        result += [(f"random of {name}", other) for other in drawn]
    return result


def read(path: str | pathlib.Path) -> list[Row]:
    """The rows of a file; none if there is no file."""
    if not os.path.exists(path):
        return []
    kinds = {"seed": int, "skips": int, "parameters": int, "loss": float, "accuracy": float}
    with open(path, encoding="utf-8", newline="") as file:
        return [
            {name: kinds.get(name, str)(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def _train(options: argparse.Namespace) -> None:
    done = {(row["name"], row["genotype"], row["seed"]) for row in read(options.out)}
    trainer = Trainer(options)
    fresh = not os.path.exists(options.out)
    with open(options.out, "a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, NAMES, lineterminator="\n")
        if fresh:
            writer.writeheader()
        named = _named(options)
        work = [(*each, seed) for seed in options.seeds for each in named]
        for number, (name, cell, seed) in enumerate(work):
            text = json.dumps(cell.as_dict(), separators=(",", ":"))
            if (name, text, seed) in done:
                continue
            start = time.perf_counter()
            loss, accuracy = trainer.run(cell, seed)
            skips = sum(operation == "skip_connect" for operation, _ in cell.normal)
            row = {"name": name, "seed": seed, "skips": skips, "steps": options.steps}
            row |= {"parameters": _parameters(options, cell), "genotype": text}
            writer.writerow(row | {"loss": round(loss, 5), "accuracy": round(accuracy, 5)})
            file.flush()
            print(
                f"{number + 1} of {len(work)}: {name}, seed {seed}: {accuracy:.4f}, "
                f"{time.perf_counter() - start:.1f} s",
                flush=True,
            )


def compare(rows: Sequence[Row]) -> list[Row]:
    """Groups of cells against random cells of their sizes.

    Args:
      rows: of trainings.

    Returns:
      for each group `cells`, the mean `accuracy` and `spread` (deviation) over cells, the mean
      `difference` of a cell (its seeds' mean) from the mean of its random ones, the ends `low`,
      `high` of its 95% interval (Student's t over cells), `p` of the two-sided permutation test of
      signs, and `asked`, the pairs that the spread asks for if the difference is real (power 0.8).
    """
    from scipy import stats

    means: dict[str, list[float]] = {}
    for row in rows:
        means.setdefault(row["name"], []).append(row["accuracy"])
    groups: dict[str, list[tuple[float, float]]] = {}
    for name, values in means.items():
        if not name.startswith("random of "):
            others = means.get(f"random of {name}", [])
            group = groups.setdefault(re.sub(r"_\d+$", "", name), [])
            group.append((float(np.mean(values)), float(np.mean(others)) if others else np.nan))
    result = []
    for name, pairs in groups.items():
        own = np.array(pairs)
        found: Row = {"group": name, "cells": len(own), "accuracy": own[:, 0].mean()}
        found["spread"] = own[:, 0].std(ddof=1) if len(own) > 1 else np.nan
        difference = own[:, 0] - own[:, 1]
        found["difference"] = difference.mean()
        if len(own) > 1 and not np.isnan(difference).any():
            deviation = difference.std(ddof=1)
            half = stats.t.ppf(0.975, len(own) - 1) * deviation / np.sqrt(len(own))
            found["low"], found["high"] = difference.mean() - half, difference.mean() + half
            signs = np.array(np.meshgrid(*[[-1, 1]] * len(own))).reshape(len(own), -1)
            flipped = np.abs((signs * difference[:, None]).mean(0))
            found["p"] = float(np.mean(flipped >= abs(difference.mean()) - 1e-12))
            found["asked"] = int(
                np.ceil((2.8 * deviation / max(abs(difference.mean()), 1e-9)) ** 2)
            )
        result.append(found)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the program."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cell", nargs="*", help="genotype.json files or names of published cells")
    parser.add_argument("--data_dir", default="", help="where CIFAR-10 was prepared")
    parser.add_argument("--out", default="cells.csv", help="the file of rows")
    parser.add_argument("--read", help="only compares the rows of this file")
    parser.add_argument("--nodes", type=int, default=2, help="of the cells")
    parser.add_argument("--cells", type=int, default=3, help="of a network")
    parser.add_argument("--width", type=int, default=8, help="of a network")
    parser.add_argument("--twins", type=int, default=1, help="random cells for each")
    parser.add_argument("--steps", type=int, default=480, help="of a training")
    parser.add_argument("--images", type=int, default=20_000, help="to train on")
    parser.add_argument("--held_out", type=int, default=4_000, help="to test on")
    parser.add_argument("--seeds", type=lambda text: [int(k) for k in text.split(",")], default=[0])
    options = parser.parse_args(arguments)
    if options.steps % BLOCK:
        parser.error(f"--steps={options.steps}: give a multiple of {BLOCK}")
    if not options.read:
        _train(options)
    for row in compare(read(options.read or options.out)):
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}))


if __name__ == "__main__":
    main()
