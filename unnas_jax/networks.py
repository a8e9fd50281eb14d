"""The discrete network that the config of a training describes."""

import logging
from collections.abc import Mapping
from typing import Any

from unnas_jax import complexity, precision
from unnas_jax.spaces.darts import published
from unnas_jax.spaces.darts.network import Network
from unnas_jax.tasks.base import Task

_LOG = logging.getLogger("unnas_jax")


def build_network(config: Mapping[str, Any], task: Task) -> Network:
    """The discrete network of a validated config (as a dict) with the head of a task.

    Raises:
      UserError: no such genotype, or no width fits the window of `width='fit'`.
    """
    section = config["network"]
    genotype = published.resolve(section["genotype"])
    dtype = precision.compute_dtype(config["precision"])
    width = section["width"]
    if width == "fit":
        window = complexity.CITYSCAPES if task.single_reduction else complexity.IMAGENET
        width = complexity.fit_width(genotype, window)
        _LOG.info("Width %d fits %s into the paper's window.", width, section["genotype"])
    return Network(
        genotype=genotype,
        width=int(width),
        cells=section["cells"],
        stem=section["stem"],
        head=task.head(dtype),
        auxiliary_classes=task.num_classes if section["auxiliary_weight"] else 0,
        single_reduction=task.single_reduction,
        dtype=dtype,
    )
