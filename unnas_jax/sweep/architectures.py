"""Samples of architectures: drawn from a search space, or read from a list."""

import dataclasses
import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unnas_jax.core import files, reading
from unnas_jax.core.errors import UserError
from unnas_jax.layers.heads import ImageHead
from unnas_jax.spaces import registry
from unnas_jax.spaces.darts import genotype as darts
from unnas_jax.spaces.darts.candidates import OPERATIONS
from unnas_jax.spaces.darts.genotype import Genotype, Pairs
from unnas_jax.spaces.darts.network import Network
from unnas_jax.spaces.darts.parameters import parameters_of
from unnas_jax.spaces.nasbench101 import enumeration
from unnas_jax.spaces.nasbench101 import spec as nasbench101

_LOG = logging.getLogger("unnas_jax")

SCHEMA = "unnas_jax.architectures/1"
FILE = "architectures.json"

# The network that a window of sizes is about: that of the paper's CIFAR-10 experiments (section
# 5.2), whatever is trained, so that a seed gives the same architectures for every dataset.
_WIDTH, _CELLS, _CLASSES, _SIDE = 16, 20, 10, 32
_MOST_BYTES = 2**25  # Of a list: all cells of NAS-Bench-101 as texts.
_MOST_TEXT = 2**14  # Characters of a cell.
_MAX_DRAWS_EACH = 10_000  # Of an architecture, before a window counts as empty.


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One point of a search space.

    Attributes:
      name: `SPACE-` and twelve digits that only this cell has, on whatever dataset it is trained.
      cell: the text that a training's `network.genotype` takes.
    """

    name: str
    cell: str


def _named(space: str, cell: Any) -> Architecture:
    # Isomorphic cells of NAS-Bench-101 are one architecture.
    identity = nasbench101.identity(cell) if space == "nasbench101" else str(cell)
    digits = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return Architecture(f"{space}-{digits}", str(cell))


def _random_cell(rng: np.random.Generator, nodes: int) -> Pairs:
    return tuple(
        (OPERATIONS[rng.integers(len(OPERATIONS))], int(rng.integers(node + 2)))
        for node in range(nodes)
        for _ in range(2)
    )


def draw_darts(seed: int, number: int, nodes: int = 4) -> Genotype:
    """Draw `number` of a seed from the DARTS space, as the paper samples it.

    Each of a cell's nodes takes two (operation, earlier state) pairs. Operations are uniform over
    all eight, `none` included, and inputs over the earlier states, with replacement.
    """
    rng = np.random.default_rng((seed, number))
    concat = tuple(range(2, nodes + 2))
    return Genotype(_random_cell(rng, nodes), concat, _random_cell(rng, nodes), concat)


def parameters(genotype: Genotype) -> int:
    """Those of a cell's network at the paper's CIFAR-10 size: 20 cells of width 16."""
    network = Network(genotype, _WIDTH, _CELLS, stem="cifar", head=ImageHead(_CLASSES))
    return parameters_of(network, (_SIDE, _SIDE, 3))


def sample_darts(
    count: int, seed: int, *, nodes: int = 4, window: Sequence[int] = (685_000, 906_000)
) -> list[Genotype]:
    """The first draws of a seed whose networks have a size in a window, all different.

    The paper's 500 have 0.685 to 0.906M parameters, which about every fifth draw has. The first
    of a larger sample with the same seed are the smaller sample.

    Args:
      count: how many.
      seed: of the draws.
      nodes: of a cell.
      window: the least and the most `parameters`.

    Raises:
      UserError: hardly any cell has such a size.
    """
    found: dict[Genotype, None] = {}
    number = 0
    while len(found) < count:
        if number >= _MAX_DRAWS_EACH * (len(found) + 1):
            raise UserError(
                f"config.sample.parameters={tuple(window)}: of {number:,} random cells with "
                f"{nodes} nodes only {len(found)} have such a size and are different; widen it"
            )
        genotype = draw_darts(seed, number, nodes)
        number += 1
        if window[0] <= parameters(genotype) <= window[1]:
            found[genotype] = None
    _LOG.info("Drew %d DARTS cells: %d of %d draws have the size.", count, len(found), number)
    return list(found)


def sample(config: Mapping[str, Any]) -> list[Architecture]:
    """The architectures that a valid config of a sweep (as a dict) asks for, by draws."""
    section, space = config["sample"], config["training"]["network"]["space"]
    cells: Sequence[Any]
    if space == "nasbench101":
        cells = enumeration.sample(section["count"], config["seed"])
    else:
        cells = sample_darts(
            section["count"], config["seed"], nodes=section["nodes"], window=section["parameters"]
        )
    return [_named(space, cell) for cell in cells]


def _parse(space: str, entry: Any) -> Any:
    """The cell of an entry of a list: a text, a cell as a dict, or a dict with the key `cell`."""
    if isinstance(entry, Mapping) and "cell" in entry:
        entry = entry["cell"]
    if isinstance(entry, Mapping):
        return nasbench101.from_dict(entry) if space == "nasbench101" else darts.from_dict(entry)
    if not isinstance(entry, str):
        raise UserError(f"expected a cell, got {reading.shown(entry)}")
    if len(entry) > _MOST_TEXT:
        raise UserError(f"{reading.shown(entry)} has {len(entry):,} characters and is no cell")
    return registry.SPACES[space].resolve(entry)


def _entries(path: str) -> list[Any]:
    """The entries of a list: of a JSON document, or the lines of a text."""
    path = os.path.expanduser(path)
    content = reading.user_text(path, "architectures", _MOST_BYTES)
    if content.lstrip()[:1] in ("[", "{"):
        try:
            value = reading.parse_json(content)
        except ValueError as error:
            raise UserError(f"architectures: {path} is not JSON ({error})") from error
        value = value.get("architectures") if isinstance(value, dict) else value
        if not isinstance(value, list):
            raise UserError(f"architectures: {path} has no list under the key 'architectures'")
        return value
    entries = [""]
    for line in (line.strip() for line in content.splitlines()):
        # What DARTS prints may go on over several lines.
        if entries[-1].count("(") > entries[-1].count(")") and len(entries[-1]) < _MOST_TEXT:
            entries[-1] += line
        elif line and not line.startswith("#"):
            entries.append(line)
    return entries[1:]


def read(path: str, space: str) -> list[Architecture]:
    """The architectures of a list.

    Args:
      path: of an `architectures.json`, of a JSON list of cells (texts, or as `as_dict` gives them),
        or of a text with a cell a line, where `#` begins a comment.
      space: what they are cells of.

    Raises:
      UserError: names the entry, counted from 1, that is no cell of the space or is there twice.
    """
    found: dict[str, int] = {}
    result = []
    for number, entry in enumerate(_entries(path), 1):
        try:
            architecture = _named(space, _parse(space, entry))
        except UserError as error:
            raise UserError(f"architectures: {path}, entry {number}: {error}") from error
        first = found.setdefault(architecture.name, number)
        if first != number:
            raise UserError(
                f"architectures: {path}: the entries {first} and {number} are the same cell; "
                "remove one"
            )
        result.append(architecture)
    if not result:
        raise UserError(f"architectures: {path} is empty; give a cell a line")
    return result


def write(path: str, architectures: Sequence[Architecture], provenance: Mapping[str, Any]) -> None:
    """Writes a list, atomically, that `read` reads."""
    document = {
        "schema": SCHEMA,
        **provenance,
        "architectures": [dataclasses.asdict(architecture) for architecture in architectures],
    }
    files.write_json(path, document)
