"""A training of a task that memorises, in a run: what it learns from, what it is evaluated on."""

import numpy as np
import pytest

import tests.toy_space  # noqa: F401 (Registers its space.)
import unnas_jax as un
from tests import tiny_training
from unnas_jax.data.order import evaluation_sample


def test_random_labels_are_learned_by_heart_and_evaluated_on_what_was_learned(tmp_path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 8, 8, 3), np.uint8)
    un.register_dataset("noise", un.arrays(images, validation=images[:40] // 2))
    config = tiny_training.config(batch_size=8, epochs=60, max_images=8)
    config.dataset.name, config.seeds, config.workers = "noise", 1, 0
    config.task.update(name="random_labels", random_classes=3)
    config.input.update(crop=8, resize=8, train_crop="none")
    config.network.update(space="chains", genotype="3", width="16")
    config.weights.momentum = 0.9
    config.eval.every_epochs = 60
    result = un.train(config, tmp_path / "run")
    # Eight images of noise: only by heart, and only these.
    assert result["mean"] > 0.9 and result["warnings"] == []
    assert result["chance"] == pytest.approx(max(np.bincount(labels(config, 8))) / 8)


def labels(config, count: int) -> np.ndarray:
    """The classes of the images that the training drew."""
    drawn = evaluation_sample(np.arange(64), count, config.seed).astype(np.int32)
    task = un.task("random_labels", crop=8, random_classes=3, seed=config.seed)
    return np.asarray(task.labels(drawn))
