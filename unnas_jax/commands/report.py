"""Draws the pictures of a search and its report: `unnas-jax report WORKDIR`."""

import argparse
import os
import pathlib
import sys
import webbrowser
from collections.abc import Sequence

from unnas_jax.analysis.report import write
from unnas_jax.commands import command_line
from unnas_jax.core.errors import UserError


def _has_desktop() -> bool:
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.stdout.isatty() and (sys.platform in ("darwin", "win32") or bool(display))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(
        prog="unnas-jax report",
        description="Draws the pictures and the report of a search from the files in its workdir.",
    )
    parser.add_argument("workdir", help="the --workdir of a search, running or finished")
    parser.add_argument(
        "--open",
        choices=("auto", "yes", "no"),
        default="auto",
        help="show the report in a browser; auto: when run by hand on a desktop (default)",
    )
    options = parser.parse_args(arguments)
    try:
        paths = write(options.workdir)
    except UserError as error:
        return command_line.fail(str(error))
    print("\n".join(paths))
    if options.open == "yes" or (options.open == "auto" and _has_desktop()):
        webbrowser.open(pathlib.Path(paths[-1]).resolve().as_uri())
    return 0
