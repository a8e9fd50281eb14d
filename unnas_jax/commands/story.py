"""The whole story on embedded photographs: `unnas-jax story --workdir=runs/story`.

Searches for a cell without labels, trains it and random cells of its size from scratch with labels,
and draws the comparison. Every training has its own workdir; the same command again skips what is
finished and continues what is not. It took 16 minutes on two CPU cores.
"""

import argparse
import csv
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from unnas_jax.analysis import story_plot, style
from unnas_jax.commands import command_line
from unnas_jax.config import recipes
from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.data import open_dataset
from unnas_jax.runs.search import search
from unnas_jax.runs.train import train
from unnas_jax.spaces import complexity
from unnas_jax.spaces.darts import candidates, sampling
from unnas_jax.spaces.darts import genotype as genotype_lib
from unnas_jax.spaces.darts.candidates import Candidates
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.darts.network import Network
from unnas_jax.spaces.darts.parameters import parameters_of
from unnas_jax.spaces.networks import build_network
from unnas_jax.tasks import registry

_LOG = logging.getLogger("unnas_jax")

SCHEMA = "unnas_jax.story/1"
FOUND = "found"

_TOLERANCE = 0.1  # How much larger or smaller than the found cell's network a random one may be.
_MAX_DRAWS = 20_000


def random_cells(
    config: Mapping[str, Any],
    genotype: Genotype,
    count: int,
    seed: int,
    operations: Candidates | None = None,
) -> list[Genotype]:
    """Different random cells whose networks have within 10% the parameters of a genotype's.

    Args:
      config: of the training, as a dict; its genotype is not used.
      genotype: the one to compare with, which is not among the results.
      count: how many.
      seed: of the draws.
      operations: of every edge in the search; None: those of DARTS.

    Raises:
      UserError: there are too few cells of that size.
    """
    task = registry.create(config, open_dataset(config["dataset"]))
    network = build_network(config, task)
    assert isinstance(network, Network)
    size = (*complexity.counted_size(config, task), task.input_channels)

    def parameters(candidate: Genotype) -> int:
        return parameters_of(network.clone(genotype=candidate), size)

    wanted, nodes = parameters(genotype), genotype_lib.nodes_of(genotype.normal)
    rng, found = np.random.default_rng(seed), [genotype]
    for _ in range(_MAX_DRAWS):
        if len(found) > count:
            break
        candidate = sampling.draw_found(rng, nodes, operations)
        near = abs(parameters(candidate) - wanted) <= _TOLERANCE * wanted
        if near and candidate not in found:
            found.append(candidate)
    else:
        raise UserError(
            f"story: of {_MAX_DRAWS} random cells only {len(found) - 1} have about the "
            f"{wanted:,} parameters of the found one; ask for fewer with --random"
        )
    return found[1:]


def _finished(path: str) -> Mapping[str, Any] | None:
    """The content of a result or genotype file, if its run came to an end."""
    if not os.path.exists(path):
        return None
    value: dict[str, Any] = files.read_json(path)
    return value if value.get("finished") else None


def summary(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The comparison of the found cell with the others.

    Args:
      results: the content of each cell's `result.json`; the found cell's key is `FOUND`.

    Returns:
      The content of `story.json`. `rank` counts from 1, the best mean of all cells;
      `chance_of_rank` is the probability that one more random cell would rank as high. `std` of a
      cell is over its seeds, `random_std` over the means of the random cells, `seed_std` the
      typical one over seeds.
    """
    columns = ("parameters", "multiply_adds", "seeds", "values", "mean", "std")
    cells = [
        {"name": name, **{column: result[column] for column in columns}}
        for name, result in results.items()
    ]
    found = results[FOUND]
    others = [result["mean"] for name, result in results.items() if name != FOUND]
    rank = 1 + sum(mean > found["mean"] for mean in others)
    return {
        "schema": SCHEMA,
        "dataset": found["dataset"],
        "searched_on": found["genotype_source"],
        "metric": found["metric"],
        "cells": sorted(cells, key=lambda cell: -cell["mean"]),
        "rank": rank,
        "of": len(cells),
        "chance_of_rank": rank / len(cells),
        "found_mean": found["mean"],
        "found_std": found["std"],
        "random_mean": float(np.mean(others)),
        "random_std": float(np.std(others, ddof=1)) if len(others) > 1 else 0.0,
        "seed_std": float(np.sqrt(np.mean([result["std"] ** 2 for result in results.values()]))),
    }


def _write(workdir: str, story: Mapping[str, Any]) -> None:
    """`story.json`, `story.csv` (a row for every training) and `story.png`."""
    files.write_json(os.path.join(workdir, "story.json"), story)
    with files.replacing(os.path.join(workdir, "story.csv")) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("cell", "parameters", "multiply_adds", "seed", story["metric"]))
        for cell in story["cells"]:
            for seed, value in zip(cell["seeds"], cell["values"], strict=True):
                writer.writerow(
                    (cell["name"], cell["parameters"], cell["multiply_adds"], seed, value)
                )
    with files.replacing(os.path.join(workdir, "story.png"), "wb") as file:
        file.write(style.render(story_plot.draw(story, FOUND), "png"))


def run(
    search_config: ml_collections.ConfigDict,
    training_config: ml_collections.ConfigDict,
    workdir: str,
    random: int,
) -> dict[str, Any] | None:
    """Searches, trains the found cell and random ones, and compares; or continues all that.

    Args:
      search_config: of the search, whose seed also draws the random cells.
      training_config: of each training, with as many seeds as it says; its genotype is not used.
      workdir: gets `search/`, `cells/NAME/` and `story.{json,csv,png}`.
      random: how many random cells.

    Returns:
      The content of `story.json`; None if a signal stopped it before the end.

    Raises:
      UserError: bad input, or a workdir in `workdir` that belongs to other configs.
    """
    files.check_mounted("workdir", workdir)
    searched = os.path.join(workdir, "search", "genotype.json")
    if _finished(searched) is None:
        search(search_config, os.path.join(workdir, "search"))
        if _finished(searched) is None:
            return None
    genotype, document = genotype_lib.load(searched)
    operations = candidates.parse(document["operations"], genotype_lib.nodes_of(genotype.normal))
    paths = {FOUND: searched}
    cells = random_cells(
        training_config.to_dict(), genotype, random, search_config.seed, operations
    )
    for number, cell in enumerate(cells, 1):
        path = os.path.join(workdir, "random", f"{number}.json")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        drawn = {**genotype_lib.bare_document(cell), "drawn_with_seed": search_config.seed}
        files.write_json(path, drawn)
        paths[f"random {number}"] = path

    results = {}
    for number, (name, path) in enumerate(paths.items(), 1):
        config = training_config.copy_and_resolve_references()
        config.network.genotype = path
        place = os.path.join(workdir, "cells", name.replace(" ", "_"))
        result = _finished(os.path.join(place, "result.json"))
        if result is None or len(result["seeds"]) != config.seeds:
            _LOG.info("Cell %d of %d: %s.", number, len(paths), name)
            result = train(config, place)
            if not result.get("finished"):
                return None
        results[name] = result

    story = summary(results)
    _write(workdir, story)
    _LOG.info(
        "The found cell: %.2f%% +- %.2f over its seeds, rank %d of %d. Random cells: %.2f%% +- "
        "%.2f over %d cells. See %s",
        100 * story["found_mean"],
        100 * story["found_std"],
        story["rank"],
        story["of"],
        100 * story["random_mean"],
        100 * story["random_std"],
        len(cells),
        os.path.join(workdir, "story.png"),
    )
    return story


def _run(options: argparse.Namespace) -> None:
    if min(options.random, options.seeds) < 1:
        raise UserError("story: --random and --seeds must be at least 1")
    training = command_line.read_config("eval_photos")
    training.seeds = options.seeds
    training.eval.every_epochs = training.train.epochs  # Only the end counts.
    run(recipes.photos(options.task), training, options.workdir, options.random)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    parser = command_line.Parser(prog="unnas-jax story", description=__doc__)
    parser.add_argument(
        "--workdir",
        type=os.path.expanduser,
        default="runs/story",
        help="where results go (%(default)s)",
    )
    parser.add_argument("--random", type=int, default=8, help="random cells (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings a cell (%(default)s)")
    parser.add_argument(
        "--task", choices=("rot", "col", "jig"), default="rot", help="of the search"
    )
    return command_line.run(parser, _run, arguments)
