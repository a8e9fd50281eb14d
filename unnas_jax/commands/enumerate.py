"""Writes all unique cells of NAS-Bench-101 into a file: `unnas-jax enumerate`."""

import argparse
import os
import resource
import sys
import time
from collections.abc import Sequence

from unnas_jax.commands import command_line
from unnas_jax.spaces.nasbench101.enumeration import default_path, enumerate_cells, write


def _run(options: argparse.Namespace) -> None:
    path = os.path.expanduser(options.path or default_path())
    start = time.perf_counter()
    cells = enumerate_cells(progress=lambda line: print(line, flush=True))
    write(cells, path)
    seconds = time.perf_counter() - start
    # Linux counts in kB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    print(f"{len(cells):,} cells in {path} ({seconds:.1f} s, at most {memory:.0f} MB)")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    parser = command_line.Parser(prog="unnas-jax enumerate", description=__doc__)
    parser.add_argument(
        "--path", default="", help="the file to write; default: the cache that sampling uses"
    )
    return command_line.run(parser, _run, arguments)
