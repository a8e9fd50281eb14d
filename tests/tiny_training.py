"""A training small enough to compile in seconds, shared by the tests of steps and whole runs."""

import dataclasses

import jax.numpy as jnp
import ml_collections
import numpy as np

from unnas_jax.config import schema as config_lib
from unnas_jax.spaces.darts.genotype import Genotype
from unnas_jax.tasks import base

CELLS = Genotype(
    normal=(("sep_conv_3x3", 0), ("skip_connect", 1)),
    normal_concat=(2,),
    reduce=(("max_pool_3x3", 0), ("dil_conv_3x3", 1)),
    reduce_concat=(2,),
)
"""Cells of one node."""


def config(**train: float) -> ml_collections.ConfigDict:
    """Three cells of width 4 on crops of 16 pixels; no schedule, momentum, decay or smoothing."""
    c = config_lib.training()
    c.dataset.name = "photos"
    c.task.label_smoothing = 0.0
    c.input.update(crop=16, resize=18, train_crop="resize_random", lighting=0.0)
    c.network.update(genotype=str(CELLS), width="4", cells=3, stem="cifar", auxiliary_weight=0.0)
    c.weights.update(learning_rate=0.1, warmup_epochs=0, momentum=0.0, weight_decay=0.0)
    c.weights.nesterov = False
    c.train.update(batch_size=8, epochs=1000)
    c.train.update(train)
    c.eval.batch_size = 8
    return c


def images(count=8, seed=0, classes=3):
    """A batch of noise whose red is the darker the higher the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=count).astype(np.int32)
    images = rng.integers(0, 256, (count, 16, 16, 3)).astype(np.uint8)
    images[..., 0] //= 1 + labels[:, None, None].astype(np.uint8)
    return {"image": images, "label": labels}


@dataclasses.dataclass(frozen=True)
class Plain:
    """Three classes of the images as they are; nothing is augmented."""

    num_classes: int = 3
    label_maps = False
    records = False
    memorises = False
    smoothing: float = 0.0

    def examples(self, key, batch, *, train):
        x = jnp.asarray(batch["image"], jnp.float32) / 255.0
        return base.Examples(x, batch["label"], base.image_weights(batch))

    def score(self, outputs, examples, *, train):
        smoothing = self.smoothing if train else 0.0
        return base.classification_score(
            outputs, examples.targets, examples.weights, smoothing=smoothing
        )
