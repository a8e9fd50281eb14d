"""Predictions of a trained network for images: `unnas-jax predict WORKDIR IMAGES...`."""

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Sequence

import numpy as np

from unnas_jax.commands import command_line
from unnas_jax.core.errors import UserError
from unnas_jax.data import scan
from unnas_jax.runs import prediction, trained
from unnas_jax.runs.prediction import Answer
from unnas_jax.tasks import segmentation

FORMATS = ("table", "csv", "jsonl")

SOME_BROKEN = 1
"""The exit status if some of the images could not be read."""


def files_of(words: Sequence[str]) -> list[str]:
    """The files that words name: files, all images below folders, and the lines of `-`.

    Raises:
      UserError: a folder without images.
    """
    paths = []
    for word in words:
        listed = [line.rstrip("\n") for line in sys.stdin] if word == "-" else [word]
        for path in filter(None, listed):
            path = os.path.expanduser(path)
            if not os.path.isdir(path):
                paths.append(path)  # A missing file is reported like a broken one.
                continue
            found = scan.scan(path)
            if not found.images:
                raise UserError(f"{path!r}: no file below this folder is an image by its ending")
            paths += [os.path.join(path, name) for name in found.images]
    if not paths:
        raise UserError("there is no image; give files, folders, or - for a list")
    return paths


def _ranked(answer: Answer, names: Sequence[str], top: int) -> list[tuple[int, str, float]]:
    """The most probable classes: number, name, probability."""
    assert answer.probabilities is not None
    order = np.argsort(-answer.probabilities[: len(names)], kind="stable")[:top]
    return [(int(k), names[k], float(answer.probabilities[k])) for k in order]


def _writer(form: str, names: Sequence[str], top: int) -> Callable[[Answer], None]:
    """Writes an answer to standard output."""
    if form == "jsonl":

        def as_json(answer: Answer) -> None:
            keys = ("number", "name", "probability")
            classes = [dict(zip(keys, row, strict=True)) for row in _ranked(answer, names, top)]
            print(json.dumps({"image": answer.path, "classes": classes}))

        return as_json
    if form == "csv":
        rows = csv.writer(sys.stdout, lineterminator="\n")
        columns = range(1, top + 1)
        rows.writerow(["image", *(f"{what}_{k}" for k in columns for what in ("class", "p"))])

        def as_csv(answer: Answer) -> None:
            pairs = [(name, f"{p:.6f}") for _, name, p in _ranked(answer, names, top)]
            rows.writerow([answer.path, *(value for pair in pairs for value in pair)])

        return as_csv

    def as_row(answer: Answer) -> None:
        words = [f"{name} {100 * p:.1f}%" for _, name, p in _ranked(answer, names, top)]
        print(f"{answer.path}  {', '.join(words)}")

    return as_row


def _parser() -> command_line.Parser:
    parser = command_line.Parser(
        prog="unnas-jax predict",
        description="Prints the classes of images with their probabilities, one image a line. "
        "Networks of segmentation write the label map of every image, and the image under the "
        "classes' colours; printed are the classes with the most pixels and their share.",
        epilog="Exit status: 0; 1 if some images could not be read, each of which is one line on "
        "standard error; 2 for a mistake.",
    )
    parser.add_argument("workdir", type=os.path.expanduser, help="the --workdir of a training")
    parser.add_argument(
        "images", nargs="+", help="files, folders, or - for a list of files on standard input"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="default: table")
    parser.add_argument("--top", type=int, default=3, help="classes an image (default: 3)")
    parser.add_argument(
        "--output",
        type=os.path.expanduser,
        default="predictions",
        help="the folder for label maps (default: predictions)",
    )
    parser.add_argument("--batch", type=int, help="images at once (default: 32; label maps: 4)")
    add_choice(parser)
    return parser


def add_choice(parser: command_line.Parser, several: bool = True) -> None:
    """The options that choose a network of a training."""
    parser.add_argument(
        "--checkpoint",
        choices=trained.CHECKPOINTS,
        default="last",
        help="the last, or that of the best evaluation (default: last)",
    )
    also = "; all: the mean of all" if several else ""
    parser.add_argument("--seed", help=f"which of its networks (default: the first{also})")


def seed_of(text: str | None) -> int | str | None:
    """The value of `--seed`; `UserError` unless it is a number or `all`."""
    if text is None or text == "all":
        return text
    if not text.isdecimal():
        raise UserError(f"--seed={text!r}: give a number")
    return int(text)


def _run(options: argparse.Namespace) -> int:
    for name in ("top", "batch"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name}={value}: must be at least 1")
    paths = files_of(options.images)
    found = trained.read(options.workdir, seed=seed_of(options.seed), checkpoint=options.checkpoint)
    maps = found.task.label_maps
    names = found.dataset.class_names or tuple(map(str, range(found.task.num_classes)))
    colors = segmentation.palette(found.task.num_classes, found.dataset.colors)
    stems: set[str] = set()
    write, broken = _writer(options.format, names, min(options.top, len(names))), 0
    for answer in prediction.answers(found, paths, options.batch or (4 if maps else 32)):
        if answer.problem:
            broken += 1
            command_line.fail(f"{answer.path!r} {answer.problem}")
            continue
        write(answer)
        if maps:
            stem = _stem(answer.path, stems)
            prediction.write_label_map(options.output, answer, stem, colors)
        sys.stdout.flush()
    if broken:
        command_line.fail(f"{broken:,} of {len(paths):,} images could not be read")
    return SOME_BROKEN if broken else 0


def _stem(path: str, taken: set[str]) -> str:
    """A file's name without its ending, made different from those before it."""
    stem = name = os.path.splitext(os.path.basename(path))[0]
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, 1 if images were broken, 2 for a mistake."""
    return command_line.run(_parser(), _run, arguments)
