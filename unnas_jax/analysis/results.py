"""Reads the workdir of a search or a training, also while it is running."""

import dataclasses
import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from unnas_jax.analysis import choice, result_files, verdict
from unnas_jax.analysis.history import Alphas
from unnas_jax.config import run_config
from unnas_jax.core import reading
from unnas_jax.core.errors import UserError
from unnas_jax.learning import rows as rows_lib
from unnas_jax.spaces import mixed, registry
from unnas_jax.spaces.darts import candidates
from unnas_jax.spaces.darts import genotype as genotypes
from unnas_jax.spaces.darts.candidates import Candidates
from unnas_jax.spaces.mixed import Mixed
from unnas_jax.spaces.registry import Cells

_LOG = logging.getLogger("unnas_jax")

Record = dict[str, Any]

_MOST_ALPHAS = 64 * 2**20  # Bytes: 70,000 epochs of a cell of 4 nodes.


@dataclasses.dataclass(frozen=True)
class Run:
    """The files of one search or training.

    Attributes:
      path: the workdir.
      config: the content of `config.json`.
      genotype: the cells of `genotype.json`, or of the last alphas before it exists; of a training
        those that it trains; None if they are not known.
      document: the content of `genotype.json` (an empty dict before it exists).
      result: the content of a training's `result.json` (an empty dict before it exists).
      softmax: the weights of the cells' alphas by kind of cell; None if unknown.
      operations: of every edge in the search; None before there are alphas or cells.
      alphas: the content of `alphas.npz`.
      records: `metrics.jsonl` by kind ("start", "train", "validation", "method"), ordered by step.
      skipped: lines of `metrics.jsonl` that could not be read.
    """

    path: str
    config: Mapping[str, Any]
    genotype: Cells | None
    document: Mapping[str, Any]
    softmax: Mapping[str, Any] | None
    operations: Candidates | None
    alphas: Alphas | None
    records: Mapping[str, list[Record]]
    skipped: int
    result: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def space(self) -> Mixed:
        """That of a search's alphas."""
        return _space(self.config)

    @property
    def is_training(self) -> bool:
        """Whether this is the workdir of a training, not of a search."""
        return bool(self.config["experiment"] == "train")

    @property
    def finished(self) -> bool:
        """Whether the run ended; false while it goes on and after it was interrupted."""
        return (self.result if self.is_training else self.document).get("finished") is True

    @property
    def chance(self) -> float | None:
        """The accuracy of guessing, see `verdict.chance`; None before a launch is logged."""
        starts, validations = self.records["start"], self.records["validation"]
        if not starts:
            return None
        return verdict.chance(validations[-1] if validations else {}, starts[-1]["num_classes"])

    @property
    def warnings(self) -> list[str]:
        """Lines on what is wrong with the results so far."""
        if self.is_training:
            return list(self.result.get("warnings", ()))
        words = []
        if self.alphas is not None and self.genotype is not None:
            start = self.config["search"]["arch_start_epoch"]
            words = verdict.of_alphas(
                self.alphas.mixing, self.genotype, start, self.operations, self.space
            )
        starts, validations = self.records["start"], self.records["validation"]
        if starts and validations:
            classes, images = starts[-1]["num_classes"], starts[-1].get("validation_images", 1)
            words += verdict.of_training(validations[-1:], classes, images)
        return words


def _config(path: str) -> Mapping[str, Any]:
    config = run_config.read(path, of="a search or a training")
    if config["experiment"] == "sample":
        raise UserError(
            f"{path}: the workdir of a sweep, which has no report; see unnas-jax status, and "
            "unnas-jax figures for its pictures"
        )
    return config


def read_alphas(path: str | os.PathLike[str]) -> Alphas:
    """Reads an `alphas.npz`.

    Raises:
      UserError: the file is damaged or does not hold the history of a search.
    """
    name = os.fspath(path)
    try:
        return Alphas.of_columns(reading.arrays(path, "iuf", _MOST_ALPHAS))
    except (KeyError, OSError, ValueError) as error:
        raise UserError(
            f"{name}: damaged ({reading.reason(error)}); remove it, and the search writes it again"
        ) from error


def alphas_until(path: str, step: int) -> Alphas:
    """The rows of an alphas.npz up to a step; none if it is missing or damaged, which is said."""
    if not os.path.exists(path):
        return Alphas(())
    try:
        return read_alphas(path).until(step)
    except UserError as error:
        _LOG.warning("%s. The history of the alphas begins anew.", error)
        return Alphas(())


def _space_name(config: Mapping[str, Any]) -> str:
    """Configs of older versions do not name it."""
    return str(config.get("network", {}).get("space", "darts"))


def _space(config: Mapping[str, Any]) -> Mixed:
    """The space of a search with alphas; `UserError` for one that nobody registered."""
    return mixed.SUPERNETS.find(_space_name(config), "network.space")


def _operations(config: Mapping[str, Any], mixing: Mapping[str, np.ndarray]) -> Candidates:
    """The operations of every edge; configs of older versions do not name them."""
    section = config.get("network", {})
    if _space_name(config) != "darts":
        return _space(config).operations(section)
    nodes = candidates.nodes_of(len(mixing["normal"])) if "normal" in mixing else section["nodes"]
    return candidates.parse(section.get("operations", ()), nodes)


def _check_operations(path: str, mixing: Mapping[str, np.ndarray], operations: Candidates) -> None:
    for kind in operations:
        shape = mixing[kind].shape if kind in mixing else ()
        expected = candidates.mask(operations[kind]).shape
        if shape != expected:
            raise UserError(
                f"{path}: the {kind} cell's alphas have the shape {shape}, but the operations of "
                f"config.json make {expected}; the two are not of the same search"
            )


def read_metrics(path: str | os.PathLike[str]) -> tuple[dict[str, list[Record]], int]:
    """Reads a `metrics.jsonl`.

    A run that is killed leaves half a line, and the next launch goes on behind it; it also
    repeats the steps since the last checkpoint. So lines that cannot be read are skipped, and
    of several records of one kind and step the last counts.

    Returns:
      the records by kind, each ordered by step; how many lines were skipped, not counting an
      unfinished last one, which a running search is about to complete.

    Raises:
      UserError: the file cannot be read.
    """
    kinds = ("start", "train", "validation", "method")
    records: dict[str, list[Record]] = {kind: [] for kind in kinds}
    latest: dict[tuple[str, int], Record] = {}
    found, skipped = rows_lib.read(path)
    for _, row in found:
        if not rows_lib.is_sound(row):
            skipped += 1
        elif row["kind"] == "start":
            records["start"].append(row)
        elif row["kind"] in records:
            latest[row["kind"], row["step"]] = row
    for kind, step in sorted(latest):
        records[kind].append(latest[kind, step])
    return records, skipped


def _trained(workdir: str, config: Mapping[str, Any]) -> tuple[Cells | None, dict[str, Any]]:
    """The cells that a training trains, and the document they came from."""
    section, kept = config["network"], os.path.join(workdir, "genotype.json")
    space = registry.SPACES.get(section["space"])
    if space is None:  # Of one's own, not registered here.
        return None, {}
    if os.path.exists(kept):
        return space.load(kept)
    try:
        return space.resolve(section["genotype"]), {}
    except UserError:  # A file that the training has not copied yet.
        return None, {}


def read(path: str | os.PathLike[str]) -> Run:
    """Reads a workdir; files that a run has not written yet may be absent.

    Raises:
      UserError: the folder is missing, is not a workdir, or holds a damaged file.
    """
    workdir = os.fspath(path)
    config = _config(workdir)
    softmax, alphas, operations = None, None, None
    cells: Any = None
    document: dict[str, Any] = {}
    result: dict[str, Any] = {}
    alphas_path = os.path.join(workdir, "alphas.npz")
    genotype_path = os.path.join(workdir, "genotype.json")
    if config["experiment"] == "train":
        cells, document = _trained(workdir, config)
        result_path = os.path.join(workdir, "result.json")
        if os.path.exists(result_path):
            result = result_files.read_result(result_path) or {}
    elif os.path.exists(alphas_path):
        alphas = read_alphas(alphas_path)
        mixing = alphas.rows[-1].mixing
        space = _space(config)
        operations = _operations(config, mixing)
        _check_operations(alphas_path, mixing, operations)
        cells = space.cells(mixing, operations)
        softmax = space.document(cells, mixing, {}, operations).get("alphas_softmax")
    if config["experiment"] == "search" and os.path.exists(genotype_path):
        if _space_name(config) == "darts":
            cells, document = genotypes.load(genotype_path)
            named = config.get("network", {}).get("operations", ())
            operations = candidates.parse(named, genotypes.nodes_of(cells.normal))
        else:
            space_of = registry.SPACES.find(_space_name(config), "network.space")
            cells, document = space_of.load(genotype_path)
        choice.check_document(genotype_path, document)
    softmax = document.get("alphas_softmax", softmax)
    records, skipped = read_metrics(os.path.join(workdir, "metrics.jsonl"))
    return Run(
        workdir,
        config,
        cells,
        document,
        softmax,
        operations,
        alphas,
        records,
        skipped,
        result=result,
    )
