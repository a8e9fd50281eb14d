"""Draws docs/figures/overview.png: python docs/figures/overview.py WORKDIR, of a finished search.

Images of `photos`, what the pretext tasks make of them, a supernet, and the cells that were found.
"""

import io
import itertools
import pathlib
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import unnas_jax as un
from unnas_jax.analysis import style

matplotlib.use("Agg")

RECORDS = (30, 700, 1900)  # Of the training split; chosen for looks.
SIZE = 96


def photographs() -> list[np.ndarray]:
    """Three images, (SIZE, SIZE, 3) uint8."""
    records = un.open_dataset("photos").splits["train"]
    opened = (Image.open(io.BytesIO(records[i]["image"])).convert("RGB") for i in RECORDS)
    return [np.asarray(image.resize((SIZE, SIZE))) for image in opened]


def jigsaw(image: np.ndarray) -> np.ndarray:
    """Its four quarters in another order, with gaps."""
    half, gap = SIZE // 2, 4
    out = np.full((SIZE + gap, SIZE + gap, 3), 255, np.uint8)
    places = list(itertools.product((0, 1), (0, 1)))
    for (row, column), (i, j) in zip(places, [places[k] for k in (2, 0, 3, 1)], strict=True):
        piece = image[i * half : (i + 1) * half, j * half : (j + 1) * half]
        top, left = row * (half + gap), column * (half + gap)
        out[top : top + half, left : left + half] = piece
    return out


def supernet(axes: plt.Axes) -> None:
    """States in a row, with an edge for every operation between them."""
    xs, names = np.arange(4.0), ("", "", "", "")
    colours = [colour for colour, _ in style.OPERATION_STYLES.values()][1:]
    for i, j in itertools.combinations(range(4), 2):
        for k, colour in enumerate(colours):
            bend = (0.18 + 0.22 * (j - i)) * (k - 3) / 3
            t = np.linspace(0, 1, 40)
            axes.plot(xs[i] + (xs[j] - xs[i]) * t, 4 * bend * t * (1 - t), color=colour, lw=1)
    axes.scatter(xs, 0 * xs, s=330, color="white", edgecolors=style.INK, zorder=3)
    for x, name in zip(xs, names, strict=True):
        axes.text(x, 0, name, ha="center", va="center", zorder=4)
    axes.set(xlim=(-0.4, 3.4), ylim=(-1.1, 1.1))


def main() -> None:
    """The command line."""
    workdir = pathlib.Path(sys.argv[1])
    a, b, c = photographs()
    figure = plt.figure(figsize=(12, 3.7), dpi=150)

    def place(box: tuple[float, float, float, float]) -> plt.Axes:
        axes = figure.add_axes(box)
        axes.axis("off")
        return axes

    def title(x: float, text: str, y: float = 0.93) -> None:
        figure.text(x, y, text, ha="center", fontsize=11, color=style.INK)

    title(0.068, "images, no labels")
    for n, image in enumerate((a, b, c)):
        place((0.015, 0.62 - 0.295 * n, 0.09, 0.27)).imshow(image)
    title(0.245, "pretext tasks")
    for k in range(4):
        place((0.15 + 0.05 * k, 0.67, 0.046, 0.17)).imshow(np.rot90(a, k))
    gray = np.repeat(b.mean(-1, keepdims=True).astype(np.uint8), 3, axis=2)
    for n, image in enumerate((gray, b)):
        place((0.17 + 0.08 * n, 0.36, 0.07, 0.22)).imshow(image)
    for n, image in enumerate((jigsaw(c), c)):
        place((0.17 + 0.08 * n, 0.06, 0.07, 0.22)).imshow(image)
    for y, text in ((0.62, "which way is up?"), (0.31, "which colours?"), (0.01, "which order?")):
        figure.text(0.245, y, text, ha="center", fontsize=9, color=style.INK)
    title(0.5, "supernet: every edge mixes all operations")
    supernet(place((0.385, 0.12, 0.24, 0.72)))
    title(0.83, "the normal cell that it found")
    cells = plt.imread(workdir / "cells.png")
    place((0.665, 0.08, 0.33, 0.78)).imshow(cells[: int(0.46 * len(cells))])
    for x in (0.125, 0.365, 0.645):
        figure.text(x, 0.46, "\u2192", fontsize=24, ha="center", color=style.FAINT)
    figure.savefig(pathlib.Path(__file__).with_name("overview.png"))


if __name__ == "__main__":
    main()
