"""Tells where a sample stands: `unnas-jax status WORKDIR`."""

import argparse
import os
from collections.abc import Sequence

from unnas_jax.commands import command_line
from unnas_jax.sweep.sample import status_of


def _run(options: argparse.Namespace) -> None:
    print("\n".join(status_of(options.workdir).lines()))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    parser = command_line.Parser(
        prog="unnas-jax status",
        description="Units done, running and failed of a sample, and the time left.",
    )
    parser.add_argument("workdir", type=os.path.expanduser, help="the --workdir of the sample")
    return command_line.run(parser, _run, arguments)
