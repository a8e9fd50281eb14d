"""The list of all cells: against brute force, against Burnside's lemma, and as a file."""

import functools
import itertools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import conftest
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.nasbench101 import enumeration
from unnas_jax.spaces.nasbench101.spec import MAX_EDGES, OPERATIONS, Spec, canonical

BY_SIZE = {2: 1, 3: 6, 4: 84, 5: 2441, 6: 62_010, 7: 359_082}
"""Unique cells by number of vertices."""


@functools.cache
def all_cells() -> np.ndarray:
    return enumeration.enumerate_cells()


def _class(spec: Spec) -> tuple:
    """The same for isomorphic cells: the smallest of all its relabelled matrices, as they are."""
    count = len(spec.matrix)
    forms = []
    for inner in itertools.permutations(range(1, count - 1)):
        order = (0, *inner, count - 1)
        matrix = tuple(tuple(spec.matrix[a][b] for b in order) for a in order)
        forms.append((tuple(spec.operations[v] for v in order), matrix))
    return min(forms)


def _brute_force(vertices: int) -> set[tuple]:
    """The classes of all cells of so many vertices, each on a path from input to output."""
    places = list(itertools.combinations(range(vertices), 2))
    found = set()
    for bits in itertools.product((0, 1), repeat=len(places)):
        edges = [place for place, bit in zip(places, bits, strict=True) if bit]
        left, entered = {a for a, _ in edges}, {b for _, b in edges}
        if len(edges) > MAX_EDGES or len(left) < vertices - 1 or len(entered) < vertices - 1:
            continue
        matrix = tuple(
            tuple(int((a, b) in edges) for b in range(vertices)) for a in range(vertices)
        )
        for names in itertools.product(OPERATIONS, repeat=vertices - 2):
            found.add(_class(Spec(matrix, ("input", *names, "output"))))
    return found


@pytest.mark.parametrize("vertices", [2, 3, 4, 5])
def test_small_sizes_by_brute_force(vertices: int) -> None:
    cells = [enumeration.decode(number) for number in enumeration.enumerate_cells(vertices)]
    cells = [cell for cell in cells if len(cell.matrix) == vertices]
    expected = _brute_force(vertices)
    assert len(cells) == len(expected) == BY_SIZE[vertices]
    assert {_class(cell) for cell in cells} == expected


def _acyclic(inner: int) -> set[tuple[int, ...]]:
    """All acyclic graphs of numbered vertices: for every vertex the mask of those it leads to."""
    graphs = set()
    for order in itertools.permutations(range(inner)):
        places = list(itertools.combinations(order, 2))
        for chosen in range(2 ** len(places)):
            masks = [0] * inner
            for k, (a, b) in enumerate(places):
                masks[a] |= (chosen >> k & 1) << b
            graphs.add(tuple(masks))
    return graphs


def _burnside(vertices: int) -> int:
    """How many cells there are, by counting those that each renaming of vertices leaves alone.

    The number of classes is the mean, over all renamings of the vertices between input and output,
    of the number of labelled acyclic graphs that a renaming maps to themselves (Burnside's lemma).
    """
    inner = vertices - 2
    everyone = 2**inner - 1
    graphs = []
    for masks in _acyclic(inner):
        entered = functools.reduce(int.__or__, masks, 0)
        left = sum(1 << v for v in range(inner) if masks[v])
        edges = sum(mask.bit_count() for mask in masks)
        # The input must lead to whom nobody leads to, and the output be led to by the dead ends.
        graphs.append((masks, everyone & ~entered, everyone & ~left, edges))
    total = 0
    for order in itertools.permutations(range(inner)):

        def moved(mask: int, order: tuple[int, ...] = order) -> int:
            return sum(1 << order[v] for v in range(inner) if mask >> v & 1)

        seen, cycles = set(), 0
        for v in range(inner):
            cycles += v not in seen
            while v not in seen:
                seen.add(v)
                v = order[v]
        still = [mask for mask in range(2**inner) if moved(mask) == mask]
        # ways[must][k]: masks of k vertices that stay the same and hold those of `must`.
        ways = {
            must: np.bincount(
                [mask.bit_count() for mask in still if mask & must == must], minlength=inner + 1
            )
            for must in range(2**inner)
        }
        image = [moved(mask) for mask in range(2**inner)]
        fixed = 0
        for masks, sources, ends, edges in graphs:
            if any(masks[order[v]] != image[masks[v]] for v in range(inner)):
                continue
            outside = np.convolve(ways[sources], ways[ends])
            for straight in (0, 1) if inner else (1,):
                room = MAX_EDGES - edges - straight
                fixed += int(outside[: room + 1].sum()) if room >= 0 else 0
        total += fixed * len(OPERATIONS) ** cycles
    orders = len(list(itertools.permutations(range(inner))))
    assert total % orders == 0
    return total // orders


@pytest.mark.parametrize("vertices", BY_SIZE)
def test_every_size_by_burnside_s_lemma(vertices: int) -> None:
    assert _burnside(vertices) == BY_SIZE[vertices]


def test_the_whole_space() -> None:
    cells = all_cells()
    assert len(cells) == enumeration.COUNT == 423_624
    sizes = [len(enumeration.enumerate_cells(vertices)) for vertices in range(2, 8)]
    assert np.diff([0, *sizes]).tolist() == list(BY_SIZE.values())
    assert np.all(np.diff(cells.astype(np.int64)) > 0)


def test_every_listed_cell_is_canonical() -> None:
    for number in np.random.default_rng(0).choice(all_cells(), 300, replace=False):
        cell = enumeration.decode(number)
        assert canonical(cell) == cell == cell.pruned()


def test_fewer_edges_are_a_part_of_the_list() -> None:
    few = enumeration.enumerate_cells(max_edges=7)
    specs = [enumeration.decode(number) for number in few[:: len(few) // 200]]
    assert max(sum(map(sum, spec.matrix)) for spec in specs) == 7
    assert set(few.tolist()) < set(all_cells().tolist())


def test_samples(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "cache" / "cells.npy")
    drawn = enumeration.sample(500, seed=3, path=path)
    assert len(set(drawn)) == 500
    assert enumeration.sample(20, seed=3, path=path) == drawn[:20]
    assert enumeration.sample(20, seed=4, path=path) != drawn[:20]
    # 85% of the cells have 7 vertices: 424 of 500, with a deviation of 8.
    assert 384 < sum(len(spec.matrix) == 7 for spec in drawn) < 464
    with pytest.raises(UserError, match="423,624"):
        enumeration.sample(423_625, seed=0, path=path)


@pytest.mark.parametrize("damage", ["cut", "other", "swapped"])
def test_a_damaged_cache_is_made_again(damage: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "cells.npy"
    enumeration.write(all_cells(), str(path))
    whole = path.read_bytes()
    assert len(whole) < 2e6
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "other":
        path.write_text("not a list")
    else:
        cells = all_cells().copy()
        cells[[5, 6]] = cells[[6, 5]]
        np.save(path, cells)
    assert path.read_bytes() != whole
    np.testing.assert_array_equal(enumeration.load(str(path)), all_cells())
    assert path.read_bytes() == whole


def test_without_a_place_for_the_cache(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / "cells.npy")
    np.testing.assert_array_equal(enumeration.load(path), all_cells())
    with pytest.raises(UserError, match="cannot be written"):
        enumeration.write(all_cells(), path)


def test_the_command(tmp_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "main.py", "enumerate"],
        cwd=conftest.ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line, (vertices, count) in zip(lines, BY_SIZE.items(), strict=False):
        assert line.startswith(f"{vertices} vertices: {count:>7,} cells")
    assert lines[-1].startswith("423,624 cells in ")
    path = tmp_path / "unnas_jax" / "nasbench101_cells.npy"
    np.testing.assert_array_equal(np.load(path), all_cells())
