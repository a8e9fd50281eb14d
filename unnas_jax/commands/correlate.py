r"""How well scores rank cells whose accuracies are published: `unnas-jax correlate`.

    unnas-jax correlate --table=TABLE.csv --space=nasbench201 --scores=synflow,naswot \\
        --images=DIR --workdir=DIR [--count=300]
"""

import argparse
import os
from collections.abc import Sequence

import numpy as np

from unnas_jax.analysis import published
from unnas_jax.commands import command_line
from unnas_jax.core import files, stopping
from unnas_jax.core.errors import UserError
from unnas_jax.data import open_dataset
from unnas_jax.runs import hold
from unnas_jax.spaces import registry as spaces
from unnas_jax.sweep import correlate
from unnas_jax.sweep.scores import batches, registry, shared
from unnas_jax.sweep.scores.registry import Batch
from unnas_jax.sweep.scoring import Judging

_DEFAULT = "synflow,naswot,jacob_cov,parameters,multiply_adds"


def _parser() -> command_line.Parser:
    about = "\n".join(f"  {name:14} {score.about}" for name, score in registry.SCORES.items())
    parser = command_line.Parser(
        prog="unnas-jax correlate",
        description="Computes scores for cells of a table of published accuracies, a row a value "
        "as it comes, and prints rank correlations with 95% intervals. Killed at any time, the "
        "same command continues.",
        epilog=f"Scores, higher is better:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    path = os.path.expanduser
    parser.add_argument("--table", type=path, required=True, help="a CSV: cell, accuracies")
    parser.add_argument("--space", required=True, help="what the cells are cells of")
    parser.add_argument("--scores", default=_DEFAULT, help=f"by commas (default: {_DEFAULT})")
    parser.add_argument("--columns", default="", help="of the table, by commas (default: all)")
    parser.add_argument(
        "--images",
        type=path,
        default="",
        help="a folder of images, or a dataset's name; scores of a supernet need none",
    )
    parser.add_argument("--data_dir", default="", help="of a prepared dataset")
    parser.add_argument("--workdir", type=path, required=True, help="where results go")
    parser.add_argument("--count", type=int, default=0, help="cells, drawn (default: all)")
    parser.add_argument("--skip", type=int, default=0, help="cells of the draw to pass over first")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    parser.add_argument("--width", type=int, default=16, help="channels of the stem (default: 16)")
    parser.add_argument("--depth", type=int, default=1, help="cells of each stage (default: 1)")
    parser.add_argument("--side", type=int, default=32, help="of the images (default: 32)")
    parser.add_argument("--batch", type=int, default=64, help="images to look at (default: 64)")
    parser.add_argument(
        "--supernet",
        type=path,
        default="",
        help="the workdir of a single-path search, for shared_weights and angle",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    parser.add_argument("--show", action="store_true", help="compute nothing; show what is there")
    return parser


def _check(options: argparse.Namespace) -> None:
    for name, least in (
        ("count", 0),
        ("skip", 0),
        ("seed", 0),
        ("depth", 1),
        ("batch", 2),
        ("workers", 1),
    ):
        value = getattr(options, name)
        if value < least:
            raise UserError(f"--{name}={value}: must be at least {least}")
    if options.side < 8 or options.width < 2:
        raise UserError("--side must be at least 8 pixels, --width at least 2 channels")
    if options.space not in spaces.SPACES:
        raise UserError(f"--space={options.space}: use one of {', '.join(spaces.SPACES)}")


def _check_scores(options: argparse.Namespace, scores: Sequence[str]) -> None:
    registry.check(scores, "--scores")
    for name in scores:
        needs = registry.SCORES[name].needs_supernet
        if needs and not options.supernet:
            raise UserError(f"--scores={name}: {registry.NO_SUPERNET}")
        if not needs and not options.images and not options.show:
            raise UserError(f"--images: give a folder of images, or a dataset's name, for {name}")


def _batch(options: argparse.Namespace) -> Batch:
    """The images to look at, none if none are given."""
    if not options.images:
        return Batch(np.zeros((0, options.side, options.side, 3), np.float32), None, 10)
    dataset = open_dataset(batches.section(options.images, options.data_dir))
    return batches.of_dataset(dataset, options.batch, options.side, options.seed)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _run(options: argparse.Namespace) -> None:
    _check(options)
    scores = _words(options.scores)
    _check_scores(options, scores)
    table = published.read(options.table, _words(options.columns))
    cells = correlate.choose(
        table, options.space, count=options.count, skip=options.skip, seed=options.seed
    )
    workdir = options.workdir
    os.makedirs(workdir, exist_ok=True)
    names = ["space", "images", "count", "skip", "seed", "width", "depth", "side", "batch"]
    settings = {name: getattr(options, name) for name in names}
    settings |= {"table": os.path.basename(options.table), "scores": scores}
    settings["supernet"] = os.path.abspath(options.supernet) if options.supernet else ""
    if options.supernet and not options.show:
        # Of other weights, values would be others.
        settings["supernet_step"] = shared.supernet(options.supernet, options.space).step
    with hold.held(workdir, workdir):
        correlate.keep_settings(workdir, settings)
        rows = correlate.Rows(os.path.join(workdir, "scores.jsonl"))
        if not options.show:
            judging = Judging(
                options.space,
                _batch(options),
                options.width,
                options.depth,
                options.side,
                options.seed,
                options.supernet,
            )
            stopping.nothing_to_save(os.EX_TEMPFAIL)  # Every value is on the disk.
            correlate.compute(cells, scores, rows, judging, options.workers)
        results = correlate.correlations(table, cells, scores, rows, options.space)
        written = {
            "scores.csv": correlate.scores_csv(table, cells, scores, rows),
            "correlations.csv": correlate.correlations_csv(results),
        }
        for name, content in written.items():
            with files.replacing(os.path.join(workdir, name)) as file:
                file.write(content)
    for result in results:
        print(result)
    if not results:
        print("fewer than three cells have a score and an accuracy: no correlation yet")
    print("\n".join(os.path.join(workdir, name) for name in written))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    return command_line.run(_parser(), _run, arguments)
