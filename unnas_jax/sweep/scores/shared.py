"""Scores by the weights of a single-path supernet, which was trained once for all cells."""

import functools

from unnas_jax.core.errors import UserError
from unnas_jax.core.logs import telling
from unnas_jax.runs import shared
from unnas_jax.runs.shared import Shared


@functools.lru_cache(maxsize=1)
def opened(workdir: str) -> Shared:
    """The supernet in a workdir; read once in a process."""
    with telling(f"Reading the supernet of {workdir}"):
        return shared.read(workdir)


def supernet(workdir: str, space: str) -> Shared:
    """The supernet in a workdir, if it has cells of a space.

    Raises:
      UserError: its cells are of another space.
    """
    found = opened(workdir)
    if found.space != space:
        raise UserError(
            f"supernet {workdir}: is one of the space {found.space!r}, the cells are of {space!r}"
        )
    return found
