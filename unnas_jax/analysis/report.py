"""Draws the pictures of a search or training, its report: `python -m unnas_jax.analysis.report WORKDIR`."""

import argparse
import os
import pathlib
import sys
import webbrowser
from collections.abc import Sequence

from unnas_jax.analysis import alphas, cells, curves, markup, page, results, style
from unnas_jax.commands import command_line
from unnas_jax.core import files
from unnas_jax.core.errors import UserError


def write(path: str | os.PathLike[str]) -> list[str]:
    """Draws everything that the files of a workdir allow so far, and the report.

    Each file replaces its predecessor atomically: `cells.svg`, `cells.png`, `alphas.png`,
    `curves.png`, `report.html`.

    Args:
      path: the workdir of a search or a training, running or finished.

    Returns:
      the paths written; pictures for which no data exists yet are left out.

    Raises:
      UserError: this is no workdir, a file in it is damaged, or it cannot be written to.
    """
    return _written(results.read(path))


def _written(run: results.Run) -> list[str]:
    pictures = {"curves.png": style.render(curves.draw(run), "png")}
    if run.alphas is not None:
        pictures["alphas.png"] = style.render(alphas.draw(run.alphas), "png")
    sizes = []
    if run.genotype is not None:
        # Here, because counting builds networks, and the pictures alone need no JAX.
        from unnas_jax.spaces.darts.widths import evaluation_sizes

        figure = cells.draw(run.genotype, run.softmax)
        pictures["cells.svg"] = style.render(figure, "svg")
        pictures["cells.png"] = style.render(figure, "png")
        if not run.is_training:
            sizes = evaluation_sizes(run.genotype)

    def weights(kind: str) -> list[float | None]:
        softmax = run.softmax[kind] if run.softmax else None
        return cells.chosen_weights(getattr(run.genotype, kind), softmax)

    html = page.render(run, pictures, sizes, weights)
    paths = []
    for name, content in {**pictures, "report.html": html.encode("utf-8")}.items():
        paths.append(os.path.join(run.path, name))
        try:
            with files.replacing(paths[-1], "wb") as file:
                file.write(content)
        except OSError as error:
            raise UserError(
                f"report: cannot write {paths[-1]} ({error.strerror}); make space, or allow writing"
            ) from error
    return paths


def _has_desktop() -> bool:
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.stdout.isatty() and (sys.platform in ("darwin", "win32") or bool(display))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    parser = argparse.ArgumentParser(
        prog="python -m unnas_jax.analysis.report",
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
    options = parser.parse_args(arguments)
    try:
        run = results.read(options.workdir)
        paths = _written(run)
    except UserError as error:
        return command_line.fail(str(error))
    for words in run.warnings:
        print(f"unnas_jax: mind: {words}", file=sys.stderr)
    print(markup.readable("\n".join(paths)))
    if options.open == "yes" or (options.open == "auto" and _has_desktop()):
        webbrowser.open(pathlib.Path(paths[-1]).resolve().as_uri())
    return 0


if __name__ == "__main__":
    sys.exit(main())
