"""Selects the cells of a search anew: `unnas-jax select WORKDIR`."""

import argparse
import os
from collections.abc import Sequence

from unnas_jax.analysis import markup, pictures
from unnas_jax.commands import command_line
from unnas_jax.core import stopping
from unnas_jax.core.errors import UserError
from unnas_jax.runs import selected, selection
from unnas_jax.runs.selected import Selected

WAYS = ("perturbation", "magnitude")


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        prog="unnas-jax select",
        description="Selects cells from the supernet or the alphas of a search. By perturbation "
        "(DARTS-PT): an edge keeps the operation without which the supernet answers held-out "
        "images worst, a node of DARTS two inputs, and the supernet is trained on between "
        "decisions. The same command continues a selection that was stopped. By magnitude: what "
        "the alphas of any epoch stand for.",
        epilog="It leaves genotype.json, choices.csv and pictures of the cells. Exit status: 0; 2 "
        "for a mistake; 75 if the same command continues.",
    )
    parser.add_argument("workdir", type=os.path.expanduser, help="the --workdir of a search")
    parser.add_argument("--by", choices=WAYS, default=WAYS[0], help=f"default: {WAYS[0]}")
    parser.add_argument(
        "--out",
        type=os.path.expanduser,
        default="",
        help="where its files go (default: a folder in the workdir)",
    )
    parser.add_argument("--epoch", type=float, help="magnitude: which (default: the last)")
    defaults = selection.Options()
    parser.add_argument(
        "--seed", type=int, help=f"perturbation: of the order (default: {defaults.seed})"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        help=f"perturbation: of training between decisions (default: {defaults.epochs})",
    )
    parser.add_argument(
        "--learning-rate",
        type=float,
        help="perturbation: of the weights, constant (default: a tenth of the search's)",
    )
    parser.add_argument(
        "--max-images",
        type=int,
        help="perturbation: held-out images to measure on (default: config.eval.max_images of the "
        "search)",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    names = ("seed", "epochs", "learning_rate", "max_images")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    pictures.tell("the same command")
    if options.by == "magnitude":
        for name in given:
            raise UserError(f"--{name.replace('_', '-')}: is for --by=perturbation")
        found: Selected | None = selected.by_magnitude(options.workdir, options.out, options.epoch)
    else:
        if options.epoch is not None:
            raise UserError(
                "--epoch: is for --by=magnitude; perturbation takes the last checkpoint"
            )
        stopping.nothing_to_save(os.EX_TEMPFAIL)
        found = selection.by_perturbation(options.workdir, options.out, selection.Options(**given))
    if found is None:
        return os.EX_TEMPFAIL
    print(found.cells)
    print(markup.readable(os.path.join(found.folder, selected.GENOTYPE)))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, 2 for a mistake, 75 to call it again."""
    return command_line.run(_parser(), _run, arguments)
