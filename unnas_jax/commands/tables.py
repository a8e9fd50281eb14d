"""The paper's tables 1 and 2 with one's own results: `unnas-jax tables RUNS...`."""

import argparse
import os
import sys
from collections.abc import Sequence

from unnas_jax.analysis.tables import FORMATS, collect
from unnas_jax.commands import command_line


def _run(options: argparse.Namespace) -> None:
    sys.stdout.write(FORMATS[options.format](collect(options.runs)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    parser = command_line.Parser(
        prog="unnas-jax tables",
        description="The paper's tables 1 and 2 from the result.json files of evaluations.",
    )
    parser.add_argument(
        "runs",
        type=os.path.expanduser,
        nargs="+",
        help="workdirs, or directories that contain them",
    )
    parser.add_argument("--format", choices=FORMATS, default="markdown")
    return command_line.run(parser, _run, arguments)
