"""The paper's figures 2 to 5: `unnas-jax figures RUNS... --out=DIR`."""

import argparse
import os
from collections.abc import Sequence

from unnas_jax.analysis import figures
from unnas_jax.commands import command_line


def _run(options: argparse.Namespace) -> None:
    comparisons, written = figures.write(options.runs, options.out, seed=options.seed)
    print("\n".join([str(c) for c in comparisons if not c.same] + written))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    parser = command_line.Parser(
        prog="unnas-jax figures",
        description="Draws the paper's figures 2 to 5 from sweeps and CSV files.",
    )
    parser.add_argument(
        "runs",
        type=os.path.expanduser,
        nargs="+",
        help="workdirs of sweeps, CSV files of other tools",
    )
    parser.add_argument(
        "--out",
        type=os.path.expanduser,
        default="figures",
        help="where files go (default: figures)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    return command_line.run(parser, _run, arguments)
