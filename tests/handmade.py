"""Networks with arbitrary variables, as if they had been trained."""

import jax
import numpy as np

from tests import tiny_training
from unnas_jax.config.schema import TrainConfig
from unnas_jax.data import Dataset
from unnas_jax.runs.trained import Trained
from unnas_jax.spaces.networks import build_network
from unnas_jax.tasks import registry
from unnas_jax.tasks.base import example_shapes

NAMES = ("cat", "dog", "e\u0301mu")

SMALL = {
    "space": "nasbench201",
    "genotype": "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|",
    "cells": 3,
}
"""A section `network` that XLA compiles in seconds."""


def trained(seeds: tuple[int, ...] = (0,), **sections: dict) -> Trained:
    """A network of `tiny_training`'s config with changed sections, for pictures of three pets."""
    config = tiny_training.config()
    config.precision = "float32"
    for section, values in sections.items():
        config[section].update(values)
    values = config.to_dict()
    dataset = Dataset("pets", {}, len(NAMES), NAMES)
    task = registry.create(values, dataset)
    network = build_network(values, task)
    inputs = example_shapes(values, task).inputs
    shapes = jax.eval_shape(
        lambda key: network.lazy_init(key, inputs, train=False), jax.random.key(0)
    )
    rng = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        kind = path[-1].key
        size = (len(seeds), *leaf.shape)
        if kind in ("var", "scale"):
            return rng.uniform(0.5, 1.5, size).astype(np.float32)
        deviation = np.prod(leaf.shape[:-1]) ** -0.5 if kind == "kernel" else 0.2
        return rng.normal(0.0, deviation, size).astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, shapes)
    return Trained("runs/pets", TrainConfig.of(values), dataset, task, network, variables, seeds, 7)
