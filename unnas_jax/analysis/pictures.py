"""The door to pictures and reports: runs leave them out where the extra `plots` is missing."""

import logging
import os
from typing import TYPE_CHECKING

from unnas_jax.core import extras, files
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.graph import Drawable, Operations, Softmax
from unnas_jax.spaces.registry import Cells

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOG = logging.getLogger("unnas_jax")


def available() -> bool:
    """Whether pictures can be drawn here."""
    return not extras.missing("plots")


def tell(later: str) -> None:
    """Says, where no pictures can be drawn, that they are left out.

    Args:
      later: what draws them when the extra is installed.
    """
    if line := extras.needed("plots", "a picture"):
        _LOG.warning("Pictures and reports are left out: %s, then %s draws them.", line, later)


def draw(
    cells: Drawable, softmax: Softmax | None = None, operations: Operations | None = None
) -> "Figure":
    """Draws cells as graphs, those of `cells.svg`.

        un.draw(found.genotype, found.softmax, found.operations)

    Args:
      cells: of DARTS, with any number of nodes, of NAS-Bench-201, or any others
        with a method `graphs` (docs/walks/space.md).
      softmax: by kind of cell, weights of shape (edges, operations) as in `genotype.json`; the
        thickness of an edge is that of its operation.
      operations: by kind of cell, the operations of every edge; None: those of the space.

    Raises:
      UserError: the extra `plots` is not installed, these are no cells that can be drawn, or the
        weights are of other ones.
    """
    extras.require("plots", "draw")
    from unnas_jax.analysis import cells as drawing

    if not isinstance(cells, Drawable):
        raise UserError(
            f"draw: {type(cells).__name__} is nothing that can be drawn; give the genotype of a "
            "search in the space of DARTS or NAS-Bench-201, or cells with a method `graphs`"
        )
    return drawing.draw(cells, softmax, operations)


def write_cells(
    folder: str,
    cells: Cells,
    softmax: Softmax | None,
    operations: Operations | None,
) -> None:
    """Writes `cells.svg` and `cells.png`, if they can be drawn here."""
    if not available() or not isinstance(cells, Drawable):
        return
    from unnas_jax.analysis import cells as drawing
    from unnas_jax.analysis import style

    figure = drawing.draw(cells, softmax, operations)
    for ending in ("svg", "png"):
        with files.replacing(os.path.join(folder, f"cells.{ending}"), "wb") as file:
            file.write(style.render(figure, ending))


def write_report(workdir: str) -> None:
    """Draws the pictures of a workdir and its report, if they can be drawn here."""
    if not available():
        return
    from unnas_jax.analysis import report

    report.write(workdir)
