"""Tests of classification: its examples, its score and what it refuses."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from tests.tasks import datasets
from unnas_jax.core.errors import UserError
from unnas_jax.tasks import base, registry


def test_examples_are_the_images_and_their_labels() -> None:
    task = registry.create(datasets.config("classification"), datasets.dataset(num_classes=7))
    batch = {"image": datasets.images(3, 5), "label": np.array([6, 0, 2], np.int32)}
    examples = datasets.examples(task, 0, batch, train=False)
    expected = (batch["image"] / 255.0 - datasets.MEAN) / datasets.STD
    np.testing.assert_allclose(examples.inputs, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(examples.targets, [6, 0, 2])
    np.testing.assert_array_equal(examples.weights, [1, 1, 1])
    assert (task.num_classes, task.input_channels, task.dense) == (7, 3, False)


def test_a_dataset_without_labels_is_refused() -> None:
    with pytest.raises(UserError, match="'classification'.*'some images' has no labels"):
        registry.create(datasets.config("classification"), datasets.dataset(num_classes=1))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_score_sums_over_the_rows_that_count(dtype: jnp.dtype) -> None:
    rng = np.random.default_rng(0)
    logits = jnp.asarray(10 * rng.standard_normal((9, 5)), dtype)
    targets = rng.integers(0, 5, 9)
    targets[:3] = np.argmax(np.asarray(logits[:3], np.float32), axis=1)
    weights = np.array([1, 1, 0, 1, 1, 0, 1, 1, 1], np.float32)
    sums = base.classification_score(logits, jnp.asarray(targets, jnp.int32), weights)
    values = np.asarray(logits, np.float64)
    losses = -special.log_softmax(values, axis=1)[np.arange(9), targets]
    hits = values.argmax(axis=1) == targets
    assert {v.dtype for v in sums.values()} == {jnp.dtype("float32")}
    np.testing.assert_allclose(sums["loss"], np.sum(losses * weights), rtol=1e-5)
    assert float(sums["correct"]) == np.sum(hits * weights) >= 2
    assert float(sums["count"]) == 7


def test_of_equal_logits_the_first_is_the_answer() -> None:
    logits = jnp.zeros((4, 4))
    sums = base.classification_score(logits, jnp.arange(4), jnp.ones(4))
    assert float(sums["correct"]) == 1
    np.testing.assert_allclose(sums["loss"], 4 * np.log(4), rtol=1e-6)


def test_registry_names_its_tasks() -> None:
    own = ("rotation", "colorization", "jigsaw", "classification", "segmentation")
    assert set(own) <= set(registry.TASKS)  # Other tests may have registered theirs.
    assert all(task.name == name for name, task in registry.TASKS.items())
