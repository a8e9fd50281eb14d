"""What searches in NAS-Bench-201 find, looked up in published accuracies.

    python benchmarks/nasbench201_searches.py search --data_dir=DIR --out=DIR
    python benchmarks/nasbench201_searches.py look_up --table=nasbench201.csv --out=DIR

`search` runs every method with every task and seed on CIFAR-10 at 16 pixels (jigsaw: tiles of 12,
of 32), one after the other, and appends a row to DIR/cells.csv for each; what is there is not run
again, so it may be stopped at any time. `look_up` needs a table of all 15,625 cells with columns
cell (lists of numbers, see `spec.from_numbers`), cifar10valid, cifar100, imagenet16; it writes
DIR/found.csv and DIR/found.png, and prints the tables of docs/results/search/README.md.
"""

import argparse
import csv
import itertools
import json
import pathlib
import shutil
import sys
import time
from typing import Any

import ml_collections
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from unnas_jax.config import recipes  # noqa: E402
from unnas_jax.core import logs  # noqa: E402
from unnas_jax.methods import registry  # noqa: E402
from unnas_jax.runs import search as search_lib  # noqa: E402
from unnas_jax.spaces.nasbench201 import spec  # noqa: E402

TASKS = {"rotation": "rot", "colorization": "col", "jigsaw": "jig", "classification": "cls"}
LABELS = {"classification"}
METHODS = ("darts", "gdas", "single_path", "pc_darts", "dartsminus", "rdarts_l2", "sdarts_rs",
           "fair_darts")  # fmt: skip
COLUMNS = ("task", "method", "seed", "steps", "cell", "skips", "entropy", "loss", "accuracy",
           "seconds", "eigenvalue")  # fmt: skip
BENCHMARKS = ("cifar10valid", "cifar100", "imagenet16")


def config_of(
    task: str, method: str, seed: int, options: argparse.Namespace
) -> ml_collections.ConfigDict:
    """A search of 16 images a step, 32 of tasks that make one example of an image.

    Args:
      method: of the registry, or a remedy of `darts`.
      options: of the command line.
    """
    config = recipes.nasbench201(TASKS[task])
    config.seed, config.dataset.data_dir, config.workers = seed, options.data_dir, 0
    side = 32 if task == "jigsaw" else 16
    config.input.update(crop=side, resize=side, pad=2 if config.input.pad else 0)
    config.network.update(width=8, cells=3)
    size, epochs = config.train.batch_size // 2, options.epochs
    config.train.update(batch_size=size, epochs=epochs, max_images=size * options.steps // epochs)
    config.weights.update(learning_rate=0.05, final_learning_rate=0.0)
    config.alphas.learning_rate = 0.03
    config.eval.update(max_images=512, batch_size=256)
    config.log_every_steps, config.trackers = 64, ()
    name, own = method, dict[str, Any]()
    if method == "single_path":
        own = {"candidates": 100, "bn_images": 128, "criterion": "loss"}
    elif method == "pc_darts":
        config.network.partial_channels = 4
        config.search.arch_start_epoch = 0.3 * epochs  # Of 50 epochs the recipe's alphas rest 15.
    elif method == "dartsminus":
        name, config.network.auxiliary_skip = "darts", True
    elif method == "rdarts_l2":
        name, config.weights.weight_decay = "darts", 9 * config.weights.weight_decay
    elif method == "sdarts_rs":
        name, own = "darts", {"perturbation": "random"}
    elif method == "fair_darts":
        # The loss is a mean: of 30 weights each is drawn as hard as of the 196 of the recipe.
        own = {"mixing": "sigmoid", "zero_one": 10 * len(spec.EDGES) * len(spec.OPERATIONS) / 196}
        name = "darts"
    if options.curvature:
        own["curvature_every"] = options.curvature
    registry.choose(config, name, **own)
    return config


def search(options: argparse.Namespace) -> None:
    """Runs what has no row yet."""
    path = options.out / "cells.csv"
    known = {tuple(row[:3]) for row in csv.reader(path.open())} if path.exists() else set()
    options.out.mkdir(parents=True, exist_ok=True)
    if not known:
        path.write_text(",".join(COLUMNS) + "\n")
    runs = itertools.product(options.seeds, options.methods, options.tasks)
    for seed, method, task in runs:
        if (task, method, str(seed)) in known:
            continue
        workdir = options.out / f"{task}_{method}_{seed}"
        began, config = time.process_time(), config_of(task, method, int(seed), options)
        search_lib.search(config, str(workdir))
        written = workdir / "genotype.json"
        document = json.loads(written.read_text()) if written.exists() else {}
        if not document.get("finished"):  # A signal stopped it; the same command continues it.
            return
        rows = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
        found = {row["kind"]: row for row in rows}
        cell = spec.from_dict(document)
        measured = found.get("method", {})
        with path.open("a", newline="") as file:
            csv.writer(file).writerow([
                task, method, seed, options.steps, str(cell),
                cell.operations.count("skip_connect"),
                f"{measured['entropy_cell']:.3f}" if "entropy_cell" in measured else "",
                f"{found['validation']['loss']:.4f}", f"{found['validation']['accuracy']:.4f}",
                f"{time.process_time() - began:.0f}",
                f"{measured['eigenvalue']:.4f}" if measured.get("eigenvalue") is not None else "",
            ])  # fmt: skip
        shutil.rmtree(workdir / "checkpoints", ignore_errors=True)


RANDOM = 10
"""Random cells that stand beside each that was found."""


def look_up(options: argparse.Namespace) -> None:
    """Writes found.csv and found.png, and prints a row for every task and method."""
    rows = list(csv.DictReader(options.table.open()))
    table = {spec.parse(row["cell"]): [float(row[k]) for k in BENCHMARKS] for row in rows}
    if len(table) != spec.COUNT:
        raise SystemExit(f"{options.table}: {len(table)} cells; expected {spec.COUNT}")
    every, cells = np.array(list(table.values())), list(table)
    found = []
    for row in csv.DictReader((options.out / "cells.csv").open()):
        values = np.array(table[spec.parse(row["cell"])])
        below = (every[:, 0] < values[0]).mean() + (every[:, 0] == values[0]).mean() / 2
        seed = int(row["seed"])
        drawn = np.random.default_rng((201, seed)).integers(len(cells), size=RANDOM)
        found.append({
            **row, **dict(zip(BENCHMARKS, values, strict=True)), "percentile": f"{100 * below:.1f}",
            "random": f"{every[drawn, 0].mean():.3f}",
        })  # fmt: skip
    with (options.out / "found.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    print(f"all cells: mean {every[:, 0].mean():.2f}, median {np.median(every[:, 0]):.2f}, "
          f"best {every[:, 0].max():.2f}")  # fmt: skip
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in found:
        groups.setdefault((row["task"], row["method"]), []).append(row)
    for (task, method), own in sorted(groups.items()):
        accuracy = np.array([row["cifar10valid"] for row in own])
        gains = accuracy - np.array([float(row["random"]) for row in own])
        print(
            f"| {task} | `{method}` | {' '.join(row['skips'] for row in own)} | "
            f"{', '.join(f'{value:.2f}' for value in accuracy)} | "
            f"{np.mean([row['cifar100'] for row in own]):.2f} | "
            f"{np.mean([row['imagenet16'] for row in own]):.2f} | "
            f"{', '.join(row['percentile'] for row in own)} | {compared(gains)} | "
            f"{compared(np.array([float(row['percentile']) - 50 for row in own]))} |"
        )
    for method in dict.fromkeys(row["method"] for row in found):
        for title, tasks in (("all tasks", set(TASKS)), ("without labels", set(TASKS) - LABELS)):
            own = [row for row in found if row["method"] == method and row["task"] in tasks]
            # The seeds are independent of each other; the tasks of a seed share random cells.
            seeds: dict[str, list[dict[str, Any]]] = {}
            for row in own:
                seeds.setdefault(row["seed"], []).append(row)
            gains, ranks = (
                np.array([np.mean([of(row) for row in rows]) for rows in seeds.values()])
                for of in (
                    lambda row: row["cifar10valid"] - float(row["random"]),
                    lambda row: float(row["percentile"]) - 50,
                )
            )
            print(
                f"{title}, {method}, mean of each of {len(seeds)} seeds: more than random cells "
                f"{compared(gains)}; percentile - 50 {compared(ranks)}"
            )
    for task in TASKS:
        against(task, [row for row in found if row["task"] == task])
    drawing(found, every[:, 0]).savefig(options.out / "found.png", dpi=110)


def against(task: str, found: list[dict[str, Any]]) -> None:
    """Prints the rows of one task: what its methods' searches say, and in pairs with `darts`."""
    known = {row["seed"]: row for row in found if row["method"] == "darts"}
    for method in dict.fromkeys(row["method"] for row in found):
        own = [row for row in found if row["method"] == method]
        words = [task, f"`{method}`", " ".join(row["skips"] for row in own)]
        for name in ("entropy", "eigenvalue", "loss", "accuracy"):
            values = [float(row[name]) for row in own if row.get(name)]
            words.append(f"{np.mean(values):.3f}" if values else "")
        words.append(", ".join(row["percentile"] for row in own))
        for name, digits in (("skips", 2), ("eigenvalue", 3), ("loss", 3), ("percentile", 1)):
            both = [(row.get(name), known.get(row["seed"], {}).get(name)) for row in own]
            gains = [float(mine) - float(darts) for mine, darts in both if mine and darts]
            words.append(compared(np.array(gains), digits) if gains and method != "darts" else "")
        print(f"| {' | '.join(words)} |")


def compared(gains: np.ndarray, digits: int = 2) -> str:
    """The mean of paired differences, its interval, a permutation test, and how many it takes.

    The interval is Student's, of 95%; the test changes signs, on both sides, exactly up to 16
    pairs, of more 65,536 times at random; the number of pairs is that with which a true difference
    of this size is shown with a power of 80%.
    """
    count, mean = len(gains), gains.mean()
    if count < 2 or not gains.std():
        return f"{mean:+.{digits}f}"
    error = gains.std(ddof=1) / np.sqrt(count)
    reach = stats.t.ppf(0.975, count - 1) * error
    p = stats.permutation_test(
        (gains,), np.mean, permutation_type="samples", n_resamples=2**16, rng=0
    ).pvalue
    return (
        f"{mean:+.{digits}f} [{mean - reach:+.{digits}f}, {mean + reach:+.{digits}f}], p {p:.3g}, "
        f"{pairs(abs(mean) / gains.std(ddof=1))} runs"
    )


def pairs(effect: float) -> str:
    """The pairs that a t test of 5% needs to see a mean of `effect` deviations 4 times in 5."""
    for count in range(2, 1001):
        limit = stats.t.ppf(0.975, count - 1)
        if stats.nct.sf(limit, count - 1, effect * np.sqrt(count)) >= 0.8:
            return str(count)
    return "over 1000"


def drawing(found: list[dict[str, Any]], every: np.ndarray) -> Figure:
    """The published accuracies of the cells that were found, below those of all cells."""
    methods = list(dict.fromkeys(row["method"] for row in found))
    figure = Figure(figsize=(8, 1.6 + 0.75 * len(methods)), layout="constrained")
    above, axes = figure.subplots(2, 1, sharex=True, height_ratios=(1, 0.75 * len(methods)))
    above.hist(every, bins=np.arange(45, 93, 0.5), color="#b8b8b8")
    above.set_ylabel("all cells")
    above.set_yticks([])
    for k, task in enumerate(TASKS):
        own = [row for row in found if row["task"] == task]
        axes.scatter(
            [max(row["cifar10valid"], 45) for row in own],
            [methods.index(row["method"]) + 0.17 * (k - 1.5) for row in own],
            s=26, alpha=0.8, label=task,
        )  # fmt: skip
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.grid(axis="x", color="#e4e4e4")
    axes.set_xlabel("published CIFAR-10 accuracy of the cell, % (below 45 drawn at 45)")
    figure.legend(loc="outside lower center", ncols=len(TASKS), frameon=False)
    return figure


def main() -> None:
    """Reads the command line."""
    logs.start()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("search", "look_up"))
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--table", type=pathlib.Path)
    for name, default in (
        ("methods", "darts,gdas,single_path"),
        ("tasks", ",".join(TASKS)),
        ("seeds", "1,2,3"),
    ):
        parser.add_argument(
            f"--{name}", type=lambda text: text.split(","), default=default.split(",")
        )
    parser.add_argument("--steps", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=4)
    what = "so many epochs the largest eigenvalue in the alphas; 0: never"
    parser.add_argument("--curvature", type=int, default=0, metavar="EPOCHS", help=what)
    options = parser.parse_args()
    for name, known in (("methods", METHODS), ("tasks", tuple(TASKS))):
        for word in set(getattr(options, name)) - set(known):
            parser.error(f"--{name}: {word!r} is none of {', '.join(known)}")
    if options.what == "look_up" and options.table is None:
        parser.error("look_up needs --table=nasbench201.csv")
    search(options) if options.what == "search" else look_up(options)


if __name__ == "__main__":
    main()
