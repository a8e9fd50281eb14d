"""Sets of permutations that are far apart, for the jigsaw task."""

import functools
import itertools
import os

import numpy as np

from unnas_jax.core import reading
from unnas_jax.core.errors import UserError

_MOST_BYTES = 2**24  # Largest file: 200,000 permutations of nine tiles.

_IRREDUCIBLE = 0b1011  # x^3 + x + 1, which makes GF(8) of the polynomials over GF(2).
_INFINITY = 8


def _multiply(a: int, b: int) -> int:
    """The product in GF(8), elements as bit masks of polynomials."""
    product = 0
    for bit in range(3):
        if b >> bit & 1:
            product ^= a << bit
    for bit in (4, 3):
        if product >> bit & 1:
            product ^= _IRREDUCIBLE << (bit - 3)
    return product


def _inverse(a: int) -> int:
    return next(b for b in range(1, 8) if _multiply(a, b) == 1)


def _moebius(a: int, b: int, c: int, d: int, squarings: int) -> tuple[int, ...]:
    """The images of the nine points of the projective line under x -> (a y + b) / (c y + d).

    y is x raised to 2^squarings, a field automorphism of GF(8).
    """
    images = []
    for x in range(9):
        if x == _INFINITY:
            numerator, denominator = a, c
        else:
            y = x
            for _ in range(squarings):
                y = _multiply(y, y)
            numerator, denominator = _multiply(a, y) ^ b, _multiply(c, y) ^ d
        point = _INFINITY if denominator == 0 else _multiply(numerator, _inverse(denominator))
        images.append(point)
    return tuple(images)


def _projective(squarings: int) -> np.ndarray:
    """The 504 maps with one automorphism, in lexicographic order, (504, 9)."""
    maps = {
        _moebius(a, b, c, d, squarings)
        for a, b, c, d in itertools.product(range(8), repeat=4)
        if _multiply(a, d) != _multiply(b, c)
    }
    return np.array(sorted(maps), np.uint8)


@functools.cache
def _nine() -> np.ndarray:
    group = np.concatenate([_projective(k) for k in range(3)])
    points = np.arange(9)
    for candidate in itertools.permutations(range(9)):
        coset = np.asarray(candidate, np.uint8)[group]
        # dist(g, t h) = 9 - fixed points of g^-1 t h, which is conjugate to an element of the
        # coset, so the coset's fixed points bound every distance between group and coset. No
        # coset has fewer than 5.
        if int((coset == points).sum(axis=1).max()) <= 5:
            return np.concatenate([group, coset])
    raise AssertionError("no coset of PGammaL(2, 8) is at distance 4")


def limit(grid: int) -> int:
    """The largest number of permutations available for a grid of grid x grid patches."""
    return {2: 24, 3: 3024}[grid]


@functools.cache
def read(path: str, grid: int, count: int) -> np.ndarray:
    """A list of permutations from a file, uint8 (count, grid * grid): see `permutations`.

    Raises:
      UserError: it cannot be read, has another shape, or a row is no permutation.
    """
    tiles = grid * grid
    try:
        rows = reading.array(os.path.expanduser(path), "iuf", _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(
            f"config.task.permutation_list={path!r}: cannot be read ({reading.reason(error)})"
        ) from error
    if rows.shape != (count, tiles):
        raise UserError(
            f"config.task.permutation_list={path!r}: has the shape {np.shape(rows)}; "
            f"config.task.permutations and grid make it ({count}, {tiles})"
        )
    if not np.array_equal(np.sort(rows, axis=1), np.tile(np.arange(tiles), (count, 1))):
        raise UserError(
            f"config.task.permutation_list={path!r}: every row must have 0 to {tiles - 1} once"
        )
    return rows.astype(np.uint8)


def permutations(grid: int, count: int) -> np.ndarray:
    """The first `count` permutations of grid * grid tiles, uint8 (count, grid * grid).

    For nine tiles they act on the projective line over GF(8): PGL(2, 8), 504 permutations of
    which any two agree in at most 2 places (Hamming distance 7 or more); then the rest of
    PGammaL(2, 8), 1512 at distance 6 or more; then a coset of it, 3024 at distance 4 or more.
    For four tiles: all 24 in lexicographic order. Row 0 leaves every tile in place.
    """
    if not 1 <= count <= limit(grid):
        raise ValueError(f"{count} permutations of a grid of {grid}: at most {limit(grid)}")
    if grid == 2:
        return np.array(list(itertools.permutations(range(4))), np.uint8)[:count]
    return _nine()[:count]
