"""Prepares a dataset, once: `unnas-jax prepare NAME ...`."""

import argparse
import glob
import os
import sys
from collections.abc import Sequence
from typing import Any

from unnas_jax.commands import command_line
from unnas_jax.core.errors import UserError
from unnas_jax.data import download, registry, shards, subsets

_SHOWN = 10  # Problems on the screen; all are in the report.


def names() -> list[str]:
    """The datasets that can be prepared."""
    return [name for name, entry in registry.DATASETS.items() if entry.recipe]


def recipe(name: str, source: str, *, files: str = "", partial: bool = False) -> shards.Recipe:
    """How the dataset `name` is prepared from the files in `source`.

    Args:
      name: one of `names()`.
      source: a folder or archive, see the modules of the datasets.
      files: a list of the images to use, of imagenet22k.
      partial: allows that parts are missing, of imagenet2012.

    Raises:
      UserError: the files are not there or damaged as a whole.
    """
    source = os.path.abspath(os.path.expanduser(source))
    if not os.path.exists(source):
        raise UserError(f"--source={source!r}: does not exist; check the spelling")
    entry = registry.entry_of(name)
    if not entry.recipe:
        raise UserError(f"{name}: needs no preparation; use one of {', '.join(names())}")
    options: dict[str, Any] = {"files": files, "partial": partial}
    for option, value in options.items():
        if value and option not in entry.options:
            whose = [other for other in names() if option in registry.DATASETS[other].options]
            raise UserError(f"--{option}={value!r}: is for {', '.join(whose)}, not {name}")
    given = {option: options[option] for option in entry.options if option in options}
    prepared: shards.Recipe = registry.function_of(entry.recipe)(source, **given)
    return prepared


def fetched(name: str, data_dir: str, url: str = "") -> str:
    """The archive of the dataset `name`, which is downloaded to `data_dir`/downloads.

    Raises:
      UserError: it may not be fetched from anywhere, or cannot.
    """
    entry = registry.entry_of(name)
    if not entry.download:
        free = [other for other in names() if registry.DATASETS[other].download]
        raise UserError(
            f"--download: is for {', '.join(free)}; {name} has terms to agree to at its "
            "source: fetch it there and name it with --source=FOLDER"
        )
    published = registry.function_of(entry.download)(name)
    return download.fetch(published, os.path.join(data_dir, "downloads"), url)


def summary(report: dict[str, Any], path: str) -> str:
    """A report in some lines, with the first of the problems."""
    counts = ", ".join(f"{count:,} {split}" for split, count in report["examples"].items())
    lines = [f"{report['dataset']}: {counts} examples in {path}"]
    lines += [f"note: {note}" for note in report["notes"]]
    for kind in ("rejected", "duplicates", "remarks"):
        problems = report[kind]
        lines += [f"{kind}: {p['split']}: {p['name']}: {p['reason']}" for p in problems[:_SHOWN]]
        if len(problems) > _SHOWN:
            lines.append(f"{kind}: and {len(problems) - _SHOWN:,} more")
    lines.append(f"The report is {os.path.join(path, shards.REPORT)}")
    return "\n".join(lines)


def _run(options: argparse.Namespace) -> None:
    data_dir = os.path.expanduser(options.data_dir)
    if options.download and options.source:
        raise UserError("--download, --source: contradict each other; give one of them")
    if options.url and not options.download:
        raise UserError("--url: is for --download; add it")
    source = options.source
    if options.download:
        done = glob.glob(os.path.join(glob.escape(data_dir), options.name, "*", shards.INFO))
        if done:
            print(f"{os.path.dirname(done[0])} is prepared already", file=sys.stderr)
        else:
            source = fetched(options.name, data_dir, options.url)
    if source:
        chosen = recipe(options.name, source, files=options.files, partial=options.partial)
        path = shards.directory(data_dir, chosen.name, chosen.version)
        if shards.is_prepared(path):
            print(f"{path} is prepared already; delete it to prepare it anew", file=sys.stderr)
        report = shards.prepare(chosen, data_dir, options.workers)
        print(summary(report, path))
    elif options.subset is None and not options.download:
        raise UserError("--source: is missing; name the folder of the published files")
    if options.subset is not None:
        dataset = registry.open_dataset(options.name, data_dir=data_dir)
        print(subsets.write(dataset, options.subset, options.seed))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status, 2 for a mistake of the user."""
    parser = command_line.Parser(
        prog="unnas-jax prepare",
        description="Prepares a dataset from its published files, or goes on with it after a "
        "kill: verifies every image, and reports what it rejects.",
    )
    parser.add_argument("name", choices=names())
    parser.add_argument("--source", default="", help="the folder (or archive) of published files")
    parser.add_argument(
        "--download",
        action="store_true",
        help="cifar10, cifar100: fetch the published archive (0.17 GB) to DATA_DIR/downloads first",
    )
    parser.add_argument("--url", default="", help="--download: a mirror's address of the archive")
    parser.add_argument("--data_dir", required=True, help="where TFDS keeps datasets")
    parser.add_argument(
        "--files", type=os.path.expanduser, default="", help="imagenet22k: a list of images to use"
    )
    parser.add_argument("--workers", type=int, default=-1, help="processes; default: one a core")
    parser.add_argument(
        "--partial", action="store_true", help="imagenet2012: though classes or val are missing"
    )
    parser.add_argument(
        "--subset", type=float, help="also write a list of this share of the training examples"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the subset")
    return command_line.run(parser, _run, arguments)
