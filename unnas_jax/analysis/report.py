"""Draws the pictures of a search or training, its report: `unnas-jax report WORKDIR`."""

import os

from unnas_jax.analysis import alphas, cells, collapse, curves, page, results, style
from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.darts.widths import evaluation_sizes
from unnas_jax.spaces.graph import Drawable


def write(path: str | os.PathLike[str]) -> list[str]:
    """Draws everything that the files of a workdir allow so far, and the report.

    Each file replaces its predecessor atomically: `cells.svg`, `cells.png`, `alphas.png`,
    `collapse.png`, `curves.png`, `report.html`.

    Args:
      path: the workdir of a search or a training, running or finished.

    Returns:
      the paths written; pictures for which no data exists yet are left out.

    Raises:
      UserError: this is no workdir, a file in it is damaged, or it cannot be written to.
    """
    return written(results.read(path))


def written(run: results.Run) -> list[str]:
    """As `write`, of a run that has been read."""
    pictures = {"curves.png": style.render(curves.draw(run), "png")}
    if run.alphas is not None and run.genotype is not None:
        figure = alphas.draw(run.alphas, run.genotype, run.operations, run.space)
        pictures["alphas.png"] = style.render(figure, "png")
    if run.records["method"] and run.alphas is not None:
        pictures["collapse.png"] = style.render(collapse.draw(run), "png")
    drawn, sizes = [], []
    if isinstance(run.genotype, Drawable):
        drawn = list(run.genotype.graphs(run.softmax, run.operations))
        figure = cells.draw(run.genotype, run.softmax, run.operations)
        pictures["cells.svg"] = style.render(figure, "svg")
        pictures["cells.png"] = style.render(figure, "png")
    if isinstance(run.genotype, Genotype) and not run.is_training:
        sizes = evaluation_sizes(run.genotype)
    html = page.render(run, pictures, sizes, drawn)
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
