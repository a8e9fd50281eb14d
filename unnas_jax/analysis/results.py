"""Reads what a search leaves in its workdir, also while the search is still running."""

import dataclasses
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from unnas_jax.core.errors import UserError
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import genotype as genotypes
from unnas_jax.spaces.darts.candidates import Candidates

Record = dict[str, Any]

# What numpy raises for files that are cut off, overwritten, or something else.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclasses.dataclass(frozen=True)
class Alphas:
    """The history of the architecture parameters: T rows, the first at step 0.

    Attributes:
      step: (T,) weight steps taken.
      epoch: (T,) the same in epochs.
      normal, reduce: (T, edges, operations), raw, before the softmax.
    """

    step: np.ndarray
    epoch: np.ndarray
    normal: np.ndarray
    reduce: np.ndarray


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything known about one search.

    Attributes:
      path: the workdir.
      config: the content of `config.json`.
      genotype: the cells of `genotype.json`, or those of the last alphas before it exists.
      document: the content of `genotype.json` (an empty dict before it exists).
      softmax: the weights of the cells' alphas, keys "normal" and "reduce"; None if unknown.
      operations: of every edge in the search; None before there are alphas or cells.
      alphas: the content of `alphas.npz`.
      records: `metrics.jsonl` by kind ("start", "train", "validation"), ordered by step.
      skipped: lines of `metrics.jsonl` that could not be read.
    """

    path: str
    config: Mapping[str, Any]
    genotype: genotypes.Genotype | None
    document: Mapping[str, Any]
    softmax: Mapping[str, Any] | None
    operations: Candidates | None
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
            alphas = Alphas(**{key: arrays[key] for key in ("step", "epoch", "normal", "reduce")})
    except _DAMAGE as error:
        raise UserError(
            f"{name}: damaged ({error}); remove it, and the search writes it again"
        ) from error
    rows, edges = len(alphas.step), [candidates.num_edges(nodes) for nodes in range(1, 64)]
    for cell in (alphas.normal, alphas.reduce):
        if cell.ndim != 3 or cell.shape[1] not in edges or len(cell) != rows or rows == 0:
            raise UserError(
                f"{name}: alphas of the shape {cell.shape} for {rows} steps; "
                "expected (steps, edges, operations)"
            )
    return alphas


def _operations(config: Mapping[str, Any], nodes: int) -> Candidates:
    """The operations of every edge; a config from before there was a choice does not name them."""
    return candidates.parse(config.get("network", {}).get("operations", ()), nodes)


def _check_operations(path: str, alphas: Alphas, operations: Candidates) -> None:
    for kind in candidates.KINDS:
        shape, expected = getattr(alphas, kind).shape[1:], candidates.mask(operations[kind]).shape
        if shape != expected:
            raise UserError(
                f"{path}: the {kind} cell's alphas have the shape {shape}, but the operations of "
                f"config.json make {expected}; the two are not of the same search"
            )


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
    genotype, softmax, alphas, operations = None, None, None, None
    document: dict[str, Any] = {}
    alphas_path = os.path.join(workdir, "alphas.npz")
    if os.path.exists(alphas_path):
        alphas = read_alphas(alphas_path)
        edges = alphas.normal.shape[1]
        nodes = next(n for n in range(1, 64) if candidates.num_edges(n) == edges)
        operations = _operations(config, nodes)
        _check_operations(alphas_path, alphas, operations)
        current = genotypes.document(alphas.normal[-1], alphas.reduce[-1], {}, operations)
        genotype, softmax = genotypes.from_dict(current["genotype"]), current["alphas_softmax"]
    genotype_path = os.path.join(workdir, "genotype.json")
    if os.path.exists(genotype_path):
        genotype, document = genotypes.load(genotype_path)
        softmax = document.get("alphas_softmax")
        operations = _operations(config, genotypes.nodes_of(genotype.normal))
    records, skipped = read_metrics(os.path.join(workdir, "metrics.jsonl"))
    return Run(workdir, config, genotype, document, softmax, operations, alphas, records, skipped)
