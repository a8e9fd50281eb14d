"""All unique cells of NAS-Bench-101: `unnas-jax enumerate`.

The space has 423,624 cells: graphs of at most 7 vertices and 9 edges in which every vertex is on a
path from input to output, with 3 operations, counted once among isomorphic ones. Graphs come first:
each is a number, and the smallest number that renaming its vertices can give stands for all of its
kind. Then the operations: of the labellings of a graph that its symmetries turn into each other,
the first one counts. Both are exact, and sampling is uniform over the result.
"""

import contextlib
import os
import time
from collections.abc import Callable

import numpy as np

from unnas_jax.core import cache, files, reading
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.nasbench101 import spec as spec_lib
from unnas_jax.spaces.nasbench101.spec import MAX_EDGES, MAX_VERTICES, OPERATIONS, Spec

COUNT = 423_624
"""The unique cells of the space (Ying et al., NAS-Bench-101, 2019, section 2.1)."""

# A cell is the number ((vertices << 21) + graph << 8) + labels: 32 bits.
_GRAPH_BITS, _LABEL_BITS = 21, 8
# Graphs whose renamings are compared at once; of 7 vertices each takes 1 kB.
_CHUNK = 2**15


def _graphs(vertices: int, max_edges: int) -> np.ndarray:
    """The numbers of all graphs in which every vertex is on a path from input to output."""
    edges = spec_lib.pairs(vertices)
    numbers = np.arange(2 ** len(edges), dtype=np.uint32)
    numbers = numbers[np.bitwise_count(numbers) <= max_edges]
    masks = [1 << (len(edges) - 1 - k) for k in range(len(edges))]
    for vertex in range(vertices):
        leaving = sum(mask for mask, (a, _) in zip(masks, edges, strict=True) if a == vertex)
        entering = sum(mask for mask, (_, b) in zip(masks, edges, strict=True) if b == vertex)
        # Edges lead to later vertices: a vertex with edges in and out is on such a path.
        if vertex < vertices - 1:
            numbers = numbers[(numbers & np.uint32(leaving)) > 0]
        if vertex > 0:
            numbers = numbers[(numbers & np.uint32(entering)) > 0]
    return numbers


def _digits(numbers: np.ndarray, base: int, count: int) -> np.ndarray:
    """The digits (numbers, count) of numbers, the most significant first."""
    places = base ** np.arange(count - 1, -1, -1, dtype=np.int64)
    return numbers[:, None].astype(np.int64) // places % base


def _cells_of_size(vertices: int, max_edges: int) -> np.ndarray:
    """The cells of exactly so many vertices, as 32-bit numbers in ascending order."""
    names, weights = spec_lib.relabellings(vertices)
    graphs, symmetries = [], []
    numbers = _graphs(vertices, max_edges)
    for start in range(0, len(numbers), _CHUNK):
        chunk = numbers[start : start + _CHUNK]
        renamed = _digits(chunk, 2, len(weights)).astype(np.float64) @ weights
        first = renamed.min(axis=1) == chunk
        graphs.append(chunk[first])
        symmetries.append(renamed[first] == chunk[first, None])
    graph, symmetry = np.concatenate(graphs), np.concatenate(symmetries)

    inner, base = vertices - 2, len(OPERATIONS)
    labels = np.arange(base**inner)
    digits = _digits(labels, base, inner)
    places = base ** np.arange(inner - 1, -1, -1)
    first = np.ones((len(graph), len(labels)), bool)
    for row, keeps in zip(names, symmetry.T, strict=True):
        # A vertex takes its operation along to its new name.
        moved = digits @ places[row[1:-1] - 1]
        first[keeps] &= moved >= labels
    which, label = np.nonzero(first)
    cells = (vertices << _GRAPH_BITS) + graph[which].astype(np.int64)
    return ((cells << _LABEL_BITS) + label).astype(np.uint32)


def enumerate_cells(
    max_vertices: int = MAX_VERTICES,
    max_edges: int = MAX_EDGES,
    progress: Callable[[str], None] = lambda line: None,
) -> np.ndarray:
    """All unique cells of a space, from the smallest, as uint32; `decode` makes specs of them.

    The order depends on nothing but the two limits. Each is a `spec.canonical` cell.

    Args:
      max_vertices: with input and output, from 2 to 7.
      max_edges: of the cells.
      progress: called with a line on every size.
    """
    sizes = []
    for vertices in range(2, max_vertices + 1):
        start = time.perf_counter()
        sizes.append(_cells_of_size(vertices, max_edges))
        seconds = time.perf_counter() - start
        progress(f"{vertices} vertices: {len(sizes[-1]):>7,} cells, {seconds:.1f} s")
    return np.concatenate(sizes)


def decode(cell: int) -> Spec:
    """The spec of a number that `enumerate_cells` gives."""
    cell, label = divmod(int(cell), 1 << _LABEL_BITS)
    vertices, graph = divmod(cell, 1 << _GRAPH_BITS)
    edges = spec_lib.pairs(vertices)
    present = dict(zip(edges, _digits(np.array([graph]), 2, len(edges))[0].tolist(), strict=True))
    labels = _digits(np.array([label]), len(OPERATIONS), vertices - 2)[0]
    return Spec(
        tuple(tuple(present.get((a, b), 0) for b in range(vertices)) for a in range(vertices)),
        ("input", *(OPERATIONS[k] for k in labels), "output"),
    )


def default_path() -> str:
    """Where the list is kept."""
    return cache.path("nasbench101_cells.npy")


def _read(path: str) -> np.ndarray | None:
    """The cells of a file; None if it does not hold exactly the list."""
    try:
        cells = reading.array(path, "u", 2**24)
    except (OSError, ValueError):
        return None
    sound = cells.dtype == np.uint32 and cells.shape == (COUNT,)
    return cells if sound and bool(np.all(np.diff(cells.astype(np.int64)) > 0)) else None


def write(cells: np.ndarray, path: str) -> None:
    """Writes the list in one step; raises `UserError` if it cannot."""
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with files.replacing(path, "wb") as file:
            np.save(file, cells)
    except OSError as error:
        raise UserError(
            f"the list of cells {path} cannot be written ({error.strerror}); give another --path"
        ) from error


def load(path: str | None = None) -> np.ndarray:
    """The 423,624 cells from the cache, where they are put if they are not there.

    If the cache cannot be written nothing is cached: enumerating takes less than a second.

    Args:
      path: of the cache; None: `default_path()`.
    """
    path = path or default_path()
    cells = _read(path)
    if cells is None:
        cells = enumerate_cells()
        with contextlib.suppress(UserError):
            write(cells, path)
    return cells


def sample(count: int, seed: int, path: str | None = None) -> list[Spec]:
    """Different cells, each equally likely, in random order.

    The first of a larger sample with the same seed are the smaller sample.

    Args:
      count: how many.
      seed: of the draws.
      path: of the cache; None: `default_path()`.

    Raises:
      UserError: there are not so many cells.
    """
    if not 0 <= count <= COUNT:
        raise UserError(f"sample of {count} cells: NAS-Bench-101 has {COUNT:,} unique ones")
    cells = load(path)
    return [decode(cell) for cell in np.random.default_rng(seed).permutation(cells)[:count]]
