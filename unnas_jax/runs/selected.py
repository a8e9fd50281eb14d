"""What a selection of cells leaves: genotype, table and pictures; and that by the alphas' size."""

import csv
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.analysis import pictures, results
from unnas_jax.config import run_config
from unnas_jax.config.schema import SearchConfig
from unnas_jax.config.sections import MethodConfig
from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.methods import registry as methods
from unnas_jax.methods.base import SearchMethod
from unnas_jax.runs import workdir as workdir_lib
from unnas_jax.runs.versions import versions
from unnas_jax.spaces import mixed
from unnas_jax.spaces.darts.candidates import Candidates
from unnas_jax.spaces.mixed import Mixed
from unnas_jax.spaces.registry import Cells

GENOTYPE, TABLE = "genotype.json", "choices.csv"


@dataclasses.dataclass(frozen=True)
class Selected:
    """What was selected.

    Attributes:
      folder: where its files are.
      cells: of the search's space.
      columns, rows: the table of what was chosen, and by what.
    """

    folder: str
    cells: Cells
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def config_of(folder: str, name: str) -> dict[str, Any]:
    """The config of the search in a folder, as a dict; `name` is what the user calls it."""
    config = run_config.read(folder, f"workdir {name}", "a search")
    if config["experiment"] != "search":
        kind = run_config.KINDS[config["experiment"]]
        raise UserError(f"{name}: is the workdir of {kind}; give that of a search")
    return config


def provenance(config: SearchConfig, **how: Any) -> dict[str, Any]:
    """What the genotype.json of a selection tells, besides the cells.

    Args:
      config: of the search.
      how: the cells were selected.
    """
    return {
        "dataset": config.dataset.name,
        "task": config.task.name,
        "method": config.search.method,
        "seed": config.seed,
        "finished": True,
        "selection": how,
        "warnings": [],
        "versions": versions(),
    }


def write(found: Selected, document: Mapping[str, Any], operations: Candidates) -> None:
    """Writes the files of a selection; the genotype last.

    Args:
      found: what was selected.
      document: the content of its genotype.json.
      operations: of every edge in the search.
    """
    with files.replacing(os.path.join(found.folder, TABLE)) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(found.columns)
        table.writerows(found.rows)
    pictures.write_cells(found.folder, found.cells, document.get("alphas_softmax"), operations)
    files.write_json(os.path.join(found.folder, GENOTYPE), document)


def by_magnitude(workdir: str, out: str = "", epoch: float | None = None) -> Selected:
    """The cells that the alphas of an epoch stand for, from the history in `alphas.npz`.

    Args:
      workdir: of a search, running or finished.
      out: where the files go; empty: a folder in the workdir.
      epoch: after so many epochs; None: the last ones that there are.

    Raises:
      UserError: it is no workdir of a search, has no alphas of this epoch, or its method has
        another rule for its cells.
    """
    with workdir_lib.opened(workdir, write=False) as source:
        config = SearchConfig.of(config_of(source.path, workdir))
        method = methods.of_config(config)
        if method.chooses or method.cells is not SearchMethod.cells:
            raise UserError(
                f"{workdir}: the cells of the method {method.name!r} do not come of the weights of "
                "operations alone, which alphas.npz has; take those of its genotype.json"
            )
        path = os.path.join(source.path, "alphas.npz")
        if not os.path.exists(path):
            raise UserError(f"{workdir}: has no alphas.npz yet; it comes with the first step")
        history = results.read_alphas(path)
        rows = [row for row in history.rows if epoch is None or row.epoch == epoch]
        if not rows:
            first, last = history.rows[0].epoch, history.rows[-1].epoch
            raise UserError(
                f"--epoch={epoch:g}: {workdir} has alphas of the epochs {first:g} to {last:g}, one "
                "row at the end of each"
            )
    row = rows[-1]
    space = mixed.of_config(config)
    operations = space.operations(config.network)
    cells = method.cells_of(MethodConfig.of(config), row.mixing)
    how = {"by": "magnitude", "of_epoch": row.epoch}
    document = space.document(
        cells,
        row.mixing,
        {**provenance(config, **how), "step": row.step, "epoch": row.epoch},
        operations,
    )
    folder = out or os.path.join(workdir, f"magnitude_epoch_{row.epoch:g}")
    found = Selected(
        folder,
        cells,
        ("cell", "node", "input", "operation", "weight"),
        _weights(space, cells, row.mixing, operations),
    )
    with workdir_lib.opened(folder) as place:
        workdir_lib.make(place)
        write(dataclasses.replace(found, folder=place.path), document, operations)
    return found


def _weights(
    space: Mixed, cells: Cells, mixing: Mapping[str, np.ndarray], operations: Candidates
) -> list[tuple[Any, ...]]:
    """The rows of the table: what enters every node, and its weight on its edge."""
    numbers = {edge: number for number, edge in enumerate(space.edges(operations))}
    rows = []
    for kind, chosen in space.chosen(cells).items():
        for name, source, node in chosen:
            number = numbers[source, node]
            names = operations[kind][number]
            # The threshold of a search gives `none` also where it was no candidate.
            weight = f"{mixing[kind][number][names.index(name)]:.6f}" if name in names else ""
            rows.append((kind, node, source, name, weight))
    return rows
