"""The DARTS space as a `registry.Space`: its trainings' settings, its cells, its networks."""

import logging
from typing import Any

from unnas_jax.config.schema import SampleSection
from unnas_jax.config.sections import NetworkSection
from unnas_jax.core import files
from unnas_jax.core.errors import UserError
from unnas_jax.layers.blocks import reductions
from unnas_jax.spaces.darts import genotype as genotype_lib
from unnas_jax.spaces.darts import published, sampling, widths
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.spaces.darts.network import Network
from unnas_jax.tasks.base import Examples, Task

_LOG = logging.getLogger("unnas_jax")

ANY = "darts_v2"
"""A valid cell, where none is chosen yet."""

resolve = published.resolve
from_dict = genotype_lib.from_dict
identity = str


def draw(section: SampleSection, seed: int) -> list[Genotype]:
    """The cells that a sweep's section `sample` asks for."""
    return sampling.sample_darts(
        section.count, seed, nodes=section.nodes, window=section.parameters
    )


def load(path: str) -> tuple[Genotype, dict[str, Any]]:
    """The genotype and the document of a `genotype.json`."""
    return genotype_lib.load(path)


def validate(section: NetworkSection) -> None:
    """Raises `UserError` if there are no such cells."""
    resolve(section.genotype)


def file_of(name: str) -> str | None:
    """None for a published name or a text; a search's workdir stands for its file."""
    if published.is_name(name) or genotype_lib.is_text(name):
        return None
    return files.or_in(name, "genotype.json")


def build(section: NetworkSection, task: Task, dtype: Any) -> Network:
    """The network of a valid config with the head of a task.

    Raises:
      UserError: no such genotype, or no width fits the window of `width='fit'`.
    """
    genotype = resolve(section.genotype)
    if section.width == "fit":
        window = widths.CITYSCAPES if task.single_reduction else widths.IMAGENET
        width = widths.fit_width(genotype, window)
        _LOG.info("Width %d fits %s into the paper's window.", width, section.genotype)
    else:
        width = int(section.width)
    return Network(
        genotype=genotype,
        width=width,
        cells=section.cells,
        stem=section.stem,
        head=task.head(dtype),
        auxiliary_classes=task.num_classes if section.auxiliary_weight else 0,
        single_reduction=task.single_reduction,
        dtype=dtype,
    )


def check_inputs(section: NetworkSection, task: Task, examples: Examples) -> None:
    """Raises `UserError` if the network cannot have the auxiliary head that the config asks for."""
    if not section.auxiliary_weight:
        return
    complaint = None
    if examples.targets.shape != examples.inputs.shape[:1]:
        complaint = f"it answers once an image, which is not the task {task.name!r}"
    else:
        # The head is on the output of the second reduction cell; it pools 5x5, then takes 2x2.
        imagenet = section.stem != "cifar"
        halvings = len(reductions(section.cells, single=False)) + (3 if imagenet else 0)
        side, least = -(-examples.inputs.shape[1] // 2**halvings), 7 if imagenet else 8
        if side < least:
            complaint = f"it needs features of at least {least} pixels, and there they have {side}"
    if complaint:
        raise UserError(
            f"config.network.auxiliary_weight={section.auxiliary_weight}: {complaint}; use 0, "
            "for no auxiliary head"
        )
