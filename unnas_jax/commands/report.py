"""Draws the pictures of a run and its report: `unnas-jax report WORKDIR`."""

import argparse
import os
import pathlib
import sys
import webbrowser
from collections.abc import Sequence

from unnas_jax.analysis import markup, report, results
from unnas_jax.commands import command_line


def _has_desktop() -> bool:
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.stdout.isatty() and (sys.platform in ("darwin", "win32") or bool(display))


def _run(options: argparse.Namespace) -> None:
    run = results.read(options.workdir)
    paths = report.written(run)
    for words in run.warnings:
        print(f"unnas_jax: mind: {words}", file=sys.stderr)
    print(markup.readable("\n".join(paths)))
    if options.open == "yes" or (options.open == "auto" and _has_desktop()):
        webbrowser.open(pathlib.Path(paths[-1]).resolve().as_uri())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    parser = command_line.Parser(
        prog="unnas-jax report",
        description="Draws the pictures and the report of a run from the files in its workdir.",
    )
    parser.add_argument(
        "workdir",
        type=os.path.expanduser,
        help="the --workdir of a search or training, running or finished",
    )
    parser.add_argument(
        "--open",
        choices=("auto", "yes", "no"),
        default="auto",
        help="show the report in a browser; auto: when run by hand on a desktop (default)",
    )
    return command_line.run(parser, _run, arguments)
