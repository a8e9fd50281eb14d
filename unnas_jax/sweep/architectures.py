"""Samples of architectures: drawn from a search space, or read from a list."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from unnas_jax.config.schema import SampleConfig
from unnas_jax.core import files, reading
from unnas_jax.core.errors import UserError
from unnas_jax.spaces import names, registry

SCHEMA = "unnas_jax.architectures/1"
FILE = "architectures.json"

_MOST_BYTES = 2**25  # Bytes of a list: all cells of NAS-Bench-101 as texts.
_MOST_TEXT = 2**14  # Characters of a cell.


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One point of a search space.

    Attributes:
      name: `SPACE-` and twelve digits that only this cell has, on whatever dataset it is trained.
      cell: the text that a training's `network.genotype` takes.
    """

    name: str
    cell: str


def named(space: str, cell: Any) -> Architecture:
    """A cell of a space with its name."""
    return Architecture(names.of_cell(space, cell), str(cell))


def sample(config: SampleConfig) -> list[Architecture]:
    """The architectures that a valid config of a sweep asks for, by draws."""
    space = config.training.network.space
    cells = registry.SPACES[space].draw(config.sample, config.seed)
    return [named(space, cell) for cell in cells]


def _parse(space: str, entry: Any) -> Any:
    """The cell of an entry of a list: a text, a cell as a dict, or a dict with the key `cell`."""
    if isinstance(entry, Mapping) and "cell" in entry:
        entry = entry["cell"]
    if isinstance(entry, Mapping):
        return registry.SPACES[space].from_dict(entry)
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
            raise UserError(
                f"architectures: {path} has no list under the key 'architectures'; to name a file "
                "of a cell, write its path on a line of a text"
            )
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
      space: the space of the cells.

    Raises:
      UserError: names the entry, counted from 1, that is no cell of the space or is there twice.
    """
    found: dict[str, int] = {}
    result = []
    for number, entry in enumerate(_entries(path), 1):
        try:
            architecture = named(space, _parse(space, entry))
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
