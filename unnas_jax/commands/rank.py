"""Ranks architectures for one's own images, without labels: `unnas-jax rank`.

    unnas-jax rank --images=DIR --architectures=cells.txt --by=rotation,synflow --workdir=DIR

Trains every architecture on the pretext tasks, or scores it, with several seeds, and ranks. It is
a sample (see `unnas_jax.sweep.sample`) whose workdir also gets ranking.json, .csv, .png and .html.
"""

import argparse
import os
from collections.abc import Sequence

import ml_collections

from unnas_jax.analysis import ranking, ranking_page, result_files, style
from unnas_jax.commands import command_line
from unnas_jax.config import schema
from unnas_jax.core import files, logs, stopping
from unnas_jax.core.errors import UserError
from unnas_jax.core.registry import nearest
from unnas_jax.data import open_dataset
from unnas_jax.spaces import registry as spaces
from unnas_jax.sweep import architectures
from unnas_jax.sweep.architectures import Architecture
from unnas_jax.sweep.sample import sample
from unnas_jax.sweep.scores import batches
from unnas_jax.sweep.scores.registry import SCORES
from unnas_jax.tasks.registry import TASKS

_BY = "rotation,synflow"


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        prog="unnas-jax rank",
        description="Ranks architectures on your images: each is trained on pretext tasks, or "
        "scored, with several seeds. The same command continues what was interrupted.",
    )
    path = os.path.expanduser
    add = parser.add_argument
    add("--images", type=path, required=True, help="a folder of images, or a dataset's name")
    add("--architectures", type=path, required=True, help="a file with a cell, or a name, a line")
    add("--by", default=_BY, help=f"tasks and scores, by commas (default: {_BY})")
    add("--workdir", type=path, required=True, help="where results go")
    add("--supernet", type=path, default="", help="a single-path search, for scores that need it")
    add("--space", default="", help="of the cells (default: the one that reads them)")
    add("--data_dir", default="", help="of a prepared dataset")
    add("--seeds", type=int, default=3, help="of every architecture and judge (default: 3)")
    add("--steps", type=int, default=400, help="of a training (default: 400)")
    add("--batch", type=int, default=32, help="images of a step (default: 32)")
    add("--side", type=int, default=32, help="of the images, in pixels (default: 32)")
    add("--width", type=int, default=16, help="channels of the first cells (default: 16)")
    add("--depth", type=int, default=1, help="cells of each of three stages (default: 1)")
    return parser


def _check(options: argparse.Namespace) -> list[str]:
    """The judges; raises `UserError` for impossible options."""
    for name, least in (("seeds", 1), ("steps", 1), ("batch", 2), ("width", 2), ("depth", 1)):
        if getattr(options, name) < least:
            raise UserError(f"--{name}={getattr(options, name)}: must be at least {least}")
    if options.side < 8 or options.side % 8:
        raise UserError(f"--side={options.side}: use a multiple of 8 pixels")
    judges = [word.strip() for word in options.by.split(",") if word.strip()]
    known = {**TASKS, **SCORES}
    for name in judges:
        if name not in known:
            raise UserError(f"--by={name}: {nearest(name, known)}use some of {', '.join(known)}")
    if not judges or len(set(judges)) < len(judges):
        raise UserError(f"--by={options.by}: name each task or score once, at least one")
    return judges


def _candidates(path: str, space: str) -> tuple[str, list[Architecture]]:
    """The space of a list and its architectures."""
    if space:
        if space not in spaces.SPACES:
            raise UserError(f"--space={space}: use one of {', '.join(spaces.SPACES)}")
        return space, architectures.read(path, space)
    errors = []
    for name in spaces.SPACES:
        try:
            return name, architectures.read(path, name)
        except UserError as error:
            errors.append((name, error))
    if len({str(error) for _, error in errors}) == 1:  # The file itself is at fault.
        raise errors[0][1]
    raise UserError(
        f"--architectures={path}: no space reads all of it; name it with --space to see what is "
        f"wrong ({', '.join(spaces.SPACES)})"
    )


def config_of(
    options: argparse.Namespace, judges: Sequence[str], space: str, images: int
) -> ml_collections.ConfigDict:
    """The sample's config.

    Args:
      options: of the command line.
      judges: tasks and scores.
      space: of the cells.
      images: to train on.
    """
    config = schema.sample()
    config.tasks = tuple(judges)
    config.sample.architectures = os.path.abspath(options.architectures)
    training, side = config.training, options.side
    section = batches.section(options.images, options.data_dir)
    path = os.path.abspath(section.path) if section.path else ""
    training.dataset.update(name=section.name, path=path, data_dir=section.data_dir)
    training.seeds = options.seeds
    crop = {"crop": side, "resize": side * 9 // 8, "train_crop": "random_resized"}
    training.input.update(crop)
    training.network.update(space=space, width=str(options.width), stem="cifar")
    training.network.update(cells=3 * options.depth, stacks=3, modules=options.depth)
    epochs = -(-options.steps // max(images // options.batch, 1))
    training.train.update(batch_size=options.batch, epochs=epochs, max_steps=options.steps)
    training.train.precise_bn_images = 0
    training.weights.learning_rate = 0.05
    training.eval.update(batch_size=100, max_images=2000, every_epochs=epochs)
    training.log_every_steps = 100
    # Tiles of a side that networks can halve twice.
    tiles = {"crop": side * 9 // 4, "resize": side * 5 // 2, "train_crop": "resize_random"}
    config.recipes = {"jigsaw": {"input": tiles, "weights": {"learning_rate": 0.02}}}
    config.scores.images = min(64, images)
    if options.supernet:
        config.scores.supernet = os.path.abspath(options.supernet)
    return config


def _write(options: argparse.Namespace, judges: Sequence[str], found: list[Architecture]) -> str:
    """Reads the units, writes the results, and returns the table."""
    units = {
        (one.name, judge): result_files.read_unit(
            os.path.join(options.workdir, "units", one.name, f"{judge}.json")
        )
        for one in found
        for judge in judges
    }
    cells = {one.name: one.cell for one in found}
    rankings = [
        ranking.rank(judge, {one.name: units[one.name, judge]["values"] for one in found})
        for judge in judges
    ]
    guesses = [
        f"{judge}: {count} of {len(found)} architectures are no better than guessing"
        for judge in judges
        if (count := sum(bool(units[one.name, judge].get("warnings")) for one in found))
    ]
    seconds = sum(float(unit.get("seconds", 0.0)) for unit in units.values())
    facts = [
        ("architectures", str(len(found)), ""),
        ("seeds", str(options.seeds), "of every architecture and judge"),
        ("training", f"{options.steps} steps", f"of {options.batch} images of {options.side} px"),
        ("networks", f"width {options.width}", f"{3 * options.depth} cells"),
        ("time", logs.duration(seconds), "of all workers together"),
    ]
    page = ranking_page.page(rankings, cells, images=options.images, facts=facts, warnings=guesses)
    content = {
        "ranking.csv": ranking_page.as_csv(rankings, cells).encode(),
        "ranking.png": style.render(ranking_page.draw(rankings), "png"),
        "ranking.html": page.encode(),
    }
    place = os.path.join(options.workdir, "ranking.json")
    files.write_json(place, ranking_page.as_json(rankings, cells))
    for name, data in content.items():
        with files.replacing(os.path.join(options.workdir, name), "wb") as file:
            file.write(data)
    return "\n".join([ranking_page.text(rankings), *(f"Mind: {line}" for line in guesses)])


def _run(options: argparse.Namespace) -> None:
    judges = _check(options)
    space, found = _candidates(options.architectures, options.space)
    section = batches.section(options.images, options.data_dir)
    dataset = open_dataset(section)
    count = len(dataset.splits["train"])
    if not {"validation", "test"} & dataset.splits.keys():
        count //= 2  # The other half is held out.
    if count < options.batch:
        raise UserError(
            f"--images={options.images}: {count:,} images to train on are fewer than a step's "
            f"{options.batch}; give more images or a smaller --batch"
        )
    stopping.nothing_to_save(os.EX_TEMPFAIL)
    sample(config_of(options, judges, space, count), options.workdir)
    print(_write(options, judges, found))
    print(os.path.join(options.workdir, "ranking.html"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    return command_line.run(_parser(), _run, arguments)
