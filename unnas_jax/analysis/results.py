"""Reads what a search leaves in its workdir, also while the search is still running."""

import dataclasses
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from unnas_jax.analysis.history import Alphas
from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts import genotype as genotypes

Record = dict[str, Any]

# What numpy raises for files that are cut off, overwritten, or something else.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything known about one search.

    Attributes:
      path: the workdir.
      config: the content of `config.json`.
      genotype: the cells of `genotype.json`, or those of the last alphas before it exists.
      document: the content of `genotype.json` (an empty dict before it exists).
      softmax: the weights of the cells' alphas, keys "normal" and "reduce"; None if unknown.
      alphas: the content of `alphas.npz`.
      records: `metrics.jsonl` by kind ("start", "train", "validation"), ordered by step.
      skipped: lines of `metrics.jsonl` that could not be read.
    """

    path: str
    config: Mapping[str, Any]
    genotype: genotypes.Genotype | None
    document: Mapping[str, Any]
    softmax: Mapping[str, Any] | None
    alphas: Alphas | None
    records: Mapping[str, list[Record]]
    skipped: int

    @property
    def finished(self) -> bool:
        """Whether the search ended; false while it runs and after it was interrupted."""
        return self.document.get("finished") is True

    @property
    def chance(self) -> float | None:
        """The accuracy of guessing, 1 / classes; None before the first launch is logged."""
        starts = self.records["start"]
        return 1 / starts[-1]["num_classes"] if starts else None


def _config(path: str) -> Mapping[str, Any]:
    if not os.path.isdir(path):
        raise UserError(f"{path}: no such workdir; give the --workdir of a search")
    file_path = os.path.join(path, "config.json")
    try:
        with open(file_path, encoding="utf-8") as file:
            config = json.load(file)
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: not a workdir, it has no config.json; give the --workdir of a search"
        ) from error
    except OSError as error:
        raise UserError(f"{file_path}: cannot read it ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{file_path}: not JSON ({error}); restart the search") from error
    needed = {"task", "dataset", "seed", "train"}
    if not isinstance(config, dict) or not needed <= config.keys():
        raise UserError(f"{file_path}: not the config of a search; give the --workdir of a search")
    return config


def read_alphas(path: str | os.PathLike[str]) -> Alphas:
    """Reads an `alphas.npz`.

    Raises:
      UserError: the file is damaged or does not hold the history of a search.
    """
    name = os.fspath(path)
    try:
        # Opened here, because np.load does not close a damaged file.
        with open(name, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Alphas.of_columns({key: arrays[key] for key in arrays.files})
    except _DAMAGE as error:
        raise UserError(
            f"{name}: damaged ({error}); remove it, and the search writes it again"
        ) from error


def read_metrics(path: str | os.PathLike[str]) -> tuple[dict[str, list[Record]], int]:
    """Reads a `metrics.jsonl`.

    A search that is killed leaves half a line, and the next launch goes on behind it; it also
    repeats the steps since the last checkpoint. So lines that cannot be read are skipped, and
    of several records of one kind and step the last counts.

    Returns:
      the records by kind, each ordered by step; how many lines were skipped, not counting an
      unfinished last one, which a running search is about to complete.
    """
    records: dict[str, list[Record]] = {"start": [], "train": [], "validation": []}
    latest: dict[tuple[str, int], Record] = {}
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        return records, 0
    except OSError as error:
        raise UserError(f"{os.fspath(path)}: cannot read it ({error.strerror})") from error
    skipped = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            kind, step = record["kind"], int(record["step"])
            float(record["epoch"] if kind in ("train", "validation") else 0)
        except (ValueError, KeyError, TypeError):
            skipped += number < len(lines)
            continue
        if kind == "start":
            records["start"].append(record)
        elif kind in records:
            latest[kind, step] = record
    for kind, step in sorted(latest):
        records[kind].append(latest[kind, step])
    return records, skipped


def read(path: str | os.PathLike[str]) -> Run:
    """Reads a workdir; files that a search has not written yet may be absent.

    Raises:
      UserError: the folder is missing, is not a workdir, or holds a damaged file.
    """
    workdir = os.fspath(path)
    config = _config(workdir)
    genotype, softmax, alphas = None, None, None
    document: dict[str, Any] = {}
    alphas_path = os.path.join(workdir, "alphas.npz")
    if os.path.exists(alphas_path):
        alphas = read_alphas(alphas_path)
        mixing = alphas.rows[-1].mixing
        genotype = genotypes.strongest(**mixing)
        softmax = genotypes.document_of(genotype, mixing, {})["alphas_softmax"]
    genotype_path = os.path.join(workdir, "genotype.json")
    if os.path.exists(genotype_path):
        genotype, document = genotypes.load(genotype_path)
        softmax = document.get("alphas_softmax")
    records, skipped = read_metrics(os.path.join(workdir, "metrics.jsonl"))
    return Run(workdir, config, genotype, document, softmax, alphas, records, skipped)
