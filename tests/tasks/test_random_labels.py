"""Random labels: a function of seed and number, uniform, learned by heart."""

import jax
import numpy as np
import pytest

from tests.tasks import datasets
from unnas_jax.core.errors import UserError
from unnas_jax.tasks import registry


def task(seed: int = 0, classes: int = 0, dataset=None):
    config = datasets.config("random_labels", random_classes=classes)
    return registry.create({**config, "seed": seed}, dataset or datasets.plain())


def test_a_label_belongs_to_the_image_s_number_whatever_the_batch() -> None:
    numbers = np.arange(4000, dtype=np.int32)
    labels = np.asarray(task().labels(numbers))
    some = np.array([3999, 17, 0], np.int32)
    np.testing.assert_array_equal(task().labels(some), labels[some])
    # Any step, any key, training or not: the same.
    for train in (True, False):
        batch = {"image": datasets.images(3, 8), "record": some}
        examples = datasets.examples(task(), train, batch, train=train)
        np.testing.assert_array_equal(examples.targets, labels[some])
        ((first,), _, _) = task().panels(jax.device_get(examples), None)
        assert first.title == f"drawn: {labels[3999]}"
    assert (np.asarray(task(seed=1).labels(numbers)) == labels).mean() < 0.15


def test_labels_are_uniform_over_the_classes() -> None:
    for classes in (0, 7):
        labels = np.asarray(task(classes=classes).labels(np.arange(7000, dtype=np.int32)))
        counts = np.bincount(labels)
        assert len(counts) == (classes or 10)
        expected = 7000 / len(counts)
        # Chi-squared of 9 or 6 degrees of freedom: above 28 with a probability of 0.001.
        assert np.sum((counts - expected) ** 2 / expected) < 28


def test_what_cannot_be_learned_is_refused() -> None:
    with pytest.raises(UserError, match="random_classes=0: .* has no classes"):
        task(dataset=datasets.dataset(num_classes=0))
    with pytest.raises(UserError, match="random_classes=1"):
        registry.task("random_labels", classes=10, random_classes=1)
    with pytest.raises(UserError, match="'record'"):
        batch = {"image": datasets.images(1, 8)}
        datasets.examples(task(), 0, batch, train=True)
