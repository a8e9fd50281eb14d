"""Functions of the spaces of NAS benchmarks: cells in files, and settings that are refused."""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from unnas_jax.config.sections import NetworkSection
from unnas_jax.core import files, reading
from unnas_jax.core.errors import UserError

Spec = TypeVar("Spec")


def file_of(name: str) -> str | None:
    """The file that a name means, a directory for its genotype.json; None for a cell's text."""
    path = files.or_in(name, "genotype.json")
    return path if path.endswith(".json") or os.path.isfile(path) else None


def load(path: str, from_dict: Callable[[Mapping[str, Any]], Spec]) -> tuple[Spec, dict[str, Any]]:
    """The cell and the whole content of a file, which is as `as_dict` wrote it or has more keys.

    Raises:
      UserError: the file is no cell's.
    """
    document = reading.document(path, object, what="cell")
    try:
        return from_dict(document), document
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def refuse_settings(section: NetworkSection, benchmark: str, width: int) -> None:
    """Raises `UserError` for settings of networks of the DARTS space alone.

    Args:
      section: a training's config.network.
      benchmark: its name.
      width: of the stem in the benchmark.
    """
    wrong = {key: 0 for key in ("auxiliary_weight", "drop_path") if getattr(section, key)}
    if wrong:
        given = ", ".join(f"config.network.{key}={getattr(section, key)}" for key in wrong)
        flags = " ".join(f"--config.network.{key}=0" for key in wrong)
        raise UserError(
            f"{given}: networks of {benchmark} have neither auxiliary head nor drop path; "
            f"use {flags}"
        )
    if section.width == "fit":
        raise UserError(
            f"config.network.width='fit': networks of {benchmark} have no window of sizes; give "
            f"the channels of the stem, {width} in the benchmark"
        )
